//! Requests to VMs by their names, over HTTP/1.1 and HTTP/2, and what they become: streams, WebSockets,
//! calls of gRPC.

use super::{application, curl, curl_in, edge, edge_of, edge_toml_with, file, fleet, run, shown};
use crate::{DAEMON, grpc};
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use gateway_tests::{
    Backend, GatewayProcess, eventually,
    fleet::{CLIENT, EDGE, Fleet, IPV4, Vm},
    pages, plugin, send_messages_back, within,
};
use hyper_util::rt::TokioIo;
use std::process::Stdio;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    net::TcpStream,
};
use tokio_tungstenite::tungstenite::{
    Message,
    protocol::{CloseFrame, frame::coding::CloseCode},
};

/// A gateway of `docs/edge.md` on a VM.
async fn vm_gateway(vm: &Vm, first: &str) -> GatewayProcess {
    let toml = pages::with(&shown("toml", first), EDGE, &toward(vm));
    GatewayProcess::start_in(&vm.namespace, DAEMON, &toml, &[]).await
}

/// The address that the edge has for this VM.
fn toward(vm: &Vm) -> String {
    let mut segments = vm.address.segments();
    segments[7] = 1;
    std::net::Ipv6Addr::from(segments).to_string()
}

#[test]
fn curl_reaches_any_port_of_a_vm_that_binds_ipv6() {
    fleet("fleet::http::curl_reaches_any_port_of_a_vm_that_binds_ipv6", &[], async |fleet| {
        let _edge = edge(&fleet).await;
        let applications =
            [3000, 8443, 65535].map(|port| application(&fleet.a.namespace, &format!("[::]:{port}")));
        let (upload, content) = file(&fleet, "upload", 5 << 20);
        for (version, shown) in [("--http1.1", "1.1"), ("--http2", "2"), ("--no-alpn", "1.1")] {
            for backend in &applications {
                let port = backend.addr().port();
                let url = fleet.a.url(port, "/path?query");
                let got = run(&mut curl(&fleet, &[version, "-w", "%{http_version}", &url])).await.well();
                let host = fleet.a.host();
                let expected = format!(
                    "GET /path?query\nhost: {host}:{port}\nx-forwarded-for: {CLIENT}\nx-forwarded-proto: https\n\
                     x-forwarded-port: {port}\nx-vm-id: \n{shown}"
                );
                assert_eq!(got, expected);
            }
            let url = fleet.a.url(3000, "/");
            let (sent, back) = (format!("@{upload}"), format!("{upload}-back"));
            run(&mut curl(&fleet, &[version, "--data-binary", &sent, "-o", &back, &url])).await.well();
            assert!(std::fs::read(&back).expect("the answer") == content, "as it was, over {shown}");
            let once = ["-w", "%{num_connects} ", "-o", "/dev/null"];
            let twice = [&[version][..], &once, &[&url], &once, &[&url]].concat();
            assert_eq!(run(&mut curl(&fleet, &twice)).await.well(), "1 0 ", "on one connection");
        }
        // Clients may come over IPv4; the VM is reached as always.
        let resolve = format!("{}:3000:{}", fleet.a.host(), IPV4[1]);
        let by_v4 = run(&mut curl(&fleet, &["--resolve", &resolve, &fleet.a.url(3000, "/")])).await.well();
        assert!(by_v4.contains(&format!("x-forwarded-for: {}\n", IPV4[0])), "{by_v4}");
        let direct = TcpStream::connect((fleet.a.address, 3000)).await;
        assert!(direct.is_err(), "nothing but the edge leads to a VM");
    });
}

#[test]
fn port_443_is_port_80_of_a_vm() {
    fleet("fleet::http::port_443_is_port_80_of_a_vm", &[], async |fleet| {
        let _edge = edge(&fleet).await;
        let web = application(&fleet.a.namespace, "[::]:80");
        let url = format!("https://{}/", fleet.a.host());
        for version in ["--http1.1", "--http2"] {
            let got = run(&mut curl(&fleet, &[version, &url])).await.well();
            assert!(got.contains("x-forwarded-port: 443\n"), "{got}");
        }
        assert_eq!(web.heard().len(), 2);
    });
}

