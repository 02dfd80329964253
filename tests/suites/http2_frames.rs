//! Frames that no library sends: heads with two readings, and attacks.

use gateway_tests::{
    Backend, Client, Http2, TestGateway, eventually,
    frames::{CALM, END_HEADERS, END_STREAM, Frames, PROTOCOL_ERROR, block, frame, get, kind},
    within,
};
use std::net::SocketAddr;

/// What becomes of a request.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// It is answered with this status.
    Status(String),
    /// Its stream is reset, or its connection ended, as malformed.
    Refused,
    /// Something else.
    Other(String),
}

/// A request's fate on a connection of its own.
async fn verdict(gateway: SocketAddr, fields: &[(&str, &[u8])], body: &[Vec<u8>]) -> Verdict {
    let mut frames = Frames::connect(gateway).await;
    let flags = if body.is_empty() { END_HEADERS | END_STREAM } else { END_HEADERS };
    // All at once: what comes later may come behind the answer.
    frames.write(&[frame(kind::HEADERS, flags, 1, &block(fields)), body.concat()].concat()).await;
    loop {
        match frames.next().await {
            Some(frame) if frame.kind == kind::HEADERS => return Verdict::Status(status(&frame.payload)),
            Some(frame) if matches!(frame.kind, kind::RST_STREAM | kind::GOAWAY) => {
                let is_malformed = frame.error() == PROTOCOL_ERROR;
                return if is_malformed { Verdict::Refused } else { Verdict::Other(format!("{frame:?}")) };
            }
            Some(_) => {}
            None => return Verdict::Other("the end".into()),
        }
    }
}

