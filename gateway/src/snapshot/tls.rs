//! What listeners show to clients, and what belongs to that.

use super::{
    Certificate, Files, FleetPlan, Inputs, Ordered, SessionKeys, Snapshot, certificates, ordered,
    terminators::Terminators,
};
use crate::{
    acme::Tokens,
    config::{Config, Diagnostic},
    tls::Issued,
};
use std::sync::Arc;

/// What listeners show to clients, and what belongs to that.
#[derive(Debug)]
pub struct Tls {
    /// Certificates of files and of our own, in the order of the file.
    pub certificates: Vec<Arc<Certificate>>,
    /// What is ordered from authorities.
    pub ordered: Vec<Arc<Ordered>>,
    /// What was, and what shows them that names are ours; none where there is nothing to order.
    pub issued: Option<Arc<Issued>>,
    /// The same where it is a file.
    pub tokens: Option<Arc<Tokens>>,
    /// Keys of the sessions of clients.
    pub session_keys: SessionKeys,
    /// Most handshakes at a time in each worker.
    pub handshakes: usize,
}

/// The same before it is known what listeners need of it.
pub(super) struct Draft<'a> {
    certificates: Vec<Arc<Certificate>>,
    ordered: Vec<Arc<Ordered>>,
    issued: Option<Arc<Issued>>,
    tokens: Option<Arc<Tokens>>,
    pub(super) terminators: Terminators<'a>,
}

impl<'a> Draft<'a> {
    pub(super) fn new(
        config: &Config,
        (previous, fleet): (Option<&Snapshot>, Option<&FleetPlan>),
        inputs: &'a Inputs<'a>,
        files: &mut Files,
        problems: &mut Vec<Diagnostic>,
    ) -> Self {
        let default = certificates::default(config);
        let mut loader = certificates::Loader { config, previous, inputs, files, problems, authority: None };
        let certificates = loader.load(default);
        let ordered = ordered::build(config, default, inputs, files, problems);
        let before = previous.map(|previous| &previous.tls);
        let is_needed = !ordered.is_empty();
        let issued = is_needed.then(|| before.and_then(|before| before.issued.clone()).unwrap_or_default());
        let tokens = is_needed.then(|| before.and_then(|before| before.tokens.clone()).unwrap_or_default());
        let vms = fleet.map(|plan| &plan.vms);
        let terminators = Terminators::new(inputs, &certificates, (&ordered, issued.as_ref()), vms, before);
        Self { certificates, ordered, issued, tokens, terminators }
    }

    pub(super) fn warnings(&self, config: &Config) -> Vec<Diagnostic> {
        certificates::warnings(config, &self.certificates)
    }

    pub(super) fn finish(self, config: &Config) -> Tls {
        let Self { certificates, ordered, issued, tokens, terminators } = self;
        let handshakes = config.limits.handshakes as usize;
        let session_keys = terminators.finish();
        Tls { certificates, ordered, issued, tokens, session_keys, handshakes }
    }
}
