//! A real ACME server, `pebble` of Debian, that finds every name on this machine.

use crate::{
    Pki,
    skip::lacks,
    wait::{eventually, within},
};
use serde_json::json;
use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Stdio,
    sync::atomic::{AtomicU32, Ordering},
};
use tokio::{
    net::{TcpStream, UdpSocket},
    process::{Child, Command},
    task::JoinHandle,
};

/// A running ACME server, with the names' server that it asks. Both end when it is dropped.
#[derive(Debug)]
pub struct Pebble {
    child: Child,
    terms: PebbleTerms,
    resolver: SocketAddr,
    listen: SocketAddr,
    folder: tempfile::TempDir,
    directory: String,
    management: SocketAddr,
    names: JoinHandle<()>,
}

/// What the server is told.
#[derive(Debug, Clone, Copy)]
pub struct PebbleTerms {
    /// Port that it looks for files on.
    pub http: u16,
    /// Port that it looks for certificates on.
    pub tls: u16,
    /// How long its certificates are valid, in seconds.
    pub validity: u64,
    /// How many of a hundred good nonces it refuses (RFC 8555 §6.5).
    pub bad_nonces: u8,
}

impl Drop for Pebble {
    fn drop(&mut self) {
        self.names.abort();
    }
}

impl Pebble {
    /// Starts one; none where there is no such program, which is said.
    pub async fn start(terms: PebbleTerms) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let pki = Pki::new();
        pki.issue(&["localhost", "127.0.0.1"]).write(folder.path(), "pebble");
        std::fs::write(folder.path().join("ca.pem"), pki.certificate()).expect("a file is written");
        let resolver = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let resolver_address = resolver.local_addr().expect("an address");
        // It cannot choose its ports itself.
        let [listen, management] = two_ports().map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        let path = |name: &str| folder.path().join(name).display().to_string();
        let config = json!({ "pebble": {
            "listenAddress": listen.to_string(),
            "managementListenAddress": management.to_string(),
            "certificate": path("pebble.pem"),
            "privateKey": path("pebble-key.pem"),
            "httpPort": terms.http,
            "tlsPort": terms.tls,
            "certificateValidityPeriod": terms.validity,
        }});
        std::fs::write(folder.path().join("pebble.json"), config.to_string()).expect("a file is written");
        let Ok(child) = run(folder.path(), terms, resolver_address) else {
            lacks("acme", "pebble");
            return None;
        };
        let names = tokio::spawn(answer_names(resolver));
        let directory = format!("https://127.0.0.1:{}/dir", listen.port());
        let resolver = resolver_address;
        let mut pebble = Self { child, terms, resolver, listen, folder, directory, management, names };
        pebble.listens().await;
        Some(pebble)
    }

    async fn listens(&mut self) {
        for address in [self.listen, self.management] {
            let child = &mut self.child;
            eventually("an ACME server that listens", async || {
                let ended = child.try_wait().expect("its state");
                assert!(ended.is_none(), "pebble has ended: {ended:?}");
                TcpStream::connect(address).await.ok()
            })
            .await;
        }
    }

    /// Ends it, and starts it once more: it knows of nothing that was before.
    pub async fn restart(&mut self) {
        self.end().await;
        self.child = run(self.folder.path(), self.terms, self.resolver).expect("it ran before");
        self.listens().await;
    }

    /// Where it begins.
    pub fn directory(&self) -> &str {
        &self.directory
    }

    /// The authority of its own certificate.
    pub fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// The certificate of the authority that it issues by.
    pub async fn root(&self) -> String {
        let authority = crate::tls::text_of(&self.ca());
        let client = crate::TlsClient::new("localhost", &[&authority]);
        let mut raw = client.raw(self.management).await;
        raw.send("GET /roots/0 HTTP/1.0\r\nhost: localhost\r\n\r\n").await;
        let answer = raw.to_end().await;
        let (_, pem) = answer.split_once("\r\n\r\n").expect("a body");
        pem.to_owned()
    }

    /// Ends it.
    pub async fn end(&mut self) {
        self.child.start_kill().expect("it runs");
        let _ = within("its end", self.child.wait()).await;
    }
}

fn run(folder: &Path, terms: PebbleTerms, resolver: SocketAddr) -> io::Result<Child> {
    let config = folder.join("pebble.json");
    Command::new("pebble")
        .args(["-config", &config.display().to_string(), "-dnsserver", &resolver.to_string()])
        .env("PEBBLE_VA_NOSLEEP", "1")
        .env("PEBBLE_WFE_NONCEREJECT", terms.bad_nonces.to_string())
        .env("PEBBLE_AUTHZREUSE", "0")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
}

/// Two ports that are free now, and that the system gives to nobody who asks for any port: those are
/// higher.
pub fn two_ports() -> [u16; 2] {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Another process of tests begins elsewhere.
    let begin = std::process::id().wrapping_mul(101);
    let mut candidates =
        std::iter::repeat_with(|| 10_000 + begin.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % 20_000);
    [(); 2].map(|()| {
        let is_free = |port: &u16| std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, *port)).is_ok();
        let port = candidates.by_ref().filter_map(|port| u16::try_from(port).ok()).find(is_free);
        port.expect("a free port")
    })
}

/// Answers every question for an IPv4 address with 127.0.0.1, and every other with nothing.
async fn answer_names(socket: UdpSocket) {
    let mut question = [0; 512];
    while let Ok((length, from)) = socket.recv_from(&mut question).await {
        // Header, name, type and class; what may follow is of no interest.
        let Some(name) = question.get(12..length).and_then(|rest| rest.iter().position(|byte| *byte == 0))
        else {
            continue;
        };
        let end = 12 + name + 5;
        if end > length {
            continue;
        }
        let is_a = question[end - 4..end] == [0, 1, 0, 1];
        let mut answer = question[..end].to_vec();
        // An answer without an error, with one question and one record or none.
        answer[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0]);
        if is_a {
            answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 127, 0, 0, 1]);
        }
        // Who does not wait any more asks again.
        let _ = socket.send_to(&answer, from).await;
    }
}
