//! Clients that behave: every byte that comes back is compared.

use crate::{
    Wrong,
    random::{Random, bytes},
    stage::{Stage, TOKEN},
    tally::Load,
};
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http::{Request, Response, request::Builder};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::BoxBody};
use hyper::{
    body::{Frame, Incoming},
    client::conn::http1,
};
use hyper_util::rt::TokioIo;
use std::{cell::Cell, convert::Infallible, net::SocketAddr, rc::Rc, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinHandle,
};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, tungstenite::Message};

pub(crate) type Body = BoxBody<Bytes, Infallible>;

/// Adds them all.
pub(crate) fn add(load: &mut Load, stage: &Rc<Stage>) {
    let (web, raw) = (stage.web, stage.raw);
    load.add("bodies on kept connections", 4, |turn| async move {
        let mut kept = None;
        turn.repeat(Duration::from_millis(10), async |random| kept_body(&mut kept, web, random).await).await;
    });
    load.add("uploads in chunks", 2, |turn| async move {
        let mut kept = None;
        turn.repeat(Duration::from_millis(20), async |random| in_chunks(&mut kept, web, random).await).await;
    });
    load.add("requests on new connections", 2, |turn| async move {
        let once = async |random: &mut Random| kept_body(&mut None, web, random).await;
        turn.repeat(Duration::from_millis(20), once).await;
    });
    load.add("three requests at once", 1, |turn| async move {
        turn.repeat(Duration::from_millis(25), async |random| pipelined(web, random).await).await;
    });
    let newest = Rc::new(Cell::new(1));
    load.add("plugins, right and wrong tokens", 3, |turn| {
        let newest = Rc::clone(&newest);
        async move {
            let mut kept = None;
            let once = async |random: &mut Random| guarded(&mut kept, web, random, &newest).await;
            turn.repeat(Duration::from_millis(10), once).await;
        }
    });
    load.add("messages on a WebSocket", 3, |turn| async move {
        let mut socket = None;
        turn.repeat(Duration::from_millis(15), async |random| message(&mut socket, web, random).await).await;
    });
    load.add("streams over TCP", 3, |turn| async move {
        let mut stream = None;
        turn.repeat(Duration::from_millis(15), async |random| echo(&mut stream, raw, random).await).await;
    });
}

/// A connection that is kept.
pub(crate) struct Kept {
    sender: http1::SendRequest<Body>,
    /// The last answer said that it is the last.
    pub(crate) is_last: bool,
    connection: JoinHandle<hyper::Result<()>>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Kept {
    pub(crate) async fn open(address: SocketAddr) -> Result<Self, Wrong> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        Ok(Self { sender, is_last: false, connection: tokio::spawn(connection) })
    }

    pub(crate) async fn send(&mut self, request: Builder, body: Body) -> Result<Response<Incoming>, Wrong> {
        self.sender.ready().await?;
        let answer = self.sender.send_request(request.header("host", "soak.example").body(body)?).await?;
        let connection = answer.headers().get("connection");
        self.is_last = connection.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"close"));
        Ok(answer)
    }
}

pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).boxed()
}

/// Does a thing on a connection; one on which something was wrong is not used again.
async fn on<T, F>(
    kept: &mut Option<T>,
    open: F,
    once: impl AsyncFnOnce(&mut T) -> Result<usize, Wrong>,
) -> Result<usize, Wrong>
where
    F: Future<Output = Result<T, Wrong>>,
{
    let mut connection = match kept.take() {
        Some(connection) => connection,
        None => open.await?,
    };
    let done = once(&mut connection).await?;
    *kept = Some(connection);
    Ok(done)
}

/// The same for requests: a connection whose server said that it ends is not used again.
async fn on_kept(
    kept: &mut Option<Kept>,
    web: SocketAddr,
    once: impl AsyncFnOnce(&mut Kept) -> Result<usize, Wrong>,
) -> Result<usize, Wrong> {
    let done = on(kept, Kept::open(web), once).await;
    kept.take_if(|kept| kept.is_last);
    done
}

/// Bytes back, or bytes that were asked for.
async fn kept_body(kept: &mut Option<Kept>, web: SocketAddr, random: &mut Random) -> Result<usize, Wrong> {
    let (seed, length) = (random.next(), random.size());
    on_kept(kept, web, async |connection| {
        let expected = bytes(seed, length);
        let answer = if seed % 3 == 0 {
            let request = Request::get(format!("/bytes/{seed}/{length}"));
            connection.send(request, full("")).await?
        } else {
            connection.send(Request::post("/echo"), full(expected.clone())).await?
        };
        same(answer, 200, &expected).await
    })
    .await
}

async fn in_chunks(kept: &mut Option<Kept>, web: SocketAddr, random: &mut Random) -> Result<usize, Wrong> {
    let (seed, length) = (random.next(), random.size());
    let mut pieces = Vec::new();
    let whole = Bytes::from(bytes(seed, length));
    let mut at = 0;
    while at < length {
        let end = length.min(at + 1 + random.below(9000));
        pieces.push(whole.slice(at..end));
        at = end;
    }
    on_kept(kept, web, async |connection| {
        let frames = futures_util::stream::iter(pieces.into_iter().map(|piece| Ok(Frame::data(piece))));
        let body = BoxBody::new(StreamBody::new(frames));
        same(connection.send(Request::put("/echo"), body).await?, 200, &whole).await
    })
    .await
}

