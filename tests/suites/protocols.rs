//! Listeners that carry whatever is spoken: requests, SSH, TLS that passes through, anything.

use gateway_tests::{
    Backend, Client, Http2, Pki, Raw, TestGateway, TlsClient, certificate_table, dribbling, eventually,
    own_ip, within,
};
use std::{net::SocketAddr, time::Instant};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::{TlsAcceptor, rustls, server::TlsStream};

const REQUEST: &str = "GET / HTTP/1.1\r\nhost: web.vm.test\r\nconnection: close\r\n\r\n";

/// Any protocol for VMs over TLS, and what else the routes say.
struct Edge {
    gateway: TestGateway,
    pki: Pki,
}

impl Edge {
    /// `routes` come before the one of any protocol. The VM is this backend, on its port.
    fn before(vm: &Backend, listener: &str, routes: &str) -> Self {
        let pki = Pki::new();
        let pair = pki.issue(&["*.vm.test", "db.test"]);
        let toml = format!(
            "[gateway]\nworkers = 1\n[[listener]]\nname = \"tls\"\naddress = \"[::]:0\"\ntls = true\n{listener}\n{routes}\n\
             [[route]]\nname = \"any\"\nhost = \"{{vm}}.vm.test\"\nprotocol = \"any\"\nto = \"vm:{{vm}}:{}\"\n\
             timeouts = {{ connect = \"2s\" }}\n\
             [vms]\ntable = {{ web = \"::1\", gone = \"2001:db8::1\" }}\n{}",
            vm.addr().port(),
            certificate_table("web")
        );
        let files = [("web.pem", pair.cert.as_str()), ("web-key.pem", pair.key.as_str())];
        Self { gateway: TestGateway::with_files(&toml, &files), pki }
    }

    fn address(&self) -> SocketAddr {
        self.gateway.addr_of("tls")
    }

    fn client(&self) -> TlsClient {
        self.pki.client("web.vm.test")
    }

    async fn raw(&self, name: &str) -> Raw<tokio_rustls::client::TlsStream<TcpStream>> {
        Raw::over(self.pki.client(name).connect(self.address()).await.expect("a handshake"))
    }

    async fn cut(&self, reason: &str) -> f64 {
        self.gateway.metric("vers_connections_cut_total", &[reason]).await
    }
}

/// An HTTP server on IPv6, as a VM has one.
async fn web() -> Backend {
    Backend::named_v6("the VM").await
}

/// A server on IPv6 that says who it is, and then back whatever it hears.
async fn greeting(words: &'static str) -> Backend {
    let listener = tokio::net::TcpListener::bind("[::1]:0").await.expect("a port");
    Backend::on(listener, move |stream| async move {
        let (mut read, mut write) = stream.into_split();
        if write.write_all(words.as_bytes()).await.is_ok() {
            // A client that is gone has no use for it.
            let _ = tokio::io::copy(&mut read, &mut write).await;
        }
    })
}

#[tokio::test]
async fn a_server_may_speak_first_and_nobody_waits_for_the_client() {
    let vm = greeting("220 ready\r\n").await;
    let edge = Edge::before(&vm, "timeouts = { head = \"9s\", idle = \"9s\" }", "");
    let began = Instant::now();
    let mut client = edge.raw("web.vm.test").await;
    client.until("220 ready\r\n").await;
    assert!(began.elapsed().as_secs() < 5, "no deadline had to pass");
    // What follows may look like anything.
    for line in ["EHLO a.test\r\n", REQUEST, "SSH-2.0-x\r\n"] {
        client.send(line).await;
        assert_eq!(client.exactly(line.len()).await, line.as_bytes());
    }
    client.finish().await;
    assert_eq!(client.to_end().await, "");
}

#[tokio::test]
async fn a_client_that_speaks_first_is_passed_on_byte_by_byte() {
    let vm = greeting("").await;
    let edge = Edge::before(&vm, "", "");
    for words in [
        &b"\0\xff\r\n\r\n"[..],
        b"*1\r\n$4\r\nPING\r\n",
        b"GET key\r\n",
        b"SSH-2.0-x\r\n",
        &[22, 3, 1, 0, 9, 1, 2, 3, 4],
    ] {
        let mut client = edge.raw("web.vm.test").await;
        // As slowly as can be: no part of it may be lost, or taken for the whole.
        for byte in words {
            client.send([*byte]).await;
        }
        assert_eq!(client.exactly(words.len()).await, words);
    }
    // One that has nothing to say at all may still want to hear something.
    let mut client = edge.raw("web.vm.test").await;
    client.finish().await;
    assert_eq!(client.to_end().await, "");
}

