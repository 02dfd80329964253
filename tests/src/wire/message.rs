//! HTTP/1 messages taken apart to the letter: what a gateway writes has to be right byte by byte, so
//! nothing is forgiven here.

use super::latin;

/// A message, or what there is of one. Bytes outside ASCII are the characters of Latin-1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its first line.
    pub start: String,
    /// Its header lines, in order.
    pub fields: Vec<(String, String)>,
    /// What tells where its body ends.
    pub framing: Framing,
    /// Its body, without the framing.
    pub body: Vec<u8>,
    /// Its trailer lines, in order.
    pub trailers: Vec<(String, String)>,
}

/// What tells where a body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    None,
    /// `Content-Length`.
    Length(usize),
    /// Chunks.
    Chunked,
    /// The end of the connection.
    Close,
}

/// What bytes begin with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed {
    /// A message, and how many bytes it takes.
    Whole(Message, usize),
    /// A message that goes on; its head where that is complete, with what came of the body.
    Unfinished(Option<Message>),
    /// No message, and why.
    Wrong(String),
}

impl Message {
    /// All values of a header, in order.
    pub fn values(&self, name: &str) -> Vec<&str> {
        let same = self.fields.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
        same.map(|(_, value)| value.as_str()).collect()
    }

    /// The parts of its first line: a request's method, target and version, or an answer's version,
    /// status and reason.
    pub fn parts(&self) -> [&str; 3] {
        let mut parts = self.start.splitn(3, ' ');
        [(); 3].map(|()| parts.next().unwrap_or_default())
    }

    /// The status of an answer.
    pub fn status(&self) -> u16 {
        self.parts()[1].parse().unwrap_or_default()
    }
}

/// The request that bytes begin with.
pub fn request(bytes: &[u8]) -> Parsed {
    parse(bytes, |message| {
        let [method, target, version] = message.parts();
        let good = is_token(method) && target.bytes().all(|byte| byte.is_ascii_graphic());
        if !good || target.is_empty() || version != "HTTP/1.1" {
            return Err(format!("the request line {:?}", message.start));
        }
        Ok(declared(message)?.unwrap_or(Framing::None))
    })
}

/// The answer to a request with this method that bytes begin with. `ended` says that no more will
/// come.
pub fn answer(bytes: &[u8], method: &str, ended: bool) -> Parsed {
    let mut parsed = parse(bytes, |message| {
        let [version, status, _] = message.parts();
        let digits = status.len() == 3 && status.bytes().all(|byte| byte.is_ascii_digit());
        if !digits || !matches!(version, "HTTP/1.0" | "HTTP/1.1") {
            return Err(format!("the status line {:?}", message.start));
        }
        let declared = declared(message)?;
        match message.status() {
            // RFC 9110 §8.6, RFC 9112 §6.1.
            100..=199 | 204 if declared.is_some() => Err("a framed answer that has no body".to_owned()),
            100..=199 | 204 | 304 => Ok(Framing::None),
            _ if method == "HEAD" => Ok(Framing::None),
            _ => Ok(declared.unwrap_or(Framing::Close)),
        }
    });
    if ended
        && let Parsed::Unfinished(Some(message)) = &mut parsed
        && message.framing == Framing::Close
    {
        return Parsed::Whole(message.clone(), bytes.len());
    }
    parsed
}

/// All answers that bytes hold, to requests with these methods, and what is behind them, if there is
/// anything. A question that is not among the methods was a GET.
pub fn answers(mut bytes: &[u8], methods: &[&str], ended: bool) -> (Vec<Message>, Option<Parsed>) {
    let (mut all, mut methods) = (Vec::new(), methods.iter());
    let mut method = methods.next().unwrap_or(&"GET");
    while !bytes.is_empty() {
        match answer(bytes, method, ended) {
            Parsed::Whole(message, used) => {
                if !(100..200).contains(&message.status()) || message.status() == 101 {
                    method = methods.next().unwrap_or(&"GET");
                }
                all.push(message);
                bytes = &bytes[used..];
            }
            other => return (all, Some(other)),
        }
    }
    (all, None)
}

