//! Lets each client send so many requests in a time, and some more at once: a token bucket for each.

use std::{net::Ipv6Addr, time::Duration};
use vers_plugin::prelude::*;

/// Lets each client send so many requests in a time, and some more at once.
#[derive(Debug, Deserialize, ConfigSchema)]
#[serde(deny_unknown_fields)]
struct RateLimit {
    /// Requests in that time, in the long run.
    requests: u32,
    /// That time.
    #[serde(with = "duration", default = "duration::seconds::<1>")]
    per: Duration,
    /// Requests at once, by a client that sent none for a while; by default as many as `requests`.
    burst: Option<u32>,
    /// The header that tells clients apart; by default, and where a request does not have it, their
    /// address, of IPv6 their network of 64 bits.
    by: Option<String>,
    /// What becomes of requests that cannot be counted, because the grant is used up.
    #[serde(default)]
    when_full: WhenFull,
}

#[derive(Debug, Clone, Copy, Default, Deserialize, ConfigSchema)]
#[serde(rename_all = "lowercase")]
enum WhenFull {
    #[default]
    Deny,
    Allow,
}

/// What becomes of a request.
enum Decision {
    Pass,
    /// It may come again after this time.
    Wait(Duration),
}

impl HttpFilter for RateLimit {
    fn on_request(&self, req: &mut Request) -> Verdict {
        match self.count(&self.key(req)) {
            Ok(Decision::Pass) => Verdict::Next,
            Ok(Decision::Wait(time)) => refused("rate-limit", time),
            Err(_) if matches!(self.when_full, WhenFull::Allow) => Verdict::Next,
            Err(error) => {
                log::warn(format!("requests cannot be counted: {error}"));
                refused("rate-limit-full", self.step())
            }
        }
    }

    fn validate(&self, problems: &mut Problems) {
        if self.requests == 0 {
            problems.add("requests", "expected at least 1");
        }
        if self.burst == Some(0) {
            problems.add("burst", "expected at least 1");
        }
        if let Some(Err(error @ EditError::InvalidName)) =
            self.by.as_deref().map(vers_plugin::headers::check_name)
        {
            problems.add("by", error.to_string());
        }
    }
}
vers_plugin::export!(RateLimit: request_filter);

impl RateLimit {
    /// How long a request takes to be made up for.
    fn step(&self) -> Duration {
        self.per / self.requests.max(1)
    }

    /// A full bucket: how far ahead of its time a client may be.
    fn depth(&self) -> Duration {
        self.step() * self.burst.unwrap_or(self.requests)
    }

    /// One for each route, that a limit there is not used up here; a header's value is kept as its hash,
    /// so that no client chooses how long a key is.
    fn key(&self, req: &Request) -> String {
        let (route, client) = (req.exchange().route(), req.exchange().client_address());
        let named = self.by.as_ref().and_then(|name| req.header(name)).filter(|value| !value.is_empty());
        match named {
            Some(value) => format!("{route:.128}/{:016x}", hash(&value)),
            None => format!("{route:.128}/{}", network(client)),
        }
    }

    /// Counts a request, by one number for each client: the time at which its bucket is full again (GCRA).
    /// It is kept just as long.
    fn count(&self, key: &str) -> Result<Decision, kv::Error> {
        kv::update(key, |kept| {
            // Not before: a time older than what another worker has counted would cost this client a token.
            let now = clock::monotonic();
            let kept = kept.and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes);
            let full_at = kept.map_or(now, Duration::from_nanos).max(now) + self.step();
            let ahead = full_at - now;
            match ahead.checked_sub(self.depth()) {
                Some(early) if !early.is_zero() => (None, Decision::Wait(early)),
                _ => {
                    let nanoseconds = u64::try_from(full_at.as_nanos()).unwrap_or(u64::MAX);
                    let kept_for = ahead + Duration::from_millis(1);
                    (Some((nanoseconds.to_le_bytes().to_vec(), Some(kept_for))), Decision::Pass)
                }
            }
        })
    }
}

/// The network of a client over IPv6, which has all the addresses in it to send requests from; an IPv4 address as it is.
fn network(client: String) -> String {
    let Ok(address) = client.parse::<Ipv6Addr>() else { return client };
    let [a, b, c, d, ..] = address.segments();
    format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
}

/// FNV-1a.
fn hash(value: &[u8]) -> u64 {
    value
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// RFC 6585 §4; whole seconds, and at least one (RFC 9110 §10.2.3).
fn refused(reason: &str, time: Duration) -> Verdict {
    let seconds = time.as_millis().div_ceil(1000).max(1);
    Reply::new(429)
        .header("retry-after", seconds.to_string())
        .text("too many requests\n")
        .reason(reason)
        .into()
}

#[cfg(test)]
mod tests;
