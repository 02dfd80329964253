//! Plugins and secrets: digests, origins, and the names of secrets and backends.

use http::Uri;
use toml::Spanned;

use super::{
    super::{
        Config, OciReference, Plugin, diagnostic::Diagnostic, read::Names, report::Report, target::host_port,
    },
    Known,
};

pub(super) fn check(config: &Config, names: &Names, report: &mut Report) {
    super::names("plugin", config.plugins.values().map(|plugin| &plugin.name), report);
    super::names("secret", config.secrets.values().map(|secret| &secret.name), report);
    let secrets = Known {
        kind: "secret",
        none: "this file has none; define one with `[secret.NAME]`",
        names: names.secrets.as_deref(),
    };
    let backends = Known {
        kind: "backend",
        none: "this file has none; define one with `[backend.NAME]`, or write \"host:port\"",
        names: names.backends.as_deref(),
    };
    for plugin in config.plugins.values() {
        component(&plugin.component, report);
        if let Some(digest) = &plugin.sha256 {
            sha256(digest, report);
        }
        bodies(config, plugin, report);
        for origin in &plugin.grants.http {
            check_origin(origin, report);
        }
        for secret in &plugin.grants.secrets {
            secrets.check(secret, report);
        }
        for backend in &plugin.grants.backends {
            if host_port(backend.get_ref()).is_none() {
                backends.check(backend, report);
            }
        }
    }
    if let Some(token) = &config.admin.token {
        secrets.check(token, report);
    }
}

/// A reference to a registry is pinned: who can move a tag must not decide what runs here.
pub(super) fn component(component: &Spanned<String>, report: &mut Report) {
    let text = component.get_ref();
    if !OciReference::is_meant(text) {
        return;
    }
    match text.parse::<OciReference>() {
        Ok(reference) if reference.digest.is_some() => {}
        Ok(_) => report.add(
            Diagnostic::error(component.span(), format!("`{text}` is not pinned"))
                .label("a tag may be moved: expected `oci://HOST/NAME@sha256:…`")
                .help(format!(
                    "`vers-gateway plugin fetch {text}` fetches it, and prints what to write here"
                )),
        ),
        Err(error) => report.add(
            Diagnostic::error(component.span(), format!("`{text}` is no reference to a component"))
                .label(error.to_string()),
        ),
    }
}

/// A body that it may ask for has to find room, at the gateway and in an instance.
fn bodies(config: &Config, plugin: &Plugin, report: &mut Report) {
    let (name, body) = (&plugin.name, plugin.limits.body);
    for (most, key) in [
        (plugin.limits.memory, "the memory of an instance (`limits.memory`)"),
        (config.limits.held_bodies, "what a worker holds of bodies (`[limits]` `held_bodies`)"),
    ] {
        if body > most {
            report.add(
                Diagnostic::error(
                    name.span(),
                    format!("plugin `{name}` may ask for bodies that find no room"),
                )
                .label(format!("`limits.body` is {body}, and {key} is {most}")),
            );
        }
    }
    let limits = &plugin.limits;
    if let Some(transforms) = limits.transforms
        && transforms >= limits.instances
        && limits.instances > 1
    {
        report.add(
            Diagnostic::error(name.span(), format!("plugin `{name}` may be kept from requests by bodies"))
                .label(format!(
                    "`limits.transforms` is {transforms}, and `limits.instances` is {}: each body keeps one",
                    limits.instances
                ))
                .help("let it transform fewer at a time, or have more instances"),
        );
    }
}

pub(super) fn sha256(digest: &Spanned<String>, report: &mut Report) {
    const DIGITS: usize = 64;
    let text = digest.get_ref();
    let bad = text.chars().find(|digit| !digit.is_ascii_hexdigit());
    let label = match (text.len(), bad) {
        (_, Some(bad)) => format!("`{}` is not a hexadecimal digit", bad.escape_debug()),
        (DIGITS, None) => return,
        (length, None) => format!("expected {DIGITS} digits, these are {length}"),
    };
    report.add(
        Diagnostic::error(digest.span(), "not a SHA-256 digest")
            .label(label)
            .help("`sha256sum FILE` prints it"),
    );
}

pub(super) fn check_origin(origin: &Spanned<String>, report: &mut Report) {
    if is_origin(origin.get_ref()) {
        return;
    }
    let diagnostic = Diagnostic::error(origin.span(), format!("`{origin}` is not an origin"))
        .label("expected `https://HOST` or `https://HOST:PORT`, or the same with `http`");
    report.add(match nearest_origin(origin.get_ref()) {
        Some(near) => diagnostic.help(format!("write \"{near}\": a grant is for all paths of an origin")),
        None => diagnostic,
    });
}

/// Scheme, host and perhaps a port; nothing else but a slash at the end.
fn is_origin(text: &str) -> bool {
    let text = text.strip_suffix('/').unwrap_or(text);
    let authority = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    authority.is_some_and(|authority| {
        host_port(authority).is_some() || host_port(&format!("{authority}:443")).is_some()
    })
}

/// The origin of a URL.
fn nearest_origin(text: &str) -> Option<String> {
    let uri: Uri = text.parse().ok()?;
    let origin = format!("{}://{}", uri.scheme_str()?, uri.authority()?);
    is_origin(&origin).then_some(origin)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        for text in [
            "https://infra.example.com",
            "https://infra.example.com:3000",
            "http://[::1]:3000",
            "http://[::1]",
            "http://localhost:80",
            "https://a/",
        ] {
            assert!(is_origin(text), "{text:?}");
        }
        for text in [
            "infra.example.com",
            "https://",
            "https://a/path",
            "https://a//",
            "https://*.example.com",
            "https://user@a",
            "ftp://a",
            "https://a:0",
            "https://a:99999",
        ] {
            assert!(!is_origin(text), "{text:?}");
        }
        assert_eq!(nearest_origin("https://a:1/x?y").as_deref(), Some("https://a:1"));
        assert_eq!(nearest_origin("a.example"), None);
    }
}
