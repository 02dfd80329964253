//! The name of a VM.

use std::{fmt, str::FromStr};

/// The name of a VM: a UUID, or a label as DNS has it. Case does not matter.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct VmId(Form);

/// UUIDs are told from labels because there are millions of them, and as numbers they are small.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Form {
    Uuid(u128),
    Label(Box<str>),
}

/// Not the name of a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("neither a UUID nor a label of letters, digits and `-`, 63 at most")]
pub struct BadVmId;

impl VmId {
    pub(super) fn as_uuid(&self) -> Option<u128> {
        match self.0 {
            Form::Uuid(number) => Some(number),
            Form::Label(_) => None,
        }
    }

    pub(super) fn as_label(&self) -> Option<&str> {
        match &self.0 {
            Form::Uuid(_) => None,
            Form::Label(label) => Some(label),
        }
    }
}

impl FromStr for VmId {
    type Err = BadVmId;

    fn from_str(text: &str) -> Result<Self, BadVmId> {
        if let Some(number) = uuid(text.as_bytes()) {
            return Ok(Self(Form::Uuid(number)));
        }
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        let is_label = (1..=63).contains(&text.len())
            && text.bytes().all(is_plain)
            && !text.starts_with('-')
            && !text.ends_with('-');
        if is_label { Ok(Self(Form::Label(text.to_ascii_lowercase().into()))) } else { Err(BadVmId) }
    }
}

impl fmt::Display for VmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Form::Label(label) => f.write_str(label),
            Form::Uuid(number) => {
                let part = |from: u32, bits: u32| (number >> from) & ((1 << bits) - 1);
                let parts = [part(96, 32), part(80, 16), part(64, 16), part(48, 16), part(0, 48)];
                let [a, b, c, d, e] = parts;
                write!(f, "{a:08x}-{b:04x}-{c:04x}-{d:04x}-{e:012x}")
            }
        }
    }
}

/// RFC 9562 §4: 8-4-4-4-12 hexadecimal digits.
fn uuid(text: &[u8]) -> Option<u128> {
    if text.len() != 36 {
        return None;
    }
    let mut number = 0;
    for (at, byte) in text.iter().enumerate() {
        match (at, byte) {
            (8 | 13 | 18 | 23, b'-') => {}
            (8 | 13 | 18 | 23, _) => return None,
            _ => number = number << 4 | u128::from(char::from(*byte).to_digit(16)?),
        }
    }
    Some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_vms() {
        for (text, printed) in [
            ("45A68069-defc-4233-9865-6298D87053AF", "45a68069-defc-4233-9865-6298d87053af"),
            ("00000000-0000-0000-0000-000000000001", "00000000-0000-0000-0000-000000000001"),
            ("Web-1", "web-1"),
            ("7", "7"),
            ("45a68069-defc-4233-9865-6298d87053ag", "45a68069-defc-4233-9865-6298d87053ag"),
        ] {
            let id: VmId = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(id.to_string(), printed);
            assert_eq!(printed.parse(), Ok(id));
        }
        let long = "a".repeat(64);
        for bad in ["", "-a", "a-", "a.b", "a_b", "a b", "ä", "*", "{vm}", "::1", &long] {
            assert_eq!(bad.parse::<VmId>(), Err(BadVmId), "{bad}");
        }
    }
}
