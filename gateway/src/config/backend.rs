//! `[backend.NAME]`: servers that do the same work.

use std::{borrow::Cow, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, MapAccess, Visitor, value::MapAccessDeserializer},
};
use toml::Spanned;

use super::{
    fault,
    values::{Duration, duration_or_zero, whole},
};

/// Servers that do the same work; a request goes to one of them.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(remote = "Self", deny_unknown_fields)]
pub struct Backend {
    /// The NAME in `[backend.NAME]`.
    #[serde(skip, default = "super::unnamed")]
    pub name: Spanned<String>,
    /// Addresses with port: `"127.0.0.1:3000"`, `"[::1]:3000"` or `"localhost:3000"`. At least one, unless
    /// they are discovered.
    #[serde(default, deserialize_with = "at_least_one")]
    #[schemars(with = "Vec<String>", length(min = 1))]
    pub servers: Vec<Spanned<String>>,
    /// Those that are registered, instead of `servers`, as they come and go.
    #[schemars(with = "Option<Discover>")]
    pub discover: Option<Spanned<Discover>>,
    /// What is spoken with the servers.
    #[serde(default)]
    pub protocol: BackendProtocol,
    /// How the server of a request is chosen.
    #[serde(default)]
    pub balance: Balance,
    /// Connections kept open for later requests.
    #[serde(default)]
    pub keepalive: Keepalive,
    /// When a server that fails is left alone, and for how long.
    #[serde(default)]
    pub ejection: Ejection,
    /// How the servers are asked whether they work. By default they are not.
    #[schemars(with = "Option<Health>")]
    pub health: Option<Spanned<Health>>,
    /// How much the servers take at a time.
    #[serde(default)]
    pub limits: BackendLimits,
    /// Header of the PROXY protocol that each connection begins with: it tells the server who the
    /// client is. Connections are then kept for the same client only.
    #[serde(default)]
    pub proxy_protocol: ProxyHeader,
    /// Whether TLS is spoken with the servers (1.2 or 1.3), and how.
    #[serde(default)]
    pub tls: BackendTls,
    /// The host that servers are asked for.
    #[serde(default)]
    pub host: BackendHost,
}

/// The host that servers are asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BackendHost {
    /// The one that the client asked for.
    #[default]
    Client,
    /// The server's own, with its port: what a VM is asked for through its edge.
    Server,
}

/// TLS towards servers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum BackendTls {
    /// None is spoken.
    #[default]
    Off,
    /// It is, and servers show who they are.
    On(ServerTls),
}

/// How TLS is spoken with servers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ServerTls {
    /// The name that servers are asked for (SNI), and that their certificates must be for. By default each
    /// one's own: the name or address that it is listed or registered by.
    #[schemars(with = "Option<String>")]
    pub name: Option<Spanned<String>>,
    /// PEM file of authorities that their certificates may be of, beside those of this machine. A relative
    /// path starts at the folder of the configuration file. By default none.
    #[schemars(with = "Option<String>")]
    pub ca: Option<Spanned<String>>,
    /// PEM file of the certificate that is shown to servers that ask for one. By default none.
    #[schemars(with = "Option<String>")]
    pub cert: Option<Spanned<String>>,
    /// PEM file of its key.
    #[schemars(with = "Option<String>")]
    pub key: Option<Spanned<String>>,
}

/// Which servers are discovered: those of a role that have a service, by the registry of this gateway.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Discover {
    /// Role of the VMs: `infra`, `lieutenant`, `worker`, `golden` or `custom`.
    #[schemars(with = "String")]
    pub role: Spanned<String>,
    /// Name of the service, whose port it is.
    #[schemars(with = "String")]
    pub service: Spanned<String>,
}

impl Discover {
    /// The roles that there are.
    pub const ROLES: [&str; 5] = ["infra", "lieutenant", "worker", "golden", "custom"];
}

/// Header of the PROXY protocol in front of connections to servers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ProxyHeader {
    /// None.
    #[default]
    Off,
    /// Version 1, a line of text.
    V1,
    /// Version 2, binary.
    V2,
}

/// What is derived, and one thing that follows from two keys together.
impl<'de> Deserialize<'de> for Backend {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let backend = Self::deserialize(deserializer)?;
        if backend.servers.is_empty() && backend.discover.is_none() {
            let label = "needs `servers` or `discover`";
            let help = "for example `servers = [\"127.0.0.1:3000\"]`, \
                        or `discover = { role = \"worker\", service = \"api\" }`";
            return Err(D::Error::custom(fault::custom("a backend needs servers", label, Some(help))));
        }
        Ok(backend)
    }
}

