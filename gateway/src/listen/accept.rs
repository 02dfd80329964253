//! The accept loop of one socket on one worker.

use super::bind::BACKLOG;
use crate::drain::Guard;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::{
    io,
    net::{SocketAddr, TcpListener},
    time::Duration,
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    net::TcpStream,
    task::consume_budget,
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

/// A listening socket of one worker.
#[derive(Debug)]
pub struct Acceptor(AsyncFd<TcpListener>);

impl Acceptor {
    /// Watches this socket, which does not block.
    ///
    /// # Errors
    /// Fails where the kernel has no more memory.
    pub fn new(listener: TcpListener) -> io::Result<Self> {
        #[expect(
            deprecated,
            reason = "its successor is unsafe for types that could change their file; a `TcpListener` cannot"
        )]
        AsyncFd::with_interest(listener, Interest::READABLE).map(Self)
    }

    /// Accepts until the drain starts, and then whatever the kernel had accepted already: those clients
    /// were told that somebody is there.
    pub async fn run(self, mut guard: Guard, mut on_accept: impl FnMut(Accepted)) {
        let mut pause = Pause::default();
        loop {
            let ready = tokio::select! {
                biased;
                () = guard.draining() => break,
                ready = self.0.readable() => ready,
            };
            // Only a runtime that shuts down fails here.
            let Ok(mut ready) = ready else { return };
            match ready.try_io(|listener| accept(listener.get_ref())) {
                Ok(Ok((stream, peer))) => {
                    pause = Pause::default();
                    if !has_more(self.0.get_ref()) {
                        ready.clear_ready();
                    }
                    on_accept(Accepted::Connection(stream, peer));
                }
                // There is none after all.
                Err(_) => {}
                // The client is gone already; the next one may be there.
                Ok(Err(error)) if is_clients_fault(&error) => {}
                // Out of file descriptors or memory: accepting again at once would only burn CPU.
                Ok(Err(error)) => {
                    on_accept(Accepted::Failed(error));
                    // A drain need not wait for that.
                    tokio::select! {
                        () = guard.draining() => {}
                        () = pause.wait() => {}
                    }
                }
            }
            // Others are on this worker, too.
            consume_budget().await;
        }
        let listener = self.0.into_inner();
        // Those behind so many came later: it is open as long as this takes.
        for _ in 0..BACKLOG {
            match accept(&listener) {
                Ok((stream, peer)) => on_accept(Accepted::Connection(stream, peer)),
                // The one behind it may be there.
                Err(error) if is_clients_fault(&error) => {}
                Err(_) => break,
            }
            consume_budget().await;
        }
    }
}

/// Whether another connection waits. To ask for one in vain would cost many times more: the kernel makes the files
/// of a connection before it looks for one.
fn has_more(listener: &TcpListener) -> bool {
    let mut asked = [PollFd::new(listener, PollFlags::IN)];
    !matches!(poll(&mut asked, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(0))
}

/// Takes a connection; `WouldBlock` where there is none.
#[cfg(target_os = "linux")]
pub(super) fn accept(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    use rustix::net::{SocketFlags, acceptfrom_with};
    let (stream, peer) = acceptfrom_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)?;
    let stream = TcpStream::from_std(stream.into())?;
    let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
    Ok((stream, peer.ok_or(io::ErrorKind::ConnectionAborted)?))
}

#[cfg(not(target_os = "linux"))]
pub(super) fn accept(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    let (stream, peer) = listener.accept()?;
    stream.set_nonblocking(true)?;
    Ok((TcpStream::from_std(stream)?, peer))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drain::Drain;
    use std::{cell::RefCell, rc::Rc};
    use tokio::{sync::Notify, task::LocalSet};

    #[tokio::test]
    async fn who_comes_together_alone_or_at_the_end_is_taken() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("a socket");
        let address = listener.local_addr().expect("an address");
        let (taken, came) = (Rc::new(RefCell::new(Vec::new())), Rc::new(Notify::new()));
        let mut clients = Vec::new();
        let mut connect = |count: usize| {
            clients.extend((0..count).map(|_| std::net::TcpStream::connect(address).expect("a connection")));
            clients.iter().map(|client| client.local_addr().expect("an address")).collect::<Vec<_>>()
        };
        connect(20);
        let drain = Drain::new();
        let acceptor = Acceptor::new(listener).expect("a loop");
        let (its_taken, its_came) = (Rc::clone(&taken), Rc::clone(&came));
        let running = acceptor.run(drain.guard(), move |accepted| {
            let Accepted::Connection(_, peer) = accepted else { panic!("{accepted:?}") };
            its_taken.borrow_mut().push(peer);
            its_came.notify_one();
        });
        let local = LocalSet::new();
        let running = local.spawn_local(running);
        local
            .run_until(async {
                for more in [0, 1, 0, 3, 1] {
                    let expected = connect(more);
                    while taken.borrow().len() < expected.len() {
                        tokio::time::timeout(Duration::from_secs(10), came.notified())
                            .await
                            .expect("another one");
                    }
                    assert_eq!(*taken.borrow(), expected);
                }
                // The kernel has taken these; that the loop has not, is not their fault.
                let expected = connect(5);
                drain.start();
                running.await.expect("no panic");
                assert_eq!(*taken.borrow(), expected);
            })
            .await;
    }

    #[tokio::test]
    async fn a_storm_leaves_others_their_turns() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("a socket");
        let address = listener.local_addr().expect("an address");
        let connect = move || std::net::TcpStream::connect(address).expect("a connection");
        // One more than is looked for.
        let ahead = [connect(), connect()];
        let drain = Drain::new();
        let taken = Rc::new(std::cell::Cell::new(0));
        let its_taken = Rc::clone(&taken);
        // Whoever comes in, another one is there already; up to where it is clear that nobody else had a turn.
        let running = Acceptor::new(listener).expect("a loop").run(drain.guard(), move |accepted| {
            drop(accepted);
            its_taken.set(its_taken.get() + 1);
            if its_taken.get() < 2_000 {
                drop(connect());
            }
        });
        let local = LocalSet::new();
        let running = local.spawn_local(running);
        local
            .run_until(async {
                while taken.get() == 0 {
                    tokio::task::yield_now().await;
                }
                assert!(taken.get() < 2_000, "the storm was over before anybody else had a turn");
                drain.start();
                running.await.expect("no panic");
            })
            .await;
        drop(ahead);
    }
}
