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
pub(crate) fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("the limit of files is raised to what is allowed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_million_vms_in_a_file() {
    const VMS: u64 = 1_000_000;
    /// Bytes for each: 32 in the table, and what the allocator keeps of reading the file.
    const EACH: u64 = 100;
    let vm = Backend::named_v6("the last of them").await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("vms.csv");
    let id =
        |n: u64| format!("{:08x}-0000-4000-8000-{:012x}", n * 7919, n.wrapping_mul(0x9e37_79b9_7f4a) >> 16);
    let toml = format!(
        "[[listener]]\nname = \"web\"\naddress = \"[::]:0\"\n[[route]]\nhost = \"{{vm}}.vm.test\"\n\
         to = \"vm:{{vm}}:{}\"\n[vms]\nfile = {:?}\n",
        vm.addr().port(),
        file.to_str().expect("text"),
    );
    let daemon = async |vms: u64| {
        let lines: String = (0..vms).map(|n| format!("{},::1\n", id(n))).collect();
        std::fs::write(&file, lines).expect("a file");
        let begun = std::time::Instant::now();
        let gateway = GatewayProcess::start(DAEMON, &toml).await;
        let client = gateway_tests::Client::new(gateway.addr_of("web").await)
            .with("host", &format!("{}.vm.test", id(vms - 1)));
        assert_eq!(client.get("/").await.text(), "the last of them");
        (gateway.rss(), begun.elapsed())
    };
    let (few, _) = daemon(10).await;
    let (many, took) = daemon(VMS).await;
    let each = many.saturating_sub(few) / VMS;
    println!("{each} bytes for each VM; started, and the first request answered, in {took:?}");
    assert!(each < EACH, "{each} bytes for each VM");
}

/// Sockets of the kernel are not in the memory of the process; what the process has for each is.
#[test]
fn thousands_of_ports_on_one_listener() {
    const EACH: u64 = 600;
    if !gateway_tests::in_namespace("scale::thousands_of_ports_on_one_listener", &[]) {
        return;
    }
    // Each is an open file, and not everybody may have 64,512 of those.
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    let most = limit.map_or(64_512, |limit| limit.saturating_sub(2000).clamp(2000, 64_512));
    let all = format!("1024-{}", 1023 + most);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let backend = Backend::hello().await;
        let start = async |ports: &str| {
            let toml = format!(
                "[gateway]\nworkers = 2\n[admin]\naddress = \"127.0.0.1:900\"\n[[listener]]\nname = \"web\"\n\
                 address = \"127.0.0.2:{ports}\"\n[[route]]\nto = \"{}\"\n",
                backend.addr()
            );
            let begun = std::time::Instant::now();
            let gateway = GatewayProcess::start(DAEMON, &toml).await;
            let (took, memory) = (begun.elapsed(), gateway.rss());
            (gateway, took, memory)
        };
        let (few, took_few, of_few) = start("1024").await;
        end(few).await;
        for (ports, count) in [("1024-2023", 1000), (&*all, most)] {
            let (gateway, took, memory) = start(ports).await;
            let each = memory.saturating_sub(of_few) / count;
            println!(
                "{count} ports: {each} bytes for each in the process, started in {took:?} (one: {took_few:?})"
            );
            assert!(count < 10_000 || each < EACH, "{each} bytes for each port");
            for port in [1024, 2000, 2023] {
                let client = gateway_tests::Client::new(([127, 0, 0, 2], port).into());
                assert_eq!(client.get("/").await.text(), "hello");
            }
            end(gateway).await;
        }
    });
}

/// Its ports are free only when it is gone.
async fn end(mut gateway: GatewayProcess) {
    gateway.signal(rustix::process::Signal::KILL);
    gateway.ended().await;
}
