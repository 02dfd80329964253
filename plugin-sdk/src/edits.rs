//! Edits of headers that stand in a configuration: values to set or to add, names to remove.
//!
//! ```
//! use vers_plugin::{prelude::*, testing};
//!
//! /// Tells the backend who asks, and the client nothing about the backend.
//! #[derive(Debug, Deserialize)]
//! struct Discreet { tell: HeaderValues, hide: HeaderNames }
//!
//! impl HttpFilter for Discreet {
//!     fn on_request(&self, req: &mut Request) -> Verdict {
//!         self.tell.set_on(req.headers(), req.exchange());
//!         Verdict::Next
//!     }
//!
//!     fn on_response(&self, resp: &mut Response) -> ResponseVerdict {
//!         self.hide.remove_from(resp.headers());
//!         ResponseVerdict::Next
//!     }
//!
//!     fn validate(&self, problems: &mut Problems) {
//!         self.tell.validate("tell", problems);
//!         self.hide.validate("hide", problems);
//!     }
//! }
//! vers_plugin::export!(Discreet: http_filter);
//!
//! # fn main() {
//! let table = "tell = { x-team = '{capture.team}' }\nhide = ['server']";
//! let discreet: Discreet = testing::configure(table).expect("a good table");
//! let mut req = testing::request("GET", "/").capture("team", "red").build();
//! discreet.on_request(&mut req);
//! assert_eq!(req.header_str("x-team").as_deref(), Some("red"));
//!
//! let problems = testing::configure::<Discreet>("tell = {}\nhide = ['host']").expect_err("not a plugin's");
//! assert_eq!(problems[0].path, "hide.0");
//! assert_eq!(problems[0].message, "header \"host\": belongs to the gateway");
//! # }
//! ```

use crate::{Exchange, Headers, Problems, headers::check_name, log, template::Template};
use serde::Deserialize;
use std::collections::BTreeMap;

/// A table of header values, which may name facts: `{ x-team = "{capture.team}" }`.
///
/// See the [module](self) for an example. Changes that the gateway refuses are logged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct HeaderValues(BTreeMap<String, Template>);

impl HeaderValues {
    /// Gives each of these headers this value and no other.
    ///
    /// Where there is no value, because a fact is not known or the gateway refuses it, the header is
    /// removed: otherwise the sender's own would stand in its place, and be believed.
    pub fn set_on(&self, headers: &Headers, x: &Exchange) {
        for (name, template) in &self.0 {
            let set = match template.value(x) {
                Some(value) => headers.set(name, value.as_bytes()),
                None => headers.remove(name),
            };
            log::refusal(name, set.or_else(|error| headers.remove(name).and(Err(error))));
        }
    }

    /// Adds these values to those that are there; none where a fact is not known.
    pub fn append_to(&self, headers: &Headers, x: &Exchange) {
        for (name, template) in &self.0 {
            if let Some(value) = template.value(x) {
                log::refusal(name, headers.append(name, value.as_bytes()));
            }
        }
    }

    /// Reports each name that the gateway would refuse. `path` is where the table stands in the
    /// configuration.
    pub fn validate(&self, path: &str, problems: &mut Problems) {
        for name in self.0.keys() {
            check(name, format!("{path}.{name}"), problems);
        }
    }
}

/// A list of header names: `["server", "x-powered-by"]`.
///
/// See the [module](self) for an example. Changes that the gateway refuses are logged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct HeaderNames(Vec<String>);

impl HeaderNames {
    /// Removes all values of these headers.
    pub fn remove_from(&self, headers: &Headers) {
        for name in &self.0 {
            log::refusal(name, headers.remove(name));
        }
    }

    /// Reports each name that the gateway would refuse. `path` is where the list stands in the
    /// configuration.
    pub fn validate(&self, path: &str, problems: &mut Problems) {
        for (i, name) in self.0.iter().enumerate() {
            check(name, format!("{path}.{i}"), problems);
        }
    }
}

fn check(name: &str, path: String, problems: &mut Problems) {
    if let Err(error) = check_name(name) {
        problems.add(path, format!("header {name:?}: {error}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Request, log::Level, testing};

    fn values(json: serde_json::Value) -> HeaderValues {
        serde_json::from_value(json).expect("header values")
    }

    fn all(req: &Request, name: &str) -> Vec<String> {
        let values = req.headers().get_all(name).into_iter();
        values.map(|value| String::from_utf8(value).expect("text")).collect()
    }

    #[test]
    fn set_replaces_append_adds_remove_removes() {
        let sent = testing::request("GET", "/").header("x-a", "1").header("x-a", "2").header("x-b", "1");
        let req = sent.header("x-c", "1").build();
        let (headers, x) = (req.headers(), req.exchange());
        values(serde_json::json!({ "X-A": "3" })).set_on(headers, x);
        values(serde_json::json!({ "X-B": "2" })).append_to(headers, x);
        HeaderNames(vec!["X-C".into(), "x-not-there".into()]).remove_from(headers);
        assert_eq!(all(&req, "x-a"), ["3"]);
        assert_eq!(all(&req, "x-b"), ["1", "2"]);
        assert_eq!(all(&req, "x-c"), [""; 0]);
    }

    #[test]
    fn where_there_is_no_value_a_forged_one_goes_and_none_is_added() {
        let host = testing::MockHost::new();
        let req = testing::request("GET", "/").header("x-vm", "forged").header("x-team", "forged");
        let req = req.capture("team", "a\r\nb").build();
        let (headers, x) = (req.headers(), req.exchange());
        values(serde_json::json!({ "x-vm": "{vm_id}", "x-team": "{capture.team}" })).set_on(headers, x);
        assert_eq!(headers.entries(), []);
        assert!(host.logged(Level::Warn, "header x-team not changed: not a valid value"));
        values(serde_json::json!({ "x-vm": "{vm_id}" })).append_to(headers, x);
        assert_eq!(headers.entries(), []);
    }

    #[test]
    fn every_name_that_would_be_refused_is_reported() {
        let mut problems = Problems::default();
        values(serde_json::json!({ "x-a": "", "x b": "", "Via": "" })).validate("set", &mut problems);
        HeaderNames(vec!["x-a".into(), "host".into()]).validate("remove", &mut problems);
        let mut expected = Problems::default();
        expected.add("set.Via", "header \"Via\": belongs to the gateway");
        expected.add("set.x b", "header \"x b\": not a valid header name");
        expected.add("remove.1", "header \"host\": belongs to the gateway");
        assert_eq!(format!("{problems:?}"), format!("{expected:?}"));
    }
}
