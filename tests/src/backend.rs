//! Backends: what a VM would run, and what misbehaves.

use crate::{
    client::Raw,
    wait::{eventually, within},
};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, combinators::BoxBody};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::mpsc,
    task::JoinSet,
};

/// A server on 127.0.0.1, which ends when it is dropped.
#[derive(Debug)]
pub struct Backend {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<Heard>>>,
    connections: Arc<AtomicUsize>,
    _task: tokio::task::JoinHandle<()>,
}

impl Drop for Backend {
    fn drop(&mut self) {
        self._task.abort();
    }
}

/// A request as a backend saw it.
#[derive(Debug, Clone)]
pub struct Heard {
    /// Its method.
    pub method: Method,
    /// Its target.
    pub uri: Uri,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
    /// Its trailers, where there were any.
    pub trailers: Option<HeaderMap>,
}

impl Heard {
    /// A header as text; empty where it is absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

impl Backend {
    /// Answers 200 with `hello` to everything, and remembers what it heard.
    pub async fn hello() -> Self {
        Self::http(|_| Response::new(Full::from("hello"))).await
    }

    /// Answers with the request's body.
    pub async fn echo() -> Self {
        Self::http(|heard| Response::new(Full::new(heard.body.clone()))).await
    }

    /// Answers as the function says, after the whole request was read, and remembers it.
    pub async fn http(answer: impl Fn(&Heard) -> Response<Full<Bytes>> + Send + Sync + 'static) -> Self {
        Self::http_on(TcpListener::bind("127.0.0.1:0").await.expect("a free port"), answer)
    }

    /// Answers 200 with its name to everything, on `[::1]`.
    pub async fn named_v6(name: &'static str) -> Self {
        let listener = TcpListener::bind("[::1]:0").await.expect("a free port");
        Self::http_on(listener, move |_| Response::new(Full::from(name)))
    }

    /// As [`Self::http`], on a socket that is there already.
    pub fn http_on(
        listener: TcpListener,
        answer: impl Fn(&Heard) -> Response<Full<Bytes>> + Send + Sync + 'static,
    ) -> Self {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let (remembered, answer) = (Arc::clone(&heard), Arc::new(answer));
        let mut backend = Self::streaming_on(listener, move |request| {
            let (heard, answer) = (Arc::clone(&remembered), Arc::clone(&answer));
            async move {
                let (head, body) = request.into_parts();
                let Ok(body) = body.collect().await else {
                    return broken();
                };
                let trailers = body.trailers().cloned();
                let request = Heard {
                    method: head.method,
                    uri: head.uri,
                    headers: head.headers,
                    body: body.to_bytes(),
                    trailers,
                };
                let response = answer(&request).map(|body| body.map_err(|never| match never {}).boxed());
                heard.lock().unwrap_or_else(PoisonError::into_inner).push(request);
                response
            }
        });
        backend.heard = heard;
        backend
    }

