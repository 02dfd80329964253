//! Entries as clients see them: the fields of the service before this one, in its order, and ours behind.

use super::{Lease, Moment, Record, Role, Service, Status, Verdict};
use bytes::Bytes;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use std::time::SystemTime;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Shown<'a> {
    id: &'a str,
    name: &'a str,
    role: Role,
    status: Status,
    address: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    services: Option<Vec<ShownService<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a RawValue>,
    registered_by: &'a str,
    registered_at: Time,
    last_seen: Time,
    ttl: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<Time>,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    stale: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    generation: Option<u64>,
    revision: u64,
}

/// A change, for those who watch.
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(super) enum News<'a> {
    /// An entry as it is now.
    Put { revision: u64, vm: Box<Shown<'a>> },
    /// An entry that is no more.
    Gone { revision: u64, id: &'a str },
}

impl News<'_> {
    pub(super) fn to_json(&self) -> Bytes {
        // What is written has no keys but strings: this cannot fail.
        serde_json::to_vec(self).unwrap_or_default().into()
    }
}

#[derive(Serialize)]
struct ShownService<'a> {
    #[serde(flatten)]
    service: &'a Service,
    url: String,
    /// What was found out about it, where anybody looked.
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

/// A time as JavaScript prints it: `2026-02-03T04:05:06.789Z`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Time(pub(super) SystemTime);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_rfc3339_millis(self.0))
    }
}

impl<'a> Shown<'a> {
    pub(super) fn of(record: &'a Record, now: Moment) -> Self {
        let what = &*record.what;
        let service = |service: &'a Service| {
            let verdict = record.health.of(&service.name);
            ShownService {
                service,
                url: url(&what.address, service.port),
                state: (verdict != Verdict::Unknown).then(|| verdict.name()),
                why: record.health.why_of(&service.name),
            }
        };
        Self {
            id: &what.id,
            name: &what.name,
            role: what.role,
            status: record.status,
            address: &what.address,
            services: what.services.as_ref().map(|services| services.iter().map(service).collect()),
            metadata: what.metadata.as_deref(),
            registered_by: &what.registered_by,
            registered_at: Time(record.registered_at),
            last_seen: Time(record.seen_by(now)),
            ttl: record.ttl.as_secs(),
            expires_at: match record.lease {
                Lease::Runs { until, .. } => Some(now.wall + until.saturating_sub(now.mono)),
                Lease::Told { until } => {
                    until.and_then(|until| Some(now.wall + until.checked_sub(now.mono)?))
                }
                Lease::Expired { at, .. } => Some(at),
                Lease::Paused { .. } => None,
            }
            .map(Time),
            state: record.state(),
            why: record.why(),
            stale: record.is_held(),
            generation: what.generation,
            revision: record.revision,
        }
    }
}

/// Where a service is reached: TLS ends at the edge, on the service's own port.
fn url(address: &str, port: u16) -> String {
    match address.parse::<std::net::Ipv6Addr>() {
        Ok(ip) => format!("https://[{ip}]:{port}"),
        Err(_) => format!("https://{address}:{port}"),
    }
}
