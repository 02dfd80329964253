//! Changes answers as the configuration says, and gives another one in the place of those with the
//! header `x-replace`. What the gateway refuses stands in `x-edit-errors`.

use std::collections::BTreeMap;
use vers_plugin::prelude::*;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
struct ResponseEdit {
    set: BTreeMap<String, String>,
    append: BTreeMap<String, String>,
    remove: Vec<String>,
    status: Option<u16>,
}

impl HttpFilter for ResponseEdit {
    fn on_response(&self, resp: &mut Response) -> ResponseVerdict {
        if let Some(body) = resp.header_str("x-replace") {
            return Reply::new(503).header("x-replaced", "yes").text(&body).reason("replaced").into();
        }
        let mut errors = Vec::new();
        let mut note = |name: &str, edit: Result<(), EditError>| {
            if let Err(error) = edit {
                errors.push(format!("{name}: {error}"));
            }
        };
        for (name, value) in &self.set {
            note(name, resp.headers().set(name, value));
        }
        for (name, value) in &self.append {
            note(name, resp.headers().append(name, value));
        }
        for name in &self.remove {
            note(name, resp.headers().remove(name));
        }
        if let Some(status) = self.status {
            note("status", resp.set_status(status));
        }
        if !errors.is_empty() {
            resp.set_header("x-edit-errors", errors.join(", "));
        }
        ResponseVerdict::Next
    }
}
vers_plugin::export!(ResponseEdit: response_filter);
