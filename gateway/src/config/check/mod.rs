//! Compares the tables of a file with each other and looks into their values. Pure: no I/O.

mod backends;
mod certificates;
mod listeners;
mod origins;
mod plugins;
mod registry;
mod routes;
mod targets;
mod vms;

use toml::Spanned;

use super::{
    Config, Target, describe::list, diagnostic::Diagnostic, nearest::nearest, read::Names, report::Report,
};

/// Reports what is wrong with a file whose tables could be read, or with those that could.
pub(super) fn check(config: &Config, names: &Names, report: &mut Report) {
    listeners::check(config, names, report);
    routes::check(config, names, report);
    backends::check(config, report);
    vms::check(config, report);
    registry::check(config, names, report);
    plugins::check(config, names, report);
    origins::check(config, names, report);
    certificates::check(config, names, report);
    unused(config, report);
}

/// The names there are of one kind of table.
#[derive(Clone, Copy)]
struct Known<'n> {
    /// What the table is called in messages.
    kind: &'n str,
    /// What to say if there are none.
    none: &'n str,
    /// Absent if they cannot be told; then nothing is reported.
    names: Option<&'n [String]>,
}

impl Known<'_> {
    /// Reports a name that no table has.
    fn check(self, name: &Spanned<String>, report: &mut Report) {
        if !self.has(name.get_ref()) {
            report.add(self.unknown(name.get_ref(), name.span()));
        }
    }

    fn has(self, name: &String) -> bool {
        self.names.is_none_or(|names| names.contains(name))
    }

    fn unknown(self, name: &str, span: std::ops::Range<usize>) -> Diagnostic {
        let Self { kind, none, names } = self;
        let known: Vec<&str> = names.into_iter().flatten().map(String::as_str).collect();
        let label = match nearest(name, known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "not defined".to_owned(),
        };
        let help = match known.as_slice() {
            [] => none.to_owned(),
            _ => format!("{kind}s of this file: {}", list(&known)),
        };
        Diagnostic::error(span, format!("no {kind} is named `{name}`")).label(label).help(help)
    }
}

/// Reports names that cannot be printed in a log line, and names given twice.
fn names<'n>(kind: &str, names: impl IntoIterator<Item = &'n Spanned<String>>, report: &mut Report) {
    let mut seen: Vec<&Spanned<String>> = Vec::new();
    for name in names {
        if name.get_ref().is_empty() || name.get_ref().contains(char::is_control) {
            report.add(Diagnostic::error(name.span(), "not a name").label("expected printable text"));
        }
        match seen.iter().find(|first| *first == &name) {
            Some(first) => report.add(
                Diagnostic::error(name.span(), format!("two {kind}s are named `{name}`"))
                    .label("again here")
                    .also(first.span(), "first here"),
            ),
            None => seen.push(name),
        }
    }
}

/// Warns of what is defined and never used. Only errors are reported beside errors, so a route that
/// could not be read makes nothing unused.
fn unused(config: &Config, report: &mut Report) {
    let routes = || config.routes.iter();
    for (name, backend) in &config.backends {
        let uses = |route: &super::Route| *route.to.get_ref() == Target::Backend(name.clone());
        let granted = config.plugins.values().flat_map(|plugin| &plugin.grants.backends);
        if !routes().any(uses) && !granted.into_iter().any(|granted| granted.get_ref() == name) {
            report.add(never_used(&backend.name, "no route goes to this backend"));
        }
    }
    for (name, plugin) in &config.plugins {
        let uses = |used: &Spanned<super::PluginUse>| used.get_ref().name.get_ref() == name;
        if !routes().flat_map(|route| &route.plugins).any(uses) {
            report.add(never_used(&plugin.name, "no route uses this plugin"));
        }
    }
    for (name, origin) in &config.origins {
        let uses = |route: &super::Route| *route.to.get_ref() == Target::Wasm(name.clone());
        if !routes().any(uses) {
            report.add(never_used(&origin.name, "no route goes to this origin"));
        }
    }
    if !config.listeners.iter().any(|listener| listener.tls) {
        for certificate in config.certificates.values() {
            report.add(never_used(&certificate.name, "no listener has `tls = true`"));
        }
    }
    for (name, secret) in &config.secrets {
        let of_registry = config.registry.iter().flat_map(|registry| {
            let of_etcd = registry.etcd.as_ref().and_then(|etcd| etcd.get_ref().password.as_ref());
            registry.token.iter().chain(&registry.admin_token).chain(of_etcd)
        });
        let granted = config.plugins.values().flat_map(|plugin| &plugin.grants.secrets);
        let of_origins = config.origins.values().flat_map(|origin| origin.secret_env.values());
        if !granted
            .chain(of_origins)
            .chain(&config.admin.token)
            .chain(of_registry)
            .any(|used| used.get_ref() == name)
        {
            report.add(never_used(&secret.name, "nothing may read this secret"));
        }
    }
}

fn never_used(name: &Spanned<String>, label: &str) -> Diagnostic {
    Diagnostic::warning(name.span(), format!("`{name}` is never used")).label(label)
}