#[tokio::test]
async fn requests_are_told_by_what_was_agreed_on_or_by_their_look() {
    let vm = web().await;
    let edge = Edge::before(&vm, "", "");
    for protocols in [&[][..], &["http/1.1"], &["h2", "http/1.1"]] {
        let stream = edge.client().offering(protocols).connect(edge.address()).await.expect("a handshake");
        let text = if protocols.contains(&"h2") {
            let mut client = Http2::over(stream, "web.vm.test".to_owned(), &h2::client::Builder::new()).await;
            let request = client.get("/");
            client.send(request, "").await.text().to_owned()
        } else {
            let mut client = Raw::over(stream);
            client.send(REQUEST).await;
            let answer = client.to_end().await;
            answer.rsplit("\r\n\r\n").next().unwrap_or_default().to_owned()
        };
        assert_eq!(text, "the VM", "{protocols:?}");
        assert_eq!(vm.last().header("x-forwarded-proto"), "https", "it was a request, and no bytes");
    }
    assert_eq!(vm.connections(), 1, "what was dialled before anything was said is used");
    // A client that offers something else is answered, and its bytes pass.
    let stream = edge.client().offering(&["postgresql"]).connect(edge.address()).await.expect("a handshake");
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"postgresql"[..]));
}

#[tokio::test]
async fn the_first_bytes_choose_between_ssh_and_http() {
    let (web, sshd) = (web().await, greeting("SSH-2.0-server\r\n").await);
    let ssh = format!(
        "[[route]]\nname = \"ssh\"\nhost = \"{{vm}}.vm.test\"\nprotocol = \"ssh\"\nto = \"vm:{{vm}}:{}\"\n",
        sshd.addr().port()
    );
    let edge = Edge::before(&web, "", &ssh);
    let mut client = edge.raw("web.vm.test").await;
    client.send("SSH-2.0-client\r\n").await;
    client.until("SSH-2.0-server\r\nSSH-2.0-client\r\n").await;
    let mut client = edge.raw("web.vm.test").await;
    client.send(REQUEST).await;
    assert!(client.to_end().await.ends_with("the VM"));
    assert_eq!(edge.gateway.metric("vers_tunnel_bytes_total", &["route=\"ssh\"", "sent"]).await, 16.0);
}

#[tokio::test]
async fn a_vm_that_is_not_there_is_told_to_who_can_be_told() {
    let closed = web().await;
    let edge = Edge::before(&closed, "", "");
    closed.end().await;
    let mut client = edge.raw("web.vm.test").await;
    client.send(REQUEST).await;
    let answer = client.to_end().await;
    assert!(answer.contains("x-gateway-error: vm-port-closed"), "{answer}");
    // Others learn it by the end, and not after minutes.
    let mut client = edge.raw("web.vm.test").await;
    assert_eq!(client.to_end().await, "");
    let mut client = edge.raw("nobody.vm.test").await;
    client.send("\0\0").await;
    assert_eq!(client.to_end().await, "");
}

#[tokio::test]
async fn a_host_with_routes_for_requests_only_gets_nothing_else() {
    let vm = web().await;
    let edge = Edge::before(
        &vm,
        "",
        "[[route]]\nname = \"admin\"\nhost = \"admin.vm.test\"\nto = { respond = { body = \"asked\" } }\n",
    );
    let mut client = edge.raw("admin.vm.test").await;
    client.send(REQUEST.replace("web.", "admin.")).await;
    assert!(client.to_end().await.ends_with("asked"));
    for words in ["\r\0GET / HTTP/1.1\r\n", "SSH-2.0-x\r\n", "QUIT\r\n"] {
        let mut client = edge.raw("admin.vm.test").await;
        client.send(words).await;
        assert_eq!(client.to_end().await, "", "{words:?}");
    }
    assert_eq!(edge.cut("route").await, 3.0);
    assert_eq!(vm.connections(), 0);
}

