//! One request: route → headers → plugins → backend → plugins → answer.

mod transform;

use super::{
    access::{Entry, Readers},
    answer::{self, Error},
    carrier::Downstream,
    client::Client,
    conn::{Connection, View},
    cut::Cut,
    exchange::{Exchange, Order, Said, is_whole},
    flow::Flow,
    grpc,
    held_body::{self, HeldBody},
    registry::{self, Watch},
    tunnel::{self, Line},
};
use crate::{
    drain::Guard,
    headers::{self, Upgrade, hop_by_hop, hop_by_hop::Options, websocket},
    http1::{
        BodyLength, Decoder, LAST_CHUNK, Malformed, request_body, write_chunk_size, write_request,
        write_status_line,
    },
    ids::{ClientAddr, RequestId},
    io::Buffers,
    message::{Fields, Known, RequestHead, ResponseHead},
    plugins::{self, Facts, LocalResponse, Outcome, Transforms},
    route::{Captures, Question, Table},
    snapshot::{Detour, Fixed, Goal, LocalRoute, LocalTarget, RegistryPlan, Target},
    upstream::{Pool, Protocol},
};
use bytes::Bytes;
use http::{Method, StatusCode, Version};
use std::{future::poll_fn, pin::Pin, rc::Rc, sync::Arc, task::Poll, time::Duration};
use tokio::time::Instant;

/// What this gateway calls itself on the way to a backend, after the version that the client speaks
/// (RFC 9110 §7.6.3).
const VIA: &[u8] = b"1.1 vers-gateway";
const VIA_OLD: &[u8] = b"1.0 vers-gateway";
const VIA_NEW: &[u8] = b"2.0 vers-gateway";

/// How long the gateway's own answer may take to reach a client that no route was found for.
const UNROUTED_IDLE: Duration = Duration::from_secs(30);

/// Bytes of a whole answer that are written together with its head.
const COPIED: usize = 16 * 1024;

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
    Tunnel(Rc<LocalRoute>, tunnel::Upstream, Line),
}

