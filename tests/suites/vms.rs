//! VMs by name: where one is, which port of it, and what is said where it cannot be reached.

use gateway_tests::{
    Answer, Backend, Client, Http2, NameServer, Raw, Says, TestGateway, eventually, in_namespace, must_run,
    own_ip,
};
use tokio::net::TcpListener;
use vers_gateway::server::Reloaded;

const UUID: &str = "45a68069-defc-4233-9865-6298d87053af";

/// A gateway with a route to port `port` of the VM that a host names.
fn gateway(port: u16, vms: &str) -> TestGateway {
    TestGateway::start(&text(port, vms))
}

fn text(port: u16, vms: &str) -> String {
    format!(
        "[[listener]]\naddress = \"[::]:0\"\n[[route]]\nname = \"vms\"\nhost = \"{{vm}}.vm.test\"\n\
         to = \"vm:{{vm}}:{port}\"\ntimeouts = {{ connect = \"1s\" }}\n[vms]\n{vms}\n"
    )
}

async fn ask(gateway: &TestGateway, vm: &str) -> Answer {
    gateway.client().with("host", &format!("{vm}.vm.test")).get("/x").await
}

async fn error(gateway: &TestGateway, vm: &str) -> (u16, String) {
    let answer = ask(gateway, vm).await;
    (answer.status.as_u16(), answer.header("x-gateway-error").to_owned())
}

fn said(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

#[tokio::test]
async fn a_vm_in_the_table_gets_the_request_as_it_was_asked() {
    let vm = Backend::named_v6("the VM").await;
    let table = format!("[vms.table]\n{UUID} = \"::1\"\nweb = \"::1\"\n");
    let gateway = gateway(vm.addr().port(), &table);
    for name in [UUID, &UUID.to_uppercase(), "web", "WEB"] {
        let answer = ask(&gateway, name).await;
        assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "the VM"), "{name}");
        let heard = vm.last();
        assert_eq!(heard.header("host"), format!("{name}.vm.test"), "the VM sees the name it was asked by");
        assert_eq!(heard.header("x-forwarded-for"), "::1");
    }
    assert_eq!(vm.connections(), 1, "all of these are one server");
    assert_eq!(gateway.metric("vers_vm_lookups_total", &["outcome=\"found\""]).await, 4.0);
    let status = gateway.status().await;
    assert_eq!((&status["vms"]["known"], &status["vms"]["found"]), (&2.into(), &4.into()), "{status}");
}

#[tokio::test]
async fn the_port_is_the_one_that_was_asked_for() {
    let vm = Backend::named_v6("the VM").await;
    let port = vm.addr().port();
    let ip = own_ip(90);
    let _gateway = TestGateway::start(&format!(
        r#"
        [[listener]]
        address = "{ip}:{port}"
        [[route]]
        host = "{{vm}}.vm.test"
        to = "vm:{{vm}}:{{port}}"
        [[route]]
        host = "local.test"
        to = "[::1]:{{port}}"
        [[route]]
        path = "/by-path/{{id}}"
        to = "vm:{{id}}:{{port}}"
        [vms]
        table = {{ web = "::1" }}
        "#
    ));
    let client = || Client::new(format!("{ip}:{port}").parse().expect("an address"));
    for (host, path) in [("web.vm.test", "/"), ("local.test", "/"), ("other.test", "/by-path/web")] {
        let answer = client().with("host", &format!("{host}:{port}")).get(path).await;
        assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "the VM"), "{host}");
    }
    assert_eq!(vm.connections(), 2, "an address is another way to the same server");
}

#[tokio::test]
async fn who_is_not_there_is_told_apart_from_who_does_not_listen() {
    let closed = TcpListener::bind("[::1]:0").await.expect("a port").local_addr().expect("an address");
    let gateway = gateway(closed.port(), "[vms.table]\nweb = \"::1\"\nfar = \"2001:db8::1\"\n");
    for unknown in ["web-2", UUID, "a_b"] {
        assert_eq!(error(&gateway, unknown).await, said(404, "vm-unknown"), "{unknown}");
    }
    assert_eq!(gateway.client().get("/").await.header("x-gateway-error"), "no-route", "two labels too few");
    let answer = ask(&gateway, "web").await;
    assert_eq!((answer.status.as_u16(), answer.header("x-gateway-error")), (502, "vm-port-closed"));
    let expected = format!(
        "502 Bad Gateway: nothing listens on IPv6 port {} of this VM; bind `::` or run vers-gateway on the VM \
         (vm-port-closed)\n",
        closed.port()
    );
    assert_eq!(answer.text(), expected);
    assert_eq!(gateway.metric("vers_upstream_connects_total", &["backend=\"vms\"", "failed"]).await, 1.0);
}

