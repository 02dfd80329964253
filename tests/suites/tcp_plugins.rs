//! Plugins on routes that carry bytes: who is let in, what is looked at, and what is told at the end.

use gateway_tests::{
    Backend, Pki, Raw, TestGateway, assert_told, certificate_table, eventually, guest, plugin, plugin_table,
    tls, within,
};
use std::{net::SocketAddr, path::Path, time::Duration};
use tokio::{io::AsyncReadExt as _, net::TcpStream};

/// A TCP route with this plugin, further keys of its table, and further tables.
fn toml(backend: SocketAddr, component: &Path, more: &str) -> String {
    format!(
        "[[listener]]\naddress = \"[::]:0\"\n[[route]]\nname = \"raw\"\nprotocol = \"tcp\"\nto = \"{backend}\"\n\
         plugins = [\"it\"]\n{}",
        plugin_table("it", component, more)
    )
}

/// A TCP route with `tcp_gate`, which says this, and further keys of its table.
fn gate(backend: SocketAddr, config: &str, more: &str) -> TestGateway {
    TestGateway::start(&toml(backend, &guest("tcp_gate"), &format!("config = {{ {config} }}\n{more}")))
}

/// What comes of these bytes, up to the end of the connection.
async fn said(gateway: &TestGateway, bytes: &[u8]) -> String {
    let mut client = Raw::connect(gateway.addr()).await;
    client.send(bytes).await;
    client.finish().await;
    client.to_end().await
}

async fn calls(gateway: &TestGateway, hook: &str) -> f64 {
    gateway.metric("vers_plugin_calls_total", &[&format!("hook=\"{hook}\"")]).await
}

async fn faults(gateway: &TestGateway, kind: &str) -> f64 {
    gateway.metric("vers_plugin_faults_total", &[&format!("kind=\"{kind}\"")]).await
}

async fn cut(gateway: &TestGateway, reason: &str) -> f64 {
    gateway.metric("vers_connections_cut_total", &[&format!("reason=\"{reason}\"")]).await
}

#[tokio::test]
async fn who_is_let_in_is_not_kept_waiting() {
    let (backend, mut visitors) = Backend::by_hand().await;
    let gateway = gate(backend.addr(), "accept = \"next\"", "");
    let mut client = Raw::connect(gateway.addr()).await;
    let mut server = visitors.next().await;
    // Nobody waits for the client: the server may speak first.
    server.send("220 ready\r\n").await;
    client.until("220 ready\r\n").await;
    client.send("QUIT\r\n").await;
    server.until("QUIT\r\n").await;
    assert_eq!((calls(&gateway, "tcp").await, calls(&gateway, "tcp-bytes").await), (1.0, 0.0));
}

