//! Backends: servers are addresses, and what is said of them makes sense together.

use http::HeaderName;
use std::net::IpAddr;
use toml::Spanned;

use super::{
    super::{
        Backend, BackendLimits, BackendProtocol, BackendTls, Balance, Config, Discover, Health, ServerTls,
        describe::list, diagnostic::Diagnostic, nearest::nearest, report::Report, target::host_port,
    },
    targets,
};

pub(super) fn check(config: &Config, report: &mut Report) {
    super::names("backend", config.backends.values().map(|backend| &backend.name), report);
    for server in config.backends.values().flat_map(|backend| &backend.servers) {
        if host_port(server.get_ref()).is_some() {
            continue;
        }
        let diagnostic = Diagnostic::error(server.span(), format!("`{server}` is not an address"))
            .label("expected an address such as \"127.0.0.1:3000\"");
        report.add(match targets::advice(server.get_ref()) {
            Some(advice) => diagnostic.help(advice),
            None => diagnostic,
        });
    }
    for backend in config.backends.values() {
        servers(backend, report);
        balance(&backend.balance, report);
        tls(backend, report);
        if let Some(written) = &backend.health {
            health(written, report);
        }
        let BackendLimits { connections, pending, wait } = backend.limits;
        let unlimited = BackendLimits::default();
        if connections.is_none() && (pending, wait) != (unlimited.pending, unlimited.wait) {
            report.add(
                Diagnostic::warning(backend.name.span(), "nothing ever waits for this backend")
                    .label("its `limits` have no `connections`"),
            );
        }
    }
}

/// They are either listed or discovered.
fn servers(backend: &Backend, report: &mut Report) {
    match (&backend.discover, backend.servers.first()) {
        (Some(discover), Some(server)) => report.add(
            Diagnostic::error(discover.span(), "servers are either listed or discovered")
                .label("remove `discover`, or `servers`")
                .also(server.span(), "listed here"),
        ),
        (Some(discover), None) => self::discover(discover.get_ref(), report),
        (None, _) => {}
    }
}

fn discover(discover: &Discover, report: &mut Report) {
    let role = discover.role.get_ref();
    if !Discover::ROLES.contains(&role.as_str()) {
        let label = match nearest(role, Discover::ROLES) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "no VM can have this role".to_owned(),
        };
        report.add(
            Diagnostic::error(discover.role.span(), format!("no role is named `{}`", role.escape_debug()))
                .label(label)
                .help(format!("roles: {}", list(&Discover::ROLES))),
        );
    }
    let service = discover.service.get_ref();
    if service.is_empty() || service.contains(char::is_control) {
        report.add(
            Diagnostic::error(discover.service.span(), "not the name of a service")
                .label("expected a name such as \"api\""),
        );
    }
}

fn balance(balance: &Balance, report: &mut Report) {
    match balance {
        Balance::Header(name) if HeaderName::from_bytes(name.get_ref().as_bytes()).is_err() => {
            report.add(
                Diagnostic::error(name.span(), format!("`{name}` is not the name of a header"))
                    .label("no request has this"),
            );
        }
        // RFC 6265 §4.1.1: it is a token, as a header's is.
        Balance::Cookie(name) if HeaderName::from_bytes(name.get_ref().as_bytes()).is_err() => {
            report.add(
                Diagnostic::error(name.span(), format!("`{name}` is not the name of a cookie"))
                    .label("no request has this"),
            );
        }
        _ => {}
    }
}

/// It fits to what is spoken over it, and is whole.
fn tls(backend: &Backend, report: &mut Report) {
    let place = backend.name.span();
    let ServerTls { name, cert, key, .. } = match (&backend.tls, backend.protocol) {
        (BackendTls::Off, BackendProtocol::H2) => {
            let error = Diagnostic::error(place, "`h2` is HTTP/2 over TLS, and there is none")
                .label("expected `tls = true` beside `protocol = \"h2\"`")
                .help("HTTP/2 without TLS is `protocol = \"h2c\"`");
            return report.add(error);
        }
        (BackendTls::Off, _) => return,
        (BackendTls::On(_), BackendProtocol::H2c) => {
            let error = Diagnostic::error(place, "`h2c` is HTTP/2 without TLS, and there is `tls`")
                .label("expected `protocol = \"h2\"`");
            return report.add(error);
        }
        (BackendTls::On(tls), _) => tls,
    };
    let alone = match (cert, key) {
        (Some(cert), None) => Some((cert, "cert", "key")),
        (None, Some(key)) => Some((key, "key", "cert")),
        _ => None,
    };
    if let Some((written, there, missing)) = alone {
        report.add(
            Diagnostic::error(written.span(), format!("`{there}` needs `{missing}`"))
                .label(format!("expected `{missing}` beside it")),
        );
    }
    let is_name = |name: &str| {
        let is_label = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
        name.parse::<IpAddr>().is_ok() || (!name.is_empty() && name.len() < 254 && name.bytes().all(is_label))
    };
    if let Some(name) = name.as_ref().filter(|name| !is_name(name.get_ref())) {
        report.add(
            Diagnostic::error(name.span(), format!("`{}` is no host", name.get_ref().escape_debug()))
                .label("expected a name or an IP address, without a port"),
        );
    }
}

fn health(written: &Spanned<Health>, report: &mut Report) {
    let health = written.get_ref();
    match &health.path {
        None if !health.tcp => report.add(
            Diagnostic::error(written.span(), "`health` does not say how to ask")
                .label("expected `path = \"/health\"`, or `tcp = true`"),
        ),
        Some(path) if health.tcp => report.add(
            Diagnostic::error(path.span(), "`health` asks either for a path or for a connection")
                .label("remove `path`, or `tcp`"),
        ),
        Some(path) if !is_path(path.get_ref()) => report.add(
            Diagnostic::error(path.span(), format!("`{}` is not a path", path.get_ref().escape_debug()))
                .label("expected a path such as \"/health\""),
        ),
        _ => {}
    }
    if let Some(host) = &health.host
        && (host.get_ref().is_empty() || !host.get_ref().bytes().all(|byte| byte.is_ascii_graphic()))
    {
        report.add(
            Diagnostic::error(host.span(), format!("`{}` is not a host", host.get_ref().escape_debug()))
                .label("expected a name such as \"app.example.com\""),
        );
    }
}

fn is_path(path: &str) -> bool {
    path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#')
}
