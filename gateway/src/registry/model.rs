//! What is registered: VMs with their services, as their owners write them and as they are kept.

use super::{Caller, Health, LeaseKey, Moment, Refusal, Verdict};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, value::RawValue};
use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

/// Most services of a VM.
pub const SERVICES: usize = 64;

/// Most bytes of what is said of a VM.
pub const ENTRY: usize = 8 * 1024;

/// The shortest lease that is granted.
pub const SHORTEST_TTL: Duration = Duration::from_secs(5);

/// The longest one.
pub const LONGEST_TTL: Duration = Duration::from_secs(3600);

/// How deep what is said of a VM may nest. Whoever reads it wraps it once more, and may take 127 at most.
pub const DEPTH: usize = 64;

/// The longest name or id, in bytes.
const LONGEST_NAME: usize = 253;

/// What a VM is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Runs what the fleet stands on.
    Infra,
    /// Leads others.
    Lieutenant,
    /// Does the work.
    Worker,
    /// What others are copied from.
    Golden,
    /// Anything else.
    Custom,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Infra, Self::Lieutenant, Self::Worker, Self::Golden, Self::Custom];

    /// The role of this name.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Infra => "infra",
            Self::Lieutenant => "lieutenant",
            Self::Worker => "worker",
            Self::Golden => "golden",
            Self::Custom => "custom",
        }
    }
}

/// What its owner says of a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It works.
    Running,
    /// It is paused, and cannot say anything until it goes on.
    Paused,
    /// It does not work.
    Stopped,
    /// It finishes what it has, and takes nothing new.
    Draining,
}

impl Status {
    const ALL: [Self; 4] = [Self::Running, Self::Paused, Self::Stopped, Self::Draining];

    /// The status of this name.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.name() == name)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
            Self::Draining => "draining",
        }
    }
}

/// Something that a VM serves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Service {
    /// What it is called.
    pub name: String,
    /// Where on the VM.
    pub port: u16,
    /// What answers 200 while it works.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub health_path: Option<String>,
    /// Whatever else its owner says.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

/// What a VM is, as its owner says. Never changed, but replaced.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Description {
    /// Which VM.
    #[serde(with = "shared_text")]
    pub id: Arc<str>,
    /// What people call it.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// Where it is reached: a host name or an IP address.
    pub address: String,
    /// What it serves.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub services: Option<Vec<Service>>,
    /// Whatever else its owner says, as it was written.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub metadata: Option<Box<RawValue>>,
    /// Who registered it.
    pub registered_by: String,
    /// Counts the lives of a VM: an older one cannot replace a newer one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub generation: Option<u64>,
}

impl Description {
    /// Whether it is what a registration may come to.
    ///
    /// # Errors
    /// Fails with what is wrong.
    pub(super) fn check(&self) -> Result<(), String> {
        let services = self.services.as_deref().unwrap_or_default();
        let is_long = |text: &str| text.is_empty() || text.len() > LONGEST_NAME;
        let wrong = if is_long(&self.id) || !self.id.bytes().all(is_plain) {
            "its id"
        } else if is_long(&self.name) {
            "its name"
        } else if is_long(&self.registered_by) {
            "who registered it"
        } else if address(&self.address).is_err() || is_long(&self.address) {
            "its address"
        } else if services.len() > SERVICES || services.iter().any(|it| it.name.is_empty() || it.port == 0) {
            "its services"
        } else if metadata(self.metadata.as_deref()).is_err() {
            "its metadata"
        } else {
            return Ok(());
        };
        Err(format!("{wrong} is nothing that can be registered"))
    }

    /// Whether two say the same.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        let metadata = |it: &Self| it.metadata.as_deref().map(|value| value.get().to_owned());
        self.name == other.name
            && self.role == other.role
            && self.address == other.address
            && self.services == other.services
            && self.registered_by == other.registered_by
            && self.generation == other.generation
            && metadata(self) == metadata(other)
    }
}

