//! Answers with everything that a plugin can learn about an exchange, one `name: value` a line, then
//! an empty line and the request's headers.

use std::fmt::Write as _;
use vers_plugin::prelude::*;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EchoContext {
    /// Which captures to look up.
    #[serde(default)]
    captures: Vec<String>,
}

impl HttpFilter for EchoContext {
    fn on_request(&self, req: &mut Request) -> Verdict {
        let mut text = String::new();
        let mut line = |name: &str, value: &str| {
            let _ = writeln!(text, "{name}: {value}");
        };
        let x = req.exchange();
        line("id", &x.id());
        line("route", &x.route());
        line("client", &x.client_address());
        line("peer", &x.peer_address());
        line("port", &x.local_port().to_string());
        line("vm-id", identity::vm_id().as_deref().unwrap_or("none"));
        line("method", req.method());
        line("authority", req.authority());
        line("path", req.path());
        line("query", req.query().unwrap_or("none"));
        line("upgrade", if req.is_upgrade() { "yes" } else { "no" });
        for name in &self.captures {
            line(&format!("capture.{name}"), x.capture(name).as_deref().unwrap_or("none"));
        }
        text.push('\n');
        for (name, value) in req.headers().entries() {
            let _ = writeln!(text, "{name}: {}", String::from_utf8_lossy(&value));
        }
        Reply::new(200).text(&text).reason("echo").into()
    }
}
vers_plugin::export!(EchoContext: request_filter);