#[test]
fn a_service_on_loopback_is_reached_by_its_vms_gateway_and_sees_the_client() {
    let test = "fleet::http::a_service_on_loopback_is_reached_by_its_vms_gateway_and_sees_the_client";
    fleet(test, &[], async |fleet| {
        let _edge = edge(&fleet).await;
        let service = application(&fleet.b.namespace, "127.0.0.1:3000");
        let forged = ["-H", "x-forwarded-for: 203.0.113.66", "-H", "forwarded: for=203.0.113.66"];
        let ask = async |port: u16, version: &str| {
            let url = fleet.b.url(port, "/");
            run(&mut curl(&fleet, &[&forged[..], &[version, &url]].concat())).await.well()
        };
        let alone = ask(3000, "--http1.1").await;
        assert!(alone.contains("nothing listens on IPv6 port 3000 of this VM; bind `::`"), "{alone}");
        let _gateway = vm_gateway(&fleet.b, "# vm.toml").await;
        for version in ["--http1.1", "--http2"] {
            let got = ask(8080, version).await;
            let chain = format!("x-forwarded-for: {CLIENT}, {}\n", toward(&fleet.b));
            assert!(got.contains(&chain), "the client, and the edge: {got}");
            assert!(
                got.contains("x-forwarded-proto: https\n") && got.contains("x-forwarded-port: 8080\n"),
                "{got}"
            );
        }
        let heard = service.last();
        assert!(!format!("{:?}", heard.headers).contains("203.0.113.66"), "{:?}", heard.headers);
    });
}

/// What the page says about all VMs behind gateways.
#[test]
fn a_header_in_front_of_connections_says_who_the_client_is() {
    fleet("fleet::http::a_header_in_front_of_connections_says_who_the_client_is", &[], async |fleet| {
        let _edge = edge_of(&fleet, &edge_toml_with("# edge.toml: PROXY headers for VMs")).await;
        let service = application(&fleet.b.namespace, "127.0.0.1:3000");
        let shown = pages::with(&shown("toml", "# vm.toml: behind PROXY headers"), EDGE, &toward(&fleet.b));
        let bytes = format!(
            "[[listener]]\naddress = \"[::]:5001\"\nproxy_protocol = \"require\"\ntrusted_proxies = [\"{}\"]\n\
             [[route]]\nlistener_port = 5001\nprotocol = \"tcp\"\nto = \"bytes\"\n\
             [backend.bytes]\nservers = [\"127.0.0.1:5000\"]\nproxy_protocol = \"v1\"\n",
            toward(&fleet.b)
        );
        let toml = format!("{shown}{bytes}");
        let _gateway = GatewayProcess::start_in(&fleet.b.namespace, DAEMON, &toml, &[]).await;
        for version in ["--http1.1", "--http2"] {
            let url = fleet.b.url(8080, "/");
            let got = run(&mut curl(&fleet, &[version, &url])).await.well();
            assert!(got.contains(&format!("x-forwarded-for: {CLIENT}\n")), "{got}");
        }
        assert_eq!(service.heard().len(), 2);
        // What is no HTTP has no other place for it.
        let listener = fleet.b.namespace.listen("127.0.0.1:5000").expect("a port");
        let _bytes = Backend::on(listener, |mut stream| async move {
            let (mut read, mut write) = stream.split();
            let _ = tokio::io::copy(&mut read, &mut write).await;
        });
        let mut raw = fleet.client(&fleet.b).raw(fleet.b.at(5001)).await;
        raw.send("what is before it?\n").await;
        let line = raw.until("\r\n").await;
        assert!(
            line.starts_with(&format!("PROXY TCP6 {CLIENT} {EDGE} ")) && line.ends_with(" 5001\r\n"),
            "{line}"
        );
        raw.until("what is before it?\n").await;
    });
}