/// A VM that is down takes no connection and refuses none.
#[test]
fn a_vm_that_is_down_is_told_apart_from_one_that_is_nowhere() {
    if !in_namespace("vms::a_vm_that_is_down_is_told_apart_from_one_that_is_nowhere", &["nft"]) {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(async {
        must_run("ip", &["address", "add", "fd00::2/128", "dev", "lo"]);
        must_run("nft", &["add", "table", "inet", "test"]);
        must_run("nft", &["add", "chain", "inet", "test", "out", "{ type filter hook output priority 0; }"]);
        must_run("nft", &["add rule inet test out ip6 daddr fd00::2 drop"]);
        let gateway = gateway(3000, "[vms.table]\ndown = \"fd00::2\"\nnowhere = \"2001:db8::1\"\n");
        assert_eq!(error(&gateway, "down").await, said(504, "vm-connect-timeout"));
        assert_eq!(error(&gateway, "nowhere").await, said(502, "vm-unreachable"));
    });
}

#[tokio::test]
async fn a_file_of_vms_is_followed_and_a_bad_one_changes_nothing() {
    let vm = Backend::named_v6("the VM").await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("vms.csv");
    std::fs::write(&file, "# all of them\nweb,::1\n").expect("a file");
    let table = format!("file = {:?}", file.to_str().expect("text"));
    let gateway = gateway(vm.addr().port(), &table);
    assert_eq!(ask(&gateway, "web").await.text(), "the VM");
    assert_eq!(error(&gateway, "db").await, said(404, "vm-unknown"));
    std::fs::write(&file, format!("web,::1\n\"db\" = \"::1\"\n{UUID},::1\n")).expect("a file");
    gateway.reload().await.expect("a reload");
    assert_eq!(ask(&gateway, "db").await.text(), "the VM");
    assert_eq!(vm.connections(), 1, "connections stay");
    std::fs::write(&file, "web,::1\ndb,192.0.2.1\n-,::1\n").expect("a file");
    let refused = gateway.reload().await.expect_err("a bad file");
    assert!(refused.text.contains("line 2: `192.0.2.1` is no address that a VM may have"), "{refused}");
    assert!(refused.text.contains("line 3: `-` is no VM's name"), "{refused}");
    assert_eq!(ask(&gateway, "db").await.text(), "the VM");
}

#[tokio::test]
async fn a_raw_connection_goes_to_a_vm_too() {
    let listener = TcpListener::bind("[::1]:0").await.expect("a free port");
    let vm = Backend::on(listener, |mut stream| async move {
        let (mut read, mut write) = stream.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
    });
    let gateway = TestGateway::start(&format!(
        "[[listener]]\nname = \"a\"\naddress = \"[::]:0\"\n[[listener]]\nname = \"b\"\naddress = \"[::1]:0\"\n\
         [[route]]\nlisteners = [\"a\"]\nprotocol = \"tcp\"\nto = \"vm:db:{}\"\n\
         [[route]]\nlisteners = [\"b\"]\nprotocol = \"tcp\"\nto = \"vm:gone:5432\"\n[vms]\ntable = {{ db = \"::1\" }}\n",
        vm.addr().port()
    ));
    let mut client = Raw::connect(gateway.addr_of("a")).await;
    client.send("\0ping").await;
    assert_eq!(client.exactly(5).await, b"\0ping");
    assert_eq!(Raw::connect(gateway.addr_of("b")).await.to_end().await, "");
    assert_eq!(gateway.metric("vers_vm_lookups_total", &["outcome=\"unknown\""]).await, 1.0);
}

fn by_dns(port: u16, dns: &NameServer, more: &str) -> TestGateway {
    // Here, VMs are on this machine.
    gateway(port, &format!("networks = [\"::1/128\"]\n{}{more}", in_dns(dns)))
}

fn in_dns(dns: &NameServer) -> String {
    format!("dns = \"{{vm}}.internal\"\nnameservers = [\"{}\"]\n", dns.addr())
}

#[tokio::test]
async fn a_name_server_does_not_lead_clients_into_the_edges_own_machine() {
    let (own, dns) = (Backend::named_v6("not for clients").await, NameServer::start().await);
    dns.knows(&format!("{UUID}.internal"), &["::1"], 3600);
    let gateway = gateway(own.addr().port(), &in_dns(&dns));
    assert_eq!(error(&gateway, UUID).await, said(404, "vm-unknown"));
    assert!(own.heard().is_empty());
}

#[tokio::test]
async fn a_vm_in_dns_is_asked_for_as_long_as_the_answer_counts() {
    let (vm, dns) = (Backend::named_v6("the VM").await, NameServer::start().await);
    dns.knows(&format!("{UUID}.internal"), &["::1"], 3600);
    let gateway = by_dns(vm.addr().port(), &dns, "");
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let client = gateway.client().with("host", &format!("{UUID}.vm.test"));
        asking.spawn(async move { client.get("/").await.text() });
    }
    while let Some(answer) = asking.join_next().await {
        assert_eq!(answer.expect("no panic"), "the VM");
    }
    assert_eq!(dns.asked(), [format!("{UUID}.internal")], "once for all of them");
    for _ in 0..3 {
        assert_eq!(error(&gateway, "gone").await, said(404, "vm-unknown"));
    }
    assert_eq!(dns.asked().len(), 2, "that there is none is remembered");
    assert_eq!(gateway.metric("vers_vm_queries_total", &[]).await, 2.0);
    assert_eq!(error(&gateway, "a_b").await, said(404, "vm-unknown"));
    assert_eq!(dns.asked().len(), 2, "what is no name is not asked for");
}

