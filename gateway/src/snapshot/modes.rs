//! What the connections of a listener carry: requests, bytes, or whatever turns out.

use crate::{
    config::{Config, Diagnostic, Listener, ListenerProtocol, Route, RouteProtocol, Spanned},
    message::Fields,
    route::{Conditions, HostPattern, Match, Question, Table},
};
use http::Method;
use std::{collections::BTreeSet, ops::Range};

/// What connections carry, by the port that they asked for.
#[derive(Debug)]
pub struct Modes {
    /// Of ports that no route names.
    pub other: Mode,
    /// Of those that routes name, where a listener has several.
    pub by_port: Vec<(u16, Mode)>,
}

impl Modes {
    /// What a connection to this port carries.
    pub fn of(&self, port: u16) -> &Mode {
        self.by_port.iter().find(|(known, _)| *known == port).map_or(&self.other, |(_, mode)| mode)
    }
}

/// What the connections of a listener carry.
#[derive(Debug)]
pub enum Mode {
    /// HTTP requests, each with its route.
    Http(Table),
    /// Bytes, all on this route.
    Tcp(usize),
    /// What each one turns out to.
    Any(Box<Kinds>),
}

impl Mode {
    /// The routes of requests, where there may be some.
    pub fn requests(&self) -> Option<&Table> {
        match self {
            Self::Http(table) => Some(table),
            Self::Tcp(_) => None,
            Self::Any(kinds) => kinds.requests.as_ref(),
        }
    }
}

/// The routes of a listener whose connections must be told apart: by the name that TLS clients ask for,
/// and by what they speak.
#[derive(Debug)]
pub struct Kinds {
    requests: Option<Table>,
    ssh: Table,
    bytes: Table,
    /// Whether a route of bytes names a host: clients that bring TLS along are asked for it.
    names_hosts: bool,
}

/// The number of no route: what has its host has no route of bytes.
const NOWHERE: usize = usize::MAX;

impl Kinds {
    /// Whether there may be requests.
    pub fn has_requests(&self) -> bool {
        self.requests.is_some()
    }

    /// Whether a TLS connection that only passes through is told by the name it asks for.
    pub fn names_hosts(&self) -> bool {
        self.names_hosts
    }

    /// The route of connections for this host, in lower case and empty where it is not known, that
    /// carry just bytes.
    pub fn bytes(&self, host: &str) -> Option<Match> {
        by_host(&self.bytes, host).filter(|found| found.route != NOWHERE)
    }

    /// The route of SSH connections for this host, told as in [`Self::bytes`].
    pub fn ssh(&self, host: &str) -> Option<Match> {
        by_host(&self.ssh, host)
    }
}

fn by_host(table: &Table, host: &str) -> Option<Match> {
    table.lookup(Question { host, path: "", method: &Method::GET, fields: &Fields::new() })
}

/// What a listener carries, and where it has several ports, what those carry that routes name.
pub(super) fn build(
    config: &Config,
    listener: &Listener,
    conditions: &[Conditions],
    problems: &mut Vec<Diagnostic>,
) -> Option<Modes> {
    if let Some(port) = listener.address.get_ref().ports().single()
        && !listener.has_other_ports()
    {
        let other = Builder::new(config, listener, port, conditions, problems).build()?;
        return Some(Modes { other, by_port: Vec::new() });
    }
    let named = config.routes.iter().filter_map(|route| route.listener_port.as_ref());
    let named: BTreeSet<u16> =
        named.map(|port| *port.get_ref()).filter(|port| listener.may_have_port(*port)).collect();
    let mut by_port = Vec::with_capacity(named.len());
    for port in named {
        let mut found = Vec::new();
        let mode = Builder::new(config, listener, port, conditions, &mut found).build();
        by_port.extend(mode.map(|mode| (port, mode)));
        problems.extend(found);
    }
    // No route names port 0. What routes say of other ports was reported with those.
    let mut found = Vec::new();
    let has_routes = config.routes.iter().any(|route| is_on(route, listener, 0));
    let other = if has_routes || by_port.is_empty() {
        Builder::new(config, listener, 0, conditions, &mut found).build()
    } else {
        Some(Mode::Http(Table::default()))
    };
    problems.extend(found);
    // What is wrong without a port is wrong with each of them.
    let mut seen = Vec::new();
    problems.retain(|problem| {
        let key = (problem.span.clone(), problem.message.clone());
        let is_new = !seen.contains(&key);
        seen.push(key);
        is_new
    });
    Some(Modes { other: other?, by_port })
}

