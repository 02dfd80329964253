//! Routes: names exist, and every route can be met.

use toml::Spanned;

use super::{
    super::{
        Balance, Config, Listener, ListenerProtocol, Route, RouteProtocol, Target, VmName,
        diagnostic::Diagnostic, nearest::nearest, read::Names, report::Report,
    },
    Known, targets,
};

pub(super) fn check(config: &Config, names: &Names, report: &mut Report) {
    if names.route_count == 0 {
        report.add(
            Diagnostic::error(0..0, "the file has no `[[route]]`, so every request would be refused")
                .help("for example\n[[route]]\nto = \"127.0.0.1:3000\""),
        );
    }
    super::names("route", config.routes.iter().filter_map(|route| route.name.as_ref()), report);
    for route in &config.routes {
        references(route, names, report);
        vm(route, config, report);
        own_port(route, config, report);
        methods(route, report);
        for (name, value) in &route.headers {
            targets::header(name, value, report);
        }
        if route.protocol != RouteProtocol::Http {
            bytes(route, report);
            keyless(route, config, report);
        } else {
            passed_by(route, config, report);
        }
        // A listener that could not be read may be the one.
        if config.listeners.len() == names.listener_count {
            reachable(route, &config.listeners, report);
        }
    }
}

fn references(route: &Route, names: &Names, report: &mut Report) {
    let listeners = Known {
        kind: "listener",
        none: "no listener of this file has a `name`",
        names: names.listeners.as_deref(),
    };
    let backends = Known {
        kind: "backend",
        none: "this file has none; define one with `[backend.NAME]`",
        names: names.backends.as_deref(),
    };
    let plugins = Known {
        kind: "plugin",
        none: "this file has none; define one with `[plugin.NAME]`",
        names: names.plugins.as_deref(),
    };
    for name in route.listeners.iter().flatten() {
        listeners.check(name, report);
    }
    for used in &route.plugins {
        plugins.check(&used.get_ref().name, report);
    }
    let origins = Known {
        kind: "origin",
        none: "this file has none; define one with `[origin.NAME]`, or write the component's file: `wasm:app.wasm`",
        names: names.origins.as_deref(),
    };
    targets::check(&route.to, backends, origins, report);
}

/// A VM must be known where it is, and by which name.
fn vm(route: &Route, config: &Config, report: &mut Report) {
    let Target::Vm(target) = route.to.get_ref() else { return };
    if config.vms.is_none() {
        report.add(
            Diagnostic::error(route.to.span(), "this file does not say where VMs are")
                .label("goes to a VM")
                .help("for example\n[vms]\ndns = \"{vm}.internal\""),
        );
    }
    let VmName::Captured(name) = &target.vm else { return };
    let hole = format!("{{{name}}}");
    if !route.host.iter().chain(&route.path).any(|pattern| pattern.get_ref().contains(&hole)) {
        report.add(
            Diagnostic::error(route.to.span(), format!("nothing is captured as `{hole}`"))
                .label("neither `host` nor `path` of this route has it")
                .help(format!("for example `host = \"{hole}.vm.example.com\"`")),
        );
    }
}

/// The port that was asked for, on this very machine, may be the listener that it was asked of.
fn own_port(route: &Route, config: &Config, report: &mut Report) {
    let Target::AnyPort(ip) = route.to.get_ref() else { return };
    let is_own = |listener: &&Listener| {
        let own = listener.address.get_ref().ip();
        !listener.has_other_ports() && (own == *ip || (own.is_unspecified() && ip.is_loopback()))
    };
    if let Some(listener) = config.listeners.iter().filter(|listener| is_on(route, listener)).find(is_own) {
        report.add(
            Diagnostic::error(route.to.span(), "this route leads back to its own listener")
                .label("the same port of the same machine")
                .also(listener.address.span(), "listens there")
                .help("behind a redirect rule, with `original_destination = true`, it does not"),
        );
    }
}

fn methods(route: &Route, report: &mut Report) {
    const COMMON: [&str; 9] =
        ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "CONNECT", "TRACE"];
    for method in route.methods.iter().flatten() {
        let name = method.get_ref().as_str();
        if COMMON.contains(&name) {
            continue;
        }
        if http::Method::from_bytes(name.as_bytes()).is_err() {
            report.add(
                Diagnostic::error(method.span(), format!("`{method}` is not a method"))
                    .label("expected a word such as \"GET\""),
            );
        } else if let Some(near) = nearest(name, COMMON) {
            report.add(
                Diagnostic::warning(method.span(), format!("no client sends the method `{method}`"))
                    .label(format!("did you mean `{near}`?"))
                    .help("methods are compared letter by letter, and clients send capitals"),
            );
        }
    }
}

