//! Lets requests pass that carry a JSON Web Token (RFC 7519) of an issuer, whose keys are fetched beside the traffic.

use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header, errors::ErrorKind, jwk::Jwk};
use serde_json::Value;
use std::{cell::RefCell, collections::BTreeMap, time::Duration};
use vers_plugin::prelude::*;

/// Lets requests pass that carry a JSON Web Token of an issuer.
#[derive(Deserialize, ConfigSchema)]
#[serde(deny_unknown_fields)]
struct Jwt {
    /// Where the issuer's keys are: a JSON Web Key Set (RFC 7517).
    jwks: String,
    /// What tokens say in `iss`; anything where absent.
    issuer: Option<String>,
    /// One of these stands in a token's `aud`; anything where empty.
    #[serde(default)]
    audience: Vec<String>,
    /// How far clocks may differ.
    #[serde(with = "duration", default = "duration::seconds::<60>")]
    leeway: Duration,
    /// Between looks at the issuer's keys.
    #[serde(with = "duration", default = "duration::seconds::<300>")]
    refresh: Duration,
    /// Between looks because of a key that is not known: clients can name any.
    #[serde(with = "duration", default = "duration::seconds::<10>")]
    cooldown: Duration,
    /// Headers that tell the backend what a claim says; what clients send in them goes.
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// Paths that need no token.
    #[serde(default)]
    exempt: Vec<PathPattern>,
    /// The keys as an instance has read them.
    #[serde(skip)]
    read: RefCell<Keys>,
}

/// The keys of a set that can be used here, and the set as it was kept.
#[derive(Default)]
struct Keys {
    version: u64,
    keys: Vec<(Jwk, DecodingKey)>,
}

/// What may stand in a token's `alg`: nothing that is verified with a secret, and not `none` (RFC 8725 §3.1).
const ALGORITHMS: [Algorithm; 3] = [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA];
/// How long keys are used that cannot be fetched again: so long, a key that was taken back is accepted.
const STALE: Duration = Duration::from_secs(24 * 60 * 60);

impl HttpFilter for Jwt {
    fn on_request(&self, req: &mut Request) -> Verdict {
        self.headers.keys().for_each(|header| req.remove_header(header));
        if self.exempt.iter().any(|paths| paths.covers(req.path())) {
            return Verdict::Next;
        }
        let token = req.bearer().and_then(|token| String::from_utf8(token).ok());
        let Some(token) = token else { return Verdict::unauthorized("missing-token") };
        let claims = match self.claims(&token) {
            Ok(claims) => claims,
            Err("no-keys") => return Verdict::respond(503, "no-keys"),
            Err(reason) => return Verdict::unauthorized(reason),
        };
        for (header, claim) in &self.headers {
            let value = match claims.get(claim) {
                Some(Value::String(text)) => text.clone(),
                Some(value @ (Value::Number(_) | Value::Bool(_))) => value.to_string(),
                _ => continue,
            };
            // Without it, the backend would take the request for another's.
            if req.headers().set(header, value).is_err() {
                return Verdict::unauthorized("bad-claim");
            }
        }
        Verdict::Next
    }

    fn validate(&self, problems: &mut Problems) {
        if !self.jwks.starts_with("https://") && !self.jwks.starts_with("http://") {
            problems.add("jwks", "expected a URL such as \"https://issuer.example.com/jwks.json\"");
        }
        // Routes may have several issuers, and what is kept is found by this.
        if self.jwks.len() > 240 {
            problems.add("jwks", "expected at most 240 bytes");
        }
        for header in self.headers.keys() {
            if let Err(error) = vers_plugin::headers::check_name(header) {
                problems.add(format!("headers.{header}"), error.to_string());
            }
        }
        for (i, _) in self.exempt.iter().enumerate().filter(|(_, paths)| paths.covers_all()) {
            problems.add(format!("exempt.{i}"), "exempts every path; take the plugin off the route instead");
        }
    }
}

impl Background for Jwt {
    fn run(&self, _why: Reason) -> Result<Next, String> {
        Ok(if self.fetch() { Next::about(self.refresh) } else { Next::about(self.cooldown) })
    }
}
vers_plugin::export!(Jwt: request_filter, background);

