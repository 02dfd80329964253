//! Fields of an entry that a later version of the gateway has written: they are kept as they are where this version
//! writes the entry. Pure.

use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// Objects in an entry whose fields are the gateway's. What is in others is its owner's, and kept as it is anyway.
const OURS: [&str; 2] = ["kept", "what"];

type Fields = BTreeMap<String, Box<RawValue>>;

/// Fields that this version does not know.
#[derive(Debug, Default)]
pub(super) struct More {
    fields: Fields,
    inside: Vec<(&'static str, More)>,
}

impl More {
    /// What is written there beyond what was read of it, which is written here once more.
    pub(super) fn of(written: &str, read: &str) -> serde_json::Result<Self> {
        let (mut fields, read): (Fields, Fields) =
            (serde_json::from_str(written)?, serde_json::from_str(read)?);
        let mut inside = Vec::new();
        for name in OURS {
            if let (Some(written), Some(read)) = (fields.get(name), read.get(name)) {
                let more = Self::of(written.get(), read.get())?;
                if !more.is_nothing() {
                    inside.push((name, more));
                }
            }
        }
        // What says nothing is left out by this version.
        fields.retain(|name, value| !read.contains_key(name) && value.get() != "null");
        Ok(Self { fields, inside })
    }

    fn is_nothing(&self) -> bool {
        self.fields.is_empty() && self.inside.is_empty()
    }

    /// Adds it to what is written now.
    pub(super) fn add_to(&self, text: String) -> serde_json::Result<String> {
        if self.is_nothing() {
            return Ok(text);
        }
        let mut fields: Fields = serde_json::from_str(&text)?;
        for (name, more) in &self.inside {
            if let Some(value) = fields.get_mut(*name) {
                *value = RawValue::from_string(more.add_to(value.get().to_owned())?)?;
            }
        }
        for (name, value) in &self.fields {
            fields.entry(name.clone()).or_insert_with(|| value.clone());
        }
        serde_json::to_string(&fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_kept_as_it_is() {
        let written = r#"{"write":1,"new":[1.50],"old":null,"kept":{"a":1,"newer":{"x":2},"what":{"id":"a","newest":7}}}"#;
        let read = r#"{"write":1,"kept":{"a":1,"what":{"id":"a"}}}"#;
        let more = More::of(written, read).expect("JSON");
        let now = r#"{"write":2,"kept":{"a":3,"what":{"id":"a","name":"n"}}}"#;
        let expected = r#"{"kept":{"a":3,"newer":{"x":2},"what":{"id":"a","name":"n","newest":7}},"new":[1.50],"write":2}"#;
        assert_eq!(more.add_to(now.to_owned()).expect("JSON"), expected);
        let none = More::of(read, read).expect("JSON");
        assert_eq!(none.add_to(now.to_owned()).expect("JSON"), now, "as it was written");
        let known = r#"{"write":3,"new":"known by now"}"#;
        assert_eq!(more.add_to(known.to_owned()).expect("JSON"), r#"{"new":"known by now","write":3}"#);
    }
}
