//! Calls `url` on each request, and says in the request header `x-called` what came of it.

use std::time::Duration;
use vers_plugin::prelude::*;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SlowCall {
    url: String,
    #[serde(default)]
    timeout_ms: Option<u64>,
}

impl HttpFilter for SlowCall {
    fn on_request(&self, req: &mut Request) -> Verdict {
        let mut call = http::get(&self.url);
        if let Some(timeout) = self.timeout_ms {
            call = call.timeout(Duration::from_millis(timeout));
        }
        let outcome = match call.send() {
            Ok(answer) => answer.status().to_string(),
            Err(error) => error.to_string(),
        };
        req.set_header("x-called", outcome);
        Verdict::Next
    }
}
vers_plugin::export!(SlowCall: request_filter);
