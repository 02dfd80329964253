//! A header of the PROXY protocol: one reading, whatever has come of it, and what is written is read
//! again.

use super::shown;
use vers_gateway::proxy_protocol::{Begins, LONGEST, Version, parse, write};

/// Panics where a rule is broken. The bytes are what a connection begins with.
pub(crate) fn check(bytes: &[u8]) {
    let whole = parse(bytes);
    for cut in 0..bytes.len().min(LONGEST + 1) {
        match parse(&bytes[..cut]) {
            // What is decided stays so, whatever follows.
            Ok(Begins::Unfinished) => {}
            decided => assert_eq!(decided, whole, "cut at {cut}: {}", shown(bytes)),
        }
    }
    match whole {
        Ok(Begins::Unfinished) => assert!(bytes.len() < LONGEST, "never finished: {}", shown(bytes)),
        Ok(Begins::Header { length, ends }) => {
            assert!(length <= bytes.len() && length <= LONGEST, "{length} of {}", shown(bytes));
            for version in [Version::V1, Version::V2] {
                let mut text = Vec::new();
                write(version, ends, &mut text);
                let again = parse(&text);
                let Ok(Begins::Header { length, ends: read }) = again else {
                    panic!("{} was written for {ends:?} and is {again:?}", shown(&text));
                };
                assert_eq!(length, text.len());
                let canonical = |end: std::net::SocketAddr| (end.ip().to_canonical(), end.port());
                let pair = |ends: vers_gateway::proxy_protocol::Ends| {
                    (canonical(ends.source), canonical(ends.destination))
                };
                assert_eq!(read.map(pair), ends.map(pair), "{}", shown(&text));
            }
        }
        Ok(Begins::Otherwise) | Err(_) => {}
    }
}
