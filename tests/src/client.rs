//! Clients: one that speaks HTTP well, and one that sends what it is told.

use crate::{namespace::Namespace, wait::within};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use std::net::SocketAddr;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream},
    net::TcpStream,
};

/// Sends requests to one address, each on a connection of its own.
#[derive(Debug, Clone)]
pub struct Client {
    address: SocketAddr,
    headers: Vec<(HeaderName, HeaderValue)>,
    namespace: Option<Namespace>,
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
    /// Its trailers, where there were any.
    pub trailers: Option<HeaderMap>,
}

impl Answer {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header as text; empty where it is absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// All values of a header as text, in order.
pub fn values<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a str> {
    headers.get_all(name).iter().map(|value| value.to_str().expect("text")).collect()
}

impl Client {
    /// A client for this address.
    pub fn new(address: SocketAddr) -> Self {
        Self { address, headers: Vec::new(), namespace: None }
    }

    /// The same client in another network.
    #[must_use]
    pub fn inside(mut self, namespace: Namespace) -> Self {
        self.namespace = Some(namespace);
        self
    }

    /// Adds a header to every request.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers
            .push((HeaderName::from_static(name), HeaderValue::from_str(value).expect("a header value")));
        self
    }

    /// `GET path`.
    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, Bytes::new()).await
    }

    /// `POST path`.
    pub async fn post(&self, path: &str, body: impl Into<Bytes>) -> Answer {
        self.send(Method::POST, path, body.into()).await
    }

    /// Any request; the answer must come.
    pub async fn send(&self, method: Method, path: &str, body: Bytes) -> Answer {
        let what = format!("an answer to {method} {path}");
        match within(&what, self.try_send(method, path, body)).await {
            Ok(answer) => answer,
            Err(error) => panic!("{what}: {error}"),
        }
    }

    /// Any request.
    ///
    /// # Errors
    /// Fails where there is no connection, or it breaks off before the end of the answer.
    pub async fn try_send(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Answer, Box<dyn std::error::Error + Send + Sync>> {
        self.connect().await?.try_send(method, path, body).await
    }

    /// Opens a connection that is kept from request to request.
    ///
    /// # Errors
    /// Fails where there is no connection.
    pub async fn connect(&self) -> Result<Kept, Box<dyn std::error::Error + Send + Sync>> {
        let stream = match &self.namespace {
            None => TcpStream::connect(self.address).await?,
            Some(namespace) => namespace.connect(self.address)?,
        };
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        Ok(Kept { client: self.clone(), sender, connection: tokio::spawn(connection) })
    }
}

