//! `to`: a string that is neither an address nor a backend, and answers that cannot be sent.

use std::net::Ipv6Addr;

use http::{HeaderName, HeaderValue};
use toml::Spanned;

use super::{
    super::{
        OciReference, Redirect, Respond, Target, diagnostic::Diagnostic, nearest::nearest, report::Report,
        target::host_port,
    },
    Known,
};

/// Headers that say how a message is framed: the gateway's own business.
const FRAMING: [&str; 5] = ["connection", "content-length", "keep-alive", "transfer-encoding", "upgrade"];

pub(super) fn check(to: &Spanned<Target>, backends: Known<'_>, origins: Known<'_>, report: &mut Report) {
    match to.get_ref() {
        Target::Wasm(component) => wasm(component, to.span(), origins, report),
        // What they need of the route and of the file is checked with those.
        Target::Vm(_) | Target::AnyPort(_) | Target::Registry => {}
        Target::Address(_) => {}
        Target::Backend(name) if backends.has(name) => {}
        Target::Backend(name) => report.add(unknown(name, to.span(), backends)),
        Target::Respond(respond) => headers(respond, report),
        Target::Redirect(redirect) => location(redirect, report),
    }
}

/// A component by the name of its origin, or by its file: a word alone is rather a name.
fn wasm(component: &str, span: std::ops::Range<usize>, origins: Known<'_>, report: &mut Report) {
    let is_file = component.contains(['.', '/', '\\']);
    if component.is_empty() {
        report.add(
            Diagnostic::error(span, "`wasm:` names no component")
                .label("expected `wasm:` and a file, or the name of an `[origin.NAME]`"),
        );
    } else if OciReference::is_meant(component) {
        super::plugins::component(&Spanned::new(span, component.to_owned()), report);
    } else if !is_file && !origins.has(&component.to_owned()) {
        report.add(origins.unknown(component, span));
    }
}

/// What to write instead of something that is not an address, if that can be guessed.
pub(super) fn advice(text: &str) -> Option<String> {
    if let Some((scheme, rest)) = text.split_once("://") {
        return scheme_advice(scheme, rest.split('/').next().unwrap_or_default());
    }
    let port = text.strip_prefix(['*', ':']).unwrap_or(text).trim_start_matches(':');
    if text.parse::<Ipv6Addr>().is_err() && port.parse::<u16>().is_ok() {
        return Some(format!("for a port of this machine, write \"127.0.0.1:{port}\""));
    }
    // A single word is rather the name of a backend.
    let is_host = text == "localhost" || text.contains(['.', ':']);
    let with_port = with_port(text).filter(|_| is_host)?;
    Some(format!("a port is missing: \"{with_port}\""))
}

fn scheme_advice(scheme: &str, authority: &str) -> Option<String> {
    if scheme == "https" {
        return Some("TLS to servers is not supported by this version".to_owned());
    }
    let address = if host_port(authority).is_some() { authority.to_owned() } else { with_port(authority)? };
    Some(format!("write \"{address}\": an address has no scheme and no path"))
}

/// The address of a host alone.
fn with_port(host: &str) -> Option<String> {
    let bracketed = if host.parse::<Ipv6Addr>().is_ok() { format!("[{host}]") } else { host.to_owned() };
    Some(format!("{bracketed}:80")).filter(|address| host_port(address).is_some())
}

fn unknown(name: &str, span: std::ops::Range<usize>, backends: Known<'_>) -> Diagnostic {
    if name.starts_with("vm:") {
        return Diagnostic::error(span, format!("`{name}` names no VM and port"))
            .label("expected `vm:{vm}:{port}`, or `vm:{vm}:22`")
            .help("`{vm}` is a capture of the route's host; `{port}` is the port that the client asked for");
    }
    if name.contains("{port}") {
        return Diagnostic::error(span, format!("`{name}` is not an address"))
            .label("expected an IP address before `{port}`, as in \"127.0.0.1:{port}\"");
    }
    if let Some(advice) = advice(name) {
        return Diagnostic::error(span, format!("`{name}` is neither an address nor a backend"))
            .label("expected an address such as \"127.0.0.1:3000\", or a backend's name")
            .help(advice);
    }
    if name.contains(':') {
        return Diagnostic::error(span, format!("`{name}` is not an address"))
            .label("expected an address such as \"127.0.0.1:3000\" or \"[::1]:3000\"");
    }
    match nearest(name, ["registry"]) {
        Some(_)
            if backends
                .names
                .is_none_or(|names| nearest(name, names.iter().map(String::as_str)).is_none()) =>
        {
            Diagnostic::error(span, format!("no backend is named `{name}`")).label("did you mean `registry`?")
        }
        _ => backends.unknown(name, span),
    }
}

fn headers(respond: &Respond, report: &mut Report) {
    for (name, value) in &respond.headers {
        header(name, value, report);
        if FRAMING.iter().any(|framing| framing.eq_ignore_ascii_case(name)) {
            report.add(
                Diagnostic::error(value.span(), format!("`{name}` is set by the gateway"))
                    .label("remove this header"),
            );
        }
    }
}

/// Reports a header that HTTP cannot carry.
pub(super) fn header(name: &str, value: &Spanned<String>, report: &mut Report) {
    if HeaderName::from_bytes(name.as_bytes()).is_err() {
        report.add(
            Diagnostic::error(value.span(), format!("`{name}` is not the name of a header"))
                .label("the value of that header"),
        );
    }
    if HeaderValue::from_str(value.get_ref()).is_err() {
        report.add(
            Diagnostic::error(value.span(), "a header cannot have this value")
                .label("expected one line of printable text"),
        );
    }
}

fn location(redirect: &Redirect, report: &mut Report) {
    if !matches!(redirect.status.get_ref(), 301 | 302 | 303 | 307 | 308) {
        report.add(
            Diagnostic::error(redirect.status.span(), format!("{} is not a redirect", redirect.status))
                .label("expected 301, 302, 303, 307 or 308"),
        );
    }
    let to = redirect.to.get_ref();
    let rooted = to.starts_with('/') || to.starts_with("http://") || to.starts_with("https://");
    let plain = to.bytes().all(|byte| byte.is_ascii_graphic());
    if !rooted || !plain {
        report.add(
            Diagnostic::error(redirect.to.span(), format!("`{}` is not a place to go to", to.escape_debug()))
                .label("expected a URL such as \"https://example.com/\", or a path such as \"/new\""),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advises_on_addresses() {
        for (text, expected) in [
            ("http://127.0.0.1:3000/api", Some("\"127.0.0.1:3000\"")),
            ("http://app.internal", Some("\"app.internal:80\"")),
            ("https://app.internal", Some("TLS")),
            ("3000", Some("\"127.0.0.1:3000\"")),
            (":3000", Some("\"127.0.0.1:3000\"")),
            ("*:3000", Some("\"127.0.0.1:3000\"")),
            ("localhost", Some("\"localhost:80\"")),
            ("::1", Some("\"[::1]:80\"")),
            ("[::1]", Some("\"[::1]:80\"")),
            ("10.0.0.1", Some("\"10.0.0.1:80\"")),
            ("app", None),
            ("localhost:99999", None),
            ("", None),
        ] {
            let advice = advice(text);
            match expected {
                None => assert_eq!(advice, None, "for {text:?}"),
                Some(expected) => assert!(
                    advice.as_deref().unwrap_or_default().contains(expected),
                    "for {text:?} got {advice:?}"
                ),
            }
        }
    }
}
