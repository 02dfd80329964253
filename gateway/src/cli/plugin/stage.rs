//! A component on the gateway's own sandbox, without a gateway: requests go in, and what becomes of them
//! comes out.

mod connection;

pub(super) use connection::Met;

use crate::{
    config::{
        Breaker, CaseReply, CaseRequest, CaseResponse, CaseValues, PluginCase, PluginCases, PluginLimits,
    },
    http1::{HeadLimits, parse_request},
    ids::{ClientAddr, RequestIds},
    message::{Fields, Known, RequestHead, ResponseHead, is_field_value, is_target, is_token},
    metrics::Metrics,
    plugins::{
        self, Chain, Completed, Component, Destination, Exchange, Facts, Fault, FetchError, Fetching, Grants,
        Host, Inspection, LoadError, LocalResponse, OnError, Outcome, Plugin, PluginMetrics, PluginSpec,
        Secret, Services, Way,
    },
    snapshot::plugin_limits,
};
use bytes::Bytes;
use http::StatusCode;
use std::{
    collections::{BTreeMap, VecDeque},
    path::Path,
    rc::Rc,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// A compiled component, and what it runs on.
pub(super) struct Stage {
    host: Host,
    component: Arc<Component>,
    inspection: Inspection,
    metrics: Arc<Metrics>,
    runtime: tokio::runtime::Runtime,
    ids: RequestIds,
    /// How long compiling took.
    pub(super) compiled_in: Duration,
}

/// A plugin that is ready to be called.
pub(super) struct Ready {
    chain: Chain,
    plugin: Arc<Plugin>,
    services: Arc<Script>,
}

/// What became of a request.
#[derive(Debug, Default)]
pub(super) struct Became {
    /// The request's head, where it goes on.
    pub(super) request: Option<RequestHead>,
    /// The request's body, where it goes on, as the plugin has left it.
    pub(super) body: Vec<u8>,
    /// The answer's head.
    pub(super) response: Option<ResponseHead>,
    /// The backend that it goes to instead of the route's own.
    pub(super) to: Option<String>,
    /// What the plugin answered itself: body and reason.
    pub(super) said: Option<(Bytes, String)>,
    /// The backend's body, as the plugin has transformed it.
    pub(super) transformed: Option<Vec<u8>>,
    /// Why the call failed.
    pub(super) fault: Option<Fault>,
    /// What the plugin sent elsewhere.
    pub(super) sent: Vec<String>,
}

impl Stage {
    /// Reads and compiles a component.
    pub(super) fn open(file: &Path) -> Result<Self, String> {
        let bytes = super::read(file)?;
        let name = file.display().to_string();
        let metrics = Arc::new(Metrics::new());
        let host = Host::new(&metrics).map_err(|error| error.to_string())?;
        let began = std::time::Instant::now();
        let component = host.component(&name, &bytes).map_err(|error| words(&error))?;
        let compiled_in = began.elapsed();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Ok(Self {
            inspection: plugins::inspect(&name, &bytes).map_err(|error| words(&error))?,
            host,
            component,
            metrics,
            runtime: runtime.map_err(|error| error.to_string())?,
            ids: RequestIds::new(0),
            compiled_in,
        })
    }

    pub(super) fn inspection(&self) -> &Inspection {
        &self.inspection
    }

    /// Links the component with all that it asks for.
    pub(super) fn link(
        &self,
        config: &str,
        cases: &PluginCases,
        replies: &[CaseReply],
    ) -> Result<Ready, LoadError> {
        // Without a value, as one that nobody has set.
        let nothing = [("none".to_owned(), Secret::new(None))];
        let secrets: BTreeMap<_, _> = cases
            .secrets
            .iter()
            .map(|(name, value)| (name.clone(), Secret::new(Some(value.clone()))))
            .collect();
        let origins = cases.http.iter().filter_map(|origin| origin.get_ref().parse().ok());
        let mut http: Vec<plugins::Origin> = origins.collect();
        if http.is_empty() {
            http.extend("http://localhost:1".parse().ok());
        }
        let plugin = Arc::new(self.host.link(PluginSpec {
            name: "plugin".to_owned(),
            component: Arc::clone(&self.component),
            config: config.to_owned(),
            grants: Grants {
                http,
                secrets: if secrets.is_empty() { nothing.into() } else { secrets },
                backends: cases.backends.clone(),
                kv: 1024 * 1024,
            },
            limits: plugin_limits(&PluginLimits::default(), &Breaker::default()),
            vm_id: cases.vm_id.clone(),
        })?);
        let services = Arc::new(Script::of(replies));
        let instances = self.host.instances(
            Arc::clone(&plugin),
            Arc::clone(&services) as Arc<dyn Services>,
            PluginMetrics::new(&self.metrics, "plugin"),
        );
        let chain = Chain::new(&"test".into(), [(Rc::new(instances), OnError::Deny)]);
        Ok(Ready { chain, plugin, services })
    }

    /// Links the component, and lets it read its settings.
    pub(super) fn start(
        &self,
        config: &str,
        cases: &PluginCases,
        replies: &[CaseReply],
    ) -> Result<Ready, LoadError> {
        let ready = self.link(config, cases, replies)?;
        self.footprint(&ready)?;
        Ok(ready)
    }

    /// Makes an instance: the bytes of memory that it has.
    pub(super) fn footprint(&self, ready: &Ready) -> Result<usize, LoadError> {
        let services = Arc::clone(&ready.services) as Arc<dyn Services>;
        self.runtime.block_on(ready.plugin.footprint(&self.host, services))
    }

    /// Shows the plugin a request, and the answer to it: its own, or the backend's.
    pub(super) fn ask(
        &self,
        ready: &Ready,
        request: &CaseRequest,
        answer: &CaseResponse,
    ) -> Result<Became, String> {
        let exchange = Exchange::new(self.facts(request), request_head(request)?);
        Ok(self.runtime.block_on(exchanged(
            ready,
            Box::new(exchange),
            request.body.list(),
            (response_head(answer)?, answer.body.list()),
        )))
    }

    /// Calls one hook so many times: what all of it took. Without a plugin, what the rest takes.
    pub(super) fn measure(
        &self,
        ready: Option<&Ready>,
        (request, answer): (&CaseRequest, Option<&CaseResponse>),
        calls: u32,
    ) -> Result<Duration, String> {
        let head = request_head(request)?;
        let response = answer.map(response_head).transpose()?;
        let mut exchange = Box::new(Exchange::new(self.facts(request), head.clone()));
        self.timed(calls, async || {
            exchange.request = Some(head.clone());
            exchange.response.clone_from(&response);
            match (ready, &response) {
                (None, _) => Ok(()),
                (Some(ready), None) => not_denied(ready.chain.on_request(&mut exchange).await),
                (Some(ready), Some(_)) => {
                    let filtered = ready.chain.on_response(&mut exchange, 1, |_, _, _| {}).await;
                    filtered.map_err(|(fault, _)| fault)
                }
            }
        })
    }

    /// Whether the plugin asks for the body of a request.
    pub(super) fn wants_body(&self, ready: &Ready, request: &CaseRequest) -> Result<bool, String> {
        let mut exchange = Box::new(Exchange::new(self.facts(request), request_head(request)?));
        let (outcome, _) = self.runtime.block_on(ready.chain.on_request(&mut exchange));
        Ok(matches!(outcome, Outcome::Next { body: Some(_), .. }))
    }

    /// Calls `on-request-body` so many times: what all of it took. Without a plugin, what the rest takes.
    pub(super) fn measure_body(
        &self,
        ready: Option<&Ready>,
        request: &CaseRequest,
        calls: u32,
    ) -> Result<Duration, String> {
        let head = request_head(request)?;
        let mut exchange = Box::new(Exchange::new(self.facts(request), head.clone()));
        self.timed(calls, async || {
            exchange.request = Some(head.clone());
            exchange.has_asked_for_body(0);
            let mut body = request.body.list().concat().into_bytes();
            match ready {
                None => Ok(()),
                Some(ready) => not_denied(ready.chain.on_request_body(&mut exchange, &mut body).await),
            }
        })
    }

    /// Takes a case's body through the plugin so many times, from beginning to end: what all of it took. Without a
    /// plugin, what the rest takes.
    pub(super) fn measure_transform(
        &self,
        ready: Option<&Ready>,
        way: Way,
        case: &PluginCase,
        calls: u32,
    ) -> Result<Duration, String> {
        let (head, response) = (request_head(&case.request)?, response_head(&case.response)?);
        let mut exchange = Box::new(Exchange::new(self.facts(&case.request), head.clone()));
        let body = match way {
            Way::Request => case.request.body.list(),
            Way::Response => case.response.body.list(),
        };
        self.timed(calls, async || {
            exchange.request = Some(head.clone());
            exchange.response = Some(response.clone());
            let pieces = pieces_of(body);
            match ready {
                None => Ok(()),
                Some(ready) => transform(&ready.chain, way, &mut exchange, pieces).await.map(|_| ()),
            }
        })
    }

    /// Calls `on-complete` so many times: what all of it took. Without a plugin, what the rest takes.
    pub(super) fn measure_log(
        &self,
        ready: Option<&Ready>,
        request: &CaseRequest,
        calls: u32,
    ) -> Result<Duration, String> {
        let head = request_head(request)?;
        let mut exchange = Box::new(Exchange::over(self.facts(request)));
        self.timed(calls, async || {
            let completed = completed(Some(&head));
            let Some(ready) = ready else {
                exchange.completed = Some(completed);
                return Ok(());
            };
            ready.chain.log_now(&mut exchange, completed).await
        })
    }

    /// What so many calls take, one after the other.
    fn timed(
        &self,
        calls: u32,
        mut call: impl AsyncFnMut() -> Result<(), Fault>,
    ) -> Result<Duration, String> {
        self.runtime.block_on(async {
            let began = std::time::Instant::now();
            for _ in 0..calls {
                let called = call().await;
                called.map_err(|fault| format!("a call failed: {}\n{}", fault.kind, fault.detail))?;
            }
            Ok(began.elapsed())
        })
    }

    fn facts(&self, request: &CaseRequest) -> Facts {
        Facts {
            id: self.ids.next(),
            route: "test".into(),
            client: ClientAddr::from(request.client),
            peer: ClientAddr::from(request.client),
            local_port: request.port,
            captures: request
                .captures
                .iter()
                .map(|(name, value)| (name.as_str().into(), value.as_str().into()))
                .collect(),
            is_upgrade: request.headers.keys().any(|name| name.eq_ignore_ascii_case("upgrade")),
        }
    }
}

fn not_denied((outcome, _): (Outcome, usize)) -> Result<(), Fault> {
    if let Outcome::Denied { fault, .. } = outcome { Err(fault) } else { Ok(()) }
}

/// The gateway's own answer to a body that is larger than the plugin has asked for.
fn too_large() -> ResponseHead {
    ResponseHead::new(StatusCode::PAYLOAD_TOO_LARGE, Fields::new())
}

async fn exchanged(
    ready: &Ready,
    mut exchange: Box<Exchange>,
    sent: &[String],
    (answer, pieces): (ResponseHead, &[String]),
) -> Became {
    let chain = &ready.chain;
    let mut body = sent.concat().into_bytes();
    let mut is_held = false;
    let mut completed = completed(exchange.request.as_ref());
    let (mut outcome, seen) = chain.on_request(&mut exchange).await;
    let is_upgrade = exchange.facts.as_ref().is_some_and(|facts| facts.is_upgrade);
    // As in the gateway, what is for another protocol has no body.
    if let Outcome::Next { to, body: Some(most) } = outcome
        && !is_upgrade
    {
        if body.len() as u64 > most {
            return Became { response: Some(too_large()), ..Became::default() };
        }
        outcome = chain.on_request_body(&mut exchange, &mut body).await.0.or(to);
        is_held = true;
    }
    let mut broken = None;
    if matches!(outcome, Outcome::Next { .. }) && !is_upgrade && !body.is_empty() {
        // One that was held is transformed as it is then.
        let pieces = if is_held { vec![body.clone()] } else { pieces_of(sent) };
        let transformed = transform(chain, Way::Request, &mut exchange, pieces).await;
        body = transformed.map_err(|fault| broken = Some(fault)).ok().flatten().unwrap_or(body);
    }
    let mut became =
        Became { request: exchange.request.take(), response: Some(answer), body, ..Became::default() };
    match outcome {
        Outcome::Next { to, .. } => became.to = to.map(|to| backend(ready, to)),
        Outcome::Respond { response, .. } => became.answered(response),
        Outcome::Denied { fault, .. } => became.fault = Some(fault),
    }
    became.fault = became.fault.or(broken);
    if became.fault.is_none() && chain.has_response_filters() {
        became.filter_answer(chain, &mut exchange, seen).await;
    }
    let is_of_backend = became.fault.is_none() && became.said.is_none() && !pieces.is_empty();
    if is_of_backend {
        exchange.response = became.response.take();
        match transform(chain, Way::Response, &mut exchange, pieces_of(pieces)).await {
            Ok(transformed) => became.transformed = transformed,
            Err(fault) => became.fault = Some(fault),
        }
        became.response = exchange.response.take();
    }
    if became.fault.is_none() && chain.has_logs() {
        completed.status = became.response.as_ref().map(|head| head.status);
        if let Some((body, reason)) = &became.said {
            completed.sent = body.len() as u64;
            completed.answered_by = Some(("plugin".to_owned(), reason.clone()));
        }
        became.fault = chain.log_now(&mut exchange, completed).await.err();
    }
    became.sent = ready.services.take_sent();
    became
}

/// The end of a request: after a millisecond, without bodies.
fn completed(request: Option<&RequestHead>) -> Completed {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into();
    Completed {
        method: request.map(|head| head.method.as_str().into()).unwrap_or_default(),
        authority: request.and_then(|head| head.fields.get(Known::Host)).map(text).unwrap_or_default(),
        path: request.map(|head| head.path().into()).unwrap_or_default(),
        status: Some(StatusCode::OK),
        head: Some(Duration::from_millis(1)),
        total: Duration::from_millis(1),
        received: 0,
        sent: 0,
        answered_by: None,
        error: None,
        broke_off: false,
    }
}

fn pieces_of(body: &[String]) -> Vec<Vec<u8>> {
    body.iter().map(|piece| piece.clone().into_bytes()).collect()
}

/// A body through the plugin; none where it does not transform this one.
async fn transform(
    chain: &Chain,
    way: Way,
    exchange: &mut Box<Exchange>,
    pieces: Vec<Vec<u8>>,
) -> Result<Option<Vec<u8>>, Fault> {
    /// Nobody else calls it.
    const PATIENCE: Duration = Duration::from_secs(1);
    if !chain.has_transforms(way) {
        return Ok(None);
    }
    let begun = chain.begin_transforms(way, exchange).await;
    let Some(mut transforms) = begun.map_err(|(fault, _)| fault)? else { return Ok(None) };
    let mut all = Vec::new();
    for piece in pieces.into_iter().map(Some).chain([None]) {
        match piece {
            Some(piece) => transforms.feed(piece),
            None => transforms.end(),
        }
        while let Some(bytes) = transforms.next(PATIENCE).await.map_err(|(fault, _)| fault)? {
            all.extend(bytes);
        }
    }
    transforms.discard().await;
    Ok(Some(all))
}

fn backend(ready: &Ready, to: Destination) -> String {
    ready.plugin.backends().get(to.backend).cloned().unwrap_or_default()
}

impl Became {
    /// Shows the plugin the answer.
    async fn filter_answer(&mut self, chain: &Chain, exchange: &mut Box<Exchange>, seen: usize) {
        exchange.response = self.response.take();
        let mut replaced = None;
        let filtered = chain.on_response(exchange, seen, |exchange, response, _| {
            let LocalResponse { status, fields, body, reason } = response;
            exchange.response = Some(ResponseHead::new(status, fields));
            replaced = Some((body, reason));
        });
        if let Err((fault, _)) = filtered.await {
            self.fault = Some(fault);
        }
        self.response = exchange.response.take();
        self.said = replaced.or(self.said.take());
    }

    fn answered(&mut self, response: LocalResponse) {
        let LocalResponse { status, fields, body, reason } = response;
        self.request = None;
        self.response = Some(ResponseHead::new(status, fields));
        self.said = Some((body, reason));
    }
}

/// The head of a request, read as one from a client is.
fn request_head(request: &CaseRequest) -> Result<RequestHead, String> {
    let mut text = Vec::new();
    if !is_token(request.method.as_bytes()) || !is_target(request.path.as_bytes()) {
        return Err(format!("no client sends `{} {}`", request.method, request.path));
    }
    text.extend_from_slice(
        format!("{} {} HTTP/1.1\r\nhost: {}\r\n", request.method, request.path, request.host).as_bytes(),
    );
    fields(&request.headers)?.write(&mut text);
    text.extend_from_slice(b"\r\n");
    let limits = HeadLimits { size: 1024 * 1024, headers: 1000 };
    match parse_request(&text, limits) {
        Ok(Some((head, length))) if length == text.len() => Ok(head),
        Ok(_) => Err("the request does not end where it should".to_owned()),
        Err(error) => Err(format!("no request: {error}")),
    }
}

fn response_head(answer: &CaseResponse) -> Result<ResponseHead, String> {
    let status =
        StatusCode::from_u16(answer.status).map_err(|_| format!("{} is no status", answer.status))?;
    Ok(ResponseHead::new(status, fields(&answer.headers)?))
}

fn fields(headers: &BTreeMap<String, CaseValues>) -> Result<Fields, String> {
    let mut fields = Fields::new();
    for (name, values) in headers {
        for value in values.list() {
            if !is_token(name.as_bytes()) || !is_field_value(value.as_bytes()) {
                return Err(format!("`{name}: {value}` is no header"));
            }
            if Known::of(name.as_bytes()) == Some(Known::Host) {
                return Err("the host stands in `host`".to_owned());
            }
            fields.append(name.as_bytes(), value.as_bytes());
        }
    }
    Ok(fields)
}

/// What a failure says to whoever writes the plugin.
pub(super) fn words(error: &LoadError) -> String {
    match error {
        LoadError::Config(problems) => {
            let lines = problems.iter().map(|problem| format!("\n  {}: {}", problem.path, problem.message));
            format!("{error}{}", lines.collect::<String>())
        }
        LoadError::NotGranted { grant, .. } => format!("{error}; it needs {grant}"),
        LoadError::Fault(fault) => format!("{error}\n{}", fault.detail),
        _ => error.to_string(),
    }
}

/// Answers a plugin's requests by a script, and remembers them.
struct Script(Mutex<Scripted>);

#[derive(Default)]
struct Scripted {
    replies: VecDeque<CaseReply>,
    sent: Vec<String>,
}

impl Script {
    fn of(replies: &[CaseReply]) -> Self {
        Self(Mutex::new(Scripted { replies: replies.to_vec().into(), sent: Vec::new() }))
    }

    fn take_sent(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner).sent)
    }
}

impl Services for Script {
    fn fetch(&self, request: http::Request<Bytes>) -> Fetching {
        let mut script = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        script.sent.push(format!("{} {}", request.method(), request.uri()));
        let reply = script.replies.pop_front();
        let answer =
            reply.ok_or_else(|| FetchError::Connect("the case has no reply for this request".to_owned()));
        let answer = answer.and_then(|reply| {
            let mut response = http::Response::builder().status(reply.status);
            for (name, values) in &reply.headers {
                for value in values.list() {
                    response = response.header(name, value);
                }
            }
            response.body(Bytes::from(reply.body)).map_err(|error| FetchError::Protocol(error.to_string()))
        });
        Box::pin(std::future::ready(answer))
    }
}