#[tokio::test]
async fn a_name_with_several_addresses_is_reached_by_one_that_works() {
    let (vm, dns) = (Backend::named_v6("the VM").await, NameServer::start().await);
    dns.knows("web.internal", &["::2", "::1"], 60);
    let gateway = by_dns(vm.addr().port(), &dns, "");
    assert_eq!(ask(&gateway, "web").await.text(), "the VM");
}

#[tokio::test]
async fn dns_that_fails_is_no_vm_that_is_gone() {
    let (vm, dns) = (Backend::named_v6("the VM").await, NameServer::start().await);
    dns.knows("web.internal", &["::1"], 1);
    let more = "ttl = \"1s\"\ntimeouts = { lookup = \"500ms\" }";
    let gateway = by_dns(vm.addr().port(), &dns, more);
    assert_eq!(ask(&gateway, "web").await.text(), "the VM");
    let asked = dns.asked().len();
    dns.says(Says::Nothing);
    assert_eq!(error(&gateway, "other").await, said(503, "vm-lookup-failed"));
    dns.says(Says::Failure);
    assert_eq!(error(&gateway, "another").await, said(503, "vm-lookup-failed"));
    eventually("another question for what has grown old", async || {
        assert_eq!(ask(&gateway, "web").await.text(), "the VM", "the last address is used");
        let again = dns.asked().iter().skip(asked).any(|name| name == "web.internal");
        again.then_some(())
    })
    .await;
    dns.says(Says::WhatItKnows);
    dns.forgets("web.internal");
    eventually("what DNS knows again", async || {
        (error(&gateway, "web").await == said(404, "vm-unknown")).then_some(())
    })
    .await;
}

