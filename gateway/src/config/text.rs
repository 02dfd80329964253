//! Values that are written as strings: how one is read, and what is said when it cannot be.

use std::{
    fmt,
    marker::PhantomData,
    net::{IpAddr, SocketAddr},
};

use ipnet::IpNet;
use serde::{
    Deserialize, Deserializer,
    de::{Error, Visitor},
};
use toml::Spanned;

use super::fault;
use crate::ports::{ListenAddress, ListenAddressError, PortSet};

/// A value with a string form in TOML.
pub(super) trait FromText: Sized {
    /// What is expected, with an example: the words beside the caret.
    const EXPECTED: &'static str;

    /// Reads the string; an error is what is wrong with it, and perhaps what to write instead.
    fn from_text(text: &str) -> Result<Self, Mistake>;
}

/// Why a string is not a `FromText`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mistake {
    message: String,
    help: Option<String>,
}

impl Mistake {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), help: None }
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// For `deserialize_with`: a string.
pub(super) fn text<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: FromText,
{
    deserializer.deserialize_any(TextVisitor(PhantomData))
}

/// For `deserialize_with`: a string, and where it stands.
pub(super) fn spanned<'de, D, T>(deserializer: D) -> Result<Spanned<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromText,
{
    Spanned::<Text<T>>::deserialize(deserializer).map(unwrap)
}

/// For `deserialize_with`: a key that may be absent.
pub(super) fn optional<'de, D, T>(deserializer: D) -> Result<Option<Spanned<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: FromText,
{
    spanned(deserializer).map(Some)
}

/// For `deserialize_with`: an array of strings.
pub(super) fn list<'de, D, T>(deserializer: D) -> Result<Vec<Spanned<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: FromText,
{
    let list = Vec::<Spanned<Text<T>>>::deserialize(deserializer)?;
    Ok(list.into_iter().map(unwrap).collect())
}

/// For `deserialize_with`: an array of strings that may be absent.
pub(super) fn optional_list<'de, D, T>(deserializer: D) -> Result<Option<Vec<Spanned<T>>>, D::Error>
where
    D: Deserializer<'de>,
    T: FromText,
{
    list(deserializer).map(Some)
}

impl FromText for SocketAddr {
    const EXPECTED: &'static str = "expected an address such as \"[::]:8080\"";

    fn from_text(text: &str) -> Result<Self, Mistake> {
        text.parse().map_err(|_| address_mistake(text))
    }
}

impl FromText for ListenAddress {
    const EXPECTED: &'static str = SocketAddr::EXPECTED;

    fn from_text(text: &str) -> Result<Self, Mistake> {
        text.parse().map_err(|error| match error {
            ListenAddressError::NotAnAddress(_) => address_mistake(text),
            // Whatever is wrong with one port, it has been an address all the same.
            ListenAddressError::Ports(_) if !text.contains([',', '-']) => address_mistake(text),
            ListenAddressError::Ports(error) => Mistake::new(error.to_string())
                .help("several ports are written as in \"[::]:443,3000,8080-8090\""),
        })
    }
}

impl FromText for PortSet {
    const EXPECTED: &'static str = "expected a port such as 3000, or ports such as \"3000,8080-8090\"";

    fn from_text(text: &str) -> Result<Self, Mistake> {
        text.parse().map_err(|error: crate::ports::PortError| Mistake::new(error.to_string()))
    }
}

impl FromText for IpNet {
    const EXPECTED: &'static str = "expected a network such as \"10.0.0.0/8\", or one address";

    fn from_text(text: &str) -> Result<Self, Mistake> {
        let network = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        let network: Self = network.map_err(|_| Mistake::new(format!("`{text}` is not a network")))?;
        // Addresses are compared in their own form, so that it would contain none.
        match network.addr().to_canonical() {
            IpAddr::V4(ip) if network.addr().is_ipv6() => {
                let length = network.prefix_len().saturating_sub(96);
                let mistake = Mistake::new(format!("`{text}` is an IPv4 network in IPv6's form"));
                Err(mistake.help(format!("write it as one: \"{ip}/{length}\"")))
            }
            _ => Ok(network),
        }
    }
}