#[tokio::test]
async fn a_port_with_routes_for_requests_only_gets_nothing_else() {
    let vm = greeting("220 ready\r\n").await;
    let ip = own_ip(77);
    let _gateway = TestGateway::start(&format!(
        "[[listener]]\naddress = \"{ip}:20300-20301\"\n\
         [[route]]\nprotocol = \"any\"\nto = \"{}\"\n\
         [[route]]\nlistener_port = 20300\nto = {{ respond = {{ body = \"asked\" }} }}\n",
        vm.addr()
    ));
    let raw = async |port: u16| Raw::connect(format!("{ip}:{port}").parse().expect("an address")).await;
    raw(20301).await.until("220 ready\r\n").await;
    let mut client = raw(20300).await;
    client.send("QUIT\r\n").await;
    assert_eq!(client.to_end().await, "");
    let mut client = raw(20300).await;
    client.send(REQUEST).await;
    assert!(client.to_end().await.ends_with("asked"));
    assert_eq!(vm.connections(), 1);
}

#[tokio::test]
async fn who_asks_for_a_port_that_is_not_served_is_told_by_http_and_closed_otherwise() {
    let vm = greeting("220 ready\r\n").await;
    let edge = Edge::before(&vm, "ports = { allow = [3000] }", "");
    let mut client = edge.raw("web.vm.test").await;
    client.send(REQUEST).await;
    let answer = client.to_end().await;
    assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("port-not-served"), "{answer}");
    let mut client = edge.raw("web.vm.test").await;
    client.send("EHLO\r\n").await;
    assert_eq!(client.to_end().await, "");
    assert_eq!(vm.connections(), 0);
}

#[tokio::test]
async fn who_says_nothing_to_nobody_is_not_waited_for() {
    let edge = Edge::before(
        &web().await,
        "timeouts = { head = \"100ms\", idle = \"100ms\" }",
        "[[route]]\nhost = \"admin.vm.test\"\nto = { respond = { body = \"asked\" } }\n",
    );
    let mut client = edge.raw("admin.vm.test").await;
    assert_eq!(client.to_end().await, "");
    assert_eq!(edge.cut("keep-alive").await, 1.0);
    let mut client = edge.raw("admin.vm.test").await;
    client.send("GE").await;
    assert_eq!(client.to_end().await, "");
    assert_eq!(edge.cut("head").await, 1.0);
    // With a server that may know better, it is passed on.
    let vm = greeting("").await;
    let edge = Edge::before(&vm, "timeouts = { head = \"100ms\" }", "");
    let mut client = edge.raw("web.vm.test").await;
    client.send([22, 3]).await;
    assert_eq!(client.exactly(2).await, [22, 3]);
    // What could still become a request is not.
    let mut client = edge.raw("web.vm.test").await;
    client.send("GE").await;
    assert_eq!(client.to_end().await, "");
    assert_eq!(edge.cut("head").await, 1.0);
}

/// Servers take this for a request, or could; what it says of its client must not get there.
#[tokio::test]
async fn what_could_be_taken_for_a_request_is_one() {
    let vm = web().await;
    let edge = Edge::before(&vm, "", "");
    let rest = "host: web.vm.test\r\nx-forwarded-for: 192.0.2.66\r\nclient-cert: :AA==:\r\nconnection: close\r\n\r\n";
    for line in [
        "\r\nGET / HTTP/1.1",
        "GET  / HTTP/1.1",
        "\n\nGET / HTTP/1.1",
        "GET\t/ HTTP/1.1",
        "GET / http/1.1",
        " GET / HTTP/1.1",
    ] {
        let before = vm.heard().len();
        let mut client = edge.raw("web.vm.test").await;
        client.send(format!("{line}\r\n{rest}")).await;
        let answer = client.to_end().await;
        match vm.heard().get(before) {
            Some(heard) => {
                assert_eq!(
                    (heard.header("x-forwarded-for"), heard.header("client-cert")),
                    ("::1", ""),
                    "{line:?}"
                );
            }
            None => assert!(
                answer.starts_with("HTTP/1.1 400 ") || answer.starts_with("HTTP/1.1 505 "),
                "{line:?}: {answer}"
            ),
        }
    }
    assert!(!vm.heard().is_empty(), "some of it is a request");
}

