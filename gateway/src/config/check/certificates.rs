//! Certificates: each has one source, and TLS listeners have one to show.

use toml::Spanned;

use super::super::{Certificate, Config, diagnostic::Diagnostic, read::Names, report::Report};

pub(super) fn check(config: &Config, names: &Names, report: &mut Report) {
    for certificate in config.certificates.values() {
        source(certificate, report);
        for name in certificate.names.iter().flatten() {
            self::name(name, report);
        }
    }
    one_default(config, report);
    let needs_one = config.listeners.iter().find(|listener| listener.tls);
    if let Some(listener) = needs_one.filter(|_| names.certificate_count == 0) {
        report.add(
            Diagnostic::error(listener.address.span(), "a TLS listener, and the file has no `[certificate.NAME]`")
                .label("has nothing to show to clients")
                .help("for example\n[certificate.web]\ncert = \"fullchain.pem\"\nkey = \"privkey.pem\"\nor, for development, `self_signed = true` in it"),
        );
    }
}

fn source(certificate: &Certificate, report: &mut Report) {
    let is_self_signed = *certificate.self_signed.get_ref();
    match (&certificate.cert, is_self_signed) {
        (Some(_), false) | (None, true) => {}
        (None, false) => report.add(
            Diagnostic::error(certificate.name.span(), "a certificate needs a source")
                .label("expected either `cert = \"FILE\"` or `self_signed = true`"),
        ),
        (Some(cert), true) => report.add(
            Diagnostic::error(certificate.self_signed.span(), "a certificate has one source, not two")
                .label("expected either `cert = \"FILE\"` or `self_signed = true`")
                .also(cert.span(), "the other"),
        ),
    }
    for (key, file) in [("key", &certificate.key), ("ocsp", &certificate.ocsp)] {
        if let (Some(file), None) = (file, &certificate.cert) {
            report.add(
                Diagnostic::error(file.span(), format!("`{key}` belongs to the file of `cert`"))
                    .label("there is no `cert`"),
            );
        }
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
