//! HTTP/2: a client that says to the frame what is sent, and servers that do.

use crate::{Backend, wait::within};
use bytes::Bytes;
use h2::{
    RecvStream, SendStream,
    client::{self, ResponseFuture, SendRequest},
    server::{self, SendResponse},
};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    task::JoinHandle,
};

/// A connection of a client, by prior knowledge. It ends when it is dropped.
#[derive(Debug)]
pub struct Http2 {
    /// What requests are made with.
    pub send: SendRequest<Bytes>,
    task: JoinHandle<Result<(), h2::Error>>,
    authority: String,
}

impl Drop for Http2 {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A whole answer over HTTP/2.
#[derive(Debug)]
pub struct H2Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
    /// Its trailers, where there were any.
    pub trailers: Option<HeaderMap>,
}

impl H2Answer {
    /// A header as text; empty where it is absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// A trailer as text; empty where it is absent.
    pub fn trailer(&self, name: &str) -> &str {
        let trailers = self.trailers.as_ref();
        trailers.and_then(|all| all.get(name)?.to_str().ok()).unwrap_or_default()
    }

    /// Its body as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap_or("?")
    }
}

impl Http2 {
    /// Connects.
    pub async fn connect(address: SocketAddr) -> Self {
        Self::with(address, &client::Builder::new()).await
    }

    /// Connects with these settings.
    pub async fn with(address: SocketAddr, settings: &client::Builder) -> Self {
        let stream = within("a connection", TcpStream::connect(address)).await.expect("a connection");
        let _ = stream.set_nodelay(true);
        Self::over(stream, address.to_string(), settings).await
    }

    /// Speaks over a connection that is there already, with this authority.
    pub async fn over(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        authority: String,
        settings: &client::Builder,
    ) -> Self {
        let (send, connection) = within("a handshake", settings.handshake(stream)).await.expect("HTTP/2");
        let mut http2 = Self { send, task: tokio::spawn(connection), authority };
        // So that what the server says of its limits is known.
        http2.send = within("the server's settings", http2.send.clone().ready()).await.expect("HTTP/2");
        http2
    }

    /// A request for a path of the gateway, of its own authority.
    pub fn get(&self, path: &str) -> Request<()> {
        self.ask(Method::GET, path)
    }

    /// The same with another method.
    pub fn ask(&self, method: Method, path: &str) -> Request<()> {
        let uri = format!("http://{}{path}", self.authority);
        Request::builder().method(method).uri(uri).body(()).expect("a request")
    }

    /// Sends a head.
    ///
    /// # Panics
    /// Panics where the connection takes none.
    pub async fn open(&mut self, request: Request<()>, is_last: bool) -> (ResponseFuture, SendStream<Bytes>) {
        let ready =
            within("room for a request", self.send.clone().ready()).await.expect("an open connection");
        self.send = ready;
        self.send.send_request(request, is_last).expect("a request that can be sent")
    }

    /// Sends a request and waits for all of its answer.
    ///
    /// # Panics
    /// Panics where there is none.
    pub async fn send(&mut self, request: Request<()>, body: impl Into<Bytes>) -> H2Answer {
        self.try_send(request, body).await.expect("an answer")
    }

    /// Sends a request and waits for all of its answer.
    ///
    /// # Errors
    /// Fails where the stream does.
    pub async fn try_send(
        &mut self,
        request: Request<()>,
        body: impl Into<Bytes>,
    ) -> Result<H2Answer, h2::Error> {
        let body = body.into();
        let (answer, mut stream) = self.open(request, body.is_empty()).await;
        if !body.is_empty() {
            stream.send_data(body, true)?;
        }
        within("an answer", collect(answer)).await
    }

    /// Waits until the connection has ended.
    ///
    /// # Panics
    /// Panics where its task does.
    pub async fn ended(&mut self) -> Result<(), h2::Error> {
        within("the end of the connection", &mut self.task).await.expect("a task")
    }
}

