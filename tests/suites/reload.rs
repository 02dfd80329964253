//! What a reload changes, what it leaves alone, and what is left when it is refused.

use gateway_tests::{
    Backend, Client, Raw, TestGateway, eventually, guest, one_route, plugin, plugin_table, replace, within,
};
use http::Method;
use std::{
    net::{SocketAddr, TcpListener},
    path::Path,
    time::{Duration, Instant},
};
use tokio::{io::AsyncReadExt as _, net::TcpStream};
use vers_gateway::server::Reloaded;

/// A route whose answers say which configuration they passed.
fn marked(backend: &Backend, mark: &str) -> String {
    let config = format!("config = {{ response = {{ x-mark = \"{mark}\" }} }}");
    let table = plugin_table("mark", &plugin("header_inject"), &config);
    one_route(backend.addr(), &format!("plugins = [\"mark\"]\n{table}"))
}

/// A component with other bytes that does the same: a custom section more.
fn stamped(component: &Path, stamp: u8) -> Vec<u8> {
    let mut bytes = std::fs::read(component).expect("a component");
    // Section 0, three bytes: a name of one letter, and the stamp.
    bytes.extend([0, 3, 1, b's', stamp]);
    bytes
}

async fn refuses_connections(address: SocketAddr) {
    eventually("the end of the listener", async || TcpStream::connect(address).await.is_err().then_some(()))
        .await;
}

#[tokio::test]
async fn an_unchanged_configuration_is_not_swapped() {
    let backend = Backend::hello().await;
    let gateway = TestGateway::start(&marked(&backend, "1"));
    assert_eq!(gateway.reload().await.expect("a good configuration"), Reloaded::Unchanged(1));
    gateway.write(&marked(&backend, "2"));
    assert_eq!(gateway.reload().await.expect("a good configuration"), Reloaded::Swapped(2));
    assert_eq!(gateway.client().get("/").await.header("x-mark"), "2");
    assert_eq!(gateway.metric("vers_generation", &[]).await, 2.0);
    assert_eq!(gateway.metric("vers_reloads_total", &[]).await, 1.0);
}

/// Connections to backends and instances of plugins are worth keeping, where nothing is said of them.
#[tokio::test]
async fn what_did_not_change_is_kept_warm() {
    let backend = Backend::hello().await;
    let gateway = TestGateway::start(&marked(&backend, "1"));
    let mut client = gateway.client().connect().await.expect("a connection");
    client.get("/").await;
    for path in ["/a", "/b"] {
        gateway.write(&format!(
            "[[route]]\npath = \"{path}\"\nto = {{ respond = {{ body = \"{path}\" }} }}\n{}",
            marked(&backend, "1")
        ));
        gateway.reload().await.expect("a good configuration");
        assert_eq!(client.get(path).await.text(), path, "the connection goes on with the new routes");
        assert_eq!(client.get("/").await.header("x-mark"), "1");
    }
    assert_eq!(backend.connections(), 1, "one connection to the backend served all of them");
    let plugin = gateway.operator().plugin("mark").await;
    assert_eq!((&plugin["instances"], &plugin["calls"]), (&1.into(), &6.into()), "{plugin}");
    let requests = gateway.metric("vers_requests_total", &["route=\"app\""]).await;
    assert_eq!(requests, 3.0, "counters go on");
}

/// A long answer holds on to the configuration that it began with, and to nothing that others have left
/// there.
#[tokio::test]
async fn a_replaced_configuration_keeps_nothing_for_later_requests() {
    let (backend, mut calls) = Backend::by_hand().await;
    let gateway = TestGateway::start(&marked(&backend, "old"));
    let ask = async || {
        let mut client = Raw::connect(gateway.addr()).await;
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        client
    };
    let mut long = ask().await;
    let mut long_call = calls.next().await;
    long_call.head().await;
    long_call.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n1").await;
    long.head().await;
    assert_eq!(long.exactly(1).await, b"1");
    let mut short = ask().await;
    let mut short_call = calls.next().await;
    short_call.head().await;
    short_call.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    short.until("ok").await;
    assert!(gateway.metric("vers_plugin_instances", &["plugin=\"mark\""]).await > 0.0);

    gateway.write("[[listener]]\naddress = \"[::]:0\"\n[[route]]\nto = { respond = { body = \"new\" } }\n");
    assert_eq!(gateway.reload().await.expect("a good configuration"), Reloaded::Swapped(2));
    assert_eq!(short_call.to_end().await, "", "its connection to the backend is closed");
    eventually("no instances", async || {
        (gateway.metric("vers_plugin_instances", &["plugin=\"mark\""]).await == 0.0).then_some(())
    })
    .await;
    long_call.send("2").await;
    assert_eq!(long.exactly(1).await, b"2", "the long answer comes to its end");
    assert_eq!(long_call.to_end().await, "", "and its connection is not kept");
}

