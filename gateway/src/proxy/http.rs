//! One request: route → headers → plugins → backend → plugins → answer.

mod body;
mod component;
mod compose;
mod deliver;
mod filter;
mod send;
mod switch;
mod transform;
mod upload;

use self::{body::framed_body, switch::Asked};
use super::{
    access::{Entry, Readers},
    answer::{self, Error},
    carrier::Downstream,
    client::Client,
    conn::{Connection, View},
    exchange::Exchange,
    grpc,
    registry::Watch,
    tunnel::{self, Line},
};
use crate::{
    drain::Guard,
    headers::{self, hop_by_hop, hop_by_hop::Options},
    http1::{BodyLength, Malformed, request_body},
    ids::{ClientAddr, RequestId},
    io::Buffers,
    message::{Fields, Known, RequestHead, ResponseHead},
    plugins::{self, Transforms},
    route::{Captures, Question, Table},
    snapshot::{Goal, LocalRoute, LocalTarget},
};
use bytes::Bytes;
use http::{Method, StatusCode, Version};
use std::{rc::Rc, sync::Arc, time::Duration};
use tokio::time::Instant;

/// How long the gateway's own answer may take to reach a client that no route was found for.
const UNROUTED_IDLE: Duration = Duration::from_secs(30);

/// What becomes of a connection after a request.
pub(super) enum After {
    /// It waits for the next request.
    Next,
    /// It is closed.
    Close,
    /// It is closed, and its client may not have stopped sending.
    Linger,
    /// It is closed, and its client is not told that this is the end of anything.
    BreakOff,
    /// Its end must not look like the end of the answer.
    Reset,
    /// It speaks another protocol from now on.
    Tunnel(Rc<LocalRoute>, Box<tunnel::Upstream>, Line),
}

/// Answers a request, whatever becomes of it.
pub(super) fn serve<'a, I: Downstream>(
    connection: &'a Connection,
    client: &'a mut Client<I>,
    mut head: RequestHead,
    guard: &'a Guard,
) -> impl Future<Output = After> {
    let mut session = Session::new(connection, guard, &head);
    client.begin();
    // What a block takes is in it once, what an async function is given twice, and each request makes one of these.
    async move {
        let outgoing = match session.admit(client, &mut head) {
            Ok(Admitted::Answered(answer)) => Ok(Outgoing::Answer(*answer)),
            Ok(Admitted::Asking(route, asked)) if route.terms.chain.has_filters() => {
                let facts = session.facts(&route, asked.is_some());
                let exchange = Box::new(plugins::Exchange::new(facts, head));
                // In a place of its own: most of what a plugin needs while it runs is of no use without one.
                Box::pin(session.filter(client, &route, exchange, asked)).await
            }
            Ok(Admitted::Asking(route, mut asked)) => {
                session.deliver(client, (&route, None), &mut head, (&mut None, &mut asked)).await
            }
            Err(error) => Err(error),
        };
        let mut answer = match outgoing {
            Ok(Outgoing::Answer(answer)) => answer,
            Ok(Outgoing::Switching(head, exchange)) => {
                return Box::pin(session.switch(client, head, *exchange)).await;
            }
            Err(Error::ClientGone) => return After::Close,
            Err(error) => {
                // Even where its time is over, the client should learn so.
                client.due = None;
                session.refuse(&error)
            }
        };
        session.send(client, &mut answer).await
    }
}

/// Answers what is no request.
pub(super) async fn reject<I: Downstream>(
    connection: &Connection,
    client: &mut Client<I>,
    error: Error,
    guard: &Guard,
) -> After {
    let mut session = Session::nameless(connection, guard);
    client.begin();
    let mut answer = session.refuse(&error);
    session.send(client, &mut answer).await
}

/// One request while it is served.
struct Session<'a> {
    connection: &'a Connection,
    guard: &'a Guard,
    /// What it runs on, whatever is reloaded meanwhile.
    view: Rc<View>,
    id: RequestId,
    began: Instant,
    is_head: bool,
    version: Version,
    /// What is not read yet of the request.
    body: BodyLength,
    /// Whether the connection ends with this answer.
    close: bool,
    /// Whether its client reads errors as gRPC has them.
    is_grpc: bool,
    /// What an answer is counted as whose status says less.
    counted: Option<StatusCode>,
    /// The matched route, once there is one.
    route: Option<Rc<LocalRoute>>,
    /// What its patterns captured.
    captures: Captures,
    /// Who asks: the other end of the connection, or who a trusted proxy says.
    client_address: ClientAddr,
    /// The line in the access log, where that is on.
    entry: Option<Box<Entry>>,
}

/// An answer before it is sent.
pub(super) struct Answer {
    pub(super) head: ResponseHead,
    pub(super) content: Content,
}

