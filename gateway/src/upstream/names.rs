//! The addresses of a server's name, as one worker remembers them.

use std::{cell::RefCell, io, net::SocketAddr, rc::Rc, time::Duration};
use tokio::{sync::Notify, task::spawn_local, time::Instant};

/// How long addresses count. The resolver does not say how long they are good for.
const FRESH: Duration = Duration::from_secs(10);

/// How long a lookup is not repeated, whatever comes of it.
const FAILED: Duration = Duration::from_secs(1);

/// The addresses of one name. Whoever asks while they are looked up waits for the same answer.
#[derive(Debug, Default)]
pub(super) struct Name {
    state: RefCell<State>,
    looked_up: Notify,
}

#[derive(Debug, Default)]
struct State {
    known: Option<Known>,
    /// Until when that counts, and from when on it may be doubted.
    until: Option<Instant>,
    doubtful: Option<Instant>,
    is_running: bool,
}

/// What the resolver said last.
type Known = Result<Rc<[SocketAddr]>, (io::ErrorKind, String)>;

/// A lookup under way; its end, whatever it is, is the end of waiting for it.
struct Flight(Rc<Name>);

impl Name {
    /// The addresses. They are looked up where what is known is too old; where that fails, the old
    /// ones are better than none.
    pub(super) async fn addresses<F>(self: &Rc<Self>, lookup: impl Fn() -> F) -> io::Result<Rc<[SocketAddr]>>
    where
        F: Future<Output = io::Result<Vec<SocketAddr>>> + 'static,
    {
        loop {
            let looked_up = self.looked_up.notified();
            if let Some(known) = self.fresh() {
                return known;
            }
            if !std::mem::replace(&mut self.state.borrow_mut().is_running, true) {
                // A task of its own: whoever asked first may leave before the others.
                let (flight, looking) = (Flight(Rc::clone(self)), lookup());
                spawn_local(async move { flight.0.learn(looking.await) });
            }
            looked_up.await;
        }
    }

    /// None of the addresses took a connection: the name may mean others by now. A server that is down
    /// is no reason to ask the resolver with each request.
    pub(super) fn doubt(&self) {
        let mut state = self.state.borrow_mut();
        state.until = state.until.min(state.doubtful);
    }

    fn fresh(&self) -> Option<io::Result<Rc<[SocketAddr]>>> {
        let state = self.state.borrow();
        state.until.filter(|until| Instant::now() < *until)?;
        let known = state.known.as_ref()?;
        Some(known.clone().map_err(|(kind, text)| io::Error::new(kind, text)))
    }

    fn learn(&self, answer: io::Result<Vec<SocketAddr>>) {
        let answer = answer.and_then(|addresses| match addresses.as_slice() {
            [] => Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address")),
            _ => Ok(addresses),
        });
        let mut state = self.state.borrow_mut();
        let (known, lasts) = match (answer, state.known.take()) {
            (Ok(addresses), _) => (Ok(addresses.into()), FRESH),
            (Err(error), Some(Ok(old))) => {
                tracing::warn!(%error, "a name could not be looked up: its last addresses are used");
                (Ok(old), FAILED)
            }
            (Err(error), _) => (Err((error.kind(), error.to_string())), FAILED),
        };
        let now = Instant::now();
        (state.known, state.until, state.doubtful) = (Some(known), Some(now + lasts), Some(now + FAILED));
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.0.state.borrow_mut().is_running = false;
        self.0.looked_up.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use tokio::{
        task::LocalSet,
        time::{advance, sleep},
    };

    /// A resolver that takes a second, and what it says next: a port, or nothing.
    #[derive(Default)]
    struct Resolver {
        asked: Cell<usize>,
        says: Cell<Option<u16>>,
    }

    impl Resolver {
        async fn ask(self: &Rc<Self>, name: &Rc<Name>) -> Result<u16, io::ErrorKind> {
            let lookup = || {
                self.asked.set(self.asked.get() + 1);
                let says = self.says.get().ok_or(io::ErrorKind::TimedOut);
                async move {
                    sleep(Duration::from_secs(1)).await;
                    Ok(vec![SocketAddr::from(([127, 0, 0, 1], says?))])
                }
            };
            let addresses = name.addresses(lookup).await.map_err(|error| error.kind())?;
            Ok(addresses.first().expect("an address").port())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_is_looked_up_once_at_a_time_and_now_and_then() {
        let (name, resolver) = (Rc::new(Name::default()), Rc::new(Resolver::default()));
        let ask = || resolver.ask(&name);
        LocalSet::new()
            .run_until(async {
                resolver.says.set(Some(1));
                tokio::select! {
                    biased;
                    _ = ask() => panic!("a second has not passed"),
                    () = sleep(Duration::from_millis(500)) => {}
                }
                assert_eq!(tokio::join!(ask(), ask()), (Ok(1), Ok(1)));
                assert_eq!(resolver.asked.get(), 1, "the lookup of who has left is the others' too");
                advance(FRESH - Duration::from_millis(1)).await;
                assert_eq!((ask().await, resolver.asked.get()), (Ok(1), 1));
                advance(Duration::from_millis(1)).await;
                resolver.says.set(Some(2));
                assert_eq!((ask().await, resolver.asked.get()), (Ok(2), 2));
                name.doubt();
                resolver.says.set(Some(3));
                assert_eq!((ask().await, resolver.asked.get()), (Ok(2), 2), "it was just looked up");
                advance(FAILED).await;
                assert_eq!((ask().await, resolver.asked.get()), (Ok(3), 3), "nobody answered there");
            })
            .await;
    }

    #[tokio::test(start_paused = true)]
    async fn old_addresses_are_better_than_none() {
        let (name, resolver) = (Rc::new(Name::default()), Rc::new(Resolver::default()));
        let ask = || resolver.ask(&name);
        LocalSet::new()
            .run_until(async {
                assert_eq!(tokio::join!(ask(), ask()).1, Err(io::ErrorKind::TimedOut));
                assert_eq!(resolver.asked.get(), 1);
                advance(FAILED).await;
                resolver.says.set(Some(1));
                assert_eq!(ask().await, Ok(1), "a failure is not remembered for long");
                advance(FRESH).await;
                resolver.says.set(None);
                assert_eq!((ask().await, resolver.asked.get()), (Ok(1), 3));
                assert_eq!((ask().await, resolver.asked.get()), (Ok(1), 3), "not at each request");
                advance(FAILED).await;
                resolver.says.set(Some(2));
                assert_eq!(ask().await, Ok(2));
            })
            .await;
    }
}
