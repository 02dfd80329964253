//! From `acme = {…}` to what there is to order, and from whom.

use super::{Files, Inputs, state_dir::StateDir};
use crate::{
    acme::{Account, Challenge},
    config::{Acme, AcmeChallenge, CertificateSource, Config, Diagnostic, Spanned},
    route::HostPattern,
    tls::Roots,
    vms::{Known, Vms},
};
use sha2::{Digest as _, Sha256};
use std::{net::IpAddr, path::PathBuf, sync::Arc};

/// A certificate that is ordered from an authority, and renewed.
#[derive(Debug)]
pub struct Ordered {
    /// Its name in the configuration.
    pub name: String,
    /// Who orders, and from whom.
    pub account: Account,
    /// Names of the certificate; none where there are only those on demand.
    pub domains: Vec<String>,
    /// How an authority is shown that they are ours.
    pub challenge: Challenge,
    /// Names that get a certificate when somebody asks for them.
    pub on_demand: Vec<HostPattern>,
    /// Orders an hour.
    pub orders_per_hour: usize,
    /// Whom the authority's own certificate may be of.
    pub roots: Roots,
    /// Where accounts and certificates of this authority are kept.
    pub folder: PathBuf,
    /// Whether it is shown to clients that ask for nothing that there is.
    pub is_default: bool,
    ca: Vec<u8>,
}

impl PartialEq for Ordered {
    fn eq(&self, other: &Self) -> bool {
        let key = |of: &Self| {
            (
                of.name.clone(),
                of.account.clone(),
                of.domains.clone(),
                of.challenge,
                of.orders_per_hour,
                of.is_default,
            )
        };
        // The roots are those of `ca`.
        key(self) == key(other)
            && (&self.on_demand, &self.folder, &self.ca) == (&other.on_demand, &other.folder, &other.ca)
    }
}

/// The capture of a pattern that stands for a VM's name.
const VM: &str = "vm";

/// Bytes of a name on demand: it is that of a file, too.
const LONGEST_NAME: usize = 200;

/// What the patterns say of a name that somebody asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Demand<'a> {
    /// It is none of theirs.
    None,
    /// It gets a certificate.
    Any,
    /// It gets one if there is a VM of this name, where it is known which there are.
    OfVm(&'a str),
}

impl Ordered {
    /// Whether a name may get a certificate when somebody asks for it.
    pub fn demand<'a>(&self, name: &'a str) -> Demand<'a> {
        let mut demand = Demand::None;
        if name.len() > LONGEST_NAME {
            return demand;
        }
        for pattern in self.on_demand.iter().filter(|pattern| pattern.matches(name)) {
            if pattern.capture().is_none_or(|capture| **capture != *VM) {
                return Demand::Any;
            }
            demand = Demand::OfVm(name.split_once('.').map_or(name, |(label, _)| label));
        }
        demand
    }

    /// As [`Self::demand`], as far as that is known without asking anybody: where there is doubt, it may.
    pub(super) fn may_demand(&self, name: &str, vms: Option<&Vms>) -> bool {
        match (self.demand(name), vms.map(|vms| &vms.known)) {
            (Demand::None, _) => false,
            (Demand::OfVm(vm), Some(Known::Table(table))) => {
                vm.parse().is_ok_and(|vm| table.get(&vm).is_some())
            }
            _ => true,
        }
    }
}

/// What there is to order, in the order of the file.
pub(super) fn build(
    config: &Config,
    default: Option<&str>,
    inputs: &Inputs<'_>,
    files: &mut Files,
    problems: &mut Vec<Diagnostic>,
) -> Vec<Arc<Ordered>> {
    let mut ordered = Vec::new();
    for certificate in config.certificates.values() {
        let CertificateSource::Acme(acme) = &certificate.source else { continue };
        let acme = acme.get_ref();
        let name = certificate.name.get_ref();
        let (Some(on_demand), Some((ca, roots))) =
            (patterns(acme, problems), roots(acme, inputs, files, problems))
        else {
            continue;
        };
        let directory = acme.directory.get_ref().clone();
        let folder = data_encoding::HEXLOWER.encode(Sha256::digest(&directory).get(..8).unwrap_or_default());
        ordered.push(Arc::new(Ordered {
            name: name.clone(),
            account: Account { directory, email: acme.email.as_ref().map(|email| email.get_ref().clone()) },
            domains: acme.domains.iter().map(|domain| written_alike(domain.get_ref())).collect(),
            challenge: challenge(acme, config),
            on_demand,
            orders_per_hour: acme.orders_per_hour as usize,
            roots,
            folder: StateDir::of(config, inputs).path().join("acme").join(folder),
            is_default: default == Some(name),
            ca,
        }));
    }
    ordered
}

/// A name as certificates have it: in lower case, and an address in its shortest form.
fn written_alike(name: &str) -> String {
    name.parse::<IpAddr>().map_or_else(|_| name.to_ascii_lowercase(), |address| address.to_string())
}

fn challenge(acme: &Acme, config: &Config) -> Challenge {
    match acme.challenge_with(&config.listeners) {
        AcmeChallenge::Http01 => Challenge::Http01,
        AcmeChallenge::TlsAlpn01 => Challenge::TlsAlpn01,
    }
}

fn patterns(acme: &Acme, problems: &mut Vec<Diagnostic>) -> Option<Vec<HostPattern>> {
    let pattern = |written: &Spanned<String>| match HostPattern::parse(written.get_ref()) {
        Ok(pattern) => Some(pattern),
        Err(error) => {
            problems.push(Diagnostic::error(written.span(), error.to_string()).label("not a pattern"));
            None
        }
    };
    let all: Vec<Option<HostPattern>> = acme.on_demand.iter().map(pattern).collect();
    all.into_iter().collect()
}

fn roots(
    acme: &Acme,
    inputs: &Inputs<'_>,
    files: &mut Files,
    problems: &mut Vec<Diagnostic>,
) -> Option<(Vec<u8>, Roots)> {
    let span = acme.ca.as_ref().map_or_else(|| acme.directory.span(), Spanned::span);
    let mut wrong = |message: String| {
        problems.push(Diagnostic::error(span.clone(), message).label("cannot be used"));
        None
    };
    let pem = match &acme.ca {
        None => Vec::new(),
        Some(file) => {
            let path = inputs.base.join(file.get_ref());
            match files.read(&path) {
                Ok(pem) => pem,
                Err(error) => return wrong(format!("cannot read `{}`: {error}", path.display())),
            }
        }
    };
    match Roots::with(&pem) {
        Ok(roots) => Some((pem, roots)),
        Err(error) => wrong(error.to_string()),
    }
}
