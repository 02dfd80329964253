//! Sets, adds and removes headers of requests and answers; values may name facts of the exchange.

use vers_plugin::prelude::*;

#[derive(Debug, Default, Deserialize, ConfigSchema)]
#[serde(deny_unknown_fields, default)]
struct HeaderInject {
    /// Headers that a request has with these values and no others.
    request: HeaderValues,
    /// Values added to those that a request has.
    request_append: HeaderValues,
    /// Headers that a request does not have.
    request_remove: HeaderNames,
    /// The same for answers.
    response: HeaderValues,
    response_append: HeaderValues,
    response_remove: HeaderNames,
}

impl HttpFilter for HeaderInject {
    fn on_request(&self, req: &mut Request) -> Verdict {
        self.request_remove.remove_from(req);
        self.request.set_on(req);
        self.request_append.append_to(req);
        Verdict::Next
    }

    fn on_response(&self, resp: &mut Response) -> ResponseVerdict {
        self.response_remove.remove_from(resp);
        self.response.set_on(resp);
        self.response_append.append_to(resp);
        ResponseVerdict::Next
    }

    fn validate(&self, problems: &mut Problems) {
        self.request.validate("request", problems);
        self.request_append.validate("request_append", problems);
        self.request_remove.validate("request_remove", problems);
        self.response.validate("response", problems);
        self.response_append.validate("response_append", problems);
        self.response_remove.validate("response_remove", problems);
    }
}
vers_plugin::export!(HeaderInject: http_filter);

#[cfg(test)]
mod tests;
