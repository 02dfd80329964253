//! The hooks that a plugin may have.

use crate::{BodyVerdict, Completed, Problems, Request, Response, ResponseVerdict, Verdict, random};
use serde::de::DeserializeOwned;
use std::time::Duration;

pub use crate::bindings::background::exports::vers::gateway::background::Reason;

/// A configuration table with hooks. [`export!`](crate::export) implements it.
pub trait Plugin: DeserializeOwned + 'static {
    /// Calls the `validate` of each exported hook.
    fn validate_hooks(&self, problems: &mut Problems);
}

/// Hooks on the requests and answers of a route.
///
/// ```
/// use vers_plugin::prelude::*;
///
/// /// Sends HTML to browsers on one host only.
/// #[derive(Deserialize)]
/// struct OneHost { host: String }
///
/// impl HttpFilter for OneHost {
///     fn on_request(&self, req: &mut Request) -> Verdict {
///         if req.authority() == self.host {
///             return Verdict::Next;
///         }
///         let location = format!("https://{}{}", self.host, req.path());
///         Reply::new(308).header("location", location).reason("other-host").into()
///     }
///
///     fn validate(&self, problems: &mut Problems) {
///         if self.host.contains('/') {
///             problems.add("host", "a host, not a URL");
///         }
///     }
/// }
/// vers_plugin::export!(OneHost: http_filter);
/// # fn main() {}
/// ```
pub trait HttpFilter {
    /// Called for each request, before it goes to the backend.
    fn on_request(&self, req: &mut Request) -> Verdict {
        let _ = req;
        Verdict::Next
    }

    /// Called for each answer, before it goes to the client.
    fn on_response(&self, resp: &mut Response) -> ResponseVerdict {
        let _ = resp;
        ResponseVerdict::Next
    }

    /// Looks for mistakes that types do not express. It runs in `vers-gateway check` too: it must
    /// depend on nothing but the configuration.
    fn validate(&self, problems: &mut Problems) {
        let _ = problems;
    }
}

/// A hook on the bodies of requests that the plugin's own [`HttpFilter::on_request`] has asked for, by
/// [`Verdict::NextWithBody`].
///
/// ```
/// use vers_plugin::prelude::*;
///
/// /// Sends questions for large models elsewhere.
/// #[derive(Deserialize)]
/// struct ByModel { large: String }
///
/// impl HttpFilter for ByModel {
///     fn on_request(&self, req: &mut Request) -> Verdict {
///         if req.method() == "POST" { Verdict::NextWithBody(64 * 1024) } else { Verdict::Next }
///     }
/// }
///
/// impl BodyFilter for ByModel {
///     fn on_request_body(&self, _req: &mut Request, body: Vec<u8>) -> BodyVerdict {
///         match String::from_utf8(body) {
///             Ok(text) if text.contains("\"large\"") => BodyVerdict::RouteTo(self.large.clone()),
///             Ok(_) => BodyVerdict::Next,
///             Err(_) => Reply::new(400).reason("no-text").into(),
///         }
///     }
/// }
/// vers_plugin::export!(ByModel: request_filter, request_body_filter);
/// # fn main() {}
/// ```
pub trait BodyFilter {
    /// Called with the whole body, when the request filters of all plugins have let the head pass. The head
    /// may be changed still.
    fn on_request_body(&self, req: &mut Request, body: Vec<u8>) -> BodyVerdict;

    /// As [`HttpFilter::validate`].
    fn validate(&self, problems: &mut Problems) {
        let _ = problems;
    }
}

/// A look at each exchange of a route when it is over: for audit, for counting, for billing.
///
/// Nobody waits for it: exchanges wait in a queue of `limits.log_queue`, and where that is full, they are
/// counted and not shown. Keep it short; what has to be sent somewhere, collect it (in [`kv`](crate::kv), say)
/// and send it from [`Background`].
///
/// ```
/// use vers_plugin::prelude::*;
///
/// #[derive(Deserialize)]
/// struct Slow { milliseconds: u64 }
///
/// static SLOW: metrics::Counter<1> =
///     metrics::Counter::new("slow_requests", "Requests that took too long.", ["route"]);
///
/// impl ExchangeLog for Slow {
///     fn on_complete(&self, done: &Completed) {
///         if done.duration().as_millis() > self.milliseconds.into() {
///             SLOW.add(1, [&done.exchange().route()]);
///             log::warn(format!("{} {} took {:?}", done.method(), done.path(), done.duration()));
///         }
///     }
/// }
/// vers_plugin::export!(Slow: exchange_log);
/// # fn main() {}
/// ```
pub trait ExchangeLog {
    /// Called once for each exchange: after the last byte of the answer, or at the end of the tunnel that
    /// it opened.
    fn on_complete(&self, done: &Completed);

    /// As [`HttpFilter::validate`].
    fn validate(&self, problems: &mut Problems) {
        let _ = problems;
    }
}

/// Work beside the traffic, such as registering this VM: one instance per plugin and configuration,
/// so that its fields may keep state between calls.
///
/// ```
/// use std::time::Duration;
/// use vers_plugin::prelude::*;
///
/// #[derive(Deserialize)]
/// struct Ping { url: String }
///
/// impl Background for Ping {
///     fn run(&self, _why: Reason) -> Result<Next, String> {
///         http::get(&self.url).send().map_err(|e| e.to_string())?;
///         Ok(Next::about(Duration::from_secs(60)))
///     }
/// }
/// vers_plugin::export!(Ping: background);
/// # fn main() {}
/// ```
pub trait Background {
    /// Does what is due, and says when to be called again. An error is logged, and the call repeated
    /// with growing delay.
    ///
    /// # Errors
    /// For the log: what did not work.
    fn run(&self, why: Reason) -> Result<Next, String>;

    /// The plugin was removed or changed, or the gateway stops. Called once, within the plugin's
    /// wall-clock limit.
    fn stop(&self) {}

    /// As [`HttpFilter::validate`].
    fn validate(&self, problems: &mut Problems) {
        let _ = problems;
    }
}

/// When a [`Background`] plugin is called again.
///
/// ```
/// use std::time::Duration;
/// use vers_plugin::Next;
///
/// assert_eq!(Next::after(Duration::from_secs(2)).delay(), Some(Duration::from_secs(2)));
/// assert_eq!(Next::never().delay(), None);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Next(Option<u32>);

impl Next {
    /// After this delay, which the gateway raises to 100 ms.
    pub fn after(delay: Duration) -> Self {
        Self(Some(u32::try_from(delay.as_millis()).unwrap_or(u32::MAX)))
    }

    /// After this delay, give or take 10 %, so that machines which started together do not call
    /// together.
    pub fn about(delay: Duration) -> Self {
        let permille = 900 + random::u64() % 201;
        let millis = delay.as_millis().saturating_mul(u128::from(permille)) / 1000;
        Self(Some(u32::try_from(millis).unwrap_or(u32::MAX)))
    }

    /// No more.
    pub fn never() -> Self {
        Self(None)
    }

    /// The delay, if there is a next call.
    pub fn delay(self) -> Option<Duration> {
        self.0.map(|millis| Duration::from_millis(millis.into()))
    }

    /// The delay in milliseconds, as the gateway takes it.
    #[doc(hidden)]
    pub fn millis(self) -> Option<u32> {
        self.0
    }
}
