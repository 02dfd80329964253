//! Components that answer requests: digests, where they may send requests, and what they see of the environment.

use toml::Spanned;

use super::{
    super::{Config, Origin, diagnostic::Diagnostic, read::Names, report::Report},
    Known, plugins,
};

pub(super) fn check(config: &Config, names: &Names, report: &mut Report) {
    super::names("origin", config.origins.values().map(|origin| &origin.name), report);
    let secrets = Known {
        kind: "secret",
        none: "this file has none; define one with `[secret.NAME]`",
        names: names.secrets.as_deref(),
    };
    for origin in config.origins.values() {
        plugins::component(&origin.component, report);
        if let Some(digest) = &origin.sha256 {
            plugins::sha256(digest, report);
        }
        for granted in &origin.grants.http {
            plugins::check_origin(granted, report);
        }
        for secret in origin.secret_env.values() {
            secrets.check(secret, report);
        }
        variables(origin, report);
    }
}

/// What no program could read, and what would have two values.
fn variables(origin: &Origin, report: &mut Report) {
    for (name, value) in origin.env.iter().chain(&origin.secret_env) {
        if name.is_empty() || name.contains(['=', '\0']) || value.get_ref().contains('\0') {
            report.add(
                Diagnostic::error(value.span(), format!("`{}` is no variable", name.escape_debug()))
                    .label("its name is empty or has a `=`, or there is a NUL in it"),
            );
        }
    }
    for (name, secret) in &origin.secret_env {
        if let Some(value) = origin.env.get(name) {
            report.add(twice(name, secret, value));
        }
    }
}

fn twice(name: &str, secret: &Spanned<String>, value: &Spanned<String>) -> Diagnostic {
    Diagnostic::error(secret.span(), format!("`{name}` has two values"))
        .label("a secret here")
        .also(value.span(), "and a value in `env`")
}
