//! A backend that plays one raw answer, and remembers what came to it.

use super::case::{DONE, FIN, HEAD, RST};
use gateway_tests::{
    Backend,
    wire::{Connection, Parsed, Part, Pulse, parts, pieces, request},
};
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::watch;

/// How the bytes of an answer are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Delivery {
    /// In one write.
    Whole,
    /// Byte by byte, each one read before the next is sent.
    Split,
}

/// A backend that plays one raw answer, and remembers what came to it.
#[derive(Debug)]
pub(super) struct Stage {
    backend: Backend,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    text: Vec<u8>,
    delivery: Delivery,
    /// Where the gateway is, once it runs.
    gateway: watch::Sender<Option<SocketAddr>>,
    /// How far the client and the play are.
    progress: watch::Sender<Progress>,
    met: Mutex<Vec<Met>>,
}

/// How far the client and the play are.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Progress {
    pub(super) client_has_head: bool,
    pub(super) client_has_all: bool,
    pub(super) is_played: bool,
}

/// What came on one connection.
#[derive(Debug, Default, Clone)]
pub(super) struct Met {
    /// The first lines of requests.
    pub(super) lines: Vec<String>,
    /// What is no request.
    pub(super) rest: Vec<u8>,
    /// Whether the gateway has closed it.
    pub(super) ended: bool,
}

impl Stage {
    pub(super) async fn set(text: Vec<u8>, delivery: Delivery) -> Self {
        let (gateway, progress) = (watch::Sender::new(None), watch::Sender::new(Progress::default()));
        let shared = Arc::new(Shared { text, delivery, gateway, progress, met: Mutex::default() });
        let kept = Arc::clone(&shared);
        let backend = Backend::tcp(move |stream| serve(Connection::over(stream), Arc::clone(&kept))).await;
        Self { backend, shared }
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.backend.addr()
    }

    /// Says where the gateway is.
    pub(super) fn open(&self, gateway: SocketAddr) {
        self.shared.gateway.send_replace(Some(gateway));
    }

    /// Says how far the client is.
    pub(super) fn tell(&self, change: impl FnOnce(&mut Progress)) {
        self.shared.progress.send_modify(change);
    }

    /// Waits until everything was played.
    pub(super) async fn played(&self) {
        self.shared.until(|progress| progress.is_played).await;
    }

    /// What came, by connection.
    pub(super) fn met(&self) -> Vec<Met> {
        self.shared.met().clone()
    }
}

impl Shared {
    fn met(&self) -> std::sync::MutexGuard<'_, Vec<Met>> {
        self.met.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn until(&self, reached: impl FnMut(&Progress) -> bool) {
        let mut progress = self.progress.subscribe();
        // The sender lives as long as this.
        let _ = progress.wait_for(reached).await;
    }

    async fn pulse(&self) -> Option<Pulse> {
        let mut gateway = self.gateway.subscribe();
        let gateway = *gateway.wait_for(Option::is_some).await.ok()?;
        Some(Pulse::of(gateway?).await)
    }
}

/// What the second request is answered.
const NEXT: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nnext";

async fn serve(mut connection: Connection, shared: Arc<Shared>) {
    let index = {
        let mut met = shared.met();
        met.push(Met::default());
        met.len() - 1
    };
    let mut is_tunnel = false;
    while connection.end.is_none() {
        connection.more().await;
        while let Parsed::Whole(message, used) = request(&connection.came)
            && !is_tunnel
        {
            connection.came.drain(..used);
            {
                let met = &mut shared.met()[index];
                met.lines.push(message.start.clone());
                met.rest.clear();
            }
            if message.parts()[1] == "/next" {
                connection.send(NEXT).await;
                continue;
            }
            if let Some(kept) = play(connection, &shared).await {
                connection = kept;
            } else {
                shared.met()[index].ended = true;
                shared.progress.send_modify(|progress| progress.is_played = true);
                return;
            }
            is_tunnel = shared.text.windows(12).any(|window| window == b"HTTP/1.1 101");
            shared.progress.send_modify(|progress| progress.is_played = true);
        }
        if is_tunnel {
            let came = std::mem::take(&mut connection.came);
            connection.send(&came).await;
            shared.met()[index].rest.extend(came);
        } else {
            shared.met()[index].rest = connection.came.clone();
        }
    }
    shared.met()[index].ended = true;
}

/// Sends the answer. Returns the connection, unless it was reset.
async fn play(mut connection: Connection, shared: &Shared) -> Option<Connection> {
    let mut pulse = shared.pulse().await?;
    for part in parts(&shared.text, &[HEAD, DONE, FIN, RST]) {
        match part {
            Part::Bytes(bytes) if shared.delivery == Delivery::Split => {
                for piece in pieces(bytes) {
                    connection.send(piece).await;
                    pulse.beat().await;
                }
            }
            Part::Bytes(bytes) => connection.send(bytes).await,
            Part::Word(HEAD) => shared.until(|progress| progress.client_has_head).await,
            Part::Word(DONE) => shared.until(|progress| progress.client_has_all).await,
            Part::Word(FIN) => connection.finish().await,
            Part::Word(_) => {
                connection.reset();
                return None;
            }
        }
    }
    pulse.beat().await;
    Some(connection)
}