#[tokio::test]
async fn a_request_ends_on_the_configuration_it_began_with() {
    let (backend, mut calls) = Backend::by_hand().await;
    let gateway = TestGateway::start(&marked(&backend, "old"));
    let mut client = Raw::connect(gateway.addr()).await;
    client.send("GET /first HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let mut call = calls.next().await;
    call.head().await;
    gateway.write(&marked(&backend, "new"));
    assert_eq!(gateway.reload().await.expect("a good configuration"), Reloaded::Swapped(2));
    call.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n1").await;
    let head = client.head().await;
    assert!(head.contains("x-mark: old"), "it passes the plugins it began with: {head}");
    call.send("1").await;
    assert_eq!(client.exactly(2).await, b"11");
    client.send("GET /second HTTP/1.1\r\nhost: a\r\n\r\n").await;
    call.head().await;
    call.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let head = client.head().await;
    assert!(head.contains("x-mark: new"), "the next one on this connection: {head}");
}

/// Sends what it gets back, after it has agreed to change the protocol.
async fn upgrading() -> Backend {
    Backend::tcp(|stream| async move {
        let mut raw = Raw::over(stream);
        raw.head().await;
        raw.send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n").await;
        let (mut read, mut write) = raw.stream.split();
        // A client that goes away is part of many tests.
        let _ = tokio::io::copy(&mut read, &mut write).await;
    })
    .await
}

/// A listener of this name, and the one route that is on it.
fn listener(name: &str, address: &str, to: SocketAddr, more: &str) -> String {
    format!(
        "[[listener]]\nname = \"{name}\"\naddress = \"{address}\"\n\
         [[route]]\nlisteners = [\"{name}\"]\nto = \"{to}\"\n{more}\n"
    )
}

#[tokio::test]
async fn listeners_come_stay_and_go() {
    let backend = Backend::hello().await;
    let at = |name, address| listener(name, address, backend.addr(), "");
    let stays = at("stays", "[::]:0");
    let gateway = TestGateway::start(&format!("{stays}{}", at("goes", "127.0.0.1:0")));
    let (old, gone) = (gateway.addr_of("stays"), gateway.addr_of("goes"));
    let mut kept = Client::new(old).connect().await.expect("a connection");
    assert_eq!(kept.get("/").await.text(), "hello");
    assert_eq!(Client::new(gone).get("/").await.text(), "hello");

    gateway.write(&format!("{stays}{}", at("comes", "[::1]:0")));
    gateway.reload().await.expect("a good configuration");
    let come = gateway.operator().listener("comes").await.expect("the new listener");
    assert_eq!(Client::new(come).get("/").await.text(), "hello", "the new one serves");
    assert_eq!(kept.get("/").await.text(), "hello", "a connection of the one that stays goes on");
    assert_eq!(gateway.operator().listener("stays").await, Some(old), "on the same port");
    refuses_connections(gone).await;
    assert_eq!(gateway.operator().listener("goes").await, None);
}

#[tokio::test]
async fn what_runs_on_a_removed_listener_is_finished() {
    let (backend, mut calls) = Backend::by_hand().await;
    let (echo, upgrading) = (Backend::tcp_echo().await, upgrading().await);
    let stays = listener("stays", "[::]:0", echo.addr(), "");
    let upgrade = format!(
        "[[route]]\nlisteners = [\"goes\"]\npath = \"/echo\"\nupgrades = [\"echo\"]\nto = \"{}\"",
        upgrading.addr()
    );
    let goes = listener("goes", "127.0.0.1:0", backend.addr(), &upgrade);
    let raw = listener("raw", "[::1]:0", echo.addr(), "protocol = \"tcp\"");
    let gateway = TestGateway::start(&format!("{stays}{goes}{raw}"));
    let (goes, raw) = (gateway.addr_of("goes"), gateway.addr_of("raw"));

    let mut idle = Raw::connect(goes).await;
    idle.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let mut call = calls.next().await;
    call.head().await;
    call.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    idle.head().await;
    let mut waiting = Raw::connect(goes).await;
    waiting.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    call.head().await;
    let mut upgraded = Raw::connect(goes).await;
    upgraded.send("GET /echo HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n").await;
    upgraded.head().await;
    let mut stream = Raw::connect(raw).await;
    stream.send("before").await;
    stream.until("before").await;

    gateway.write(&stays);
    gateway.reload().await.expect("a good configuration");
    refuses_connections(goes).await;
    refuses_connections(raw).await;
    assert_eq!(idle.to_end().await, "", "an idle connection is closed");
    call.send("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello").await;
    let last = waiting.to_end().await;
    assert!(
        last.starts_with("HTTP/1.1 200 OK\r\n") && last.ends_with("\r\n\r\nhello"),
        "an answer comes: {last}"
    );
    assert!(last.contains("connection: close\r\n"), "and the client is told that it is the last: {last}");
    for tunnel in [&mut upgraded, &mut stream] {
        tunnel.send("after").await;
        tunnel.until("after").await;
        tunnel.finish().await;
        assert_eq!(tunnel.to_end().await, "", "a tunnel ends when its ends say so");
    }
    let active = async || gateway.metric("vers_connections_active", &["listener=\"goes\""]).await;
    eventually("nothing is left of it", async || (active().await == 0.0).then_some(())).await;
}

#[tokio::test]
async fn an_address_can_change() {
    let backend = Backend::hello().await;
    let at = |address: &str| {
        format!(
            "[[listener]]\nname = \"web\"\naddress = \"{address}\"\n[[route]]\nto = \"{}\"\n",
            backend.addr()
        )
    };
    let gateway = TestGateway::start(&at("127.0.0.1:0"));
    let old = gateway.addr();
    gateway.write(&at("[::1]:0"));
    gateway.reload().await.expect("a good configuration");
    let new = gateway.operator().listener("web").await.expect("a listener");
    assert!(new.is_ipv6(), "{new}");
    assert_eq!(Client::new(new).get("/").await.text(), "hello");
    refuses_connections(old).await;
}

/// What everybody does who reads the warning "cannot be reached over IPv6": the port stays, and the
/// gateway stands in its own way.
#[tokio::test]
async fn an_address_can_change_and_keep_its_port() {
    let backend = Backend::hello().await;
    let port = Backend::nobody().await.port();
    let at = |ip: &str| {
        format!(
            "[[listener]]\nname = \"web\"\naddress = \"{ip}:{port}\"\n[[route]]\nto = \"{}\"\n",
            backend.addr()
        )
    };
    let gateway = TestGateway::start(&at("0.0.0.0"));
    let (v4, v6) = (gateway.addr_v4(), SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, port)));
    assert!(TcpStream::connect(v6).await.is_err(), "only IPv4 so far");
    let mut kept = Client::new(v4).connect().await.expect("a connection");
    assert_eq!(kept.get("/").await.text(), "hello");

    gateway.write(&at("[::]"));
    gateway.reload().await.unwrap_or_else(|refused| panic!("the port is our own: {refused}"));
    for address in [v6, v4] {
        assert_eq!(Client::new(address).get("/").await.text(), "hello", "{address}");
    }
    gateway.write(&at("[::1]"));
    gateway.reload().await.unwrap_or_else(|refused| panic!("the port is our own: {refused}"));
    assert_eq!(Client::new(v6).get("/").await.text(), "hello");
    refuses_connections(v4).await;
}

