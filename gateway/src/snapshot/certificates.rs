//! From `[certificate.NAME]` to certificates that listeners show.

use super::{Files, Inputs, Snapshot, state_dir::StateDir};
use crate::{
    config::{Certificate as Declared, Config, Diagnostic, Spanned},
    tls::{self, Authority, Certificates, Entry, Terminator, Tickets},
};
use std::{path::PathBuf, sync::Arc};

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
    source: Source,
}

/// Where a certificate is from.
#[derive(Debug, PartialEq, Eq)]
enum Source {
    Files { cert: PathBuf, key: PathBuf, ocsp: Option<PathBuf> },
    SelfSigned,
}

/// Why a certificate cannot be loaded, and which key of its table leads there.
struct Problem<'a> {
    at: &'a Spanned<String>,
    message: String,
    label: &'static str,
}

/// What of a configuration is about TLS, ready to run.
pub(super) struct Built {
    pub(super) certificates: Vec<Arc<Certificate>>,
    /// For all TLS listeners; none where there is no such listener.
    pub(super) server: Option<Arc<Terminator>>,
    pub(super) tickets: Option<Tickets>,
}

/// Loads all certificates. One whose files have become unusable stays what it was: it must not keep
/// others from being renewed.
pub(super) fn build(
    config: &Config,
    previous: Option<&Snapshot>,
    inputs: &Inputs<'_>,
    files: &mut Files,
    problems: &mut Vec<Diagnostic>,
) -> Built {
    let mut declared: Vec<&Declared> = config.certificates.values().collect();
    declared.sort_by_key(|certificate| certificate.name.span().start);
    let chosen =
        |certificate: &&Declared| certificate.default.as_ref().is_some_and(|chosen| *chosen.get_ref());
    let default = declared
        .iter()
        .find(|certificate| chosen(certificate))
        .or_else(|| declared.iter().find(|certificate| certificate.default.is_none()));
    let default = default.map(|certificate| certificate.name.get_ref().as_str());
    let mut authority = None;
    let mut certificates = Vec::new();
    for certificate in &declared {
        let is_default = default == Some(certificate.name.get_ref());
        let before = previous.and_then(|previous| {
            previous.certificates.iter().find(|known| known.name == *certificate.name.get_ref())
        });
        let built = match &certificate.cert {
            Some(cert) => from_files(certificate, cert, is_default, before, inputs, files, problems),
            None => self_signed(certificate, is_default, before, config, inputs, &mut authority, problems),
        };
        certificates.extend(built);
    }
    let needed = config.listeners.iter().any(|listener| listener.tls);
    let tickets = previous.and_then(|previous| previous.tickets.clone());
    let (server, tickets) = if needed { server(&certificates, tickets, problems) } else { (None, tickets) };
    Built { certificates, server, tickets }
}

fn server(
    certificates: &[Arc<Certificate>],
    tickets: Option<Tickets>,
    problems: &mut Vec<Diagnostic>,
) -> (Option<Arc<Terminator>>, Option<Tickets>) {
    let entries = certificates.iter().map(|certificate| Entry {
        certificate: Arc::clone(&certificate.loaded),
        names: certificate.names.clone(),
        is_default: certificate.is_default,
    });
    let set = Arc::new(Certificates::new(entries));
    let made = tickets
        .map_or_else(Tickets::new, Ok)
        .and_then(|tickets| Ok((Terminator::new(set, &tickets)?, tickets)));
    match made {
        Ok((server, tickets)) => (Some(Arc::new(server)), Some(tickets)),
        Err(error) => {
            problems.push(Diagnostic::error(0..0, format!("TLS cannot be set up: {error}")));
            (None, None)
        }
    }
}

