//! Panics in the hook that the request header `x-trap` names, `request` or `response`, after it has
//! set the header `x-half-done`; with `configure = true` while it is configured.

use vers_plugin::prelude::*;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Trap {
    #[serde(default)]
    configure: bool,
}

impl HttpFilter for Trap {
    fn on_request(&self, req: &mut Request) -> Verdict {
        match req.header_str("x-trap").as_deref() {
            Some("request") => {
                req.set_header("x-half-done", "1");
                panic!("asked to panic on request");
            }
            Some("response") => req.exchange().set("trap", "1").expect("a small value"),
            _ => {}
        }
        Verdict::Next
    }

    fn on_response(&self, resp: &mut Response) -> ResponseVerdict {
        resp.set_header("x-half-done", "1");
        assert!(resp.exchange().get("trap").is_none(), "asked to panic on response");
        resp.remove_header("x-half-done");
        ResponseVerdict::Next
    }

    fn validate(&self, _problems: &mut Problems) {
        assert!(!self.configure, "asked to panic on configure");
    }
}
vers_plugin::export!(Trap: http_filter);