/// The status that a block begins with, as h2 writes it: from the static table (RFC 7541, appendix A), or
/// as a literal with that name.
fn status(block: &[u8]) -> String {
    match block[0] {
        0x88 => "200".into(),
        0x8c => "400".into(),
        0x8d => "404".into(),
        0x8e => "500".into(),
        // Three digits take three bytes plain, and two or three compressed.
        _ if block[1] & 0x80 == 0 => String::from_utf8_lossy(&block[2..5]).into_owned(),
        _ => format!("{:02x?}", &block[..usize::from(block[1] & 0x7f) + 2]),
    }
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "a table")]
async fn what_http1_would_refuse_is_refused() {
    let backend = Backend::hello().await;
    let gateway = TestGateway::to(backend.addr());
    let ok = || Verdict::Status("200".into());
    let bad = || Verdict::Status("400".into());
    let reset = || Verdict::Refused;
    type Fields<'a> = Vec<(&'a str, &'a [u8])>;
    let with =
        |more: &[(&'static str, &'static [u8])]| -> Fields<'static> { [get("a"), more.to_vec()].concat() };
    let without = |name: &str| -> Fields<'static> {
        get("a").into_iter().filter(|(known, _)| *known != name).collect()
    };
    let instead = |name: &'static str, value: &'static [u8]| -> Fields<'static> {
        get("a").into_iter().map(|(known, old)| (known, if known == name { value } else { old })).collect()
    };
    let heads: Vec<(&str, Fields<'_>, Verdict)> = vec![
        ("plain", get("a"), ok()),
        // RFC 9113 §8.3.
        ("no method", without(":method"), reset()),
        ("no scheme", without(":scheme"), reset()),
        ("no path", without(":path"), reset()),
        ("no authority, no host", without(":authority"), bad()),
        ("no authority, a host", [without(":authority"), vec![("host", b"a")]].concat(), ok()),
        ("a method twice", with(&[(":method", b"GET")]), reset()),
        ("a path twice", with(&[(":path", b"/b")]), reset()),
        ("an authority twice", with(&[(":authority", b"b")]), reset()),
        ("an unknown pseudo-header", with(&[(":x", b"1")]), reset()),
        ("a status", with(&[(":status", b"200")]), reset()),
        ("a pseudo-header behind a field", [vec![("x", &b"1"[..])], get("a")].concat(), reset()),
        // §8.3.1.
        ("an authority and another host", with(&[("host", b"b")]), bad()),
        ("an authority and the same host", with(&[("host", b"A")]), ok()),
        ("two hosts", with(&[("host", b"a"), ("host", b"a")]), bad()),
        ("a user in the authority", instead(":authority", b"u@a"), bad()),
        ("an empty authority", instead(":authority", b""), reset()),
        ("an empty path", instead(":path", b""), reset()),
        ("a path without a slash", instead(":path", b"a"), reset()),
        ("a whole URL", instead(":path", b"http://b/"), reset()),
        ("an asterisk", instead(":path", b"*"), bad()),
        ("a path with a space", instead(":path", b"/a b"), reset()),
        ("a path with a line end", instead(":path", b"/a\r\nx: y"), reset()),
        ("a path with a NUL", instead(":path", b"/\0"), reset()),
        ("a path that is no ASCII", instead(":path", "/\u{e9}".as_bytes()), bad()),
        // Not as HTTP/1, which refuses it: what is behind `#` is gone before anybody could see it.
        ("a path with a fragment", instead(":path", b"/#b"), ok()),
        ("nothing but a fragment", instead(":path", b"#b"), ok()),
        ("a method with a space", instead(":method", b"GET /b"), reset()),
        // §8.2.1.
        ("a name in upper case", with(&[("X-A", b"1")]), reset()),
        ("a name with a space", with(&[("x a", b"1")]), reset()),
        ("a name with a colon", with(&[("x:a", b"1")]), reset()),
        ("an empty name", with(&[("", b"1")]), reset()),
        ("a value with CR", with(&[("x", b"1\r2")]), reset()),
        ("a value with LF", with(&[("x", b"1\n2")]), reset()),
        ("a value with NUL", with(&[("x", b"1\x002")]), reset()),
        ("a value that begins with a space", with(&[("x", b" 1")]), bad()),
        ("a value that ends with a tab", with(&[("x", b"1\t")]), bad()),
        // §8.2.2.
        ("connection", with(&[("connection", b"close")]), reset()),
        ("transfer-encoding", with(&[("transfer-encoding", b"chunked")]), reset()),
        ("upgrade", with(&[("upgrade", b"websocket")]), reset()),
        ("keep-alive", with(&[("keep-alive", b"5")]), reset()),
        ("proxy-connection", with(&[("proxy-connection", b"x")]), reset()),
        ("te: gzip", with(&[("te", b"gzip")]), reset()),
        ("te: trailers", with(&[("te", b"trailers")]), ok()),
        // §8.1.1, RFC 9110 §8.6.
        ("a length without DATA", with(&[("content-length", b"1")]), reset()),
        ("the length 0", with(&[("content-length", b"0")]), ok()),
        ("two lengths", with(&[("content-length", b"0"), ("content-length", b"0")]), bad()),
        ("a length with a sign", with(&[("content-length", b"+0")]), reset()),
        // RFC 8441 §4.
        ("a protocol without CONNECT", with(&[(":protocol", b"websocket")]), reset()),
    ];
    let mut wrong = Vec::new();
    for (what, fields, expected) in heads {
        let got = verdict(gateway.addr(), &fields, &[]).await;
        if got != expected {
            wrong.push(format!("{what}: {got:?}, not {expected:?}"));
        }
    }
    let data = |flags, text: &[u8]| frame(kind::DATA, flags, 1, text);
    let told = |length: &'static [u8]| -> Fields<'static> { with(&[("content-length", length)]) };
    let trailer = |name: &str| frame(kind::HEADERS, END_HEADERS | END_STREAM, 1, &block(&[(name, b"1")]));
    let spaced = || frame(kind::HEADERS, END_HEADERS | END_STREAM, 1, &block(&[("x", b" 1")]));
    let many = || frame(kind::HEADERS, END_HEADERS | END_STREAM, 1, &block(&[("x", &b"1"[..]); 65]));
    let messages: Vec<(&str, Fields<'_>, Vec<Vec<u8>>, Verdict)> = vec![
        ("as long as told", told(b"2"), vec![data(0, b"h"), data(END_STREAM, b"i")], ok()),
        ("longer than told", told(b"2"), vec![data(0, b"hi"), data(END_STREAM, b"!")], reset()),
        ("shorter than told", told(b"3"), vec![data(END_STREAM, b"hi")], reset()),
        ("nothing, and more was told", told(b"3"), vec![data(END_STREAM, b"")], reset()),
        ("trailers", told(b"2"), vec![data(0, b"hi"), trailer("x")], ok()),
        ("trailers too early", told(b"3"), vec![data(0, b"hi"), trailer("x")], reset()),
        ("trailers that HTTP/1 would not take", get("a"), vec![data(0, b"hi"), spaced()], bad()),
        ("the same right behind the head", get("a"), vec![spaced()], bad()),
        ("too many trailers", get("a"), vec![data(0, b"hi"), many()], bad()),
        ("the same right behind the head", get("a"), vec![many()], bad()),
        (
            "a pseudo-header among trailers, which nobody sees",
            get("a"),
            vec![data(0, b"hi"), trailer(":path")],
            ok(),
        ),
    ];
    for (what, fields, body, expected) in messages {
        let got = verdict(gateway.addr(), &fields, &body).await;
        if got != expected {
            wrong.push(format!("{what}: {got:?}, not {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    for heard in backend.heard() {
        assert!(
            heard
                .trailers
                .as_ref()
                .is_none_or(|trailers| trailers.len() == usize::from(trailers.contains_key("x")))
        );
        assert!(heard.uri.path() == "/" && heard.header("host").eq_ignore_ascii_case("a"), "{heard:?}");
    }
}

#[tokio::test]
async fn crumbs_of_a_cookie_are_one_to_the_backend() {
    let backend = Backend::hello().await;
    let gateway = TestGateway::to(backend.addr());
    let crumbs: [(&str, &[u8]); 3] = [("cookie", b"a=1"), ("x", b"y"), ("cookie", b"b=2")];
    let fields = [get("a"), crumbs.to_vec()].concat();
    assert_eq!(verdict(gateway.addr(), &fields, &[]).await, Verdict::Status("200".into()));
    let heard = backend.last();
    assert_eq!(gateway_tests::values(&heard.headers, "cookie"), ["a=1; b=2"]);
}

/// A gateway under attack: its first client must be told to calm down, and its second not notice.
async fn attacked(what: &str, frames: &mut Frames, gateway: &TestGateway, other: &mut Http2) {
    let error = within(what, frames.end()).await;
    assert!(matches!(error, Some(CALM)), "{what} ended with {error:?}");
    let answer = other.send(other.get("/"), "").await;
    assert_eq!(answer.text(), "hello", "{what} has hurt somebody else");
    let answer = Client::new(gateway.addr()).get("/").await;
    assert_eq!(answer.status, 200, "{what} has hurt somebody else");
}

async fn setting() -> (Backend, TestGateway, Http2, Frames) {
    let backend = Backend::hello().await;
    let gateway = TestGateway::to(backend.addr());
    let other = Http2::connect(gateway.addr()).await;
    let frames = Frames::connect(gateway.addr()).await;
    (backend, gateway, other, frames)
}

/// Sends the same again and again, until the other side takes no more; it must not take all.
async fn flood(frames: &mut Frames, mut piece: impl FnMut(u32) -> Vec<u8>) {
    for number in 0..1000 {
        if !frames.write(&piece(number)).await {
            return;
        }
    }
}

#[tokio::test]
async fn pings() {
    let (_backend, gateway, mut other, mut frames) = setting().await;
    flood(&mut frames, |_| frame(kind::PING, 0, 0, &[0; 8]).repeat(100)).await;
    attacked("a flood of PING", &mut frames, &gateway, &mut other).await;
    assert_eq!(gateway.metric("vers_connections_cut_total", &["flood"]).await, 1.0);
}

#[tokio::test]
async fn settings() {
    let (_backend, gateway, mut other, mut frames) = setting().await;
    flood(&mut frames, |_| frame(kind::SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]).repeat(100)).await;
    attacked("a flood of SETTINGS", &mut frames, &gateway, &mut other).await;
}

#[tokio::test]
async fn window_updates_and_unknown_frames() {
    let (_backend, gateway, mut other, mut frames) = setting().await;
    flood(&mut frames, |_| frame(0xbe, 0, 0, &[0; 4]).repeat(100)).await;
    attacked("a flood of unknown frames", &mut frames, &gateway, &mut other).await;
    let mut frames = Frames::connect(gateway.addr()).await;
    flood(&mut frames, |_| frame(kind::WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]).repeat(100)).await;
    attacked("a flood of WINDOW_UPDATE", &mut frames, &gateway, &mut other).await;
}

