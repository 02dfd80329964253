//! Stores the request header `x-store` for the answer, which shows it in `x-stored`. A header
//! `x-store-size` stores so many bytes beside it; a refusal is the answer.

use vers_plugin::prelude::*;

#[derive(Deserialize)]
struct ExchangeValues {}

impl HttpFilter for ExchangeValues {
    fn on_request(&self, req: &mut Request) -> Verdict {
        let x = req.exchange();
        if let Some(value) = req.header("x-store")
            && let Err(error) = x.set("store", value)
        {
            return Reply::new(507).text(&error.to_string()).reason("value-refused").into();
        }
        if let Some(size) = req.header_str("x-store-size").and_then(|size| size.parse().ok())
            && let Err(error) = x.set("padding", vec![0; size])
        {
            return Reply::new(507).text(&error.to_string()).reason("value-refused").into();
        }
        Verdict::Next
    }

    fn on_response(&self, resp: &mut Response) -> ResponseVerdict {
        let stored = resp.exchange().get("store").unwrap_or_else(|| b"none".to_vec());
        resp.set_header("x-stored", stored);
        ResponseVerdict::Next
    }
}
vers_plugin::export!(ExchangeValues: http_filter);
