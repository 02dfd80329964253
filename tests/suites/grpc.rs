//! gRPC by a real implementation: all kinds of calls, deadlines, large messages, errors.

use bytes::{Buf as _, BufMut as _, Bytes};
use futures_util::{Stream, StreamExt as _, stream};
use gateway_tests::{Backend, TestGateway, eventually, one_backend, within};
use hyper::{server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::net::TcpListener;
use tonic::{
    Code, Request, Response, Status, Streaming,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    server::{self, StreamingService},
    transport::{Channel, Endpoint},
};

/// Messages that are nothing but bytes.
#[derive(Debug, Clone, Copy, Default)]
struct Plain;

impl Codec for Plain {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put(item);
        Ok(())
    }
}

impl Decoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

type Messages = Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;

/// What the server does with a call, by its method.
#[derive(Debug, Clone)]
struct Service {
    method: String,
    given_up: Arc<AtomicUsize>,
}

/// Counts calls that end before their answer.
struct Waiting(Arc<AtomicUsize>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl StreamingService<Bytes> for Service {
    type Response = Bytes;
    type ResponseStream = Messages;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Messages>, Status>> + Send>>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        let Self { method, given_up } = self.clone();
        Box::pin(async move {
            let mut messages = request.into_inner();
            let answer: Messages = match &*method {
                // Each message as it comes.
                "Each" => Box::pin(messages),
                // All of them as one.
                "All" => {
                    let mut all = Vec::new();
                    while let Some(message) = messages.next().await {
                        all.extend_from_slice(&message?);
                    }
                    Box::pin(stream::iter([Ok(all.into())]))
                }
                // The first one, byte by byte.
                "Bytes" => {
                    let first = messages.next().await.unwrap_or_else(|| Err(Status::internal("nothing")))?;
                    Box::pin(stream::iter((0..first.len()).map(move |at| Ok(first.slice(at..=at)))))
                }
                "Late failure" => {
                    let all = [Ok("one".into()), Err(Status::data_loss("half of it"))];
                    Box::pin(stream::iter(all))
                }
                "Never" => {
                    let _waiting = Waiting(given_up);
                    std::future::pending().await
                }
                other => return Err(Status::not_found(other)),
            };
            Ok(Response::new(answer))
        })
    }
}

/// A server of gRPC, and how many calls to it were given up.
async fn server() -> (Backend, Arc<AtomicUsize>) {
    server_on(TcpListener::bind("127.0.0.1:0").await.expect("a free port"))
}

/// The same, on a socket that is there already.
pub(crate) fn server_on(listener: TcpListener) -> (Backend, Arc<AtomicUsize>) {
    let given_up = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&given_up);
    let backend = Backend::on(listener, move |stream| {
        let given_up = Arc::clone(&counted);
        let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
            let method = request.uri().path().trim_start_matches("/test.Echo/").replace("%20", " ");
            let service = Service { method, given_up: Arc::clone(&given_up) };
            async move {
                let mut grpc = server::Grpc::new(Plain).max_decoding_message_size(8 << 20);
                Ok::<_, Infallible>(grpc.streaming(service, request).await)
            }
        });
        async move {
            let http2 = http2::Builder::new(TokioExecutor::new());
            let _ = http2.serve_connection(TokioIo::new(stream), service).await;
        }
    });
    (backend, given_up)
}

async fn client(gateway: &TestGateway) -> Grpc<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{}", gateway.addr())).expect("a URL");
    client_over(within("a connection", endpoint.connect()).await.expect("a connection")).await
}

/// A client on a connection that is there already.
pub(crate) async fn client_over(channel: Channel) -> Grpc<Channel> {
    let mut client = Grpc::new(channel).max_decoding_message_size(8 << 20);
    within("a client that is ready", client.ready()).await.expect("a ready client");
    client
}

fn method(name: &'static str) -> http::uri::PathAndQuery {
    format!("/test.Echo/{name}").replace(' ', "%20").parse().expect("a path")
}

async fn gateway(more: &str) -> (Backend, Arc<AtomicUsize>, TestGateway, Grpc<Channel>) {
    let (backend, given_up) = server().await;
    let gateway =
        TestGateway::start(&one_backend(&[backend.addr()], &format!("protocol = \"auto\"\n{more}")));
    let client = client(&gateway).await;
    (backend, given_up, gateway, client)
}

/// All kinds of calls by one client, to the server of this suite: for whoever puts something else between
/// them.
pub(crate) async fn calls_of_all_kinds(mut client: Grpc<Channel>, given_up: &AtomicUsize) {
    messages_of_all_sizes(&mut client).await;
    words_of_either_side(&mut client).await;
    words_of_both_sides(&mut client).await;
    failures(&mut client).await;
    a_deadline(&mut client, given_up).await;
}

#[tokio::test]
async fn unary_calls() {
    let (backend, _, _gateway, mut client) = gateway("").await;
    messages_of_all_sizes(&mut client).await;
    assert_eq!(backend.connections(), 1);
}

async fn messages_of_all_sizes(client: &mut Grpc<Channel>) {
    for size in [0, 1, 1000, 4 << 20] {
        let message: Bytes = (0..size).map(|at| (at % 251) as u8).collect();
        let answer = client.unary(Request::new(message.clone()), method("All"), Plain);
        let answer = within("an answer", answer).await.expect("an answer");
        assert!(*answer.get_ref() == message, "{size} bytes");
        client.ready().await.expect("a ready client");
    }
}

