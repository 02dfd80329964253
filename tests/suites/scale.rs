//! Much of everything, against the daemon in a process of its own: its memory is nobody else's.

use bytes::Bytes;
use gateway_tests::{Backend, GatewayProcess, Http2, Raw, TlsClient, eventually, guest, plugin_table, tls};
use http::{Request, Response};
use http_body_util::{BodyExt as _, channel::Channel};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use std::{
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
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
    gateway_with(backend, "").await
}

/// With further keys of the route, and tables.
async fn gateway_with(backend: &Backend, more: &str) -> GatewayProcess {
    let toml = format!(
        "[[listener]]\nname = \"web\"\naddress = \"[::]:0\"\n[[route]]\nto = \"{}\"\n{more}",
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
    a_gibibyte("").await;
}

/// None of them asks for a body, and one of them could.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gibibyte_down_and_up_through_plugins_in_flat_memory() {
    let tables = [("bodies", guest("body_edit")), ("trap", guest("trap")), ("audit", guest("audit"))]
        .map(|(name, component)| plugin_table(name, &component, GRANTS));
    a_gibibyte(&format!("plugins = [\"bodies\", \"trap\", \"audit\"]\n{}", tables.concat())).await;
}

/// Each piece of it goes through a plugin, there and back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gibibyte_down_and_up_transformed_in_flat_memory() {
    a_gibibyte(&transformed()).await;
}