/// Of a connection that carries bytes nothing is known but the host that a TLS client asked for.
fn bytes(route: &Route, report: &mut Report) {
    let first = |list: &[Spanned<String>]| list.first().map(Spanned::span);
    let of_http = [
        ("path", route.path.as_ref().map(Spanned::span)),
        ("methods", route.methods.as_deref().and_then(first)),
        ("headers", route.headers.values().next().map(Spanned::span)),
        ("limits.body", route.limits.body.as_ref().map(Spanned::span)),
    ];
    let is_any = route.protocol == RouteProtocol::Any;
    // Its requests and its bytes would meet different hooks of one plugin, and half of them none.
    let plugins = ("plugins", route.plugins.first().map(Spanned::span).filter(|_| is_any));
    for (key, span) in of_http.into_iter().chain([plugins]) {
        let Some(span) = span.filter(|_| !is_any || key != "limits.body") else { continue };
        let help = if is_any {
            format!("add an HTTP route with `{key}`: it comes before this one")
        } else {
            format!("remove `{key}`, or set `protocol = \"http\"`")
        };
        report.add(
            Diagnostic::error(span, format!("{} has no `{key}`", route.protocol.describe()))
                .label("only HTTP requests have this")
                .help(help),
        );
    }
    let answers_requests = matches!(
        route.to.get_ref(),
        Target::Respond(_) | Target::Redirect(_) | Target::Registry | Target::Wasm(_)
    );
    if answers_requests {
        report.add(
            Diagnostic::error(route.to.span(), "only HTTP requests can be answered or redirected")
                .label(format!("expected an address or a backend's name, on {}", route.protocol.describe())),
        );
    }
}

/// Warns where what is no request passes by the plugins that requests for the same host meet.
fn passed_by(route: &Route, config: &Config, report: &mut Report) {
    let Some(plugin) = route.plugins.first() else { return };
    let shares = |other: &&Route| {
        let carries_bytes = |listener: &&Listener| listener.protocol != ListenerProtocol::Http;
        let mut listeners = config.listeners.iter().filter(carries_bytes);
        let meet = listeners.any(|listener| is_on(route, listener) && is_on(other, listener));
        let ports = (&route.listener_port, &other.listener_port);
        let is_same_host = other.host == route.host
            && match ports {
                (Some(own), Some(other)) => own == other,
                // A port that is named is kept from routes of all of them.
                (own, _) => own.is_none(),
            };
        let is_same_server = other.host != route.host
            && other.to.get_ref() == route.to.get_ref()
            && !matches!(ports, (Some(own), Some(other)) if own != other);
        let carries_anything = matches!(other.protocol, RouteProtocol::Any | RouteProtocol::Tcp);
        carries_anything && meet && (is_same_host || is_same_server)
    };
    if let Some(other) = config.routes.iter().find(shares) {
        report.add(
            Diagnostic::warning(plugin.span(), "what does not look like a request passes by this plugin")
                .label("only requests meet it")
                .also(other.to.span(), "carries everything else to the same place")
                .help("where nobody may pass, name the port (`listener_port`), or set `protocol = \"http\"` on that route"),
        );
    }
}

/// Warns of connections to servers that are chosen by what only requests have.
fn keyless(route: &Route, config: &Config, report: &mut Report) {
    let Target::Backend(name) = route.to.get_ref() else { return };
    let balance = config.backends.get(name).map(|backend| &backend.balance);
    if matches!(balance, Some(Balance::Header(_) | Balance::Cookie(_))) {
        report.add(
            Diagnostic::warning(route.to.span(), "TCP connections have no header and no cookie")
                .label("the servers of this backend take turns on this route"),
        );
    }
}

/// Reports a route that no listener's traffic can come to.
fn reachable(route: &Route, listeners: &[Listener], report: &mut Report) {
    let on_port = |listener: &&Listener| {
        route.listener_port.as_ref().is_none_or(|port| listener.may_have_port(*port.get_ref()))
    };
    let candidates: Vec<&Listener> = listeners.iter().filter(|listener| is_on(route, listener)).collect();
    // Unknown names and missing listeners have been reported.
    if candidates.is_empty() {
        return;
    }
    let candidates: Vec<&Listener> = candidates.into_iter().filter(on_port).collect();
    if candidates.is_empty() {
        if let Some(port) = &route.listener_port {
            report.add(no_port(port, listeners));
        }
    } else if !candidates.iter().any(|listener| carries(listener.protocol, route.protocol)) {
        report.add(wrong_protocol(route));
    }
}

/// Whether a route belongs to a listener, whatever its port.
fn is_on(route: &Route, listener: &Listener) -> bool {
    match &route.listeners {
        Some(names) => listener.name.as_ref().is_some_and(|name| names.contains(name)),
        None => true,
    }
}

fn no_port(port: &Spanned<u16>, listeners: &[Listener]) -> Diagnostic {
    let mut ports: Vec<String> =
        listeners.iter().map(|listener| listener.address.get_ref().ports().to_string()).collect();
    ports.sort_unstable();
    ports.dedup();
    Diagnostic::error(port.span(), "this route can never match")
        .label(format!("none of its listeners has port {port}"))
        .help(format!("ports of listeners in this file: {}", ports.join(", ")))
}

fn carries(listener: ListenerProtocol, route: RouteProtocol) -> bool {
    matches!(
        (listener, route),
        (ListenerProtocol::Auto, _)
            | (ListenerProtocol::Http, RouteProtocol::Http | RouteProtocol::Any)
            | (ListenerProtocol::Tcp, RouteProtocol::Tcp | RouteProtocol::Ssh | RouteProtocol::Any)
    )
}

fn wrong_protocol(route: &Route) -> Diagnostic {
    let (only, wanted) = if route.protocol.is_bytes() { ("HTTP", "tcp") } else { ("TCP", "http") };
    Diagnostic::error(route.to.span(), "this route can never match")
        .label(format!("{}, but its listeners carry only {only}", route.protocol.describe()))
        .help(format!(
            "set `protocol = \"auto\"` or `protocol = \"{wanted}\"` on a listener, or change the route's"
        ))
}