/// A VM that registers.
#[derive(Debug, Clone)]
pub struct Registration {
    /// What it is.
    pub what: Description,
    /// What it says of itself.
    pub status: Status,
    /// How long the lease should be, where it says.
    pub ttl: Option<Duration>,
    /// Whether its client is one of the service before this one, whose window it counts on.
    pub is_old_client: bool,
    /// Who says so.
    pub caller: Caller,
}

/// What changes of an entry.
#[derive(Debug, Clone, Default)]
pub struct Change {
    /// A new name.
    pub name: Option<String>,
    /// A new role.
    pub role: Option<Role>,
    /// A new status.
    pub status: Option<Status>,
    /// A new address.
    pub address: Option<String>,
    /// Other services, all of them.
    pub services: Option<Option<Vec<Service>>>,
    /// Other metadata, all of it.
    pub metadata: Option<Box<RawValue>>,
    /// Who says so.
    pub caller: Caller,
}

/// What a renewal may say.
#[derive(Debug, Clone, Default)]
pub struct Renewal {
    /// How long the lease should be from now on.
    pub ttl: Option<Duration>,
    /// A status; without one, whoever renews is running.
    pub status: Option<Status>,
    /// Who says so.
    pub caller: Caller,
}

/// A body as it was written, before anything of it is believed. What it has beyond this is ignored, as ever.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Written {
    id: Option<Value>,
    name: Option<Value>,
    role: Option<Value>,
    status: Option<Value>,
    address: Option<Value>,
    services: Option<Value>,
    metadata: Option<Box<RawValue>>,
    registered_by: Option<Value>,
    ttl: Option<Value>,
    generation: Option<Value>,
}

impl Written {
    fn read(body: &[u8]) -> Result<Self, Refusal> {
        if body.len() > ENTRY {
            return Err(Refusal::TooLarge);
        }
        // A list would be taken for the fields in their order.
        if body.trim_ascii_start().first() != Some(&b'{') {
            return Err(Refusal::invalid("the body is not a JSON object"));
        }
        let bad = |error| Refusal::invalid(format!("the body is not a JSON object of a VM: {error}"));
        // All of it, once: what is kept as it was written, others have to be able to read.
        let value: Value = serde_json::from_slice(body).map_err(bad)?;
        if depth(&value) > DEPTH {
            return Err(Refusal::invalid(format!("the body nests deeper than {DEPTH} objects and lists")));
        }
        serde_json::from_slice(body).map_err(bad)
    }
}

fn depth(value: &Value) -> usize {
    let inside = match value {
        Value::Object(fields) => fields.values().map(depth).max(),
        Value::Array(items) => items.iter().map(depth).max(),
        _ => return 0,
    };
    1 + inside.unwrap_or_default()
}

impl Registration {
    /// Reads a registration.
    ///
    /// # Errors
    /// Fails with what is wrong, in the words of the service before this one where it had any.
    pub fn read(body: &[u8]) -> Result<Self, Refusal> {
        let written = Written::read(body)?;
        let id = required(written.id.as_ref(), "id")?;
        if !id.bytes().all(is_plain) {
            return Err(Refusal::invalid("id may have letters, digits and -_.:@"));
        }
        let name = required(written.name.as_ref(), "name")?;
        let role = role(written.role.as_ref())?;
        let status = match &written.status {
            None | Some(Value::Null) => Status::Running,
            Some(Value::String(text)) if text.is_empty() => Status::Running,
            Some(value) => status(value)?,
        };
        let address = address(required(written.address.as_ref(), "address")?)?;
        let by = match &written.registered_by {
            None | Some(Value::Null) => None,
            value => Some(required(value.as_ref(), "registeredBy")?),
        };
        let services = services(written.services.as_ref())?;
        let metadata = metadata(written.metadata.as_deref())?;
        let ttl = ttl(written.ttl.as_ref())?;
        let generation = generation(written.generation.as_ref())?;
        Ok(Self {
            is_old_client: ttl.is_none() && by.is_some(),
            what: Description {
                id: id.into(),
                name: name.to_owned(),
                role,
                address,
                services,
                metadata,
                registered_by: by.unwrap_or("self").to_owned(),
                generation,
            },
            status,
            ttl,
            caller: Caller::default(),
        })
    }
}

