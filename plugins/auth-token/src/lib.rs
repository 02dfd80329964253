//! Lets a request pass if it carries the fleet's bearer token, or asks for an exempt path.

use vers_plugin::prelude::*;

#[derive(Debug, Deserialize, ConfigSchema)]
#[serde(deny_unknown_fields)]
struct AuthToken {
    /// Name of the secret that a request must carry as its bearer token.
    secret: String,
    /// Paths that need no token.
    #[serde(default = "health")]
    exempt: Vec<PathPattern>,
    /// What happens while the secret has no value.
    #[serde(default)]
    when_unset: WhenUnset,
    /// Named in the challenge.
    realm: Option<String>,
}

#[derive(Debug, Default, Deserialize, ConfigSchema)]
#[serde(rename_all = "lowercase")]
enum WhenUnset {
    #[default]
    Deny,
    Allow,
}

impl HttpFilter for AuthToken {
    fn on_request(&self, req: &mut Request) -> Verdict {
        // The token first: nearly every request has it, and each question to the gateway costs.
        if req.bearer_matches(&self.secret) || self.exempt.iter().any(|paths| paths.covers(req.path())) {
            return Verdict::Next;
        }
        match req.bearer() {
            _ if !secrets::is_set(&self.secret) => self.unset(),
            Some(_) => self.refuse("wrong-token", Some("invalid_token")),
            None => self.refuse("missing-token", None),
        }
    }

    fn validate(&self, problems: &mut Problems) {
        if self.secret.is_empty() {
            problems.add("secret", "empty; expected the name of a [secret.NAME] table");
        }
        for (i, _) in self.exempt.iter().enumerate().filter(|(_, paths)| paths.covers_all()) {
            problems.add(format!("exempt.{i}"), "exempts every path; take the plugin off the route instead");
        }
        let is_quotable = |b: u8| (0x20..0x7f).contains(&b) && b != b'"' && b != b'\\';
        if self.realm.as_ref().is_some_and(|realm| !realm.bytes().all(is_quotable)) {
            problems.add("realm", "expected printable ASCII without quotes and backslashes");
        }
    }
}
vers_plugin::export!(AuthToken: request_filter);

impl AuthToken {
    /// Nothing to compare with is no reason to let everybody in, unless the operator says so.
    fn unset(&self) -> Verdict {
        if matches!(self.when_unset, WhenUnset::Allow) {
            return Verdict::Next;
        }
        log::error(format!(
            "secret {:?} is not granted or has no value: all requests are refused",
            self.secret
        ));
        self.refuse("secret-unset", None)
    }

    /// 401 with the challenge of RFC 6750 §3: `error` says what was wrong with a token, and there is
    /// none where no token was sent.
    fn refuse(&self, reason: &str, error: Option<&str>) -> Verdict {
        let realm = self.realm.iter().map(|realm| format!("realm=\"{realm}\""));
        let error = error.iter().map(|error| format!("error=\"{error}\""));
        let challenge = format!("Bearer {}", realm.chain(error).collect::<Vec<_>>().join(", "));
        Reply::new(401)
            .header("www-authenticate", challenge.trim_end())
            .text("unauthorized\n")
            .reason(reason)
            .into()
    }
}

fn health() -> Vec<PathPattern> {
    vec![PathPattern::exact("/health")]
}

#[cfg(test)]
mod tests;
