//! `[registry]`: which VMs there are, for routes with `to = "registry"`, or where somebody else knows it.

use std::{fmt, path::PathBuf};

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::{
    text::{FromText, Mistake, optional, optional_list, spanned},
    values::{Duration, seconds, whole},
};

/// Which VMs there are, and what they serve: for routes with `to = "registry"`, or as another registry says.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Registry {
    /// The header of the table.
    #[serde(skip, default = "super::unnamed")]
    pub name: Spanned<String>,
    /// Where the registry is, such as `"https://infra.vm.example.com:3000"`, where it is another one than this
    /// gateway's: backends with `discover` and `[vms] resolve = "registry"` follow it.
    #[serde(deserialize_with = "optional")]
    #[schemars(with = "Option<String>")]
    pub url: Option<Spanned<RegistryUrl>>,
    /// Where entries are kept: `memory`, `file:PATH`, which outlasts the process, or `etcd:URL,URL`, which
    /// several gateways share. By default the file `registry.redb` in `[gateway] state_dir`. A relative path
    /// starts at the folder of the configuration file.
    #[serde(deserialize_with = "optional")]
    #[schemars(with = "Option<String>")]
    pub store: Option<Spanned<RegistryStore>>,
    /// How the etcd of `store` is used.
    #[schemars(with = "Option<Etcd>")]
    pub etcd: Option<Spanned<Etcd>>,
    /// Name of the secret that a request has to bring as `authorization: Bearer …`, but for `/health`. By
    /// default none is asked for, and the plugins of the route decide. With `url`, the secret that is shown
    /// there.
    #[schemars(with = "Option<String>")]
    pub token: Option<Spanned<String>>,
    /// Name of the secret of who may change everybody's entries, those with a lease key as well. By default
    /// nobody may.
    #[schemars(with = "Option<String>")]
    pub admin_token: Option<Spanned<String>>,
    /// Which addresses VMs may register: `any`, or with `own` the IP address that they come from, and their
    /// name below `names_below`.
    pub addresses: RegistryAddresses,
    /// The domain that VMs' names are below, such as `"vm.example.com"`: with `addresses = "own"`, a VM may
    /// register `{id}.vm.example.com`. By default no name.
    #[serde(deserialize_with = "optional")]
    #[schemars(with = "Option<String>")]
    pub names_below: Option<Spanned<Domain>>,
    /// Networks that services may be in which are registered: this gateway asks them whether they work, and
    /// sends them requests of backends with `discover`. By default any but those that lead to this machine and
    /// its link.
    #[serde(deserialize_with = "optional_list")]
    #[schemars(with = "Option<Vec<String>>")]
    pub networks: Option<Vec<Spanned<IpNet>>>,
    /// Changes a second from one client's address, 1 to 1000000, renewals included; five times as many at
    /// once. IPv6 addresses of one /64 count together. By default any number.
    #[serde(deserialize_with = "whole::<_, u32, _, 1, 1000000>")]
    #[schemars(range(min = 1, max = 1000000))]
    pub changes_per_client: Option<u32>,
    /// Time to live of who asks for none, 5 s to 1 h: who is not heard of for so long is not discovered
    /// any more.
    #[serde(deserialize_with = "seconds::<_, 5, 3600>")]
    pub ttl: Duration,
    /// How long expired entries are still listed, 1 s to 365 days.
    #[serde(deserialize_with = "seconds::<_, 1, 31536000>")]
    pub retention: Duration,
    /// How services are asked whether they work: those that registered with a `healthPath`.
    pub probe: Probe,
    /// Whether a VM that is known gets 409 when it registers again, as in the service before this one.
    pub strict_conflict: bool,
}

impl Default for Registry {
    fn default() -> Self {
        Self {
            name: super::unnamed(),
            url: None,
            store: None,
            etcd: None,
            token: None,
            admin_token: None,
            addresses: RegistryAddresses::default(),
            names_below: None,
            networks: None,
            changes_per_client: None,
            ttl: Duration::from_secs(45),
            retention: Duration::from_secs(24 * 3600),
            probe: Probe::default(),
            strict_conflict: false,
        }
    }
}

/// Which addresses VMs may register.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RegistryAddresses {
    /// Any.
    #[default]
    Any,
    /// The IP address that they come from, and their name below `names_below`.
    Own,
}

