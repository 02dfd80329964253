//! The accept loop of one socket on one worker.

use crate::drain::Guard;
use std::{io, net::SocketAddr, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    time::sleep,
};

/// What the loop has to say.
#[derive(Debug)]
pub enum Accepted {
    /// A connection.
    Connection(TcpStream, SocketAddr),
    /// The machine is out of something; the loop waits and tries again.
    Failed(io::Error),
}

/// Accepts until the drain starts, and then whatever the kernel had accepted already: those clients
/// were told that somebody is there.
pub async fn accept_loop(listener: TcpListener, mut guard: Guard, mut on_accept: impl FnMut(Accepted)) {
    let mut pause = Pause::default();
    loop {
        let accepted = tokio::select! {
            biased;
            () = guard.draining() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                pause = Pause::default();
                on_accept(Accepted::Connection(stream, peer));
            }
            // The client is gone already; the next one may be there.
            Err(error) if is_clients_fault(&error) => {}
            // Out of file descriptors or memory: accepting again at once would only burn CPU.
            Err(error) => {
                on_accept(Accepted::Failed(error));
                // A drain need not wait for that.
                tokio::select! {
                    () = guard.draining() => {}
                    () = pause.wait() => {}
                }
            }
        }
    }
    if let Ok(listener) = listener.into_std() {
        loop {
            match listener.accept() {
                Ok((stream, peer)) => {
                    if stream.set_nonblocking(true).is_ok()
                        && let Ok(stream) = TcpStream::from_std(stream)
                    {
                        on_accept(Accepted::Connection(stream, peer));
                    }
                }
                // The one behind it may be there.
                Err(error) if is_clients_fault(&error) => {}
                Err(_) => break,
            }
        }
    }
}

/// How long to wait after a failure; each one in a row doubles it.
pub(super) struct Pause(Duration);

const SHORTEST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

impl Default for Pause {
    fn default() -> Self {
        Self(SHORTEST_PAUSE)
    }
}

impl Pause {
    pub(super) async fn wait(&mut self) {
        sleep(self.0).await;
        self.0 = (self.0 * 2).min(LONGEST_PAUSE);
    }
}

pub(super) fn is_clients_fault(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}
