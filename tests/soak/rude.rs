//! Clients and backends that do not behave: each has the answer that it must get.

use crate::{
    Wrong,
    clients::{Kept, full},
    random::Random,
    stage::Stage,
    tally::Load,
};
use http::Request;
use http_body_util::BodyExt as _;
use std::{net::SocketAddr, rc::Rc, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// Adds them all.
pub(crate) fn add(load: &mut Load, stage: &Rc<Stage>) {
    let (web, raw) = (stage.web, stage.raw);
    load.add("backends that misbehave", 2, |turn| async move {
        turn.repeat(Duration::from_millis(30), async |random| backend(web, random).await).await;
    });
    load.add("requests that are none", 2, |turn| async move {
        turn.repeat(Duration::from_millis(30), async |random| refused(web, random).await).await;
    });
    load.add("clients that leave", 2, |turn| async move {
        turn.repeat(Duration::from_millis(30), async |random| leaves(web, raw, random).await).await;
    });
    load.add("clients that are slow", 3, |turn| async move {
        turn.repeat(Duration::from_millis(100), async |random| slow(web, random).await).await;
    });
}

/// What a backend does, the status that its client sees, and the body, which may be cut.
const BACKENDS: [(&str, u16, Option<&str>); 12] = [
    ("/rude/close", 502, None),
    ("/rude/half", 200, None),
    ("/rude/half-chunked", 200, None),
    ("/rude/garbage", 502, None),
    ("/rude/two-lengths", 502, None),
    ("/rude/behind", 200, Some("ok")),
    ("/rude/interim", 200, Some("ok")),
    ("/rude/slow", 200, Some("0123456789")),
    ("/rude/endless", 502, None),
    ("/rude/silent", 504, None),
    ("/nobody", 502, None),
    ("/rude/early", 200, Some("ok")),
];

async fn backend(web: SocketAddr, random: &mut Random) -> Result<usize, Wrong> {
    let (path, expected, body) = random.pick(&BACKENDS);
    let mut kept = Kept::open(web).await?;
    let answer = kept.send(Request::get(path), full("")).await.map_err(|error| format!("{path}: {error}"))?;
    let status = answer.status().as_u16();
    let told = answer.headers().get("x-gateway-error").cloned();
    let got = answer.into_body().collect().await.map(|body| body.to_bytes());
    let is_right = match (&got, body) {
        (Ok(got), Some(body)) => got == body,
        (Ok(got), None) => expected != 200 && told.is_some() && !got.is_empty(),
        // It ends with an error, never as if it were complete.
        (Err(_), body) => expected == 200 && body.is_none(),
    };
    if status == expected && is_right {
        Ok(0)
    } else {
        Err(format!("{path}: {status} {told:?} {got:?}").into())
    }
}

/// What is no request, or no good one, and how its answer begins.
const REFUSED: [(&str, &str); 12] = [
    ("GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 400"),
    ("GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", "HTTP/1.1 400"),
    ("GET / HTTP/1.1\r\nhost: [a b\r\n\r\n", "HTTP/1.1 400"),
    ("GET / HTTP/1.1\nhost: a\n\n", "HTTP/1.1 400"),
    ("GET / HTTP/1.1\r\nhost : a\r\n\r\n", "HTTP/1.1 400"),
    (
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 400",
    ),
    ("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n", "HTTP/1.1 501"),
    ("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nno size\r\n", "HTTP/1.1 400"),
    ("GET / HTTP/2.0\r\nhost: a\r\n\r\n", "HTTP/1.1 505"),
    ("CONNECT a:80 HTTP/1.1\r\nhost: a:80\r\n\r\n", "HTTP/1.1 501"),
    ("\x16\x03\x01\x02\x00\x01\x00\x01\x7c\x03\x03", "HTTP/1.1 400"),
    ("GET /ws HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n", "HTTP/1.1 426"),
];

async fn refused(web: SocketAddr, random: &mut Random) -> Result<usize, Wrong> {
    let (text, expected) = random.pick(&REFUSED);
    let mut stream = TcpStream::connect(web).await?;
    stream.write_all(text.as_bytes()).await?;
    let mut answer = Vec::new();
    // The connection is closed behind the answer: this ends.
    stream.read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer);
    let is_one = !answer.contains("\r\nHTTP/1.1 ");
    if answer.starts_with(expected) && is_one {
        Ok(answer.len())
    } else {
        Err(format!("{text:?}: {answer:?}").into())
    }
}

/// Leaves in the middle of something.
async fn leaves(web: SocketAddr, raw: SocketAddr, random: &mut Random) -> Result<usize, Wrong> {
    const BEGUN: [&str; 6] = [
        "",
        "GET / HT",
        "GET /bytes/1/1000000 HTTP/1.1\r\nhost: a\r\n\r\n",
        "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\nonly this",
        "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhel",
        "GET /rude/silent HTTP/1.1\r\nhost: a\r\n\r\n",
    ];
    let to = if random.below(4) == 0 { raw } else { web };
    let mut stream = TcpStream::connect(to).await?;
    stream.write_all(random.pick(&BEGUN).as_bytes()).await?;
    if random.below(2) == 0 {
        // Some bytes of an answer, perhaps.
        let _ = tokio::time::timeout(Duration::from_millis(20), stream.read(&mut [0; 512])).await;
    }
    match random.below(3) {
        0 => drop(stream),
        1 => stream.shutdown().await?,
        _ => {
            // A reset, not an orderly end.
            stream.set_zero_linger()?;
            drop(stream);
        }
    }
    Ok(0)
}

/// Sends byte by byte, or reads so; and too slowly for a head.
async fn slow(web: SocketAddr, random: &mut Random) -> Result<usize, Wrong> {
    let mut stream = TcpStream::connect(web).await?;
    stream.set_nodelay(true)?;
    if random.below(3) == 0 {
        stream.write_all(b"GET / HTTP/1.1\r\nhost: a").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let is_told = answer.starts_with("HTTP/1.1 408");
        return if is_told { Ok(answer.len()) } else { Err(format!("too slow: {answer:?}").into()) };
    }
    let request =
        b"POST /echo HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 10\r\n\r\n0123456789";
    for piece in request.chunks(4) {
        stream.write_all(piece).await?;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let mut answer = Vec::new();
    let mut byte = [0; 3];
    loop {
        match stream.read(&mut byte).await? {
            0 => break,
            read => answer.extend_from_slice(&byte[..read]),
        }
        tokio::task::yield_now().await;
    }
    let answer = String::from_utf8_lossy(&answer);
    let is_right = answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n\r\n0123456789");
    if is_right { Ok(answer.len()) } else { Err(format!("sent slowly: {answer:?}").into()) }
}