#[tokio::test]
async fn streams_of_either_side() {
    let (_backend, _, _gateway, mut client) = gateway("").await;
    words_of_either_side(&mut client).await;
}

async fn words_of_either_side(client: &mut Grpc<Channel>) {
    let words = || stream::iter(["one", "two", "three"].map(Bytes::from));
    let answer = client.client_streaming(Request::new(words()), method("All"), Plain);
    assert_eq!(within("an answer", answer).await.expect("an answer").into_inner(), "onetwothree");
    client.ready().await.expect("a ready client");
    let answer = client.server_streaming(Request::new(Bytes::from("abc")), method("Bytes"), Plain);
    let answer = within("an answer", answer).await.expect("an answer").into_inner();
    let bytes: Vec<_> = within("all messages", answer.collect()).await;
    assert_eq!(bytes.into_iter().collect::<Result<Vec<_>, _>>().expect("messages"), ["a", "b", "c"]);
    client.ready().await.expect("a ready client");
}

#[tokio::test]
async fn messages_of_both_sides_take_turns() {
    let (_backend, _, _gateway, mut client) = gateway("").await;
    words_of_both_sides(&mut client).await;
}

async fn words_of_both_sides(client: &mut Grpc<Channel>) {
    let (say, said) = tokio::sync::mpsc::unbounded_channel();
    let messages = tokio_stream::wrappers::UnboundedReceiverStream::new(said);
    say.send(Bytes::from("first")).expect("a listener");
    let answer = client.streaming(Request::new(messages), method("Each"), Plain);
    let mut answer = within("a head", answer).await.expect("a head").into_inner();
    assert_eq!(
        within("a message", answer.message()).await.expect("a message").as_deref(),
        Some(&b"first"[..])
    );
    for number in 0..100 {
        let message = Bytes::from(number.to_string());
        say.send(message.clone()).expect("a listener");
        assert_eq!(within("a message", answer.message()).await.expect("a message"), Some(message));
    }
    drop(say);
    assert_eq!(within("the end", answer.message()).await.expect("an end"), None);
    client.ready().await.expect("a ready client");
}

#[tokio::test]
async fn errors_arrive_as_they_are() {
    let (_backend, _, _gateway, mut client) = gateway("").await;
    failures(&mut client).await;
}

async fn failures(client: &mut Grpc<Channel>) {
    let answer = client.unary(Request::new(Bytes::new()), method("Nothing"), Plain);
    let error = within("an error", answer).await.expect_err("no such method");
    assert_eq!((error.code(), error.message()), (Code::NotFound, "Nothing"), "in a head without a body");
    client.ready().await.expect("a ready client");
    let answer = client.server_streaming(Request::new(Bytes::new()), method("Late failure"), Plain);
    let mut answer = within("a head", answer).await.expect("a head").into_inner();
    assert_eq!(within("a message", answer.message()).await.expect("a message").as_deref(), Some(&b"one"[..]));
    let error = within("an error", answer.message()).await.expect_err("trailers that say so");
    assert_eq!((error.code(), error.message()), (Code::DataLoss, "half of it"));
    client.ready().await.expect("a ready client");
}

#[tokio::test]
async fn a_deadline_that_passes_ends_the_call_at_the_server() {
    let (_backend, given_up, _gateway, mut client) = gateway("").await;
    a_deadline(&mut client, &given_up).await;
}

async fn a_deadline(client: &mut Grpc<Channel>, given_up: &AtomicUsize) {
    let mut request = Request::new(Bytes::new());
    request.set_timeout(Duration::from_millis(50));
    let error =
        within("an error", client.unary(request, method("Never"), Plain)).await.expect_err("no answer");
    assert!(matches!(error.code(), Code::DeadlineExceeded | Code::Cancelled), "{error}");
    eventually("the end of the call", async || (given_up.load(Ordering::SeqCst) == 1).then_some(())).await;
}

#[tokio::test]
async fn the_gateways_own_errors_are_those_of_grpc() {
    let nobody = Backend::nobody().await;
    let gateway = TestGateway::start(&one_backend(&[nobody], "protocol = \"auto\""));
    let mut grpc = client(&gateway).await;
    let error = within("an error", grpc.unary(Request::new(Bytes::new()), method("All"), Plain)).await;
    let error = error.expect_err("nobody answers");
    assert_eq!((error.code(), error.message()), (Code::Unavailable, "upstream-refused"));
    assert_eq!(error.metadata().get("x-gateway-error").expect("a code"), "upstream-refused");
    assert_eq!(gateway.metric("vers_requests_total", &["5xx"]).await, 1.0, "it is counted as what it is");
    let (backend, _) = server().await;
    let toml = one_backend(&[backend.addr()], "protocol = \"auto\"")
        .replace("to = \"app\"", "to = \"app\"\ntimeouts = { response = \"50ms\" }");
    let gateway = TestGateway::start(&toml);
    let mut grpc = client(&gateway).await;
    let error = within("an error", grpc.unary(Request::new(Bytes::new()), method("Never"), Plain)).await;
    assert_eq!(error.expect_err("no answer").code(), Code::DeadlineExceeded);
}
