//! Tries to edit headers that are the gateway's, on requests and on answers. The answer says in
//! `x-request-edits` and `x-response-edits` what came of it: `name set append remove`, a comma between
//! names.

use vers_plugin::prelude::*;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ForbiddenHeaders {
    #[serde(default = "names")]
    names: Vec<String>,
    #[serde(default = "value")]
    value: String,
}

impl HttpFilter for ForbiddenHeaders {
    fn on_request(&self, req: &mut Request) -> Verdict {
        let outcome = self.edit(req.headers());
        req.exchange().set("edits", outcome).expect("a small value");
        Verdict::Next
    }

    fn on_response(&self, resp: &mut Response) -> ResponseVerdict {
        let outcome = self.edit(resp.headers());
        resp.set_header("x-response-edits", outcome);
        resp.set_header("x-request-edits", resp.exchange().get("edits").unwrap_or_default());
        ResponseVerdict::Next
    }
}
vers_plugin::export!(ForbiddenHeaders: http_filter);

impl ForbiddenHeaders {
    fn edit(&self, headers: &Headers) -> String {
        let edits = self.names.iter().map(|name| {
            let set = word(headers.set(name, &self.value));
            let append = word(headers.append(name, &self.value));
            let remove = word(headers.remove(name));
            format!("{name} {set} {append} {remove}")
        });
        edits.collect::<Vec<_>>().join(", ")
    }
}

fn word(edit: Result<(), EditError>) -> &'static str {
    match edit {
        Ok(()) => "ok",
        Err(EditError::InvalidName) => "invalid-name",
        Err(EditError::InvalidValue) => "invalid-value",
        Err(EditError::Forbidden) => "forbidden",
        Err(EditError::TooLarge) => "too-large",
        Err(_) => "gone",
    }
}

fn names() -> Vec<String> {
    let names = [
        "connection",
        "content-length",
        "expect",
        "forwarded",
        "host",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-real-ip",
        "X_Forwarded_For",
        "bad name",
        "",
    ];
    names.map(String::from).into()
}

fn value() -> String {
    "1".into()
}
