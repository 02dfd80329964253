//! Writes as many log lines as the request header `x-flood` says, then one of 64 KiB.

use vers_plugin::prelude::*;

#[derive(Deserialize)]
struct LogFlood {}

impl HttpFilter for LogFlood {
    fn on_request(&self, req: &mut Request) -> Verdict {
        if let Some(lines) = req.header_str("x-flood").and_then(|lines| lines.parse::<u32>().ok()) {
            for line in 0..lines {
                log::warn(format!("flood {line}"));
            }
            log::warn("x".repeat(64 * 1024));
        }
        Verdict::Next
    }
}
vers_plugin::export!(LogFlood: request_filter);