pub(super) enum Content {
    /// The backend's, as it comes; whether its connection is wanted again, and the plugins that transform it.
    Upstream { exchange: Box<Exchange>, length: BodyLength, keep: bool, transforms: Option<Box<Transforms>> },
    /// The gateway's or a plugin's.
    Whole(Bytes),
    /// The registry's changes, as they come.
    Changes(Watch),
}

/// What was found out about a request by its head.
enum Admitted {
    /// The answer to it, whatever the routes say.
    Answered(Box<Answer>),
    /// Where it goes, and the protocol change that it asks for.
    Asking(Rc<LocalRoute>, Option<Box<Asked>>),
}

/// What the client gets.
enum Outgoing {
    Answer(Answer),
    /// The protocol changes after this head, which no plugin sees.
    Switching(ResponseHead, Box<Exchange>),
}

impl<'a> Session<'a> {
    fn new(connection: &'a Connection, guard: &'a Guard, head: &RequestHead) -> Self {
        let mut session = Self::nameless(connection, guard);
        session.is_head = head.method == Method::HEAD;
        session.version = head.version;
        session.close = false;
        session.is_grpc = head.version == Version::HTTP_2 && grpc::is_request(&head.fields);
        if let Some(entry) = &mut session.entry {
            entry.asked(head);
        }
        session
    }

    fn nameless(connection: &'a Connection, guard: &'a Guard) -> Self {
        let (id, began) = (connection.worker.ids.next(), Instant::now());
        let view = connection.view();
        let peer = connection.arrival.peer;
        let entry = view.local.shared.log.access.then(|| Box::new(Entry::new(id, peer, began, true)));
        Self {
            connection,
            guard,
            view,
            id,
            began,
            is_head: false,
            version: Version::HTTP_11,
            // What is no request has no end.
            body: BodyLength::UntilClose,
            close: true,
            is_grpc: false,
            counted: None,
            route: None,
            captures: Captures::default(),
            client_address: connection.arrival.peer,
            entry,
        }
    }

    fn buffers(&self) -> &'a Buffers {
        &self.connection.worker.buffers
    }

    /// Looks at the head of a request: finds its route, and leaves of its fields what is for the backend.
    fn admit<I: Downstream>(
        &mut self,
        client: &mut Client<I>,
        head: &mut RequestHead,
    ) -> Result<Admitted, Error> {
        let view = Rc::clone(&self.view);
        // Until it is known where the body ends, nothing behind it can be a request.
        self.body = BodyLength::UntilClose;
        self.body = request_body(head).map_err(Error::Malformed)?;
        if client.io.frames() {
            self.body = framed_body(self.body, head, &client.io);
        }
        if !view.is_served {
            // Whatever else it asks for, it asks at the wrong door.
            self.close = true;
            return Err(Error::PortNotServed);
        }
        let table = view.mode().requests().ok_or(Error::NoRoute)?;
        if head.method == Method::CONNECT {
            return Err(Error::Connect);
        }
        let authority = headers::authority(head).map_err(Error::Authority)?;
        if let Some(tokens) = &view.local.shared.tls.tokens
            && let Some(content) = tokens.answer(head.path())
        {
            self.close = true;
            return Ok(Admitted::Answered(Box::new(proof(&content))));
        }
        let question =
            Question { host: &authority.host, path: head.path(), method: &head.method, fields: &head.fields };
        let found = table.lookup(question);
        let route = found.as_ref().and_then(|found| view.local.routes.get(found.route));
        self.route = route.cloned();
        self.check_name(table, question)?;
        let (Some(found), Some(route)) = (found, self.route.clone()) else { return Err(Error::NoRoute) };
        let host = connection_host(authority.full);
        self.captures = found.captures;
        if route.terms.chain.has_logs() {
            self.show_later(head, &route);
        }
        if self.body.is_told_to_exceed(route.terms.body_limit) {
            return Err(Error::Malformed(Malformed::BodyTooLarge));
        }
        client.due = route.terms.timeouts.total.map(|total| self.began + total);
        let options = hop_by_hop::strip(&mut head.fields);
        self.close |= closes(self.version, &options);
        check_expectation(head)?;
        let opens_tunnel = client.io.opens_tunnel();
        let asked = self.upgrade(head, options, &route, opens_tunnel)?;
        if opens_tunnel && asked.is_none() {
            return Err(Error::Connect);
        }
        if !head.fields.has(Known::Host) {
            // HTTP/1.0 with an absolute target.
            head.fields.append_known(Known::Host, &host);
        }
        let client_address = view.forwarding.apply(&mut head.fields, &host, &view.listener.trusted_proxies);
        self.client_address = client_address;
        if let Some(entry) = &mut self.entry {
            entry.client = client_address;
        }
        Ok(Admitted::Asking(route, asked))
    }

    /// RFC 9110 §7.4: whose certificate the client has seen is whom it may talk to. Other hosts of one
    /// certificate may share a connection (RFC 9113 §9.1.1), VMs of one wildcard are strangers to all.
    fn check_name(&self, table: &Table, question: Question<'_>) -> Result<(), Error> {
        let Some(sni) = self.connection.arrival.sni.as_deref().filter(|sni| *sni != question.host) else {
            return Ok(());
        };
        let named = || self.view.local.routes.get(table.lookup(Question { host: sni, ..question })?.route);
        let is_of_vm = self.route.as_ref().is_some_and(is_to_vm) || named().is_some_and(is_to_vm);
        if is_of_vm { Err(Error::Misdirected) } else { Ok(()) }
    }

    /// Once it is over, the route's plugins are shown what became of this request.
    #[cold]
    fn show_later(&mut self, head: &RequestHead, route: &Rc<LocalRoute>) {
        let arrival = &self.connection.arrival;
        let readers = Readers {
            worker: Rc::clone(&self.connection.worker),
            route: Rc::downgrade(route),
            peer: arrival.neighbour(),
            local_port: arrival.port,
            captures: self.captures.iter().map(|(name, text)| (name.into(), text.into())).collect(),
            exchange: None,
        };
        let (id, began) = (self.id, self.began);
        let entry = self.entry.get_or_insert_with(|| {
            let mut entry = Box::new(Entry::new(id, arrival.peer, began, false));
            entry.asked(head);
            entry
        });
        entry.route = Some(Arc::clone(&route.name));
        entry.plugins = Some(Box::new(readers));
    }

    /// The answer to a request that cannot be served.
    fn refuse(&mut self, error: &Error) -> Answer {
        let code = error.code();
        self.connection.worker.count_error(code);
        if let Some(entry) = &mut self.entry {
            entry.error = Some(code);
        }
        // Where a message is ambiguous, what follows it is as well (RFC 9112 §6.1, §6.3).
        self.close |= error.is_of_client();
        tracing::debug!(request_id = %self.id, %error, "answered by the gateway");
        let (head, body) = answer::answer(error);
        if self.is_grpc {
            self.counted = Some(head.status);
            return Answer { head: grpc::answer(code, head.fields), content: Content::Whole(Bytes::new()) };
        }
        Answer { head, content: Content::Whole(body) }
    }

    /// Says for the operator what went wrong with a backend.
    fn failed(&self, error: &Error) {
        if let (Some(route), true) = (&self.route, error.is_of_backend()) {
            tracing::warn!(route = &*route.name, request_id = %self.id, "{error}");
        }
    }

    fn idle(&self) -> Duration {
        self.route.as_ref().map_or(UNROUTED_IDLE, |route| route.terms.timeouts.idle)
    }

    /// Counts the answer.
    fn count(&mut self, status: StatusCode) {
        let status = self.counted.unwrap_or(status);
        let after = self.began.elapsed();
        if let Some(route) = &self.route {
            route.metrics.answered(status, after);
        }
        if let Some(entry) = &mut self.entry {
            (entry.status, entry.head) = (Some(status), Some(after));
            entry.route = self.route.as_ref().map(|route| Arc::clone(&route.name));
        }
    }
}

