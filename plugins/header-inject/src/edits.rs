//! What is done to one head: remove, then set, then append.

use crate::template::Template;
use std::collections::BTreeMap;
use vers_plugin::{EditError, Exchange, Headers, Problems, headers::check_name, log};

pub(crate) type Values = BTreeMap<String, Template>;
pub(crate) type Names = Vec<String>;

#[derive(Clone, Copy)]
pub(crate) struct Edits<'a> {
    pub(crate) set: &'a Values,
    pub(crate) append: &'a Values,
    pub(crate) remove: &'a Names,
}

impl Edits<'_> {
    pub(crate) fn apply(self, headers: &Headers, x: &Exchange) {
        for name in self.remove {
            report(name, headers.remove(name));
        }
        for (name, template) in self.set {
            let set = match template.value(x) {
                Some(value) => headers.set(name, value.as_bytes()),
                None => headers.remove(name),
            };
            // Without a value of ours, the sender's must not stand in its place.
            report(name, set.or_else(|error| headers.remove(name).and(Err(error))));
        }
        for (name, template) in self.append {
            if let Some(value) = template.value(x) {
                report(name, headers.append(name, value.as_bytes()));
            }
        }
    }

    /// `side` is the key of `set`, and begins the others.
    pub(crate) fn validate(self, side: &str, problems: &mut Problems) {
        let mut check = |path: String, name: &str| {
            if let Err(error) = check_name(name) {
                problems.add(path, format!("header {name:?}: {error}"));
            }
        };
        for name in self.set.keys() {
            check(format!("{side}.{name}"), name);
        }
        for name in self.append.keys() {
            check(format!("{side}_append.{name}"), name);
        }
        for (i, name) in self.remove.iter().enumerate() {
            check(format!("{side}_remove.{i}"), name);
        }
    }
}

fn report(name: &str, edit: Result<(), EditError>) {
    if let Err(error) = edit {
        log::warn(format!("header {name} not changed: {error}"));
    }
}
