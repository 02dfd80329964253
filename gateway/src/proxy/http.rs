//! One request: route → headers → plugins → backend → plugins → answer.

use super::{
    access::Entry,
    answer::{self, Error},
    body::{Body, Content},
    conn::{Connection, View},
    deadlines::Deadlines,
    tunnel::Tunnel,
};
use crate::{
    headers::{self, Upgrade, hop_by_hop},
    ids::{ClientAddr, RequestId},
    plugins::{Exchange, Facts, LocalResponse, Outcome},
    relay::Side,
    route::{Captures, Question},
    snapshot::{Fixed, LocalRoute, LocalTarget, Mode, Target},
    upstream::{Pool, Reply, RequestBody, Upgraded},
};
use http::{HeaderValue, Method, Request, Response, Uri, Version, header, request};
use hyper::body::{Body as _, Incoming};
use std::{future::poll_fn, pin::pin, rc::Rc, sync::Arc, task::Poll, time::Duration};
use tokio::time::Instant;

/// What this gateway calls itself on the way to a backend (RFC 9110 §7.6.3).
const VIA: HeaderValue = HeaderValue::from_static("1.1 vers-gateway");

/// How long the gateway's own answer may take to reach a client that no route was found for.
const UNROUTED_IDLE: Duration = Duration::from_secs(30);

/// Answers a request, whatever becomes of it.
pub(super) async fn respond(
    connection: &Connection,
    deadlines: Rc<Deadlines>,
    request: Request<Incoming>,
) -> Response<Body> {
    let mut session = Session::new(connection, &deadlines, &request);
    let has_body = !request.body().is_end_stream();
    let answered = session.forward(request).await;
    let response = answered.unwrap_or_else(|error| session.refuse(&error));
    // An answer that is not the backend's was given without looking at the body.
    connection.unread.set(has_body && matches!(response.body(), Content::Whole(_)));
    session.finish(response)
}

/// One request while it is served.
struct Session<'a> {
    connection: &'a Connection,
    deadlines: &'a Rc<Deadlines>,
    /// What it runs on, whatever is reloaded meanwhile.
    view: Rc<View>,
    id: RequestId,
    began: Instant,
    /// The matched route, once there is one.
    route: Option<Rc<LocalRoute>>,
    /// The line in the access log, where that is on.
    entry: Option<Box<Entry>>,
}

/// What a route's target said.
enum Delivered {
    Answer(Response<Content>),
    /// The protocol changes after this answer, which no plugin sees.
    Upgraded(Response<Content>),
}

impl<'a> Session<'a> {
    fn new(connection: &'a Connection, deadlines: &'a Rc<Deadlines>, request: &Request<Incoming>) -> Self {
        let (id, began) = (connection.worker.ids.next(), Instant::now());
        let view = connection.view();
        let entry = view.local.shared.log.access.then(|| {
            let host =
                request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
            Box::new(Entry::new(
                id,
                connection.peer,
                request.method().clone(),
                request.uri().clone(),
                host,
                began,
            ))
        });
        Self { connection, deadlines, view, id, began, route: None, entry }
    }

    /// The path of a request, from its head to the head of its answer.
    async fn forward(&mut self, request: Request<Incoming>) -> Result<Response<Content>, Error> {
        let (mut head, body) = request.into_parts();
        let view = Rc::clone(&self.view);
        let Mode::Http(table) = &view.listener.mode else { return Err(Error::NoRoute) };
        if head.method == Method::CONNECT {
            return Err(Error::Connect);
        }
        if !head.uri.path().starts_with('/') && head.uri.path() != "*" {
            return Err(Error::Target);
        }
        if hop_by_hop::has_other_coding(&head.headers) {
            return Err(Error::Coding);
        }
        let authority = headers::authority(&head.uri, &head.headers).map_err(Error::Authority)?;
        let question = Question {
            host: &authority.host,
            path: head.uri.path(),
            method: &head.method,
            headers: &head.headers,
        };
        let found = table.lookup(question).ok_or(Error::NoRoute)?;
        let host = match head.headers.get(header::HOST) {
            Some(host) => host.clone(),
            None => HeaderValue::from_str(authority.full)
                .map_err(|_| Error::Authority(headers::AuthorityError::Malformed))?,
        };
        let route = Rc::clone(view.local.routes.get(found.route).ok_or(Error::NoRoute)?);
        self.deadlines.await_answer(route.route.timeouts.response);
        self.route = Some(Rc::clone(&route));

        // RFC 9110 §7.8: HTTP/1.0 has no upgrades. One with a body would have two meanings.
        let may_upgrade = head.version == Version::HTTP_11 && body.is_end_stream();
        let upgrade = hop_by_hop::strip(&mut head.headers).filter(|_| may_upgrade);
        let client = view.forwarding.apply(&mut head.headers, &host, &view.listener.trusted_proxies);
        if let Some(entry) = &mut self.entry {
            entry.client = client;
        }
        if head.uri.scheme().is_some() {
            to_origin_form(&mut head, &host);
        }
        if route.chain.has_filters() {
            let facts = self.facts(&route, client, &found.captures, &host, upgrade.is_some());
            return self.filter(&route, facts, head, body, upgrade).await;
        }
        match self.deliver(&route, head, body, upgrade).await? {
            Delivered::Answer(response) | Delivered::Upgraded(response) => Ok(response),
        }
    }