/// Makes the mode of one port of a listener.
struct Builder<'a> {
    config: &'a Config,
    listener: &'a Listener,
    conditions: &'a [Conditions],
    /// The routes that are on it.
    on_it: Vec<(usize, &'a Route)>,
    problems: &'a mut Vec<Diagnostic>,
}

impl<'a> Builder<'a> {
    fn new(
        config: &'a Config,
        listener: &'a Listener,
        port: u16,
        conditions: &'a [Conditions],
        problems: &'a mut Vec<Diagnostic>,
    ) -> Self {
        let routes = config.routes.iter().enumerate();
        let on_it = routes.filter(|(_, route)| is_on(route, listener, port)).collect();
        Self { config, listener, conditions, on_it, problems }
    }

    fn of(&self, protocol: RouteProtocol) -> impl Iterator<Item = (usize, &'a Route)> {
        self.on_it.iter().copied().filter(move |(_, route)| route.protocol == protocol)
    }

    fn has(&self, protocol: RouteProtocol) -> bool {
        self.of(protocol).next().is_some()
    }

    /// A listener that does not say what it carries carries what its routes do.
    fn build(mut self) -> Option<Mode> {
        let needs_a_look = self.has(RouteProtocol::Any)
            || self.has(RouteProtocol::Ssh)
            || self.of(RouteProtocol::Tcp).any(|(_, route)| route.host.is_some());
        match self.listener.protocol {
            ListenerProtocol::Http => self.http().map(Mode::Http),
            ListenerProtocol::Tcp if needs_a_look => self.any(false),
            ListenerProtocol::Tcp => self.tcp(),
            ListenerProtocol::Auto if needs_a_look && !self.collides() => self.any(true),
            ListenerProtocol::Auto if !self.has(RouteProtocol::Tcp) => self.http().map(Mode::Http),
            ListenerProtocol::Auto if !self.has(RouteProtocol::Http) => self.tcp(),
            ListenerProtocol::Auto => {
                // A route that names the listener counts more than one that is on all of them.
                let named = |protocol| self.of(protocol).any(|(_, route)| names_listeners(route));
                match (named(RouteProtocol::Tcp), named(RouteProtocol::Http)) {
                    (true, false) if needs_a_look => self.any(false),
                    (true, false) => self.tcp(),
                    (false, true) => self.http().map(Mode::Http),
                    _ => {
                        self.problems.push(
                            Diagnostic::error(
                                self.listener.address.span(),
                                "HTTP and TCP routes meet on this listener",
                            )
                            .label("carries either HTTP or one TCP route")
                            .help(
                                "name the listeners of each route (`listeners = [\"…\"]`), set the listener's \
                                 `protocol`, or let one route carry both (`protocol = \"any\"`)",
                            ),
                        );
                        None
                    }
                }
            }
        }
    }

    /// Whether requests and bytes meet where nothing tells them apart: which protocols are agreed on
    /// with a TLS client does not depend on the name it asks for.
    fn collides(&self) -> bool {
        let tells = self.has(RouteProtocol::Any) || self.has(RouteProtocol::Ssh) || !self.listener.tls;
        !tells && self.has(RouteProtocol::Tcp) && self.has(RouteProtocol::Http)
    }

    fn tcp(self) -> Option<Mode> {
        let (first, second) = {
            let mut routes = self.of(RouteProtocol::Tcp);
            (routes.next(), routes.next())
        };
        match (first, second) {
            (Some((route, _)), None) => Some(Mode::Tcp(route)),
            (None, _) => {
                self.problems.push(
                    Diagnostic::error(self.listener.address.span(), "no TCP route is on this listener")
                        .label("would accept connections and drop them"),
                );
                None
            }
            (Some(_), Some((_, second))) => {
                self.problems.push(
                    Diagnostic::error(
                        second.to.span(),
                        format!("a second TCP route on listener `{}`", self.listener.label()),
                    )
                    .label("can never be reached")
                    .help("give each a listener, or a `host` that TLS clients ask for"),
                );
                None
            }
        }
    }

    /// The routes of requests.
    fn http(&mut self) -> Option<Table> {
        let routes: Vec<_> = [RouteProtocol::Http, RouteProtocol::Any]
            .into_iter()
            .flat_map(|protocol| self.of(protocol))
            .filter_map(|(index, _)| Some((index, self.conditions.get(index)?.clone())))
            .collect();
        if routes.is_empty() {
            self.problems.push(
                Diagnostic::error(self.listener.address.span(), "no route is on this listener")
                    .label("would answer 404 to everything"),
            );
        }
        self.table(routes)
    }