#[tokio::test]
async fn a_port_that_is_taken_changes_nothing() {
    let backend = Backend::hello().await;
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken_at = taken.local_addr().expect("an address");
    let free = Backend::nobody().await;
    let gateway = TestGateway::start(&marked(&backend, "old"));
    let mut kept = gateway.client().connect().await.expect("a connection");
    kept.get("/").await;
    gateway.write(&format!(
        "[[listener]]\naddress = \"{free}\"\n[[listener]]\naddress = \"{taken_at}\"\n{}",
        marked(&backend, "new")
    ));
    let refused = gateway.reload().await.expect_err("the port is taken");
    let message = format!("cannot listen on {taken_at}: port {} is in use", taken_at.port());
    assert!(refused.text.contains(&message), "{refused}");
    assert_eq!(kept.get("/").await.header("x-mark"), "old");
    assert_eq!(gateway.status().await["generation"], 1);
    drop(TcpListener::bind(free).expect("nothing of the attempt is left"));
    drop(taken);
    assert_eq!(gateway.reload().await.expect("the port is free"), Reloaded::Swapped(2));
    assert_eq!(Client::new(taken_at).get("/").await.header("x-mark"), "new");
    assert_eq!(kept.get("/").await.header("x-mark"), "new");
}

#[tokio::test]
async fn a_refused_reload_says_where_and_changes_nothing() {
    let backend = Backend::hello().await;
    let gateway = TestGateway::start(&marked(&backend, "old"));
    gateway.client().get("/").await;
    let admin = gateway.admin();
    let good = marked(&backend, "new");
    let bad = [
        ("[[listener]\n".to_owned(), "gateway.toml:1:"),
        (good.replace("plugins = [\"mark\"]", "plugin = [\"mark\"]"), "gateway.toml:6:1"),
        (good.replace("x-mark", "te"), "gateway.toml:9:30"),
        (good.replace("header_inject.wasm", "no_such.wasm"), "gateway.toml:8:13"),
    ];
    for (attempt, (toml, place)) in (1..).zip(&bad) {
        gateway.write(toml);
        let answer = admin.post("/reload", "").await;
        assert_eq!(answer.status, 422, "{toml}");
        let body: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
        assert!(body["errors"].as_u64() > Some(0), "{body}");
        let status = gateway.status().await;
        for told in [&body["error"], &status["last_reload"]["error"]] {
            assert!(told.as_str().is_some_and(|told| told.contains(place)), "{place} in {told}");
        }
        assert_eq!((&status["generation"], &status["draining"]), (&1.into(), &false.into()), "{status}");
        assert_eq!(gateway.metric("vers_reload_failures_total", &[]).await, f64::from(attempt));
        assert_eq!(admin.get("/readyz").await.status, 200, "it serves, so it is ready");
        assert_eq!(gateway.client().get("/").await.header("x-mark"), "old");
    }
    gateway.write(&good);
    let answer = admin.post("/reload", "").await;
    let body: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
    assert_eq!(
        (answer.status.as_u16(), body),
        (200, serde_json::json!({ "generation": 2, "changed": true }))
    );
    let status = gateway.status().await;
    assert_eq!(status["last_reload"]["error"], serde_json::Value::Null, "{status}");
    let at = status["last_reload"]["at"].as_str().unwrap_or_default();
    assert!(at.starts_with("20") && at.ends_with('Z'), "{status}");
    assert_eq!(gateway.client().get("/").await.header("x-mark"), "new");
}

