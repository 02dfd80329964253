//! What would become of a request, in the order in which it would meet things. Every decision is asked of what the
//! traffic asks: the listener's modes, the table of routes, the headers' rules, the plugins.

use super::{
    answers::{self, Look},
    plugins::{self, Arrived, End, Step, Walk, target},
    request::Asked,
    vm,
};
use crate::{
    config::RouteProtocol,
    headers::{self, Forwarding, hop_by_hop},
    message::{Known, RequestHead},
    proxy::ErrorCode,
    route::{Captures, Condition, Precedence, Question, Table, Weight},
    server::Prepared,
    snapshot::{Listener, Mode, Route, Snapshot, Target, VmName},
};
use http::Method;
use serde::Serialize;
use std::{collections::BTreeMap, sync::Arc};
use tokio::runtime::Runtime;

/// What would become of a request.
#[derive(Debug, Default, Serialize)]
pub(super) struct Story {
    /// Method, host and path.
    pub(super) request: String,
    /// The listener that it comes to.
    pub(super) listener: Option<Place>,
    /// The route that it takes.
    pub(super) route: Option<Taken>,
    /// The other routes of the gateway, and why each is not the one.
    pub(super) others: Vec<Other>,
    /// What its plugins make of it, in order.
    pub(super) plugins: Vec<Step>,
    /// What they make of the answer: the one below, or a 200 without headers that stands for the backend's.
    pub(super) answers: Vec<Look>,
    /// Where it goes then.
    pub(super) to: Option<Goal>,
    /// What is answered, where it goes nowhere.
    pub(super) answer: Option<Answer>,
}

#[derive(Debug, Serialize)]
pub(super) struct Place {
    pub(super) name: String,
    pub(super) address: String,
    pub(super) tls: bool,
    /// Other listeners with that port.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) others: Vec<String>,
    /// What should be known about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) note: Option<&'static str>,
}

#[derive(Debug, Serialize)]
pub(super) struct Taken {
    pub(super) name: String,
    pub(super) captures: BTreeMap<String, String>,
}

#[derive(Debug, Serialize)]
pub(super) struct Other {
    pub(super) route: String,
    pub(super) why: String,
}

#[derive(Debug, Serialize)]
pub(super) struct Goal {
    /// The backend, VM or registry.
    pub(super) name: String,
    /// Its servers, where they are known.
    pub(super) servers: Vec<String>,
    /// What it is asked for.
    pub(super) target: String,
    pub(super) host: String,
    /// Whether a plugin has chosen it.
    pub(super) by_plugin: bool,
    /// Why its servers are not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) note: Option<&'static str>,
}

#[derive(Debug, Serialize)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// The error's code, a plugin's reason, or what answers.
    pub(super) why: String,
    /// Whether it is what the configuration has for such requests.
    #[serde(skip)]
    is_meant: bool,
}

impl Story {
    /// Whether somebody answers whom the configuration names.
    pub(super) fn leads_somewhere(&self) -> bool {
        self.to.is_some() || self.answer.as_ref().is_some_and(|answer| answer.is_meant)
    }
}

