//! All VMs in memory.

use super::VmId;
use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
};

/// Bits of a UUID that tell where it is looked for.
const BITS: u32 = 16;

/// All VMs with their addresses, in 32 bytes for each that has a UUID for its name, and no more: a hash
/// table of a million of them is more than twice as large.
#[derive(Debug, Default)]
pub struct Table {
    /// By their last bits, which are random in every kind of UUID, and then by number.
    uuids: Box<[(u128, Ipv6Addr)]>,
    /// Where those with the same last bits begin; one more is the end of the last.
    starts: Box<[u32]>,
    labels: HashMap<Box<str>, Ipv6Addr>,
}

/// A line that says nothing.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct BadLine {
    /// Its number, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub what: String,
}

impl Table {
    /// Arranges VMs; of those that are there twice, the last is taken.
    pub fn new(vms: impl IntoIterator<Item = (VmId, IpAddr)>) -> Self {
        let mut uuids = Vec::new();
        let mut labels = HashMap::new();
        for (id, address) in vms {
            let address = match address {
                IpAddr::V4(v4) => v4.to_ipv6_mapped(),
                IpAddr::V6(v6) => v6,
            };
            match (id.as_uuid(), id.as_label()) {
                (Some(number), _) => uuids.push((number, address)),
                (None, Some(label)) => drop(labels.insert(label.into(), address)),
                (None, None) => {}
            }
        }
        // Stable, so that the last of equals stays the last.
        uuids.sort_by_key(|(number, _)| (place(*number), *number));
        uuids.reverse();
        uuids.dedup_by_key(|(number, _)| *number);
        uuids.reverse();
        let mut starts = vec![0_u32; (1 << BITS) + 1];
        for (number, _) in &uuids {
            if let Some(count) = starts.get_mut(place(*number) + 1) {
                *count += 1;
            }
        }
        let mut sum = 0;
        for start in &mut starts {
            sum += *start;
            *start = sum;
        }
        labels.shrink_to_fit();
        Self { uuids: uuids.into(), starts: starts.into(), labels }
    }

    /// Reads lines of `name,address` or `"name" = "address"`; `#` begins a comment.
    ///
    /// # Errors
    /// Fails with the lines that say something else, ten at most.
    pub fn lines(text: &str, may: impl Fn(IpAddr) -> bool) -> Result<Vec<(VmId, IpAddr)>, Vec<BadLine>> {
        const MOST: usize = 10;
        let (mut vms, mut bad) = (Vec::new(), Vec::new());
        for (index, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            let is_heading = index == 0 && line.ends_with("address");
            if line.is_empty() || is_heading {
                continue;
            }
            match entry(line, &may) {
                Ok(vm) => vms.push(vm),
                Err(what) if bad.len() < MOST => bad.push(BadLine { line: index + 1, what }),
                Err(_) => break,
            }
        }
        if bad.is_empty() { Ok(vms) } else { Err(bad) }
    }

    /// Where a VM is.
    pub fn get(&self, vm: &VmId) -> Option<IpAddr> {
        let found = match vm.as_uuid() {
            Some(number) => {
                let at = place(number);
                let bounds = (*self.starts.get(at)? as usize, *self.starts.get(at + 1)? as usize);
                let some = self.uuids.get(bounds.0..bounds.1)?;
                let found = some.binary_search_by_key(&number, |(number, _)| *number).ok()?;
                some.get(found).map(|(_, address)| *address)
            }
            None => self.labels.get(vm.as_label()?).copied(),
        };
        found.map(|address| IpAddr::V6(address).to_canonical())
    }

    /// How many VMs there are.
    pub fn len(&self) -> usize {
        self.uuids.len() + self.labels.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn place(number: u128) -> usize {
    (number & ((1 << BITS) - 1)) as usize
}

fn entry(line: &str, may: impl Fn(IpAddr) -> bool) -> Result<(VmId, IpAddr), String> {
    let unquoted = |text: &str| text.trim().trim_matches('"').to_owned();
    let (id, address) =
        line.split_once([',', '=']).ok_or("expected `name,address`, or `\"name\" = \"address\"`")?;
    let (id, address) = (unquoted(id), unquoted(address));
    let id = id.parse().map_err(|error| format!("`{id}` is no VM's name: {error}"))?;
    let parsed = address.parse::<IpAddr>().map_err(|_| format!("`{address}` is not an IP address"))?;
    if may(parsed) {
        Ok((id, parsed))
    } else {
        Err(format!("`{address}` is no address that a VM may have: see `networks` and `allow_ipv4`"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> VmId {
        text.parse().expect("a VM's name")
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn every_vm_is_found_and_no_other() {
        // Some share their last bits, and some all but those.
        let uuid = |n: u128| id(&format!("{:08x}-0000-4000-8000-{:012x}", n % 7, n / 3));
        let address = |n: u128| IpAddr::V6(Ipv6Addr::from_bits((0x2001_0db8 << 96) | n));
        let all = 0..200_000;
        let labels = (0..1000_u128).map(|n| (id(&format!("vm-{n}")), address(n)));
        let table = Table::new(all.clone().map(|n| (uuid(n), address(n))).chain(labels));
        let mut last = HashMap::new();
        for n in all {
            last.insert(uuid(n), address(n));
        }
        assert_eq!(table.len(), last.len() + 1000);
        for (id, address) in &last {
            assert_eq!(table.get(id), Some(*address), "{id}");
        }
        assert_eq!(table.get(&id("VM-7")), Some(address(7)));
        for none in
            ["vm-1000", "00000008-0000-4000-8000-000000000001", "00000000-0000-4000-8000-00000fffffff"]
        {
            assert_eq!(table.get(&id(none)), None, "{none}");
        }
        assert_eq!(Table::default().get(&uuid(1)), None);
    }

    #[test]
    fn lines_in_both_forms() {
        let text = "id,address\n\n# a comment\nweb, 2001:db8::1 # this one\n\
                    \"45a68069-defc-4233-9865-6298d87053af\" = \"2001:db8::2\"\r\n";
        let vms = Table::lines(text, |address| address.is_ipv6()).expect("lines");
        let expected =
            [(id("web"), ip("2001:db8::1")), (id("45a68069-defc-4233-9865-6298d87053af"), ip("2001:db8::2"))];
        assert_eq!(vms, expected);
        let text = "web\nweb,\na.b,::1\nweb,192.0.2.1\nweb,::1,x\n";
        let bad = Table::lines(text, |address| address.is_ipv6()).expect_err("no lines");
        assert_eq!(bad.iter().map(|bad| bad.line).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
        assert_eq!(Table::lines(&"x\n".repeat(100), |_| true).expect_err("no lines").len(), 10);
    }

    #[test]
    fn an_ipv4_address_stays_one() {
        let table = Table::new([(id("old"), ip("192.0.2.1"))]);
        assert_eq!(table.get(&id("old")), Some(ip("192.0.2.1")));
    }
}
