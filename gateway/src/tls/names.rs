//! Which certificate is shown: by the name that a client asks for (RFC 6066 §3), and by what the
//! client understands.

use super::Certificate;
use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use std::{cell::Cell, collections::HashMap, sync::Arc};

/// A certificate, and what it is shown for.
#[derive(Debug)]
pub struct Entry {
    /// The certificate.
    pub certificate: Arc<Certificate>,
    /// Names that it is shown for, exact or `*.example.com`.
    pub names: Vec<Box<str>>,
    /// Whether it is shown to clients that ask for none that there is.
    pub is_default: bool,
}

/// All certificates, by name. Several may have the same name, for clients that understand only some.
#[derive(Debug, Default)]
pub struct Certificates {
    exact: HashMap<Box<str>, Choice>,
    /// By what follows the `*.`.
    wildcard: HashMap<Box<str>, Choice>,
    default: Choice,
}

/// Certificates for the same name, the preferred ones first.
#[derive(Debug, Default, Clone)]
struct Choice(Vec<Arc<Certificate>>);

impl Certificates {
    /// Of several for the same name, those that sign fast come first.
    pub fn new(entries: impl IntoIterator<Item = Entry>) -> Self {
        let mut all = Self::default();
        for Entry { certificate, names, is_default } in entries {
            for name in names {
                let name = name.to_ascii_lowercase();
                let choice = match name.strip_prefix("*.") {
                    Some(suffix) => all.wildcard.entry(suffix.into()).or_default(),
                    None => all.exact.entry(name.into()).or_default(),
                };
                choice.add(&certificate);
            }
            if is_default {
                all.default.add(&certificate);
            }
        }
        // A client that does not understand the default's signatures may understand another's for
        // the same names.
        if let Some(first) = all.default.0.first().cloned() {
            let namesakes = all.exact.values().chain(all.wildcard.values());
            let namesakes =
                namesakes.filter(|choice| choice.0.iter().any(|known| Arc::ptr_eq(known, &first)));
            let more: Vec<_> = namesakes.flat_map(|choice| choice.0.iter().cloned()).collect();
            more.iter().for_each(|certificate| all.default.add(certificate));
        }
        all
    }

    fn choice(&self, name: Option<&str>) -> &Choice {
        name.and_then(|name| self.named(name)).unwrap_or(&self.default)
    }

    fn named(&self, name: &str) -> Option<&Choice> {
        if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return self.named(&name.to_ascii_lowercase());
        }
        let wildcard = || self.wildcard.get(name.split_once('.')?.1);
        self.exact.get(name).or_else(wildcard)
    }
}

impl Choice {
    fn add(&mut self, certificate: &Arc<Certificate>) {
        if self.0.iter().any(|known| Arc::ptr_eq(known, certificate)) {
            return;
        }
        self.0.push(Arc::clone(certificate));
        self.0.sort_by_key(|certificate| match certificate.kind() {
            super::Kind::Ecdsa => 0,
            super::Kind::Ed25519 => 1,
            super::Kind::Rsa => 2,
        });
    }
}

/// What a client asked for.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// The name, in lower case.
    pub(super) name: Option<Box<str>>,
    /// Whether there is no certificate for it.
    pub(super) is_unknown: bool,
}

thread_local! {
    /// What the last ClientHello on this thread asked for. rustls tells its connection only whether
    /// there was a certificate.
    static ASKED: Cell<Option<Asked>> = const { Cell::new(None) };
}

/// What the ClientHello asked for that rustls has just read on this thread.
pub(super) fn asked() -> Option<Asked> {
    ASKED.take()
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let choice = self.choice(hello.server_name());
        let name = hello.server_name().map(|name| name.to_ascii_lowercase().into_boxed_str());
        ASKED.set(Some(Asked { name, is_unknown: choice.0.is_empty() }));
        let understood = choice
            .0
            .iter()
            .find(|certificate| certificate.key.key.choose_scheme(hello.signature_schemes()).is_some());
        // Where none is understood, the handshake fails with the right words.
        understood.or(choice.0.first()).map(|certificate| Arc::clone(&certificate.key))
    }
}