#[tokio::test]
async fn who_is_refused_is_closed_or_reset_and_the_server_sees_nothing() {
    let backend = Backend::tcp_echo().await;
    let gateway = gate(backend.addr(), "accept = \"close\"", "");
    let mut client = Raw::connect(gateway.addr()).await;
    let mut byte = [0];
    let read = within("the end", client.stream.read(&mut byte)).await;
    assert_eq!(read.expect("an orderly end"), 0);
    assert_eq!(cut(&gateway, "refused").await, 1.0);

    // What it has said and nobody has read does not make a reset of it.
    let mut client = Raw::connect(gateway.addr()).await;
    client.send("what a server would have been told").await;
    let read = within("the end", client.stream.read(&mut byte)).await;
    assert_eq!(read.expect("an orderly end"), 0);
    client.finish().await;

    let resets = gate(backend.addr(), "accept = \"reset\"", "");
    // It may come before the client knows that it is connected.
    let read = within("the end", async {
        let mut client = TcpStream::connect(resets.addr()).await?;
        client.read(&mut byte).await
    })
    .await;
    assert_eq!(read.expect_err("no orderly end").kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(backend.connections(), 0);
}

#[tokio::test]
async fn a_plugin_chooses_the_server_among_those_it_is_granted() {
    let (backend, other) = (Backend::tcp_echo().await, Backend::canned("the other").await);
    let routed = |to: &str| format!("accept = \"route\", to = \"{to}\"");
    let grants = format!("grants = {{ backends = [\"{}\"] }}\n", other.addr());
    let gateway = gate(backend.addr(), &routed(&other.addr().to_string()), &grants);
    let mut client = Raw::connect(gateway.addr()).await;
    client.send("anything\r\n\r\n").await;
    assert_eq!(client.to_end().await, "the other");

    let gateway = gate(backend.addr(), &routed("127.0.0.1:1"), &grants);
    assert_eq!(said(&gateway, b"").await, "", "what is not granted is a fault, and that closes");
    assert_eq!((faults(&gateway, "route").await, cut(&gateway, "plugin").await), (1.0, 1.0));
    assert_eq!(backend.connections(), 0);
}

#[tokio::test]
async fn first_bytes_are_shown_to_who_asks_and_none_is_lost() {
    let (backend, other) = (Backend::tcp_echo().await, Backend::tcp_echo().await);
    let config = format!("accept = \"peek\", least = 3, to = \"{}\"", other.addr());
    let gateway =
        gate(backend.addr(), &config, &format!("grants = {{ backends = [\"{}\"] }}\n", other.addr()));
    assert_eq!(said(&gateway, b"hello there").await, "hello there");
    assert_eq!(said(&gateway, b"ALTernative").await, "ALTernative");
    assert_eq!((backend.connections(), other.connections()), (1, 1));
    assert_eq!(said(&gateway, b"BAD bytes").await, "");
    assert_eq!(cut(&gateway, "refused").await, 1.0);
    // Byte by byte, and fewer than were asked for: the end of the client's side is as good as more.
    let mut client = Raw::connect(gateway.addr()).await;
    for byte in b"slowly" {
        client.send([*byte]).await;
    }
    assert_eq!(client.exactly(6).await, b"slowly");
    assert_eq!(said(&gateway, b"a").await, "a");
    assert_eq!(said(&gateway, b"").await, "");
    assert_eq!((calls(&gateway, "tcp").await, calls(&gateway, "tcp-bytes").await), (6.0, 6.0));
    // Much of it: what was looked at comes before the rest.
    let much: Vec<u8> = (0..3 << 20).map(|at| (at % 251) as u8).collect();
    let client = Raw::connect(gateway.addr()).await;
    let (mut from, mut to) = client.stream.into_split();
    let (up, mut down) = (much.clone(), Vec::new());
    let sending = tokio::spawn(async move {
        tokio::io::AsyncWriteExt::write_all(&mut to, &up).await.expect("it is taken");
        drop(to);
    });
    within("all of it", from.read_to_end(&mut down)).await.expect("an orderly end");
    sending.await.expect("the sender");
    assert!(down == much, "other bytes than were sent, or not all");
}

#[tokio::test]
async fn a_plugin_may_ask_for_more_as_long_as_more_can_come() {
    let backend = Backend::tcp_echo().await;
    let gateway = gate(backend.addr(), "accept = \"peek\", least = 2", "limits = { peek = \"8B\" }\n");
    let mut client = Raw::connect(gateway.addr()).await;
    for part in [&b"N\x05a"[..], b"bc", b"d!"] {
        client.send(part).await;
    }
    assert_eq!(client.to_end().await, "", "what it waited for is refused");
    assert_eq!(said(&gateway, b"N\x05abcde").await, "N\u{5}abcde");
    // It asks for more than it may see: 8 bytes are all that there are.
    assert_eq!(said(&gateway, b"N\xffabcde!").await, "", "and they count");
    assert_eq!(faults(&gateway, "bytes").await, 0.0);
    // Whoever asks on and on is stopped.
    assert_eq!(said(&gateway, b"FOREVER and more").await, "");
    assert_eq!(faults(&gateway, "bytes").await, 1.0);
}

#[tokio::test]
async fn who_asks_for_the_same_again_is_shown_something_new() {
    let backend = Backend::tcp_echo().await;
    let gateway = gate(backend.addr(), "accept = \"peek\", least = 4", "");
    let mut client = Raw::connect(gateway.addr()).await;
    client.send("SAME?").await;
    eventually("the first look", async || (calls(&gateway, "tcp-bytes").await >= 1.0).then_some(())).await;
    client.send("again").await;
    eventually("the second look", async || (calls(&gateway, "tcp-bytes").await >= 2.0).then_some(())).await;
    client.send("!").await;
    assert_eq!(client.exactly(11).await, b"SAME?again!");
    assert!(calls(&gateway, "tcp-bytes").await <= 4.0, "it was shown the same bytes again");
    // One byte at a time costs no call each.
    let mut slow = Raw::connect(gateway.addr()).await;
    slow.stream.set_nodelay(true).expect("a socket");
    for byte in std::iter::once(&b"SAME"[..]).chain(std::iter::repeat_n(&b"."[..], 1000)).chain([&b"!"[..]]) {
        slow.send(byte).await;
    }
    slow.exactly(1005).await;
    let looks = calls(&gateway, "tcp-bytes").await;
    assert!(looks < 300.0, "{looks} calls");
    // And what never comes is not waited for longer than a head may take.
    let toml = toml(backend.addr(), &guest("tcp_gate"), "config = { accept = \"peek\", least = 4 }\n");
    let patient =
        TestGateway::start(&toml.replace("[[route]]", "timeouts = { head = \"100ms\" }\n[[route]]"));
    let mut client = Raw::connect(patient.addr()).await;
    client.send("SAME?").await;
    assert_eq!(client.to_end().await, "");
    assert_eq!((cut(&patient, "refused").await, backend.connections()), (1.0, 2));
}

#[tokio::test]
async fn several_look_one_after_the_other_and_each_may_look_again() {
    let backend = Backend::tcp_echo().await;
    let file = guest("tcp_gate");
    let table = |name: &str, least: u32| {
        plugin_table(name, &file, &format!("config = {{ accept = \"peek\", least = {least} }}\n"))
    };
    let gateway = TestGateway::start(&format!(
        "[[listener]]\naddress = \"[::]:0\"\n[[route]]\nname = \"raw\"\nprotocol = \"tcp\"\nto = \"{}\"\n\
         plugins = [\"one\", \"two\"]\n{}{}",
        backend.addr(),
        table("one", 2),
        table("two", 4)
    ));
    let mut client = Raw::connect(gateway.addr()).await;
    // The first wants five more, and has them before the second is asked at all.
    client.send("N\u{5}ab").await;
    let looks = async |name: &str| {
        let labels = ["hook=\"tcp-bytes\"", &format!("plugin=\"{name}\"")];
        gateway.metric("vers_plugin_calls_total", &labels).await
    };
    eventually("its first look", async || (looks("one").await == 1.0).then_some(())).await;
    assert_eq!(looks("two").await, 0.0, "the first one is not done");
    client.send("cde").await;
    assert_eq!(client.exactly(7).await, b"N\x05abcde");
    assert_eq!((looks("one").await, looks("two").await), (2.0, 1.0));
}

#[tokio::test]
async fn a_client_that_says_nothing_is_waited_for_as_long_as_is_asked() {
    let (backend, mut visitors) = Backend::by_hand().await;
    let gateway = gate(backend.addr(), "accept = \"peek\", least = 100, within = \"50ms\"", "");
    let mut client = Raw::connect(gateway.addr()).await;
    client.send("few").await;
    let mut server = visitors.next().await;
    assert_eq!(server.exactly(3).await, b"few");
    server.send("220 ready\r\n").await;
    client.until("220 ready\r\n").await;
    assert_eq!(calls(&gateway, "tcp-bytes").await, 1.0);
    // And never longer than a head may take.
    let patient = TestGateway::start(
        &toml(
            backend.addr(),
            &guest("tcp_gate"),
            "config = { accept = \"peek\", least = 100, within = \"60m\" }\n",
        )
        .replace("[[route]]", "timeouts = { head = \"100ms\" }\n[[route]]"),
    );
    let _client = Raw::connect(patient.addr()).await;
    visitors.next().await;
}

#[tokio::test]
async fn a_stop_does_not_wait_for_a_client_that_says_nothing() {
    let (backend, mut visitors) = Backend::by_hand().await;
    let gateway = gate(backend.addr(), "accept = \"peek\", least = 100, within = \"60m\"", "");
    let client = Raw::connect(gateway.addr()).await;
    eventually("its call", async || (calls(&gateway, "tcp").await == 1.0).then_some(())).await;
    let stopping = tokio::spawn(gateway.stop(Duration::from_secs(60)));
    // What there is of it goes on, as any connection does that came before.
    let server = visitors.next().await;
    drop((client, server));
    within("the stop", stopping).await.expect("a stop");
}

#[tokio::test]
async fn a_fault_closes_the_connection_or_is_passed_by() {
    let backend = Backend::tcp_echo().await;
    let gateway = gate(backend.addr(), "accept = \"panic\"", "");
    assert_eq!(said(&gateway, b"x").await, "");
    assert_eq!((faults(&gateway, "trap").await, cut(&gateway, "plugin").await), (1.0, 1.0));
    let gateway = gate(backend.addr(), "accept = \"panic\"", "on_error = \"skip\"\n");
    assert_eq!(said(&gateway, b"x").await, "x");
    for (on_error, expected) in [("deny", ""), ("skip", "PANIC now")] {
        let gateway =
            gate(backend.addr(), "accept = \"peek\", least = 5", &format!("on_error = \"{on_error}\"\n"));
        assert_eq!(said(&gateway, b"PANIC now").await, expected, "{on_error}");
        assert_eq!(
            said(&gateway, b"calmly").await,
            "calmly",
            "and the next connection meets another instance"
        );
    }
    let vain = |more: &str| TestGateway::start(&toml(backend.addr(), &guest("tcp_vain"), more));
    let gateway = vain("");
    assert_eq!(said(&gateway, b"x").await, "");
    assert_eq!(faults(&gateway, "bytes").await, 1.0);
    // What it asked for goes with it.
    assert_eq!(said(&vain("config = {}\non_error = \"skip\"\n"), b"x").await, "x");
}

#[tokio::test]
async fn a_hook_that_fails_again_and_again_is_left_alone() {
    let backend = Backend::tcp_echo().await;
    let gateway = gate(backend.addr(), "accept = \"panic\"", "breaker = { faults = 3, open = \"1h\" }\n");
    for _ in 0..5 {
        assert_eq!(said(&gateway, b"x").await, "");
    }
    assert_eq!((faults(&gateway, "trap").await, faults(&gateway, "open").await), (3.0, 2.0));
    let open = gateway.metric("vers_plugin_breakers_open", &["hook=\"tcp\"", "route=\"raw\""]).await;
    assert_eq!(open, 1.0);
}

#[tokio::test]
async fn a_client_that_has_gone_keeps_no_plugin() {
    let backend = Backend::tcp_echo().await;
    let (silent, mut asked) = Backend::by_hand().await;
    let url = format!("http://{}", silent.addr());
    let more = format!(
        "config = {{ url = \"{url}/\", asks = true }}\ngrants = {{ http = [\"{url}\"] }}\nlimits = {{ wall = \"60m\" }}\n"
    );
    let gateway = TestGateway::start(&toml(backend.addr(), &guest("tcp_audit"), &more));
    let client = Raw::connect(gateway.addr()).await;
    let _question = asked.next().await;
    assert_eq!(gateway.metric("vers_plugin_instances", &[]).await, 1.0);
    client.stream.set_zero_linger().expect("a reset at the end");
    drop(client);
    // It is told of its end, with the question unanswered.
    let mut told = asked.next().await;
    assert!(told.head().await.starts_with("POST / "));
    told.until("why: broken").await;
    drop(told);
    // Who has only ended its side waits on.
    let mut client = Raw::connect(gateway.addr()).await;
    client.send("x").await;
    client.finish().await;
    let mut question = asked.next().await;
    question.head().await;
    question.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!(client.to_end().await, "x");
}

/// A collector, and the keys of `tcp_audit` that tell it.
async fn audit(config: &str) -> (Backend, String) {
    let collector = Backend::hello().await;
    let url = format!("http://{}", collector.addr());
    let keys = format!("config = {{ url = \"{url}/\"{config} }}\ngrants = {{ http = [\"{url}\"] }}\n");
    (collector, keys)
}

/// A collector, and a route to this backend of whose connections `tcp_audit` tells it.
async fn audited(backend: SocketAddr, config: &str) -> (Backend, String) {
    let (collector, keys) = audit(config).await;
    (collector, toml(backend, &guest("tcp_audit"), &keys))
}

#[tokio::test]
async fn it_is_told_everything_that_became_of_a_connection() {
    let backend = Backend::canned("an answer").await;
    let (collector, keys) = audit("").await;
    let gateway = TestGateway::start(&toml(backend.addr(), &guest("tcp_audit"), &keys));
    let mut client = Raw::connect(gateway.addr()).await;
    client.send("question\r\n\r\n").await;
    assert_eq!(client.to_end().await, "an answer");
    let client_port = client.stream.local_addr().expect("an address").port();
    drop(client);
    assert_told(
        &collector.told(0).await,
        &[
            "tls: false",
            "proxied: false",
            &format!("client-port: {client_port}"),
            "certificate: none",
            "route: raw",
            "client: ::1",
            &format!("port: {}", gateway.addr().port()),
            "vm: none",
            "server-name: none",
            "took-time: true",
            "sent: 12",
            "received: 9",
            "why: closed",
            "refused-by: none",
            "reason: none",
        ],
    );
    assert_eq!(calls(&gateway, "tcp-log").await, 1.0);

    gateway.write(&toml(Backend::nobody().await, &guest("tcp_audit"), &keys));
    gateway.reload().await.expect("a good configuration");
    assert_eq!(said(&gateway, b"").await, "");
    assert_told(&collector.told(1).await, &["sent: 0", "why: upstream-refused", "tls: false"]);
}

#[tokio::test]
async fn those_that_were_refused_are_told_of_too() {
    let backend = Backend::tcp_echo().await;
    let (collector, toml) = audited(backend.addr(), ", refuse = \"full\"").await;
    let gateway = TestGateway::start(&toml);
    assert_eq!(said(&gateway, b"").await, "");
    assert_told(
        &collector.told(0).await,
        &["why: refused", "refused-by: it", "reason: full", "sent: 0", "received: 0"],
    );
}

#[tokio::test]
async fn those_in_which_nothing_moved_and_those_that_a_fault_ended_say_so() {
    let backend = Backend::tcp_echo().await;
    let (collector, toml) = audited(backend.addr(), "").await;
    let gateway = TestGateway::start(
        &toml.replace("protocol = \"tcp\"\n", "protocol = \"tcp\"\ntimeouts = { tunnel = \"100ms\" }\n"),
    );
    let mut client = Raw::connect(gateway.addr()).await;
    client.send("question").await;
    assert_eq!(client.exactly(8).await, b"question");
    client.to_end().await;
    assert_told(&collector.told(0).await, &["why: idle", "sent: 8", "received: 8", "refused-by: none"]);
    assert_eq!(cut(&gateway, "tunnel").await, 1.0);

    // One that fails before the other is asked, and one that fails on the bytes.
    let (collector, keys) = audit("").await;
    for (number, (config, bytes)) in
        [("accept = \"panic\"", &b""[..]), ("accept = \"peek\", least = 5", b"PANIC now")]
            .into_iter()
            .enumerate()
    {
        let gateway = TestGateway::start(&format!(
            "[[listener]]\naddress = \"[::]:0\"\n[[route]]\nname = \"raw\"\nprotocol = \"tcp\"\nto = \"{}\"\n\
             plugins = [\"gate\", \"it\"]\n{}{}",
            backend.addr(),
            plugin_table("gate", &guest("tcp_gate"), &format!("config = {{ {config} }}\n")),
            plugin_table("it", &guest("tcp_audit"), &keys),
        ));
        assert_eq!(said(&gateway, bytes).await, "");
        assert_told(
            &collector.told(number).await,
            &["why: fault", "sent: 0", "received: 0", "refused-by: none", "reason: none"],
        );
    }
    assert_eq!(backend.connections(), 1, "nobody was connected to for those");
}

#[tokio::test]
async fn what_a_stop_cuts_is_told_with_all_that_it_has_moved() {
    let backend = Backend::tcp_echo().await;
    let (collector, toml) = audited(backend.addr(), "").await;
    let gateway = TestGateway::start(&toml);
    let mut client = Raw::connect(gateway.addr()).await;
    client.send("question").await;
    assert_eq!(client.exactly(8).await, b"question");
    within("the stop", gateway.stop(Duration::ZERO)).await;
    assert_told(&collector.told(0).await, &["why: stopped", "sent: 8", "received: 8"]);
    drop(client);
}

#[tokio::test]
async fn a_connection_that_outlives_a_reload_is_told_to_the_plugins_of_then() {
    let (backend, mut visitors) = Backend::by_hand().await;
    let ((before, old), (after, new)) = (audit("").await, audit("").await);
    let gateway = TestGateway::start(&toml(backend.addr(), &guest("tcp_audit"), &old));
    let mut client = Raw::connect(gateway.addr()).await;
    client.send("x").await;
    let mut server = visitors.next().await;
    server.exactly(1).await;
    gateway.write(&toml(backend.addr(), &guest("tcp_audit"), &new));
    gateway.reload().await.expect("a good configuration");
    drop((client, server));
    let text = after.told(0).await;
    assert_told(&text, &["sent: 1", "client: ::1"]);
    assert!(!text.contains("client-port"), "what the old one stored is not the new one's: {text}");
    assert!(before.heard().is_empty());
}

#[tokio::test]
async fn tls_and_the_name_that_was_asked_for_are_known() {
    let backend = Backend::tcp_echo().await;
    let (collector, toml) = audited(backend.addr(), "").await;
    let pki = Pki::new();
    let pair = pki.issue(&["a1.db.test"]);
    let toml = toml
        .replace("address = \"[::]:0\"\n", "address = \"[::]:0\"\ntls = true\n")
        .replace("name = \"raw\"\n", "name = \"raw\"\nhost = \"{vm}.db.test\"\n");
    let toml = format!("{toml}{}", certificate_table("web"));
    let gateway = TestGateway::with_files(&toml, &[("web.pem", &pair.cert), ("web-key.pem", &pair.key)]);
    let mut client = pki.client("a1.db.test").raw(gateway.addr()).await;
    client.send("inside").await;
    assert_eq!(client.exactly(6).await, b"inside");
    client.finish().await;
    client.to_end().await;
    assert_told(
        &collector.told(0).await,
        &["tls: true", "vm: a1", "server-name: a1.db.test", "sent: 6", "received: 6", "why: closed"],
    );
}

#[tokio::test]
async fn a_filter_may_go_by_the_certificate() {
    let backend = Backend::tcp_echo().await;
    let (pki, clients) = (Pki::new(), Pki::new());
    let pair = pki.issue(&["db.test"]);
    let toml = toml(
        backend.addr(),
        &guest("tcp_gate"),
        "config = { accept = \"certificate\", to = \"DNS=\\\"worker.test\\\"\" }\n",
    )
    .replace(
        "address = \"[::]:0\"\n",
        "address = \"[::]:0\"\ntls = true\nclient_ca = \"clients.pem\"\nclient_auth = \"optional\"\n",
    );
    let files =
        [("web.pem", pair.cert.as_str()), ("web-key.pem", &pair.key), ("clients.pem", clients.certificate())];
    let gateway = TestGateway::with_files(&format!("{toml}{}", certificate_table("web")), &files);
    let (worker, other) = (clients.issue(&["worker.test"]), clients.issue(&["other.test"]));
    for (identity, is_in) in [(Some(&worker), true), (Some(&other), false), (None, false)] {
        let config = tls::config(&[pki.certificate()], &[&rustls::version::TLS13], identity);
        let mut client = pki.client("db.test").configured(config).raw(gateway.addr()).await;
        client.send("x").await;
        match is_in {
            true => assert_eq!(client.exactly(1).await, b"x"),
            false => assert_eq!(client.to_end().await, ""),
        }
    }
    assert_eq!((cut(&gateway, "refused").await, backend.connections()), (2.0, 1));
}

#[tokio::test]
async fn what_a_proxy_tells_is_known() {
    let backend = Backend::tcp_echo().await;
    let (collector, toml) = audited(backend.addr(), "").await;
    let toml = toml.replace(
        "address = \"[::]:0\"\n",
        "address = \"[::]:0\"\nproxy_protocol = \"require\"\ntrusted_proxies = [\"::1\"]\n",
    );
    let gateway = TestGateway::start(&toml);
    assert_eq!(said(&gateway, b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 3000\r\nhello").await, "hello");
    assert_told(
        &collector.told(0).await,
        &["proxied: true", "client: 192.0.2.7", "client-port: 40000", "port: 3000", "sent: 5"],
    );
}

#[tokio::test]
async fn where_it_must_be_found_out_what_is_carried_nothing_passes_before_the_filter() {
    let (backend, mut visitors) = Backend::by_hand().await;
    let web = Backend::hello().await;
    let toml = |config: &str| {
        format!(
            "[[listener]]\nname = \"in\"\naddress = \"[::]:0\"\n\
             [[route]]\nname = \"ssh\"\nprotocol = \"ssh\"\nplugins = [\"it\"]\nto = \"{}\"\n\
             [[route]]\nname = \"web\"\nto = \"{}\"\n{}",
            backend.addr(),
            web.addr(),
            plugin_table("it", &guest("tcp_gate"), config)
        )
    };
    let gateway = TestGateway::start(&toml("config = { accept = \"peek\", least = 9 }\n"));
    let mut client = Raw::connect(gateway.addr()).await;
    client.send("SSH-2.0-x\r\n").await;
    let mut server = visitors.next().await;
    server.until("SSH-2.0-x\r\n").await;
    assert_eq!(gateway.client().get("/").await.text(), "hello", "requests meet other routes");
    assert_eq!(calls(&gateway, "tcp").await, 1.0);
    let refuses = TestGateway::start(&toml("config = { accept = \"close\" }\n"));
    assert_eq!(said(&refuses, b"SSH-2.0-x\r\n").await, "");
    assert_eq!(backend.connections(), 1);
}

#[tokio::test]
async fn a_server_is_not_connected_to_before_the_filter_has_been_asked() {
    let (backend, ssh) = (Backend::tcp_echo().await, Backend::tcp_echo().await);
    let (collector, keys) = audit(", refuse = \"full\"").await;
    let beside = |component: &str, more: &str| {
        let table = plugin_table("it", &guest(component), more);
        TestGateway::start(&format!(
            "[[listener]]\naddress = \"[::]:0\"\ntimeouts = {{ head = \"300ms\" }}\n\
             [[route]]\nname = \"ssh\"\nprotocol = \"ssh\"\nto = \"{}\"\n\
             [[route]]\nname = \"raw\"\nprotocol = \"tcp\"\nplugins = [\"it\"]\nto = \"{}\"\n{table}",
            ssh.addr(),
            backend.addr()
        ))
    };
    let refuses = beside("tcp_audit", &keys);
    // One that says something, and one that never does.
    for bytes in ["anything at all\r\n", ""] {
        let mut client = Raw::connect(refuses.addr()).await;
        client.send(bytes).await;
        let mut byte = [0];
        let read = within("the end", client.stream.read(&mut byte)).await;
        assert_eq!(read.expect("an orderly end"), 0, "{bytes}");
    }
    assert_eq!((backend.connections(), cut(&refuses, "refused").await), (0, 2.0));
    assert_told(&collector.told(1).await, &["why: refused", "reason: full", "sent: 0"]);
    // What turns out to be another route's is not its affair.
    let mut client = Raw::connect(refuses.addr()).await;
    client.send("SSH-2.0-x\r\n").await;
    client.until("SSH-2.0-x\r\n").await;
    drop(client);
    eventually("all is over", async || {
        (refuses.metric("vers_connections_active", &[]).await == 0.0).then_some(())
    })
    .await;
    assert_eq!(collector.heard().len(), 2, "it was told of a connection of another route");
    // Bytes that it wants to see are waited for no longer than it says, and then it decides.
    let peeks = beside("tcp_gate", "config = { accept = \"peek\", least = 9, within = \"50ms\" }\n");
    let _silent = Raw::connect(peeks.addr()).await;
    eventually("its server", async || (backend.connections() == 1).then_some(())).await;
    let mut bad = Raw::connect(peeks.addr()).await;
    bad.send("BAD bytes").await;
    assert_eq!(bad.to_end().await, "");
    assert_eq!(backend.connections(), 1);
    // Whom it sends elsewhere is connected to nobody else.
    let other = Backend::canned("the other").await;
    let more = format!(
        "config = {{ accept = \"route\", to = \"{0}\" }}\ngrants = {{ backends = [\"{0}\"] }}\n",
        other.addr()
    );
    let routes = beside("tcp_gate", &more);
    let mut client = Raw::connect(routes.addr()).await;
    client.send("x\r\n\r\n").await;
    assert_eq!(client.to_end().await, "the other");
    assert_eq!(backend.connections(), 1);
}

#[tokio::test]
async fn a_server_that_speaks_first_does_so_behind_a_filter_as_well() {
    let (backend, mut visitors) = Backend::by_hand().await;
    let ssh = Backend::tcp_echo().await;
    let gateway = TestGateway::start(&format!(
        "[[listener]]\naddress = \"[::]:0\"\n[[route]]\nname = \"ssh\"\nprotocol = \"ssh\"\nto = \"{}\"\n\
         [[route]]\nname = \"raw\"\nprotocol = \"tcp\"\nplugins = [\"it\"]\nto = \"{}\"\n{}",
        ssh.addr(),
        backend.addr(),
        plugin_table("it", &guest("tcp_gate"), "config = { accept = \"next\" }\n")
    ));
    let mut client = Raw::connect(gateway.addr()).await;
    let mut server = visitors.next().await;
    server.send("220 ready\r\n").await;
    client.until("220 ready\r\n").await;
    client.send("QUIT\r\n").await;
    server.until("QUIT\r\n").await;
    assert_eq!(calls(&gateway, "tcp").await, 1.0, "it is asked once");
}

#[tokio::test]
async fn a_plugin_without_a_hook_for_its_route_is_an_error() {
    let backend = Backend::tcp_echo().await;
    let said = |toml: &str| TestGateway::try_start(toml).expect_err("it would never be called").to_string();
    let text = said(&toml(backend.addr(), &plugin("cors"), "config = { origins = [\"*\"] }\n"));
    assert!(text.contains("plugin `it` has no hook for connections"), "{text}");
    assert!(text.contains("it would never be called on a TCP route"), "{text}");
    let on_http = toml(backend.addr(), &guest("tcp_gate"), "config = { accept = \"next\" }\n")
        .replace("protocol = \"tcp\"\n", "");
    let text = said(&on_http);
    assert!(text.contains("plugin `it` has no hook for requests"), "{text}");
}
