//! `[admin]`: the address where operators look and reload.

use std::{
    fmt,
    net::{Ipv6Addr, SocketAddr},
    path::PathBuf,
};

use schemars::JsonSchema;
use serde::Deserialize;
use toml::Spanned;

use super::text::{FromText, Mistake, optional};

/// Where operators look and reload: /livez, /readyz, /metrics, /status and POST /reload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    /// A socket address, `unix:PATH` or `off`. By default `[::1]:9900`; where that address is taken
    /// and this key absent, the gateway warns and runs without.
    #[serde(deserialize_with = "optional")]
    #[schemars(with = "Option<String>")]
    pub address: Option<Spanned<AdminAddress>>,
    /// Name of the secret that a request has to bring as `authorization: Bearer …`. By default none
    /// is asked for.
    #[schemars(with = "Option<String>")]
    pub token: Option<Spanned<String>>,
}

impl Admin {
    /// Where the gateway tries to listen when the file does not say.
    pub const DEFAULT_ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V6(Ipv6Addr::LOCALHOST), 9900);
}

/// Where the admin server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminAddress {
    /// Nowhere.
    Off,
    /// On a TCP port.
    Socket(SocketAddr),
    /// On a Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for AdminAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::Socket(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl FromText for AdminAddress {
    const EXPECTED: &'static str = "expected an address such as \"[::1]:9900\", \"unix:PATH\" or \"off\"";

    fn from_text(text: &str) -> Result<Self, Mistake> {
        match text.strip_prefix("unix:") {
            Some("") => Err(Mistake::new("a path is missing after `unix:`")),
            Some(path) => Ok(Self::Unix(PathBuf::from(path))),
            None if text == "off" => Ok(Self::Off),
            None => SocketAddr::from_text(text).map(Self::Socket),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_print_as_they_are_written() {
        for text in ["off", "[::1]:9900", "unix:/run/vers/admin.sock"] {
            let address = AdminAddress::from_text(text).expect("an address");
            assert_eq!(address.to_string(), text);
        }
        assert!(AdminAddress::from_text("unix:").is_err());
        assert!(AdminAddress::from_text("on").is_err());
        assert_eq!(Admin::DEFAULT_ADDRESS.to_string(), "[::1]:9900");
    }
}
