//! Header values that name facts of an exchange: `"vm/{vm_id}"`.

use crate::{Exchange, ParseError, headers::check_value, identity};
use serde::Deserialize;
use std::{borrow::Cow, str::FromStr};

/// A header value with `{facts}` in it, parsed once, filled in for each exchange.
///
/// | fact | stands for |
/// | --- | --- |
/// | `{client_address}` | [`Exchange::client_address`] |
/// | `{route}` | [`Exchange::route`] |
/// | `{vm_id}` | [`identity::vm_id`] |
/// | `{request_id}` | [`Exchange::id`] |
/// | `{local_port}` | [`Exchange::local_port`] |
/// | `{capture.NAME}` | [`Exchange::capture`] |
/// | `{{`, `}}` | a brace |
///
/// ```
/// use vers_plugin::{template::Template, testing};
///
/// let template: Template = "{route}/{capture.team}".parse()?;
/// let req = testing::request("GET", "/").route("app").capture("team", "red").build();
/// assert_eq!(template.value(req.exchange()).as_deref(), Some("app/red"));
/// # Ok::<(), vers_plugin::ParseError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Fact(Fact),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Fact {
    ClientAddress,
    Route,
    VmId,
    RequestId,
    LocalPort,
    Capture(String),
}

impl Template {
    /// The value for this exchange. None where a fact of it is not known, as half a value would be
    /// taken for a whole one: the VM has no id, the matched route captures no such name.
    ///
    /// A template without facts costs nothing here; each fact is a question to the gateway.
    pub fn value(&self, x: &Exchange) -> Option<Cow<'_, str>> {
        if let Some(text) = self.fixed() {
            return Some(Cow::Borrowed(text));
        }
        let mut value = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => value.push_str(text),
                Part::Fact(fact) => value.push_str(&fact.of(x)?),
            }
        }
        Some(Cow::Owned(value))
    }

    /// The value, where it names no facts and is the same for all exchanges.
    pub fn fixed(&self) -> Option<&str> {
        match self.0.as_slice() {
            [] => Some(""),
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }
}

/// # Errors
/// For a fact that there is not, for a single brace, and for control characters.
impl FromStr for Template {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        check_value(text)
            .map_err(|_| ParseError::new("control characters have no place in a header value"))?;
        let (mut parts, mut literal, mut rest) = (Vec::new(), String::new(), text);
        while let Some(at) = rest.find(['{', '}']) {
            let (before, brace) = rest.split_at(at);
            literal.push_str(before);
            if let Some(after) = brace.strip_prefix("{{").or_else(|| brace.strip_prefix("}}")) {
                literal.push_str(&brace[..1]);
                rest = after;
                continue;
            }
            let fact = brace.strip_prefix('{').and_then(|fact| fact.split_once('}'));
            let (name, after) = fact.ok_or_else(|| {
                ParseError::new("a single brace; write \"{{\" or \"}}\" for one that is meant")
            })?;
            push_text(&mut parts, &mut literal);
            parts.push(Part::Fact(Fact::parse(name)?));
            rest = after;
        }
        literal.push_str(rest);
        push_text(&mut parts, &mut literal);
        Ok(Self(parts))
    }
}

impl TryFrom<String> for Template {
    type Error = ParseError;

    fn try_from(text: String) -> Result<Self, ParseError> {
        text.parse()
    }
}

impl Fact {
    fn parse(name: &str) -> Result<Self, ParseError> {
        match name {
            "client_address" => Ok(Self::ClientAddress),
            "route" => Ok(Self::Route),
            "vm_id" => Ok(Self::VmId),
            "request_id" => Ok(Self::RequestId),
            "local_port" => Ok(Self::LocalPort),
            _ => match name.strip_prefix("capture.") {
                Some(capture) if !capture.is_empty() => Ok(Self::Capture(capture.into())),
                _ => Err(ParseError::new(format!("unknown fact \"{{{name}}}\"; there are {FACTS}"))),
            },
        }
    }

    fn of(&self, x: &Exchange) -> Option<String> {
        match self {
            Self::ClientAddress => Some(x.client_address()),
            Self::Route => Some(x.route()),
            Self::VmId => identity::vm_id(),
            Self::RequestId => Some(x.id()),
            Self::LocalPort => Some(x.local_port().to_string()),
            Self::Capture(name) => x.capture(name),
        }
    }
}

fn push_text(parts: &mut Vec<Part>, literal: &mut String) {
    if !literal.is_empty() {
        parts.push(Part::Text(std::mem::take(literal)));
    }
}

const FACTS: &str = "{client_address}, {route}, {vm_id}, {request_id}, {local_port} and {capture.NAME}; \"{{\" stands for a brace";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{self, MockHost};

    #[test]
    fn facts_are_filled_in() {
        let _host = MockHost::new().vm_id("a1");
        let req = testing::request("GET", "/").client("2001:db8::1").route("app").id("r7").local_port(3000);
        let req = req.capture("team", "red").build();
        let check = |template: &str, expected: Option<&str>| {
            let parsed: Template = template.parse().expect(template);
            assert_eq!(parsed.value(req.exchange()).as_deref(), expected, "{template}");
        };
        check("plain", Some("plain"));
        check("", Some(""));
        check("{client_address}", Some("2001:db8::1"));
        check("{route}/{vm_id}/{request_id}", Some("app/a1/r7"));
        check("{route}{route}", Some("appapp"));
        check("port {local_port}.", Some("port 3000."));
        check("{capture.team}", Some("red"));
        check("{{route}} {route} {{}}", Some("{route} app {}"));
        check("{{", Some("{"));
        check("é{route}é", Some("éappé"));
        // What is not known is not half said.
        check("{capture.other}", None);
        check("a-{capture.other}-b", None);
    }

    #[test]
    fn a_value_without_facts_is_not_put_together_again() {
        let template: Template = "{{a}}".parse().expect("a template");
        let req = testing::request("GET", "/").build();
        assert!(matches!(template.value(req.exchange()), Some(Cow::Borrowed("{a}"))));
    }

    #[test]
    fn an_unknown_vm_has_no_name() {
        let _host = MockHost::new();
        let template: Template = "vm/{vm_id}".parse().expect("a template");
        assert_eq!(template.value(testing::request("GET", "/").build().exchange()), None);
    }

    #[test]
    fn mistakes_are_named() {
        let check = |text: &str, message: &str| {
            let error = text.parse::<Template>().expect_err(text).to_string();
            assert!(error.contains(message), "{text}: {error}");
        };
        check("{nope}", "unknown fact \"{nope}\"; there are {client_address}, {route}");
        for text in ["{}", "{capture.}", "{capture}", "{ route }", "{route{{}"] {
            check(text, "unknown fact");
        }
        for text in ["a{", "a}b", "{route", "}{", "{{}"] {
            check(text, "single brace");
        }
        check("a\nb", "control characters");
    }
}
