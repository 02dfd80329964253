//! Lets web pages of other origins use an application (CORS, <https://fetch.spec.whatwg.org/#http-cors-protocol>).

use std::time::Duration;
use vers_plugin::prelude::*;

/// Lets web pages of other origins use an application.
#[derive(Debug, Deserialize, ConfigSchema)]
#[serde(deny_unknown_fields)]
struct Cors {
    /// Origins whose pages may, such as "https://app.example.com"; "*" for all.
    origins: Vec<String>,
    /// Methods that they may use.
    #[serde(default = "methods")]
    methods: Vec<String>,
    /// Headers that they may send.
    #[serde(default)]
    headers: Vec<String>,
    /// Headers of answers that they may read.
    #[serde(default)]
    expose: Vec<String>,
    /// Whether they may send cookies and credentials; not for "*" and "null".
    #[serde(default)]
    credentials: bool,
    /// How long a browser may remember all this.
    #[serde(with = "duration", default = "duration::seconds::<600>")]
    max_age: Duration,
}

const ALLOW_ORIGIN: &str = "access-control-allow-origin";
const ALLOW_CREDENTIALS: &str = "access-control-allow-credentials";
const EXPOSE: &str = "access-control-expose-headers";

impl HttpFilter for Cors {
    fn on_request(&self, req: &mut Request) -> Verdict {
        let Some(origin) = req.header_str("origin") else { return Verdict::Next };
        let is_preflight =
            req.method() == "OPTIONS" && req.headers().contains("access-control-request-method");
        if self.allows(&origin) {
            // For the answer; an origin that is too long to be kept is nobody's.
            let _ = req.exchange().set("origin", origin);
        }
        if !is_preflight {
            return Verdict::Next;
        }
        // Who is allowed, `on_response` says, of this answer as of all others.
        let mut reply = Reply::new(204)
            .header("access-control-allow-methods", self.methods.join(", "))
            .header("access-control-max-age", self.max_age.as_secs().to_string())
            .reason("preflight");
        if !self.headers.is_empty() {
            reply = reply.header("access-control-allow-headers", self.headers.join(", "));
        }
        reply.into()
    }

    fn on_response(&self, resp: &mut Response) -> ResponseVerdict {
        // What the application says itself would contradict this.
        for name in [ALLOW_ORIGIN, ALLOW_CREDENTIALS, EXPOSE] {
            resp.remove_header(name);
        }
        if !self.is_for_all() && resp.headers().append("vary", "origin").is_err() {
            log::warn("an answer cannot be marked as different for each origin");
        }
        let Some(origin) = resp.exchange().get("origin") else { return ResponseVerdict::Next };
        if self.is_for_all() {
            resp.set_header(ALLOW_ORIGIN, "*");
        } else {
            resp.set_header(ALLOW_ORIGIN, origin);
        }
        if self.credentials {
            resp.set_header(ALLOW_CREDENTIALS, "true");
        }
        if !self.expose.is_empty() {
            resp.set_header(EXPOSE, self.expose.join(", "));
        }
        ResponseVerdict::Next
    }

    fn validate(&self, problems: &mut Problems) {
        if self.origins.is_empty() {
            problems.add("origins", "empty; expected origins, or \"*\"");
        }
        for (i, origin) in self.origins.iter().enumerate().filter(|(_, origin)| !is_origin(origin)) {
            problems.add(
                format!("origins.{i}"),
                format!("{origin:?} is not an origin such as \"https://app.example.com\""),
            );
        }
        if self.credentials && self.is_for_all() {
            problems.add("credentials", "browsers take no credentials for \"*\": name the origins");
        }
        // Sandboxed frames and files are of this origin, anybody's: as good as "*".
        if self.credentials && self.allows("null") {
            problems.add("credentials", "not for \"null\", which any page can be: name the origins");
        }
        let names =
            |list: &[String]| list.iter().enumerate().map(|(i, name)| (i, name.clone())).collect::<Vec<_>>();
        for (key, list) in [("methods", &self.methods), ("headers", &self.headers), ("expose", &self.expose)]
        {
            for (i, name) in names(list) {
                if vers_plugin::headers::check_name(&name) == Err(EditError::InvalidName) {
                    problems.add(format!("{key}.{i}"), format!("{name:?} is not a name"));
                }
            }
        }
    }
}
vers_plugin::export!(Cors: http_filter);

impl Cors {
    fn is_for_all(&self) -> bool {
        self.origins.iter().any(|origin| origin == "*")
    }

    fn allows(&self, origin: &str) -> bool {
        self.is_for_all() || self.origins.iter().any(|allowed| allowed == origin)
    }
}

/// Scheme, host and perhaps a port, as browsers write them: in lower case and without a slash.
fn is_origin(text: &str) -> bool {
    let rest = text.split_once("://").filter(|(scheme, _)| !scheme.is_empty()).map(|(_, rest)| rest);
    let is_part = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._:[]".contains(&byte);
    text == "*" || text == "null" || rest.is_some_and(|rest| !rest.is_empty() && rest.bytes().all(is_part))
}

fn methods() -> Vec<String> {
    ["GET", "HEAD", "POST"].map(str::to_owned).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use vers_plugin::testing;

    fn cors(table: &str) -> Cors {
        testing::configure(table).expect("a good table")
    }

    #[test]
    fn a_preflight_is_answered_and_other_requests_go_on() {
        let cors = cors("origins = ['https://a.example']\nmethods = ['PUT', 'GET']\nheaders = ['x-team']");
        let preflight = testing::request("OPTIONS", "/").header("origin", "https://a.example");
        let mut req = preflight.header("access-control-request-method", "PUT").build();
        let verdict = cors.on_request(&mut req);
        let reply = verdict.reply().expect("an answer");
        assert_eq!((reply.status, reply.header_str("access-control-allow-methods")), (204, Some("PUT, GET")));
        assert_eq!(reply.header_str("access-control-allow-headers"), Some("x-team"));
        assert_eq!(reply.header_str("access-control-max-age"), Some("600"));
        assert_eq!(req.exchange().get("origin").as_deref(), Some(b"https://a.example".as_slice()));
        for other in [
            testing::request("GET", "/").header("origin", "https://a.example"),
            testing::request("OPTIONS", "/"),
        ] {
            assert_eq!(cors.on_request(&mut other.build()), Verdict::Next);
        }
    }

    #[test]
    fn a_stranger_is_not_remembered() {
        let cors = cors("origins = ['https://a.example']");
        let mut req = testing::request("GET", "/").header("origin", "https://a.example.evil").build();
        assert_eq!(cors.on_request(&mut req), Verdict::Next);
        assert_eq!(req.exchange().get("origin"), None);
        let mut resp = testing::response(200).header(ALLOW_ORIGIN, "*").build();
        cors.on_response(&mut resp);
        assert!(!resp.headers().contains(ALLOW_ORIGIN), "the plugin decides, not the application");
        assert_eq!(resp.headers().get_str("vary").as_deref(), Some("origin"));
    }

    #[test]
    fn mistakes() {
        for (table, path) in [
            ("origins = []", "origins"),
            ("origins = ['https://a.example/']", "origins.0"),
            ("origins = ['a.example']", "origins.0"),
            ("origins = ['*']\ncredentials = true", "credentials"),
            ("origins = ['https://a.example', 'null']\ncredentials = true", "credentials"),
            ("origins = ['*']\nheaders = ['x y']", "headers.0"),
        ] {
            let problems = testing::configure::<Cors>(table).expect_err(table);
            assert_eq!(problems[0].path, path, "{problems:?}");
        }
    }
}
