//! Who asks for a change: by which key, from which address, and whose entries that lets it touch.

use super::Refusal;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::{fmt, net::IpAddr};
use subtle::ConstantTimeEq as _;

/// The shortest key of a lease, in bytes.
const SHORTEST: usize = 16;

/// The longest one.
const LONGEST: usize = 256;

/// The key of a lease, as far as it is kept: its hash.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseKey([u8; 32]);

impl LeaseKey {
    /// Reads a key.
    ///
    /// # Errors
    /// Fails where it is too short to be one, or too long.
    pub fn read(text: &[u8]) -> Result<Self, Refusal> {
        let text = text.trim_ascii();
        if !(SHORTEST..=LONGEST).contains(&text.len()) {
            return Err(Refusal::invalid(format!("x-lease-key must have {SHORTEST} to {LONGEST} bytes")));
        }
        Ok(Self(Sha256::digest(text).into()))
    }
}

impl fmt::Debug for LeaseKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Who asks for a change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Caller {
    /// The key that it shows.
    pub key: Option<LeaseKey>,
    /// Whether it may touch everybody's entries.
    pub is_admin: bool,
    /// Which life of the VM it is, where it says: an older one has no say in what a newer one registered.
    pub generation: Option<u64>,
}

impl Caller {
    /// The same, of this life of its VM.
    pub(super) fn of(self, generation: Option<u64>) -> Self {
        Self { generation, ..self }
    }

    /// Whether it may touch an entry that was registered with this key, or with none.
    pub(super) fn may_touch(&self, bound: Option<&LeaseKey>) -> bool {
        let Some(bound) = bound else { return true };
        let has_key = self.key.as_ref().is_some_and(|key| bool::from(key.0.ct_eq(&bound.0)));
        self.is_admin || has_key
    }
}

/// Whether a client at `peer` may register this address for this VM: its own IP address, or the VM's name below
/// a domain. Whoever chooses an id does not choose a name that way.
pub(super) fn is_own(address: &str, id: &str, peer: Option<IpAddr>, names_below: Option<&str>) -> bool {
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    if let Ok(ip) = bare.parse::<IpAddr>() {
        return peer.is_some_and(|peer| ip.to_canonical() == peer.to_canonical());
    }
    let (name, rest) = address.split_at_checked(id.len()).unwrap_or_default();
    let domain = rest.strip_prefix('.').filter(|_| !id.is_empty() && name.eq_ignore_ascii_case(id));
    domain.zip(names_below).is_some_and(|(domain, below)| domain.eq_ignore_ascii_case(below))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_entry_is_for_its_key_and_for_admins() {
        let key = |text: &str| LeaseKey::read(text.as_bytes()).ok();
        let own = key("0123456789abcdef");
        assert!(own.is_some() && key("short").is_none() && key(&"x".repeat(257)).is_none());
        for (caller, may) in [
            (Caller { key: own.clone(), ..Caller::default() }, true),
            (Caller { key: key("another 0123456789"), ..Caller::default() }, false),
            (Caller::default(), false),
            (Caller { is_admin: true, ..Caller::default() }, true),
        ] {
            assert_eq!(caller.may_touch(own.as_ref()), may, "{caller:?}");
            assert!(caller.may_touch(None), "{caller:?}");
        }
        assert_eq!(format!("{own:?}"), "Some(***)");
    }

    #[test]
    fn an_address_is_ones_own_or_the_name_of_the_id() {
        let peer: IpAddr = "2001:db8::1".parse().expect("an address");
        for (id, address, below, own) in [
            ("a1", "2001:db8::1", None, true),
            ("a1", "[2001:db8::1]", None, true),
            ("a1", "2001:db8::2", None, false),
            ("a1", "a1.vm.test", Some("vm.test"), true),
            ("a1", "A1.VM.test", Some("vm.test"), true),
            ("a1", "a1.vm.test", None, false),
            ("a1", "a1", Some("vm.test"), false),
            ("a1", "a1x.vm.test", Some("vm.test"), false),
            ("a1", "a1.x.vm.test", Some("vm.test"), false),
            ("a1", "a1.other.test", Some("vm.test"), false),
            ("a1", "[a1.vm.test]", Some("vm.test"), false),
            ("api.other.test", "api.other.test", Some("vm.test"), false),
            ("2130706433", "2130706433", Some("vm.test"), false),
            ("", ".vm.test", Some("vm.test"), false),
            ("a1", "", Some("vm.test"), false),
        ] {
            assert_eq!(is_own(address, id, Some(peer), below), own, "{id} at {address}, below {below:?}");
        }
        let mapped = "::ffff:10.0.0.1".parse().expect("an address");
        assert!(is_own("10.0.0.1", "a1", Some(mapped), None));
        assert!(!is_own("10.0.0.1", "a1", None, None), "nobody knows where it comes from");
    }
}
