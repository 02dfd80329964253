//! The request that is asked about, as a client would send it.

use crate::{
    http1::{HeadLimits, parse_request},
    ids::ClientAddr,
    message::{RequestHead, is_field_value, is_target, is_token},
};
use http::{Uri, uri::Scheme};
use std::net::Ipv4Addr;

/// What is asked about.
#[derive(Debug)]
pub(super) struct Asked {
    /// Whether clients use TLS; not known where only a path is asked for.
    pub(super) tls: Option<bool>,
    /// The port that clients ask for, where it is known.
    pub(super) port: Option<u16>,
    /// Who asks.
    pub(super) client: ClientAddr,
    /// The host of the URL, in lower case, where it is a name and TLS is spoken: what a client would ask for in
    /// its handshake.
    sni: Option<String>,
    /// The head's text.
    text: Vec<u8>,
}

impl Asked {
    /// # Errors
    /// Says what no client could send.
    pub(super) fn new(
        method: &str,
        url: &str,
        headers: &[String],
        client: ClientAddr,
    ) -> Result<Self, String> {
        let uri: Uri = url.parse().map_err(|_| format!("`{url}` is no URL, and no path"))?;
        let tls = match uri.scheme() {
            None if url.starts_with('/') => None,
            Some(scheme) if *scheme == Scheme::HTTPS || scheme.as_str() == "wss" => Some(true),
            Some(scheme) if *scheme == Scheme::HTTP || scheme.as_str() == "ws" => Some(false),
            _ => return Err(format!("`{url}` is neither https:// nor http://, and no path")),
        };
        let port = tls.map(|tls| uri.port_u16().unwrap_or(if tls { 443 } else { 80 }));
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        if !is_token(method.as_bytes()) || !is_target(target.as_bytes()) {
            return Err(format!("no client sends `{method} {target}`"));
        }
        let mut lines = Vec::new();
        for header in headers {
            let (name, value) =
                header.split_once(':').ok_or_else(|| format!("`{header}` is not `NAME: VALUE`"))?;
            let (name, value) = (name.trim(), value.trim());
            if !is_token(name.as_bytes()) || !is_field_value(value.as_bytes()) {
                return Err(format!("`{header}` is no header"));
            }
            lines.push((name, value));
        }
        let mut text = format!("{method} {target} HTTP/1.1\r\n");
        if !lines.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            let host = uri.authority().map_or("localhost", |authority| authority.as_str());
            text.push_str(&format!("host: {host}\r\n"));
        }
        lines.iter().for_each(|(name, value)| text.push_str(&format!("{name}: {value}\r\n")));
        text.push_str("\r\n");
        let name = uri.host().filter(|host| !host.starts_with('[') && host.parse::<Ipv4Addr>().is_err());
        let sni = name.filter(|_| tls == Some(true)).map(str::to_ascii_lowercase);
        Ok(Self { tls, port, client, sni, text: text.into_bytes() })
    }

    /// The name that the client would ask for in its TLS handshake.
    pub(super) fn sni(&self) -> Option<&str> {
        self.sni.as_deref()
    }

    /// The head, read as one from a client is.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub(super) fn head(&self, limits: HeadLimits) -> Result<RequestHead, String> {
        match parse_request(&self.text, limits) {
            Ok(Some((head, _))) => Ok(head),
            Ok(None) => Err("the request has no end".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_send_is_asked_about() {
        let limits = HeadLimits { size: 4096, headers: 10 };
        let client: ClientAddr = "192.0.2.1".parse().expect("an address");
        for (url, tls, port, host) in [
            ("https://a.example.com/x?y=1", Some(true), Some(443), "a.example.com"),
            ("http://a.example.com:3000/x?y=1", Some(false), Some(3000), "a.example.com:3000"),
            ("http://[::1]:3000/x?y=1", Some(false), Some(3000), "[::1]:3000"),
            ("/x?y=1", None, None, "localhost"),
        ] {
            let asked = Asked::new("GET", url, &["x-team: red".to_owned()], client).expect("a request");
            let head = asked.head(limits).expect("a head");
            assert_eq!((asked.tls, asked.port), (tls, port), "{url}");
            assert_eq!((head.path(), head.query()), ("/x", Some("y=1")), "{url}");
            assert_eq!(head.fields.get_named(b"host"), Some(host.as_bytes()), "{url}");
            assert_eq!(head.fields.get_named(b"x-team"), Some(&b"red"[..]), "{url}");
        }
        for (method, url, header) in [
            ("GET", "ftp://a/", "a: b"),
            ("GET", "a.example.com/", "a: b"),
            ("G T", "/", "a: b"),
            ("GET", "/", "a b: c"),
            ("GET", "/", "none"),
        ] {
            assert!(
                Asked::new(method, url, &[header.to_owned()], client).is_err(),
                "{method} {url} {header}"
            );
        }
    }
}
