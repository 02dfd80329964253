//! How the clients of each TLS listener are secured.

use super::{Certificate, Files, Inputs, Ordered, Tls};
use crate::{
    config::{ClientAuth as Asked, Diagnostic, Listener as ListenerConfig},
    tls::{Certificates, ClientAuth, Issued, Terminator, Tickets},
    vms::Vms,
};
use std::{collections::BTreeMap, sync::Arc};

/// Keys of sessions. A session tells of itself that its client was let in, so listeners that let others
/// in have other keys.
pub type SessionKeys = BTreeMap<Option<[u8; 32]>, Tickets>;

/// Makes what TLS listeners need; equal listeners share it.
pub(super) struct Terminators<'a> {
    inputs: &'a Inputs<'a>,
    certificates: Arc<Certificates>,
    known: SessionKeys,
    used: SessionKeys,
    made: BTreeMap<Option<[u8; 32]>, Arc<Terminator>>,
}

impl<'a> Terminators<'a> {
    pub(super) fn new(
        inputs: &'a Inputs<'a>,
        certificates: &[Arc<Certificate>],
        (ordered, issued): (&[Arc<Ordered>], Option<&Arc<Issued>>),
        vms: Option<&Arc<Vms>>,
        before: Option<&Tls>,
    ) -> Self {
        let mut all = Certificates::new(certificates.iter().map(|known| known.entry()));
        if let Some(issued) = issued {
            let asking: Vec<Arc<Ordered>> =
                ordered.iter().filter(|known| !known.on_demand.is_empty()).cloned().collect();
            let vms = vms.cloned();
            all = all.with_issued(Arc::clone(issued), move |name| {
                asking.iter().any(|ordered| ordered.may_demand(name, vms.as_deref()))
            });
        }
        Self {
            inputs,
            certificates: Arc::new(all),
            known: before.map(|before| before.session_keys.clone()).unwrap_or_default(),
            used: SessionKeys::new(),
            made: BTreeMap::new(),
        }
    }

    /// What this listener needs, where it speaks TLS and there is nothing wrong with it.
    pub(super) fn of(
        &mut self,
        listener: &ListenerConfig,
        files: &mut Files,
        problems: &mut Vec<Diagnostic>,
    ) -> Option<Arc<Terminator>> {
        if !listener.tls {
            return None;
        }
        let client_auth = match &listener.client_ca {
            None => None,
            Some(file) => match self.client_auth(listener, file.get_ref(), files) {
                Ok(client_auth) => Some(client_auth),
                Err(message) => {
                    problems.push(Diagnostic::error(file.span(), message).label("cannot be used"));
                    return None;
                }
            },
        };
        let key = client_auth.as_ref().map(ClientAuth::key);
        if let Some(made) = self.made.get(&key) {
            return Some(Arc::clone(made));
        }
        match self.make(key, client_auth.as_ref()) {
            Ok(made) => {
                self.made.insert(key, Arc::clone(&made));
                Some(made)
            }
            Err(error) => {
                let message = format!("TLS cannot be set up: {error}");
                problems.push(Diagnostic::error(listener.address.span(), message).label("cannot be used"));
                None
            }
        }
    }

    /// The keys that are in use.
    pub(super) fn finish(self) -> SessionKeys {
        self.used
    }

    fn make(
        &mut self,
        key: Option<[u8; 32]>,
        client_auth: Option<&ClientAuth>,
    ) -> std::io::Result<Arc<Terminator>> {
        let tickets = match self.used.get(&key).or_else(|| self.known.get(&key)) {
            Some(tickets) => tickets.clone(),
            None => Tickets::new()?,
        };
        let certificates = Arc::clone(&self.certificates);
        let made = Terminator::new(certificates, &tickets, client_auth)?;
        self.used.insert(key, tickets);
        Ok(Arc::new(made))
    }

    fn client_auth(
        &self,
        listener: &ListenerConfig,
        file: &str,
        files: &mut Files,
    ) -> Result<ClientAuth, String> {
        let path = self.inputs.base.join(file);
        let pem = files.read(&path).map_err(|error| format!("cannot read `{}`: {error}", path.display()))?;
        let is_required =
            listener.client_auth.as_ref().is_none_or(|asked| *asked.get_ref() == Asked::Required);
        ClientAuth::from_pem(&pem, is_required).map_err(|error| format!("`{file}`: {error}"))
    }
}