#[tokio::test]
async fn empty_data() {
    let (_backend, gateway, mut other, mut frames) = setting().await;
    frames.send(kind::HEADERS, END_HEADERS, 1, &block(&get("a"))).await;
    flood(&mut frames, |_| frame(kind::DATA, 0, 1, b"").repeat(100)).await;
    attacked("a flood of empty DATA", &mut frames, &gateway, &mut other).await;
}

#[tokio::test]
async fn continuations_without_end() {
    let (_backend, gateway, mut other, mut frames) = setting().await;
    frames.send(kind::HEADERS, 0, 1, &block(&get("a"))).await;
    let piece = block(&[("x", &[b'x'; 100])]);
    flood(&mut frames, |_| frame(kind::CONTINUATION, 0, 1, &piece).repeat(100)).await;
    attacked("CONTINUATION without end", &mut frames, &gateway, &mut other).await;
}

#[tokio::test]
async fn empty_continuations_without_end() {
    let (_backend, gateway, mut other, mut frames) = setting().await;
    frames.send(kind::HEADERS, 0, 1, &block(&get("a"))).await;
    flood(&mut frames, |_| frame(kind::CONTINUATION, 0, 1, b"").repeat(100)).await;
    attacked("empty CONTINUATION without end", &mut frames, &gateway, &mut other).await;
}

