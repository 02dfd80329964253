//! Backends and clients that misbehave on the wire: the right status or a visible end, no effect on
//! others, and nothing left behind.

mod downstream; // what a client does wrong
mod files; // no file is left to open
mod pressure; // who reads slowly slows its sender down, and costs no memory
mod rest_of_a_body; // what is left of a request is never the next one
mod tunnels; // what goes wrong after an upgrade, and on TCP routes
mod upstream; // what a backend does wrong

use futures_util::future::join;
use gateway_tests::{Backend, Client, GatewayProcess, Kept, Raw, eventually};
use std::{cell::Cell, net::SocketAddr, time::Duration};

/// How often each fault is played.
const ROUNDS: usize = 5;

/// What the daemon may grow by while a fault is played again: what it keeps to use again is kept after
/// the first time.
const SLACK: u64 = 4 << 20;

/// Ends of pipes that a worker keeps to use again.
const PIPES: u64 = 2 * 8;

/// A gateway in a process of its own, with one worker, in front of a backend under test and of one
/// that works.
struct Scene {
    gateway: GatewayProcess,
    address: SocketAddr,
    _steady: Backend,
}

/// What a gateway holds.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Held {
    connections: f64,
    tunnels: f64,
    tasks: f64,
    /// Open sockets, without kept connections to backends.
    sockets: f64,
}

impl Held {
    /// The connection that asked may be closed already, or not yet.
    fn is_no_more_than(&self, before: &Self) -> bool {
        self.sockets <= before.sockets && Self { sockets: 0.0, ..*self } == Self { sockets: 0.0, ..*before }
    }
}

impl Scene {
    /// `keys` are further keys of the route to the backend under test; tables may follow.
    async fn of(under_test: SocketAddr, keys: &str) -> Self {
        Self::with(under_test, "", keys).await
    }

    /// As [`Self::of`], with further keys of the listener.
    async fn with(under_test: SocketAddr, listener: &str, keys: &str) -> Self {
        let steady = Backend::hello().await;
        let toml = format!(
            "[[listener]]\nname = \"web\"\naddress = \"[::]:0\"\n{listener}\n\
             [[route]]\nname = \"steady\"\npath = \"/steady\"\nto = \"{}\"\n\
             [[route]]\nname = \"fault\"\nto = \"{under_test}\"\n{keys}\n\
             [log]\nformat = \"json\"\naccess = false\n",
            steady.addr()
        );
        let gateway = GatewayProcess::start(crate::DAEMON, &toml).await;
        let address = gateway.addr_of("web").await;
        Self { gateway, address, _steady: steady }
    }

    fn client(&self) -> Client {
        Client::new(self.address)
    }

    async fn raw(&self) -> Raw {
        Raw::connect(self.address).await
    }

    /// Plays a fault a few times, beside a client that has nothing to do with it. After each time the
    /// gateway holds what it held before.
    async fn play(&self, fault: impl AsyncFn(&Self)) {
        let mut bystander = self.client().connect().await.expect("a connection");
        assert_eq!(bystander.get("/steady").await.text(), "hello");
        let before = self.held().await;
        let others = || self.gateway.files() - self.gateway.sockets();
        let (mut memory, others_before) = (0, others());
        for round in 0..ROUNDS {
            beside(&mut bystander, fault(self)).await;
            eventually(&format!("round {round}: {before:?} again"), async || {
                let now = self.held().await;
                // Shown where it fails.
                println!("{now:?}");
                now.is_no_more_than(&before).then_some(())
            })
            .await;
            if round == 0 {
                memory = self.gateway.rss();
            }
        }
        let grown = self.gateway.rss().saturating_sub(memory);
        assert!(grown < SLACK, "{ROUNDS} rounds took {grown} bytes");
        assert!(others() <= others_before + PIPES, "files that are no sockets: {}", others());
        assert!(!bystander.is_closed(), "the connection beside the fault is the same all the time");
    }

    async fn held(&self) -> Held {
        let admin = self.gateway.admin();
        let kept = admin.metric("vers_upstream_idle_connections", &[]).await;
        Held {
            connections: admin.metric("vers_connections_active", &[]).await,
            tunnels: admin.metric("vers_tunnels_active", &[]).await,
            tasks: admin.metric("vers_tasks_active", &[]).await,
            sockets: self.gateway.sockets() as f64 - kept,
        }
    }

    /// Connections to the backend under test that are kept for later requests.
    async fn kept(&self, under_test: SocketAddr) -> f64 {
        let backend = format!("backend=\"{under_test}\"");
        self.gateway.admin().metric("vers_upstream_idle_connections", &[&backend]).await
    }

    /// How often a connection was ended without an answer, for this reason.
    async fn cut(&self, reason: &str) -> f64 {
        let reason = format!("reason=\"{reason}\"");
        self.gateway.admin().metric("vers_connections_cut_total", &[&reason]).await
    }
}

/// Sends requests one after the other while a fault goes on.
async fn beside(bystander: &mut Kept, fault: impl Future<Output = ()>) {
    let over = Cell::new(false);
    let requests = async {
        // Others need the machine as well.
        let mut pace = tokio::time::interval(Duration::from_millis(3));
        while !over.get() {
            pace.tick().await;
            let answer = bystander.get("/steady").await;
            assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "hello"), "beside the fault");
        }
    };
    join(requests, async {
        fault.await;
        over.set(true);
    })
    .await;
}

/// Writes what can be written, until the gateway has had enough.
async fn pour(raw: &mut Raw, bytes: &[u8]) {
    let _ = tokio::io::AsyncWriteExt::write_all(&mut raw.stream, bytes).await;
}