fn transformed() -> String {
    let table = plugin_table("it", &guest("transform"), "config = { how = \"same\" }\n");
    format!("plugins = [\"it\"]\n{table}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gibibyte_up_over_http2_transformed_in_flat_memory() {
    let received = Arc::new(AtomicU64::new(0));
    let backend = counting(Arc::clone(&received)).await;
    let gateway = gateway_with(&backend, &transformed()).await;
    let mut client = Http2::connect(gateway.addr_of("web").await).await;
    assert_eq!(client.send(client.ask(http::Method::POST, "/up"), "x").await.status, 200);
    let before = gateway.rss();
    let (most, ()) = peak(&gateway, async {
        let (answer, mut stream) = client.open(client.ask(http::Method::POST, "/up"), false).await;
        let chunk = Bytes::from(vec![7; CHUNK]);
        let mut left = GIB;
        while left > 0 {
            stream.reserve_capacity(CHUNK);
            let granted = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await;
            // There may be room for more than is left.
            let granted = (granted.expect("a stream").expect("room").min(CHUNK) as u64).min(left);
            left -= granted;
            let granted = usize::try_from(granted).expect("no more than a chunk");
            stream.send_data(chunk.slice(..granted), left == 0).expect("data");
        }
        let answer = gateway_tests::collect(answer).await.expect("an answer");
        assert_eq!(answer.status, 200);
    })
    .await;
    assert_eq!(received.load(Ordering::Relaxed), GIB + 1);
    let grown = most.saturating_sub(before);
    assert!(grown < FLAT, "memory grew by {grown} bytes from {before}");
}

/// What any of them imports.
const GRANTS: &str = "grants = { http = [\"http://localhost:1\"] }\n";

/// Answers `/down` with a gibibyte, and counts what else it is sent.
async fn counting(received: Arc<AtomicU64>) -> Backend {
    Backend::streaming(move |request| {
        let counted = Arc::clone(&received);
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
    .await
}

async fn a_gibibyte(more: &str) {
    let received = Arc::new(AtomicU64::new(0));
    let backend = counting(Arc::clone(&received)).await;
    let gateway = gateway_with(&backend, more).await;
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

/// What it is asked for, and what comes of it where faults matter.
const MISCHIEF: [(&str, u16); 16] = [
    ("trap", 503),
    ("loop", 503),
    ("hog", 503),
    ("slow", 503),
    // As many lines as there may be, which the backend does not take.
    ("edits", 431),
    ("removes", 503),
    ("answer", 503),
    ("bulk", 503),
    ("random", 503),
    ("pairs", 200),
    ("names", 200),
    ("keep", 200),
    ("flood", 200),
    ("series", 200),
    // It asks for itself, in the middle of a call, and what comes of that for itself once more.
    ("again", 200),
    // It waits for what it has itself.
    ("reserve", 200),
];

/// A gateway with a plugin that does what a header of a request says: on `/` its faults matter, on `/lenient`
/// they do not, and `/plain` has none.
async fn with_mischief(backend: &Backend, silent: &Backend, mirror: &Backend) -> GatewayProcess {
    let table = plugin_table(
        "mischief",
        &guest("mischief"),
        &format!(
            "config = {{ url = \"http://{0}/\", mirror = \"http://{1}/\" }}\n\
             grants = {{ http = [\"http://{0}\", \"http://{1}\"], kv = \"1MiB\" }}\nbreaker = {{ faults = 0 }}\n\
             limits = {{ cpu = \"30ms\", wall = \"300ms\", memory = \"16MiB\" }}\n",
            silent.addr(),
            mirror.addr()
        ),
    );
    let to = backend.addr();
    let more = format!(
        "plugins = [\"mischief\"]\n[[route]]\npath = \"/plain\"\nto = \"{to}\"\n[[route]]\npath = \"/lenient\"\n\
         to = \"{to}\"\nplugins = [{{ use = \"mischief\", on_error = \"skip\" }}]\n\
         [log]\nformat = \"json\"\naccess = false\n{table}"
    );
    gateway_with(backend, &more).await
}

/// Asks for each kind in turn, on both routes.
async fn ask_for_mischief(
    address: SocketAddr,
    from: usize,
    count: usize,
    ended_early: &std::cell::Cell<u32>,
) {
    for number in from..from + count {
        let (what, status) = MISCHIEF[number % MISCHIEF.len()];
        let path = if number % 20 < 10 { "/" } else { "/lenient" };
        let failed = if path == "/lenient" { 200 } else { 503 };
        let status = if status == 503 { failed } else { status };
        let answer = gateway_tests::Client::new(address).with("x-do", what).get(path).await;
        if answer.status != status {
            assert_eq!(answer.status, failed, "{what} on {path}: {}", answer.text());
            ended_early.set(ended_early.get() + 1);
        }
    }
}

/// As [`ask_for_mischief`], ten of the same at a time. The first of each kind load what it takes to tell where a guest was,
/// and ten hold what they may at once; later on, that is up to chance.
async fn ten_at_once(address: SocketAddr, count: usize, ended_early: &std::cell::Cell<u32>) {
    for number in 0..count / 10 {
        let together = (0..10).map(|_| ask_for_mischief(address, number, 1, ended_early));
        futures_util::future::join_all(together).await;
    }
}

/// What one of a hundred is slower than.
fn late(sorted: &[Duration]) -> Duration {
    sorted[sorted.len() * 99 / 100]
}

/// How long each of so many requests of one connection took, shortest first.
async fn times_of(address: SocketAddr, path: &str, count: usize) -> Vec<std::time::Duration> {
    let mut taken = Vec::new();
    let mut kept = gateway_tests::Client::new(address).connect().await.expect("a connection");
    for _ in 0..count {
        let begun = std::time::Instant::now();
        assert_eq!(kept.get(path).await.status, 200, "beside all of that");
        taken.push(begun.elapsed());
    }
    taken.sort_unstable();
    taken
}

/// Asks the gateway for what it is asked for.
struct Mirror {
    backend: Backend,
    gateway: Arc<OnceLock<SocketAddr>>,
    /// How often it was answered.
    reflected: Arc<AtomicU64>,
}

impl Mirror {
    async fn new() -> Self {
        let (gateway, reflected) = (Arc::new(OnceLock::<SocketAddr>::new()), Arc::new(AtomicU64::new(0)));
        let (asked, counted) = (Arc::clone(&gateway), Arc::clone(&reflected));
        let backend = Backend::streaming(move |request| {
            let (asked, counted) = (Arc::clone(&asked), Arc::clone(&counted));
            async move {
                let address = *asked.get().expect("a gateway");
                let depth = request.headers()["x-depth"].to_str().expect("text").to_owned();
                let client =
                    gateway_tests::Client::new(address).with("x-do", "again").with("x-depth", &depth);
                // Who has asked may be gone, and this with it.
                if client.try_send(http::Method::GET, "/", Bytes::new()).await.is_ok() {
                    counted.fetch_add(1, Ordering::Relaxed);
                }
                Response::new(http_body_util::Empty::new().map_err(|never| match never {}).boxed())
            }
        })
        .await;
        Self { backend, gateway, reflected }
    }
}

/// Every kind of misbehaviour, mixed, beside requests that have nothing to do with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_requests_of_plugins_that_misbehave_in_flat_memory() {
    const REQUESTS: usize = 10_000;
    const WARMING: usize = 1600;
    const MOST: u64 = 24 << 20;
    /// What a neighbour may wait longer for than twice as long as without all of that: each of the ten at a time may
    /// have its worker for 2 ms, and nobody else has the machine's two processors meanwhile.
    const FLOOR: Duration = Duration::from_millis(50);
    let (backend, silent) = (Backend::hello().await, Backend::silent().await);
    let mirror = Mirror::new().await;
    let gateway = with_mischief(&backend, &silent, &mirror.backend).await;
    let address = gateway.addr_of("web").await;
    mirror.gateway.set(address).expect("one gateway");
    // A clock may end any of them where the machine does much else; `on_error` says what comes of it.
    let ended_early = std::cell::Cell::new(0);
    let all = async |count: usize| {
        let each = count / 10;
        futures_util::future::join_all(
            (0..10).map(|part| ask_for_mischief(address, part * each, each, &ended_early)),
        )
        .await;
    };
    let (before, ()) = peak(&gateway, ten_at_once(address, WARMING, &ended_early)).await;
    let quiet = times_of(address, "/plain", 2000).await;
    let beside = times_of(address, "/plain", 2000);
    let (most, (taken, ())) =
        peak(&gateway, async { futures_util::future::join(beside, all(REQUESTS)).await }).await;
    let grown = most.saturating_sub(before);
    println!(
        "{REQUESTS} requests: memory {} KiB at most in the beginning, {} KiB later; beside them, half took {:?}, 99 % {:?}, and \
         {:?} without",
        before >> 10,
        most >> 10,
        taken[taken.len() / 2],
        late(&taken),
        late(&quiet)
    );
    // Beside other tests, on two processors, it waits for those as well.
    let is_alone = std::env::var_os("VERS_TEST_ALONE").is_some();
    let bound = if is_alone { 2 * late(&quiet) + FLOOR } else { Duration::from_secs(1) };
    assert!(late(&taken) <= bound, "a neighbour waits {:?}", late(&taken));
    assert!(grown < MOST, "memory grew by {grown} bytes");
    let faults = async |kind: &str| {
        let kind = format!("kind=\"{kind}\"");
        gateway.admin().metric("vers_plugin_faults_total", &["plugin=\"mischief\"", &kind]).await
    };
    let each = ((REQUESTS + WARMING) / MISCHIEF.len()) as f64;
    // Ten at once on one worker may come to the end of a clock first, of whatever kind they are.
    let (cpu, wall) = (faults("cpu").await, faults("wall").await);
    let mut all = cpu + wall;
    // Too many edits, too large an answer and too many random bytes end in a trap.
    for (kind, expected) in [("trap", 4.0 * each), ("memory", each), ("response", each)] {
        let counted = faults(kind).await;
        // Those that a clock ended first may all be of one kind.
        assert!(counted <= expected && counted >= expected - each / 2.0, "{counted} of {kind}");
        all += counted;
    }
    // Half of those that were ended early were not seen: `/lenient` answers as if nothing was.
    let (early, seen) = (all - 8.0 * each, f64::from(ended_early.get()));
    let most = if is_alone { 0.0 } else { each / 2.0 };
    assert!(
        (seen..=most).contains(&early),
        "{early} too many, {seen} seen; {cpu} by the one, {wall} by the other"
    );
    // Ten that compute for as long as they may take a worker all the time that each of them has by the other clock.
    let least = if is_alone { each / 2.0 } else { each / 10.0 };
    assert!(cpu > least, "{cpu}");
    // Twice each: it was in the middle of a call when it was called again.
    let reflected = mirror.reflected.load(Ordering::Relaxed) as f64;
    assert!(reflected > 1.5 * each && reflected <= 2.0 * each, "{reflected}");
}

/// Two versions of a component in turn, under load: no request fails, and what is old is freed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_reloads_of_a_component_in_bounded_memory() {
    const MOST: u64 = 32 << 20;
    let reloads: u32 =
        std::env::var("VERS_TEST_RELOADS").ok().and_then(|count| count.parse().ok()).unwrap_or(300);
    let backend = Backend::hello().await;
    let versions =
        [guest("trap"), guest("response_edit")].map(|file| std::fs::read(file).expect("a component"));
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("plugin.wasm");
    let put = |version: usize| {
        let new = folder.path().join("new.wasm");
        std::fs::write(&new, &versions[version % 2]).expect("a component");
        std::fs::rename(new, &file).expect("a component in its place");
    };
    put(0);
    let table = plugin_table("plugin", &file, "");
    let gateway = gateway_with(
        &backend,
        &format!("plugins = [\"plugin\"]\n[log]\nformat = \"json\"\naccess = false\n{table}"),
    )
    .await;
    let address = gateway.addr_of("web").await;
    let (over, answered) = (std::sync::atomic::AtomicBool::new(false), AtomicU64::new(0));
    let load = async {
        let mut kept = gateway_tests::Client::new(address).connect().await.expect("a connection");
        while !over.load(Ordering::Relaxed) {
            assert_eq!(kept.get("/").await.status, 200, "under reloads");
            answered.fetch_add(1, Ordering::Relaxed);
        }
    };
    let reload = async {
        let begun = std::time::Instant::now();
        let (mut early, mut most) = (0, 0);
        for number in 1..=reloads {
            put(number as usize);
            let answer = gateway.admin().client().post("/reload", "").await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            // What a fifth of them leave behind is what there is.
            match number <= reloads / 5 {
                true => early = early.max(gateway.rss()),
                false => most = most.max(gateway.rss()),
            }
        }
        over.store(true, Ordering::Relaxed);
        (early, most, begun.elapsed())
    };
    let ((early, most, took), ()) = futures_util::future::join(reload, load).await;
    let grown = most.saturating_sub(early);
    println!(
        "{reloads} reloads in {took:?} beside {} requests: at most {} KiB in the first fifth, {} KiB later",
        answered.load(Ordering::Relaxed),
        early >> 10,
        most >> 10
    );
    assert!(grown < MOST, "memory grew by {grown} bytes");
    let generation = gateway.admin().status().await["generation"].as_u64();
    assert!(generation >= Some(u64::from(reloads)), "each took effect: {generation:?}");
}
