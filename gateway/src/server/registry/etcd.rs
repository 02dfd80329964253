//! The thread that follows etcd for a registry, and the connections that it asks over.

use crate::{
    registry::{
        Registry,
        etcd::{self, Access, Answering, Transport, Undelivered, User},
    },
    snapshot::EtcdPlan,
    tls::Connector,
};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioTimer},
};
use std::{
    error::Error,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Weak},
    thread::{Builder, sleep},
    time::Duration,
};
use tokio::{
    runtime::{self, Runtime},
    sync::watch,
};

/// Until a connection stands; names and handshakes are waited for by who asks, for as long as a request may take.
const CONNECTING: Duration = Duration::from_secs(1);

/// How long the other side may acknowledge nothing.
const SILENCE: Duration = Duration::from_secs(4);

/// Names that are looked up at a time: where that hangs, its threads do.
const LOOKUPS: usize = 16;

/// Before following begins anew that has panicked.
const AFTER_PANIC: Duration = Duration::from_secs(1);

/// How long an unused connection is kept.
const KEEP_FOR: Duration = Duration::from_secs(30);

/// Registries that follow etcd. They are few: one, and another while a reload puts it in its place.
#[derive(Debug, Default)]
pub(in crate::server) struct Followers(Vec<Follower>);

#[derive(Debug)]
struct Follower {
    registry: Weak<Registry>,
    access: watch::Sender<Arc<Access>>,
    /// Of the plan that it follows.
    hash: [u8; 32],
}

impl Followers {
    /// Has a registry follow etcd from now on, unless it does so already. Returns whether it is the first time.
    ///
    /// # Errors
    /// Fails where there is no thread to be had.
    pub(super) fn follow(&mut self, registry: &Arc<Registry>, plan: &EtcdPlan) -> io::Result<bool> {
        self.0.retain(|follower| follower.registry.strong_count() > 0);
        if self.of(registry).is_some() {
            return Ok(false);
        }
        let (sender, access) = watch::channel(Arc::new(access(plan)));
        let of_thread = Arc::downgrade(registry);
        let runtime =
            runtime::Builder::new_current_thread().enable_all().max_blocking_threads(LOOKUPS).build()?;
        let run = move || keep_running(&runtime, &of_thread, &access);
        Builder::new().name("vers-reg-etcd".to_owned()).spawn(run)?;
        self.0.push(Follower { registry: Arc::downgrade(registry), access: sender, hash: plan.hash });
        Ok(true)
    }

    /// Has a registry that follows etcd do so where it is now.
    pub(super) fn turn(&mut self, registry: &Arc<Registry>, plan: &EtcdPlan) {
        if let Some(follower) = self.of(registry)
            && follower.hash != plan.hash
        {
            follower.hash = plan.hash;
            follower.access.send_replace(Arc::new(access(plan)));
        }
    }

    fn of(&mut self, registry: &Arc<Registry>) -> Option<&mut Follower> {
        self.0.iter_mut().find(|follower| std::ptr::eq(follower.registry.as_ptr(), Arc::as_ptr(registry)))
    }
}

/// Follows etcd until the registry is gone. Whatever makes that panic must not leave the gateway without it for good:
/// it begins anew then.
fn keep_running(runtime: &Runtime, registry: &Weak<Registry>, access: &watch::Receiver<Arc<Access>>) {
    while registry.strong_count() > 0 {
        let (of_run, access) = (Weak::clone(registry), access.clone());
        let run = AssertUnwindSafe(|| runtime.block_on(etcd::run(of_run, access)));
        if catch_unwind(run).is_err() {
            tracing::error!(
                "following the registry's etcd has failed, which is a mistake in the gateway: it begins anew"
            );
            sleep(AFTER_PANIC);
        }
    }
}

fn access(plan: &EtcdPlan) -> Access {
    let client = Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(KEEP_FOR)
        .build(plan.roots.lasting_connector(CONNECTING, SILENCE));
    let user = plan
        .user
        .as_ref()
        .map(|(name, password)| User { name: name.clone(), password: password.reveal().map(Into::into) });
    Access { endpoints: Arc::clone(&plan.members), user, transport: Arc::new(Requests(client)) }
}

/// Sends requests to etcd.
#[derive(Debug)]
struct Requests(Client<Connector, Full<Bytes>>);

impl Transport for Requests {
    fn send(&self, request: http::Request<Bytes>) -> Answering {
        let sent = self.0.request(request.map(Full::new));
        Box::pin(async move {
            match sent.await {
                Ok(answer) => Ok(answer.map(|body| body.map_err(|error| in_words(&error)).boxed_unsync())),
                Err(error) => Err(Undelivered { why: in_words(&error), is_unsent: error.is_connect() }),
            }
        })
    }
}

/// The cause of all: the others only say that something happened.
fn in_words(error: &dyn Error) -> String {
    let mut last = error;
    while let Some(cause) = last.source() {
        last = cause;
    }
    last.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::{Place, Terms};
    use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

    /// Panics once, and has the registry end then.
    #[derive(Debug)]
    struct Panics {
        asked: AtomicU32,
        again: std::sync::mpsc::Sender<()>,
    }

    impl Transport for Panics {
        fn send(&self, _: http::Request<Bytes>) -> Answering {
            assert!(self.asked.fetch_add(1, SeqCst) > 0, "the first one panics");
            let _ = self.again.send(());
            Box::pin(std::future::ready(Err(Undelivered { why: "nobody".to_owned(), is_unsent: true })))
        }
    }

    #[test]
    fn a_panic_is_not_the_end_of_it() {
        let terms = Terms {
            ttl: Duration::from_secs(45),
            retention: Duration::from_secs(45),
            strict_conflict: false,
        };
        let registry = Arc::new(Registry::new(Place::Etcd("/r".to_owned()), terms));
        let (again, was_asked) = std::sync::mpsc::channel();
        let transport = Arc::new(Panics { asked: AtomicU32::new(0), again });
        let access = Access { endpoints: ["http://a".to_owned()].into(), user: None, transport };
        let (_sender, access) = watch::channel(Arc::new(access));
        let of_thread = Arc::downgrade(&registry);
        let runtime = runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let thread = std::thread::spawn(move || keep_running(&runtime, &of_thread, &access));
        was_asked.recv_timeout(Duration::from_secs(10)).expect("it is asked again");
        drop(registry);
        thread.join().expect("it ends with the registry");
    }
}