/// Waits until the watcher has brought about this generation.
async fn generation(gateway: &TestGateway, number: u64) {
    let what = format!("generation {number}");
    eventually(&what, async || (gateway.status().await["generation"] == number).then_some(())).await;
}

async fn refusals(gateway: &TestGateway, number: f64) {
    let what = format!("{number} refused reloads");
    let count = async || gateway.metric("vers_reload_failures_total", &[]).await;
    eventually(&what, async || (count().await == number).then_some(())).await;
}

#[tokio::test]
async fn a_saved_configuration_is_noticed_however_it_is_saved() {
    let backend = Backend::hello().await;
    let gateway = TestGateway::watching(&marked(&backend, "1"));
    let file = gateway.folder().join("gateway.toml");
    let mark = async || gateway.client().get("/").await.header("x-mark").to_owned();
    let whole = std::fs::read_to_string(&file).expect("the configuration");
    let with = |mark: &str| whole.replace("\"1\"", &format!("\"{mark}\""));

    std::fs::write(&file, with("2")).expect("in place");
    generation(&gateway, 2).await;
    assert_eq!(mark().await, "2");
    replace(&file, with("3"));
    generation(&gateway, 3).await;
    assert_eq!(mark().await, "3");
    std::fs::remove_file(&file).expect("removed");
    refusals(&gateway, 1.0).await;
    assert_eq!(mark().await, "3", "without a file the last one goes on");
    std::fs::write(&file, with("4")).expect("there again");
    generation(&gateway, 4).await;
    assert_eq!(mark().await, "4");
    std::fs::write(&file, "[[listener]\n").expect("a mistake");
    refusals(&gateway, 2.0).await;
    std::fs::write(&file, with("4")).expect("taken back");
    let told = async || gateway.status().await["last_reload"]["error"].is_null();
    eventually("all is well again", async || told().await.then_some(())).await;
    assert_eq!(gateway.status().await["generation"], 4, "what runs never changed");
}