#[tokio::test]
async fn a_tcp_route_with_a_host_is_for_no_other_host() {
    let (web, database) = (web().await, greeting("ready\n").await);
    let pki = Pki::new();
    let pair = pki.issue(&["db.test", "web.test"]);
    let toml = format!(
        "[[listener]]\nname = \"tls\"\naddress = \"[::]:0\"\ntls = true\n\
         [[route]]\nlisteners = [\"tls\"]\nhost = \"db.test\"\nprotocol = \"tcp\"\nto = \"{}\"\n\
         [[route]]\nto = \"{}\"\n[[listener]]\nname = \"plain\"\naddress = \"127.0.0.1:0\"\n{}",
        database.addr(),
        web.addr(),
        certificate_table("web")
    );
    let files = [("web.pem", pair.cert.as_str()), ("web-key.pem", pair.key.as_str())];
    let gateway = TestGateway::with_files(&toml, &files);
    let raw = async |name: &str| {
        Raw::over(pki.client(name).connect(gateway.addr_of("tls")).await.expect("a handshake"))
    };
    raw("db.test").await.until("ready\n").await;
    let mut other = raw("web.test").await;
    other.send("\0\0").await;
    assert_eq!(other.to_end().await, "");
    assert_eq!(database.connections(), 1);
}

#[tokio::test]
async fn tls_clients_of_raw_routes_are_told_by_the_name_they_ask_for() {
    let (web, database) = (web().await, greeting("ready\n").await);
    let route = format!(
        "[[route]]\nname = \"db\"\nhost = \"db.test\"\nprotocol = \"tcp\"\nto = \"{}\"\n",
        database.addr()
    );
    let edge = Edge::before(&web, "", &route);
    edge.raw("db.test").await.until("ready\n").await;
    // Even what looks like a request: the route says that there is none.
    let stream = edge.pki.client("db.test").offering(&["http/1.1"]).connect(edge.address()).await;
    let mut client = Raw::over(stream.expect("a handshake"));
    client.send(REQUEST).await;
    client.until(REQUEST).await;
    let mut client = edge.raw("web.vm.test").await;
    client.send(REQUEST).await;
    assert!(client.to_end().await.ends_with("the VM"));
}

/// A server that speaks TLS itself, and says what it was asked for.
async fn tls_server(pki: &Pki, name: &'static str) -> Backend {
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
    let pair = pki.issue(&[name]);
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).expect("a key");
    let certificate = CertificateDer::from_pem_slice(pair.cert.as_bytes()).expect("a certificate");
    let config =
        rustls::ServerConfig::builder_with_provider(rustls::crypto::aws_lc_rs::default_provider().into())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .expect("a configuration");
    let acceptor = TlsAcceptor::from(std::sync::Arc::new(config));
    Backend::tcp(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(mut stream): Result<TlsStream<TcpStream>, _> = acceptor.accept(stream).await else {
                return;
            };
            // A client that is gone has no use for it.
            let _ = stream.write_all(name.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    })
    .await
}

#[tokio::test]
async fn tls_that_passes_through_is_told_by_its_name_and_stays_closed_to_us() {
    let pki = Pki::new();
    let (a, b) = (tls_server(&pki, "a.test").await, tls_server(&pki, "b.test").await);
    let other = greeting("").await;
    let web = Backend::hello().await;
    let gateway = TestGateway::start(&format!(
        r#"
        [[listener]]
        address = "[::]:0"
        [[route]]
        host = "a.test"
        protocol = "tcp"
        to = "{}"
        [[route]]
        host = "*.test"
        protocol = "tcp"
        to = "{}"
        [[route]]
        protocol = "tcp"
        to = "{}"
        [[route]]
        host = "web.example"
        to = "{}"
        "#,
        a.addr(),
        b.addr(),
        other.addr(),
        web.addr()
    ));
    for name in ["a.test", "b.test"] {
        let mut stream = pki.client(name).connect(gateway.addr()).await.expect("its own certificate");
        let mut said = String::new();
        within("its words", stream.read_to_string(&mut said)).await.expect("an end");
        assert_eq!(said, name);
    }
    // A hello that comes in pieces.
    let through = dribbling(gateway.addr()).await;
    let name = rustls::pki_types::ServerName::try_from("a.test").expect("a name");
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(pki.client("a.test").config));
    let stream = within("a handshake", connector.connect(name, through)).await;
    assert!(stream.is_ok(), "{stream:?}");
    // A host that only requests have is nobody else's, even by its name in TLS.
    assert!(pki.client("web.example").connect(gateway.addr()).await.is_err());
    // What is no TLS has the route without a host, and requests have theirs.
    let mut client = Raw::connect(gateway.addr()).await;
    client.send("PING\r\n").await;
    client.until("PING\r\n").await;
    let answer = Client::new(gateway.addr()).with("host", "web.example").get("/").await;
    assert_eq!(answer.text(), "hello");
}

