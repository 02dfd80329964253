//! `[registry]`: its secret exists, somebody asks it, and not everybody may.

use super::{
    super::{
        Config, Registry, Resolve, Route, Target, Vms, diagnostic::Diagnostic, read::Names, report::Report,
    },
    Known,
};

pub(super) fn check(config: &Config, names: &Names, report: &mut Report) {
    let routes: Vec<&Route> =
        config.routes.iter().filter(|route| *route.to.get_ref() == Target::Registry).collect();
    let token = config.registry.as_ref().and_then(|registry| registry.token.as_ref());
    if let Some(token) = token {
        let secrets = Known {
            kind: "secret",
            none: "this file has none; define one with `[secret.NAME]`",
            names: names.secrets.as_deref(),
        };
        secrets.check(token, report);
    } else if let Some(open) = routes.iter().find(|route| route.plugins.is_empty()) {
        report.add(
            Diagnostic::warning(open.to.span(), "everybody who reaches this route may change the registry")
                .label("no token, and no plugin that asks for one")
                .help(
                    "for example\n[registry]\ntoken = \"fleet\"\n[secret.fleet]\nenv = \"VERS_AUTH_TOKEN\"",
                ),
        );
    }
    let resolves = config.vms.as_ref().map(Vms::resolution) == Some(Resolve::Registry);
    if let Some(Registry { name, .. }) = &config.registry
        && routes.is_empty()
        && !resolves
    {
        report.add(
            Diagnostic::warning(name.span(), "`registry` is never used")
                .label("no route goes to it")
                .help("a route that does has `path = \"/registry/*\"` and `to = \"registry\"`"),
        );
    }
    if resolves && routes.is_empty() {
        let vms = config.vms.as_ref().and_then(|vms| vms.resolve.as_ref());
        report.add(
            Diagnostic::error(vms.map(toml::Spanned::span).unwrap_or_default(), "no VM can register")
                .label("VMs are looked up in the registry of this gateway")
                .help("for example\n[[route]]\npath = \"/registry/*\"\nto = \"registry\""),
        );
    }
}
