//! One worker's watch over sockets that all workers share.
//!
//! A listener on thousands of ports has one socket for each. A task for each of them on each worker
//! would cost more than the sockets; here they are in one set of the kernel, and one task asks which of
//! them have connections. All workers hear of each connection, and whoever is free first takes it.

use super::{Accepted, BoundPort, Entrance};
use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    io,
    rc::Rc,
    sync::Arc,
};

#[cfg(target_os = "linux")]
pub use linux::Crowd;
#[cfg(not(target_os = "linux"))]
pub use other::Crowd;

/// What belongs to a socket, for whoever is told of its connections.
struct Member<T> {
    port: Arc<BoundPort>,
    what: Rc<T>,
}

#[cfg(target_os = "linux")]
mod linux {
    use super::{Accepted, Arc, BoundPort, Cell, Entrance, HashMap, Member, Rc, RefCell, io};
    use crate::listen::{
        accept::{Pause, accept, is_clients_fault},
        bind::BACKLOG,
    };
    use rustix::{
        event::{Timespec, epoll},
        fd::OwnedFd,
    };
    use std::mem::MaybeUninit;
    use tokio::{
        io::{Interest, unix::AsyncFd},
        task::consume_budget,
    };

    /// Sockets that are asked for in one call.
    const BATCH: usize = 64;

    /// One worker's watch over sockets that all workers share; `T` is what belongs to each.
    pub struct Crowd<T> {
        set: AsyncFd<OwnedFd>,
        members: RefCell<HashMap<u64, Member<T>>>,
        next: Cell<u64>,
    }

    impl<T> Crowd<T> {
        /// Watches nothing yet.
        ///
        /// # Errors
        /// Fails where the kernel has no more memory or files.
        pub fn new() -> io::Result<Self> {
            let set = epoll::create(epoll::CreateFlags::CLOEXEC)?;
            #[expect(
                deprecated,
                reason = "its successor is unsafe for types that could change their file; an `OwnedFd` cannot"
            )]
            let set = AsyncFd::with_interest(set, Interest::READABLE)?;
            Ok(Self { set, members: RefCell::default(), next: Cell::new(0) })
        }

        /// Watches one more; the number that is returned ends that.
        ///
        /// # Errors
        /// Fails as the kernel does, and where each worker has a socket of its own.
        pub fn add(&self, port: &Arc<BoundPort>, what: Rc<T>) -> io::Result<u64> {
            let socket = port.shared().ok_or(io::ErrorKind::InvalidInput)?;
            let token = self.next.get();
            self.next.set(token + 1);
            epoll::add(self.set.get_ref(), socket, epoll::EventData::new_u64(token), epoll::EventFlags::IN)?;
            self.members.borrow_mut().insert(token, Member { port: Arc::clone(port), what });
            Ok(token)
        }

        /// Ends the watch over one, and hands over what the kernel had accepted for it: those clients
        /// were told that somebody is there.
        pub fn remove(&self, token: u64, mut on_accept: impl FnMut(&Rc<T>, Entrance, Accepted)) {
            let Some(Member { port, what }) = self.members.borrow_mut().remove(&token) else { return };
            let Some(socket) = port.shared() else { return };
            // Nothing else has it in this set, so this cannot fail.
            let _ = epoll::delete(self.set.get_ref(), socket);
            // Those behind so many came later; and other workers may still be there for them.
            for _ in 0..BACKLOG {
                match accept(socket) {
                    Ok((stream, peer)) => {
                        on_accept(&what, port.entrance(), Accepted::Connection(stream, peer));
                    }
                    Err(error) if is_clients_fault(&error) => {}
                    Err(_) => break,
                }
            }
        }

        /// Accepts on all of them, as long as it is polled.
        pub async fn accept(&self, mut on_accept: impl FnMut(&Rc<T>, Entrance, Accepted)) {
            let mut pause = Pause::default();
            loop {
                let Ok(mut ready) = self.set.readable().await else { return };
                let mut events = [const { MaybeUninit::uninit() }; BATCH];
                let now = Timespec { tv_sec: 0, tv_nsec: 0 };
                let tokens: smallvec::SmallVec<[u64; BATCH]> =
                    match epoll::wait(self.set.get_ref(), &mut events, Some(&now)) {
                        Ok((events, _)) => events.iter().map(|event| event.data.u64()).collect(),
                        Err(_) => continue,
                    };
                if tokens.is_empty() {
                    ready.clear_ready();
                    continue;
                }
                let mut failed = false;
                for token in tokens {
                    failed |= self.accept_on(token, &mut on_accept);
                    // Others are on this worker, too.
                    consume_budget().await;
                }
                // Out of file descriptors or memory: accepting again at once would only burn CPU.
                if failed { pause.wait().await } else { pause = Pause::default() }
            }
        }

        /// Accepts once on one of them; whoever has more is asked for again. Returns whether the machine
        /// is out of something.
        fn accept_on(&self, token: u64, on_accept: &mut impl FnMut(&Rc<T>, Entrance, Accepted)) -> bool {
            let found = self.members.borrow();
            let member = found.get(&token).map(|member| (Arc::clone(&member.port), Rc::clone(&member.what)));
            drop(found);
            let Some((port, what)) = member else { return false };
            let Some(socket) = port.shared() else { return false };
            match accept(socket) {
                Ok((stream, peer)) => {
                    on_accept(&what, port.entrance(), Accepted::Connection(stream, peer));
                    false
                }
                // Another worker was faster.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
                Err(error) if is_clients_fault(&error) => false,
                Err(error) => {
                    on_accept(&what, port.entrance(), Accepted::Failed(error));
                    true
                }
            }
        }
    }
}

/// Elsewhere, each worker has a socket of its own on each port, whatever that costs.
#[cfg(not(target_os = "linux"))]
mod other {
    use super::{Accepted, Arc, BoundPort, Entrance, Rc, io};
    use std::marker::PhantomData;

    /// Watches nothing.
    pub struct Crowd<T>(PhantomData<T>);

    impl<T> Crowd<T> {
        /// Watches nothing.
        ///
        /// # Errors
        /// Never.
        pub fn new() -> io::Result<Self> {
            Ok(Self(PhantomData))
        }

        /// Watches nothing.
        ///
        /// # Errors
        /// Always.
        pub fn add(&self, _: &Arc<BoundPort>, _: Rc<T>) -> io::Result<u64> {
            Err(io::ErrorKind::Unsupported.into())
        }

        /// Has nothing to end.
        pub fn remove(&self, _: u64, _: impl FnMut(&Rc<T>, Entrance, Accepted)) {}

        /// Waits for nothing.
        pub async fn accept(&self, _: impl FnMut(&Rc<T>, Entrance, Accepted)) {
            std::future::pending().await
        }
    }
}
