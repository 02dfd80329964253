//! What the machine gives for sockets: open files, and ports of outgoing connections.

use super::BindError;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Open files that a gateway needs beside the sockets that it listens on, before it has a connection.
const OTHERS: usize = 512;

/// Below this many sockets, the limit that a process has anyway is enough.
const FEW: usize = 256;

/// Makes sure that so many sockets more may be open.
pub(super) fn make_room(sockets: usize) -> Result<(), BindError> {
    if sockets < FEW {
        return Ok(());
    }
    let limit = getrlimit(Resource::Nofile);
    let needed = (open_files() + sockets + OTHERS) as u64;
    let Some(current) = limit.current.filter(|current| *current < needed) else { return Ok(()) };
    // The administrator may raise it beyond the maximum as well.
    let maximum = limit.maximum.map(|maximum| maximum.max(needed));
    let raised = setrlimit(Resource::Nofile, Rlimit { current: Some(needed), maximum });
    raised.map_err(|_| BindError::Files { sockets, limit: limit.maximum.unwrap_or(current) })
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

/// The first and the last port that the kernel takes for outgoing connections; none where that cannot
/// be told.
pub(super) fn own_ports() -> Option<(u16, u16)> {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
    let mut words = text.split_whitespace().map(str::parse);
    let (from, to) = (words.next()?.ok()?, words.next()?.ok()?);
    (from <= to).then_some((from, to))
}
