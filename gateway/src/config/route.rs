//! `[[route]]`: which requests and connections go where, through which plugins.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error, MapAccess, Visitor, value::MapAccessDeserializer},
};
use toml::Spanned;

use super::{
    plugin::OnError,
    plugin_config::PluginConfig,
    target::Target,
    text::optional,
    values::{ByteSize, Duration, whole},
};

/// Which requests and connections go where, through which plugins.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// What logs and metrics call it. By default its place in the file: `route 3`.
    #[schemars(with = "Option<String>")]
    pub name: Option<Spanned<String>>,
    /// Names of the listeners it belongs to. By default all.
    #[schemars(with = "Option<Vec<String>>")]
    pub listeners: Option<Vec<Spanned<String>>>,
    /// Port of the listeners it belongs to, 1 to 65535. By default any.
    #[schemars(with = "Option<u16>", range(min = 1, max = 65535))]
    pub listener_port: Option<Spanned<u16>>,
    /// Host asked for: exact (`app.example.com`), any name below one (`*.example.com`), or a capture
    /// of one label (`{vm}.example.com`). Where no HTTP is spoken, it is the name that TLS clients ask
    /// for (SNI). By default any.
    #[schemars(with = "Option<String>")]
    pub host: Option<Spanned<String>>,
    /// Path asked for: exact (`/health`), everything below one (`/api/*`), with captures of one
    /// segment (`/users/{id}`). By default any.
    #[schemars(with = "Option<String>")]
    pub path: Option<Spanned<String>>,
    /// Methods, such as `"GET"`. By default any.
    #[schemars(with = "Option<Vec<String>>")]
    pub methods: Option<Vec<Spanned<String>>>,
    /// Headers that must be there with exactly this value. By default none.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, String>")]
    pub headers: BTreeMap<String, Spanned<String>>,
    /// What is carried.
    #[serde(default)]
    pub protocol: RouteProtocol,
    /// Where it goes: an address (`"127.0.0.1:3000"`), a backend's name (`"app"` or `"backend:app"`),
    /// `{ respond = {…} }` or `{ redirect = {…} }`.
    #[schemars(with = "Target")]
    pub to: Spanned<Target>,
    /// Plugins that a request passes, in this order; an answer passes them in reverse.
    #[serde(default)]
    #[schemars(with = "Vec<PluginUse>")]
    pub plugins: Vec<Spanned<PluginUse>>,
    /// Protocols that a request may change to by `Upgrade`; a request for another goes on without.
    /// `h2c` is never among them.
    #[serde(default = "websocket")]
    #[schemars(with = "Vec<String>")]
    pub upgrades: Vec<Spanned<String>>,
    /// How long to wait for the backend.
    #[serde(default)]
    pub timeouts: RouteTimeouts,
    /// How much a request may bring.
    #[serde(default)]
    pub limits: RouteLimits,
    /// How often a request may be sent to another server.
    #[serde(default)]
    pub retries: Retries,
}

fn websocket() -> Vec<Spanned<String>> {
    vec![Spanned::new(0..0, "websocket".to_owned())]
}

impl Route {
    /// What logs and metrics call it: its name, or else its place in the file. `index` counts from 0.
    pub fn label(&self, index: usize) -> String {
        match &self.name {
            Some(name) => name.get_ref().clone(),
            None => format!("route {}", index + 1),
        }
    }
}

/// What a route carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RouteProtocol {
    /// HTTP requests, WebSockets among them.
    #[default]
    Http,
    /// Whole connections, whatever they speak.
    Tcp,
    /// Whole connections whose client speaks SSH.
    Ssh,
    /// HTTP requests where the client speaks HTTP, and whole connections otherwise.
    Any,
}

impl RouteProtocol {
    /// Whether it carries nothing but whole connections.
    pub fn is_bytes(self) -> bool {
        matches!(self, Self::Tcp | Self::Ssh)
    }

    /// As users call it.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Http => "an HTTP route",
            Self::Tcp => "a TCP route",
            Self::Ssh => "an SSH route",
            Self::Any => "a route of any protocol",
        }
    }
}

