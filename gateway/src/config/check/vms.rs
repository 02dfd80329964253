//! `[vms]`: it says one way to find a VM, and addresses that a VM may have.

use std::{net::IpAddr, ops::Range};

use ipnet::IpNet;
use toml::Spanned;

use super::super::{Config, Resolve, Target, Vms, diagnostic::Diagnostic, report::Report};

pub(super) fn check(config: &Config, report: &mut Report) {
    let Some(vms) = &config.vms else { return };
    one_way(vms, report);
    no_networks(vms.networks.as_deref(), vms.name.span(), report);
    for (name, address) in &vms.table {
        match address.get_ref().parse::<IpAddr>() {
            Err(_) => report.add(
                Diagnostic::error(address.span(), format!("`{address}` is not an IP address"))
                    .label(format!("where `{name}` is")),
            ),
            Ok(ip) if ip.to_canonical().is_ipv4() && !vms.allow_ipv4 => report.add(
                Diagnostic::error(address.span(), "VMs are reached over IPv6")
                    .label("an IPv4 address")
                    .help("if this VM has no other, set `allow_ipv4 = true` in `[vms]`"),
            ),
            Ok(ip) if ip.to_canonical().is_unspecified() || ip.is_multicast() => report.add(
                Diagnostic::error(address.span(), "this is no address of one machine")
                    .label(format!("where `{name}` is")),
            ),
            Ok(ip) => {
                let is_inside = |network: &Spanned<IpNet>| network.get_ref().contains(&ip.to_canonical());
                if vms.networks.as_ref().is_some_and(|networks| !networks.iter().any(is_inside)) {
                    report.add(
                        Diagnostic::error(address.span(), "it is in no network that VMs are in")
                            .label("not in `networks`"),
                    );
                }
            }
        }
    }
    let of_registry = config.registry.as_ref().and_then(|registry| registry.networks.as_ref());
    let of_others = match vms.resolution() {
        Resolve::Static => None,
        Resolve::Dns => Some("DNS"),
        Resolve::Registry => Some("whoever registers").filter(|_| of_registry.is_none()),
    };
    if let Some(who) = of_others.filter(|_| vms.networks.is_none()) {
        report.add(
            Diagnostic::warning(vms.name.span(), format!("{who} chooses which addresses clients reach through this gateway"))
                .label("no `networks`")
                .help("name those that VMs are in, for example `networks = [\"2001:db8:a::/48\"]`; without it, only loopback and link-local ones are refused"),
        );
    }
    if !config.routes.iter().any(|route| matches!(route.to.get_ref(), Target::Vm(_))) {
        report.add(
            Diagnostic::warning(vms.name.span(), "`vms` is never used")
                .label("no route goes to a VM")
                .help("a route that does has `to = \"vm:{vm}:{port}\"`"),
        );
    }
}

/// An empty list lets nobody be anywhere, which nobody means.
pub(super) fn no_networks(networks: Option<&[Spanned<IpNet>]>, table: Range<usize>, report: &mut Report) {
    if networks.is_some_and(<[_]>::is_empty) {
        report.add(
            Diagnostic::error(table, "`networks` is empty, so that no address would be in one")
                .label("in this table")
                .help("for example `networks = [\"2001:db8:a::/48\"]`; without it, loopback and link-local addresses are refused"),
        );
    }
}

fn one_way(vms: &Vms, report: &mut Report) {
    let resolution = vms.resolution();
    let place = vms.resolve.as_ref().map_or(vms.name.span(), Spanned::span);
    let is_empty = vms.table.is_empty() && vms.file.is_none();
    match resolution {
        Resolve::Registry if !is_empty => {
            let table = vms.table.values().next().map(Spanned::span);
            let span = vms.file.as_ref().map(Spanned::span).or(table).unwrap_or_default();
            report.add(
                Diagnostic::error(span, "VMs are found either in the registry or in a table")
                    .label("remove this, or `resolve`"),
            );
        }
        Resolve::Dns if vms.dns.is_none() => report.add(
            Diagnostic::error(place, "`[vms]` does not say by which names")
                .label("expected `dns = \"{vm}.internal\"` beside it"),
        ),
        Resolve::Static if is_empty => report.add(
            Diagnostic::error(place, "`[vms]` does not say where VMs are")
                .label("expected `dns`, `table` or `file`")
                .help("for example `dns = \"{vm}.internal\"`, or `file = \"vms.csv\"`"),
        ),
        _ => {}
    }
    if resolution == Resolve::Dns {
        let table = vms.table.values().next().map(Spanned::span);
        if let Some(span) = vms.file.as_ref().map(Spanned::span).or(table) {
            report.add(
                Diagnostic::error(span, "VMs are found either by DNS or in a table")
                    .label("remove this, or `dns`"),
            );
        }
    } else if let Some(dns) = &vms.dns {
        report.add(
            Diagnostic::error(dns.span(), "VMs are found either by DNS or in a table")
                .label("remove this, or `resolve`"),
        );
    }
    if resolution != Resolve::Dns
        && let Some(server) = vms.nameservers.first()
    {
        report.add(
            Diagnostic::warning(server.span(), "no name server is asked").label("VMs are not found by DNS"),
        );
    }
}
