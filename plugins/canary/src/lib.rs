//! Sends a part of the requests, or those with a header, to another backend.

use vers_plugin::prelude::*;

/// Sends a part of the requests, or those with a header, to another backend.
#[derive(Debug, Deserialize, ConfigSchema)]
#[serde(deny_unknown_fields)]
struct Canary {
    /// The other backend, as `grants.backends` names it.
    to: String,
    /// How many of a hundred clients go there, 0 to 100, such as 2.5.
    #[serde(default)]
    percent: f64,
    /// A header that tells clients apart, such as one with the user's name; by default their address.
    by: Option<String>,
    /// Requests with this header go there, whoever sends them.
    header: Option<Header>,
    /// What the other backend is asked for as its host; by default what the client asked for.
    host: Option<String>,
}

#[derive(Debug, Deserialize, ConfigSchema)]
#[serde(deny_unknown_fields)]
struct Header {
    name: String,
    /// By default any.
    value: Option<String>,
}

impl HttpFilter for Canary {
    fn on_request(&self, req: &mut Request) -> Verdict {
        if !self.is_meant(req) {
            return Verdict::Next;
        }
        if let Some(host) = &self.host
            && let Err(error) = req.set_authority(host)
        {
            log::warn(format!("host {host:?}: {error}"));
        }
        Verdict::route_to(&self.to)
    }

    fn validate(&self, problems: &mut Problems) {
        if !(0.0..=100.0).contains(&self.percent) {
            problems.add("percent", "expected 0 to 100");
        }
        if self.percent == 0.0 && self.header.is_none() {
            problems.add("", "nothing goes to the canary: set `percent` or `header`");
        }
        let names = [("by", &self.by), ("header.name", &self.header.as_ref().map(|it| it.name.clone()))];
        for (key, name) in names {
            if let Some(Err(error)) = name.as_deref().map(vers_plugin::headers::check_name)
                && error != EditError::Forbidden
            {
                problems.add(key, error.to_string());
            }
        }
    }
}
vers_plugin::export!(Canary: request_filter);

impl Canary {
    fn is_meant(&self, req: &Request) -> bool {
        let has = |header: &Header| match (&header.value, req.header(&header.name)) {
            (None, found) => found.is_some(),
            (Some(value), found) => found.is_some_and(|found| found == value.as_bytes()),
        };
        if self.header.as_ref().is_some_and(has) {
            return true;
        }
        self.percent > 0.0 && place(&self.client(req)) < self.percent
    }

    /// Who asks. The same client goes the same way each time, and more go the other way as `percent`
    /// grows: nobody goes back and forth.
    fn client(&self, req: &Request) -> Vec<u8> {
        let named = self.by.as_ref().and_then(|name| req.header(name)).filter(|value| !value.is_empty());
        named.unwrap_or_else(|| req.exchange().client_address().as_bytes().to_vec())
    }
}

/// Where among a hundred a client stands: by FNV-1a, whose bits the last steps mix once more.
fn place(client: &[u8]) -> f64 {
    let hash = client.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mixed = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let parts = (mixed ^ (mixed >> 33)) % 1_000_000;
    parts as f64 / 10_000.0
}

#[cfg(test)]
mod tests;