/// A plugin as one route uses it: the plugin's name, or a table that changes something for this
/// route.
#[derive(Clone, Debug, PartialEq)]
pub struct PluginUse {
    /// Which `[plugin.NAME]`.
    pub name: Spanned<String>,
    /// Instead of the plugin's own `config`.
    pub config: Option<PluginConfig>,
    /// Instead of the plugin's own `on_error`.
    pub on_error: Option<OnError>,
}

/// How long a route waits for its backend.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RouteTimeouts {
    /// Until a connection to the backend stands.
    pub connect: Duration,
    /// Until the head of the backend's answer is there, since the client's last byte.
    pub response: Duration,
    /// While a body is under way: since a byte of it moved last, in either direction. A request whose
    /// body stops is answered 408.
    pub idle: Duration,
    /// While a WebSocket or a TCP connection is open: since a byte moved last, in either direction.
    pub tunnel: Duration,
    /// For a request as a whole, from its head to the last byte of its answer, however much moves. It
    /// does not count for what follows an upgrade. By default as long as it takes.
    pub total: Option<Duration>,
}

/// How much a request of a route may bring.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RouteLimits {
    /// Size of a request's body. A larger one is answered 413. By default any size.
    #[serde(deserialize_with = "optional")]
    #[schemars(with = "Option<ByteSize>")]
    pub body: Option<Spanned<ByteSize>>,
}

impl Default for RouteTimeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            response: Duration::from_secs(60),
            idle: Duration::from_secs(60),
            tunnel: Duration::from_secs(3600),
            total: None,
        }
    }
}

/// How often a request may be sent to another server of the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Retries {
    /// Attempts at a request, the first among them, 1 to 20. Each is at another server.
    #[serde(deserialize_with = "whole::<_, u32, _, 1, 20>")]
    #[schemars(range(min = 1, max = 20))]
    pub attempts: u32,
    /// Requests that may be repeated after they were sent, in percent of the route's requests of the
    /// last seconds, 0 to 100. 0 repeats none.
    #[serde(deserialize_with = "whole::<_, u32, _, 0, 100>")]
    #[schemars(range(min = 0, max = 100))]
    pub budget: u32,
}

impl Default for Retries {
    fn default() -> Self {
        Self { attempts: 3, budget: 20 }
    }
}

impl<'de> Deserialize<'de> for PluginUse {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // A span is known only before looking inside.
        let written = Spanned::<Written>::deserialize(deserializer)?;
        let span = written.span();
        Ok(match written.into_inner() {
            Written::Name(name) => Self { name: Spanned::new(span, name), config: None, on_error: None },
            Written::Table(table) => {
                Self { name: table.plugin, config: table.config, on_error: table.on_error }
            }
        })
    }
}

impl JsonSchema for PluginUse {
    fn schema_name() -> Cow<'static, str> {
        "PluginUse".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let table = generator.subschema_for::<UseTable>();
        json_schema!({
            "description": "A plugin's name, or a table that changes something for this route.",
            "anyOf": [{ "type": "string" }, table],
        })
    }
}

enum Written {
    Name(String),
    Table(UseTable),
}

/// A plugin, changed for this route.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct UseTable {
    /// Name of the plugin.
    #[serde(rename = "use")]
    #[schemars(with = "String")]
    plugin: Spanned<String>,
    /// Its settings on this route, instead of those in `[plugin.NAME]`.
    config: Option<PluginConfig>,
    /// What becomes of a request when the plugin fails, instead of `on_error` in `[plugin.NAME]`.
    on_error: Option<OnError>,
}

impl<'de> Deserialize<'de> for Written {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UseVisitor)
    }
}

struct UseVisitor;

impl<'de> Visitor<'de> for UseVisitor {
    type Value = Written;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a plugin's name, or `{ use = \"NAME\", config = {…} }`")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Written, E> {
        Ok(Written::Name(name.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Written, A::Error> {
        UseTable::deserialize(MapAccessDeserializer::new(map)).map(Written::Table)
    }
}