#[tokio::test]
async fn a_small_block_that_unpacks_to_a_large_head_is_refused() {
    let (_backend, _gateway, mut other, mut frames) = setting().await;
    // One field of 3 KB goes into the table (RFC 7541 §6.2.1), and is referred to a thousand times.
    let mut bomb = block(&get("a"));
    let mut entry = block(&[("x", &[b'x'; 3000])]);
    entry[0] = 0x40;
    bomb.extend(entry);
    bomb.extend([0x80 | 62].repeat(1000));
    frames.send(kind::HEADERS, END_HEADERS | END_STREAM, 1, &bomb).await;
    let mut verdict = None;
    while verdict.is_none() {
        let frame = frames.next().await;
        verdict = match frame {
            // 431, or the end of the stream or the connection.
            Some(frame) if frame.kind == kind::HEADERS => Some(status(&frame.payload)),
            Some(frame) if matches!(frame.kind, kind::RST_STREAM | kind::GOAWAY) => {
                Some("refused".to_owned())
            }
            Some(_) => None,
            None => Some("refused".to_owned()),
        };
    }
    assert_ne!(verdict.as_deref(), Some("200"));
    assert_eq!(other.send(other.get("/"), "").await.text(), "hello");
}

#[tokio::test]
async fn streams_that_are_opened_and_reset_at_once() {
    let (_backend, gateway, mut other, mut frames) = setting().await;
    flood(&mut frames, |round| {
        let streams = (0..100).map(|number| 1 + 2 * (100 * round + number));
        let both = |id| {
            let head = frame(kind::HEADERS, END_HEADERS | END_STREAM, id, &block(&get("a")));
            [head, frame(kind::RST_STREAM, 0, id, &8_u32.to_be_bytes())].concat()
        };
        streams.flat_map(both).collect()
    })
    .await;
    attacked("a rapid reset", &mut frames, &gateway, &mut other).await;
}

#[tokio::test]
async fn streams_that_are_reset_once_the_backend_has_them() {
    let (backend, mut visitors) = Backend::by_hand().await;
    let gateway = TestGateway::to(backend.addr());
    let mut frames = Frames::connect(gateway.addr()).await;
    let mut resets = 0;
    for id in (1..).step_by(2) {
        if !frames.ask(id, &get("a")).await {
            break;
        }
        // The backend has it, or nobody will.
        let mut server = tokio::select! {
            server = visitors.next() => server,
            _ = frames.end() => break,
        };
        server.head().await;
        if !frames.send(kind::RST_STREAM, 0, id, &8_u32.to_be_bytes()).await {
            break;
        }
        server.to_end().await;
        resets += 1;
    }
    assert!((90..=110).contains(&resets), "{resets} of them");
    assert_eq!(gateway.metric("vers_connections_cut_total", &["flood"]).await, 1.0);
}