impl Jwt {
    /// What the token says, where it is one of the issuer's.
    fn claims(&self, token: &str) -> Result<BTreeMap<String, Value>, &'static str> {
        let header = decode_header(token).map_err(|_| "bad-token")?;
        // RFC 7515 §4.1.11: what must be understood, and is not.
        if header.crit.is_some() {
            return Err("bad-token");
        }
        if !ALGORITHMS.contains(&header.alg) {
            return Err("bad-algorithm");
        }
        let mut found = self.verify(token, header.alg, header.kid.as_deref());
        // One look for all that come with a new key: the others are told to come again.
        if matches!(found, Err("unknown-key" | "no-keys"))
            && kv::increment(&format!("asked {}", self.jwks), 1, Some(self.cooldown)) == Ok(1)
            && self.fetch()
        {
            found = self.verify(token, header.alg, header.kid.as_deref());
        }
        found
    }

    fn verify(
        &self,
        token: &str,
        alg: Algorithm,
        kid: Option<&str>,
    ) -> Result<BTreeMap<String, Value>, &'static str> {
        self.load()?;
        let read = self.read.borrow();
        let is_it = |(key, _): &&(Jwk, _)| match kid {
            Some(kid) => key.common.key_id.as_deref() == Some(kid),
            // Where a set has several, trying all would be the client's choice of our time.
            None => read.keys.len() == 1,
        };
        let (key, decoding) = read.keys.iter().find(is_it).ok_or("unknown-key")?;
        if key.common.key_algorithm.is_some_and(|own| own.to_string() != format!("{alg:?}")) {
            return Err("bad-algorithm");
        }
        let mut rules = Validation::new(alg);
        rules.leeway = self.leeway.as_secs();
        rules.validate_nbf = true;
        rules.validate_aud = !self.audience.is_empty();
        if let Some(issuer) = &self.issuer {
            rules.set_issuer(&[issuer]);
            rules.required_spec_claims.insert("iss".to_owned());
        }
        if !self.audience.is_empty() {
            rules.set_audience(&self.audience);
            rules.required_spec_claims.insert("aud".to_owned());
        }
        let decoded = decode(token, decoding, &rules).map_err(|error| match error.kind() {
            ErrorKind::ExpiredSignature => "expired",
            ErrorKind::ImmatureSignature => "not-yet",
            ErrorKind::InvalidIssuer => "wrong-issuer",
            ErrorKind::InvalidAudience => "wrong-audience",
            ErrorKind::MissingRequiredClaim(_) => "missing-claim",
            _ => "bad-token",
        })?;
        Ok(decoded.claims)
    }

    /// Reads the keys that are kept, where they are others than this instance has read.
    fn load(&self) -> Result<(), &'static str> {
        let kept = kv::get(&self.jwks).ok().flatten().ok_or("no-keys")?;
        let mut read = self.read.borrow_mut();
        if read.version != kept.version {
            *read = Keys { version: kept.version, keys: keys(&kept.value) };
        }
        Ok(())
    }

    /// Fetches the keys and keeps them; whether there are some.
    fn fetch(&self) -> bool {
        let answer = http::get(&self.jwks).timeout(Duration::from_secs(3)).send();
        let set = match answer.and_then(http::Response::error_for_status) {
            Ok(answer) => answer.body().to_vec(),
            Err(error) => {
                log::warn(format!("{}: {error}; the keys stay as they are", self.jwks));
                return false;
            }
        };
        if keys(&set).is_empty() {
            log::warn(format!("{}: no keys that can be used; they stay as they are", self.jwks));
            return false;
        }
        let kept = kv::set(&self.jwks, set, Some(STALE));
        kept.inspect_err(|error| log::warn(format!("the keys cannot be kept: {error}"))).is_ok()
    }
}

/// The keys of a set that can be used; a set may hold others.
fn keys(set: &[u8]) -> Vec<(Jwk, DecodingKey)> {
    let set: Value = serde_json::from_slice(set).unwrap_or_default();
    let keys = set.get("keys").and_then(Value::as_array).into_iter().flatten();
    let keys = keys.filter(|key| key.get("use").is_none_or(|usage| usage == "sig"));
    keys.filter_map(|key| {
        let key: Jwk = serde_json::from_value(key.clone()).ok()?;
        let decoding = DecodingKey::from_jwk(&key).ok()?;
        Some((key, decoding))
    })
    .collect()
}

#[cfg(test)]
mod tests;