#[tokio::test]
async fn a_component_that_is_built_again_is_noticed() {
    let backend = Backend::hello().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("plugin.wasm");
    std::fs::copy(plugin("header_inject"), &file).expect("a component");
    let config = "config = { response = { x-mark = \"{route}\" } }";
    let toml = one_route(backend.addr(), &format!("plugins = [\"p\"]\n{}", plugin_table("p", &file, config)));
    let gateway = TestGateway::watching(&toml);
    let hash = async || gateway.operator().plugin("p").await["sha256"].to_string();
    let mut seen = vec![hash().await];

    std::fs::write(&file, stamped(&plugin("header_inject"), 1)).expect("in place");
    generation(&gateway, 2).await;
    seen.push(hash().await);
    replace(&file, stamped(&plugin("header_inject"), 2));
    generation(&gateway, 3).await;
    seen.push(hash().await);
    assert_eq!(gateway.client().get("/").await.header("x-mark"), "app");

    // A build that fails half-way, and one that makes something else.
    std::fs::write(&file, "not yet").expect("garbage");
    refusals(&gateway, 1.0).await;
    replace(&file, std::fs::read(guest("bad_config")).expect("a component"));
    refusals(&gateway, 2.0).await;
    assert_eq!(gateway.client().get("/").await.header("x-mark"), "app", "the last good one serves");
    assert_eq!(hash().await, seen[2]);
    replace(&file, std::fs::read(plugin("header_inject")).expect("a component"));
    generation(&gateway, 4).await;
    assert_eq!(hash().await, seen[0]);
    seen.dedup();
    assert_eq!(seen.len(), 3, "three contents, three hashes: {seen:?}");
}

/// Deployments switch a link; developers link to where the compiler writes.
#[tokio::test]
async fn what_a_link_leads_to_is_followed() {
    use std::os::unix::fs::symlink;
    let backend = Backend::hello().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    for version in ["v1", "v2"] {
        std::fs::create_dir(folder.path().join(version)).expect("a folder");
        let stamp = version.as_bytes()[1];
        let bytes = stamped(&plugin("header_inject"), stamp);
        std::fs::write(folder.path().join(version).join("plugin.wasm"), bytes).expect("a component");
    }
    let link = folder.path().join("current");
    symlink("v1", &link).expect("a link");
    let table = plugin_table("p", &link.join("plugin.wasm"), "");
    let gateway = TestGateway::watching(&one_route(backend.addr(), &format!("plugins = [\"p\"]\n{table}")));

    symlink("v2", folder.path().join("next")).expect("a link");
    std::fs::rename(folder.path().join("next"), &link).expect("the link is switched");
    generation(&gateway, 2).await;
    std::fs::write(folder.path().join("v2/plugin.wasm"), stamped(&plugin("header_inject"), 3))
        .expect("a build");
    generation(&gateway, 3).await;
    let file_link = folder.path().join("link.wasm");
    symlink("v1/plugin.wasm", &file_link).expect("a link");
    let table = plugin_table("p", &file_link, "");
    gateway.write(&one_route(backend.addr(), &format!("plugins = [\"p\"]\n{table}")));
    generation(&gateway, 4).await;
    std::fs::write(folder.path().join("v1/plugin.wasm"), stamped(&plugin("header_inject"), 4))
        .expect("a build");
    generation(&gateway, 5).await;
}

#[tokio::test]
async fn a_secret_that_changes_is_noticed() {
    let backend = Backend::hello().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("token");
    std::fs::write(&file, "first").expect("a secret");
    let more = format!(
        "grants = {{ secrets = [\"fleet\"] }}\nconfig = {{ secret = \"fleet\" }}\n[secret.fleet]\nfile = \"{}\"\n",
        file.display()
    );
    let table = plugin_table("auth", &plugin("auth_token"), &more);
    let gateway =
        TestGateway::watching(&one_route(backend.addr(), &format!("plugins = [\"auth\"]\n{table}")));
    let status = async |token: &str| {
        let client = gateway.client().with("authorization", &format!("Bearer {token}"));
        client.send(Method::GET, "/", Default::default()).await.status.as_u16()
    };
    assert_eq!((status("first").await, status("second").await), (200, 401));
    replace(&file, "second\n");
    generation(&gateway, 2).await;
    assert_eq!((status("first").await, status("second").await), (401, 200));
    std::fs::remove_file(&file).expect("the secret is taken away");
    generation(&gateway, 3).await;
    assert_eq!((status("first").await, status("second").await), (401, 401));
    std::fs::write(&file, "first").expect("a secret");
    generation(&gateway, 4).await;
    assert_eq!((status("first").await, status("second").await), (200, 401));
}