    /// Through the route's plugins, to its target, and back through the plugins.
    async fn filter(
        &mut self,
        route: &Rc<LocalRoute>,
        facts: Facts,
        head: request::Parts,
        body: Incoming,
        upgrade: Option<Upgrade>,
    ) -> Result<Response<Content>, Error> {
        let mut exchange = Box::new(Exchange::new(facts, head));
        let (outcome, seen) = route.chain.on_request(&mut exchange).await;
        let response = match outcome {
            Outcome::Next => {
                let head = exchange.request.take().ok_or(Error::NoRoute)?;
                match self.deliver(route, head, body, upgrade).await? {
                    Delivered::Answer(response) => response,
                    Delivered::Upgraded(response) => return Ok(response),
                }
            }
            Outcome::Respond { response, plugin } => {
                self.answered_by(plugin, &response);
                local(response)
            }
            Outcome::Denied { fault, plugin } => return Err(Error::Plugin { plugin, kind: fault.kind }),
        };
        if !route.chain.has_response_filters() {
            return Ok(response);
        }
        let (head, mut content) = response.into_parts();
        exchange.response = Some(head);
        let filtered = route.chain.on_response(&mut exchange, seen, |exchange, replacement, plugin| {
            self.answered_by(plugin, &replacement);
            let (head, whole) = local(replacement).into_parts();
            (exchange.response, content) = (Some(head), whole);
        });
        filtered.await.map_err(|(fault, plugin)| Error::Plugin { plugin, kind: fault.kind })?;
        let mut response = Response::new(content);
        if let Some(head) = exchange.response.take() {
            (*response.status_mut(), *response.headers_mut(), *response.extensions_mut()) =
                (head.status, head.headers, head.extensions);
        }
        Ok(response)
    }

