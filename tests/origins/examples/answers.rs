//! Answers in many ways, good and bad: the path says which.

use std::{fs, io::Write as _, net::TcpStream};
use wasip2::{
    cli::environment,
    clocks::monotonic_clock,
    exports::http::incoming_handler::Guest,
    http::{
        outgoing_handler,
        types::{
            ErrorCode, Fields, IncomingBody, IncomingRequest, Method, OutgoingBody, OutgoingRequest,
            OutgoingResponse, ResponseOutparam, Scheme,
        },
    },
    io::streams::{OutputStream, StreamError},
};

struct Answers;

wasip2::http::proxy::export!(Answers);

impl Guest for Answers {
    #[expect(clippy::too_many_lines, reason = "a table")]
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let target = request.path_with_query().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let wish = path.rsplit('/').next().unwrap_or_default();
        match wish {
            "hello" => say(out, &format!("hello from {}", words(&request))),
            "echo" => echo(&request, out),
            "talk" => talk(&request, out),
            "count" => say(out, &format!("{} bytes", count(&request))),
            "unread" => say(out, "not read"),
            "headers" => say(out, &shown(&request.headers())),
            "grown" => grown(out, query),
            "hop" => say(out, &hop()),
            "status" => begun(out, &[], query.parse().expect("a status"), None).end("with a body"),
            "short" => begun(out, &[("content-length", "10")], 200, None).end("123"),
            "long" => begun(out, &[("content-length", "3")], 200, None).end("1234567890"),
            "left" => begun(out, &[], 200, None).leave("some of it"),
            "trap" => panic!("this goes wrong at once"),
            "trap-late" => {
                let answer = begun(out, &[], 200, None);
                answer.write(b"some of it");
                wait_for_body(&request);
                panic!("this goes wrong in the middle");
            }
            "spin" => spin(),
            "spin-late" => {
                begun(out, &[], 200, None).write(b"some of it");
                spin();
            }
            "hog" => hog(out),
            "silent" => {}
            "refuse" => ResponseOutparam::set(out, Err(ErrorCode::InternalError(Some("no".to_owned())))),
            "exit" => std::process::exit(3),
            "wait" => {
                monotonic_clock::subscribe_duration(3_600_000_000_000).block();
                say(out, "an hour later");
            }
            "env" => say(out, &environment_text()),
            "files" => say(out, &format!("{:?}", fs::read("/etc/passwd").map(|_| ()).map_err(|e| e.kind()))),
            "sockets" => {
                say(out, &format!("{:?}", TcpStream::connect(query).map(|_| ()).map_err(|e| e.kind())))
            }
            "fetch" => fetch(out, query),
            "pass" => pass(&request, out, query),
            "after" => {
                say(out, "answered");
                let told = send(&Method::Get, query, None).map(|_| ());
                println!("afterwards: {told:?}");
            }
            "print" => {
                println!("to the output\nin two lines");
                eprint!("to the errors, without an end");
                say(out, "printed");
            }
            "flood" => {
                (0..1000).for_each(|line| println!("line {line}"));
                say(out, "printed");
            }
            "transformed" => begun(out, &[("x-transform", "upper")], 200, None).end("in capitals"),
            "trailers" => {
                let trailers = Fields::new();
                trailers.set("x-sum", &[b"7".to_vec()]).expect("a trailer");
                begun(out, &[], 200, None).finish("a body", Some(trailers));
            }
            _ => begun(out, &[], 404, None).end("no such wish"),
        }
    }
}

fn words(request: &IncomingRequest) -> String {
    let scheme = match request.scheme() {
        Some(Scheme::Https) => "https",
        Some(Scheme::Http) => "http",
        _ => "?",
    };
    let method = match request.method() {
        Method::Get => "GET".to_owned(),
        Method::Post => "POST".to_owned(),
        method => format!("{method:?}"),
    };
    let authority = request.authority().unwrap_or_default();
    format!("{method} {scheme}://{authority}{}", request.path_with_query().unwrap_or_default())
}