#[tokio::test]
async fn a_reload_and_a_drain_leave_undecided_connections_no_worse() {
    let vm = greeting("").await;
    let edge = Edge::before(&vm, "", "");
    let mut decided = edge.raw("web.vm.test").await;
    decided.send("\0").await;
    decided.exactly(1).await;
    let mut undecided = edge.raw("web.vm.test").await;
    eventually("two connections", async || (vm.connections() == 2).then_some(())).await;
    edge.gateway.reload().await.expect("a reload");
    undecided.send("\x01").await;
    assert_eq!(undecided.exactly(1).await, [1]);
    let mut silent = edge.raw("web.vm.test").await;
    eventually("three connections", async || (vm.connections() == 3).then_some(())).await;
    let stopping = edge.gateway.stop(std::time::Duration::from_secs(9));
    let client = async {
        assert_eq!(silent.to_end().await, "", "nothing was begun");
        for stream in [&mut decided, &mut undecided] {
            stream.send("still there").await;
            assert_eq!(stream.exactly(11).await, b"still there");
            stream.finish().await;
            assert_eq!(stream.to_end().await, "");
        }
    };
    tokio::join!(stopping, client);
}

/// What `check` says of a file with these routes on a plain listener.
fn said(routes: &str) -> String {
    let toml = format!(
        "[[listener]]\nname = \"in\"\naddress = \"127.0.0.1:0\"\n{routes}\n[vms]\ntable = {{ web = \"::1\" }}\n"
    );
    match TestGateway::try_start(&toml) {
        Ok(_) => String::new(),
        Err(error) => error.to_string(),
    }
}

#[tokio::test]
async fn routes_that_cannot_be_told_apart_are_errors() {
    let any = "[[route]]\nhost = \"{vm}.test\"\nprotocol = \"any\"\nto = \"vm:{vm}:{port}\"\n";
    assert_eq!(said(any), "");
    for (routes, part) in [
        (
            "[[route]]\nprotocol = \"any\"\nplugins = [\"x\"]\nto = \"[::1]:1\"\n[plugin.x]\ncomponent = \"x\"\n",
            "a route of any protocol has no `plugins`",
        ),
        ("[[route]]\nprotocol = \"ssh\"\npath = \"/x\"\nto = \"[::1]:1\"\n", "an SSH route has no `path`"),
        ("[[route]]\nprotocol = \"any\"\nto = { respond = {} }\n", "only HTTP requests can be answered"),
        (
            "[[route]]\nhost = \"a.test\"\nprotocol = \"tcp\"\nto = \"[::1]:1\"\n[[route]]\nhost = \"a.test\"\nto = \"[::1]:2\"\n",
            "can never match",
        ),
        (
            "[[route]]\nhost = \"a.test\"\nprotocol = \"tcp\"\nto = \"[::1]:1\"\n[[route]]\nhost = \"a.test\"\nprotocol = \"tcp\"\nto = \"[::1]:2\"\n",
            "can never match",
        ),
        ("[[route]]\nprotocol = \"tcp\"\nto = \"vm:{vm}:22\"\n", "nothing is captured as `{vm}`"),
        (
            "[[route]]\nprotocol = \"tcp\"\nto = \"[::1]:1\"\n[[route]]\nto = \"[::1]:2\"\n",
            "HTTP and TCP routes meet",
        ),
        ("[[route]]\nprotocol = \"sshd\"\nto = \"[::1]:1\"\n", "did you mean"),
    ] {
        let said = said(routes);
        assert!(said.contains(part), "{routes}\n{said}");
    }
    let both = format!("{any}[[route]]\nhost = \"{{vm}}.test\"\nto = {{ respond = {{}} }}\n");
    assert_eq!(said(&both), "", "requests have their own route, and everything else has the other");
}