/// A connection that is kept from request to request. It is closed when it is dropped.
#[derive(Debug)]
pub struct Kept {
    client: Client,
    sender: http1::SendRequest<Full<Bytes>>,
    connection: tokio::task::JoinHandle<hyper::Result<()>>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Kept {
    /// `GET path`; the answer must come.
    pub async fn get(&mut self, path: &str) -> Answer {
        let what = format!("an answer to GET {path}");
        match within(&what, self.try_send(Method::GET, path, Bytes::new())).await {
            Ok(answer) => answer,
            Err(error) => panic!("{what}: {error}"),
        }
    }

    /// Any request.
    ///
    /// # Errors
    /// Fails where the connection is closed, or breaks off before the end of the answer.
    pub async fn try_send(
        &mut self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Answer, Box<dyn std::error::Error + Send + Sync>> {
        let mut request = Request::builder().method(method).uri(path);
        if self.client.headers.iter().all(|(name, _)| name != http::header::HOST) {
            request = request.header("host", self.client.address.to_string());
        }
        for (name, value) in &self.client.headers {
            request = request.header(name, value);
        }
        self.sender.ready().await?;
        let response = self.sender.send_request(request.body(Full::new(body))?).await?;
        let (head, body) = response.into_parts();
        let body = body.collect().await?;
        let trailers = body.trailers().cloned();
        Ok(Answer { status: head.status, headers: head.headers, body: body.to_bytes(), trailers })
    }

    /// Whether the other side has closed it.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }
}

/// A connection that sends bytes as they are, and reads what comes.
#[derive(Debug)]
pub struct Raw<S = TcpStream> {
    /// The connection.
    pub stream: S,
    seen: Vec<u8>,
}

impl Raw {
    /// Connects.
    pub async fn connect(address: SocketAddr) -> Self {
        Self::over(within("a connection", TcpStream::connect(address)).await.expect("a connection"))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Raw<S> {
    /// Takes a connection that is there already.
    pub fn over(stream: S) -> Self {
        Self { stream, seen: Vec::new() }
    }

    /// Sends bytes.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let sending = async {
            self.stream.write_all(bytes.as_ref()).await?;
            // TLS keeps what its socket does not take at once, as after many reads in one turn of the runtime.
            self.stream.flush().await
        };
        within("a write", sending).await.expect("a write");
    }

    /// Reads until the text has come, and returns everything up to its end.
    pub async fn until(&mut self, text: &str) -> String {
        loop {
            if let Some(at) = find(&self.seen, text.as_bytes()) {
                let rest = self.seen.split_off(at + text.len());
                return String::from_utf8_lossy(&std::mem::replace(&mut self.seen, rest)).into_owned();
            }
            let before = String::from_utf8_lossy(&self.seen).into_owned();
            let read =
                within(&format!("{text:?} after {before:?}"), self.stream.read_buf(&mut self.seen)).await;
            assert_ne!(read.expect("a read"), 0, "the connection ended before {text:?}; it said {before:?}");
        }
    }

    /// Reads up to the empty line that ends a head.
    pub async fn head(&mut self) -> String {
        self.until("\r\n\r\n").await
    }

    /// Reads exactly so many bytes.
    pub async fn exactly(&mut self, bytes: usize) -> Vec<u8> {
        while self.seen.len() < bytes {
            let read = within("more bytes", self.stream.read_buf(&mut self.seen)).await;
            assert_ne!(
                read.expect("a read"),
                0,
                "the connection ended after {} of {bytes} bytes",
                self.seen.len()
            );
        }
        let rest = self.seen.split_off(bytes);
        std::mem::replace(&mut self.seen, rest)
    }

    /// Reads so many bytes and forgets them; returns how many came before the connection ended.
    pub async fn skip(&mut self, bytes: usize) -> usize {
        let mut skipped = 0;
        loop {
            let seen = self.seen.len().min(bytes - skipped);
            self.seen.drain(..seen);
            skipped += seen;
            self.seen.reserve(256 << 10);
            if skipped == bytes
                || !matches!(within("more bytes", self.stream.read_buf(&mut self.seen)).await, Ok(1..))
            {
                return skipped;
            }
        }
    }

    /// Reads until the other side closes; a reset counts as that.
    pub async fn to_end(&mut self) -> String {
        let mut all = std::mem::take(&mut self.seen);
        // What came before a reset is what there is.
        let _ = within("the end of the connection", self.stream.read_to_end(&mut all)).await;
        String::from_utf8_lossy(&all).into_owned()
    }

    /// Says that nothing more will be sent.
    pub async fn finish(&mut self) {
        self.stream.shutdown().await.expect("a half-close");
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

/// A connection whose bytes arrive one by one.
///
/// # Panics
/// Panics where nobody takes it.
pub async fn dribbling(address: SocketAddr) -> DuplexStream {
    let (near, far) = tokio::io::duplex(1 << 16);
    let mut stream = within("a connection", TcpStream::connect(address)).await.expect("a connection");
    stream.set_nodelay(true).expect("a socket");
    // It ends with either side.
    tokio::spawn(async move {
        let (mut from, mut to) = tokio::io::split(far);
        let (mut read, mut write) = stream.split();
        let up = async {
            let mut byte = [0];
            while let Ok(1) = from.read(&mut byte).await {
                if write.write_all(&byte).await.is_err() {
                    break;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::select! { () = up => {}, _ = tokio::io::copy(&mut read, &mut to) => {} }
    });
    near
}
