//! From `[certificate.NAME]` to certificates that listeners show.

use super::{Files, Inputs, Snapshot, state_dir::StateDir};
use crate::{
    config::{Certificate as Declared, CertificateFiles, CertificateSource, Config, Diagnostic, Spanned},
    tls::{self, Authority, Entry},
};
use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

/// Names that a self-signed certificate has beside those of the routes.
const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// A certificate that listeners show.
#[derive(Debug)]
pub struct Certificate {
    /// Its name in the configuration.
    pub name: String,
    /// The certificate.
    pub loaded: Arc<tls::Certificate>,
    /// Names that it is shown for.
    pub names: Vec<Box<str>>,
    /// Whether it is shown to clients that ask for none that there is.
    pub is_default: bool,
    /// Why what is in its files now cannot be used, where that is so: it is what they held before.
    pub problem: Option<String>,
    /// Where it is from.
    pub source: Source,
}

/// Where a certificate is from.
#[derive(Debug, PartialEq, Eq)]
pub enum Source {
    /// Files.
    Files {
        /// Of the certificate.
        cert: PathBuf,
        /// Of its key.
        key: PathBuf,
        /// Of an OCSP response.
        ocsp: Option<PathBuf>,
    },
    /// The gateway's own authority.
    SelfSigned,
}

impl Certificate {
    /// What is told to those that choose among certificates.
    pub(super) fn entry(&self) -> Entry {
        Entry {
            certificate: Arc::clone(&self.loaded),
            names: self.names.clone(),
            is_default: self.is_default,
        }
    }

    /// How long it is still valid; none where it has expired.
    pub fn left(&self, now: SystemTime) -> Option<Duration> {
        self.loaded.not_after().duration_since(now).ok()
    }

    /// Whether two thirds of its time are over.
    pub fn is_old(&self, now: SystemTime) -> bool {
        let whole = self.loaded.not_after().duration_since(self.loaded.not_before()).unwrap_or_default();
        self.left(now).unwrap_or_default() < whole / 3
    }
}

/// Loads the certificates of a configuration.
pub(super) struct Loader<'a> {
    pub(super) config: &'a Config,
    pub(super) previous: Option<&'a Snapshot>,
    pub(super) inputs: &'a Inputs<'a>,
    pub(super) files: &'a mut Files,
    pub(super) problems: &'a mut Vec<Diagnostic>,
    pub(super) authority: Option<Authority>,
}

/// Why a file cannot be used, and which key of the table leads to it.
struct Problem<'c> {
    at: &'c Spanned<String>,
    message: String,
    label: &'static str,
}

impl Loader<'_> {
    /// Loads all of them, in the order of the file. One whose files have become unusable stays what it
    /// was: it must not keep others from being renewed.
    pub(super) fn load(&mut self, default: Option<&str>) -> Vec<Arc<Certificate>> {
        let config = self.config;
        let mut declared: Vec<&Declared> = config.certificates.values().collect();
        declared.sort_by_key(|certificate| certificate.name.span().start);
        let certificates = declared.into_iter().filter_map(|certificate| {
            let is_default = default == Some(certificate.name.get_ref());
            match &certificate.source {
                CertificateSource::Files(files) => self.of_files(certificate, files, is_default),
                CertificateSource::SelfSigned => self.self_signed(certificate, is_default),
                // It is not there yet.
                CertificateSource::Acme(_) => None,
            }
        });
        certificates.map(Arc::new).collect()
    }

    fn before(&self, declared: &Declared) -> Option<&Certificate> {
        let mut known = self.previous?.tls.certificates.iter();
        known.find(|known| known.name == *declared.name.get_ref()).map(|known| &**known)
    }

    fn of_files(
        &mut self,
        declared: &Declared,
        files: &CertificateFiles,
        is_default: bool,
    ) -> Option<Certificate> {
        let name = declared.name.get_ref();
        let key = files.key.as_ref().unwrap_or(&files.cert);
        let path = |file: &Spanned<String>| self.inputs.base.join(file.get_ref());
        let source =
            Source::Files { cert: path(&files.cert), key: path(key), ocsp: files.ocsp.as_ref().map(path) };
        let loaded = self.read(files, key);
        let before = self.before(declared).filter(|before| before.source == source);
        let (loaded, problem) = match (loaded, before) {
            (Ok(loaded), _) => (Arc::new(loaded), None),
            (Err(problem), Some(before)) => (Arc::clone(&before.loaded), Some(problem.message)),
            (Err(problem), None) => {
                let message = format!("certificate `{name}`: {}", problem.message);
                self.problems.push(Diagnostic::error(problem.at.span(), message).label(problem.label));
                return None;
            }
        };
        let names = written_names(declared).unwrap_or_else(|| loaded.names().to_vec());
        Some(Certificate { name: name.clone(), loaded, names, is_default, problem, source })
    }

    fn read<'c>(
        &mut self,
        files: &'c CertificateFiles,
        key: &'c Spanned<String>,
    ) -> Result<tls::Certificate, Problem<'c>> {
        let mut read = |file: &'c Spanned<String>| {
            let path = self.inputs.base.join(file.get_ref());
            self.files.read(&path).map_err(|error| Problem {
                at: file,
                message: format!("cannot read `{}`: {error}", path.display()),
                label: "cannot be read",
            })
        };
        // All of them are read whatever is wrong with one: a change of any is a reason to look again.
        let (chain, secret) = (read(&files.cert), read(key));
        let ocsp = files.ocsp.as_ref().map(&mut read).transpose();
        let loaded = tls::Certificate::from_pem(&chain?, &secret?).map_err(|error| {
            use tls::CertificateError::{EncryptedKey, Key, Mismatch, NoKey};
            let is_of_key = matches!(error, NoKey | EncryptedKey | Key(_) | Mismatch);
            let at = if is_of_key { key } else { &files.cert };
            let message = format!("`{}`: {error}", at.get_ref());
            Problem { at, message, label: "cannot be used" }
        })?;
        Ok(match ocsp? {
            Some(response) => loaded.with_ocsp(response),
            None => loaded,
        })
    }

    fn self_signed(&mut self, declared: &Declared, is_default: bool) -> Option<Certificate> {
        let name = declared.name.get_ref().clone();
        let names = written_names(declared).unwrap_or_else(|| names_of_routes(self.config));
        let is_still_good = |before: &&Certificate| {
            let is_same = before.source == Source::SelfSigned && before.names == names;
            is_same && !before.is_old(SystemTime::now())
        };
        let kept = self.before(declared).filter(is_still_good).map(|before| Arc::clone(&before.loaded));
        let loaded = match kept {
            Some(kept) => kept,
            None => match self.issue(&names) {
                Ok(loaded) => Arc::new(loaded),
                Err(message) => {
                    let message = format!("certificate `{name}`: {message}");
                    self.problems
                        .push(Diagnostic::error(declared.name.span(), message).label("cannot be made"));
                    return None;
                }
            },
        };
        Some(Certificate { name, loaded, names, is_default, problem: None, source: Source::SelfSigned })
    }

    /// Signs a certificate by the authority that is kept, or by a new one.
    fn issue(&mut self, names: &[Box<str>]) -> Result<tls::Certificate, String> {
        let authority = match self.authority.take() {
            Some(authority) => authority,
            None => StateDir::of(self.config, self.inputs).authority()?,
        };
        let authority = self.authority.insert(authority);
        authority.issue(names).map_err(|error| error.to_string())
    }
}

