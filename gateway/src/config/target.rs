//! `to`: what a route does with what it matched.

use std::{borrow::Cow, collections::BTreeMap, fmt, net::IpAddr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, Visitor, value::MapAccessDeserializer},
};
use toml::Spanned;

use super::{fault, values::whole};

/// What a route does with what it matched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Sends it to one server: `host:port`.
    Address(String),
    /// Sends it to a server of the backend of this name.
    Backend(String),
    /// Sends it to a VM: `vm:{vm}:{port}`.
    Vm(VmTarget),
    /// Sends it to the port that the client asked for, of this address: `127.0.0.1:{port}`.
    AnyPort(IpAddr),
    /// Answers it by the registry: `registry`.
    Registry,
    /// Answers it by the component of the origin of this name, or else by the one in this file: `wasm:app.wasm`.
    Wasm(String),
    /// Answers it with these words.
    Respond(Respond),
    /// Sends the client elsewhere.
    Redirect(Redirect),
}

/// A VM, and a port of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmTarget {
    /// Which VM.
    pub vm: VmName,
    /// Which port.
    pub port: PortAsked,
}

/// Which VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VmName {
    /// The one that a pattern of the route captured under this name: `{vm}`.
    Captured(String),
    /// Always this one.
    Fixed(String),
}

/// Which port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortAsked {
    /// The one that the client asked for: `{port}`.
    Same,
    /// Always this one.
    Fixed(u16),
}

/// An answer that needs no server.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Respond {
    /// Status code, 200 to 599.
    #[serde(deserialize_with = "whole::<_, u16, _, 200, 599>")]
    #[schemars(range(min = 200, max = 599))]
    pub status: u16,
    /// The body. By default empty.
    pub body: String,
    /// Headers of the answer. A body without `content-type` is sent as `text/plain; charset=utf-8`.
    #[schemars(with = "BTreeMap<String, String>")]
    pub headers: BTreeMap<String, Spanned<String>>,
}

/// Where else to look.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Redirect {
    /// A URL, or a path that starts with `/`.
    #[schemars(with = "String")]
    pub to: Spanned<String>,
    /// Status code: 301, 302, 303, 307 or 308. 307 and 308 keep the method and the body.
    #[serde(default = "permanent")]
    #[schemars(with = "u16", range(min = 301, max = 308))]
    pub status: Spanned<u16>,
}

impl Target {
    /// Reads the string form: `vm:NAME:PORT`, `registry`, `wasm:NAME`, `backend:NAME`, `host:port`, or else a
    /// backend's name.
    fn from_text(text: &str) -> Self {
        if let Some(vm) = text.strip_prefix("vm:").and_then(VmTarget::from_text) {
            return Self::Vm(vm);
        }
        if let Some(ip) = text.strip_suffix(":{port}").and_then(bare_ip) {
            return Self::AnyPort(ip);
        }
        if text == "registry" {
            return Self::Registry;
        }
        if let Some(component) = text.strip_prefix("wasm:")
            && !is_port(component)
        {
            return Self::Wasm(component.to_owned());
        }
        match text.strip_prefix("backend:") {
            // A host may be called `backend` too.
            Some(name) if !is_port(name) => Self::Backend(name.to_owned()),
            _ if host_port(text).is_some() => Self::Address(text.to_owned()),
            _ => Self::Backend(text.to_owned()),
        }
    }
}

impl VmTarget {
    /// Reads `{vm}:{port}`, `{vm}:22` or `NAME:22`.
    fn from_text(text: &str) -> Option<Self> {
        let (vm, port) = text.rsplit_once(':')?;
        let port = match port {
            "{port}" => PortAsked::Same,
            _ => PortAsked::Fixed(
                is_port(port).then(|| port.parse().ok()).flatten().filter(|port| *port != 0)?,
            ),
        };
        let vm = match vm.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
            Some(name) if !name.is_empty() && !name.contains(['{', '}']) => VmName::Captured(name.to_owned()),
            Some(_) => return None,
            None => VmName::Fixed(Some(vm).filter(|vm| !vm.contains(['.', ':']) && is_host(vm))?.to_owned()),
        };
        Some(Self { vm, port })
    }
}

/// `127.0.0.1`, or `[::1]`.
fn bare_ip(text: &str) -> Option<IpAddr> {
    match text.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?.parse().ok().map(IpAddr::V6),
        None => text.parse().ok().map(IpAddr::V4),
    }
}

/// Splits `host:port`; an IPv6 host stands in brackets, which are not part of the result.
pub fn host_port(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let port = is_port(port).then(|| port.parse().ok()).flatten().filter(|port| *port != 0)?;
    let host = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').filter(|host| host.parse::<std::net::Ipv6Addr>().is_ok())?,
        None => Some(host).filter(|host| is_host(host))?,
    };
    Some((host, port))
}