impl Change {
    /// Reads a change.
    ///
    /// # Errors
    /// Fails with what is wrong.
    pub fn read(body: &[u8]) -> Result<Self, Refusal> {
        let written = Written::read(body)?;
        let text = |value: &Option<Value>, key: &str| match value {
            None => Ok(None),
            Some(Value::String(text)) if !text.trim().is_empty() && text.len() <= LONGEST_NAME => {
                Ok(Some(text.trim().to_owned()))
            }
            Some(_) => Err(Refusal::invalid(format!("{key} cannot be empty"))),
        };
        Ok(Self {
            status: written.status.as_ref().map(status).transpose()?,
            name: text(&written.name, "name")?,
            role: written.role.as_ref().map(|value| role(Some(value))).transpose()?,
            address: text(&written.address, "address")?.map(|text| address(&text)).transpose()?,
            services: match &written.services {
                None => None,
                value => Some(services(value.as_ref())?),
            },
            metadata: metadata(written.metadata.as_deref())?,
            caller: of(&written)?,
        })
    }
}

impl Renewal {
    /// Reads a renewal, whose body is mostly empty.
    ///
    /// # Errors
    /// Fails with what is wrong.
    pub fn read(body: &[u8]) -> Result<Self, Refusal> {
        if body.trim_ascii().is_empty() {
            return Ok(Self::default());
        }
        let written = Written::read(body)?;
        let status = written.status.as_ref().map(status).transpose()?;
        Ok(Self { ttl: ttl(written.ttl.as_ref())?, status, caller: of(&written)? })
    }
}

fn required<'v>(value: Option<&'v Value>, key: &str) -> Result<&'v str, Refusal> {
    let text = value.and_then(Value::as_str).map(str::trim).filter(|text| !text.is_empty());
    let text = text.ok_or_else(|| Refusal::invalid(format!("{key} is required")))?;
    if text.len() > LONGEST_NAME || text.contains(char::is_control) {
        return Err(Refusal::invalid(format!("{key} must be one line of at most {LONGEST_NAME} bytes")));
    }
    Ok(text)
}

/// Whether an id may have this.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.:@".contains(&byte)
}

fn role(value: Option<&Value>) -> Result<Role, Refusal> {
    let known = value.and_then(Value::as_str).and_then(Role::of);
    known.ok_or_else(|| Refusal::invalid(format!("invalid role: {}", shown(value))))
}

fn status(value: &Value) -> Result<Status, Refusal> {
    let known = value.as_str().and_then(Status::of);
    known.ok_or_else(|| Refusal::invalid(format!("invalid status: {}", shown(Some(value)))))
}

/// What was written instead, as much as fits into a message.
fn shown(value: Option<&Value>) -> String {
    match value {
        None => "undefined".to_owned(),
        Some(Value::String(text)) => text.chars().take(40).collect(),
        Some(other) => other.to_string().chars().take(40).collect(),
    }
}

/// It ends up in URLs, and in front of those who make connections of it.
fn address(text: &str) -> Result<String, Refusal> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:[]%".contains(&byte);
    match text.bytes().all(plain) && !is_number(text) {
        true => Ok(text.to_owned()),
        false => Err(Refusal::invalid("address must be a host name or an IP address")),
    }
}

