//! Header values with `{facts}` in them, parsed once.

use serde::Deserialize;
use std::borrow::Cow;
use vers_plugin::{Exchange, headers::check_value, identity};

#[derive(Debug, PartialEq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) enum Template {
    /// Nothing to fill in: costs no work per request.
    Fixed(String),
    /// To be put together.
    Parts(Vec<Part>),
}

#[derive(Debug, PartialEq)]
pub(crate) enum Part {
    Text(String),
    Fact(Fact),
}

#[derive(Debug, PartialEq)]
pub(crate) enum Fact {
    ClientAddress,
    Route,
    VmId,
    RequestId,
    LocalPort,
    Capture(String),
}

impl Template {
    /// The value for this exchange; none where a fact of it is unknown.
    pub(crate) fn value(&self, x: &Exchange) -> Option<Cow<'_, str>> {
        let parts = match self {
            Self::Fixed(text) => return Some(Cow::Borrowed(text)),
            Self::Parts(parts) => parts,
        };
        let mut value = String::new();
        for part in parts {
            match part {
                Part::Text(text) => value.push_str(text),
                Part::Fact(fact) => value.push_str(&fact.of(x)?),
            }
        }
        Some(Cow::Owned(value))
    }
}

impl Fact {
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

    fn parse(name: &str) -> Result<Self, String> {
        match name {
            "client_address" => Ok(Self::ClientAddress),
            "route" => Ok(Self::Route),
            "vm_id" => Ok(Self::VmId),
            "request_id" => Ok(Self::RequestId),
            "local_port" => Ok(Self::LocalPort),
            _ => match name.strip_prefix("capture.") {
                Some(capture) if !capture.is_empty() => Ok(Self::Capture(capture.into())),
                _ => Err(format!("unknown fact \"{{{name}}}\"; there are {FACTS}")),
            },
        }
    }
}

const FACTS: &str = "{client_address}, {route}, {vm_id}, {request_id}, {local_port} and {capture.NAME}; \"{{\" stands for a brace";

impl TryFrom<String> for Template {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        check_value(&text).map_err(|_| "control characters have no place in a header value")?;
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text.as_str();
        while let Some(at) = rest.find(['{', '}']) {
            let (before, brace) = rest.split_at(at);
            literal.push_str(before);
            if let Some(after) = brace.strip_prefix("{{").or_else(|| brace.strip_prefix("}}")) {
                literal.push_str(&brace[..1]);
                rest = after;
                continue;
            }
            let fact = brace.strip_prefix('{').and_then(|fact| fact.split_once('}'));
            let (name, after) = fact.ok_or("a single brace; write \"{{\" or \"}}\" for one that is meant")?;
            if !literal.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut literal)));
            }
            parts.push(Part::Fact(Fact::parse(name)?));
            rest = after;
        }
        literal.push_str(rest);
        if parts.is_empty() {
            return Ok(Self::Fixed(literal));
        }
        if !literal.is_empty() {
            parts.push(Part::Text(literal));
        }
        Ok(Self::Parts(parts))
    }
}