    /// All kinds.
    fn any(mut self, may_have_requests: bool) -> Option<Mode> {
        let has_requests =
            may_have_requests && (self.has(RouteProtocol::Http) || self.has(RouteProtocol::Any));
        let requests = if has_requests { Some(self.http()?) } else { None };
        let ssh = self.by_host(RouteProtocol::Ssh);
        let mut bytes = self.by_host(RouteProtocol::Tcp);
        bytes.extend(self.by_host(RouteProtocol::Any));
        let names_hosts = bytes.iter().any(|(_, conditions)| conditions.host.is_some());
        if requests.is_some() {
            self.reserve(&mut bytes);
        }
        Some(Mode::Any(Box::new(Kinds {
            requests,
            ssh: self.table(ssh)?,
            bytes: self.table(bytes)?,
            names_hosts,
        })))
    }

    fn by_host(&self, protocol: RouteProtocol) -> Vec<(usize, Conditions)> {
        self.of(protocol)
            .filter_map(|(index, _)| Some((index, self.conditions.get(index)?.clone())))
            .collect()
    }

    /// Keeps a host that has a route for requests, and a port where that names one, from routes of bytes
    /// that are for more of them: what does not look like a request would pass by that route's plugins.
    fn reserve(&mut self, bytes: &mut Vec<(usize, Conditions)>) {
        let reserved: Vec<(usize, &Conditions)> = self
            .of(RouteProtocol::Http)
            .filter_map(|(index, _)| Some((index, self.conditions.get(index)?)))
            .filter(|(_, conditions)| conditions.host.is_some() || conditions.has_port)
            .collect();
        for (index, conditions) in reserved {
            let is_as_narrow = |(_, known): &&(usize, Conditions)| {
                is_same_host(known, conditions) && (known.has_port || !conditions.has_port)
            };
            match bytes.iter().find(is_as_narrow).map(|(route, _)| *route) {
                None => {
                    let Conditions { host, has_port, .. } = conditions.clone();
                    let narrow = Conditions { host, has_port, has_protocol: true, ..Conditions::default() };
                    bytes.push((NOWHERE, narrow));
                }
                Some(first) if self.is_tcp(first) => self.unreachable(first, index),
                Some(_) => {}
            }
        }
    }

    fn is_tcp(&self, route: usize) -> bool {
        self.config.routes.get(route).is_some_and(|route| route.protocol == RouteProtocol::Tcp)
    }

    fn table(&mut self, routes: Vec<(usize, Conditions)>) -> Option<Table> {
        match Table::build(routes) {
            Ok(table) => Some(table),
            Err(duplicates) => {
                for duplicate in duplicates {
                    self.unreachable(duplicate.first, duplicate.second);
                }
                None
            }
        }
    }

    fn unreachable(&mut self, first: usize, second: usize) {
        let routes = &self.config.routes;
        let label = |index: usize| routes.get(index).map(|route| route.label(index)).unwrap_or_default();
        let span = routes.get(second).map(place).unwrap_or_default();
        let message =
            format!("route `{}` can never match: `{}` has the same conditions", label(second), label(first));
        self.problems.push(Diagnostic::error(span, message).label("unreachable"));
    }
}

/// Whether both are for the same hosts, whatever they capture.
fn is_same_host(one: &Conditions, other: &Conditions) -> bool {
    match (&one.host, &other.host) {
        (Some(HostPattern::Label { suffix: one, .. }), Some(HostPattern::Label { suffix: other, .. })) => {
            one == other
        }
        (one, other) => one == other,
    }
}

/// Where to point for a route as a whole.
fn place(route: &Route) -> Range<usize> {
    route
        .path
        .as_ref()
        .or(route.host.as_ref())
        .or(route.name.as_ref())
        .map_or_else(|| route.to.span(), Spanned::span)
}

fn is_on(route: &Route, listener: &Listener, port: u16) -> bool {
    let by_name = route.listeners.as_ref().is_none_or(|names| {
        listener.name.as_ref().is_some_and(|own| names.iter().any(|name| name.get_ref() == own.get_ref()))
    });
    let by_port = route.listener_port.as_ref().is_none_or(|wanted| *wanted.get_ref() == port);
    by_name && by_port
}

fn names_listeners(route: &Route) -> bool {
    route.listeners.is_some() || route.listener_port.is_some()
}
