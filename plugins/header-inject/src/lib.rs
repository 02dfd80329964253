//! Sets, adds and removes headers of requests and answers; values may name facts of the exchange.

mod edits;
mod template;

use edits::{Edits, Names, Values};
use vers_plugin::prelude::*;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct HeaderInject {
    /// Headers that a request has with these values and no others.
    request: Values,
    /// Values added to those that a request has.
    request_append: Values,
    /// Headers that a request does not have.
    request_remove: Names,
    /// The same for answers.
    response: Values,
    response_append: Values,
    response_remove: Names,
}

impl HeaderInject {
    fn request_edits(&self) -> Edits<'_> {
        Edits { set: &self.request, append: &self.request_append, remove: &self.request_remove }
    }

    fn response_edits(&self) -> Edits<'_> {
        Edits { set: &self.response, append: &self.response_append, remove: &self.response_remove }
    }
}

impl HttpFilter for HeaderInject {
    fn on_request(&self, req: &mut Request) -> Verdict {
        self.request_edits().apply(req.headers(), req.exchange());
        Verdict::Next
    }

    fn on_response(&self, resp: &mut Response) -> ResponseVerdict {
        self.response_edits().apply(resp.headers(), resp.exchange());
        ResponseVerdict::Next
    }

    fn validate(&self, problems: &mut Problems) {
        self.request_edits().validate("request", problems);
        self.response_edits().validate("response", problems);
    }
}
vers_plugin::export!(HeaderInject: http_filter);

#[cfg(test)]
mod tests;