/// Answers a request, whatever becomes of it.
pub(super) async fn serve<I: Downstream>(
    connection: &Connection,
    client: &mut Client<I>,
    head: RequestHead,
    guard: &Guard,
) -> After {
    let mut session = Session::new(connection, guard, &head);
    client.due = None;
    let mut answer = match session.forward(client, head).await {
        Ok(Outgoing::Answer(answer)) => answer,
        Ok(Outgoing::Switching(head, exchange)) => {
            return Box::pin(session.switch(client, head, exchange)).await;
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

/// Answers what is no request.
pub(super) async fn reject<I: Downstream>(
    connection: &Connection,
    client: &mut Client<I>,
    error: Error,
    guard: &Guard,
) -> After {
    let mut session = Session::nameless(connection, guard);
    client.due = None;
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

#[expect(clippy::large_enum_variant, reason = "nearly all answers are of the large kind")]
pub(super) enum Content {
    /// The backend's, as it comes; whether its connection is wanted again, and the plugins that transform it.
    Upstream { exchange: Exchange, length: BodyLength, keep: bool, transforms: Option<Box<Transforms>> },
    /// The gateway's or a plugin's.
    Whole(Bytes),
    /// The registry's changes, as they come.
    Changes(Watch),
}

enum Outgoing {
    Answer(Answer),
    /// The protocol changes after this head, which no plugin sees.
    Switching(ResponseHead, Exchange),
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

    /// The path of a request, from its head to the head of its answer.
    async fn forward<I: Downstream>(
        &mut self,
        client: &mut Client<I>,
        mut head: RequestHead,
    ) -> Result<Outgoing, Error> {
        let view = Rc::clone(&self.view);
        // Until it is known where the body ends, nothing behind it can be a request.
        self.body = BodyLength::UntilClose;
        self.body = request_body(&head).map_err(Error::Malformed)?;
        if client.io.frames() {
            self.body = framed_body(self.body, &head, &client.io);
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
        let authority = headers::authority(&head).map_err(Error::Authority)?;
        if let Some(tokens) = &view.local.shared.tls.tokens
            && let Some(content) = tokens.answer(head.path())
        {
            self.close = true;
            return Ok(Outgoing::Answer(proof(&content)));
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
            self.show_later(&head, &route);
        }
        if self.body.is_told_to_exceed(route.terms.body_limit) {
            return Err(Error::Malformed(Malformed::BodyTooLarge));
        }
        client.due = route.terms.timeouts.total.map(|total| self.began + total);
        let options = hop_by_hop::strip(&mut head.fields);
        self.close |= closes(self.version, &options);
        check_expectation(&mut head)?;
        let opens_tunnel = client.io.opens_tunnel();
        let asked = self.upgrade(&head, options, &route, opens_tunnel)?;
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
        if route.terms.chain.has_filters() {
            let facts = self.facts(&route, client_address, asked.is_some());
            // In a place of its own: most of what a plugin needs while it runs is of no use without one.
            return Box::pin(self.filter(client, &route, facts, head, asked)).await;
        }
        self.deliver(client, (&route, None), (head, None), asked).await
    }

    /// Once it is over, the route's plugins are shown what became of this request.
    #[cold]
    fn show_later(&mut self, head: &RequestHead, route: &Rc<LocalRoute>) {
        let arrival = &self.connection.arrival;
        let readers = Readers {
            worker: Rc::clone(&self.connection.worker),
            route: Rc::downgrade(route),
            peer: arrival.peer,
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

    /// The protocol change that the request asks for, where the route has it. RFC 9110 §7.8: HTTP/1.0
    /// has none. One with a body would have two meanings.
    fn upgrade(
        &self,
        head: &RequestHead,
        options: Options,
        route: &LocalRoute,
        opens_tunnel: bool,
    ) -> Result<Option<Asked>, Error> {
        let is_message = self.version == Version::HTTP_11 && self.body == BodyLength::None;
        let may = is_message || opens_tunnel;
        let upgrade = options.upgrade.filter(|_| may);
        let Some(upgrade) = upgrade.and_then(|upgrade| upgrade.limited_to(&route.route.upgrades)) else {
            return Ok(None);
        };
        let handshake = websocket::handshake(&head.fields);
        if !upgrade.is_to_websocket() {
            return Ok(Some(Asked { upgrade, accept: handshake.ok() }));
        }
        if head.method != Method::GET {
            return Ok(None);
        }
        let accept = handshake.map_err(Error::Handshake)?;
        Ok(Some(Asked { upgrade, accept: Some(accept) }))
    }

    /// Through the route's plugins, to its target, and back through the plugins.
    async fn filter<I: Downstream>(
        &mut self,
        client: &mut Client<I>,
        route: &Rc<LocalRoute>,
        facts: Facts,
        head: RequestHead,
        asked: Option<Asked>,
    ) -> Result<Outgoing, Error> {
        let mut exchange = Box::new(plugins::Exchange::new(facts, head));
        let filtered = self.filter_in(client, route, &mut exchange, asked).await;
        if let Some(entry) = &mut self.entry {
            entry.keep(exchange);
        }
        filtered
    }

    async fn filter_in<I: Downstream>(
        &mut self,
        client: &mut Client<I>,
        route: &Rc<LocalRoute>,
        exchange: &mut Box<plugins::Exchange>,
        asked: Option<Asked>,
    ) -> Result<Outgoing, Error> {
        let (outcome, seen) =
            client.while_waiting(self.buffers(), route.terms.chain.on_request(exchange)).await?;
        let (outcome, body) = match outcome {
            // What is for another protocol has no body.
            Outcome::Next { to, body: Some(most) } if asked.is_none() => {
                let (outcome, body) = self.filter_body(client, route, exchange, most).await?;
                (outcome.or(to), Some(body))
            }
            outcome => (outcome, None),
        };
        let Answer { head, mut content } = match outcome {
            Outcome::Next { to, .. } => {
                let detour = to.and_then(|to| route.terms.detours.get(to.link)?.get(to.backend));
                let head = exchange.request.take().ok_or(Error::NoRoute)?;
                match self.deliver(client, (route, detour), (head, body), asked).await? {
                    Outgoing::Answer(answer) => answer,
                    switching @ Outgoing::Switching(..) => return Ok(switching),
                }
            }
            Outcome::Respond { response, plugin } => {
                drop(body);
                self.answered_by(plugin, &response);
                local(response)
            }
            Outcome::Denied { fault, plugin } => return Err(Error::Plugin { plugin, kind: fault.kind }),
        };
        if !route.terms.chain.has_response_filters() && !route.terms.chain.has_transforms() {
            return Ok(Outgoing::Answer(Answer { head, content }));
        }
        exchange.response = Some(head);
        self.filter_answer(client, route, (exchange, seen), &mut content).await?;
        if route.terms.chain.has_transforms() {
            self.begin_transforms(client, route, exchange, &mut content).await?;
        }
        let head = exchange.response.take().ok_or(Error::NoRoute)?;
        Ok(Outgoing::Answer(Answer { head, content }))
    }

    /// Shows the head of an answer to the plugins that have seen its request.
    async fn filter_answer<I: Downstream>(
        &mut self,
        client: &mut Client<I>,
        route: &LocalRoute,
        (exchange, seen): (&mut Box<plugins::Exchange>, usize),
        content: &mut Content,
    ) -> Result<(), Error> {
        let (buffers, mut replaced) = (self.buffers(), None);
        let filtered = route.terms.chain.on_response(exchange, seen, |exchange, replacement, plugin| {
            self.answered_by(plugin, &replacement);
            let answer = local(replacement);
            (exchange.response, replaced) = (Some(answer.head), Some(answer.content));
        });
        let filtered = match content {
            Content::Upstream { exchange, .. } => exchange.while_waiting(client, buffers, filtered).await?,
            Content::Whole(_) | Content::Changes(_) => client.while_waiting(buffers, filtered).await?,
        };
        filtered.map_err(|(fault, plugin)| Error::Plugin { plugin, kind: fault.kind })?;
        if let Some(replaced) = replaced {
            self.is_not_sent(content);
            *content = replaced;
        }
        Ok(())
    }

    /// Shows the whole body to the plugins that have asked for it.
    async fn filter_body<I: Downstream>(
        &mut self,
        client: &mut Client<I>,
        route: &Rc<LocalRoute>,
        exchange: &mut Box<plugins::Exchange>,
        most: u64,
    ) -> Result<(Outcome, HeldBody), Error> {
        let request = exchange.request.as_mut().ok_or(Error::NoRoute)?;
        let too_large = || Error::Malformed(Malformed::BodyTooLarge);
        let body = self.collect(client, request, most.min(route.terms.body_limit)).await?;
        let mut body = body.ok_or_else(too_large)?;
        // It is said already that it may come, and it has.
        request.fields.remove(Known::Expect);
        let filtered = route.terms.chain.on_request_body(exchange, body.bytes_mut());
        let (outcome, _) = client.while_waiting(self.buffers(), filtered).await?;
        body.settle()?;
        Ok((outcome, body))
    }

    /// Reads the whole body; none where it is too large.
    async fn collect<I: Downstream>(
        &mut self,
        client: &mut Client<I>,
        head: &RequestHead,
        most: u64,
    ) -> Result<Option<HeldBody>, Error> {
        if self.body.is_told_to_exceed(most) {
            return Ok(None);
        }
        if self.body != BodyLength::None && head.fields.has(Known::Expect) {
            self.pass_on(client, ResponseHead::new(StatusCode::CONTINUE, Fields::new())).await?;
        }
        let length = wire_length(self.body, client.io.frames());
        let most = if let BodyLength::Exact(told) = self.body { told } else { most };
        let body = HeldBody::new(&self.connection.worker.room, self.view.local.shared.held_bodies, most);
        let body = held_body::collect(client, length, body, self.idle(), self.buffers()).await?;
        if body.is_some() {
            self.body = BodyLength::None;
        }
        Ok(body)
    }

    /// To the route's target, or where a plugin sends it instead, and the head of its answer back.
    async fn deliver<I: Downstream>(
        &mut self,
        client: &mut Client<I>,
        (route, detour): (&Rc<LocalRoute>, Option<&Detour>),
        (mut head, body): (RequestHead, Option<HeldBody>),
        mut asked: Option<Asked>,
    ) -> Result<Outgoing, Error> {
        let pool = match (detour, &route.terms.target) {
            (Some(detour), _) => Rc::clone(&detour.pool),
            (None, LocalTarget::Registry(plan)) => {
                return Box::pin(self.consult(client, route, plan, (&head, body)))
                    .await
                    .map(Outgoing::Answer);
            }
            (None, _) => match self.pool(client, route).await? {
                Some(pool) => pool,
                None => return Ok(Outgoing::Answer(fixed(route))),
            },
        };
        let over_http2 = self.goes_over_http2(pool.backend().settings.protocol);
        // What is spoken there has no Upgrade, and a request may be taken without one.
        if over_http2 && asked.take().is_some() && client.io.opens_tunnel() {
            return Err(Error::Connect);
        }
        let sticky = detour.map_or(&route.terms.sticky, |detour| &detour.sticky);
        let key = sticky.as_ref().and_then(|sticky| sticky.key(&head.fields));
        let upload = match body {
            Some(body) => self.compose_whole(&mut head, body, over_http2),
            None => self.compose(&mut head, asked.as_ref(), client, route.terms.body_limit, over_http2)?,
        };
        let timeouts = &route.terms.timeouts;
        let order = Order {
            pool: &pool,
            head: &head,
            over_http2,
            heads: self.view.local.shared.heads,
            connect: timeouts.connect,
            response: timeouts.response,
            idle: timeouts.idle,
            attempts: route.terms.attempts,
            budget: &route.budget,
            key,
            client: self.connection.arrival.ends,
            buffers: self.buffers(),
        };
        // From here on the backend takes the body. Should the exchange fail, nobody knows how much of
        // it is left in front of the next request.
        if self.body != BodyLength::None {
            self.body = BodyLength::UntilClose;
        }
        let began = Exchange::begin(client, &order, upload).await;
        let began =
            began.map_err(|error| if detour.is_some() { error } else { self.explained(route, error) });
        let (mut exchange, mut said) = began.inspect_err(|error| self.failed(error))?;
        loop {
            match said {
                Said::Interim(head) => {
                    exchange.while_passing(&order, self.pass_on(client, head)).await?;
                    said = exchange.next(client, &order).await.inspect_err(|error| self.failed(error))?;
                }
                Said::Answer(head, length) => {
                    exchange.answered();
                    return Ok(answer_of(head, length, exchange));
                }
                Said::Switching(head) => return switching(head, exchange, asked.as_ref()),
            }
        }
    }

    fn goes_over_http2(&self, protocol: Protocol) -> bool {
        match protocol {
            Protocol::Http1 => false,
            Protocol::Auto => self.is_grpc,
            Protocol::H2c => true,
        }
    }

    /// Connections to where the route leads; none where it answers itself.
    async fn pool<I: Downstream>(
        &self,
        client: &mut Client<I>,
        route: &LocalRoute,
    ) -> Result<Option<Rc<Pool>>, Error> {
        let goal = match &route.terms.target {
            LocalTarget::Pool(pool) => return Ok(Some(Rc::clone(pool))),
            LocalTarget::Registry(_) | LocalTarget::Respond => return Ok(None),
            LocalTarget::Asked(goal) => goal,
        };
        let finding = goal.pool(&self.connection.arrival, |name| self.captures.get(name));
        let found = client.while_waiting(self.buffers(), finding).await?;
        found.map(Some).inspect_err(|error| self.failed(error))
    }

    /// To the registry: reads the body, asks, and waits until what was asked for is kept.
    async fn consult<I: Downstream>(
        &mut self,
        client: &mut Client<I>,
        route: &LocalRoute,
        plan: &RegistryPlan,
        (head, body): (&RequestHead, Option<HeldBody>),
    ) -> Result<Answer, Error> {
        let body = match body {
            Some(body) => Some(body),
            None => self.collect(client, head, route.terms.body_limit.min(registry::BODY)).await?,
        };
        let Some(body) = body else { return Ok(registry::too_large()) };
        let body = body.bytes();
        if let Some(entry) = &mut self.entry {
            entry.uploaded = body.len() as u64;
        }
        let asking = registry::ask(plan, (head, body), self.client_address.ip(), self.guard.another());
        client.while_waiting(self.buffers(), asking).await
    }

    /// What an error is to whoever runs what the route leads to.
    fn explained(&self, route: &LocalRoute, error: Error) -> Error {
        match &route.terms.target {
            LocalTarget::Asked(goal) => goal.explain(error, &self.connection.arrival),
            LocalTarget::Pool(_) | LocalTarget::Registry(_) | LocalTarget::Respond => error,
        }
    }

    /// The request as the backend gets it, with a body that is there.
    fn compose_whole(&self, head: &mut RequestHead, body: HeldBody, over_http2: bool) -> Flow {
        let is_told = head.fields.has(Known::ContentLength);
        let takes_one = matches!(head.method, Method::POST | Method::PUT | Method::PATCH);
        head.fields.remove(Known::ContentLength);
        let length = body.bytes().len();
        if is_told || takes_one || length > 0 {
            head.fields.append_known(Known::ContentLength, itoa::Buffer::new().format(length).as_bytes());
        }
        Flow::whole(self.compose_head(head, over_http2), body)
    }

    fn compose_head(&self, head: &mut RequestHead, over_http2: bool) -> Vec<u8> {
        let via = match self.version {
            Version::HTTP_10 => VIA_OLD,
            Version::HTTP_2 => VIA_NEW,
            _ => VIA,
        };
        head.fields.append_known(Known::Via, via);
        let mut text = self.buffers().text();
        if !over_http2 {
            write_request(head, &mut text);
            text.extend_from_slice(b"\r\n");
        }
        text
    }

    /// The request as the backend gets it, with what has come of its body.
    fn compose<I: Downstream>(
        &self,
        head: &mut RequestHead,
        asked: Option<&Asked>,
        client: &mut Client<I>,
        limit: u64,
        over_http2: bool,
    ) -> Result<Flow, Error> {
        // Whatever told it that there is none: a backend must not wait for one.
        if self.body == BodyLength::None
            && head.fields.get(Known::ContentLength).is_some_and(|told| told != b"0")
        {
            return Err(Error::Malformed(Malformed::ContentLength));
        }
        let chunked = self.body == BodyLength::Chunked && !over_http2;
        if chunked {
            head.fields.append_known(Known::TransferEncoding, b"chunked");
        }
        if let Some(asked) = asked {
            asked.upgrade.restore(&mut head.fields);
        }
        let text = self.compose_head(head, over_http2);
        let length = wire_length(self.body, client.io.frames());
        let mut upload = Flow::new(text, Decoder::limited(length, limit), chunked);
        let is_whole = client.take_along(self.buffers()).map_err(Error::Malformed)?;
        upload.load(&mut client.inbox).map_err(Error::Malformed)?;
        if is_whole && length != BodyLength::None {
            upload.end_of_input(&mut client.io).map_err(Error::Malformed)?;
        }
        Ok(upload)
    }

    /// An answer before the answer goes on as it is (RFC 9110 §15.2), to who can take it.
    async fn pass_on<I: Downstream>(
        &self,
        client: &mut Client<I>,
        mut head: ResponseHead,
    ) -> Result<(), Error> {
        if self.version == Version::HTTP_10 {
            return Ok(());
        }
        hop_by_hop::strip(&mut head.fields);
        head.fields.remove(Known::ContentLength);
        if client.io.frames() {
            return client.io.send_interim(&head).map_err(|_| Error::ClientGone);
        }
        let mut text = self.buffers().text();
        write_status_line(head.status, &mut text);
        head.fields.write(&mut text);
        text.extend_from_slice(b"\r\n");
        let sent = self.write_all(client, &text).await;
        self.buffers().put_text(text);
        sent
    }

    /// Writes all of it, or gives the client up: one that takes nothing for too long, and one whose
    /// request's time is over.
    async fn write_all<I: Downstream>(&self, client: &mut Client<I>, text: &[u8]) -> Result<(), Error> {
        let (idle, mut since) = (self.idle(), None);
        let mut left = text;
        let cut = poll_fn(|cx| {
            loop {
                let polled = match left {
                    [] => Pin::new(&mut client.io).poll_flush(cx).map_ok(|()| 0),
                    _ => Pin::new(&mut client.io).poll_write(cx, left),
                };
                match polled {
                    Poll::Ready(Ok(_)) if left.is_empty() => return Poll::Ready(Ok(())),
                    Poll::Ready(Ok(written @ 1..)) => {
                        left = left.get(written..).unwrap_or_default();
                        since = None;
                    }
                    Poll::Ready(_) => return Poll::Ready(Err(None)),
                    Poll::Pending => break,
                }
            }
            if client.poll_overdue(cx).is_ready() {
                return Poll::Ready(Err(Some(Cut::Total)));
            }
            let since = *since.get_or_insert_with(Instant::now);
            client.timer.poll(cx, since + idle).map(|()| Err(Some(Cut::Idle)))
        })
        .await;
        cut.map_err(|cut| {
            if let Some(cut) = cut {
                self.connection.worker.count_cut(cut);
            }
            Error::ClientGone
        })
    }

    /// Sends the answer, and says what becomes of the connection.
    async fn send<I: Downstream>(&mut self, client: &mut Client<I>, answer: &mut Answer) -> After {
        if let Content::Upstream { transforms: Some(_), .. } = &answer.content {
            // In a place of its own: most answers have none.
            return Box::pin(self.send_transformed(client, answer)).await;
        }
        if let Content::Upstream { exchange, length, .. } = &mut answer.content {
            let framed = self.frame(&mut answer.head, *length, exchange.is_sent(), client.io.frames());
            let chunked = framed == Framed::Chunked;
            let head = match framed {
                // It is told as soon as it is certain.
                Framed::Apart { .. } => self.buffers().text(),
                _ => self.answer_head(&answer.head, framed),
            };
            let decoder = Decoder::new(wire_length(*length, exchange.frames()));
            let mut flow = Flow::new(head, decoder, chunked);
            match flow.load(exchange.inbox()) {
                Ok(()) => return self.send_upstream(client, answer, flow, framed).await,
                Err(error) => *answer = self.refuse(&Error::BadAnswer(error)),
            }
        }
        let Answer { head, content } = answer;
        match content {
            Content::Whole(body) => self.send_whole(client, head, body).await,
            Content::Changes(_) if self.is_head => self.send_whole(client, head, &[]).await,
            Content::Changes(watch) => Box::pin(self.send_changes(client, head, watch)).await,
            Content::Upstream { .. } => After::Close,
        }
    }

    /// Sends the backend's answer as it comes.
    async fn send_upstream<I: Downstream>(
        &mut self,
        client: &mut Client<I>,
        answer: &mut Answer,
        mut flow: Flow,
        framed: Framed,
    ) -> After {
        let Content::Upstream { exchange, .. } = &mut answer.content else { return After::Close };
        self.count(answer.head.status);
        if let Framed::Apart { is_last } = framed
            && self.tell(client, &mut answer.head, is_last).is_err()
        {
            return After::Close;
        }
        let idle = self.idle();
        let sent = exchange.transfer(client, &mut flow, idle, self.buffers()).await;
        if let Some(entry) = &mut self.entry {
            entry.sent = flow.body();
            entry.uploaded += exchange.uploaded();
            entry.broke_off = sent.is_err();
        }
        match sent {
            Ok(()) => {
                let content = std::mem::replace(&mut answer.content, Content::Whole(Bytes::new()));
                let Content::Upstream { mut exchange, keep, .. } = content else { return After::Close };
                self.buffers().put_text(flow.finish(exchange.inbox(), self.buffers()));
                let can_go_on = exchange.finish(&mut client.inbox, keep, self.buffers());
                match (self.close, can_go_on) {
                    (false, true) => After::Next,
                    (true, true) => After::Close,
                    (_, false) => After::Linger,
                }
            }
            Err(error) => {
                tracing::debug!(request_id = %self.id, ?error, "an answer broke off");
                if let Some(cut) = error.cut() {
                    self.connection.worker.count_cut(cut);
                }
                if framed == Framed::UntilClose { After::Reset } else { After::BreakOff }
            }
        }
    }

    /// Sends an answer that is there as a whole.
    async fn send_whole<I: Downstream>(
        &mut self,
        client: &mut Client<I>,
        head: &mut ResponseHead,
        body: &[u8],
    ) -> After {
        // An answer that was given without looking at the body.
        let is_read = client.io.frames() || is_whole(self.body, &mut client.inbox, self.buffers());
        self.close |= !is_read;
        head.fields.remove(Known::ContentLength);
        let has_body = !matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        if has_body && self.counted.is_none() {
            head.fields.append_known(Known::ContentLength, itoa::Buffer::new().format(body.len()).as_bytes());
        }
        self.count(head.status);
        let sent = if has_body && !self.is_head { body } else { &[] };
        let written = if client.io.frames() {
            let told = self.tell(client, head, sent.is_empty());
            client.io.ends_after(sent.len());
            match told {
                Ok(()) => self.write_all(client, sent).await,
                Err(error) => Err(error),
            }
        } else {
            let mut text = self.answer_head(head, Framed::AsIs);
            // What is large may be the same for many clients: each would have a copy.
            let (beside, apart) = if sent.len() > COPIED { (&[][..], sent) } else { (sent, &[][..]) };
            text.extend_from_slice(beside);
            let mut written = self.write_all(client, &text).await;
            self.buffers().put_text(text);
            if written.is_ok() && !apart.is_empty() {
                written = self.write_all(client, apart).await;
            }
            written
        };
        if let Some(entry) = &mut self.entry {
            entry.sent = sent.len() as u64;
            entry.broke_off = written.is_err();
        }
        match (written, self.close) {
            (Err(_), _) => After::BreakOff,
            (Ok(()), false) => After::Next,
            (Ok(()), true) if is_read => After::Close,
            (Ok(()), true) => After::Linger,
        }
    }

    /// Sends the registry's changes as they come, until the client leaves or the listener does.
    async fn send_changes<I: Downstream>(
        &mut self,
        client: &mut Client<I>,
        head: &mut ResponseHead,
        watch: &mut Watch,
    ) -> After {
        let framed = self.frame(head, BodyLength::Chunked, true, client.io.frames());
        self.count(head.status);
        let begun = match framed {
            Framed::Apart { .. } => self.tell(client, head, false),
            _ => {
                let text = self.answer_head(head, framed);
                let written = self.write_all(client, &text).await;
                self.buffers().put_text(text);
                written
            }
        };
        let mut guard = self.guard.another();
        let mut text = self.buffers().text();
        let sent = match begun {
            Ok(()) => loop {
                let waiting = client.while_waiting(self.buffers(), watch.next(&mut guard));
                let events = match waiting.await {
                    Ok(Some(events)) => events,
                    Ok(None) => break Ok(()),
                    Err(error) => break Err(error),
                };
                text.clear();
                if framed == Framed::Chunked {
                    write_chunk_size(events.len(), &mut text);
                }
                text.extend_from_slice(&events);
                if framed == Framed::Chunked {
                    text.extend_from_slice(b"\r\n");
                }
                if let Some(entry) = &mut self.entry {
                    entry.sent += events.len() as u64;
                }
                if let Err(error) = self.write_all(client, &text).await {
                    break Err(error);
                }
            },
            Err(error) => Err(error),
        };
        let sent = match (sent, framed) {
            (Ok(()), Framed::Chunked) => self.write_all(client, LAST_CHUNK).await,
            (Ok(()), Framed::Apart { .. }) => client.io.end(None).map_err(|_| Error::ClientGone),
            (sent, _) => sent,
        };
        if let Some(entry) = &mut self.entry {
            entry.broke_off = sent.is_err();
        }
        self.buffers().put_text(text);
        match sent {
            // It ends where the listener goes: nothing comes after it.
            Ok(()) => After::Close,
            Err(_) if framed == Framed::UntilClose => After::Reset,
            Err(_) => After::BreakOff,
        }
    }

    /// Opens the tunnel that follows a 101. Only now, with the backend's agreement in hand, may bytes
    /// that are not HTTP flow.
    async fn switch<I: Downstream>(
        &mut self,
        client: &mut Client<I>,
        mut head: ResponseHead,
        exchange: Exchange,
    ) -> After {
        self.count(head.status);
        let written = if client.io.frames() {
            // RFC 8441 §5: what HTTP/2 has no need of, and 200 for 101.
            hop_by_hop::strip(&mut head.fields);
            head.fields.remove(Known::SecWebSocketAccept);
            head.status = StatusCode::OK;
            self.tell(client, &mut head, false)
        } else {
            let mut text = self.buffers().text();
            write_status_line(head.status, &mut text);
            head.fields.write(&mut text);
            text.extend_from_slice(b"\r\n");
            let written = self.write_all(client, &text).await;
            self.buffers().put_text(text);
            written
        };
        let (Ok(()), Some(route)) = (written, self.route.take()) else { return After::Close };
        let Some((side, _seat)) = exchange.into_tunnel(&mut client.inbox, self.buffers()) else {
            return After::Close;
        };
        After::Tunnel(route, tunnel::Upstream { side, _seat }, Line::Request(self.entry.take()))
    }

    /// Decides how the client sees the end of the body, and says so in the head.
    fn frame(
        &mut self,
        head: &mut ResponseHead,
        length: BodyLength,
        is_sent: bool,
        is_apart: bool,
    ) -> Framed {
        // The rest of the request may never be read.
        self.close |= !is_sent;
        match length {
            _ if is_apart => {
                if head.status == StatusCode::NO_CONTENT {
                    head.fields.remove(Known::ContentLength);
                }
                Framed::Apart { is_last: length == BodyLength::None }
            }
            BodyLength::None => {
                let keeps = self.is_head || head.status == StatusCode::NOT_MODIFIED;
                if head.status == StatusCode::NO_CONTENT {
                    head.fields.remove(Known::ContentLength);
                } else if !keeps && !head.fields.has(Known::ContentLength) {
                    head.fields.append_known(Known::ContentLength, b"0");
                }
                Framed::AsIs
            }
            BodyLength::Exact(_) => Framed::AsIs,
            BodyLength::Chunked | BodyLength::UntilClose if self.version == Version::HTTP_11 => {
                Framed::Chunked
            }
            BodyLength::Chunked | BodyLength::UntilClose => {
                self.close = true;
                Framed::UntilClose
            }
        }
    }

    /// Tells the head of an answer to a client whose answers are framed apart from their bytes.
    fn tell<I: Downstream>(
        &self,
        client: &mut Client<I>,
        head: &mut ResponseHead,
        is_last: bool,
    ) -> Result<(), Error> {
        if head.fields.get_named(b"date").is_none() {
            self.connection.worker.date.add(&mut head.fields);
        }
        client.io.send_head(head, is_last).map_err(|_| Error::ClientGone)
    }

    /// The head of an answer, up to its empty line and with it.
    fn answer_head(&mut self, head: &ResponseHead, framed: Framed) -> Vec<u8> {
        self.close |= self.guard.is_draining();
        let mut text = self.buffers().text();
        write_status_line(head.status, &mut text);
        head.fields.write(&mut text);
        if head.fields.get_named(b"date").is_none() {
            // RFC 9110 §6.6.1: a recipient with a clock adds it.
            self.connection.worker.date.write(&mut text);
        }
        if framed == Framed::Chunked {
            text.extend_from_slice(b"transfer-encoding: chunked\r\n");
        }
        if self.close {
            text.extend_from_slice(b"connection: close\r\n");
        } else if self.version == Version::HTTP_10 {
            text.extend_from_slice(b"connection: keep-alive\r\n");
        }
        text.extend_from_slice(b"\r\n");
        text
    }

    fn facts(&self, route: &LocalRoute, client: ClientAddr, is_upgrade: bool) -> Facts {
        Facts {
            id: self.id,
            route: Arc::clone(&route.name),
            client,
            peer: self.connection.arrival.peer,
            local_port: self.connection.arrival.port,
            captures: self.captures.iter().map(|(name, text)| (name.into(), text.into())).collect(),
            is_upgrade,
        }
    }

    fn answered_by(&mut self, plugin: String, response: &LocalResponse) {
        if let Some(entry) = &mut self.entry {
            entry.answered_by = Some((plugin, response.reason.clone()));
        }
    }

    /// Notes what a backend was sent whose answer nobody gets.
    fn is_not_sent(&mut self, content: &Content) {
        if let (Content::Upstream { exchange, .. }, Some(entry)) = (content, &mut self.entry) {
            entry.uploaded += exchange.uploaded();
        }
    }

    /// Says for the operator what went wrong with a backend.
    fn failed(&self, error: &Error) {
        if let (Some(route), true) = (&self.route, error.is_of_backend()) {
            tracing::warn!(route = &*route.name, request_id = %self.id, "{error}");
        }
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

/// The backend's answer, whose body is still to come.
fn answer_of(mut head: ResponseHead, length: BodyLength, exchange: Exchange) -> Outgoing {
    let options = hop_by_hop::strip(&mut head.fields);
    // A 204 that tells a length may send it, too, later on.
    let told = head.fields.get(Known::ContentLength).is_some_and(|told| told != b"0");
    let may_go_on = head.status == StatusCode::NO_CONTENT && told;
    let keep = length != BodyLength::UntilClose && !may_go_on && !closes(head.version, &options);
    let content = Content::Upstream { exchange, length, keep, transforms: None };
    Outgoing::Answer(Answer { head, content })
}

/// A backend's 101, where it is the answer to what was asked.
fn switching(mut head: ResponseHead, exchange: Exchange, asked: Option<&Asked>) -> Result<Outgoing, Error> {
    let agreed = hop_by_hop::strip(&mut head.fields).upgrade;
    let (Some(asked), Some(agreed)) = (asked, agreed) else { return Err(Error::WrongUpgrade) };
    // Before the whole request is there, nobody can have agreed to it.
    if !exchange.is_sent() || !asked.is_answered_by(&agreed, &head.fields) {
        return Err(Error::WrongUpgrade);
    }
    head.fields.remove(Known::ContentLength);
    agreed.restore(&mut head.fields);
    Ok(Outgoing::Switching(head, exchange))
}

/// How a client sees the end of an answer's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framed {
    /// As the backend's head says.
    AsIs,
    Chunked,
    /// By the end of the connection: to HTTP/1.0.
    UntilClose,
    /// By what carries it: of HTTP/2. Whether the head is all of it.
    Apart {
        is_last: bool,
    },
}

/// How the body of a request over HTTP/2 ends: where its head does not end it and tells no length, its
/// stream does.
fn framed_body(told: BodyLength, head: &RequestHead, stream: &impl Downstream) -> BodyLength {
    let is_open = !stream.opens_tunnel() && !stream.is_at_end();
    match told {
        _ if !is_open => BodyLength::None,
        BodyLength::None if !head.fields.has(Known::ContentLength) => BodyLength::Chunked,
        told => told,
    }
}

/// How a body ends for who reads it: where it is framed apart from its bytes, with them.
fn wire_length(length: BodyLength, is_apart: bool) -> BodyLength {
    match length {
        BodyLength::Exact(_) | BodyLength::Chunked if is_apart => BodyLength::UntilClose,
        length => length,
    }
}

/// A protocol change that was asked for.
struct Asked {
    upgrade: Upgrade,
    /// What a WebSocket server must answer.
    accept: Option<websocket::Accept>,
}

impl Asked {
    fn is_answered_by(&self, agreed: &Upgrade, fields: &Fields) -> bool {
        let is_handshake =
            !agreed.names_websocket() || self.accept.is_some_and(|accept| accept.is_in(fields));
        self.upgrade.allows(agreed) && is_handshake
    }
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

fn is_to_vm(route: &Rc<LocalRoute>) -> bool {
    matches!(route.terms.target, LocalTarget::Asked(Goal::Vm { .. }))
}

/// Hosts are short, and each request needs its own beyond its head.
fn connection_host(authority: &str) -> smallvec::SmallVec<[u8; 64]> {
    smallvec::SmallVec::from_slice(authority.as_bytes())
}

/// A plugin's own answer.
fn local(response: LocalResponse) -> Answer {
    let head = ResponseHead::new(response.status, response.fields);
    Answer { head, content: Content::Whole(response.body) }
}

/// What shows an authority that a name is ours (RFC 8555 §8.3), whatever the routes say.
fn proof(content: &str) -> Answer {
    let mut fields = Fields::new();
    fields.append(b"content-type", b"application/octet-stream");
    let body = Bytes::copy_from_slice(content.as_bytes());
    Answer { head: ResponseHead::new(StatusCode::OK, fields), content: Content::Whole(body) }
}

/// The answer that a route always gives.
fn fixed(route: &LocalRoute) -> Answer {
    let Target::Respond(Fixed { status, fields, body }) = &route.route.target else {
        // Routes with a backend have a pool; the builder of the snapshot sees to that.
        let (head, body) = answer::answer(&Error::NoRoute);
        return Answer { head, content: Content::Whole(body) };
    };
    Answer { head: ResponseHead::new(*status, fields.clone()), content: Content::Whole(body.clone()) }
}