/// All of an answer.
///
/// # Errors
/// Fails where the stream does.
pub async fn collect(answer: ResponseFuture) -> Result<H2Answer, h2::Error> {
    let (parts, body) = answer.await?.into_parts();
    let (body, trailers) = read(body).await?;
    Ok(H2Answer { status: parts.status, headers: parts.headers, body, trailers })
}

/// All of a body.
///
/// # Errors
/// Fails where the stream does.
pub async fn read(mut body: RecvStream) -> Result<(Bytes, Option<HeaderMap>), h2::Error> {
    let mut all = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        all.extend_from_slice(&data);
    }
    let trailers = body.trailers().await?;
    Ok((all.into(), trailers))
}

/// A request to a server of HTTP/2.
pub type H2Request = Request<RecvStream>;

/// A backend that speaks HTTP/2 without being asked, and does with each request what the function says.
pub async fn h2c_backend<F>(
    serve: impl Fn(H2Request, SendResponse<Bytes>) -> F + Send + Sync + 'static,
) -> Backend
where
    F: Future<Output = ()> + Send + 'static,
{
    h2c_backend_with(server::Builder::new(), serve).await
}

/// The same with other settings.
pub async fn h2c_backend_with<F>(
    settings: server::Builder,
    serve: impl Fn(H2Request, SendResponse<Bytes>) -> F + Send + Sync + 'static,
) -> Backend
where
    F: Future<Output = ()> + Send + 'static,
{
    let serve = Arc::new(serve);
    Backend::tcp(move |stream| {
        let (settings, serve) = (settings.clone(), Arc::clone(&serve));
        async move {
            let Ok(mut connection) = settings.handshake::<_, Bytes>(stream).await else { return };
            let mut running = tokio::task::JoinSet::new();
            while let Some(Ok((request, respond))) = connection.accept().await {
                running.spawn(serve(request, respond));
            }
        }
    })
    .await
}

/// Answers with all of the request's body and its trailers, and its path in `x-path`.
pub async fn echo(request: H2Request, mut respond: SendResponse<Bytes>) {
    let (parts, body) = request.into_parts();
    let Ok((body, trailers)) = read(body).await else { return };
    let answer =
        Response::builder().header("x-path", parts.uri.path()).header("x-method", parts.method.as_str());
    let is_empty = body.is_empty() && trailers.is_none();
    let Ok(mut stream) = respond.send_response(answer.body(()).expect("an answer"), is_empty) else { return };
    if !body.is_empty() && stream.send_data(body, trailers.is_none()).is_err() {
        return;
    }
    if let Some(trailers) = trailers {
        let _ = stream.send_trailers(trailers);
    }
}

/// The two directions of a stream, as bytes.
#[derive(Debug)]
pub struct H2Io {
    send: SendStream<Bytes>,
    recv: RecvStream,
    came: Bytes,
}

impl H2Io {
    /// Of a stream whose heads have gone.
    pub fn new(send: SendStream<Bytes>, recv: RecvStream) -> Self {
        Self { send, recv, came: Bytes::new() }
    }

    /// Resets the stream.
    pub fn reset(&mut self, reason: h2::Reason) {
        self.send.send_reset(reason);
    }
}

impl AsyncRead for H2Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.came.is_empty() {
            match ready!(this.recv.poll_data(cx)) {
                Some(data) => this.came = data.map_err(io::Error::other)?,
                None => return Poll::Ready(Ok(())),
            }
        }
        let taken = this.came.split_to(this.came.len().min(buffer.remaining()));
        buffer.put_slice(&taken);
        Poll::Ready(this.recv.flow_control().release_capacity(taken.len()).map_err(io::Error::other))
    }
}

impl AsyncWrite for H2Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let send = &mut self.get_mut().send;
        send.reserve_capacity(data.len());
        while send.capacity() == 0 {
            match ready!(send.poll_capacity(cx)) {
                Some(granted) => granted.map_err(io::Error::other)?,
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            };
        }
        let written = send.capacity().min(data.len());
        send.send_data(Bytes::copy_from_slice(&data[..written]), false).map_err(io::Error::other)?;
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.get_mut().send.send_data(Bytes::new(), true).map_err(io::Error::other))
    }
}
