//! Certificates: their names are names, and TLS listeners have one to show.

use toml::Spanned;

use super::super::{Config, Listener, diagnostic::Diagnostic, read::Names, report::Report};

pub(super) fn check(config: &Config, names: &Names, report: &mut Report) {
    for certificate in config.certificates.values() {
        for name in certificate.names.iter().flatten() {
            self::name(name, report);
        }
    }
    one_default(config, report);
    for listener in &config.listeners {
        client_certificates(listener, report);
    }
    let needs_one = config.listeners.iter().find(|listener| listener.tls);
    if let Some(listener) = needs_one.filter(|_| names.certificate_count == 0) {
        report.add(
            Diagnostic::error(
                listener.address.span(),
                "a TLS listener, and the file has no `[certificate.NAME]`",
            )
            .label("has nothing to show to clients")
            .help("for example\n[certificate.web]\ncert = \"fullchain.pem\"\nkey = \"privkey.pem\"\nor, for development, `self_signed = true` in it"),
        );
    }
}

/// Certificates of clients are asked for by TLS, and looked into by an authority.
fn client_certificates(listener: &Listener, report: &mut Report) {
    let keys = [
        ("client_ca", listener.client_ca.as_ref().map(Spanned::span)),
        ("client_auth", listener.client_auth.as_ref().map(Spanned::span)),
    ];
    let written = keys.into_iter().find_map(|(key, span)| Some((key, span?)));
    let Some((key, span)) = written else { return };
    if !listener.tls {
        report.add(
            Diagnostic::error(span, format!("`{key}` needs `tls = true`"))
                .label("clients show certificates in TLS handshakes only"),
        );
    } else if listener.client_ca.is_none() {
        report.add(
            Diagnostic::error(span, "`client_auth` needs `client_ca`")
                .label("nothing says whose certificates count")
                .help("for example `client_ca = \"clients.pem\"`"),
        );
    }
}

/// A host name as clients ask for it, or one with `*` for its first label.
fn name(name: &Spanned<String>, report: &mut Report) {
    let text = name.get_ref();
    let host = text.strip_prefix("*.").unwrap_or(text);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    if text.parse::<std::net::IpAddr>().is_err() && (host.len() > 253 || !host.split('.').all(is_label)) {
        report.add(
            Diagnostic::error(name.span(), format!("`{text}` is not a name"))
                .label("expected a name such as \"app.example.com\" or \"*.example.com\""),
        );
    }
}

fn one_default(config: &Config, report: &mut Report) {
    let mut defaults: Vec<&Spanned<bool>> = config
        .certificates
        .values()
        .filter_map(|certificate| certificate.default.as_ref())
        .filter(|default| *default.get_ref())
        .collect();
    defaults.sort_by_key(|default| default.span().start);
    if let [first, second, ..] = defaults.as_slice() {
        report.add(
            Diagnostic::error(second.span(), "two certificates are the default")
                .label("again here")
                .also(first.span(), "first here"),
        );
    }
}