impl Backend {
    /// What stands behind an address that a route names itself.
    pub fn of_one_server() -> Self {
        Self {
            name: super::unnamed(),
            servers: Vec::new(),
            discover: None,
            protocol: BackendProtocol::default(),
            balance: Balance::default(),
            keepalive: Keepalive::default(),
            ejection: Ejection::default(),
            health: None,
            limits: BackendLimits::default(),
            proxy_protocol: ProxyHeader::Off,
            tls: BackendTls::Off,
            host: BackendHost::Client,
        }
    }
}

/// What is spoken with servers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BackendProtocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2 without TLS, which the servers must know beforehand (RFC 9113, 3.3).
    H2c,
    /// HTTP/2 over TLS.
    H2,
    /// HTTP/2 for requests of gRPC that came over HTTP/2, HTTP/1.1 for all others.
    Auto,
}

/// How the server of a request is chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    /// One after the other.
    #[default]
    RoundRobin,
    /// By chance.
    Random,
    /// The one with the fewest requests under way.
    LeastRequests,
    /// The same one for the same value of this header.
    Header(Spanned<String>),
    /// The same one for the same value of this cookie.
    Cookie(Spanned<String>),
}

/// When a server that fails is left alone, and for how long.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Ejection {
    /// Exchanges that fail one after the other, 1 to 1000. A connection that does not come about is
    /// enough by itself.
    #[serde(deserialize_with = "whole::<_, u32, _, 1, 1000>")]
    #[schemars(range(min = 1, max = 1000))]
    pub failures: u32,
    /// How long it is left alone the first time; each time in a row doubles it. `"0s"` leaves no
    /// server alone.
    #[serde(deserialize_with = "duration_or_zero")]
    pub first: Duration,
    /// How long at most.
    pub longest: Duration,
}

impl Default for Ejection {
    fn default() -> Self {
        Self { failures: 5, first: Duration::from_secs(5), longest: Duration::from_secs(60) }
    }
}

/// How the servers of a backend are asked whether they work: either by `path` or by `tcp`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Health {
    /// Asks with `GET` for this path, which a server that works answers with 2xx or 3xx.
    #[schemars(with = "Option<String>")]
    pub path: Option<Spanned<String>>,
    /// Host to ask for. By default the server's address.
    #[schemars(with = "Option<String>")]
    pub host: Option<Spanned<String>>,
    /// Asks for a connection only.
    pub tcp: bool,
    /// From the end of one question to the next.
    pub interval: Duration,
    /// How long an answer may take, the connection included.
    pub timeout: Duration,
    /// Good answers in a row after which a server that was out of order is used again, 1 to 100.
    #[serde(deserialize_with = "whole::<_, u32, _, 1, 100>")]
    #[schemars(range(min = 1, max = 100))]
    pub healthy: u32,
    /// Bad answers in a row after which a server is not used any more, 1 to 100.
    #[serde(deserialize_with = "whole::<_, u32, _, 1, 100>")]
    #[schemars(range(min = 1, max = 100))]
    pub unhealthy: u32,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            path: None,
            host: None,
            tcp: false,
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(2),
            healthy: 2,
            unhealthy: 3,
        }
    }
}

/// How much the servers of a backend take at a time.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BackendLimits {
    /// Connections in use to each server, by all workers together, 1 to 1000000. By default as many as
    /// are needed.
    #[serde(deserialize_with = "whole::<_, u32, _, 1, 1000000>")]
    #[schemars(range(min = 1, max = 1000000))]
    pub connections: Option<u32>,
    /// Requests that wait while all servers have as many, 0 to 1000000. Further ones are answered 503.
    #[serde(deserialize_with = "whole::<_, u32, _, 0, 1000000>")]
    #[schemars(range(min = 0, max = 1000000))]
    pub pending: u32,
    /// How long each of them waits. One that waited in vain is answered 503.
    pub wait: Duration,
}

impl Default for BackendLimits {
    fn default() -> Self {
        Self { connections: None, pending: 1024, wait: Duration::from_secs(5) }
    }
}