    /// To the route's target, and the head of its answer back.
    async fn deliver(
        &mut self,
        route: &Rc<LocalRoute>,
        mut head: request::Parts,
        body: Incoming,
        upgrade: Option<Upgrade>,
    ) -> Result<Delivered, Error> {
        let pool = match &route.target {
            LocalTarget::Pool(pool) => pool,
            LocalTarget::Respond => return Ok(Delivered::Answer(fixed(route))),
        };
        let body = RequestBody::new(body);
        if body.is_chunked() {
            // Without it, hyper takes a body of unknown length for none where the method is GET.
            head.headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        if let Some(upgrade) = &upgrade {
            upgrade.restore(&mut head.headers);
        }
        head.headers.append(header::VIA, VIA);
        head.version = Version::HTTP_11;
        head.extensions.clear();
        let request = Request::from_parts(head, body);
        match self.send(pool, request, route.route.timeouts.connect).await? {
            Reply::Response(response) => {
                let (mut head, body) = response.into_parts();
                if hop_by_hop::has_other_coding(&head.headers) {
                    return Err(Error::AnswerCoding);
                }
                hop_by_hop::strip(&mut head.headers);
                head.version = Version::HTTP_11;
                Ok(Delivered::Answer(Response::from_parts(head, Content::Upstream(body))))
            }
            Reply::Upgraded(response, upgraded) => {
                let upgrade = upgrade.ok_or(Error::WrongUpgrade)?;
                self.upgrade(route, response, upgraded, &upgrade).map(Delivered::Upgraded)
            }
        }
    }

    /// Sends the request, and stops waiting when the answer is late.
    async fn send(
        &self,
        pool: &Rc<Pool>,
        request: Request<RequestBody>,
        connect: Duration,
    ) -> Result<Reply, Error> {
        let mut sent = pin!(pool.send(request, connect));
        poll_fn(|cx| match sent.as_mut().poll(cx) {
            Poll::Ready(reply) => Poll::Ready(reply.map_err(Error::Upstream)),
            Poll::Pending => self.deadlines.poll_answer_late().map(|()| Err(Error::ResponseTimeout)),
        })
        .await
        .inspect_err(|error| {
            if let Some(route) = &self.route {
                tracing::warn!(route = &*route.name, request_id = %self.id, "{error}");
            }
        })
    }

    /// Keeps the backend's socket for the tunnel that follows this answer. Only now, with the 101 in
    /// hand, may bytes that are not HTTP flow.
    fn upgrade(
        &mut self,
        route: &Rc<LocalRoute>,
        response: Response<()>,
        upgraded: Upgraded,
        asked: &Upgrade,
    ) -> Result<Response<Content>, Error> {
        let (mut head, ()) = response.into_parts();
        let agreed = hop_by_hop::strip(&mut head.headers).ok_or(Error::WrongUpgrade)?;
        if !asked.allows(&agreed) {
            return Err(Error::WrongUpgrade);
        }
        agreed.restore(&mut head.headers);
        head.version = Version::HTTP_11;
        let mut entry = self.entry.take();
        if let Some(entry) = &mut entry {
            entry.status = Some(head.status);
            entry.route = Some(Arc::clone(&route.name));
        }
        let upstream = Side { io: upgraded.io, early: upgraded.read };
        let tunnel = Tunnel::new(upstream, route, entry);
        self.connection.tunnel.replace(Some(tunnel));
        Ok(Response::from_parts(head, Content::Whole(None)))
    }

    fn facts(
        &self,
        route: &LocalRoute,
        client: ClientAddr,
        captures: &Captures,
        authority: &HeaderValue,
        is_upgrade: bool,
    ) -> Facts {
        Facts {
            id: self.id,
            route: Arc::clone(&route.name),
            client,
            peer: self.connection.peer,
            local_port: self.connection.port,
            captures: captures.iter().map(|(name, text)| (name.into(), text.into())).collect(),
            authority: authority.clone(),
            is_upgrade,
        }
    }

    fn answered_by(&mut self, plugin: String, response: &LocalResponse) {
        if let Some(entry) = &mut self.entry {
            entry.answered_by = Some((plugin, response.reason.clone()));
        }
    }

    /// The answer to a request that cannot be served.
    fn refuse(&mut self, error: &Error) -> Response<Content> {
        let code = error.code();
        self.connection.worker.count_error(code);
        if let Some(entry) = &mut self.entry {
            entry.error = Some(code);
        }
        tracing::debug!(request_id = %self.id, %error, "answered by the gateway");
        answer::answer(code)
    }

    /// Counts the answer, and lets it go.
    fn finish(mut self, response: Response<Content>) -> Response<Body> {
        let status = response.status();
        let mut idle = UNROUTED_IDLE;
        if let Some(route) = &self.route {
            route.metrics.answered(status);
            route.metrics.duration.record(self.began.elapsed());
            idle = route.route.timeouts.idle;
        }
        if let Some(entry) = &mut self.entry {
            entry.status = Some(status);
            entry.route = self.route.as_ref().map(|route| Arc::clone(&route.name));
        }
        self.deadlines.await_body(idle);
        let (deadlines, entry) = (Rc::clone(self.deadlines), self.entry.take());
        response.map(|content| Body::new(content, deadlines, entry))
    }
}

/// An absolute-form target becomes origin-form, and its authority the Host (RFC 9112 §3.2.2).
fn to_origin_form(head: &mut request::Parts, host: &HeaderValue) {
    let target = head.uri.path_and_query().cloned();
    head.uri = target.map_or(Uri::from_static("/"), Uri::from);
    head.headers.insert(header::HOST, host.clone());
}

/// A plugin's own answer.
fn local(response: LocalResponse) -> Response<Content> {
    let mut answer = Response::new(Content::Whole(Some(response.body)));
    *answer.status_mut() = response.status;
    *answer.headers_mut() = response.headers;
    answer
}

/// The answer that a route always gives.
fn fixed(route: &LocalRoute) -> Response<Content> {
    let Target::Respond(Fixed { status, headers, body }) = &route.route.target else {
        // Routes with a backend have a pool; the builder of the snapshot sees to that.
        return answer::answer(answer::ErrorCode::NoRoute);
    };
    let mut answer = Response::new(Content::Whole(Some(body.clone())));
    *answer.status_mut() = *status;
    answer.headers_mut().clone_from(headers);
    answer
}