#[test]
fn vms_call_each_other_by_the_edge() {
    fleet("fleet::http::vms_call_each_other_by_the_edge", &[], async |fleet| {
        let _edge = edge(&fleet).await;
        let _service = application(&fleet.b.namespace, "127.0.0.1:3000");
        let _gateway = vm_gateway(&fleet.b, "# vm.toml").await;
        let url = fleet.b.url(8080, "/");
        let got = run(&mut curl_in(&fleet.a.namespace, &fleet, &[&url])).await.well();
        assert!(got.contains(&format!("x-forwarded-for: {}, ", fleet.a.address)), "{got}");
    });
}

/// An application that sends an event when it is told to.
fn events(fleet: &Fleet, address: &str) -> (Backend, tokio::sync::mpsc::UnboundedSender<Bytes>) {
    let (say, said) = tokio::sync::mpsc::unbounded_channel::<Bytes>();
    let said = std::sync::Arc::new(tokio::sync::Mutex::new(said));
    let listener = fleet.b.namespace.listen(address).expect("a free port");
    let backend = Backend::streaming_on(listener, move |_| {
        let said = std::sync::Arc::clone(&said);
        async move {
            let (mut sender, body) = http_body_util::channel::Channel::<Bytes, std::io::Error>::new(1);
            tokio::spawn(async move {
                let mut said = said.lock().await;
                while let Some(event) = said.recv().await {
                    if event.is_empty() || sender.send_data(event).await.is_err() {
                        return;
                    }
                }
            });
            let mut response = ::http::Response::new(http_body_util::BodyExt::boxed(body));
            let kind = ::http::HeaderValue::from_static("text/event-stream");
            response.headers_mut().insert("content-type", kind);
            response
        }
    });
    (backend, say)
}

#[test]
fn events_arrive_as_they_happen() {
    fleet("fleet::http::events_arrive_as_they_happen", &[], async |fleet| {
        let _edge = edge(&fleet).await;
        let (_application, say) = events(&fleet, "127.0.0.1:3000");
        let _gateway = vm_gateway(&fleet.b, "# vm.toml").await;
        for version in ["--http1.1", "--http2"] {
            let url = fleet.b.url(8080, "/events");
            let mut curl = curl(&fleet, &[version, "-N", &url]).stdout(Stdio::piped()).spawn().expect("curl");
            let mut lines = BufReader::new(curl.stdout.take().expect("its output")).lines();
            // The next one is sent only when the one before has arrived.
            for number in 0..20 {
                say.send(format!("data: {number}\n\n").into()).expect("the application runs");
                let mut next = async || within("an event", lines.next_line()).await.expect("text");
                assert_eq!(next().await, Some(format!("data: {number}")));
                assert_eq!(next().await.as_deref(), Some(""));
            }
            say.send(Bytes::new()).expect("the application runs");
            assert!(within("its end", curl.wait()).await.expect("an end").success(), "{version}");
        }
    });
}

#[test]
fn websockets_reach_a_vm_and_a_service_behind_its_gateway() {
    let test = "fleet::http::websockets_reach_a_vm_and_a_service_behind_its_gateway";
    fleet(test, &[], async |fleet| {
        let _edge = edge(&fleet).await;
        let _gateway = vm_gateway(&fleet.b, "# vm.toml").await;
        let _a = Backend::on(fleet.a.namespace.listen("[::]:8080").expect("a port"), send_messages_back);
        let _b = Backend::on(fleet.b.namespace.listen("127.0.0.1:3000").expect("a port"), send_messages_back);
        for vm in [&fleet.a, &fleet.b] {
            let stream = fleet.client(vm).connect(vm.at(8080)).await.expect("TLS");
            let url = vm.url(8080, "/chat").replace("https:", "wss:");
            let opened = within("the upgrade", tokio_tungstenite::client_async(url, stream)).await;
            let (mut socket, _) = opened.expect("an upgrade");
            for message in [Message::text("hello"), Message::binary(vec![7; 3_000_000])] {
                socket.send(message.clone()).await.expect("a send");
                let back = within("a message", socket.next()).await.expect("an open socket");
                assert!(back.expect("a message") == message, "{}", vm.id);
            }
            let bye = CloseFrame { code: CloseCode::Away, reason: "lunch".into() };
            socket.close(Some(bye.clone())).await.expect("a close");
            let end = within("the close", socket.next()).await.expect("an answer");
            assert_eq!(end.expect("a message"), Message::Close(Some(bye)));
        }
    });
}