/// Connections to a server kept open for later requests.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Keepalive {
    /// Idle connections kept by each worker for each server, 0 to 100000. 0 opens a connection for
    /// every request.
    #[serde(deserialize_with = "whole::<_, u32, _, 0, 100000>")]
    #[schemars(range(min = 0, max = 100000))]
    pub connections: u32,
    /// How long an idle connection is kept.
    pub idle: Duration,
}

impl Default for Keepalive {
    fn default() -> Self {
        Self { connections: 256, idle: Duration::from_secs(60) }
    }
}

fn at_least_one<'de, D>(deserializer: D) -> Result<Vec<Spanned<String>>, D::Error>
where
    D: Deserializer<'de>,
{
    let servers = Vec::deserialize(deserializer)?;
    if servers.is_empty() {
        let label = "expected at least one address such as \"127.0.0.1:3000\"";
        return Err(D::Error::custom(fault::custom("no servers", label, None)));
    }
    Ok(servers)
}

/// The words for [`Balance`].
const WORDS: &[&str] = &["round_robin", "random", "least_requests"];

impl Serialize for Balance {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::RoundRobin => serializer.serialize_str("round_robin"),
            Self::Random => serializer.serialize_str("random"),
            Self::LeastRequests => serializer.serialize_str("least_requests"),
            Self::Header(name) => serializer.collect_map([("header", name.get_ref())]),
            Self::Cookie(name) => serializer.collect_map([("cookie", name.get_ref())]),
        }
    }
}

impl<'de> Deserialize<'de> for Balance {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(BalanceVisitor)
    }
}

impl JsonSchema for Balance {
    fn schema_name() -> Cow<'static, str> {
        "Balance".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let sticky = generator.subschema_for::<Sticky>();
        json_schema!({
            "description": "A way to take turns, or what requests for the same server have in common.",
            "anyOf": [{ "type": "string", "enum": WORDS }, sticky],
        })
    }
}

struct BalanceVisitor;

impl<'de> Visitor<'de> for BalanceVisitor {
    type Value = Balance;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a word such as \"round_robin\", `{ header = \"NAME\" }` or `{ cookie = \"NAME\" }`")
    }

    fn visit_str<E: Error>(self, word: &str) -> Result<Balance, E> {
        match word {
            "round_robin" => Ok(Balance::RoundRobin),
            "random" => Ok(Balance::Random),
            "least_requests" => Ok(Balance::LeastRequests),
            _ => Err(E::unknown_variant(word, WORDS)),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Balance, A::Error> {
        let sticky = Sticky::deserialize(MapAccessDeserializer::new(map))?;
        match (sticky.header, sticky.cookie) {
            (Some(header), None) => Ok(Balance::Header(header)),
            (None, Some(cookie)) => Ok(Balance::Cookie(cookie)),
            _ => {
                let label = "expected `{ header = \"NAME\" }` or `{ cookie = \"NAME\" }`";
                let message = "`balance` needs either `header` or `cookie`";
                Err(A::Error::custom(fault::custom(message, label, None)))
            }
        }
    }
}

impl Serialize for BackendTls {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bool(*self != Self::Off)
    }
}

impl<'de> Deserialize<'de> for BackendTls {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TlsVisitor)
    }
}

impl JsonSchema for BackendTls {
    fn schema_name() -> Cow<'static, str> {
        "BackendTls".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let table = generator.subschema_for::<ServerTls>();
        json_schema!({
            "description": "Whether there is TLS, or how it is spoken.",
            "anyOf": [{ "type": "boolean" }, table],
        })
    }
}

struct TlsVisitor;

impl<'de> Visitor<'de> for TlsVisitor {
    type Value = BackendTls;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`true`, `false`, or a table such as `{ ca = \"ca.pem\" }`")
    }

    fn visit_bool<E: Error>(self, is_on: bool) -> Result<BackendTls, E> {
        Ok(if is_on { BackendTls::On(ServerTls::default()) } else { BackendTls::Off })
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<BackendTls, A::Error> {
        ServerTls::deserialize(MapAccessDeserializer::new(map)).map(BackendTls::On)
    }
}

/// The table form of a balance: exactly one of these keys.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Sticky {
    /// Requests with the same value of this header go to the same server.
    #[schemars(with = "Option<String>")]
    header: Option<Spanned<String>>,
    /// Requests with the same value of this cookie go to the same server.
    #[schemars(with = "Option<String>")]
    cookie: Option<Spanned<String>>,
}
