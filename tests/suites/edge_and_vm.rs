//! Two gateways in a row, the edge's and the VM's: who the client is at the far end.

use gateway_tests::{Backend, Client, Http2, Pki, Raw, TestGateway, certificate_table};
use tokio::io::AsyncWriteExt as _;

/// A VM's gateway in front of a service that binds IPv4 only, and an edge in front of that.
async fn both(edge: &str, vm: &str) -> (TestGateway, TestGateway, Backend) {
    let service = Backend::hello().await;
    let vm = TestGateway::start(&format!(
        "[[listener]]\naddress = \"[::]:0\"\n{vm}\n[[route]]\nto = \"{}\"\n",
        service.addr()
    ));
    let edge = TestGateway::start(&format!(
        "[[listener]]\naddress = \"[::]:0\"\ntrusted_proxies = [\"127.0.0.1\"]\nproxy_protocol = \"accept\"\n\
         [[route]]\nhost = \"{{vm}}.vm.test\"\nto = \"vm:{{vm}}:{}\"\n[vms]\n{edge}\ntable = {{ web = \"::1\" }}\n",
        vm.addr().port()
    ));
    (edge, vm, service)
}

#[tokio::test]
async fn a_vm_that_trusts_the_edge_sees_the_client_by_its_headers() {
    let (edge, _vm, service) = both("", "trusted_proxies = [\"::1\"]").await;
    let forged = |client: Client| {
        client
            .with("host", "web.vm.test")
            .with("x-forwarded-for", "203.0.113.66")
            .with("forwarded", "for=203.0.113.66")
            .with("x-real-ip", "203.0.113.66")
    };
    // From IPv6: a stranger's words count for nothing at the edge.
    forged(edge.client()).get("/").await;
    let heard = service.last();
    assert_eq!(heard.header("x-forwarded-for"), "::1, ::1", "the client, and the edge");
    assert_eq!((heard.header("x-real-ip"), heard.header("host")), ("", "web.vm.test"));
    assert!(!format!("{:?}", heard.headers).contains("203.0.113.66"), "{:?}", heard.headers);
    // By a proxy in front of the edge, which says who it is.
    let mut client = Raw::connect(edge.addr_v4()).await;
    let request = "GET / HTTP/1.1\r\nhost: web.vm.test\r\nconnection: close\r\n\r\n";
    client.send(format!("PROXY TCP6 2001:db8::7 2001:db8::1 1 3000\r\n{request}")).await;
    client.to_end().await;
    let heard = service.last();
    assert_eq!(heard.header("x-forwarded-for"), "2001:db8::7, ::1");
    assert_eq!(heard.header("x-forwarded-port"), "3000", "the port that the client asked for");
    assert!(heard.header("forwarded").starts_with("for=\"[2001:db8::7]\""), "{}", heard.header("forwarded"));
}

#[tokio::test]
async fn a_vm_that_does_not_trusts_only_the_socket() {
    let (edge, _vm, service) = both("", "").await;
    let mut client = Raw::connect(edge.addr_v4()).await;
    let request = "GET / HTTP/1.1\r\nhost: web.vm.test\r\nconnection: close\r\n\r\n";
    client.send(format!("PROXY TCP6 2001:db8::7 2001:db8::1 1 3000\r\n{request}")).await;
    client.to_end().await;
    assert_eq!(service.last().header("x-forwarded-for"), "::1", "the edge");
}

#[tokio::test]
async fn a_vm_sees_the_client_by_the_header_in_front_of_the_connection() {
    let vm = "proxy_protocol = \"require\"\ntrusted_proxies = [\"::1\"]\nconnections_per_client = 1";
    let (edge, _vm, service) = both("proxy_protocol = \"v2\"", vm).await;
    let request = "GET / HTTP/1.1\r\nhost: web.vm.test\r\n\r\n";
    for client in ["2001:db8:0:1::7", "2001:db8:0:2::7"] {
        let mut raw = Raw::connect(edge.addr_v4()).await;
        raw.send(format!("PROXY TCP6 {client} 2001:db8::1 1 3000\r\n{request}")).await;
        raw.until("hello").await;
        let heard = service.last();
        // The edge's words about it came by a connection that is the client's own, so they are no proxy's.
        assert_eq!(heard.header("x-forwarded-for"), client);
        assert_eq!(heard.header("x-forwarded-port"), "3000");
        raw.send(request).await;
        raw.until("hello").await;
    }
    assert_eq!(service.heard().len(), 4);
    // The VM's limit is for each client.
    let mut raw = Raw::connect(edge.addr_v4()).await;
    raw.send(format!("PROXY TCP6 2001:db8:0:1::8 2001:db8::1 1 3000\r\n{request}")).await;
    assert!(raw.head().await.contains("too-many-connections-per-client"), "it has its one connection");
}

