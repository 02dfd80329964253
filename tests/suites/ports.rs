//! Listeners with many ports: which are served, what each carries, and what a reload does to them.

use gateway_tests::{Answer, Backend, Client, Raw, TestGateway, eventually, in_namespace, must_run, own_ip};
use std::net::SocketAddr;
use tokio::net::TcpStream;

async fn get(ip: &str, port: u16) -> Answer {
    Client::new(format!("{ip}:{port}").parse().expect("an address")).get("/").await
}

async fn refuses(ip: &str, port: u16) {
    let refused = async || TcpStream::connect(format!("{ip}:{port}")).await.is_err().then_some(());
    eventually("a refusal", refused).await;
}

fn listening(address: &str, backend: SocketAddr, more: &str) -> String {
    format!(
        "[gateway]\nworkers = 2\n[[listener]]\nname = \"many\"\naddress = \"{address}\"\n{more}\n\
         [[route]]\nname = \"app\"\nto = \"{backend}\"\n"
    )
}

#[tokio::test]
async fn few_ports_and_many_are_one_listener() {
    let backend = Backend::hello().await;
    for (test, ports, count, inside, outside) in
        [(0, "20001,20005-20007", 4, [20001, 20007], 20004), (1, "20000-20199", 200, [20000, 20199], 20200)]
    {
        let ip = own_ip(64 + test);
        let gateway = TestGateway::start(&listening(&format!("{ip}:{ports}"), backend.addr(), ""));
        for port in inside {
            for _ in 0..4 {
                assert_eq!(get(&ip, port).await.text(), "hello", "{ports}");
            }
            assert_eq!(backend.last().header("x-forwarded-port"), port.to_string());
        }
        refuses(&ip, outside).await;
        let status = gateway.status().await;
        let listener = &status["listeners"][0];
        assert_eq!(listener["address"], format!("{ip}:{ports}"), "{status}");
        assert_eq!(listener["ports"], count);
        assert_eq!(gateway.metric("vers_connections_total", &["listener=\"many\""]).await, 8.0);
        eventually("all of them are closed", async || {
            (gateway.metric("vers_connections_active", &[]).await == 0.0).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_reload_changes_the_ports_that_changed_and_no_others() {
    let backend = Backend::hello().await;
    for (test, before, after) in [(2, "20001-20003", "20002-20004"), (3, "20001-20100", "20002-20101")] {
        let ip = own_ip(64 + test);
        let (gone, kept, new) = (20001, 20002, if test == 2 { 20004 } else { 20101 });
        let text = |ports: &str| listening(&format!("{ip}:{ports}"), backend.addr(), "");
        let gateway = TestGateway::start(&text(before));
        let client = |port| Client::new(format!("{ip}:{port}").parse().expect("an address"));
        let mut on_gone = client(gone).connect().await.expect("a connection");
        let mut on_kept = client(kept).connect().await.expect("a connection");
        assert_eq!(
            (on_gone.get("/").await.text(), on_kept.get("/").await.text()),
            ("hello".into(), "hello".into())
        );
        gateway.write(&text(after));
        gateway.reload().await.expect("a reload");
        assert_eq!(get(&ip, new).await.text(), "hello");
        refuses(&ip, gone).await;
        eventually("the end of a connection whose port is gone", async || on_gone.is_closed().then_some(()))
            .await;
        assert_eq!(on_kept.get("/").await.text(), "hello", "the other one was not touched");
        eventually("one connection on the same listener", async || {
            (gateway.status().await["listeners"][0]["connections"] == 1).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_port_that_somebody_has_is_named() {
    let ip = own_ip(68);
    let _first = TestGateway::start(&listening(&format!("{ip}:20050"), Backend::nobody().await, ""));
    for ports in ["20049-20051", "20001-20100"] {
        let error = TestGateway::try_start(&listening(&format!("{ip}:{ports}"), Backend::nobody().await, ""));
        let error = error.expect_err("no start").to_string();
        assert!(error.contains("port 20050 is in use"), "{error}");
    }
}

#[tokio::test]
async fn ports_that_are_not_served_are_refused_clearly() {
    let (backend, ip) = (Backend::hello().await, own_ip(69));
    let address = format!("{ip}:20000-20009");
    let rules = "ports = { allow = [20000, \"20003-20009\"], deny = [20005] }";
    let gateway = TestGateway::start(&listening(&address, backend.addr(), rules));
    for port in [20000, 20003, 20009] {
        assert_eq!(get(&ip, port).await.status, 200, "{port}");
    }
    for port in [20001, 20005] {
        let answer = get(&ip, port).await;
        assert_eq!((answer.status.as_u16(), answer.header("x-gateway-error")), (403, "port-not-served"));
        assert_eq!(answer.header("connection"), "close");
    }
    let refused = ["listener=\"many\"", "reason=\"port\""];
    assert_eq!(gateway.metric("vers_connections_rejected_total", &refused).await, 2.0);
    assert_eq!(gateway.metric("vers_gateway_errors_total", &["code=\"port-not-served\""]).await, 2.0);
    assert_eq!(backend.heard().len(), 3);

    // Without a reload's help for a connection that is there already.
    let mut kept =
        Client::new(format!("{ip}:20003").parse().expect("an address")).connect().await.expect("one");
    assert_eq!(kept.get("/").await.status, 200);
    gateway.write(&listening(&address, backend.addr(), "ports = { allow = [20000] }"));
    gateway.reload().await.expect("a reload");
    assert_eq!(get(&ip, 20003).await.status, 403);
}

#[tokio::test]
async fn a_raw_connection_to_a_port_that_is_not_served_is_closed() {
    let (backend, ip) = (Backend::tcp_echo().await, own_ip(70));
    let gateway = TestGateway::start(&format!(
        "[[listener]]\naddress = \"{ip}:20000-20009\"\nports = {{ deny = [20001] }}\n\
         [[route]]\nprotocol = \"tcp\"\nto = \"{}\"\n",
        backend.addr()
    ));
    let connect = |port| Raw::connect(format!("{ip}:{port}").parse().expect("an address"));
    let mut served = connect(20000).await;
    served.send("ping").await;
    assert_eq!(served.exactly(4).await, b"ping");
    assert_eq!(connect(20001).await.to_end().await, "");
    assert_eq!(gateway.metric("vers_connections_rejected_total", &["reason=\"port\""]).await, 1.0);
    assert_eq!(backend.connections(), 1);
}

#[tokio::test]
async fn routes_tell_the_ports_of_a_listener_apart() {
    let (any, named) = (Backend::named("any").await, Backend::named("named").await);
    let (raw, ip) = (Backend::tcp_echo().await, own_ip(71));
    let gateway = TestGateway::start(&format!(
        r#"
        [[listener]]
        address = "{ip}:20000-20009"
        [[route]]
        to = "{}"
        [[route]]
        listener_port = 20003
        path = "/*"
        to = "{}"
        [[route]]
        listener_port = 20004
        protocol = "tcp"
        to = "{}"
        "#,
        any.addr(),
        named.addr(),
        raw.addr(),
    ));
    assert_eq!(get(&ip, 20000).await.text(), "any");
    assert_eq!(get(&ip, 20003).await.text(), "named");
    let mut client = Raw::connect(format!("{ip}:20004").parse().expect("an address")).await;
    client.send("GET / HTTP/1.1\r\n\r\n").await;
    assert_eq!(client.exactly(18).await, b"GET / HTTP/1.1\r\n\r\n", "nobody reads it as HTTP");
    drop(gateway);
}

#[test]
fn a_redirect_rule_tells_the_port_that_was_asked_for() {
    if !in_namespace("ports::a_redirect_rule_tells_the_port_that_was_asked_for", &["nft"]) {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(async {
        must_run("nft", &["add", "table", "inet", "test"]);
        must_run("nft", &["add", "chain", "inet", "test", "out", "{ type nat hook output priority -100; }"]);
        let rule = "tcp dport { 443, 2000-2999 } redirect to :15001";
        must_run("nft", &[&format!("add rule inet test out {rule}")]);
        let (backend, named) = (Backend::hello().await, Backend::named("named").await);
        let _gateway = TestGateway::start(&format!(
            r#"
            [gateway]
            workers = 2
            [[listener]]
            name = "all"
            address = "[::]:15001"
            original_destination = true
            ports = {{ deny = [2999] }}
            [[route]]
            to = "{}"
            [[route]]
            listener_port = 443
            to = "{}"
            "#,
            backend.addr(),
            named.addr(),
        ));
        for ip in ["[::1]", "127.0.0.1"] {
            assert_eq!(get(ip, 443).await.text(), "named", "{ip}");
            for port in [2000, 2777, 15001] {
                assert_eq!(get(ip, port).await.text(), "hello", "{ip}:{port}");
                assert_eq!(backend.last().header("x-forwarded-port"), port.to_string(), "{ip}");
            }
            assert_eq!(get(ip, 2999).await.header("x-gateway-error"), "port-not-served", "{ip}");
        }
    });
}

/// The kernel gives outgoing connections no port that somebody listens on.
#[test]
fn a_listener_on_every_port_still_reaches_its_backend() {
    if !in_namespace("ports::a_listener_on_every_port_still_reaches_its_backend", &["sysctl"]) {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let backend = Backend::hello().await;
        // Of this program, too: what it needs is there before.
        let mut clients = Vec::new();
        for _ in 0..20 {
            let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
            socket.bind(([127, 0, 0, 1], 0).into()).expect("a port");
            clients.push(socket);
        }
        must_run("sysctl", &["-qw", "net.ipv4.ip_local_port_range=20000 20399"]);
        let _gateway = TestGateway::start(&listening(
            "[::]:20000-20399",
            backend.addr(),
            "[admin]\naddress = \"127.0.0.1:9900\"",
        ));
        for (index, socket) in clients.into_iter().enumerate() {
            let port = 20000 + u16::try_from(index).expect("few") * 7;
            let stream = socket.connect(([127, 0, 0, 1], port).into()).await.expect("a connection");
            let mut client = Raw::over(stream);
            client.send("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
            assert!(client.to_end().await.ends_with("hello"));
        }
        assert_eq!(backend.heard().len(), 20);
    });
}
