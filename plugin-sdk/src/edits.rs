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
//!         self.tell.set_on(req);
//!         Verdict::Next
//!     }
//!
//!     fn on_response(&self, resp: &mut Response) -> ResponseVerdict {
//!         self.hide.remove_from(resp);
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

use crate::{Message, Problems, headers::check_name, log, message::Edits, template::Template};
use serde::Deserialize;
use std::{borrow::Cow, collections::BTreeMap};

/// A header's name and value.
type Field = (String, Vec<u8>);

/// A table of header values, which may name facts: `{ x-team = "{capture.team}" }`.
///
/// See the [module](self) for an example. All of them reach the gateway in one call; changes that it
/// refuses are logged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "BTreeMap<String, Template>")]
pub struct HeaderValues {
    /// Those whose value is always the same, ready to be handed over.
    fixed: Vec<Field>,
    others: Vec<(String, Template)>,
}

impl HeaderValues {
    /// Gives each of these headers this value and no other.
    ///
    /// Where there is no value, because a fact is not known or the gateway refuses it, the header is
    /// removed: otherwise the sender's own would stand in its place, and be believed.
    pub fn set_on(&self, message: &impl Message) {
        let (set, remove) = self.values(message);
        if set.is_empty() && remove.is_empty() {
            return;
        }
        let refused = message.edit_headers(&Edits { set: &set, remove: &remove, append: &[] });
        for (name, error) in refused {
            let removed = message.headers().remove(&name);
            log::refusal(&name, removed.and(Err(error)));
        }
    }

    /// Adds these values to those that are there; none where a fact is not known.
    pub fn append_to(&self, message: &impl Message) {
        let (append, _) = self.values(message);
        if append.is_empty() {
            return;
        }
        for (name, error) in message.edit_headers(&Edits { append: &append, ..Edits::default() }) {
            log::refusal(&name, Err(error));
        }
    }

    /// The values for this message, and the names of those that have none.
    fn values(&self, message: &impl Message) -> (Cow<'_, [Field]>, Vec<String>) {
        let (mut values, mut missing) = (Cow::Borrowed(self.fixed.as_slice()), Vec::new());
        for (name, template) in &self.others {
            match template.value(message.exchange()) {
                Some(value) => values.to_mut().push((name.clone(), value.into_owned().into_bytes())),
                None => missing.push(name.clone()),
            }
        }
        (values, missing)
    }

    /// Reports each name that the gateway would refuse. `path` is where the table stands in the
    /// configuration.
    pub fn validate(&self, path: &str, problems: &mut Problems) {
        let names = self.fixed.iter().map(|(name, _)| name);
        for name in names.chain(self.others.iter().map(|(name, _)| name)) {
            check(name, format!("{path}.{name}"), problems);
        }
    }
}

impl From<BTreeMap<String, Template>> for HeaderValues {
    fn from(table: BTreeMap<String, Template>) -> Self {
        let mut values = Self::default();
        for (name, template) in table {
            match template.fixed() {
                Some(value) => values.fixed.push((name, value.as_bytes().to_vec())),
                None => values.others.push((name, template)),
            }
        }
        values
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
    pub fn remove_from(&self, message: &impl Message) {
        if self.0.is_empty() {
            return;
        }
        for (name, error) in message.edit_headers(&Edits { remove: &self.0, ..Edits::default() }) {
            log::refusal(&name, Err(error));
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
        values(serde_json::json!({ "X-A": "3" })).set_on(&req);
        values(serde_json::json!({ "X-B": "2" })).append_to(&req);
        HeaderNames(vec!["X-C".into(), "x-not-there".into()]).remove_from(&req);
        assert_eq!(all(&req, "x-a"), ["3"]);
        assert_eq!(all(&req, "x-b"), ["1", "2"]);
        assert_eq!(all(&req, "x-c"), [""; 0]);
    }

    #[test]
    fn where_there_is_no_value_a_forged_one_goes_and_none_is_added() {
        let host = testing::MockHost::new();
        let req = testing::request("GET", "/").header("x-vm", "forged").header("x-team", "forged");
        let req = req.capture("team", "a\r\nb").build();
        values(serde_json::json!({ "x-vm": "{vm_id}", "x-team": "{capture.team}" })).set_on(&req);
        assert_eq!(req.headers().entries(), []);
        assert!(host.logged(Level::Warn, "header x-team not changed: not a valid value"));
        values(serde_json::json!({ "x-vm": "{vm_id}" })).append_to(&req);
        assert_eq!(req.headers().entries(), []);
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
