//! Certificates: their names are names, and TLS listeners have one to show.

use toml::Spanned;

use super::super::{
    Acme, AcmeChallenge, Certificate, CertificateSource, Config, Listener, ListenerProtocol,
    diagnostic::Diagnostic, read::Names, report::Report,
};

pub(super) fn check(config: &Config, names: &Names, report: &mut Report) {
    for certificate in config.certificates.values() {
        for name in certificate.names.iter().flatten() {
            self::name(name, report);
        }
        if let CertificateSource::Acme(acme) = &certificate.source {
            self::acme(acme.get_ref(), config, report);
            is_let_in(certificate, acme.get_ref(), config, report);
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

fn acme(acme: &Acme, config: &Config, report: &mut Report) {
    let Acme { directory, email, domains, challenge, on_demand, .. } = acme;
    let url = directory.get_ref().parse::<http::Uri>();
    if !url.is_ok_and(|url| url.scheme_str() == Some("https") && url.host().is_some()) {
        report.add(
            Diagnostic::error(directory.span(), format!("`{directory}` is no URL of an ACME directory"))
                .label("expected `https://…`"),
        );
    }
    if let Some(email) = email.as_ref().filter(|email| !is_address(email.get_ref())) {
        report.add(
            Diagnostic::error(email.span(), format!("`{email}` is no address of mail"))
                .label("expected one such as \"operator@example.com\""),
        );
    }
    for domain in domains {
        if domain.get_ref().starts_with("*.") {
            report.add(
                Diagnostic::error(domain.span(), "no authority gives a certificate for `*.` by these proofs")
                    .label("expected a name without `*`")
                    .help("`on_demand` orders one for each name that clients ask for"),
            );
        } else {
            name(domain, report);
        }
    }
    if let Some(challenge) = challenge {
        self::challenge(challenge, config, report);
    }
    on_demand.iter().for_each(|pattern| open_to_all(pattern, config, report));
}

fn is_address(email: &str) -> bool {
    let is_plain = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    email.split_once('@').is_some_and(|(user, host)| is_plain(user) && is_plain(host) && !host.contains('@'))
}

/// Somebody must answer the authority.
fn challenge(challenge: &Spanned<AcmeChallenge>, config: &Config, report: &mut Report) {
    let speaks_http = |listener: &Listener| !listener.tls && listener.protocol != ListenerProtocol::Tcp;
    let (is_answered, message, example) = match challenge.get_ref() {
        AcmeChallenge::Http01 => (
            config.listeners.iter().any(speaks_http),
            "`http-01` needs a listener that speaks HTTP without TLS",
            "for example\n[[listener]]\naddress = \"[::]:80\"",
        ),
        AcmeChallenge::TlsAlpn01 => (
            config.listeners.iter().any(|listener| listener.tls),
            "`tls-alpn-01` needs a listener with TLS",
            "for example\n[[listener]]\naddress = \"[::]:443\"\ntls = true",
        ),
    };
    if !is_answered {
        report.add(
            Diagnostic::error(challenge.span(), message)
                .label("nobody could answer the authority")
                .help(example),
        );
    }
}

/// An authority that looks for a proof on port 443 shows no certificate of its own.
fn is_let_in(certificate: &Certificate, acme: &Acme, config: &Config, report: &mut Report) {
    if acme.challenge_with(&config.listeners) != AcmeChallenge::TlsAlpn01 {
        return;
    }
    // Another port may be where 443 leads to; where there is a 443 itself, it is that.
    let listeners = || config.listeners.iter().filter(|listener| listener.tls);
    let has_443 = |listener: &Listener| listener.address.get_ref().ports().contains(443);
    let is_443_here = listeners().any(has_443);
    let mut asked = listeners().filter(|listener| !is_443_here || has_443(listener)).peekable();
    let Some(client_ca) = asked.peek().and_then(|listener| listener.client_ca.as_ref()) else { return };
    if asked.all(Listener::requires_certificates) {
        let place = acme.challenge.as_ref().map_or_else(|| certificate.name.span(), Spanned::span);
        report.add(
            Diagnostic::error(
                place,
                "`tls-alpn-01` needs a listener that lets clients in who show no certificate",
            )
            .label("the authority shows none, and would be refused")
            .also(client_ca.span(), "asked for here")
            .help(
                "set `client_auth = \"optional\"` on the listener, or `challenge = \"http-01\"` here and a \
                 listener without TLS on port 80",
            ),
        );
    }
}

/// Whoever asks for a name costs an order, and authorities give only so many.
fn open_to_all(pattern: &Spanned<String>, config: &Config, report: &mut Report) {
    let text = pattern.get_ref();
    let is_limited = match text.chars().next() {
        Some('*') => false,
        Some('{') => config.vms.is_some() && text.starts_with("{vm}."),
        _ => true,
    };
    if !is_limited {
        report.add(
            Diagnostic::warning(
                pattern.span(),
                "anybody can have certificates ordered for names of this pattern",
            )
            .label("uses up what the authority gives for this domain")
            .help("`{vm}`, with a `[vms]`, stands only for VMs that there are"),
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
