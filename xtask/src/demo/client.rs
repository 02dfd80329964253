//! Clients from outside: `curl` where there is one, else our own; WebSocket, events and raw TCP.

use std::{
    collections::BTreeMap,
    fmt::{self, Debug},
    net::SocketAddr,
    process::Command,
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tokio::net::TcpStream;
use tokio_tungstenite::{WebSocketStream, client_async, tungstenite::client::IntoClientRequest};

use super::tries::Try;
use crate::Result;

pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Result<serde_json::Value> {
        let said = || format!("the answer is not JSON: {:.200}", self.text());
        serde_json::from_slice(&self.body).map_err(|_| said().into())
    }
}

/// Sends requests as a person at a terminal would: by curl, or where there is none by itself.
#[derive(Clone, Copy)]
pub(crate) enum Asker {
    Curl,
    Own,
}

impl Asker {
    pub(crate) fn find() -> Self {
        let curl = Command::new("curl").arg("--version").output();
        if curl.is_ok_and(|it| it.status.success()) { Self::Curl } else { Self::Own }
    }

    pub(crate) async fn fetch(self, what: &Try) -> Result<Answer> {
        if let Self::Own = self {
            return collect(send(what).await?).await;
        }
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--include", "--noproxy", "*", "--max-time", "15"]);
        curl.args(what.curl());
        let said = tokio::task::spawn_blocking(move || curl.output()).await??;
        match said.status.success() {
            true => parse(&said.stdout),
            false => Err(String::from_utf8_lossy(&said.stderr).trim().to_owned().into()),
        }
    }
}

impl fmt::Display for Asker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Curl => "by curl",
            Self::Own => "by the demo itself: there is no curl",
        })
    }
}

/// Asks for a URL without curl, within two seconds.
pub(crate) async fn get(url: &str) -> Result<Answer> {
    let what = Try::get(url);
    let answer = async { collect(send(&what).await?).await };
    tokio::time::timeout(Duration::from_secs(2), answer).await?
}

/// Sends a request; the body of the answer is still to come.
pub(crate) async fn send(what: &Try) -> Result<Response<Incoming>> {
    let mut request = Request::builder().method(what.method).uri(&what.url);
    for (name, value) in &what.headers {
        request = request.header(*name, value);
    }
    let body = what.body.clone().unwrap_or_default();
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    Ok(client.request(request.body(body.into())?).await?)
}

async fn collect(response: Response<Incoming>) -> Result<Answer> {
    let status = response.status().as_u16();
    let headers = response.headers().iter();
    let headers =
        headers.map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into()));
    let headers = headers.collect();
    Ok(Answer { status, headers, body: response.into_body().collect().await?.to_bytes().into() })
}

/// Reads what `curl --include` prints.
fn parse(output: &[u8]) -> Result<Answer> {
    let end = output.windows(4).position(|bytes| bytes == b"\r\n\r\n").ok_or("curl shows no answer")?;
    let head = String::from_utf8_lossy(&output[..end]);
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).unwrap_or_default();
    let headers = lines.filter_map(|line| line.split_once(':'));
    Ok(Answer {
        status: status.parse().map_err(|_| format!("curl shows no status: {head}"))?,
        headers: headers.map(|(name, value)| (name.to_lowercase(), value.trim().to_owned())).collect(),
        body: output[end + 4..].to_owned(),
    })
}

/// Opens a WebSocket, or tells the status it was refused with.
pub(crate) async fn websocket(
    to: SocketAddr,
    token: Option<&str>,
) -> Result<std::result::Result<WebSocketStream<TcpStream>, u16>> {
    use tokio_tungstenite::tungstenite::Error;
    let mut request = format!("ws://{to}/ws").into_client_request()?;
    if let Some(token) = token {
        request.headers_mut().insert("authorization", format!("Bearer {token}").parse()?);
    }
    match client_async(request, TcpStream::connect(to).await?).await {
        Ok((socket, _)) => Ok(Ok(socket)),
        Err(Error::Http(refusal)) => Ok(Err(refusal.status().as_u16())),
        Err(error) => Err(error.into()),
    }
}

/// An error that shows both, where they differ.
pub(crate) fn equal<T: Copy + PartialEq + Debug>(what: &str, got: T, expected: T) -> Result {
    match got == expected {
        true => Ok(()),
        false => Err(format!("{what}: expected {expected:?}, got {got:?}").into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_curl_prints() {
        let answer = parse(b"HTTP/1.1 401 Unauthorized\r\nX-A: 1:2\r\n\r\nno\r\n\r\n").unwrap();
        assert_eq!((answer.status, answer.header("x-a"), answer.text().as_str()), (401, "1:2", "no\r\n\r\n"));
        assert!(parse(b"").is_err());
    }
}
