//! Never comes back from the hook that the request header `x-spin` names: `request` or `response`.
//! Nor, with `configure = true`, from its configuration.

use vers_plugin::prelude::*;

#[derive(Deserialize)]
struct Spin {
    #[serde(default)]
    configure: bool,
}

impl HttpFilter for Spin {
    fn on_request(&self, req: &mut Request) -> Verdict {
        match req.header_str("x-spin").as_deref() {
            Some("request") => spin(),
            Some("response") => req.exchange().set("spin", "1").expect("a small value"),
            _ => {}
        }
        Verdict::Next
    }

    fn on_response(&self, resp: &mut Response) -> ResponseVerdict {
        if resp.exchange().get("spin").is_some() {
            spin();
        }
        ResponseVerdict::Next
    }

    fn validate(&self, _: &mut Problems) {
        if self.configure {
            spin();
        }
    }
}
vers_plugin::export!(Spin: http_filter);

fn spin() -> ! {
    // Not one more call to the host, where the clock stops.
    loop {
        std::hint::black_box(());
    }
}
