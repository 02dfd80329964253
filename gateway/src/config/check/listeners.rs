//! Listeners and the admin address: nothing may be there twice.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use toml::Spanned;

use super::super::{AdminAddress, Config, diagnostic::Diagnostic, read::Names, report::Report};

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
    }
    admin(config, report);
}

fn addresses(config: &Config, report: &mut Report) {
    let mut seen: Vec<&Spanned<SocketAddr>> = Vec::new();
    for listener in &config.listeners {
        let address = &listener.address;
        // Port 0 is another port each time, but the address as it is written is what a listener is
        // recognised by after a reload.
        let is_taken = |first: &Spanned<SocketAddr>| {
            first.get_ref() == address.get_ref() || overlap(*first.get_ref(), *address.get_ref())
        };
        match seen.iter().find(|first| is_taken(first)) {
            Some(first) => report.add(taken(address, first)),
            None => seen.push(address),
        }
    }
}

/// A socket on `[::]` takes IPv4 connections too, so `0.0.0.0` beside it has nothing left.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    a.port() != 0
        && a.port() == b.port()
        && (a.ip() == b.ip() || (a.ip().is_unspecified() && b.ip().is_unspecified()))
}

fn taken(address: &Spanned<SocketAddr>, first: &Spanned<SocketAddr>) -> Diagnostic {
    let message = if address == first {
        format!("two listeners have the address `{address}`")
    } else {
        format!("`{address}` and `{first}` are the same port: `[::]` takes IPv4 connections too")
    };
    Diagnostic::error(address.span(), message).label("again here").also(first.span(), "first here")
}

/// The users' most frequent mistake: VMs are reached over IPv6.
fn ipv4_only(address: &Spanned<SocketAddr>, report: &mut Report) {
    if address.get_ref().ip() == IpAddr::V4(Ipv4Addr::UNSPECIFIED) {
        let port = address.get_ref().port();
        report.add(
            Diagnostic::warning(address.span(), "this listener cannot be reached over IPv6")
                .label("IPv4 only")
                .help(format!("\"[::]:{port}\" takes both IPv6 and IPv4")),
        );
    }
}

fn admin(config: &Config, report: &mut Report) {
    let Some(admin) = &config.admin.address else { return };
    let AdminAddress::Socket(address) = admin.get_ref() else { return };
    let clash = config.listeners.iter().find(|listener| overlap(*listener.address.get_ref(), *address));
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
