//! Asks for the body of requests with the header `x-body`, at most so many bytes as it says, and does what
//! the body says: `trap`, `refuse`, `route`, `keep`, or anything to be turned around.

use vers_plugin::prelude::*;

#[derive(Deserialize)]
struct BodyEdit {
    #[serde(default)]
    to: String,
}

impl HttpFilter for BodyEdit {
    fn on_request(&self, req: &mut Request) -> Verdict {
        match req.header_str("x-body") {
            Some(most) => Verdict::NextWithBody(most.parse().expect("a number")),
            None => Verdict::Next,
        }
    }
}

impl BodyFilter for BodyEdit {
    fn on_request_body(&self, req: &mut Request, mut body: Vec<u8>) -> BodyVerdict {
        req.set_header("x-bytes", body.len().to_string());
        match body.as_slice() {
            b"trap" => panic!("asked to panic on the body"),
            b"refuse" => Reply::new(422).reason("refused").into(),
            b"route" => BodyVerdict::RouteTo(self.to.clone()),
            b"" | b"keep" => BodyVerdict::Next,
            _ => {
                body.reverse();
                BodyVerdict::Replace(body)
            }
        }
    }
}
vers_plugin::export!(BodyEdit: request_filter, request_body_filter);
