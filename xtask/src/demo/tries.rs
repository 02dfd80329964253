//! What there is to try: the same requests for a person, as lines to type, and for the smoke test.

use super::plan::Plan;

/// One HTTP request.
#[derive(Clone)]
pub(crate) struct Try {
    pub(crate) method: &'static str,
    pub(crate) url: String,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Option<String>,
}

impl Try {
    pub(crate) fn get(url: impl Into<String>) -> Self {
        Self { method: "GET", url: url.into(), headers: Vec::new(), body: None }
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn token(self, token: &str) -> Self {
        self.header("authorization", format!("Bearer {token}"))
    }

    pub(crate) fn post(mut self, body: &str) -> Self {
        self.method = "POST";
        self.body = Some(body.to_owned());
        self
    }

    /// The arguments of `curl` that send it.
    pub(crate) fn curl(&self) -> Vec<String> {
        let headers =
            self.headers.iter().flat_map(|(name, value)| ["-H".to_owned(), format!("{name}: {value}")]);
        let body = self.body.iter().flat_map(|body| ["-d".to_owned(), body.clone()]);
        headers.chain(body).chain([self.url.clone()]).collect()
    }

    /// The line to type.
    pub(crate) fn line(&self, flags: &str) -> String {
        let quoted = |argument: String| match argument.contains([' ', '?', '[', '*']) {
            true => format!("'{argument}'"),
            false => argument,
        };
        let arguments: Vec<String> = self.curl().into_iter().map(quoted).collect();
        format!("curl {flags} {}", arguments.join(" ")).replace("curl  ", "curl ")
    }
}

/// What the gateway is asked for over one family of addresses.
pub(crate) struct Tries {
    pub(crate) refused: Try,
    pub(crate) wrong: Try,
    pub(crate) health: Try,
    pub(crate) echo: Try,
    pub(crate) forged: Try,
    pub(crate) post: Try,
    pub(crate) download: Try,
    pub(crate) events: Try,
}

impl Tries {
    /// `host` is an address as it stands in a URL.
    pub(crate) fn at(host: &str, plan: &Plan) -> Self {
        let get = |path: &str| Try::get(format!("http://{host}:{}{path}", plan.web));
        let token = plan.token.as_str();
        Self {
            refused: get("/echo"),
            wrong: get("/echo").token("something else"),
            health: get("/health"),
            echo: get("/echo").token(token),
            forged: get("/echo").token(token).header("x-forwarded-for", "203.0.113.9"),
            post: get("/echo").token(token).post("hello"),
            download: get(&format!("/download?bytes={DOWNLOAD}")).token(token),
            events: get("/events").token(token),
        }
    }
}

pub(crate) const DOWNLOAD: usize = 10_000_000;

/// What the fleet knows.
pub(crate) fn registry(plan: &Plan) -> Try {
    Try::get(format!("http://{}/registry/vms", plan.registry)).token(&plan.token)
}