/// Whether a message says that it is the last one on its connection.
pub fn closes(message: &Message) -> bool {
    let values = message.values("connection");
    values.iter().flat_map(|value| value.split(',')).any(|token| token.trim().eq_ignore_ascii_case("close"))
}

/// Why a message was not read to its end.
enum Stop {
    More,
    Wrong(String),
}

fn wrong<T>(what: impl Into<String>) -> Result<T, Stop> {
    Err(Stop::Wrong(what.into()))
}

fn parse(bytes: &[u8], framing: impl Fn(&Message) -> Result<Framing, String>) -> Parsed {
    let mut reader = Reader(bytes);
    let mut message = match reader.head() {
        Ok(message) => message,
        Err(Stop::More) => return Parsed::Unfinished(None),
        Err(Stop::Wrong(why)) => return Parsed::Wrong(why),
    };
    match framing(&message) {
        Ok(framing) => message.framing = framing,
        Err(why) => return Parsed::Wrong(why),
    }
    match reader.body(&mut message) {
        Ok(()) => Parsed::Whole(message, bytes.len() - reader.0.len()),
        Err(Stop::More) => Parsed::Unfinished(Some(message)),
        Err(Stop::Wrong(why)) => Parsed::Wrong(why),
    }
}

/// What the framing fields say, if there are any.
fn declared(message: &Message) -> Result<Option<Framing>, String> {
    match (&message.values("content-length")[..], &message.values("transfer-encoding")[..]) {
        ([], []) => Ok(None),
        ([length], []) if !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit()) => {
            let length = length.parse().map_err(|_| format!("the length {length:?}"))?;
            Ok(Some(Framing::Length(length)))
        }
        ([], ["chunked"]) if message.start.contains("HTTP/1.1") => Ok(Some(Framing::Chunked)),
        (lengths, codings) => Err(format!("the framing {lengths:?}, {codings:?}")),
    }
}

