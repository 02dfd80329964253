//! Which host a request is for: exactly one, and the one that another reader sees.

use super::{head_of, shown};
use http::uri;
use vers_gateway::headers::authority;

/// Panics where a rule is broken. The first line is a target, the others are header lines.
pub(crate) fn check(bytes: &[u8]) {
    let Some(head) = head_of(bytes) else { return };
    let Ok(found) = authority(&head) else { return };
    let hosts: Vec<&[u8]> = head.fields.all_named(b"host").collect();
    let [host] = hosts.as_slice() else { panic!("{} hosts: {}", hosts.len(), shown(bytes)) };
    assert_eq!(found.full.as_bytes(), *host);
    if let Some(target) = head.authority() {
        assert!(target.eq_ignore_ascii_case(host), "two hosts: {}", shown(bytes));
    }
    let theirs: uri::Authority = match found.full.strip_suffix(':').unwrap_or(found.full).parse() {
        Ok(theirs) => theirs,
        Err(error) => panic!("`http` does not take {:?}: {error}", found.full),
    };
    let plain = theirs.host().to_ascii_lowercase();
    assert_eq!(*found.host, *plain.strip_suffix('.').unwrap_or(&plain));
    assert!(!found.host.is_empty() && !found.full.contains('@'), "{}", shown(bytes));
    if theirs.as_str().len() > theirs.host().len() {
        assert!(theirs.port_u16().is_some(), "no port that it could be: {}", shown(bytes));
    }
}