fn from_files(
    declared: &Declared,
    cert: &Spanned<String>,
    is_default: bool,
    before: Option<&Arc<Certificate>>,
    inputs: &Inputs<'_>,
    files: &mut Files,
    problems: &mut Vec<Diagnostic>,
) -> Option<Arc<Certificate>> {
    let name = declared.name.get_ref();
    let key = declared.key.as_ref().unwrap_or(cert);
    let path = |file: &Spanned<String>| inputs.base.join(file.get_ref());
    let source = Source::Files { cert: path(cert), key: path(key), ocsp: declared.ocsp.as_ref().map(path) };
    let (loaded, problem) = match load(declared, cert, key, inputs, files) {
        Ok(loaded) => (Arc::new(loaded), None),
        Err(problem) => match before.filter(|before| before.source == source) {
            Some(before) => (Arc::clone(&before.loaded), Some(problem.message)),
            None => {
                problems.push(
                    Diagnostic::error(
                        problem.at.span(),
                        format!("certificate `{name}`: {}", problem.message),
                    )
                    .label(problem.label),
                );
                return None;
            }
        },
    };
    let names = written_names(declared).unwrap_or_else(|| loaded.names().to_vec());
    Some(Arc::new(Certificate { name: name.clone(), loaded, names, is_default, problem, source }))
}

fn load<'a>(
    declared: &'a Declared,
    cert: &'a Spanned<String>,
    key: &'a Spanned<String>,
    inputs: &Inputs<'_>,
    files: &mut Files,
) -> Result<tls::Certificate, Problem<'a>> {
    let mut read = |file: &'a Spanned<String>| {
        let path = inputs.base.join(file.get_ref());
        files.read(&path).map_err(|error| Problem {
            at: file,
            message: format!("cannot read `{}`: {error}", path.display()),
            label: "no such file",
        })
    };
    // All of them are read whatever is wrong with one: each is a reason to look again when it changes.
    let (chain, secret) = (read(cert), read(key));
    let ocsp = declared.ocsp.as_ref().map(&mut read).transpose();
    let loaded = tls::Certificate::from_pem(&chain?, &secret?).map_err(|error| {
        use tls::CertificateError::{EncryptedKey, Key, Mismatch, NoKey};
        let at = if matches!(error, NoKey | EncryptedKey | Key(_) | Mismatch) { key } else { cert };
        Problem { at, message: error.to_string(), label: "cannot be used" }
    })?;
    Ok(match ocsp? {
        Some(response) => loaded.with_ocsp(response),
        None => loaded,
    })
}

fn written_names(declared: &Declared) -> Option<Vec<Box<str>>> {
    let names = declared.names.as_ref()?;
    Some(names.iter().map(|name| name.get_ref().to_ascii_lowercase().into()).collect())
}

fn self_signed(
    declared: &Declared,
    is_default: bool,
    before: Option<&Arc<Certificate>>,
    config: &Config,
    inputs: &Inputs<'_>,
    authority: &mut Option<Authority>,
    problems: &mut Vec<Diagnostic>,
) -> Option<Arc<Certificate>> {
    let name = declared.name.get_ref().clone();
    let names = written_names(declared).unwrap_or_else(|| names_of_routes(config));
    let unchanged = before.filter(|before| {
        before.source == Source::SelfSigned && before.names == names && !is_old(&before.loaded)
    });
    let loaded = match unchanged {
        Some(before) => Arc::clone(&before.loaded),
        None => match issue(&names, config, inputs, authority) {
            Ok(loaded) => Arc::new(loaded),
            Err(message) => {
                problems.push(
                    Diagnostic::error(
                        declared.self_signed.span(),
                        format!("certificate `{name}`: {message}"),
                    )
                    .label("cannot be made"),
                );
                return None;
            }
        },
    };
    let source = Source::SelfSigned;
    Some(Arc::new(Certificate { name, loaded, names, is_default, problem: None, source }))
}

/// Signs a certificate by the authority that is kept, or by a new one.
fn issue(
    names: &[Box<str>],
    config: &Config,
    inputs: &Inputs<'_>,
    authority: &mut Option<Authority>,
) -> Result<tls::Certificate, String> {
    if authority.is_none() {
        let folder = StateDir::of(config, inputs);
        *authority = Some(folder.authority()?);
    }
    let Some(authority) = authority else { return Err("there is no authority".to_owned()) };
    authority.issue(names).map_err(|error| error.to_string())
}

/// Whether two thirds of its time are over.
fn is_old(certificate: &tls::Certificate) -> bool {
    let whole = certificate.not_after().duration_since(certificate.not_before()).unwrap_or_default();
    let left = certificate.not_after().duration_since(std::time::SystemTime::now()).unwrap_or_default();
    left < whole / 3
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
