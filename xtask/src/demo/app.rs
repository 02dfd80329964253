//! The application behind the gateway: the kind of service that binds 127.0.0.1 and knows nothing
//! of IPv6, tokens or registries.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http_body_util::BodyExt;
use hyper::{
    HeaderMap, Request, StatusCode,
    body::{Body, Frame, Incoming, SizeHint},
    header::{
        CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
        UPGRADE,
    },
};
use hyper_util::rt::TokioIo;
use serde_json::{Map, Value, json};
use tokio::time::{Interval, interval};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{handshake::derive_accept_key, protocol::Role},
};

use super::http::{self, Reply};

const PAGE: &str = include_str!("page.html");

pub(crate) async fn answer(request: Request<Incoming>) -> Reply {
    match request.uri().path() {
        "/" => page(&request),
        "/health" => http::json(200, &json!({ "status": "ok" })),
        "/echo" => echo(request).await,
        "/events" => events(),
        "/ws" => websocket(request),
        "/download" => download(request.uri().query().unwrap_or_default()),
        path => http::json(404, &json!({ "error": format!("there is no {path}") })),
    }
}

/// A page that shows the headers it was asked for with, and lets a person try the rest.
fn page(request: &Request<Incoming>) -> Reply {
    let row = |(name, value): (String, String)| {
        format!("<tr><th>{}</th><td>{}</td></tr>", escaped(&name), escaped(&value))
    };
    let rows: String = headers(request.headers()).map(row).collect();
    http::reply(200, "text/html; charset=utf-8", PAGE.replace("<!-- headers -->", &rows))
}

/// Says back what came.
async fn echo(request: Request<Incoming>) -> Reply {
    let method = request.method().to_string();
    let uri = request.uri().to_string();
    let headers: Map<String, Value> =
        headers(request.headers()).map(|(name, value)| (name, Value::String(value))).collect();
    let Some(body) = http::body(request).await else {
        return http::json(413, &json!({ "error": "more than 1 MiB, or cut off" }));
    };
    let text = String::from_utf8_lossy(&body);
    let seen = json!({ "method": method, "uri": uri, "headers": headers, "bytes": body.len(), "body": text });
    http::json(200, &seen)
}

/// An event a second, for ever.
fn events() -> Reply {
    let mut reply = http::reply(200, "text/event-stream", "");
    reply.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    *reply.body_mut() = Events { clock: interval(Duration::from_secs(1)), sent: 0 }.boxed();
    reply
}

/// As many bytes as asked for.
fn download(query: &str) -> Reply {
    let wanted = query.split('&').find_map(|pair| pair.strip_prefix("bytes="));
    let Some(left) = wanted.and_then(|number| number.parse().ok()) else {
        return http::json(400, &json!({ "error": "say how many: /download?bytes=1000000" }));
    };
    let mut reply = http::reply(200, "application/octet-stream", "");
    *reply.body_mut() = Dots { left }.boxed();
    reply
}

/// Says back each message of a WebSocket.
fn websocket(request: Request<Incoming>) -> Reply {
    let Some(key) = request.headers().get(SEC_WEBSOCKET_KEY) else {
        return http::json(426, &json!({ "error": "this is for WebSockets" }));
    };
    let accept = derive_accept_key(key.as_bytes());
    tokio::spawn(async move {
        let Ok(stream) = hyper::upgrade::on(request).await else { return };
        let mut socket = WebSocketStream::from_raw_socket(TokioIo::new(stream), Role::Server, None).await;
        while let Some(Ok(message)) = socket.next().await {
            let is_said_back = message.is_text() || message.is_binary();
            if is_said_back && socket.send(message).await.is_err() {
                break;
            }
        }
    });
    let mut reply = http::reply(101, "", "");
    let headers = reply.headers_mut();
    headers.remove(CONTENT_TYPE);
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept.parse().expect("base64"));
    *reply.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    reply
}

fn headers(headers: &HeaderMap) -> impl Iterator<Item = (String, String)> {
    headers
        .iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

struct Events {
    clock: Interval,
    sent: u64,
}

impl Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        ready!(self.clock.poll_tick(cx));
        self.sent += 1;
        let event = format!("id: {0}\ndata: event {0}\n\n", self.sent);
        Poll::Ready(Some(Ok(Frame::data(event.into()))))
    }
}

struct Dots {
    left: u64,
}

impl Body for Dots {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        static CHUNK: [u8; 1 << 16] = [b'.'; 1 << 16];
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let size = self.left.min(CHUNK.len() as u64);
        self.left -= size;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&CHUNK[..size as usize])))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
