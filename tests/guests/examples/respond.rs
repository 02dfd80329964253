//! Answers in the backend's place with what the configuration says.

use std::collections::BTreeMap;
use vers_plugin::prelude::*;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Respond {
    status: u16,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    body: String,
    #[serde(default)]
    reason: String,
}

impl HttpFilter for Respond {
    fn on_request(&self, _req: &mut Request) -> Verdict {
        let mut reply = Reply::new(self.status).body(self.body.as_str()).reason(&self.reason);
        for (name, value) in &self.headers {
            reply = reply.header(name, value.as_str());
        }
        reply.into()
    }
}
vers_plugin::export!(Respond: request_filter);
