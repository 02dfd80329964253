//! Tells `url`, where there is one, what became of each exchange, and counts it. The request header `x-tag`
//! comes along; `x-answer` is answered with 403, and `x-trap` panics when the exchange is over, or loops.

use std::{fmt::Write as _, time::Duration};
use vers_plugin::prelude::*;

static SEEN: metrics::Counter<2> =
    metrics::Counter::new("exchanges", "Exchanges that are over.", ["status", "path"]);
static LAST: metrics::Gauge = metrics::Gauge::new("last_bytes", "Bytes of the last answer.", []);
static TOOK: metrics::Histogram = metrics::Histogram::new("exchange_seconds", "How long they took.", []);
static WRONG: metrics::Counter = metrics::Counter::new("Wrong Name", "Never there.", []);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Audit {
    #[serde(default)]
    url: Option<String>,
}

impl HttpFilter for Audit {
    fn on_request(&self, req: &mut Request) -> Verdict {
        for name in ["x-tag", "x-trap"] {
            if let Some(value) = req.header(name) {
                req.exchange().set(name, value).expect("a small value");
            }
        }
        if req.header("x-answer").is_some() { Verdict::forbidden("asked-to") } else { Verdict::Next }
    }
}

impl ExchangeLog for Audit {
    fn on_complete(&self, done: &Completed) {
        match done.exchange().get("x-trap").as_deref() {
            Some(b"panic") => panic!("asked to panic when it is over"),
            Some(b"loop") => while std::hint::black_box(true) {},
            _ => {}
        }
        let status = done.status().map_or_else(|| "none".to_owned(), |status| status.to_string());
        SEEN.add(1, [&status, &done.path()]);
        #[expect(clippy::cast_precision_loss, reason = "answers are small")]
        LAST.set(done.response_bytes() as f64, []);
        TOOK.observe(done.duration(), []);
        WRONG.add(1, []);
        let Some(url) = &self.url else { return };
        let mut text = String::new();
        let mut line = |name: &str, value: Option<String>| {
            let _ = writeln!(text, "{name}: {}", value.as_deref().unwrap_or("none"));
        };
        let x = done.exchange();
        line("id", Some(x.id()));
        line("route", Some(x.route()));
        line("client", Some(x.client_address()));
        line("vm", x.capture("vm"));
        line("tag", x.get("x-tag").and_then(|tag| String::from_utf8(tag).ok()));
        line("method", Some(done.method()));
        line("authority", Some(done.authority()));
        line("path", Some(done.path()));
        line("status", Some(status));
        line(
            "in-order",
            Some((done.head_duration().unwrap_or(Duration::ZERO) <= done.duration()).to_string()),
        );
        line("request-bytes", Some(done.request_bytes().to_string()));
        line("response-bytes", Some(done.response_bytes().to_string()));
        line("answered-by", done.answered_by());
        line("reason", done.reason());
        line("error", done.error());
        line("broke-off", Some(done.broke_off().to_string()));
        // The call's own limit is what ends it.
        if let Err(error) = http::post(url).body(text).timeout(Duration::from_secs(600)).send() {
            log::warn(format!("not told: {error}"));
        }
    }
}
vers_plugin::export!(Audit: request_filter, exchange_log);