fn is_token(text: &str) -> bool {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_token)
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn head(&mut self) -> Result<Message, Stop> {
        let start = latin(self.line()?);
        let (framing, body, trailers) = (Framing::None, Vec::new(), Vec::new());
        Ok(Message { start, fields: self.fields()?, framing, body, trailers })
    }

    fn body(&mut self, message: &mut Message) -> Result<(), Stop> {
        match message.framing {
            Framing::None => Ok(()),
            Framing::Length(length) => self.data(length, &mut message.body),
            Framing::Close => self.data(usize::MAX, &mut message.body),
            Framing::Chunked => loop {
                let line = latin(self.line()?);
                if line.is_empty() || !line.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                    return wrong(format!("the chunk size {line:?}"));
                }
                match usize::from_str_radix(&line, 16) {
                    Ok(0) => {
                        message.trailers = self.fields()?;
                        return Ok(());
                    }
                    Ok(size) => self.data(size, &mut message.body)?,
                    Err(_) => return wrong(format!("the chunk size {line:?}")),
                }
                if !self.line()?.is_empty() {
                    return wrong("a chunk that is longer than its size");
                }
            },
        }
    }

    /// A line, without its end.
    fn line(&mut self) -> Result<&'a [u8], Stop> {
        let Some(end) = self.0.iter().position(|byte| *byte == b'\n') else { return Err(Stop::More) };
        let Some(line) = self.0[..end].strip_suffix(b"\r") else { return wrong("a line that ends in LF") };
        self.0 = &self.0[end + 1..];
        match line.iter().find(|byte| byte.is_ascii_control() && **byte != b'\t') {
            Some(byte) => wrong(format!("the byte {byte:#x} in a line")),
            None => Ok(line),
        }
    }

    /// Lines up to the empty one.
    fn fields(&mut self) -> Result<Vec<(String, String)>, Stop> {
        let mut fields = Vec::new();
        loop {
            let line = latin(self.line()?);
            if line.is_empty() {
                return Ok(fields);
            }
            match line.split_once(':') {
                Some((name, value)) if is_token(name) => {
                    fields.push((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()));
                }
                _ => return wrong(format!("the line {line:?}")),
            }
        }
    }

    fn data(&mut self, length: usize, to: &mut Vec<u8>) -> Result<(), Stop> {
        let (data, rest) = self.0.split_at(length.min(self.0.len()));
        to.extend_from_slice(data);
        self.0 = rest;
        if data.len() < length { Err(Stop::More) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn whole(parsed: Parsed) -> (Message, usize) {
        match parsed {
            Parsed::Whole(message, used) => (message, used),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn messages_of_every_framing_are_read_to_their_end() {
        let text = b"POST /x HTTP/1.1\r\nHost: a\r\nx:\tcaf\xe9 \r\ncontent-length: 4\r\n\r\npingGET";
        let (message, used) = whole(request(text));
        assert_eq!((message.parts(), used), (["POST", "/x", "HTTP/1.1"], text.len() - 3));
        assert_eq!((message.values("host"), message.values("X")), (vec!["a"], vec!["caf\u{e9}"]));
        assert_eq!((message.framing, message.body), (Framing::Length(4), b"ping".to_vec()));
        let text =
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\npo\r\n2\r\nng\r\n0\r\nx: 1\r\n\r\n";
        let (message, used) = whole(answer(text, "GET", false));
        assert_eq!((message.status(), used), (200, text.len()));
        assert_eq!((message.body, message.trailers), (b"pong".to_vec(), vec![("x".into(), "1".into())]));
        assert_eq!(whole(answer(text, "HEAD", false)).0.body, b"");
        let text = b"HTTP/1.0 200 OK\r\n\r\npong";
        assert!(matches!(answer(text, "GET", false), Parsed::Unfinished(Some(_))), "it could go on");
        assert_eq!(whole(answer(text, "GET", true)).0.body, b"pong");
    }

    #[test]
    fn a_message_is_whole_at_its_last_byte_and_not_before() {
        for text in [
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nping",
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n4\r\nping\r\n0\r\nx: 1\r\n\r\n",
        ] {
            let bytes = text.as_bytes();
            for end in 0..bytes.len() {
                assert!(matches!(request(&bytes[..end]), Parsed::Unfinished(_)), "{:?}", &text[..end]);
            }
            whole(request(bytes));
        }
    }

    #[test]
    fn nothing_is_forgiven() {
        for text in [
            "GET  / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.0\r\n\r\n",
            "GET / HTTP/1.1\n\r\n",
            "GET / HTTP/1.1\r\nx : 1\r\n\r\n",
            "GET / HTTP/1.1\r\nx: 1\r\n 2\r\n\r\n",
            "GET / HTTP/1.1\r\nx: \0\r\n\r\n",
            "GET / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\nx",
            "GET / HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            "GET / HTTP/1.1\r\ncontent-length: +1\r\n\r\nx",
            "GET / HTTP/1.1\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            "GET / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1;x\r\nx\r\n0\r\n\r\n",
            "GET / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1\r\nxy\r\n0\r\n\r\n",
        ] {
            assert!(matches!(request(text.as_bytes()), Parsed::Wrong(_)), "{text:?}");
        }
        for text in [
            "HTTP/1.1 20 OK\r\n\r\n",
            "HTTP/2.0 200 OK\r\n\r\n",
            "HTTP/1.1 204 None\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        ] {
            assert!(matches!(answer(text.as_bytes(), "GET", true), Parsed::Wrong(_)), "{text:?}");
        }
    }

    #[test]
    fn answers_are_told_apart() {
        let text = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n\
            HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 2";
        let (all, rest) = answers(text, &["HEAD", "GET"], true);
        let seen: Vec<_> = all.iter().map(|answer| (answer.status(), answer.body.len())).collect();
        assert_eq!(seen, [(100, 0), (200, 0), (200, 2)]);
        assert_eq!(rest, Some(Parsed::Unfinished(None)));
        assert_eq!(answers(&text[..text.len() - 10], &["HEAD", "GET"], true).1, None);
    }
}
