//! Asks for bodies, and has no hook for them.

use vers_plugin::prelude::*;

#[derive(Deserialize)]
struct BodyHookless {}

impl HttpFilter for BodyHookless {
    fn on_request(&self, _req: &mut Request) -> Verdict {
        Verdict::NextWithBody(10)
    }
}
vers_plugin::export!(BodyHookless: request_filter);