/// An answer that was begun.
struct Answer {
    body: OutgoingBody,
    stream: OutputStream,
}

fn begun(out: ResponseOutparam, headers: &[(&str, &str)], status: u16, fields: Option<Fields>) -> Answer {
    let fields = fields.unwrap_or_else(Fields::new);
    for (name, value) in headers {
        fields.append(name, value.as_bytes()).expect("a header");
    }
    let response = OutgoingResponse::new(fields);
    response.set_status_code(status).expect("a status");
    let body = response.body().expect("a body");
    ResponseOutparam::set(out, Ok(response));
    let stream = body.write().expect("a stream");
    Answer { body, stream }
}

impl Answer {
    /// Nobody may take it: then this gives up quietly.
    fn write(&self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            let room = match self.stream.check_write() {
                Ok(0) => {
                    self.stream.subscribe().block();
                    continue;
                }
                Ok(room) => bytes.len().min(room as usize),
                Err(_) => return false,
            };
            let (now, later) = bytes.split_at(room);
            if self.stream.write(now).is_err() || self.stream.blocking_flush().is_err() {
                return false;
            }
            bytes = later;
        }
        true
    }

    fn end(self, text: &str) {
        self.finish(text, None);
    }

    fn finish(self, text: &str, trailers: Option<Fields>) {
        self.write(text.as_bytes());
        let Self { body, stream } = self;
        drop(stream);
        let _ = OutgoingBody::finish(body, trailers);
    }

    /// Lets go of it without an end.
    fn leave(self, text: &str) {
        self.write(text.as_bytes());
    }
}

fn say(out: ResponseOutparam, text: &str) {
    begun(out, &[("content-type", "text/plain")], 200, None).end(text);
}

/// Reads a body to its end, by pieces.
fn each_piece(request: &IncomingRequest, mut piece: impl FnMut(&[u8]) -> bool) -> Option<IncomingBody> {
    let body = request.consume().expect("a body");
    let stream = body.stream().expect("a stream");
    let whole = loop {
        match stream.blocking_read(64 * 1024) {
            Ok(bytes) => {
                if !piece(&bytes) {
                    break false;
                }
            }
            Err(StreamError::Closed) => break true,
            Err(StreamError::LastOperationFailed(_)) => break false,
        }
    };
    drop(stream);
    whole.then_some(body)
}

fn echo(request: &IncomingRequest, out: ResponseOutparam) {
    let answer = begun(out, &[], 200, None);
    let read = each_piece(request, |piece| answer.write(piece));
    let Some(read) = read else { return answer.leave("") };
    let coming = IncomingBody::finish(read);
    coming.subscribe().block();
    let trailers = coming.get().and_then(Result::ok).and_then(Result::ok).flatten();
    let copy = trailers.map(|trailers| Fields::from_list(&trailers.entries()).expect("trailers"));
    answer.finish("", copy);
}

/// Says something, and goes on once the client has said all of its own.
fn talk(request: &IncomingRequest, out: ResponseOutparam) {
    let answer = begun(out, &[], 200, None);
    answer.write(b"first, ");
    each_piece(request, |_| true);
    answer.end("last");
}

fn count(request: &IncomingRequest) -> u64 {
    let mut bytes = 0;
    let whole = each_piece(request, |piece| {
        bytes += piece.len() as u64;
        true
    });
    assert!(whole.is_some(), "it broke off after {bytes} bytes");
    bytes
}

fn wait_for_body(request: &IncomingRequest) {
    each_piece(request, |_| true);
}

fn shown(headers: &Fields) -> String {
    let line = |(name, value): (String, Vec<u8>)| format!("{name}: {}\n", String::from_utf8_lossy(&value));
    headers.entries().into_iter().map(line).collect()
}

/// An answer with so many bytes of headers.
fn grown(out: ResponseOutparam, query: &str) {
    let bytes: usize = query.parse().expect("a number");
    let fields = Fields::new();
    for number in 0..bytes.div_ceil(1000) {
        fields.append(&format!("x-much-{number}"), &vec![b'x'; 980]).expect("a header");
    }
    begun(out, &[], 200, Some(fields)).end("much");
}