/// Whether it is an IPv4 address in disguise: `2130706433`, `0x7f000001` and `127.1` are, to most who are given
/// such a name (WHATWG URL, "ends in a number").
fn is_number(text: &str) -> bool {
    let last = text.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
    let hex = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    let is_number = match hex {
        Some(hex) => hex.bytes().all(|byte| byte.is_ascii_hexdigit()),
        None => last.bytes().all(|byte| byte.is_ascii_digit()),
    };
    is_number && text.parse::<IpAddr>().is_err()
}

fn metadata(value: Option<&RawValue>) -> Result<Option<Box<RawValue>>, Refusal> {
    match value {
        None => Ok(None),
        Some(value) if value.get() == "null" => Ok(None),
        Some(value) if value.get().starts_with('{') => Ok(Some(value.to_owned())),
        Some(_) => Err(Refusal::invalid("metadata must be an object")),
    }
}

fn services(value: Option<&Value>) -> Result<Option<Vec<Service>>, Refusal> {
    let list = match value {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Array(list)) => list,
        Some(_) => return Err(Refusal::invalid("services must be a list")),
    };
    if list.len() > SERVICES {
        return Err(Refusal::invalid(format!("more than {SERVICES} services")));
    }
    let read = |(index, item): (usize, &Value)| {
        let mut service = Service::deserialize(item)
            .map_err(|error| Refusal::invalid(format!("services[{index}]: {error}")))?;
        // What was read here may be written back; this is for the registry to say.
        ["url", "state", "why"].into_iter().for_each(|ours| drop(service.more.remove(ours)));
        if service.name.is_empty() || service.port == 0 {
            return Err(Refusal::invalid(format!("services[{index}] needs a name, and a port from 1")));
        }
        Ok(service)
    };
    list.iter().enumerate().map(read).collect::<Result<_, _>>().map(Some)
}

/// Who asks, as far as the body says: which life of the VM.
fn of(written: &Written) -> Result<Caller, Refusal> {
    Ok(Caller { generation: generation(written.generation.as_ref())?, ..Caller::default() })
}

fn generation(value: Option<&Value>) -> Result<Option<u64>, Refusal> {
    let number = |value: &Value| {
        value.as_u64().ok_or_else(|| Refusal::invalid("generation must be a whole number from 0"))
    };
    value.filter(|value| !value.is_null()).map(number).transpose()
}

/// Seconds, or a text such as `45s`; what is granted stays within the limits.
fn ttl(value: Option<&Value>) -> Result<Option<Duration>, Refusal> {
    let asked = match value {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Number(number)) => {
            number.as_f64().and_then(|seconds| Duration::try_from_secs_f64(seconds.min(1e9)).ok())
        }
        Some(Value::String(text)) => humantime::parse_duration(text).ok(),
        Some(_) => None,
    };
    let asked = asked.ok_or_else(|| Refusal::invalid("ttl must be seconds, such as 45, or \"45s\""))?;
    Ok(Some(asked.clamp(SHORTEST_TTL, LONGEST_TTL)))
}

/// Texts that are shared, kept as texts.
pub(super) mod shared_text {
    use serde::{Deserialize as _, Deserializer, Serializer};
    use std::sync::Arc;

    pub(in crate::registry) fn serialize<S: Serializer>(
        text: &Arc<str>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(text)
    }

    pub(in crate::registry) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Arc<str>, D::Error> {
        String::deserialize(deserializer).map(Arc::from)
    }
}

/// An entry: a VM and its lease. Never changed, but replaced.
#[derive(Debug, Clone)]
pub struct Record {
    /// What the VM is.
    pub what: Arc<Description>,
    /// What its owner said last.
    pub status: Status,
    /// When it registered first.
    pub registered_at: SystemTime,
    /// When it was heard of last.
    pub last_seen: SystemTime,
    /// The same, by the clock that nobody sets.
    pub(super) heard: Duration,
    /// How long it may be silent.
    pub ttl: Duration,
    /// What was granted when it registered; without a wish of its own, it may turn out that it needs more.
    pub(super) granted: Duration,
    /// Whether it asked for that itself.
    pub(super) asked_ttl: bool,
    /// How its lease stands.
    pub lease: Lease,
    /// The key that it was registered with.
    pub(super) key: Option<LeaseKey>,
    /// What others found out about its services.
    pub health: Health,
    /// When it changed last, as the registry counts changes. Renewals are none.
    pub revision: u64,
}

