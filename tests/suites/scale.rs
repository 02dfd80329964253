//! Much of everything, against the daemon in a process of its own: its memory is nobody else's.

use bytes::Bytes;
use gateway_tests::{Backend, GatewayProcess, Raw, TlsClient, eventually, tls};
use http::{Request, Response};
use http_body_util::{BodyExt as _, channel::Channel};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

const DAEMON: &str = env!("CARGO_BIN_EXE_test-daemon");
const GIB: u64 = 1 << 30;
const CHUNK: usize = 256 * 1024;

/// What the daemon may grow by while a body passes that is a hundred times as large. Buffers of the
/// sockets and of both HTTP connections are in it.
const FLAT: u64 = 10 << 20;

/// A gibibyte takes longer than other things do on a slow machine.
const LONG: Duration = Duration::from_secs(180);

async fn gateway(backend: &Backend) -> GatewayProcess {
    let toml = format!(
        "[[listener]]\nname = \"web\"\naddress = \"[::]:0\"\n[[route]]\nto = \"{}\"\n",
        backend.addr()
    );
    GatewayProcess::start(DAEMON, &toml).await
}

/// Sends a gibibyte into a body.
fn gibibyte() -> Channel<Bytes, std::io::Error> {
    let (mut sender, body) = Channel::new(4);
    tokio::spawn(async move {
        let chunk = Bytes::from(vec![7; CHUNK]);
        for _ in 0..GIB / CHUNK as u64 {
            if sender.send_data(chunk.clone()).await.is_err() {
                return;
            }
        }
    });
    body
}

/// The most memory that the daemon has in use while a future runs.
async fn peak<T>(gateway: &GatewayProcess, future: impl Future<Output = T>) -> (u64, T) {
    let mut future = std::pin::pin!(future);
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    let running = async {
        let mut peak = 0;
        loop {
            tokio::select! {
                output = &mut future => return (peak, output),
                _ = tick.tick() => peak = peak.max(gateway.rss()),
            }
        }
    };
    tokio::time::timeout(LONG, running).await.expect("a gibibyte within minutes")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gibibyte_down_and_up_in_flat_memory() {
    let received = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&received);
    let backend = Backend::streaming(move |request| {
        let counted = Arc::clone(&counted);
        async move {
            if request.uri().path() == "/down" {
                return Response::new(gibibyte().boxed());
            }
            let mut body = request.into_body();
            while let Some(Ok(frame)) = body.frame().await {
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                counted.fetch_add(bytes as u64, Ordering::Relaxed);
            }
            Response::new(http_body_util::Empty::new().map_err(|never| match never {}).boxed())
        }
    })
    .await;
    let gateway = gateway(&backend).await;
    let address = gateway.addr_of("web").await;
    let stream = TcpStream::connect(address).await.expect("a connection");
    let (mut client, connection) = http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
    tokio::spawn(connection);
    let before = gateway.rss();

    let (while_down, down) = peak(&gateway, async {
        let request = Request::get("/down")
            .header("host", "a")
            .body(http_body_util::Either::Right(http_body_util::Empty::new()));
        let mut body = client.send_request(request.expect("a request")).await.expect("an answer").into_body();
        let mut bytes = 0;
        while let Some(frame) = body.frame().await {
            bytes += frame.expect("a whole body").data_ref().map_or(0, Bytes::len) as u64;
        }
        bytes
    })
    .await;
    assert_eq!(down, GIB);
    let (while_up, ()) = peak(&gateway, async {
        client.ready().await.expect("the connection is kept");
        let request = Request::post("/up").header("host", "a").body(http_body_util::Either::Left(gibibyte()));
        let answer = client.send_request(request.expect("a request")).await.expect("an answer");
        assert_eq!(answer.status(), 200);
    })
    .await;
    assert_eq!(received.load(Ordering::Relaxed), GIB);
    let grown = while_down.max(while_up).saturating_sub(before);
    assert!(grown < FLAT, "memory grew by {grown} bytes from {before} (down {while_down}, up {while_up})");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_idle_connections() {
    const CONNECTIONS: usize = 10_000;
    /// Bytes for each, buffers and timers included.
    const EACH: u64 = 8 * 1024;
    let backend = Backend::hello().await;
    let gateway = gateway(&backend).await;
    let each = idle(&gateway, CONNECTIONS, async |address| Raw::connect(address).await).await;
    assert!(each < EACH, "{each} bytes for each idle connection");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_thousand_idle_tls_connections() {
    const CONNECTIONS: usize = 5_000;
    /// Bytes for each, keys and all else included.
    const EACH: u64 = 12 * 1024;
    let backend = Backend::hello().await;
    let toml = format!(
        "[[listener]]\nname = \"web\"\naddress = \"[::]:0\"\ntls = true\n\
         [[route]]\nto = \"{}\"\n[certificate.dev]\nself_signed = true\n",
        backend.addr()
    );
    let gateway = GatewayProcess::start(DAEMON, &toml).await;
    let authority = tls::text_of(&gateway.folder().join("state/authority/ca.pem"));
    let client = TlsClient::new("localhost", &[&authority]).offering(&["http/1.1"]);
    let each = idle(&gateway, CONNECTIONS, async |address| client.raw(address).await).await;
    assert!(each < EACH, "{each} bytes for each idle TLS connection");
}

/// Bytes of memory for each of so many connections, of which each has asked once. They work still then,
/// and leave nothing behind.
async fn idle<S>(
    gateway: &GatewayProcess,
    connections: usize,
    connect: impl AsyncFn(SocketAddr) -> Raw<S>,
) -> u64
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    raise_file_limit();
    let address = gateway.addr_of("web").await;
    let before = gateway.rss();
    let mut open = Vec::with_capacity(connections);
    let ask = async |connection: &mut Raw<S>| {
        connection.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        connection.until("hello").await;
    };
    for _ in 0..connections {
        let mut connection = connect(address).await;
        ask(&mut connection).await;
        open.push(connection);
    }
    let count = async || gateway.admin().status().await["listeners"][0]["connections"].as_u64();
    let all = eventually("all of them are open", async || {
        count().await.filter(|count| *count >= connections as u64)
    });
    assert_eq!(all.await, connections as u64);
    let each = gateway.rss().saturating_sub(before) / connections as u64;
    // The oldest and the youngest still work.
    for index in [0, connections - 1] {
        ask(&mut open[index]).await;
    }
    drop(open);
    eventually("none of them is left", async || (count().await? == 0).then_some(())).await;
    each
}

/// Both sides of every connection are files, and the backend's are in this process too.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("the limit of files is raised to what is allowed");
}