/// A domain: labels of letters, digits, `-` and `_`, the last of them no number (it would be an IPv4 address).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Domain(String);

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromText for Domain {
    const EXPECTED: &'static str = "expected a domain such as \"vm.example.com\"";

    fn from_text(text: &str) -> Result<Self, Mistake> {
        let is_label = |label: &str| {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
            (1..=63).contains(&label.len()) && label.bytes().all(plain)
        };
        let last = text.rsplit('.').next().unwrap_or_default();
        let is_name = last.starts_with(|first: char| first.is_ascii_alphabetic());
        match text.len() <= 253 && text.split('.').all(is_label) && is_name {
            true => Ok(Self(text.to_ascii_lowercase())),
            false => Err(Mistake::new("not a domain")),
        }
    }
}

/// How services are asked whether they work: by `GET` for their `healthPath`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Probe {
    /// Whether they are asked at all.
    pub enabled: bool,
    /// From the end of one question to the next, 1 s to 1 h.
    #[serde(deserialize_with = "seconds::<_, 1, 3600>")]
    pub interval: Duration,
    /// How long an answer may take, the connection included.
    pub timeout: Duration,
    /// Good answers in a row after which a service that did not work does, 1 to 100. One is enough for who has
    /// just registered.
    #[serde(deserialize_with = "whole::<_, u32, _, 1, 100>")]
    #[schemars(range(min = 1, max = 100))]
    pub healthy: u32,
    /// Bad answers in a row after which a service does not work, 1 to 100.
    #[serde(deserialize_with = "whole::<_, u32, _, 1, 100>")]
    #[schemars(range(min = 1, max = 100))]
    pub unhealthy: u32,
    /// Questions at a time, 1 to 10000.
    #[serde(deserialize_with = "whole::<_, u32, _, 1, 10000>")]
    #[schemars(range(min = 1, max = 10000))]
    pub at_once: u32,
}

impl Default for Probe {
    fn default() -> Self {
        Self {
            enabled: true,
            interval: Duration::from_secs(15),
            timeout: Duration::from_secs(3),
            healthy: 2,
            unhealthy: 3,
            at_once: 64,
        }
    }
}

/// How etcd is used: where in it entries are, and who we are there.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Etcd {
    /// What keys begin with. Gateways of the same prefix serve the same registry.
    #[serde(deserialize_with = "spanned")]
    #[schemars(with = "String")]
    pub prefix: Spanned<EtcdPrefix>,
    /// Name of the user that etcd knows us by. By default it is not told any.
    #[schemars(with = "Option<String>")]
    pub user: Option<Spanned<String>>,
    /// Name of the secret that is the user's password.
    #[schemars(with = "Option<String>")]
    pub password: Option<Spanned<String>>,
    /// PEM file of authorities that etcd's certificates may be of, beside those of this machine. A relative
    /// path starts at the folder of the configuration file. By default none.
    #[schemars(with = "Option<String>")]
    pub ca: Option<Spanned<String>>,
    /// PEM file of the certificate that is shown to etcd. By default none.
    #[schemars(with = "Option<String>")]
    pub cert: Option<Spanned<String>>,
    /// PEM file of its key.
    #[schemars(with = "Option<String>")]
    pub key: Option<Spanned<String>>,
}

impl Default for Etcd {
    fn default() -> Self {
        Self {
            prefix: Spanned::new(0..0, EtcdPrefix("/vers/registry".to_owned())),
            user: None,
            password: None,
            ca: None,
            cert: None,
            key: None,
        }
    }
}

/// What keys of etcd begin with: without a slash at its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EtcdPrefix(String);

impl EtcdPrefix {
    /// The prefix.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromText for EtcdPrefix {
    const EXPECTED: &'static str = "expected a prefix such as \"/vers/registry\"";

    fn from_text(text: &str) -> Result<Self, Mistake> {
        let prefix = text.trim_end_matches('/');
        match prefix {
            "" => Err(Mistake::new("keys have to begin with something")),
            _ if prefix.len() > 256 || !prefix.bytes().all(|byte| byte.is_ascii_graphic()) => {
                Err(Mistake::new("not the beginning of keys: up to 256 characters of ASCII without spaces"))
            }
            _ => Ok(Self(prefix.to_owned())),
        }
    }
}

/// Where another registry is: `http` or `https`, a host, perhaps a port and the beginning of paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryUrl(String);

impl RegistryUrl {
    /// Without a slash at its end.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RegistryUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromText for RegistryUrl {
    const EXPECTED: &'static str = "expected a URL such as \"https://infra.vm.example.com:3000\"";