/// How a lease stands. Times are of the clock that nobody sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lease {
    /// It runs out then, unless it is renewed.
    Runs {
        /// When.
        until: Duration,
        /// Why it still does, where it was not renewed.
        grace: Option<Grace>,
    },
    /// It runs until the store says otherwise that several gateways share.
    Told {
        /// Until when at least, where that is known here.
        until: Option<Duration>,
    },
    /// Who is paused cannot renew: it runs for as long as expired entries are shown.
    Paused {
        /// When that is over.
        until: Duration,
    },
    /// It ran out.
    Expired {
        /// When, for people.
        at: SystemTime,
        /// When the entry is removed.
        gone: Duration,
    },
}

/// Why a lease runs on that was not renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grace {
    /// The registry was started since, at this time.
    Recovered(SystemTime),
    /// Too many would have expired at once.
    Held,
}

impl Record {
    /// What becomes of requests for it, in a word.
    pub fn state(&self) -> &'static str {
        match (self.lease, self.status) {
            (Lease::Expired { .. }, _) => "expired",
            (_, Status::Running) => self.health.of_all().name(),
            (_, status) => status.name(),
        }
    }

    /// Whether a renewal now comes so late that the lease, which it did not ask for, may be too short for it.
    pub(super) fn is_late(&self, now: Duration) -> bool {
        !self.asked_ttl && now.saturating_sub(self.heard) * 5 > self.granted * 2
    }

    /// When it was heard of last, as far as that can be known: who lives by a lease that another gateway renews, was
    /// heard of within its time.
    pub(super) fn seen_by(&self, now: Moment) -> SystemTime {
        match self.lease {
            Lease::Told { .. } => {
                self.last_seen.max(now.wall.checked_sub(self.ttl).unwrap_or(self.last_seen))
            }
            _ => self.last_seen,
        }
    }

    /// What is thought of a service of it, or of all where none is named.
    pub fn verdict(&self, service: Option<&str>) -> Verdict {
        service.map_or_else(|| self.health.of_all(), |service| self.health.of(service))
    }

    /// Whether it may be handed out.
    pub fn is_discoverable(&self) -> bool {
        self.status == Status::Running && !matches!(self.lease, Lease::Expired { .. })
    }

    /// Whether it is there at all.
    pub fn is_expired(&self) -> bool {
        matches!(self.lease, Lease::Expired { .. })
    }

    /// Whether it is handed out though it was not renewed in time.
    pub fn is_held(&self) -> bool {
        matches!(self.lease, Lease::Runs { grace: Some(Grace::Held), .. })
    }

    /// Why it is in this state, where that does not go without saying.
    pub fn why(&self) -> Option<String> {
        let seen = humantime::format_rfc3339_seconds(self.last_seen);
        match (self.lease, self.status) {
            (Lease::Expired { .. }, Status::Paused) => Some(format!("paused, last seen at {seen}")),
            (Lease::Expired { .. }, _) => {
                Some(format!("not renewed within {} s, last seen at {seen}", self.ttl.as_secs()))
            }
            (Lease::Runs { grace: Some(Grace::Held), .. }, _) => Some(format!(
                "not renewed, last seen at {seen}; kept for now because too many lapsed at once"
            )),
            (Lease::Runs { grace: Some(Grace::Recovered(_)), .. }, _) => Some(
                "recovered: known from before the registry was restarted, and not renewed since".to_owned(),
            ),
            (_, Status::Running) => self.health.why(),
            (_, status) => Some(format!("its owner says that it is {}", status.name())),
        }
    }
}
