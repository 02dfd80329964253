//! Exchanges that are over, on their way to the plugins that log them: nobody waits for those.

use super::{Exchange, Instances, chain::Link};
use crate::drain::{Drain, Guard};
use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
    sync::Arc,
};
use tokio::{
    sync::Notify,
    task::{coop::consume_budget, spawn_local},
};

/// Calls of one plugin's `on-complete` at a time, in each worker.
const AT_A_TIME: usize = 8;

/// One worker's work for exchanges that are over. Whoever ends an exchange only leaves it here.
#[derive(Debug, Default)]
pub struct Journal {
    /// Plugins that have something to log.
    ready: RefCell<VecDeque<Rc<Instances>>>,
    wake: Notify,
    drain: Drain,
}

/// What waits for one plugin.
#[derive(Debug, Default)]
pub(super) struct LogQueue {
    waiting: RefCell<VecDeque<Over>>,
    /// Tasks that look after it, those that begin soon among them.
    tasks: Cell<usize>,
}

/// An exchange that is over, and the plugins that have not seen it yet.
#[derive(Debug)]
pub(super) struct Over {
    route: Arc<str>,
    links: Rc<[Link]>,
    /// The next of them.
    at: usize,
    exchange: Box<Exchange>,
}

impl Journal {
    /// Has exchanges logged as they come. It never ends.
    pub async fn run(self: Rc<Self>) {
        loop {
            self.wake.notified().await;
            let ready = std::mem::take(&mut *self.ready.borrow_mut());
            for instances in ready {
                let (journal, guard) = (Rc::clone(&self), self.drain.guard());
                spawn_local(async move {
                    journal.log(&instances).await;
                    drop(guard);
                });
            }
        }
    }

    /// Something will be logged that is not over yet: [`Self::finished`] waits for it, until this is dropped.
    pub fn expect(&self) -> Guard {
        self.drain.guard()
    }

    /// Waits until all is logged that there is.
    pub async fn finished(&self) {
        while !self.ready.borrow().is_empty() || self.drain.live() > 0 {
            // What is ready is begun by another task.
            tokio::task::yield_now().await;
            self.drain.finished().await;
        }
    }

    pub(super) fn begin(&self, route: &Arc<str>, links: &Rc<[Link]>, exchange: Box<Exchange>) {
        self.go_on(Over { route: Arc::clone(route), links: Rc::clone(links), at: 0, exchange });
    }

    /// Leaves it to the next plugin that has room for it.
    fn go_on(&self, mut over: Over) {
        while let Some(link) = over.links.get(over.at) {
            if link.logs(&over.exchange) {
                let instances = Rc::clone(&link.instances);
                let queue = instances.log_queue();
                if queue.waiting.borrow().len() < instances.plugin().limits.log_queue {
                    if queue.tasks.get() < AT_A_TIME {
                        queue.tasks.set(queue.tasks.get() + 1);
                        self.ready.borrow_mut().push_back(Rc::clone(&instances));
                        self.wake.notify_one();
                    }
                    queue.waiting.borrow_mut().push_back(over);
                    return;
                }
                instances.metrics().log_dropped.inc();
            }
            over.at += 1;
        }
    }

    /// Shows a plugin what waits for it.
    async fn log(&self, instances: &Rc<Instances>) {
        let queue = instances.log_queue();
        loop {
            let next = queue.waiting.borrow_mut().pop_front();
            let Some(mut over) = next else { break };
            over.exchange.caller = over.at;
            if let Some(link) = over.links.get(over.at) {
                link.on_complete(&over.route, &mut over.exchange).await;
            }
            // Requests come first where there is much to log.
            consume_budget().await;
            over.at += 1;
            self.go_on(over);
        }
        queue.tasks.set(queue.tasks.get() - 1);
    }
}

impl Link {
    /// Whether it is shown the end of this.
    fn logs(&self, over: &Exchange) -> bool {
        if over.connection.is_some() { self.hooks.tcp_log } else { self.hooks.log }
    }

    async fn on_complete(&self, route: &str, exchange: &mut Box<Exchange>) {
        let is_connection = exchange.connection.is_some();
        let whose = self.whose(route, if is_connection { "tcp-log" } else { "log" });
        let Ok(pass) = self.breakers.log.enter(whose) else { return };
        let logged = match is_connection {
            true => self.instances.on_close(exchange).await,
            false => self.instances.on_complete(exchange).await,
        };
        // It is in the log and counted, and nobody else is concerned.
        pass.ended(&logged);
    }
}