fn is_to_vm(route: &Rc<LocalRoute>) -> bool {
    matches!(route.terms.target, LocalTarget::Asked(Goal::Vm { .. }))
}

/// Hosts are short, and each request needs its own beyond its head.
fn connection_host(authority: &str) -> smallvec::SmallVec<[u8; 64]> {
    smallvec::SmallVec::from_slice(authority.as_bytes())
}

/// RFC 9112 §9.3.
fn closes(version: Version, options: &Options) -> bool {
    options.close || (version == Version::HTTP_10 && !options.keep_alive)
}

/// RFC 9110 §10.1.1.
fn check_expectation(head: &mut RequestHead) -> Result<(), Error> {
    if !head.fields.has(Known::Expect) {
        return Ok(());
    }
    let is_known = head.fields.all(Known::Expect).all(|value| value.eq_ignore_ascii_case(b"100-continue"));
    if !is_known {
        return Err(Error::Expectation);
    }
    if head.version == Version::HTTP_10 {
        head.fields.remove(Known::Expect);
    }
    Ok(())
}

/// What shows an authority that a name is ours (RFC 8555 §8.3), whatever the routes say.
fn proof(content: &str) -> Answer {
    let mut fields = Fields::new();
    fields.append(b"content-type", b"application/octet-stream");
    let body = Bytes::copy_from_slice(content.as_bytes());
    Answer { head: ResponseHead::new(StatusCode::OK, fields), content: Content::Whole(body) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::stream::ClientStream;

    /// Bytes up to which glibc keeps a piece of memory at hand for its thread (`tcache`); a larger one is looked for.
    const AT_HAND: usize = 1032;

    fn size<'a, F>(
        _: impl Fn(&'a Connection, &'a mut Client<ClientStream>, RequestHead, &'a Guard) -> F,
    ) -> usize {
        size_of::<F>()
    }

    #[test]
    fn the_future_of_a_request_is_small_enough_to_be_made_fast() {
        let size = size(serve);
        assert!(size <= AT_HAND, "it has {size} bytes");
    }
}