/// Says the likely reason: the usual ways to write a listening address elsewhere are not ours.
fn address_mistake(text: &str) -> Mistake {
    let mistake = Mistake::new(format!("`{text}` is not an address"));
    let port = text.rsplit(':').next().unwrap_or_default();
    if text.parse::<IpAddr>().is_ok() {
        let host = if text.contains(':') { format!("[{text}]") } else { text.to_owned() };
        return mistake.help(format!("a port is missing: \"{host}:8080\""));
    }
    if port.parse::<u16>().is_err() && port.parse::<PortSet>().is_err() {
        return mistake;
    }
    match text.rsplit_once(':').map(|(host, _)| host) {
        None | Some("" | "*") => {
            mistake.help(format!("for every address of the machine, write \"[::]:{port}\""))
        }
        Some("localhost") => {
            mistake.help(format!("names are not looked up here; write \"127.0.0.1:{port}\""))
        }
        Some(host) if host.contains(':') && !host.starts_with('[') => {
            mistake.help(format!("an IPv6 address stands in brackets: \"[{host}]:{port}\""))
        }
        Some(_) => mistake.help("names are not looked up here; write an IP address"),
    }
}

fn unwrap<T>(text: Spanned<Text<T>>) -> Spanned<T> {
    Spanned::new(text.span(), text.into_inner().0)
}

/// Gives types of other crates a `Deserialize` with our words.
struct Text<T>(T);

impl<'de, T: FromText> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(deserializer).map(Self)
    }
}

struct TextVisitor<T>(PhantomData<T>);

impl<T: FromText> Visitor<'_> for TextVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED.trim_start_matches("expected "))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        T::from_text(text).map_err(|mistake| {
            E::custom(fault::custom(&mistake.message, T::EXPECTED, mistake.help.as_deref()))
        })
    }

    /// A number without quotes is most often one without its unit or host, which is then said.
    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_address(text: &str, help: &str) {
        let mistake = ListenAddress::from_text(text).expect_err("not an address");
        assert!(mistake.help.as_deref().unwrap_or_default().contains(help), "for {text:?} got {mistake:?}");
    }

    #[test]
    fn an_address_comes_with_advice() {
        check_address(":8080", "\"[::]:8080\"");
        check_address("8080", "\"[::]:8080\"");
        check_address("*:8080", "\"[::]:8080\"");
        check_address("localhost:80", "\"127.0.0.1:80\"");
        check_address("example.com:80", "an IP address");
        check_address("::1:80", "\"[::1:80]:8080\"");
        check_address("fe80::x:80", "brackets");
        check_address("0.0.0.0", "\"0.0.0.0:8080\"");
        check_address(":1024-65535", "\"[::]:1024-65535\"");
        check_address("*:80,443", "\"[::]:80,443\"");
        check_address("[::]:443,", "several ports");
        check_address("[::]:90-80", "several ports");
        check_address("[::]:0-80", "several ports");
        check_address("", "");
        assert!(ListenAddress::from_text("[::]:0").is_ok());
        assert!(ListenAddress::from_text("[::]:1024-65535").is_ok());
    }

    #[test]
    fn a_network_may_be_one_address() {
        let net = |text| IpNet::from_text(text).expect("a network").to_string();
        assert_eq!(net("10.0.0.0/8"), "10.0.0.0/8");
        assert_eq!(net("192.0.2.1"), "192.0.2.1/32");
        assert_eq!(net("2001:db8::1"), "2001:db8::1/128");
        assert!(IpNet::from_text("10.0.0.0/33").is_err());
        assert!(IpNet::from_text("example.com").is_err());
    }
}
