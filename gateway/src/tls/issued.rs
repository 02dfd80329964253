//! Certificates that come and go while the gateway runs: those that it orders, and those that show an
//! authority that a name is its own (RFC 8737).

use super::{AuthorityError, Certificate, CertificateError, provider};
use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::{pki_types::PrivateKeyDer, sign::CertifiedKey};
use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};
use tokio::sync::mpsc;

/// The protocol by which an authority asks for a proof (RFC 8737 §6.2).
pub(super) const ACME: &[u8] = b"acme-tls/1";

/// Names that may wait for an answer to whether there should be a certificate for them; who asks for
/// more asks again.
const QUESTIONS: usize = 1024;

/// Certificates that come and go while the gateway runs, shared by all workers.
///
/// A lock, but one that handshakes only read, and that is written when a certificate is issued.
#[derive(Debug)]
pub struct Issued {
    state: RwLock<State>,
    ask: mpsc::Sender<Box<str>>,
    /// How many found no room there, and nobody was told of it yet.
    lost: AtomicU64,
    questions: Mutex<Option<mpsc::Receiver<Box<str>>>>,
}

#[derive(Debug, Default)]
struct State {
    by_name: HashMap<Box<str>, Arc<Held>>,
    default: Option<Arc<Held>>,
    proofs: HashMap<Box<str>, Arc<CertifiedKey>>,
}

#[derive(Debug)]
struct Held {
    certificate: Arc<Certificate>,
    used: AtomicBool,
}

impl Default for Issued {
    fn default() -> Self {
        let (ask, questions) = mpsc::channel(QUESTIONS);
        let questions = Mutex::new(Some(questions));
        Self { state: RwLock::default(), ask, lost: AtomicU64::new(0), questions }
    }
}

impl Issued {
    /// Names that were asked for and have no certificate. Whoever calls this first answers them all.
    pub fn questions(&self) -> Option<mpsc::Receiver<Box<str>>> {
        self.questions.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Shows a certificate from now on, for these names and perhaps for all that nothing else is for. The
    /// same one counts as used where it was.
    pub fn put(&self, certificate: &Arc<Certificate>, names: &[Box<str>], is_default: bool) {
        self.write(|state| {
            let shown = names.iter().filter_map(|name| state.by_name.get(&*name.to_ascii_lowercase()));
            let used = shown
                .filter(|held| held.certificate.not_after() == certificate.not_after())
                .any(|held| held.used.load(Ordering::Relaxed));
            let held = Arc::new(Held { certificate: Arc::clone(certificate), used: AtomicBool::new(used) });
            for name in names {
                state.by_name.insert(name.to_ascii_lowercase().into(), Arc::clone(&held));
            }
            if is_default {
                state.default = Some(held);
            }
        });
    }

    /// Forgets the certificates for names that are not to be kept, and the default.
    pub fn retain(&self, is_kept: impl Fn(&str) -> bool) {
        self.write(|state| {
            state.by_name.retain(|name, _| is_kept(name));
            state.default = None;
        });
    }

    /// Forgets the certificate for a name.
    pub fn remove(&self, name: &str) {
        self.write(|state| state.by_name.remove(name));
    }

    /// Whether anybody has asked for this name since its certificate is there.
    pub fn was_used(&self, name: &str) -> bool {
        self.read(|state| state.by_name.get(name).is_some_and(|held| held.used.load(Ordering::Relaxed)))
    }

    /// Shows an authority the proof for a name.
    ///
    /// # Errors
    /// Fails where the certificate of the proof cannot be made.
    pub fn show_proof(&self, name: &str, digest: &[u8; 32]) -> Result<(), AuthorityError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(vec![name.to_owned()])?;
        params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
        let der = params.self_signed(&key)?.der().clone();
        let key = PrivateKeyDer::try_from(key.serialize_der())
            .map_err(|error| CertificateError::Key(error.to_owned()))?;
        // Not compared with the certificate: its extension is a critical one, which is read by authorities
        // only.
        let key = provider().key_provider.load_private_key(key);
        let key = key.map_err(|error| CertificateError::Key(error.to_string()))?;
        self.write(|state| {
            state.proofs.insert(asked_by_address(name), Arc::new(CertifiedKey::new(vec![der], key)))
        });
        Ok(())
    }

    /// Does not show it any more.
    pub fn hide_proof(&self, name: &str) {
        self.write(|state| state.proofs.remove(&asked_by_address(name)));
    }

    pub(super) fn proof(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        self.read(|state| state.proofs.get(name).cloned())
    }

    pub(super) fn named(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        self.read(|state| {
            let held = state.by_name.get(name)?;
            if !held.used.load(Ordering::Relaxed) {
                held.used.store(true, Ordering::Relaxed);
            }
            Some(Arc::clone(&held.certificate.key))
        })
    }

    pub(super) fn default_key(&self) -> Option<Arc<CertifiedKey>> {
        self.read(|state| state.default.as_ref().map(|held| Arc::clone(&held.certificate.key)))
    }

    /// Asks for a certificate for a name, for the next one who comes.
    pub(super) fn ask(&self, name: &str) {
        // Where too many are asked for, this one is asked for again by whoever wants it.
        if self.ask.try_send(name.into()).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many names were asked for and not heard, since this was called last.
    pub fn lost(&self) -> u64 {
        self.lost.swap(0, Ordering::Relaxed)
    }

    fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.write().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The name that is asked for where the identifier is an address (RFC 8738 §6).
fn asked_by_address(name: &str) -> Box<str> {
    let reverse =
        |labels: Vec<String>, suffix: &str| format!("{}.{suffix}", labels.join(".")).into_boxed_str();
    match name.parse() {
        Err(_) => name.into(),
        Ok(IpAddr::V4(address)) => {
            reverse(address.octets().iter().rev().map(u8::to_string).collect(), "in-addr.arpa")
        }
        Ok(IpAddr::V6(address)) => {
            let nibbles = address.octets().into_iter().rev().flat_map(|byte| [byte & 15, byte >> 4]);
            reverse(nibbles.map(|nibble| format!("{nibble:x}")).collect(), "ip6.arpa")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_beyond_what_is_heard_are_counted() {
        let issued = Issued::default();
        (0..QUESTIONS + 3).for_each(|number| issued.ask(&format!("n{number}.test")));
        assert_eq!((issued.lost(), issued.lost()), (3, 0));
    }

    #[test]
    fn an_address_is_asked_for_by_its_name() {
        assert_eq!(&*asked_by_address("a.test"), "a.test");
        assert_eq!(&*asked_by_address("192.0.2.1"), "1.2.0.192.in-addr.arpa");
        let name = asked_by_address("2001:db8::1");
        assert!(name.starts_with("1.0.0.0.") && name.ends_with(".8.b.d.0.1.0.0.2.ip6.arpa"), "{name}");
    }
}
