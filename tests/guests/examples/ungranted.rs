//! Imports `outbound-http` and `secrets`, so that it needs grants to be loaded at all. With them, the
//! request header `x-url` is called and `x-secret` looked up; the answer says what came of it.

use vers_plugin::prelude::*;

#[derive(Deserialize)]
struct Ungranted {}

impl HttpFilter for Ungranted {
    fn on_request(&self, req: &mut Request) -> Verdict {
        if let Some(url) = req.header_str("x-url") {
            let outcome = http::get(&url).send();
            let text = outcome.map_or_else(|error| error.to_string(), |answer| answer.status().to_string());
            return Reply::new(200).text(&text).into();
        }
        if let Some(name) = req.header_str("x-secret") {
            return Reply::new(200).text(secrets::get(&name).as_deref().unwrap_or("none")).into();
        }
        Verdict::Next
    }
}
vers_plugin::export!(Ungranted: request_filter);