#[tokio::test]
async fn the_edge_tells_the_vm_that_the_client_came_by_tls() {
    let service = Backend::hello().await;
    let vm = TestGateway::start(&format!(
        "[[listener]]\naddress = \"[::]:0\"\ntrusted_proxies = [\"::1\"]\n[[route]]\nto = \"{}\"\n",
        service.addr()
    ));
    let (pki, folder) = (Pki::new(), tempfile::tempdir().expect("a folder"));
    pki.issue(&["*.vm.test"]).write(folder.path(), "vms");
    let at = |name: &str| folder.path().join(name).display().to_string();
    let edge = TestGateway::start(&format!(
        "[[listener]]\naddress = \"[::]:0\"\ntls = true\nproxy_protocol = \"accept\"\n\
         trusted_proxies = [\"127.0.0.1\"]\n[certificate.vms]\ncert = {:?}\nkey = {:?}\n\
         [[route]]\nhost = \"{{vm}}.vm.test\"\nto = \"vm:{{vm}}:{}\"\n[vms]\ntable = {{ web = \"::1\" }}\n",
        at("vms.pem"),
        at("vms-key.pem"),
        vm.addr().port()
    ));
    let request = "GET / HTTP/1.1\r\nhost: web.vm.test\r\nconnection: close\r\n\r\n";
    let mut client = pki.client("web.vm.test").raw(edge.addr()).await;
    client.send(request).await;
    assert!(client.to_end().await.ends_with("hello"));
    let heard = service.last();
    assert_eq!((heard.header("x-forwarded-proto"), heard.header("x-forwarded-for")), ("https", "::1, ::1"));
    // A header in front of the handshake, all in one piece or not.
    let mut stream = tokio::net::TcpStream::connect(edge.addr_v4()).await.expect("a connection");
    stream.write_all(b"PROXY TCP4 192.0.2.7 192.0.2.1 1 3000\r\n").await.expect("a write");
    let mut client = Raw::over(pki.client("web.vm.test").over(stream).await.expect("a handshake"));
    client.send(request).await;
    assert!(client.to_end().await.ends_with("hello"));
    let heard = service.last();
    assert_eq!(
        (heard.header("x-forwarded-proto"), heard.header("x-forwarded-for")),
        ("https", "192.0.2.7, ::1")
    );
}

/// Whose certificate a client has seen is whom it may talk to: a VM, or anybody but a VM.
#[tokio::test]
async fn a_connection_for_one_vm_is_none_for_another() {
    let (service, app) = (Backend::hello().await, Backend::hello().await);
    let vm = TestGateway::start(&format!(
        "[[listener]]\naddress = \"[::]:0\"\n[[route]]\nto = \"{}\"\n",
        service.addr()
    ));
    let pki = Pki::new();
    let pair = pki.issue(&["*.vm.test"]);
    let toml = format!(
        "[[listener]]\nname = \"tls\"\naddress = \"127.0.0.1:0\"\ntls = true\n\
         [[route]]\nhost = \"app.vm.test\"\nto = \"{app}\"\n\
         [[route]]\nhost = \"shop.vm.test\"\nto = \"{app}\"\n\
         [[route]]\nhost = \"local.vm.test\"\nto = \"[::1]:{{port}}\"\n\
         [[route]]\nhost = \"{{vm}}.vm.test\"\nto = \"vm:{{vm}}:{}\"\n{}\
         [vms]\ntable = {{ web = \"::1\", other = \"::1\" }}\n",
        vm.addr().port(),
        certificate_table("web"),
        app = app.addr(),
    );
    let edge = TestGateway::with_files(&toml, &[("web.pem", &pair.cert), ("web-key.pem", &pair.key)]);
    let address = edge.addr_of("tls");
    let all: [(&str, &[(&str, u16)]); 3] = [
        (
            "web.vm.test",
            &[
                ("web.vm.test", 200),
                ("other.vm.test", 421),
                ("WEB.vm.test", 200),
                ("app.vm.test", 421),
                ("local.vm.test", 421),
                ("elsewhere.test", 421),
            ],
        ),
        // RFC 9113 §9.1.1: hosts of one certificate may share a connection; `local` leads to no VM, and
        // nothing listens there.
        (
            "app.vm.test",
            &[
                ("app.vm.test", 200),
                ("shop.vm.test", 200),
                ("local.vm.test", 502),
                ("web.vm.test", 421),
                ("elsewhere.test", 404),
            ],
        ),
        ("local.vm.test", &[("app.vm.test", 200), ("web.vm.test", 421)]),
    ];
    for (sni, hosts) in all {
        let mut client = pki.client(sni).raw(address).await;
        let stream = pki.client(sni).offering(&["h2"]).connect(address).await.expect("a handshake");
        let mut http2 = Http2::over(stream, sni.to_owned(), &h2::client::Builder::new()).await;
        for (host, status) in hosts {
            client.send(format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n")).await;
            let head = client.head().await;
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{host} by {sni}: {head}");
            let length = head.split("content-length: ").nth(1).and_then(|rest| rest.split('\r').next());
            client.exactly(length.and_then(|length| length.parse().ok()).expect("a length")).await;
            let request = http::Request::get(format!("https://{host}/")).body(()).expect("a request");
            assert_eq!(http2.send(request, "").await.status, *status, "{host} by {sni} over HTTP/2");
        }
    }
    assert_eq!(service.heard().len(), 4, "the other VM heard nothing");
}