#[test]
fn grpc_of_all_kinds_reaches_a_vm_and_a_service_behind_its_gateway() {
    let test = "fleet::http::grpc_of_all_kinds_reaches_a_vm_and_a_service_behind_its_gateway";
    fleet(test, &[], async |fleet| {
        let _edge = edge(&fleet).await;
        let _gateway = vm_gateway(&fleet.b, "# vm.toml").await;
        for (vm, bound) in [(&fleet.a, "[::]:8080"), (&fleet.b, "127.0.0.1:3000")] {
            let (_backend, given_up) = grpc::server_on(vm.namespace.listen(bound).expect("a port"));
            let (client, address) = (fleet.client(vm).offering(&["h2"]), vm.at(8080));
            let connector = tower::service_fn(move |_| {
                let client = client.clone();
                async move { client.connect(address).await.map(TokioIo::new) }
            });
            let endpoint = tonic::transport::Endpoint::from_shared(vm.url(8080, "")).expect("a URL");
            let channel = within("a connection", endpoint.connect_with_connector(connector)).await;
            let client = grpc::client_over(channel.expect("a connection")).await;
            grpc::calls_of_all_kinds(client, &given_up).await;
        }
    });
}

#[test]
fn filters_of_the_edge_meet_what_goes_to_vms() {
    fleet("fleet::http::filters_of_the_edge_meet_what_goes_to_vms", &[], async |fleet| {
        let components = plugin("auth_token").parent().expect("a folder").display().to_string();
        let toml =
            pages::with(&edge_toml_with("# edge.toml: plugins"), "plugins/", &format!("{components}/"));
        let edge = edge_of(&fleet, &toml).await;
        let application = application(&fleet.a.namespace, "[::]:3000");
        std::fs::write(edge.folder().join("fleet-token"), "s3cret").expect("a secret");
        let url = |path: &str| fleet.a.url(3000, path);
        eventually("a secret that is read", async || {
            let code =
                ["-o", "/dev/null", "-w", "%{http_code}", "-H", "authorization: Bearer s3cret", &url("/")];
            (run(&mut curl(&fleet, &code)).await.well() == "200").then_some(())
        })
        .await;
        for version in ["--http1.1", "--http2"] {
            let ask = async |path: &str, token: &str| {
                let token = format!("authorization: Bearer {token}");
                let arguments = [version, "-o", "/dev/null", "-w", "%{http_code}", "-H", &token, &url(path)];
                run(&mut curl(&fleet, &arguments)).await.well()
            };
            assert_eq!(ask("/", "wrong").await, "401");
            assert_eq!(ask("/", "s3cret").await, "200");
            assert_eq!(ask("/health", "wrong").await, "200");
            let upgrade = ["connection: upgrade", "upgrade: websocket", "sec-websocket-version: 13"];
            let key = "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==";
            let upgrade: Vec<&str> = upgrade.into_iter().chain([key]).flat_map(|line| ["-H", line]).collect();
            let refused =
                [&["--http1.1", "-o", "/dev/null", "-w", "%{http_code}"], &upgrade[..], &[&url("/")]];
            assert_eq!(run(&mut curl(&fleet, &refused.concat())).await.well(), "401", "an upgrade too");
            let head = run(&mut curl(&fleet, &[version, "-D", "-", "-o", "/dev/null", &url("/health")]))
                .await
                .well();
            assert!(head.to_lowercase().contains("x-served-by: edge\r\n"), "{head}");
        }
        // Neither are there other ways in: what is no request is refused.
        let mut raw = fleet.client(&fleet.a).raw(fleet.a.at(3000)).await;
        raw.send("SSH-2.0-client\r\n\r\n").await;
        assert_eq!(raw.to_end().await, "", "no request");
        let heard = application.heard();
        assert_eq!(application.connections(), 1, "who has no token gets nowhere");
        assert_eq!(heard.len(), 7, "who has no token gets nowhere");
        assert_eq!(heard[0].header("x-client"), CLIENT, "{:?}", heard[0]);
    });
}
