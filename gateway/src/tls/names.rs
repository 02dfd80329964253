//! Which certificate is shown: by the name that a client asks for (RFC 6066 §3), and by what the
//! client understands.

use super::{Certificate, Issued, issued::ACME};
use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use std::{cell::Cell, collections::HashMap, fmt, sync::Arc};

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
    dynamic: Option<Dynamic>,
}

/// Those that come and go.
struct Dynamic {
    issued: Arc<Issued>,
    may_ask: Box<dyn Fn(&str) -> bool + Send + Sync>,
}

impl fmt::Debug for Dynamic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dynamic").field("issued", &self.issued).finish_non_exhaustive()
    }
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

    /// Beside those that come and go; one that is missing is asked for where `may_ask` says so.
    #[must_use]
    pub fn with_issued(
        self,
        issued: Arc<Issued>,
        may_ask: impl Fn(&str) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self { dynamic: Some(Dynamic { issued, may_ask: Box::new(may_ask) }), ..self }
    }

    /// Whether clients may have come for a proof.
    pub(super) fn has_proofs(&self) -> bool {
        self.dynamic.is_some()
    }

    /// The key for a name in lower case, or for none: an exact one, then `*.`, then the default.
    fn find(&self, name: Option<&str>, hello: &ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let dynamic = self.dynamic.as_ref();
        if let Some(name) = name {
            if let Some(choice) = self.exact.get(name) {
                return choice.for_client(hello);
            }
            if let Some(issued) = dynamic.and_then(|dynamic| dynamic.issued.named(name)) {
                return Some(issued);
            }
            let wildcard = name.split_once('.').and_then(|(_, suffix)| self.wildcard.get(suffix));
            if let Some(choice) = wildcard {
                return choice.for_client(hello);
            }
            if let Some(dynamic) = dynamic.filter(|dynamic| (dynamic.may_ask)(name)) {
                dynamic.issued.ask(name);
            }
        }
        self.default.for_client(hello).or_else(|| dynamic?.issued.default_key())
    }
}

impl Choice {
    /// The first that the client understands. Where it understands none, the handshake fails with the
    /// right words.
    fn for_client(&self, hello: &ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let is_understood =
            |known: &&Arc<Certificate>| known.key.key.choose_scheme(hello.signature_schemes()).is_some();
        let chosen = self.0.iter().find(is_understood).or(self.0.first());
        chosen.map(|certificate| certificate.shown())
    }

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
        let name = hello.server_name().map(|name| name.to_ascii_lowercase().into_boxed_str());
        // Who offers anything else beside it may get that, and is shown what it is talked over with (RFC 8737
        // §3).
        let wants_proof = || hello.alpn().is_some_and(|protocols| protocols.eq([ACME]));
        let found = match &self.dynamic {
            Some(dynamic) if wants_proof() => dynamic.issued.proof(name.as_deref()?),
            _ => self.find(name.as_deref(), &hello),
        };
        ASKED.set(Some(Asked { name, is_unknown: found.is_none() }));
        found
    }
}