/// Whether an answer is this one, and its body is these bytes.
async fn same(answer: Response<Incoming>, status: u16, expected: &[u8]) -> Result<usize, Wrong> {
    if answer.status().as_u16() != status {
        let why = answer.headers().get("x-gateway-error").cloned();
        return Err(format!("{} instead of {status}: {why:?}", answer.status()).into());
    }
    let mut body = answer.into_body();
    let mut seen = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| format!("{error} after {seen} of {} bytes", expected.len()))?;
        let Some(data) = frame.data_ref() else { continue };
        if expected.get(seen..seen + data.len()) != Some(data) {
            return Err(format!("other bytes from {seen} of {} on", expected.len()).into());
        }
        seen += data.len();
    }
    if seen == expected.len() { Ok(seen) } else { Err(format!("{seen} of {} bytes", expected.len()).into()) }
}

async fn pipelined(web: SocketAddr, random: &mut Random) -> Result<usize, Wrong> {
    let mut stream = TcpStream::connect(web).await?;
    let bodies: Vec<String> = (0..3).map(|_| format!("{:x}", random.next())).collect();
    let requests = bodies.iter().enumerate().map(|(at, body)| {
        let (length, end) = (body.len(), if at == 2 { "close" } else { "keep-alive" });
        format!(
            "POST /echo HTTP/1.1\r\nhost: a\r\nconnection: {end}\r\ncontent-length: {length}\r\n\r\n{body}"
        )
    });
    stream.write_all(requests.collect::<String>().as_bytes()).await?;
    let mut answers = String::new();
    stream.read_to_string(&mut answers).await?;
    let got: Vec<&str> = answers.split("HTTP/1.1 200 OK\r\n").skip(1).collect();
    let bodies_come =
        got.iter().zip(&bodies).all(|(answer, body)| answer.ends_with(&format!("\r\n\r\n{body}")));
    if got.len() == 3 && bodies_come {
        Ok(answers.len())
    } else {
        Err(format!("{bodies:?}: {answers:?}").into())
    }
}

/// Behind a token, and through header-inject, whose mark never goes back.
async fn guarded(
    kept: &mut Option<Kept>,
    web: SocketAddr,
    random: &mut Random,
    newest: &Cell<usize>,
) -> Result<usize, Wrong> {
    let (seed, length) = (random.next(), random.below(4096));
    let token = match seed % 4 {
        0 => Some("Bearer wrong".to_owned()),
        1 => None,
        _ => Some(format!("Bearer {TOKEN}")),
    };
    let is_right = seed % 4 > 1;
    on_kept(kept, web, async |connection| {
        let mut request = Request::get(format!("/guarded/bytes/{seed}/{length}"));
        if let Some(token) = token {
            request = request.header("authorization", token);
        }
        let before = newest.get();
        let answer = connection.send(request, full("")).await?;
        let mark = answer.headers().get("x-mark").and_then(|mark| mark.to_str().ok()?.parse().ok());
        if !is_right {
            let status = answer.status();
            // It is read, so that the connection can be used again.
            let body = answer.into_body().collect().await?.to_bytes();
            return if status == 401 {
                Ok(body.len())
            } else {
                Err(format!("{status} without a token").into())
            };
        }
        match mark {
            Some(mark) if mark >= before => newest.set(newest.get().max(mark)),
            _ => return Err(format!("mark {mark:?} after {before}").into()),
        }
        same(answer, 200, &bytes(seed, length)).await
    })
    .await
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn message(socket: &mut Option<Socket>, web: SocketAddr, random: &mut Random) -> Result<usize, Wrong> {
    let open = async { Ok(tokio_tungstenite::connect_async(format!("ws://{web}/ws")).await?.0) };
    let (seed, length, is_last) = (random.next(), random.size().min(100_000), random.below(50) == 0);
    let done = on(socket, open, async |socket| {
        let message = Message::binary(bytes(seed, length));
        socket.send(message.clone()).await?;
        match socket.next().await {
            Some(Ok(echoed)) if echoed == message => Ok(length),
            Some(Ok(other)) => Err(format!("{length} bytes came back as {}", other.len()).into()),
            other => Err(format!("{length} bytes came back as {other:?}").into()),
        }
    })
    .await?;
    if is_last && let Some(mut socket) = socket.take() {
        socket.close(None).await?;
        while let Some(Ok(_)) = socket.next().await {}
    }
    Ok(done)
}

async fn echo(stream: &mut Option<TcpStream>, raw: SocketAddr, random: &mut Random) -> Result<usize, Wrong> {
    let open = async { Ok(TcpStream::connect(raw).await?) };
    let (seed, length, is_last) = (random.next(), random.size(), random.below(40) == 0);
    let done = on(stream, open, async |stream| {
        let sent = bytes(seed, length);
        let mut got = vec![0; length];
        let (mut read, mut write) = stream.split();
        let (written, came) = tokio::join!(write.write_all(&sent), read.read_exact(&mut got));
        (written?, came?);
        if got == sent { Ok(length) } else { Err(format!("{length} other bytes").into()) }
    })
    .await?;
    if is_last && let Some(mut stream) = stream.take() {
        stream.shutdown().await?;
        let left = stream.read(&mut [0; 8]).await?;
        if left > 0 {
            return Err("bytes behind the last".into());
        }
    }
    Ok(done)
}
