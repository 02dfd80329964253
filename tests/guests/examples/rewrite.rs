//! Asks the backend for the path and query that the request header `x-target` names. What the gateway
//! says of it, and what the request then looks like, stand in the request header `x-rewritten`.

use vers_plugin::prelude::*;

#[derive(Deserialize)]
struct Rewrite {}

impl HttpFilter for Rewrite {
    fn on_request(&self, req: &mut Request) -> Verdict {
        if let Some(target) = req.header_str("x-target") {
            let outcome = match req.set_path_and_query(&target) {
                Ok(()) => format!("path {} query {}", req.path(), req.query().unwrap_or("none")),
                Err(error) => error.to_string(),
            };
            req.set_header("x-rewritten", outcome);
        }
        Verdict::Next
    }
}
vers_plugin::export!(Rewrite: request_filter);