    /// Answers as the function says, which may read and write bodies piece by piece.
    pub async fn streaming<F>(answer: impl Fn(Request<Incoming>) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Response<BoxBody<Bytes, std::io::Error>>> + Send + 'static,
    {
        Self::streaming_on(TcpListener::bind("127.0.0.1:0").await.expect("a free port"), answer)
    }

    /// As [`Self::streaming`], on a socket that is there already.
    pub fn streaming_on<F>(
        listener: TcpListener,
        answer: impl Fn(Request<Incoming>) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Response<BoxBody<Bytes, std::io::Error>>> + Send + 'static,
    {
        let answer = Arc::new(answer);
        Self::on(listener, move |stream| {
            let answer = Arc::clone(&answer);
            async move {
                let service = service_fn(move |request| {
                    let answer = Arc::clone(&answer);
                    async move { Ok::<_, Infallible>(answer(request).await) }
                });
                // A gateway that goes away is part of many tests.
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            }
        })
    }

    /// Does with each connection what the function says.
    pub async fn tcp<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::on(TcpListener::bind("127.0.0.1:0").await.expect("a free port"), serve)
    }

    /// The same, on a socket that is there already.
    pub fn on<F>(listener: TcpListener, serve: impl Fn(TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let address = listener.local_addr().expect("an address");
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        let task = tokio::spawn(async move {
            // Aborting this task drops the set, and that ends the connections.
            let mut serving = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                // Small writes are answers that a test waits for.
                let _ = stream.set_nodelay(true);
                counted.fetch_add(1, Ordering::SeqCst);
                serving.spawn(serve(stream));
            }
        });
        Self { address, heard: Arc::default(), connections, _task: task }
    }

    /// Leaves its connections to the test, which plays the server itself.
    pub async fn by_hand() -> (Self, Visitors) {
        let (arrived, visitors) = mpsc::unbounded_channel();
        let backend = Self::tcp(move |stream| {
            // A test that has seen enough lets further connections go.
            let _ = arrived.send(Raw::over(stream));
            async {}
        })
        .await;
        (backend, Visitors(visitors))
    }

    /// Sends back what it gets, and closes when the other side does.
    pub async fn tcp_echo() -> Self {
        Self::tcp(|mut stream| async move {
            let (mut read, mut write) = stream.split();
            let _ = tokio::io::copy(&mut read, &mut write).await;
            let _ = write.shutdown().await;
        })
        .await
    }

    /// Reads one request's head, and answers with these bytes, whatever they are; then closes.
    pub async fn canned(answer: impl Into<Bytes>) -> Self {
        let answer = answer.into();
        Self::tcp(move |mut stream| {
            let answer = answer.clone();
            async move {
                read_head(&mut stream).await;
                let _ = stream.write_all(&answer).await;
                let _ = stream.shutdown().await;
            }
        })
        .await
    }

    /// Accepts, reads, and never answers.
    pub async fn silent() -> Self {
        Self::tcp(|mut stream| async move {
            let mut sink = vec![0; 4096];
            while let Ok(1..) = stream.read(&mut sink).await {}
        })
        .await
    }

    /// Answers with its name to everything.
    pub async fn named(name: &'static str) -> Self {
        Self::http(move |_| Response::new(Full::from(name))).await
    }

    /// An address that nobody listens on.
    pub async fn nobody() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0")
            .await
            .and_then(|listener| listener.local_addr())
            .expect("a free port")
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// Ends it, and waits until its address refuses: dropped, it may still accept for a moment.
    pub async fn end(self) {
        let address = self.address;
        drop(self);
        let refuses = async || TcpStream::connect(address).await.is_err().then_some(());
        eventually("a refusal of a backend that has ended", refuses).await;
    }

    /// The requests that it heard, in order.
    pub fn heard(&self) -> Vec<Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The text of the request of this number, once it has come.
    pub async fn told(&self, number: usize) -> String {
        let heard = eventually("a request", async || self.heard().get(number).cloned()).await;
        String::from_utf8(heard.body.to_vec()).expect("text")
    }

    /// The last request that it heard.
    pub fn last(&self) -> Heard {
        self.heard().pop().expect("the backend heard a request")
    }

    /// How many connections it accepted.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// A server that refuses connections until it is woken, at an address that nobody else can take.
#[derive(Debug)]
pub struct Asleep(TcpSocket);

impl Asleep {
    /// On a free port.
    ///
    /// # Panics
    /// Panics where there is none.
    pub fn new() -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(([127, 0, 0, 1], 0).into()).expect("a free port");
        Self(socket)
    }

    /// Where it will listen.
    pub fn addr(&self) -> SocketAddr {
        self.0.local_addr().expect("an address")
    }

    /// Listens from now on, answers 200 with `awake` to each request, and closes.
    pub fn wake(self) -> Backend {
        Backend::on(self.0.listen(64).expect("a listener"), |mut stream| async move {
            read_head(&mut stream).await;
            let answer = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 5\r\n\r\nawake";
            let _ = stream.write_all(answer.as_bytes()).await;
        })
    }
}

impl Default for Asleep {
    fn default() -> Self {
        Self::new()
    }
}

/// These lines are among those of the text.
///
/// # Panics
/// Panics where one is not, and shows the text.
#[track_caller]
pub fn assert_told(text: &str, lines: &[&str]) {
    for line in lines {
        assert!(text.lines().any(|told| told == *line), "{line:?} is missing in\n{text}");
    }
}

/// The connections to a backend that a test plays by hand.
#[derive(Debug)]
pub struct Visitors(mpsc::UnboundedReceiver<Raw>);

impl Visitors {
    /// The next connection; it must come.
    pub async fn next(&mut self) -> Raw {
        within("a connection to the backend", self.0.recv()).await.expect("the backend listens")
    }
}

async fn read_head(stream: &mut TcpStream) {
    let mut head = Vec::new();
    while !head.windows(4).any(|window| window == b"\r\n\r\n") {
        if !matches!(stream.read_buf(&mut head).await, Ok(1..)) {
            return;
        }
    }
}

fn broken() -> Response<BoxBody<Bytes, std::io::Error>> {
    let mut response = Response::new(Full::default().map_err(|never| match never {}).boxed());
    *response.status_mut() = StatusCode::BAD_REQUEST;
    response
}