    fn from_text(text: &str) -> Result<Self, Mistake> {
        let uri = text.parse::<http::Uri>().ok();
        let is_good = uri.is_some_and(|uri| {
            let has_user = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
            matches!(uri.scheme_str(), Some("http" | "https")) && uri.query().is_none() && !has_user
        });
        match is_good {
            true => Ok(Self(text.trim_end_matches('/').to_owned())),
            false => Err(Mistake::new("not the URL of a registry")),
        }
    }
}

/// The port that clients of etcd use where none is said.
const ETCD_PORT: u16 = 2379;

/// Where entries are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegistryStore {
    /// Nowhere but in memory.
    Memory,
    /// In a file.
    File(PathBuf),
    /// In etcd, by its members: `https://host:2379`, each with its port.
    Etcd(Vec<String>),
}

impl fmt::Display for RegistryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("memory"),
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Etcd(members) => write!(f, "etcd:{}", members.join(",")),
        }
    }
}

impl FromText for RegistryStore {
    const EXPECTED: &'static str = "expected \"memory\", \"file:PATH\" or \"etcd:http://localhost:2379\"";

    fn from_text(text: &str) -> Result<Self, Mistake> {
        match text.split_once(':') {
            _ if text == "memory" => Ok(Self::Memory),
            Some(("file", "")) => Err(Mistake::new("a path is missing after `file:`")),
            Some(("file", path)) => Ok(Self::File(PathBuf::from(path))),
            Some(("etcd", members)) => etcd(members).map(Self::Etcd),
            _ => Err(Mistake::new("not a place for a registry")),
        }
    }
}

/// Members of etcd: several are separated by commas.
fn etcd(members: &str) -> Result<Vec<String>, Mistake> {
    let mut found: Vec<String> = Vec::new();
    for member in members.split(',').map(str::trim) {
        let wrong = |what: &str| Mistake::new(format!("{what}: `{member}`"));
        let example = "for example \"etcd:https://a.internal:2379,https://b.internal:2379\"";
        let uri = member.parse::<http::Uri>();
        let uri = uri.map_err(|_| wrong("not the URL of a member of etcd").help(example))?;
        let (Some(scheme @ ("http" | "https")), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(wrong("a member of etcd begins with http:// or https://").help(example));
        };
        if authority.as_str().contains('@') {
            return Err(
                wrong("the user of etcd is not told by its URL").help("there is `etcd = { user, password }`")
            );
        }
        if uri.path() != "/" || uri.query().is_some() || authority.host().is_empty() {
            return Err(wrong("a member of etcd is a host and a port").help(example));
        }
        let member = format!("{scheme}://{}:{}", authority.host(), authority.port_u16().unwrap_or(ETCD_PORT));
        if found.contains(&member) {
            return Err(Mistake::new(format!("`{member}` is there twice")));
        }
        if found.first().is_some_and(|first| first.starts_with("https:") != member.starts_with("https:")) {
            return Err(Mistake::new("members of etcd are asked over TLS, all of them, or none"));
        }
        found.push(member);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stores_print_as_they_are_written() {
        for text in ["memory", "file:/var/lib/vers/registry.redb", "file:registry.redb"] {
            assert_eq!(RegistryStore::from_text(text).expect("a store").to_string(), text);
        }
        for good in ["http://[::1]:3000", "https://infra.vm.test:3000/", "https://infra.vm.test/base"] {
            assert_eq!(RegistryUrl::from_text(good).expect("a URL").to_string(), good.trim_end_matches('/'));
        }
        for bad in ["infra:3000", "ftp://infra", "http://", "https://a?b", "https://a@b", "/registry", ""] {
            assert!(RegistryUrl::from_text(bad).is_err(), "{bad}");
        }
        assert_eq!(Domain::from_text("VM.Example.com").expect("a domain").to_string(), "vm.example.com");
        for bad in ["", ".vm.test", "vm.test.", "vm..test", "a b", "10.0.0.1", "vm.0x7f", "*.vm.test"] {
            assert!(Domain::from_text(bad).is_err(), "{bad}");
        }
        for text in ["file:", "redis://localhost", ""] {
            assert!(RegistryStore::from_text(text).is_err(), "{text}");
        }
        assert_eq!(EtcdPrefix::from_text("/a/b/").expect("a prefix").as_str(), "/a/b");
        for text in ["", "/", "a b", "\u{e4}"] {
            assert!(EtcdPrefix::from_text(text).is_err(), "{text}");
        }
    }
}