impl Default for Respond {
    fn default() -> Self {
        Self { status: 200, body: String::new(), headers: BTreeMap::new() }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => f.write_str(address),
            Self::Backend(name) => write!(f, "backend:{name}"),
            Self::Vm(VmTarget { vm, port }) => {
                match vm {
                    VmName::Captured(name) => write!(f, "vm:{{{name}}}:")?,
                    VmName::Fixed(name) => write!(f, "vm:{name}:")?,
                }
                match port {
                    PortAsked::Same => f.write_str("{port}"),
                    PortAsked::Fixed(port) => write!(f, "{port}"),
                }
            }
            Self::Registry => f.write_str("registry"),
            Self::Wasm(component) => write!(f, "wasm:{component}"),
            Self::AnyPort(IpAddr::V4(ip)) => write!(f, "{ip}:{{port}}"),
            Self::AnyPort(IpAddr::V6(ip)) => write!(f, "[{ip}]:{{port}}"),
            Self::Respond(respond) => write!(f, "respond {}", respond.status),
            Self::Redirect(redirect) => write!(f, "redirect to {}", redirect.to.get_ref()),
        }
    }
}

impl<'de> Deserialize<'de> for Target {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TargetVisitor)
    }
}

impl JsonSchema for Target {
    fn schema_name() -> Cow<'static, str> {
        "Target".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let action = generator.subschema_for::<Action>();
        json_schema!({
            "description": "An address (`127.0.0.1:3000`), a backend's name (`app` or `backend:app`), a VM (`vm:{vm}:{port}`), `registry`, a component (`wasm:app.wasm`), an answer or a redirect.",
            "anyOf": [{ "type": "string" }, action],
        })
    }
}

struct TargetVisitor;

impl<'de> Visitor<'de> for TargetVisitor {
    type Value = Target;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an address such as \"127.0.0.1:3000\", or a backend's name")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Target, E> {
        Ok(Target::from_text(text))
    }

    /// A port without quotes, to be refused like one with quotes.
    fn visit_i64<E: Error>(self, port: i64) -> Result<Target, E> {
        self.visit_str(&port.to_string())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Target, A::Error> {
        let action = Action::deserialize(MapAccessDeserializer::new(map))?;
        match (action.respond, action.redirect) {
            (Some(respond), None) => Ok(Target::Respond(respond)),
            (None, Some(redirect)) => Ok(Target::Redirect(redirect)),
            _ => {
                let label = "expected `{ respond = {…} }` or `{ redirect = {…} }`";
                let message = "`to` needs either `respond` or `redirect`";
                Err(A::Error::custom(fault::custom(message, label, None)))
            }
        }
    }
}

/// The table form of a target: exactly one of these keys.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Action {
    /// Answer without asking a server.
    respond: Option<Respond>,
    /// Send the client elsewhere.
    redirect: Option<Redirect>,
}

fn permanent() -> Spanned<u16> {
    Spanned::new(0..0, 308)
}

fn is_port(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether it can be a name or an IPv4 address: letters, digits, dashes and underscores between dots.
fn is_host(text: &str) -> bool {
    let is_label = |label: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        !label.is_empty() && label.len() <= 63 && label.bytes().all(plain)
    };
    text.len() <= 253 && text.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_host_and_port() {
        for (text, expected) in [
            ("127.0.0.1:3000", Some(("127.0.0.1", 3000))),
            ("[::1]:3000", Some(("::1", 3000))),
            ("localhost:80", Some(("localhost", 80))),
            ("my-app.internal:8080", Some(("my-app.internal", 8080))),
            ("localhost", None),
            (":3000", None),
            ("::1:3000", None),
            ("[::1:3000", None),
            ("[localhost]:80", None),
            ("host:0", None),
            ("host:65536", None),
            ("host:+80", None),
            ("http://host:80", None),
            ("a..b:80", None),
            ("", None),
        ] {
            assert_eq!(host_port(text), expected, "for {text:?}");
        }
    }

    #[test]
    fn a_string_is_an_address_or_a_backend() {
        let backend = |name: &str| Target::Backend(name.to_owned());
        let address = |text: &str| Target::Address(text.to_owned());
        let vm = |vm, port| Target::Vm(VmTarget { vm, port });
        for (text, expected) in [
            ("app", backend("app")),
            ("backend:app", backend("app")),
            ("registry", Target::Registry),
            ("backend:registry", backend("registry")),
            ("wasm:app.wasm", Target::Wasm("app.wasm".to_owned())),
            ("wasm:../a/b.wasm", Target::Wasm("../a/b.wasm".to_owned())),
            ("wasm:3000", address("wasm:3000")),
            ("app:3000", address("app:3000")),
            ("backend:3000", address("backend:3000")),
            ("[::1]:3000", address("[::1]:3000")),
            ("http://app", backend("http://app")),
            ("vm:{vm}:{port}", vm(VmName::Captured("vm".to_owned()), PortAsked::Same)),
            ("vm:{id}:22", vm(VmName::Captured("id".to_owned()), PortAsked::Fixed(22))),
            ("vm:web-1:{port}", vm(VmName::Fixed("web-1".to_owned()), PortAsked::Same)),
            ("vm:3000", address("vm:3000")),
            ("vm:{vm}:0", backend("vm:{vm}:0")),
            ("vm:{vm}", backend("vm:{vm}")),
            ("vm:a.b:1", backend("vm:a.b:1")),
            ("127.0.0.1:{port}", Target::AnyPort([127, 0, 0, 1].into())),
            ("[::1]:{port}", Target::AnyPort(std::net::Ipv6Addr::LOCALHOST.into())),
        ] {
            assert_eq!(Target::from_text(text), expected, "for {text:?}");
            let is_printed_as_written = matches!(expected, Target::Vm(_) | Target::AnyPort(_));
            assert!(!is_printed_as_written || expected.to_string() == text, "{expected}");
        }
    }
}
