//! `[registry]`: its secret exists, somebody asks it, and not everybody may.

use std::ops::Range;

use toml::Spanned;

use super::{
    super::{
        Config, Registry, RegistryAddresses, RegistryStore, RegistryUrl, Resolve, Route, Target,
        diagnostic::Diagnostic, read::Names, report::Report,
    },
    Known,
    vms::no_networks,
};

pub(super) fn check(config: &Config, names: &Names, report: &mut Report) {
    let routes: Vec<&Route> =
        config.routes.iter().filter(|route| *route.to.get_ref() == Target::Registry).collect();
    let url = config.registry.as_ref().and_then(|registry| registry.url.as_ref());
    let token = config.registry.as_ref().and_then(|registry| registry.token.as_ref());
    let admin_token = config.registry.as_ref().and_then(|registry| registry.admin_token.as_ref());
    let secrets = Known {
        kind: "secret",
        none: "this file has none; define one with `[secret.NAME]`",
        names: names.secrets.as_deref(),
    };
    for token in token.into_iter().chain(admin_token) {
        secrets.check(token, report);
    }
    let etcd = config.registry.as_ref().and_then(|registry| registry.etcd.as_ref());
    if let Some(password) = etcd.and_then(|etcd| etcd.get_ref().password.as_ref()) {
        secrets.check(password, report);
    }
    if let Some(registry) = &config.registry {
        in_etcd(registry, report);
    }
    if token.is_none()
        && let Some(open) = routes.iter().find(|route| route.plugins.is_empty() && url.is_none())
    {
        report.add(
            Diagnostic::warning(open.to.span(), "everybody who reaches this route may change the registry")
                .label("no token, and no plugin that asks for one")
                .help(
                    "for example\n[registry]\ntoken = \"fleet\"\n[secret.fleet]\nenv = \"VERS_AUTH_TOKEN\"",
                ),
        );
    }
    if let Some(registry) = &config.registry {
        no_networks(registry.networks.as_deref(), registry.name.span(), report);
        if let Some(domain) = &registry.names_below
            && registry.addresses == RegistryAddresses::Any
        {
            report.add(
                Diagnostic::warning(domain.span(), "VMs may register any name")
                    .label("this changes nothing")
                    .help("with `addresses = \"own\"`, they may register their name below it"),
            );
        }
    }
    let askers = askers(config);
    match (&config.registry, url) {
        (Some(registry), Some(url)) => elsewhere(registry, url, &routes, report),
        // VMs register at another gateway of it.
        (Some(registry), None) if members(registry).is_some() => {}
        _ if routes.is_empty() => {
            for (span, label) in &askers {
                report.add(
                    Diagnostic::error(span.clone(), "no VM can register").label(*label).help(
                        "for example\n[[route]]\npath = \"/registry/*\"\nto = \"registry\"\n\
                         or, where it is another gateway's,\n[registry]\nurl = \"https://infra.vm.example.com:3000\"",
                    ),
                );
            }
        }
        _ => {}
    }
    if let Some(Registry { name, .. }) = &config.registry
        && routes.is_empty()
        && askers.is_empty()
    {
        report.add(
            Diagnostic::warning(name.span(), "`registry` is never used")
                .label("no route goes to it")
                .help("a route that does has `path = \"/registry/*\"` and `to = \"registry\"`"),
        );
    }
}

/// The members of etcd that the registry is in, where it is.
fn members(registry: &Registry) -> Option<&[String]> {
    match registry.store.as_ref().map(Spanned::get_ref) {
        Some(RegistryStore::Etcd(members)) => Some(members),
        _ => None,
    }
}

/// What is said of etcd fits together, and to the store.
fn in_etcd(registry: &Registry, report: &mut Report) {
    let Some(etcd) = &registry.etcd else { return };
    let Some(members) = members(registry) else {
        return report.add(
            Diagnostic::error(etcd.span(), "the registry is not in etcd")
                .label("changes nothing")
                .help("where it is to be, there is `store = \"etcd:http://localhost:2379\"`"),
        );
    };
    let etcd = etcd.get_ref();
    let pairs = [("user", &etcd.user, "password", &etcd.password), ("cert", &etcd.cert, "key", &etcd.key)];
    for (one, first, other, second) in pairs {
        let alone = match (first, second) {
            (Some(first), None) => Some((first, one, other)),
            (None, Some(second)) => Some((second, other, one)),
            _ => None,
        };
        if let Some((span, there, missing)) = alone {
            report.add(
                Diagnostic::error(span.span(), format!("`{there}` needs `{missing}`"))
                    .label(format!("expected `{missing}` beside it")),
            );
        }
    }
    if let (Some(user), true) = (&etcd.user, members.iter().any(|member| member.starts_with("http:"))) {
        report.add(
            Diagnostic::warning(user.span(), "etcd is told the password without TLS")
                .label("whoever listens on the way may read it")
                .help("write `https://` in `store`"),
        );
    }
    let of_tls = [("ca", &etcd.ca), ("cert", &etcd.cert)];
    if members.iter().all(|member| member.starts_with("http:"))
        && let Some((key, place)) = of_tls.into_iter().find_map(|(key, place)| Some((key, place.as_ref()?)))
    {
        report.add(
            Diagnostic::error(place.span(), format!("`{key}` is of TLS, and etcd is asked without"))
                .label("write `https://` in `store`, or remove this"),
        );
    }
}

/// Who wants to know something of a registry, but for routes to it.
fn askers(config: &Config) -> Vec<(Range<usize>, &'static str)> {
    let resolves = config.vms.as_ref().filter(|vms| vms.resolution() == Resolve::Registry);
    let resolves = resolves.map(|vms| {
        let span = vms.resolve.as_ref().map(Spanned::span).unwrap_or_default();
        (span, "VMs are looked up in the registry of this gateway")
    });
    let discovers = config.backends.values().filter_map(|backend| backend.discover.as_ref());
    let discovers =
        discovers.map(|discover| (discover.span(), "servers are discovered in the registry of this gateway"));
    resolves.into_iter().chain(discovers).collect()
}

/// What a registry that is somebody else's cannot have.
fn elsewhere(registry: &Registry, url: &Spanned<RegistryUrl>, routes: &[&Route], report: &mut Report) {
    if let Some(route) = routes.first() {
        report.add(
            Diagnostic::error(route.to.span(), "this gateway is no registry")
                .label("requests for a registry go to its own address")
                .also(url.span(), "it is there"),
        );
    }
    let (own, usual) = ((registry.ttl, registry.retention, registry.strict_conflict), Registry::default());
    if own != (usual.ttl, usual.retention, usual.strict_conflict) {
        report.add(
            Diagnostic::warning(registry.name.span(), "the registry decides on leases, where it is")
                .label("`ttl`, `retention` and `strict_conflict` change nothing here")
                .also(url.span(), "it is there"),
        );
    }
    if let Some(store) = &registry.store {
        report.add(
            Diagnostic::error(store.span(), "entries are kept where the registry is")
                .label("remove `store`, or `url`")
                .also(url.span(), "it is there"),
        );
    }
}