#[tokio::test]
async fn streams_that_the_gateway_is_made_to_reset() {
    let (_backend, gateway, mut other, mut frames) = setting().await;
    // A window larger than any is an error of the stream (RFC 9113 §6.9.1).
    flood(&mut frames, |round| {
        let streams = (0..100).map(|number| 1 + 2 * (100 * round + number));
        let both = |id| {
            let head = frame(kind::HEADERS, END_HEADERS, id, &block(&get("a")));
            [head, frame(kind::WINDOW_UPDATE, 0, id, &[0x7f, 0xff, 0xff, 0xff])].concat()
        };
        streams.flat_map(both).collect()
    })
    .await;
    attacked("MadeYouReset", &mut frames, &gateway, &mut other).await;
}

#[tokio::test]
async fn more_streams_than_may_be_are_refused() {
    let (backend, _visitors) = Backend::by_hand().await;
    let toml = gateway_tests::one_route(backend.addr(), "[limits]\nhttp2_streams = 3");
    let gateway = TestGateway::start(&toml);
    let mut frames = Frames::connect(gateway.addr()).await;
    let settings = frames.until(kind::SETTINGS).await;
    assert!(settings.payload.chunks(6).any(|one| one == [0, 3, 0, 0, 0, 3]), "{settings:?}");
    for id in [1, 3, 5, 7] {
        frames.ask(id, &get("a")).await;
    }
    let refused = frames.until(kind::RST_STREAM).await;
    assert_eq!((refused.stream, refused.error()), (7, 7), "REFUSED_STREAM");
}

#[tokio::test]
async fn nothing_at_all_behind_the_preface_is_cut() {
    let backend = Backend::hello().await;
    let listener = "[[listener]]\naddress = \"[::]:0\"\ntimeouts = { head = \"50ms\" }\n";
    let gateway = TestGateway::start(&format!("{listener}[[route]]\nto = \"{}\"\n", backend.addr()));
    let mut raw = gateway_tests::Raw::connect(gateway.addr()).await;
    raw.send("PRI * HTTP/2.0\r\n\r\nSM\r\n").await;
    raw.to_end().await;
    eventually("the count", async || {
        (gateway.metric("vers_connections_cut_total", &["head"]).await == 1.0).then_some(())
    })
    .await;
}

fn impatient(backend: &Backend, timeouts: &str) -> TestGateway {
    let listener = format!("[[listener]]\naddress = \"[::]:0\"\ntimeouts = {{ {timeouts} }}\n");
    TestGateway::start(&format!("{listener}[[route]]\nto = \"{}\"\n", backend.addr()))
}

/// RFC 9113 §6.8: the first GOAWAY says that the end is near, and refuses nothing yet.
#[tokio::test]
async fn a_request_that_crosses_the_end_of_an_idle_connection_is_served() {
    let backend = Backend::hello().await;
    let gateway = impatient(&backend, "idle = \"100ms\"");
    let mut frames = Frames::connect(gateway.addr()).await;
    let going = frames.until(kind::GOAWAY).await;
    assert_eq!(going.payload[..4], 0x7fff_ffff_u32.to_be_bytes(), "any stream may still come");
    assert!(frames.ask(1, &get("a")).await);
    let answer = frames.until(kind::HEADERS).await;
    assert_eq!((answer.stream, status(&answer.payload).as_str()), (1, "200"));
    assert_eq!(frames.end().await, Some(0), "and then it ends");
    assert_eq!(backend.heard().len(), 1);
    assert_eq!(gateway.metric("vers_connections_cut_total", &["keep-alive"]).await, 1.0);
}

/// A header block that never ends holds up the whole connection (RFC 9113 §4.3): nothing else may come.
#[tokio::test]
async fn a_head_without_end_is_cut_beside_a_request_that_runs() {
    let (backend, mut visitors) = Backend::by_hand().await;
    let gateway = impatient(&backend, "head = \"100ms\"");
    let whole = frame(kind::HEADERS, END_HEADERS | END_STREAM, 3, &block(&get("a")));
    let unfinished = frame(kind::HEADERS, 0, 3, &block(&get("a")));
    for piece in [&unfinished[..], &whole[..whole.len() - 1], &whole[..5]] {
        let mut frames = Frames::connect(gateway.addr()).await;
        frames.ask(1, &get("a")).await;
        let mut server = visitors.next().await;
        server.head().await;
        frames.write(piece).await;
        frames.end().await;
        server.to_end().await;
    }
    assert_eq!(gateway.metric("vers_connections_cut_total", &["head"]).await, 3.0);
}
