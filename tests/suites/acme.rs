//! Certificates ordered from a real ACME server, by both kinds of proof; renewed, refused, and kept.

use gateway_tests::{
    Backend, Client, GatewayProcess, NameServer, Pebble, PebbleTerms, Pki, Says, TestGateway, TlsClient,
    eventually, pebble, settled, tls,
};
use rustls::{
    DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use serde_json::Value;
use std::{
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::TcpStream,
    sync::Semaphore,
};

/// A day, in which nothing is renewed.
const DAY: u64 = 24 * 3600;

/// A gateway that orders, and its server. Its ports are known before it starts: the server looks there.
struct Scene {
    backend: Backend,
    pebble: Pebble,
    http: u16,
    tls: u16,
}

impl Scene {
    /// None where there is no server on this machine.
    async fn new(validity: u64) -> Option<Self> {
        Self::with(validity, 0).await
    }

    /// Whose server refuses so many of a hundred good nonces.
    async fn with(validity: u64, bad_nonces: u8) -> Option<Self> {
        let ports = pebble::two_ports();
        Self::looked_for_at(ports, ports, validity, bad_nonces).await
    }

    /// Whose server looks for proofs on other ports than the gateway has them on.
    async fn looked_for_at(
        [http, tls]: [u16; 2],
        looks_at: [u16; 2],
        validity: u64,
        bad_nonces: u8,
    ) -> Option<Self> {
        let terms = PebbleTerms { http: looks_at[0], tls: looks_at[1], validity, bad_nonces };
        Some(Self { pebble: Pebble::start(terms).await?, backend: Backend::hello().await, http, tls })
    }

    /// Keys of `acme`, with those that each has.
    fn toml(&self, acme: &str) -> String {
        format!(
            "[[listener]]\nname = \"plain\"\naddress = \"127.0.0.1:{}\"\n\
             [[listener]]\nname = \"tls\"\naddress = \"127.0.0.1:{}\"\ntls = true\n\
             [[route]]\nname = \"app\"\nto = \"{}\"\n\
             [certificate.web]\nacme = {{ directory = \"{}\", ca = \"{}\", terms_agreed = true, \
             email = \"operator@gateway.test\", {acme} }}\n",
            self.http,
            self.tls,
            self.backend.addr(),
            self.pebble.directory(),
            self.pebble.ca().display(),
        )
    }

    fn start(&self, acme: &str) -> TestGateway {
        TestGateway::start(&self.toml(acme))
    }

    fn address(&self) -> SocketAddr {
        on_loopback(self.tls)
    }

    async fn client(&self, name: &str) -> TlsClient {
        TlsClient::new(name, &[&self.pebble.root().await])
    }

    /// Waits for a certificate that a client takes, and returns it.
    async fn shown(&self, client: &TlsClient) -> Vec<u8> {
        eventually("a certificate of the authority", async || {
            let stream = client.connect(self.address()).await.ok()?;
            Some(tls::shown(&stream).to_vec())
        })
        .await
    }
}

fn on_loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// Stands where the server looks for a proof, and lets it look when the test says so.
struct Witness {
    relay: Backend,
    asked: Arc<Mutex<Vec<String>>>,
    gate: Arc<Semaphore>,
}

impl Witness {
    async fn before(port: u16) -> Self {
        let (asked, gate) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Semaphore::new(0)));
        let (of_relay, is_open) = (Arc::clone(&asked), Arc::clone(&gate));
        let relay = Backend::tcp(move |mut visitor| {
            let (asked, gate) = (Arc::clone(&of_relay), Arc::clone(&is_open));
            async move {
                let mut first = vec![0; 4096];
                let Ok(length @ 1..) = visitor.read(&mut first).await else { return };
                asked.lock().expect("no panic").push(String::from_utf8_lossy(&first[..length]).into_owned());
                // It is opened by closing.
                let _ = gate.acquire().await;
                let Ok(mut gateway) = TcpStream::connect(on_loopback(port)).await else { return };
                let _ = gateway.write_all(&first[..length]).await;
                let _ = copy_bidirectional(&mut visitor, &mut gateway).await;
            }
        })
        .await;
        Self { relay, asked, gate }
    }

    fn port(&self) -> u16 {
        self.relay.addr().port()
    }

    /// What the server asks for; it must come.
    async fn asked(&self) -> String {
        eventually("the authority", async || self.asked.lock().expect("no panic").first().cloned()).await
    }

    fn let_it_look(&self) {
        self.gate.close();
    }
}

