//! What operators learn of certificates: how long each is valid, and whether its files can be used.

use crate::{
    metrics::{Gauge, Metrics, names},
    snapshot::{Certificate, Snapshot, Source},
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

/// How often certificates are looked at.
pub(super) const INTERVAL: Duration = Duration::from_secs(3600);

/// How long before its end a certificate of files is spoken of: whoever renews it has done so by then.
const SOON: Duration = Duration::from_secs(7 * 24 * 3600);

/// The certificates that are shown.
pub(super) struct CertificateReports {
    metrics: Arc<Metrics>,
    certificates: Vec<Arc<Certificate>>,
    /// By name: when it expires, and whether there is a problem.
    gauges: BTreeMap<String, (Gauge, Gauge)>,
}

impl CertificateReports {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, certificates: Vec::new(), gauges: BTreeMap::new() }
    }

    /// Takes up those of a new configuration, whose warnings have been told.
    pub(super) fn apply(&mut self, snapshot: &Snapshot) {
        self.certificates.clone_from(&snapshot.tls.certificates);
        let mut before = std::mem::take(&mut self.gauges);
        for certificate in &self.certificates {
            let labels = [("certificate", &*certificate.name)];
            let gauges = before.remove(&certificate.name).unwrap_or_else(|| {
                let gauge = |name| self.metrics.gauge(name, &labels);
                (gauge(&names::CERTIFICATE_EXPIRY), gauge(&names::CERTIFICATE_PROBLEM))
            });
            gauges.0.set(seconds(certificate.loaded.not_after()));
            gauges.1.set(certificate.problem.is_some().into());
            self.gauges.insert(certificate.name.clone(), gauges);
        }
    }

    /// Warns of those that end, and says whether one should be made anew.
    pub(super) fn look(&self, now: SystemTime) -> bool {
        for certificate in &self.certificates {
            let is_of_files = matches!(certificate.source, Source::Files { .. });
            let name = &certificate.name;
            match certificate.left(now) {
                None => tracing::error!(certificate = name, "has expired: clients refuse it"),
                Some(left) if is_of_files && left < SOON => {
                    let hours = left.as_secs() / 3600;
                    tracing::warn!(certificate = name, hours, "expires soon, and has not been renewed");
                }
                Some(_) => {}
            }
        }
        let mut made_here = self.certificates.iter().filter(|known| known.source == Source::SelfSigned);
        made_here.any(|certificate| certificate.is_old(now))
    }
}

/// What `/status` says of them.
pub(super) fn status(snapshot: &Snapshot) -> Vec<Value> {
    let now = SystemTime::now();
    let one = |certificate: &Arc<Certificate>| {
        let time = |time| humantime::format_rfc3339_seconds(time).to_string();
        json!({
            "name": certificate.name,
            "names": certificate.names,
            "default": certificate.is_default,
            "kind": certificate.loaded.kind().as_str(),
            "source": match certificate.source {
                Source::Files { .. } => "files",
                Source::SelfSigned => "self-signed",
            },
            "not_before": time(certificate.loaded.not_before()),
            "not_after": time(certificate.loaded.not_after()),
            "expired": certificate.left(now).is_none(),
            "ocsp": certificate.loaded.ocsp(now).map(|is_good| match is_good {
                Ok(()) => "shown".to_owned(),
                Err(error) => error.to_string(),
            }),
            "problem": certificate.problem,
        })
    };
    snapshot.tls.certificates.iter().map(one).collect()
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}