/// A machine that boots: the gateway may be there before its name servers are known.
#[test]
fn the_machines_name_servers_may_come_late_and_change() {
    if !in_namespace("vms::the_machines_name_servers_may_come_late_and_change", &["mount"]) {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(async {
        must_run("mount", &["-t", "tmpfs", "none", "/etc"]);
        let vm = Backend::named_v6("the VM").await;
        let first = NameServer::at("[::1]:53").await;
        first.knows("web.internal", &["::1"], 3600);
        let gateway = gateway(
            vm.addr().port(),
            "dns = \"{vm}.internal\"\nnetworks = [\"::1/128\"]\nnegative_ttl = \"1s\"",
        );
        assert_eq!(error(&gateway, "web").await, said(503, "vm-lookup-failed"));
        // Who reads this waits for ever. That is no worker: they read no files.
        must_run("mkfifo", &["/etc/resolv.conf"]);
        eventually("a third question", async || {
            assert_eq!(error(&gateway, "web").await, said(503, "vm-lookup-failed"));
            (gateway.metric("vers_vm_queries_total", &[]).await >= 3.0).then_some(())
        })
        .await;
        std::fs::remove_file("/etc/resolv.conf").expect("it is there");
        std::fs::write("/etc/resolv.conf", "nameserver ::1\n").expect("a file");
        // Where the machine knows names of its own, they are not those of VMs.
        std::fs::write("/etc/hosts", "::2 web.internal\n").expect("a file");
        assert_eq!(gateway.reload().await.expect("a reload"), Reloaded::Swapped(2));
        eventually("the VM", async || (ask(&gateway, "web").await.text() == "the VM").then_some(())).await;
        assert_eq!(first.asked(), ["web.internal"]);
        assert_eq!(gateway.reload().await.expect("a reload"), Reloaded::Unchanged(2));
        let second = NameServer::at("127.0.0.1:53").await;
        second.knows("db.internal", &["::1"], 3600);
        std::fs::write("/etc/resolv.conf", "nameserver 127.0.0.1\n").expect("a file");
        assert_eq!(gateway.reload().await.expect("a reload"), Reloaded::Swapped(3));
        assert_eq!(ask(&gateway, "db").await.text(), "the VM");
        assert_eq!((first.asked().len(), second.asked().len()), (1, 1));
        // A machine that has lost its name servers has not lost its VMs.
        std::fs::write("/etc/resolv.conf", "nameserver 127.0.0.9\n").expect("a file");
        assert_eq!(gateway.reload().await.expect("a reload"), Reloaded::Swapped(4));
        for known in ["web", "db"] {
            assert_eq!(ask(&gateway, known).await.text(), "the VM", "{known}");
        }
    });
}

#[tokio::test]
async fn idle_connections_to_all_vms_are_bounded_together() {
    const VMS: usize = 12;
    let mut vms = Vec::new();
    for _ in 0..VMS {
        vms.push(Backend::named_v6("a VM").await);
    }
    let routes: String = vms
        .iter()
        .enumerate()
        .map(|(n, vm)| format!("[[route]]\nhost = \"vm{n}.test\"\nto = \"vm:web:{}\"\n", vm.addr().port()))
        .collect();
    let gateway = TestGateway::start(&format!(
        "[[listener]]\naddress = \"[::]:0\"\n{routes}[vms]\ntable = {{ web = \"::1\" }}\n\
         keepalive = {{ connections = 4 }}\n"
    ));
    let get = async |n: usize| gateway.client().with("host", &format!("vm{n}.test")).get("/").await.text();
    for n in 0..VMS {
        assert_eq!(get(n).await, "a VM");
    }
    assert_eq!(gateway.metric("vers_upstream_idle_connections", &["backend=\"vms\""]).await, 4.0);
    for n in VMS - 4..VMS {
        get(n).await;
    }
    assert_eq!(
        gateway.metric("vers_upstream_reuses_total", &["backend=\"vms\""]).await,
        4.0,
        "the last four"
    );
    get(0).await;
    assert_eq!(vms[0].connections(), 2, "the first had to go");
}

#[tokio::test]
async fn a_server_learns_the_client_by_a_header_in_front() {
    let (backend, mut visitors) = Backend::by_hand().await;
    let gateway = TestGateway::start(&format!(
        "[[listener]]\naddress = \"[::]:0\"\nproxy_protocol = \"require\"\ntrusted_proxies = [\"::1\"]\n\
         [[route]]\nto = \"app\"\n[backend.app]\nservers = [\"{}\"]\nproxy_protocol = \"v1\"\n",
        backend.addr()
    ));
    let request = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    let connect = async |client: &str| {
        let mut raw = Raw::connect(gateway.addr()).await;
        raw.send(format!("PROXY TCP4 {client} 198.51.100.1 7 3000\r\n{request}")).await;
        raw
    };
    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
    let mut first = connect("192.0.2.1").await;
    let mut to_first = visitors.next().await;
    assert_eq!(to_first.until("\r\n").await, "PROXY TCP4 192.0.2.1 198.51.100.1 7 3000\r\n");
    to_first.head().await;
    to_first.send(answer).await;
    first.head().await;
    // Another client has another connection, however idle the first one is.
    let mut second = connect("192.0.2.2").await;
    let mut to_second = visitors.next().await;
    assert_eq!(to_second.until("\r\n").await, "PROXY TCP4 192.0.2.2 198.51.100.1 7 3000\r\n");
    to_second.head().await;
    to_second.send(answer).await;
    second.head().await;
    // The first one's is its own still.
    first.send(request).await;
    assert!(to_first.head().await.starts_with("GET / "));
    to_first.send(answer).await;
    first.head().await;
    assert_eq!(backend.connections(), 2);
}

#[tokio::test]
async fn a_server_that_wants_to_know_later_on_is_told_the_ends_of_connections_that_there_are() {
    let (backend, mut visitors) = Backend::by_hand().await;
    let toml = |more: &str| {
        format!(
            "[[listener]]\naddress = \"[::]:0\"\n[[route]]\nto = \"app\"\n\
             [backend.app]\nservers = [\"{}\"]\n{more}",
            backend.addr()
        )
    };
    let gateway = TestGateway::start(&toml(""));
    let request = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
    let mut client = Raw::connect(gateway.addr_v4()).await;
    client.send(request).await;
    let mut server = visitors.next().await;
    assert!(server.head().await.starts_with("GET / "));
    server.send(answer).await;
    client.head().await;
    let mut client_of_http2 = Http2::connect(gateway.addr()).await;

    gateway.write(&toml("proxy_protocol = \"v1\"\n"));
    gateway.reload().await.expect("a good configuration");
    client.send(request).await;
    let mut server = visitors.next().await;
    let (from, to) = (client.stream.local_addr().expect("an address").port(), gateway.addr().port());
    assert_eq!(server.until("\r\n").await, format!("PROXY TCP4 127.0.0.1 127.0.0.1 {from} {to}\r\n"));
    assert!(server.head().await.starts_with("GET / "));
    server.send(answer).await;
    client.head().await;

    let get = client_of_http2.get("/");
    let serving = async {
        let mut server = visitors.next().await;
        let header = server.until("\r\n").await;
        server.head().await;
        server.send(answer).await;
        header
    };
    let (answered, header) = tokio::join!(client_of_http2.send(get, ""), serving);
    assert_eq!(answered.status, 200);
    let (begin, end) = ("PROXY TCP6 ::1 ::1 ", format!(" {to}\r\n"));
    assert!(header.starts_with(begin) && header.ends_with(&end), "{header}");
}

#[tokio::test]
async fn a_raw_connection_and_a_health_check_bring_a_header_too() {
    let (backend, mut visitors) = Backend::by_hand().await;
    let gateway = TestGateway::start(&format!(
        "[[listener]]\naddress = \"[::]:0\"\n[[route]]\nprotocol = \"tcp\"\nto = \"app\"\n\
         [backend.app]\nservers = [\"{}\"]\nproxy_protocol = \"v2\"\nhealth = {{ path = \"/\", interval = \"1h\" }}\n",
        backend.addr()
    ));
    let signature = b"\r\n\r\n\0\r\nQUIT\n";
    let mut check = visitors.next().await;
    assert_eq!(check.exactly(16).await, [&signature[..], &[0x20, 0, 0, 0]].concat(), "of the gateway itself");
    assert!(check.head().await.starts_with("GET / "));
    let mut client = Raw::connect(gateway.addr_v4()).await;
    client.send("ping").await;
    let port = client.stream.local_addr().expect("an address").port().to_be_bytes();
    let own = gateway.addr().port().to_be_bytes();
    let mut server = visitors.next().await;
    let addresses = [127, 0, 0, 1, 127, 0, 0, 1, port[0], port[1], own[0], own[1]];
    let expected = [&signature[..], &[0x21, 0x11, 0, 12], &addresses, b"ping"].concat();
    assert_eq!(server.exactly(expected.len()).await, expected);
}
