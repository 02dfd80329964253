//! Puts a secret where others see it: into a header, the path and the reason of an answer.

use vers_plugin::prelude::*;

#[derive(Deserialize)]
struct TellSecret {
    secret: String,
}

impl HttpFilter for TellSecret {
    fn on_request(&self, req: &mut Request) -> Verdict {
        let secret = secrets::get(&self.secret).unwrap_or_default();
        if req.path() == "/answer" {
            return Reply::new(403).reason(&secret).into();
        }
        req.set_header("x-api-key", format!("key {secret}"));
        let _ = req.set_path_and_query(&format!("/app?key={secret}"));
        Verdict::Next
    }
}
vers_plugin::export!(TellSecret: request_filter);