/// What becomes of headers that are about the connection.
fn hop() -> String {
    let fields = Fields::new();
    ["connection", "keep-alive", "transfer-encoding", "upgrade", "te", "host", "proxy-connection"]
        .into_iter()
        .map(|name| format!("{name}: {}\n", fields.set(name, &[b"x".to_vec()]).is_ok()))
        .collect()
}

fn spin() -> ! {
    let mut number = 0_u64;
    loop {
        number = std::hint::black_box(number.wrapping_add(1));
    }
}

fn hog(out: ResponseOutparam) {
    let mut all: Vec<Vec<u8>> = Vec::new();
    loop {
        let mut more = Vec::new();
        if more.try_reserve_exact(1024 * 1024).is_err() {
            break;
        }
        more.resize(1024 * 1024, 1);
        all.push(more);
    }
    let held = all.len();
    drop(all);
    say(out, &format!("{held} MiB"));
}

fn environment_text() -> String {
    let mut variables = environment::get_environment();
    variables.sort();
    let arguments = environment::get_arguments();
    variables.iter().map(|(name, value)| format!("{name}={value}\n")).collect::<String>()
        + &format!("{arguments:?}")
}

/// `http://host:port/path` to its three parts.
fn parts(url: &str) -> (Scheme, &str, &str) {
    let (scheme, rest) = url.split_once("://").expect("a URL");
    let scheme = if scheme == "https" { Scheme::Https } else { Scheme::Http };
    let at = rest.find('/').unwrap_or(rest.len());
    (scheme, &rest[..at], &rest[at..])
}

fn prepared(method: &Method, url: &str) -> OutgoingRequest {
    let (scheme, authority, path) = parts(url);
    let fields = Fields::new();
    fields.set("x-from", &[b"a component".to_vec()]).expect("a header");
    let request = OutgoingRequest::new(fields);
    request.set_method(method).expect("a method");
    request.set_scheme(Some(&scheme)).expect("a scheme");
    request.set_authority(Some(authority)).expect("an authority");
    request.set_path_with_query(Some(path)).expect("a path");
    request
}

fn send(
    method: &Method,
    url: &str,
    from: Option<&IncomingRequest>,
) -> Result<wasip2::http::types::IncomingResponse, ErrorCode> {
    let request = prepared(method, url);
    let body = request.body().expect("a body");
    let answering = outgoing_handler::handle(request, None)?;
    match from {
        None => OutgoingBody::finish(body, None)?,
        Some(from) => {
            let mut stream = body.write().expect("a stream");
            each_piece(from, |piece| stream.write_all(piece).is_ok());
            stream.flush().expect("a flush");
            drop(stream);
            OutgoingBody::finish(body, None)?;
        }
    }
    answering.subscribe().block();
    answering.get().expect("an answer").expect("taken once")
}

fn pass_back(out: ResponseOutparam, answered: Result<wasip2::http::types::IncomingResponse, ErrorCode>) {
    let response = match answered {
        Ok(response) => response,
        Err(error) => return begun(out, &[], 502, None).end(&format!("{error:?}")),
    };
    let answer = begun(out, &[], response.status(), None);
    let body = response.consume().expect("a body");
    let stream = body.stream().expect("a stream");
    loop {
        match stream.blocking_read(64 * 1024) {
            Ok(piece) => {
                if !answer.write(&piece) {
                    return;
                }
            }
            Err(StreamError::Closed) => break,
            Err(StreamError::LastOperationFailed(error)) => {
                return answer.leave(&format!("[{}]", error.to_debug_string()));
            }
        }
    }
    answer.end("");
}

fn fetch(out: ResponseOutparam, url: &str) {
    pass_back(out, send(&Method::Get, url, None));
}

fn pass(request: &IncomingRequest, out: ResponseOutparam, url: &str) {
    pass_back(out, send(&Method::Post, url, Some(request)));
}
