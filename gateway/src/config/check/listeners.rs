//! Listeners and the admin address: nothing may be there twice.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use toml::Spanned;

use super::super::{
    Admin, AdminAddress, Config, Listener, ProxyProtocol, diagnostic::Diagnostic, read::Names, report::Report,
};
use crate::ports::ListenAddress;

pub(super) fn check(config: &Config, names: &Names, report: &mut Report) {
    if names.listener_count == 0 {
        report.add(
            Diagnostic::error(0..0, "the file has no `[[listener]]`, so nobody could connect")
                .help("for example\n[[listener]]\naddress = \"[::]:8080\""),
        );
    }
    super::names("listener", config.listeners.iter().filter_map(|listener| listener.name.as_ref()), report);
    addresses(config, report);
    for listener in &config.listeners {
        ipv4_only(&listener.address, report);
        let trusted = listener.trusted_proxies.as_ref().unwrap_or(&config.gateway.trusted_proxies);
        rules(listener, trusted.is_empty(), report);
    }
    admin(config, report);
}

fn addresses(config: &Config, report: &mut Report) {
    let mut seen: Vec<&Spanned<ListenAddress>> = Vec::new();
    for listener in &config.listeners {
        let address = &listener.address;
        // Port 0 is another port each time, but the address as it is written is what a listener is
        // recognised by after a reload.
        let is_taken = |first: &Spanned<ListenAddress>| {
            first.get_ref() == address.get_ref() || first.get_ref().clash(address.get_ref()).is_some()
        };
        match seen.iter().find(|first| is_taken(first)) {
            Some(first) => report.add(taken(address, first)),
            None => seen.push(address),
        }
    }
}

fn taken(address: &Spanned<ListenAddress>, first: &Spanned<ListenAddress>) -> Diagnostic {
    let message = if address == first {
        format!("two listeners have the address `{address}`")
    } else if address.get_ref().ip() == first.get_ref().ip() {
        let port = address.get_ref().clash(first.get_ref()).unwrap_or_default();
        format!("two listeners have port {port} of the same address")
    } else {
        format!("`{address}` and `{first}` are the same port: `[::]` takes IPv4 connections too")
    };
    Diagnostic::error(address.span(), message).label("again here").also(first.span(), "first here")
}

/// Rules that leave a listener nothing, and a header that nobody may send.
fn rules(listener: &Listener, trusts_nobody: bool, report: &mut Report) {
    let ports = listener.address.get_ref().ports();
    let allowed = listener.ports.allow.iter().flatten();
    for rule in allowed.chain(&listener.ports.deny) {
        if !listener.has_other_ports() && !ports.contains(0) && ports.first_common(rule.get_ref()).is_none() {
            report.add(
                Diagnostic::warning(rule.span(), "no connection to this listener asks for these ports")
                    .label(format!("its ports are {ports}")),
            );
        }
    }
    if listener.ports.allow.as_ref().is_some_and(Vec::is_empty) {
        report.add(
            Diagnostic::warning(listener.address.span(), "`ports.allow` of this listener is empty")
                .label("refuses every connection"),
        );
    }
    if listener.proxy_protocol != ProxyProtocol::Off && trusts_nobody {
        let diagnostic = match listener.proxy_protocol {
            ProxyProtocol::Require => Diagnostic::error(
                listener.address.span(),
                "this listener wants a PROXY header from everyone and believes it from nobody",
            )
            .label("would close every connection"),
            _ => Diagnostic::warning(
                listener.address.span(),
                "nobody may send a PROXY header to this listener",
            )
            .label("`proxy_protocol` has no effect"),
        };
        report.add(diagnostic.help("name the proxies: `trusted_proxies = [\"10.0.0.0/8\"]`"));
    }
}

/// The users' most frequent mistake: VMs are reached over IPv6.
fn ipv4_only(address: &Spanned<ListenAddress>, report: &mut Report) {
    if address.get_ref().ip() == IpAddr::V4(Ipv4Addr::UNSPECIFIED) {
        let port = address.get_ref().ports();
        report.add(
            Diagnostic::warning(address.span(), "this listener cannot be reached over IPv6")
                .label("IPv4 only")
                .help(format!("\"[::]:{port}\" takes both IPv6 and IPv4")),
        );
    }
}

fn admin(config: &Config, report: &mut Report) {
    let Some(admin) = &config.admin.address else {
        return default_admin(config, report);
    };
    let AdminAddress::Socket(address) = admin.get_ref() else { return };
    let clash = config.listeners.iter().find(|listener| clashes(listener, *address));
    if let Some(listener) = clash {
        report.add(
            Diagnostic::error(admin.span(), "a listener has this address")
                .label("again here")
                .also(listener.address.span(), "first here"),
        );
    }
    if !address.ip().is_loopback() && config.admin.token.is_none() {
        report.add(
            Diagnostic::warning(
                admin.span(),
                "anyone who reaches this address can see and reload the gateway",
            )
            .label("reachable from other machines")
            .help("ask for a token: `token = \"NAME\"`, with `[secret.NAME]`"),
        );
    }
}

/// Whether a listener leaves nothing to an address of one port. A socket on every address of the
/// machine takes the port on each of them.
fn clashes(listener: &Listener, address: SocketAddr) -> bool {
    let ours = listener.address.get_ref();
    let is_part = ours.ports().contains(address.port()) && address.port() != 0;
    ours.clash(&address.into()).is_some() || (is_part && ours.ip().is_unspecified())
}

/// The admin address that nobody wrote down gives way.
fn default_admin(config: &Config, report: &mut Report) {
    let default = Admin::DEFAULT_ADDRESS;
    if let Some(listener) = config.listeners.iter().find(|listener| clashes(listener, default)) {
        report.add(
            Diagnostic::warning(listener.address.span(), "the gateway runs without an admin address")
                .label(format!("has port {}, where that is by default", default.port()))
                .help("give it another: `[admin]`, `address = \"unix:/run/vers-gateway/admin.sock\"`"),
        );
    }
}