/// A client that has connected is about to ask; that its listener goes meanwhile is not its fault.
#[tokio::test]
async fn a_client_that_has_just_come_may_ask_at_a_listener_that_goes() {
    let backend = Backend::hello().await;
    let stays = listener("stays", "[::]:0", backend.addr(), "");
    for protocol in ["http", "any"] {
        let more = format!("protocol = \"{protocol}\"");
        let both = format!("{stays}{}", listener("goes", "127.0.0.1:0", backend.addr(), &more));
        let gateway = TestGateway::start(&both);
        eventually("an answer", async || {
            let goes = gateway.operator().listener("goes").await.expect("a listener");
            let mut client = Raw::connect(goes).await;
            let open = async || gateway.metric("vers_connections_active", &["listener=\"goes\""]).await;
            eventually("the connection", async || (open().await == 1.0).then_some(())).await;
            gateway.write(&stays);
            let since = Instant::now();
            gateway.reload().await.expect("a good configuration");
            refuses_connections(goes).await;
            client.send("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
            let took = since.elapsed();
            let mut answer = String::new();
            // A connection that is closed already may be reset.
            let _ = client.stream.read_to_string(&mut answer).await;
            gateway.write(&both);
            gateway.reload().await.expect("a good configuration");
            // A machine that took longer than the client may says nothing.
            let says_something = took < Duration::from_millis(400);
            says_something.then(|| assert!(answer.ends_with("hello"), "{protocol}, {took:?}: {answer:?}"))
        })
        .await;
    }
}

/// A client whose connection the kernel has accepted was told that somebody is there: a listener that
/// goes serves it first.
#[tokio::test]
async fn connections_that_wait_at_a_removed_listener_are_served() {
    let backend = Backend::hello().await;
    let spin = plugin_table("spin", &guest("spin"), "limits = { cpu = \"60ms\" }\nbreaker = { faults = 0 }");
    let staying = format!(
        "[[listener]]\nname = \"stays\"\naddress = \"[::]:0\"\n\
         [[route]]\nlisteners = [\"stays\"]\nto = \"{}\"\nplugins = [\"spin\"]\n",
        backend.addr()
    );
    let leaving = format!(
        "[[listener]]\nname = \"goes\"\naddress = \"127.0.0.1:0\"\n[[route]]\nlisteners = [\"goes\"]\nto = \"{}\"\n",
        backend.addr()
    );
    let both = format!("{staying}{leaving}{spin}");
    let gateway = TestGateway::start(&both);
    for round in 0..4 {
        // Guests that spin keep the worker from its listeners for a while.
        let mut spinning = Vec::new();
        for _ in 0..12 {
            let mut raw = Raw::connect(gateway.addr_of("stays")).await;
            raw.send("GET / HTTP/1.1\r\nhost: a\r\nx-spin: request\r\nconnection: close\r\n\r\n").await;
            spinning.push(raw);
        }
        // Each spins for a time by the clock: where the machine is slow, the first has ended before the last
        // begins, and they are never all there.
        let begun = async || gateway.metric("vers_plugin_calls_total", &["plugin=\"spin\""]).await;
        let all = f64::from(12 * (round + 1));
        eventually("guests that spin", async || (begun().await >= all).then_some(())).await;
        let goes = gateway.operator().listener("goes").await.expect("a listener");
        let mut clients = Vec::new();
        for _ in 0..20 {
            let mut client = Raw::connect(goes).await;
            // At once: how long it may take is another matter, and another test.
            client.send("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
            clients.push(client);
        }
        gateway.write(&format!("{staying}{spin}"));
        gateway.reload().await.expect("a good configuration");
        for mut client in clients {
            let answer = client.to_end().await;
            assert!(answer.starts_with("HTTP/1.1 200"), "round {round}: {answer:?}");
        }
        for mut raw in spinning {
            within("the end of the spinning", raw.to_end()).await;
        }
        gateway.write(&both);
        gateway.reload().await.expect("a good configuration");
    }
}