/// The certificate for clients that ask for none that there is.
pub(super) fn default(config: &Config) -> Option<&str> {
    let mut declared: Vec<&Declared> = config.certificates.values().collect();
    declared.sort_by_key(|certificate| certificate.name.span().start);
    let is = |certificate: &&&Declared, wanted| {
        certificate.default.as_ref().map(|default| *default.get_ref()) == wanted
    };
    let default = declared.iter().find(|certificate| is(certificate, Some(true)));
    let default = default.or_else(|| declared.iter().find(|certificate| is(certificate, None)));
    default.map(|certificate| certificate.name.get_ref().as_str())
}

fn written_names(declared: &Declared) -> Option<Vec<Box<str>>> {
    let names = declared.names.as_ref()?;
    Some(names.iter().map(|name| name.get_ref().to_ascii_lowercase().into()).collect())
}

/// The names that routes are for, and loopback.
fn names_of_routes(config: &Config) -> Vec<Box<str>> {
    let mut names: Vec<Box<str>> = LOOPBACK.map(Box::from).to_vec();
    for host in config.routes.iter().filter_map(|route| route.host.as_ref()) {
        let host = host.get_ref().to_ascii_lowercase();
        let name = match host.strip_prefix('{').and_then(|rest| rest.split_once('}')) {
            Some((_, rest)) => format!("*{rest}"),
            None => host,
        };
        // What cannot stand in a certificate is no name of a client's.
        let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"*.-_:".contains(&byte));
        if is_name && !names.iter().any(|known| **known == *name) {
            names.push(name.into());
        }
    }
    names
}

/// Warns of those that are no good although they can be shown.
pub(super) fn warnings(config: &Config, certificates: &[Arc<Certificate>]) -> Vec<Diagnostic> {
    let now = SystemTime::now();
    let mut warnings = Vec::new();
    for certificate in certificates {
        let Some(declared) = config.certificates.get(&certificate.name) else { continue };
        let span = match &declared.source {
            CertificateSource::Files(files) => files.cert.span(),
            CertificateSource::SelfSigned | CertificateSource::Acme(_) => declared.name.span(),
        };
        let name = &certificate.name;
        if let Some(problem) = &certificate.problem {
            let message = format!("certificate `{name}`: {problem}");
            warnings.push(
                Diagnostic::warning(span.clone(), message).label("what its files held before is still shown"),
            );
        }
        if let (CertificateSource::Files(files), Some(Err(error))) =
            (&declared.source, certificate.loaded.ocsp(now))
            && let Some(file) = &files.ocsp
        {
            let message = format!("certificate `{name}`: `{}`: {error}", file.get_ref());
            let is_shown = error == tls::OcspError::Revoked;
            let label = if is_shown { "clients will refuse the certificate" } else { "it is not shown" };
            warnings.push(Diagnostic::warning(file.span(), message).label(label));
        }
        let day = |time| humantime::format_rfc3339_seconds(time).to_string();
        let message = if certificate.left(now).is_none() {
            format!("certificate `{name}` has expired on {}", day(certificate.loaded.not_after()))
        } else if certificate.loaded.not_before() > now {
            format!("certificate `{name}` is not valid before {}", day(certificate.loaded.not_before()))
        } else if certificate.names.is_empty() {
            format!("certificate `{name}` has no name, so it can only be the default")
        } else {
            continue;
        };
        warnings.push(Diagnostic::warning(span, message).label("clients will refuse it"));
    }
    warnings
}