/// Tells it.
///
/// # Errors
/// Says why there is nothing to tell.
pub(super) fn tell(prepared: &Prepared, asked: &Asked, named: Option<&str>) -> Result<Story, String> {
    let snapshot = &prepared.snapshot;
    let mut story = Story::default();
    let (listener, port, place) = listener(snapshot, asked, named)?;
    story.listener = Some(place);
    let head = asked.head(snapshot.heads)?;
    story.request = format!("{} {}", head.method, target(&head));
    if !listener.ports.allow(port) {
        return Ok(story.error(ErrorCode::PortNotServed));
    }
    let Some(table) = listener.modes.of(port).requests() else {
        return Ok(story.bytes(snapshot, listener.modes.of(port), &head));
    };
    if head.method == Method::CONNECT {
        return Ok(story.error(ErrorCode::ConnectMethod));
    }
    let Ok(authority) = headers::authority(&head) else { return Ok(story.error(ErrorCode::BadHost)) };
    story.request = format!("{} {}{}", head.method, authority.full, target(&head));
    let question =
        Question { host: &authority.host, path: head.path(), method: &head.method, fields: &head.fields };
    let weighed = table.weigh(question);
    let is_weighed = |number: &usize| weighed.iter().any(|weighed| weighed.route == *number);
    let elsewhere = (0..snapshot.routes.len()).filter(|number| !is_weighed(number));
    story.others = weighed
        .iter()
        .filter_map(|weighed| Some((weighed.route, why(&weighed.weight)?)))
        .chain(elsewhere.map(|number| (number, elsewhere_why(snapshot, number))))
        .filter_map(|(number, why)| {
            let route = snapshot.routes.get(number)?;
            Some(Other { route: route.name.to_string(), why })
        })
        .collect();
    let found = table.lookup(question);
    let route = found.as_ref().and_then(|found| snapshot.routes.get(found.route)).map(Arc::clone);
    if listener.tls.is_some() && misses_its_name(snapshot, asked, table, &question, route.as_deref()) {
        return Ok(story.error(ErrorCode::Misdirected));
    }
    let (Some(found), Some(route)) = (found, route) else { return Ok(story.error(ErrorCode::NoRoute)) };
    let host = authority.full.as_bytes().to_vec();
    story.take(&route, &found.captures);
    let (mut head, peer) = (head, asked.client);
    let options = hop_by_hop::strip(&mut head.fields);
    let upgrade = options.upgrade.and_then(|upgrade| upgrade.limited_to(&route.upgrades));
    let scheme = if listener.tls.is_some() { "https" } else { "http" };
    let forwarding = Forwarding::new(peer, scheme, port, &listener.trusted_proxies);
    let client = forwarding.apply(&mut head.fields, &host, &listener.trusted_proxies);
    let arrived = Arrived {
        route: &route,
        captures: &found.captures,
        client,
        peer,
        port,
        is_upgrade: upgrade.is_some(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let walk = runtime.block_on(plugins::walk(&prepared.host, snapshot, &arrived, head));
    let story = story.after(walk, snapshot, &arrived, &runtime);
    Ok(story.without_secrets(snapshot, &route))
}

/// RFC 9110 §7.4, as traffic has it: whether the name that the client would ask for in its TLS handshake, that of
/// the URL, is another than the host of the request, and one of them leads to a VM.
fn misses_its_name(
    snapshot: &Snapshot,
    asked: &Asked,
    table: &Table,
    question: &Question<'_>,
    route: Option<&Route>,
) -> bool {
    let Some(sni) = asked.sni().filter(|sni| *sni != question.host) else { return false };
    let is_to_vm = |route: &Route| matches!(route.target, Target::Vm(..));
    let named = table.lookup(Question { host: sni, ..*question });
    let named = named.and_then(|found| snapshot.routes.get(found.route));
    route.is_some_and(is_to_vm) || named.is_some_and(|route| is_to_vm(route))
}

/// The listener that the request comes to, and the port of it.
fn listener<'a>(
    snapshot: &'a Snapshot,
    asked: &Asked,
    named: Option<&str>,
) -> Result<(&'a Listener, u16, Place), String> {
    let own_port = |listener: &Listener| listener.address.ports().iter().next().unwrap_or_default();
    let has_port = |listener: &&Arc<Listener>| {
        let is_it = |port| listener.original_destination || listener.address.ports().contains(port);
        match named {
            Some(name) => listener.name == name || listener.address.to_string() == name,
            None => asked.port.is_none_or(is_it),
        }
    };
    // Whoever does not speak TLS gets nowhere where it is spoken; without it, somebody else has ended it before.
    let speaks = |listener: &&Arc<Listener>| asked.tls != Some(false) || listener.tls.is_none();
    let mut fit: Vec<&Arc<Listener>> = snapshot.listeners.iter().filter(has_port).filter(speaks).collect();
    fit.sort_by_key(|listener| asked.tls.is_some_and(|tls| tls != listener.tls.is_some()));
    let Some((first, others)) = fit.split_first() else {
        let listeners = snapshot.listeners.iter().map(|listener| {
            let tls = if listener.tls.is_some() { " with TLS" } else { "" };
            format!("`{}` on {}{tls}", listener.name, listener.address)
        });
        let listeners: Vec<_> = listeners.collect();
        let what = match (named, asked.port) {
            (Some(name), _) => format!("no listener `{name}` takes such a request"),
            (None, Some(port)) => format!("no listener takes such a request on port {port}"),
            (None, None) => "there is no listener".to_owned(),
        };
        return Err(format!("{what}; there are: {} (--listener)", listeners.join(", ")));
    };
    let tls = first.tls.is_some();
    let place = Place {
        name: first.name.clone(),
        address: first.address.to_string(),
        tls,
        others: others.iter().map(|listener| listener.name.clone()).collect(),
        note: (asked.tls == Some(true) && !tls)
            .then_some("speaks no TLS: another gateway must end it before"),
    };
    // A listener that is named stands for what is in front of it, which leads to any port.
    let is_own = |port: &u16| first.original_destination || first.address.ports().contains(*port);
    let port = asked.port.filter(is_own).unwrap_or_else(|| own_port(first));
    Ok((first, port, place))
}

impl Story {
    fn error(mut self, code: ErrorCode) -> Self {
        self.answer =
            Some(Answer { status: code.status().as_u16(), why: code.as_str().to_owned(), is_meant: false });
        self
    }

    fn answered(mut self, status: u16, why: String) -> Self {
        self.answer = Some(Answer { status, why, is_meant: true });
        self
    }

    fn take(&mut self, route: &Route, captures: &Captures) {
        let captures = captures.iter().map(|(name, text)| (name.to_owned(), text.to_owned())).collect();
        self.route = Some(Taken { name: route.name.to_string(), captures });
    }

    /// A connection that carries just bytes, which the request would be to the gateway.
    fn bytes(mut self, snapshot: &Snapshot, mode: &Mode, head: &RequestHead) -> Self {
        let host = headers::authority(head).map(|authority| authority.host.into_owned()).unwrap_or_default();
        let (number, captures) = match mode {
            Mode::Tcp(route) => (Some(*route), Captures::default()),
            Mode::Any(kinds) => {
                kinds.bytes(&host).map(|found| (Some(found.route), found.captures)).unwrap_or_default()
            }
            Mode::Http(_) => Default::default(),
        };
        let Some(route) = number.and_then(|number| snapshot.routes.get(number)) else {
            return self.error(ErrorCode::NoRoute);
        };
        self.take(route, &captures);
        let (name, servers) = goal(snapshot, &route.target, &captures, None);
        let target = "bytes".to_owned();
        let note = (!route.plugins.is_empty())
            .then_some("plugins of the route are asked before: they may refuse it, or send it elsewhere");
        self.to = Some(Goal { name, servers, target, host, by_plugin: false, note });
        self
    }

    /// Behind the plugins.
    fn after(mut self, walk: Walk, snapshot: &Snapshot, arrived: &Arrived<'_>, runtime: &Runtime) -> Self {
        let Walk { steps, seen, end } = walk;
        self.plugins = steps;
        let fixed = match (&end, &arrived.route.target) {
            (End::Answered(status, fields, _), _) => Some((*status, fields.clone())),
            (End::On(_, None), Target::Respond(fixed)) => Some((fixed.status, fixed.fields.clone())),
            _ => None,
        };
        let goes = match end {
            End::On(head, to) => self.goes(snapshot, arrived, &head, to, runtime),
            End::Answered(status, _, reason) => self.answered(status.as_u16(), reason),
            End::Fault => return self.error(ErrorCode::PluginFault),
        };
        // The gateway's own errors are shown to nobody.
        if !goes.leads_somewhere() {
            return goes;
        }
        let told = fixed.as_ref().map(|(status, _)| *status);
        let (answers, status) = runtime.block_on(answers::look(seen, fixed));
        let mut goes = Self { answers, ..goes };
        let Some(status) = status else { return Self { to: None, ..goes.error(ErrorCode::PluginFault) } };
        if let (Some(answer), Some(told)) = (&mut goes.answer, told)
            && told != status
        {
            answer.status = status.as_u16();
        }
        goes
    }

    /// To the VM, where the route leads to one and nothing else has been decided.
    fn led_to_vm(mut self, found: Option<vm::Found>) -> Self {
        match found {
            None => {}
            Some(vm::Found::At(servers)) => {
                if let Some(goal) = &mut self.to {
                    goal.servers = servers;
                }
            }
            Some(vm::Found::Later(why)) => {
                if let Some(goal) = &mut self.to {
                    goal.note = Some(why);
                }
            }
            Some(vm::Found::Nowhere(code, why)) => {
                self.to = None;
                self = self.error(code);
                if let (Some(answer), Some(why)) = (&mut self.answer, why) {
                    answer.why = format!("{}: {why}", answer.why);
                }
            }
        }
        self
    }

    /// Without what the route's plugins were trusted with, wherever they put it: what is printed here may end up in
    /// a ticket.
    fn without_secrets(mut self, snapshot: &Snapshot, route: &Route) -> Self {
        let plugins = || route.plugins.iter().filter_map(|(number, _)| snapshot.plugins.get(*number));
        let hide = |text: &mut String| plugins().for_each(|plugin| *text = plugin.without_secrets(text));
        for step in &mut self.plugins {
            step.says.iter_mut().chain(&mut step.changes).for_each(hide);
        }
        for look in &mut self.answers {
            look.says.iter_mut().chain(&mut look.changes).for_each(hide);
        }
        if let Some(goal) = &mut self.to {
            hide(&mut goal.target);
            hide(&mut goal.host);
        }
        if let Some(answer) = &mut self.answer {
            hide(&mut answer.why);
        }
        self
    }

    fn goes(
        mut self,
        snapshot: &Snapshot,
        arrived: &Arrived<'_>,
        head: &RequestHead,
        to: Option<usize>,
        runtime: &Runtime,
    ) -> Self {
        if let (None, Target::Respond(fixed)) = (to, &arrived.route.target) {
            return self.answered(fixed.status.as_u16(), "the route's own answer".to_owned());
        }
        let (name, servers) = match to {
            Some(backend) => of_backend(snapshot, backend),
            None => goal(snapshot, &arrived.route.target, arrived.captures, Some(arrived.port)),
        };
        let host = head.fields.get(Known::Host).map(String::from_utf8_lossy).unwrap_or_default().into_owned();
        let by_plugin = to.is_some();
        self.to = Some(Goal { name, servers, target: target(head), host, by_plugin, note: None });
        if by_plugin {
            return self;
        }
        self.led_to_vm(vm::find(runtime, snapshot, arrived.route, arrived.captures, arrived.port))
    }
}

fn of_backend(snapshot: &Snapshot, number: usize) -> (String, Vec<String>) {
    let Some(backend) = snapshot.backends.get(number) else { return Default::default() };
    let settings = &backend.settings;
    (settings.name.clone(), settings.servers.iter().map(ToString::to_string).collect())
}

/// Where a route leads, and the servers there, where they are known.
fn goal(
    snapshot: &Snapshot,
    target: &Target,
    captures: &Captures,
    port: Option<u16>,
) -> (String, Vec<String>) {
    let same = || port.map_or_else(|| "the same port".to_owned(), |port| port.to_string());
    match target {
        Target::Backend(number) => of_backend(snapshot, *number),
        Target::Vm(name, fixed) => {
            let vm = match name {
                VmName::Captured(name) => captures.get(name).unwrap_or_default().to_owned(),
                VmName::Fixed(vm) => vm.to_string(),
            };
            (format!("vm:{vm}:{}", fixed.map_or_else(same, |port| port.to_string())), Vec::new())
        }
        Target::AnyPort(ip, _) => (format!("{ip}, port {}", same()), Vec::new()),
        Target::Registry(_) => ("registry".to_owned(), Vec::new()),
        Target::Component(number) => {
            let name = snapshot.origins.get(*number).map(|origin| format!("wasm:{}", origin.name()));
            (name.unwrap_or_default(), Vec::new())
        }
        Target::Respond(fixed) => (format!("answer {}", fixed.status.as_u16()), Vec::new()),
    }
}

/// Why a route of the table is not the one; none for the one that is.
fn why(weight: &Weight) -> Option<String> {
    let by = |by: &Precedence| match by {
        Precedence::Host => "its host is less specific",
        Precedence::Path => "its path is less specific",
        Precedence::Headers => "it names fewer headers",
        Precedence::Methods => "it names no methods",
        Precedence::Port => "it names no port",
        Precedence::Protocol => "it is for any protocol",
        Precedence::Order => "it is written later",
    };
    Some(match weight {
        Weight::Taken => return None,
        Weight::LessSpecific(precedence) => format!("would take it, but {}", by(precedence)),
        Weight::Differs(Condition::Host) => "is for another host".to_owned(),
        Weight::Differs(Condition::Path) => "is for another path".to_owned(),
        Weight::Differs(Condition::Method) => "is for other methods".to_owned(),
        Weight::Differs(Condition::Header(name)) => format!("asks for another `{name}`"),
    })
}

/// Why a route is not among those of the listener.
fn elsewhere_why(snapshot: &Snapshot, number: usize) -> String {
    let protocol = snapshot.routes.get(number).map(|route| route.protocol);
    match protocol {
        Some(RouteProtocol::Tcp) => "carries bytes, not requests",
        Some(RouteProtocol::Ssh) => "carries SSH, not requests",
        _ => "is not on this listener, or not on this port",
    }
    .to_owned()
}