/// Believes every certificate: those of proofs are of no authority.
#[derive(Debug)]
struct Credulous;

impl ServerCertVerifier for Credulous {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

async fn orders(gateway: &TestGateway, outcome: &str) -> f64 {
    gateway.metric("vers_acme_orders_total", &[&format!("outcome=\"{outcome}\"")]).await
}

fn mode(path: &Path) -> u32 {
    let permissions = std::fs::metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    std::os::unix::fs::PermissionsExt::mode(&permissions.permissions()) & 0o777
}

/// All files below a folder.
fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[tokio::test]
async fn a_certificate_is_ordered_by_either_proof_and_kept() {
    let Some(scene) = Scene::new(DAY).await else { return };
    for challenge in ["http-01", "tls-alpn-01"] {
        let acme = format!("domains = [\"a.example.com\", \"b.example.com\"], challenge = \"{challenge}\"");
        let gateway = scene.start(&acme);
        let (a, b) = (scene.client("a.example.com").await, scene.client("b.example.com").await);
        let shown = scene.shown(&a).await;
        assert_eq!(scene.shown(&b).await, shown, "one certificate for both");
        let mut raw = a.raw(scene.address()).await;
        raw.send("GET / HTTP/1.1\r\nhost: a.example.com\r\n\r\n").await;
        raw.until("hello").await;
        // Whoever asks for nothing is shown it too: it is the first of the file.
        let nameless =
            scene.client("127.0.0.1").await.connect(scene.address()).await.expect_err("another name");
        assert!(nameless.to_string().contains("a.example.com"), "{nameless}");
        let status = gateway.status().await;
        let state = &status["certificates"][0];
        assert_eq!((&state["name"], &state["source"]), (&"web".into(), &"acme".into()), "{state}");
        assert_eq!(state["problem"], Value::Null);
        assert_eq!((orders(&gateway, "issued").await, orders(&gateway, "failed").await), (1.0, 0.0));
        let state = gateway.folder().join("state");
        let kept = files(&state);
        assert_eq!(kept.len(), 3, "an account, a certificate and the record of orders: {kept:?}");
        for file in &kept {
            assert_eq!(mode(file), 0o600, "{}", file.display());
            assert_eq!(mode(file.parent().expect("a folder")), 0o700, "{}", file.display());
        }
        // The next start has it before the first connection, and orders nothing.
        let copy = tempfile::tempdir().expect("a folder");
        let state_of_copy = copy.path().join("state");
        copy_all(&state, &state_of_copy);
        gateway.stop(Duration::ZERO).await;
        let toml = format!(
            "{}[gateway]\nworkers = 1\nstate_dir = \"{}\"\n",
            scene.toml(&acme),
            state_of_copy.display()
        );
        let again = TestGateway::start(&toml);
        let stream = a.connect(scene.address()).await.expect("a certificate from the beginning");
        assert_eq!(tls::shown(&stream).to_vec(), shown);
        assert_eq!(orders(&again, "issued").await, 0.0);
        again.stop(Duration::ZERO).await;
    }
}

fn copy_all(from: &Path, to: &Path) {
    for file in files(from) {
        let target = to.join(file.strip_prefix(from).expect("below it"));
        std::fs::create_dir_all(target.parent().expect("a folder")).expect("a folder is made");
        std::fs::copy(&file, target).expect("a file is copied");
    }
}

#[tokio::test]
async fn a_certificate_is_renewed_in_time_and_connections_stay() {
    let Some(scene) = Scene::new(9).await else { return };
    let gateway = scene.start("domains = [\"a.example.com\"], challenge = \"tls-alpn-01\"");
    let client = scene.client("a.example.com").await;
    let first = scene.shown(&client).await;
    let mut open = client.raw(scene.address()).await;
    let expiry = gateway.metric("vers_certificate_expiry_timestamp_seconds", &[]).await;
    eventually("another certificate", async || {
        let stream = client.connect(scene.address()).await.expect("there is always one that is valid");
        (tls::shown(&stream).to_vec() != first).then_some(())
    })
    .await;
    open.send("GET / HTTP/1.1\r\nhost: a.example.com\r\n\r\n").await;
    open.until("hello").await;
    assert!(gateway.metric("vers_certificate_expiry_timestamp_seconds", &[]).await > expiry);
}

#[tokio::test]
async fn a_failing_order_is_told_and_not_repeated_at_once() {
    let Some(scene) = Scene::new(DAY).await else { return };
    // The server looks for a certificate where nobody speaks TLS: the ports are exchanged.
    let acme = "domains = [\"a.example.com\"], on_demand = [\"b.example.com\"], challenge = \"tls-alpn-01\"";
    let toml = scene.toml(acme);
    let (http, tls) = (format!("127.0.0.1:{}", scene.http), format!("127.0.0.1:{}", scene.tls));
    let toml = toml.replace(&tls, "TLS").replace(&http, &tls).replace("TLS", &http);
    let gateway = GatewayProcess::start(crate::DAEMON, &toml).await;
    let failures = |names: &str| {
        let is_one =
            |line: &Value| line["message"] == "no certificate from the authority" && line["names"] == names;
        gateway.log().into_iter().filter(is_one).collect::<Vec<_>>()
    };
    let line = eventually("a line of the log", async || failures("a.example.com").pop()).await;
    let problem = line["problem"].as_str().expect("words");
    assert!(problem.contains("a.example.com was not found to be ours"), "{problem}");
    assert!(problem.contains("urn:ietf:params:acme:error:"), "the authority's own words: {problem}");
    assert_eq!((&line["level"], &line["certificate"]), (&"ERROR".into(), &"web".into()), "{line}");
    assert!(line["again_in"].is_string(), "{line}");
    let admin = gateway.admin();
    assert_eq!(admin.status().await["certificates"][0]["problem"], problem);
    assert_eq!(admin.metric("vers_certificate_problem", &["certificate=\"web\""]).await, 1.0);
    // The next attempt waits: one that was not would come before what somebody asks for now.
    let other = scene.client("b.example.com").await.connect(gateway.addr_of("tls").await).await;
    assert!(other.expect_err("no certificate").to_string().contains("UnrecognisedName"));
    eventually("another line", async || failures("b.example.com").pop()).await;
    assert_eq!(failures("a.example.com").len(), 1);
    assert_eq!(admin.metric("vers_acme_orders_total", &["outcome=\"failed\""]).await, 2.0);
    // Traffic is not its business.
    let plain = Client::new(gateway.addr_of("plain").await);
    assert_eq!(plain.get("/").await.text(), "hello");
}

#[tokio::test]
async fn a_failing_renewal_leaves_what_is_there() {
    let Some(mut scene) = Scene::new(15).await else { return };
    let gateway = scene.start("domains = [\"a.example.com\"], challenge = \"http-01\"");
    let client = scene.client("a.example.com").await;
    let first = scene.shown(&client).await;
    let mut open = client.raw(scene.address()).await;
    scene.pebble.end().await;
    // It is valid for five seconds more by then.
    eventually("a failure", async || (orders(&gateway, "failed").await == 1.0).then_some(())).await;
    assert_eq!(scene.shown(&client).await, first);
    assert_eq!(gateway.metric("vers_certificate_problem", &["certificate=\"web\""]).await, 1.0);
    open.send("GET / HTTP/1.1\r\nhost: a.example.com\r\n\r\n").await;
    open.until("hello").await;
}

/// An order has some ten requests. With 15 of a hundred nonces refused, and three attempts for each
/// request, 3 of a hundred orders fail; without further attempts, 4 of 5 would.
#[tokio::test]
async fn nonces_that_are_refused_are_asked_for_again() {
    let Some(scene) = Scene::with(DAY, 15).await else { return };
    let gateway = scene.start("on_demand = [\"*.example.com\"], challenge = \"tls-alpn-01\"");
    for number in 1..=8 {
        let name = format!("n{number}.example.com");
        let _ = scene.client(&name).await.connect(scene.address()).await;
    }
    let mut issued = 0.0;
    for done in 1..=8 {
        issued = eventually("the next order", async || {
            let (issued, failed) = (orders(&gateway, "issued").await, orders(&gateway, "failed").await);
            (issued + failed >= f64::from(done)).then_some(issued)
        })
        .await;
    }
    assert!(issued >= 5.0, "{issued} of 8");
}

#[tokio::test]
async fn an_authority_that_never_answers_holds_nothing_up() {
    let backend = Backend::hello().await;
    let (authority, mut visitors) = Backend::by_hand().await;
    let toml = |names: &str| {
        format!(
            "[[listener]]\nname = \"plain\"\naddress = \"127.0.0.1:0\"\n\
             [[listener]]\naddress = \"127.0.0.2:0\"\ntls = true\n\
             [[route]]\nname = \"app\"\nto = \"{}\"\n\
             [certificate.web]\nacme = {{ directory = \"https://{}/\", terms_agreed = true, domains = [{names}] }}\n",
            backend.addr(),
            authority.addr()
        )
    };
    let gateway = TestGateway::start(&toml("\"a.example.com\""));
    let _first = visitors.next().await;
    let plain = Client::new(gateway.addr_of("plain"));
    assert_eq!(plain.get("/").await.text(), "hello");
    gateway.write(&toml("\"a.example.com\", \"b.example.com\""));
    gateway.reload().await.expect("a reload");
    let _second = visitors.next().await;
    assert_eq!(plain.get("/").await.text(), "hello");
    assert_eq!((orders(&gateway, "issued").await, orders(&gateway, "failed").await), (0.0, 0.0));
    gateway.stop(Duration::ZERO).await;
}

#[tokio::test]
async fn an_authority_that_is_gone_or_has_forgotten_costs_nothing_that_is_there() {
    let Some(mut scene) = Scene::new(DAY).await else { return };
    let gateway = scene.start("domains = [\"a.example.com\"], challenge = \"http-01\"");
    let client = scene.client("a.example.com").await;
    let first = scene.shown(&client).await;
    let more = "domains = [\"a.example.com\", \"c.example.com\"], challenge = \"http-01\"";
    // It does not answer.
    scene.pebble.end().await;
    gateway.write(&scene.toml(more));
    gateway.reload().await.expect("a reload");
    eventually("a failure", async || (orders(&gateway, "failed").await == 1.0).then_some(())).await;
    assert_eq!(scene.shown(&client).await, first);
    // It knows nobody any more.
    scene.pebble.restart().await;
    // Other names, because an order for the same would have to wait.
    gateway.write(&scene.toml(&more.replace("c.example", "d.example")));
    gateway.reload().await.expect("a reload");
    eventually("another failure", async || (orders(&gateway, "failed").await == 2.0).then_some(())).await;
    assert_eq!(scene.shown(&client).await, first);
    let problem =
        gateway.status().await["certificates"][0]["problem"].as_str().unwrap_or_default().to_owned();
    assert!(problem.contains("accountDoesNotExist"), "{problem}");
    // So the next attempt makes another account.
    gateway.write(&scene.toml(&more.replace("c.example", "e.example")));
    gateway.reload().await.expect("a reload");
    scene.shown(&scene.client("e.example.com").await).await;
}

#[tokio::test]
async fn names_get_certificates_when_they_are_asked_for() {
    let Some(scene) = Scene::new(DAY).await else { return };
    let gateway = scene.start("on_demand = [\"{vm}.vm.example.com\"], challenge = \"tls-alpn-01\"");
    for name in ["one.vm.example.com", "two.vm.example.com"] {
        let client = scene.client(name).await;
        scene.shown(&client).await;
    }
    // Names that no pattern has are not ordered, whoever asks.
    for name in ["vm.example.com", "a.b.vm.example.com", "other.example.com"] {
        let client = scene.client(name).await;
        assert!(client.connect(scene.address()).await.is_err(), "{name}");
    }
    let issued =
        settled("orders", async || (orders(&gateway, "issued").await, orders(&gateway, "failed").await));
    assert_eq!(issued.await, (2.0, 0.0));
    assert_eq!(gateway.metric("vers_acme_certificates", &[]).await, 2.0);
    assert_eq!(gateway.status().await["certificates"][0]["on_demand"], 2);
    // Another configuration keeps them.
    gateway.write(
        &scene
            .toml("on_demand = [\"{vm}.vm.example.com\"], challenge = \"tls-alpn-01\", orders_per_hour = 3"),
    );
    gateway.reload().await.expect("a reload");
    assert!(scene.client("one.vm.example.com").await.connect(scene.address()).await.is_ok());
    // Three an hour, of which there were two: one of these has to wait.
    for name in ["three.vm.example.com", "four.vm.example.com"] {
        let _ = scene.client(name).await.connect(scene.address()).await;
    }
    let first = eventually("one of both", async || (orders(&gateway, "issued").await >= 3.0).then_some(()));
    first.await;
    assert_eq!(settled("orders", async || orders(&gateway, "issued").await).await, 3.0);
}

#[tokio::test]
async fn a_file_is_shown_while_the_authority_looks_and_no_longer() {
    let [http, tls] = pebble::two_ports();
    let witness = Witness::before(http).await;
    let looks_at = [witness.port(), tls];
    let Some(scene) = Scene::looked_for_at([http, tls], looks_at, DAY, 0).await else { return };
    let gateway = scene.start("domains = [\"a.example.com\"], challenge = \"http-01\"");
    let asked = witness.asked().await;
    let path = asked.split(' ').nth(1).expect("a request").to_owned();
    let token = path.strip_prefix("/.well-known/acme-challenge/").expect("a proof");
    let plain = Client::new(gateway.addr_of("plain"));
    let proof = plain.get(&path).await.text();
    assert!(proof.starts_with(&format!("{token}.")), "{proof}");
    // What is like it, and is none.
    for other in [format!("{path}x"), format!("{path}/"), path.replace(token, "../../etc")] {
        assert_eq!(plain.get(&other).await.text(), "hello", "{other}");
    }
    witness.let_it_look();
    scene.shown(&scene.client("a.example.com").await).await;
    assert_eq!(plain.get(&path).await.text(), "hello", "the route's again");
}

#[tokio::test]
async fn a_proof_is_nothing_to_talk_over_and_shown_no_longer_than_it_is_looked_for() {
    let [http, tls] = pebble::two_ports();
    let witness = Witness::before(tls).await;
    let looks_at = [http, witness.port()];
    let Some(scene) = Scene::looked_for_at([http, tls], looks_at, DAY, 0).await else { return };
    let _gateway = scene.start("domains = [\"a.example.com\"], challenge = \"tls-alpn-01\"");
    let client = scene.client("a.example.com").await;
    let mut config = client.config.clone();
    config.dangerous().set_certificate_verifier(Arc::new(Credulous));
    let credulous = client.clone().configured(config);
    witness.asked().await;
    let mut raw = credulous.clone().offering(&["acme-tls/1"]).raw(scene.address()).await;
    raw.send("GET / HTTP/1.1\r\nhost: a.example.com\r\n\r\n").await;
    assert_eq!(raw.to_end().await, "");
    // Nor is it what a client is shown that has anything else to talk over, or asks for another name.
    for (name, protocols) in [
        ("a.example.com", &["acme-tls/1", "http/1.1"][..]),
        ("a.example.com", &["http/1.1"]),
        ("b.example.com", &["acme-tls/1"]),
    ] {
        let refused = credulous.clone().named(name).offering(protocols).connect(scene.address()).await;
        let error = refused.expect_err("no certificate").to_string();
        assert!(error.contains("UnrecognisedName"), "{name} {protocols:?}: {error}");
    }
    assert_eq!(scene.backend.connections(), 0);
    witness.let_it_look();
    scene.shown(&client).await;
    let proof = credulous.offering(&["acme-tls/1"]).connect(scene.address()).await;
    assert!(proof.expect_err("no proof").to_string().contains("UnrecognisedName"));
}

#[tokio::test]
async fn only_vms_that_there_are_get_certificates_on_demand() {
    let Some(scene) = Scene::new(DAY).await else { return };
    let toml = scene.toml("on_demand = [\"{vm}.vm.example.com\"], challenge = \"tls-alpn-01\"");
    let gateway = TestGateway::start(&format!("{toml}{TABLE}"));
    for name in ["unknown.vm.example.com", "known.vm.example.com"] {
        let _ = scene.client(name).await.connect(scene.address()).await;
    }
    scene.shown(&scene.client("known.vm.example.com").await).await;
    let orders =
        settled("orders", async || (orders(&gateway, "issued").await, orders(&gateway, "failed").await));
    assert_eq!(orders.await, (1.0, 0.0));
}

/// One VM.
const TABLE: &str = "[vms]\ntable = { known = \"2001:db8::1\" }\n";

/// A gateway of this fleet that orders from an authority which closes every connection: each order has
/// one, and then fails.
async fn refused(fleet: &str) -> (TestGateway, Backend) {
    let authority = Backend::tcp(|_| async {}).await;
    let gateway = TestGateway::start(&format!(
        "[[listener]]\nname = \"tls\"\naddress = \"127.0.0.1:0\"\ntls = true\n\
         [[route]]\nhost = \"{{vm}}.vm.example.com\"\nto = \"vm:{{vm}}:80\"\n\
         [certificate.web]\nacme = {{ directory = \"https://{}/\", terms_agreed = true, \
         on_demand = [\"{{vm}}.vm.example.com\"] }}\n{fleet}",
        authority.addr()
    ));
    (gateway, authority)
}

/// Asks for the certificates of these VMs.
async fn ask_for(gateway: &TestGateway, vms: &[&str]) {
    let pki = Pki::new();
    for vm in vms {
        let client = pki.client(&format!("{vm}.vm.example.com"));
        client.connect(gateway.addr_of("tls")).await.expect_err("no certificate");
    }
}

/// One order there was, and nothing else.
async fn one_order(gateway: &TestGateway, authority: &Backend) {
    eventually("an order", async || (orders(gateway, "failed").await >= 1.0).then_some(())).await;
    assert_eq!(settled("orders", async || orders(gateway, "failed").await).await, 1.0);
    assert_eq!(authority.connections(), 1);
}

#[tokio::test]
async fn an_unknown_vm_costs_the_authority_nothing() {
    let (gateway, authority) = refused(TABLE).await;
    // Who asks is heard in turn: when there is an order for the last one, the others have their answer.
    ask_for(&gateway, &["unknown", "gone", "known"]).await;
    one_order(&gateway, &authority).await;
}

#[tokio::test]
async fn a_vm_that_nobody_can_tell_of_costs_the_authority_nothing() {
    let dns = NameServer::start().await;
    dns.knows("known.internal", &["::1"], 60);
    dns.says(Says::Failure);
    let fleet = format!(
        "[vms]\nnetworks = [\"::1/128\"]\ndns = \"{{vm}}.internal\"\nnameservers = [\"{}\"]\n",
        dns.addr()
    );
    let (gateway, authority) = refused(&fleet).await;
    ask_for(&gateway, &["known", "unknown"]).await;
    let is_asked = |name: &str| dns.asked().iter().any(|asked| asked == name).then_some(());
    eventually("both questions", async || is_asked("known.internal").and(is_asked("unknown.internal"))).await;
    dns.says(Says::WhatItKnows);
    // That nobody knew is remembered for a moment.
    eventually("an order", async || {
        ask_for(&gateway, &["unknown", "known"]).await;
        (orders(&gateway, "failed").await >= 1.0).then_some(())
    })
    .await;
    one_order(&gateway, &authority).await;
}
