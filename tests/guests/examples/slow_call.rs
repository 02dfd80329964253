//! Calls `url` on each request, or on each answer with `hook = "response"`, and says in the header
//! `x-called` of that head what came of it.

use std::time::Duration;
use vers_plugin::prelude::*;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SlowCall {
    url: String,
    #[serde(default)]
    timeout_ms: Option<u64>,
    #[serde(default)]
    hook: Hook,
}

#[derive(Default, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Hook {
    #[default]
    Request,
    Response,
}

impl HttpFilter for SlowCall {
    fn on_request(&self, req: &mut Request) -> Verdict {
        if self.hook == Hook::Request {
            req.set_header("x-called", self.call());
        }
        Verdict::Next
    }

    fn on_response(&self, resp: &mut Response) -> ResponseVerdict {
        if self.hook == Hook::Response {
            resp.set_header("x-called", self.call());
        }
        ResponseVerdict::Next
    }
}
vers_plugin::export!(SlowCall: http_filter);

impl SlowCall {
    fn call(&self) -> String {
        let mut call = http::get(&self.url);
        if let Some(timeout) = self.timeout_ms {
            call = call.timeout(Duration::from_millis(timeout));
        }
        match call.send() {
            Ok(answer) => answer.status().to_string(),
            Err(error) => error.to_string(),
        }
    }
}
