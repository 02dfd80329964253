//! Who one is at which registry, and what registries ask for.

/// What holds names and passwords: `HOST=NAME:PASSWORD`, several with blanks between them.
const VARIABLE: &str = "VERS_OCI_LOGIN";

/// Names and passwords, each of one registry: no other one is told them.
#[derive(Debug, Default)]
pub(super) struct Logins(Vec<(String, String)>);

impl Logins {
    /// Those of the environment.
    ///
    /// # Errors
    /// Fails where it is not said whose they are.
    pub(super) fn of_environment() -> Result<Self, String> {
        std::env::var(VARIABLE).map_or_else(|_| Ok(Self::default()), |text| Self::parse(&text))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let logins = text.split_whitespace().map(|login| {
            let (host, login) = login.split_once('=').filter(|(host, _)| is_host(host))?;
            login.contains(':').then(|| (host.to_owned(), login.to_owned()))
        });
        // Nothing of it is repeated: there may be a password in it.
        logins.collect::<Option<_>>().map(Self).ok_or_else(|| {
            format!("{VARIABLE} must say whose it is: HOST=NAME:PASSWORD, several with blanks between them")
        })
    }

    /// `NAME:PASSWORD` at this registry.
    pub(super) fn of(&self, host: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known.eq_ignore_ascii_case(host)).map(|(_, login)| login.as_str())
    }
}

/// `HOST` or `HOST:PORT`, and nothing with a password in it.
fn is_host(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !text.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let is_named = |host: &str| {
        !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte))
    };
    let is_address = host.starts_with('[') && host.ends_with(']');
    (is_address || is_named(host)) && port.is_none_or(|port| port.parse::<u16>().is_ok())
}

/// What a registry wants before it lets in (RFC 9110 §11.3).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Challenge {
    scheme: String,
    parameters: Vec<(String, String)>,
}

impl Challenge {
    /// All of a line.
    pub(super) fn all(line: &str) -> Vec<Self> {
        let mut all: Vec<Self> = Vec::new();
        for part in parts(line) {
            let part = part.trim();
            let equals = part.find('=').unwrap_or(part.len());
            // A name has no blanks: what stands before one is the next scheme.
            let rest = match part.get(..equals).and_then(|name| name.trim_end().split_once(' ')) {
                Some((scheme, _)) => {
                    all.push(Self { scheme: scheme.to_owned(), parameters: Vec::new() });
                    part.get(scheme.len()..).unwrap_or_default()
                }
                None if equals == part.len() && !part.is_empty() => {
                    all.push(Self { scheme: part.to_owned(), parameters: Vec::new() });
                    continue;
                }
                None => part,
            };
            if let (Some((name, value)), Some(last)) = (rest.split_once('='), all.last_mut()) {
                last.parameters.push((name.trim().to_owned(), unquoted(value.trim())));
            }
        }
        all
    }

    pub(super) fn is_of(&self, scheme: &str) -> bool {
        self.scheme.eq_ignore_ascii_case(scheme)
    }

    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        let mut parameters = self.parameters.iter();
        parameters.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// What stands between commas that are in no quotes.
fn parts(line: &str) -> impl Iterator<Item = &str> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    line.split(move |char| {
        let is_plain = !std::mem::take(&mut is_escaped);
        match char {
            '"' if is_plain => is_quoted = !is_quoted,
            '\\' if is_plain && is_quoted => is_escaped = true,
            _ => {}
        }
        char == ',' && !is_quoted
    })
}

fn unquoted(value: &str) -> String {
    let Some(inside) = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
        return value.to_owned();
    };
    let mut is_escaped = false;
    inside
        .chars()
        .filter(|char| {
            is_escaped = *char == '\\' && !is_escaped;
            !is_escaped
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_one_registrys() {
        let logins =
            Logins::parse("ghcr.io=ada:s3=cret\n localhost:5000=bob:x [::1]:5000=eve:y").expect("logins");
        for (host, login) in [
            ("GHCR.io", Some("ada:s3=cret")),
            ("localhost:5000", Some("bob:x")),
            ("[::1]:5000", Some("eve:y")),
            ("localhost", None),
            ("ghcr.io.example.com", None),
        ] {
            assert_eq!(logins.of(host), login, "{host}");
        }
        for bad in ["ada:s3cret", "ada:s3=cret", "ghcr.io=token", "=ada:s3cret", "https://ghcr.io=ada:x"] {
            let said = Logins::parse(bad).expect_err(bad);
            assert!(!said.contains("cret"), "{said}");
        }
        assert!(Logins::parse("").expect("none").of("ghcr.io").is_none());
    }

    #[test]
    fn challenges_are_read_as_they_are_written() {
        let line = "Basic realm=\"a, b\", bearer realm=\"https://auth.example.com/token\",service=r.example.com,scope=\"x \\\"y\\\"\"";
        let all = Challenge::all(line);
        let [basic, bearer] = all.as_slice() else { panic!("{all:?}") };
        assert!(basic.is_of("basic") && bearer.is_of("Bearer"));
        assert_eq!(basic.parameter("realm"), Some("a, b"));
        assert_eq!(bearer.parameter("Realm"), Some("https://auth.example.com/token"));
        assert_eq!(bearer.parameter("service"), Some("r.example.com"));
        assert_eq!(bearer.parameter("scope"), Some("x \"y\""));
        assert_eq!(bearer.parameter("error"), None);
        let bare = Challenge::all("Negotiate, Basic realm=x");
        assert!(bare.len() == 2 && bare.iter().any(|challenge| challenge.is_of("Negotiate")), "{bare:?}");
    }
}
