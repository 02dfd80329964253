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

/// Whether a client at `peer` may register this address for this VM: its own IP address, or a name that begins
/// with the VM's id.
pub(super) fn is_own(address: &str, id: &str, peer: IpAddr) -> bool {
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    match bare.parse::<IpAddr>() {
        Ok(ip) => ip.to_canonical() == peer.to_canonical(),
        Err(_) => {
            let (first, rest) = bare.split_at_checked(id.len()).unwrap_or_default();
            !id.is_empty() && first.eq_ignore_ascii_case(id) && (rest.is_empty() || rest.starts_with('.'))
        }
    }
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
    fn an_address_is_ones_own_or_begins_with_the_id() {
        let peer: IpAddr = "2001:db8::1".parse().expect("an address");
        for (address, own) in [
            ("2001:db8::1", true),
            ("[2001:db8::1]", true),
            ("2001:db8::2", false),
            ("a1.vm.test", true),
            ("A1.vm.test", true),
            ("a1", true),
            ("a1x.vm.test", false),
            ("api.other.test", false),
            ("", false),
        ] {
            assert_eq!(is_own(address, "a1", peer), own, "{address}");
        }
        assert!(is_own("10.0.0.1", "a1", "::ffff:10.0.0.1".parse().expect("an address")));
    }
}
