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
    sync::{Arc, Weak},
    thread::Builder,
    time::Duration,
};
use tokio::{runtime, sync::watch};

/// Until a connection stands, its handshake included.
const CONNECTING: Duration = Duration::from_secs(1);

/// How long the other side may acknowledge nothing.
const SILENCE: Duration = Duration::from_secs(4);

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
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let run = move || runtime.block_on(etcd::run(of_thread, access));
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
