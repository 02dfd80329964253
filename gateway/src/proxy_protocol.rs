//! The PROXY protocol, versions 1 and 2: what a proxy says of a connection before its first byte. Pure.
//!
//! As <https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt> has it, and nothing that it leaves
//! open is guessed: a header has one reading, or the connection ends.

use std::{
    io::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

/// Longest header that is read: version 2 with its additional values. Version 1 has 107 bytes at most.
pub const LONGEST: usize = 16 + 2048;

/// §2.1: the longest line of version 1, with its end.
const LONGEST_LINE: usize = 107;
const LINE_START: &[u8] = b"PROXY ";
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// The two ends of the connection that a proxy has from its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    /// Where the client connected from.
    pub source: SocketAddr,
    /// Where it connected to.
    pub destination: SocketAddr,
}

/// A version of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// What a connection begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begins {
    /// With something else.
    Otherwise,
    /// With what may become a header.
    Unfinished,
    /// With a header.
    Header {
        /// How many bytes it has.
        length: usize,
        /// Whose connection it is; none where it is the proxy's own (`LOCAL`), or unknown.
        ends: Option<Ends>,
    },
}

/// What begins like a header and is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadHeader {
    /// Version 1, with no end where it must have one.
    #[error("the line of a PROXY header is too long")]
    TooLong,
    /// Version 1, and not `PROXY TCP4 … … … …`.
    #[error("the line of a PROXY header is malformed")]
    Line,
    /// Version 2 with another version or command.
    #[error("a PROXY header of an unknown version or command")]
    Command,
    /// Version 2 for what is no connection.
    #[error("a PROXY header for an unknown protocol")]
    Family,
    /// Version 2 with a length that cannot be, or that nobody needs.
    #[error("a PROXY header of {0} bytes")]
    Length(usize),
    /// Version 2 with values that do not fill it.
    #[error("the additional values of a PROXY header are malformed")]
    Values,
}

/// Reads the header at the front of what a connection has sent so far.
///
/// # Errors
/// Fails where it begins like one, and can become none.
pub fn parse(bytes: &[u8]) -> Result<Begins, BadHeader> {
    if begins_like(bytes, SIGNATURE) {
        return parse_binary(bytes);
    }
    if begins_like(bytes, LINE_START) { parse_line(bytes) } else { Ok(Begins::Otherwise) }
}

/// Whether the bytes begin so, or may.
fn begins_like(bytes: &[u8], start: &[u8]) -> bool {
    bytes.iter().zip(start).all(|(byte, expected)| byte == expected)
}

/// §2.1
fn parse_line(bytes: &[u8]) -> Result<Begins, BadHeader> {
    let head = bytes.get(..LONGEST_LINE).unwrap_or(bytes);
    let Some(end) = memchr::memchr(b'\n', head) else {
        return if bytes.len() < LONGEST_LINE { Ok(Begins::Unfinished) } else { Err(BadHeader::TooLong) };
    };
    let line = head.get(..end).and_then(|line| line.strip_suffix(b"\r")).ok_or(BadHeader::Line)?;
    let line = std::str::from_utf8(line).map_err(|_| BadHeader::Line)?;
    let mut words = line.split(' ').skip(1);
    let family = words.next().ok_or(BadHeader::Line)?;
    let ends = match family {
        // Whatever follows is of no account.
        "UNKNOWN" => None,
        "TCP4" => Some(line_ends(words, |text| text.parse::<Ipv4Addr>().ok().map(IpAddr::V4))?),
        "TCP6" => Some(line_ends(words, |text| text.parse::<Ipv6Addr>().ok().map(IpAddr::V6))?),
        _ => return Err(BadHeader::Line),
    };
    Ok(Begins::Header { length: end + 1, ends })
}

fn line_ends<'a>(
    mut words: impl Iterator<Item = &'a str>,
    address: impl Fn(&str) -> Option<IpAddr>,
) -> Result<Ends, BadHeader> {
    let mut ip = || words.next().and_then(&address);
    let (source, destination) = ip().zip(ip()).ok_or(BadHeader::Line)?;
    let mut port = || words.next().and_then(port);
    let (from, to) = port().zip(port()).ok_or(BadHeader::Line)?;
    if words.next().is_some() {
        return Err(BadHeader::Line);
    }
    Ok(Ends { source: (source, from).into(), destination: (destination, to).into() })
}

/// Decimal, without anything in front.
fn port(text: &str) -> Option<u16> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    is_plain.then(|| text.parse().ok()).flatten()
}

/// §2.2
fn parse_binary(bytes: &[u8]) -> Result<Begins, BadHeader> {
    let Some((fixed, rest)) = bytes.split_first_chunk::<16>() else { return Ok(Begins::Unfinished) };
    let [.., command, family, high, low] = *fixed;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if 16 + length > LONGEST {
        return Err(BadHeader::Length(16 + length));
    }
    let is_local = match command {
        0x20 => true,
        0x21 => false,
        _ => return Err(BadHeader::Command),
    };
    let Some(block) = rest.get(..length) else { return Ok(Begins::Unfinished) };
    let (ends, values) = match family {
        // Whoever sends it does not say: what follows is of no account, and so it is for LOCAL.
        0x00 => (None, None),
        0x11 => {
            let (ends, values) = addresses::<4>(block).ok_or(BadHeader::Length(16 + length))?;
            (Some(ends), Some(values))
        }
        0x21 => {
            let (ends, values) = addresses::<16>(block).ok_or(BadHeader::Length(16 + length))?;
            (Some(ends), Some(values))
        }
        // Paths of sockets: a connection, of nobody with an address.
        0x31 => (None, Some(block.get(2 * 108..).ok_or(BadHeader::Length(16 + length))?)),
        _ if is_local => (None, None),
        _ => return Err(BadHeader::Family),
    };
    if !are_values(values.unwrap_or_default()) {
        return Err(BadHeader::Values);
    }
    Ok(Begins::Header { length: 16 + length, ends: ends.filter(|_| !is_local) })
}

/// Two addresses of `N` bytes, two ports, and what follows.
fn addresses<const N: usize>(block: &[u8]) -> Option<(Ends, &[u8])>
where
    IpAddr: From<[u8; N]>,
{
    let (source, rest) = block.split_first_chunk::<N>()?;
    let (destination, rest) = rest.split_first_chunk::<N>()?;
    let (from, rest) = rest.split_first_chunk::<2>()?;
    let (to, rest) = rest.split_first_chunk::<2>()?;
    let end = |ip: &[u8; N], port: &[u8; 2]| SocketAddr::new(IpAddr::from(*ip), u16::from_be_bytes(*port));
    Some((Ends { source: end(source, from), destination: end(destination, to) }, rest))
}

/// §2.2.1: type, length, value; none of them matters here, and all of them end where the header does.
fn are_values(mut bytes: &[u8]) -> bool {
    while let Some((head, rest)) = bytes.split_first_chunk::<3>() {
        let [_, high, low] = *head;
        let Some(left) = rest.get(usize::from(u16::from_be_bytes([high, low]))..) else { return false };
        bytes = left;
    }
    bytes.is_empty()
}

/// Writes a header; without `ends` it is for a connection of the gateway's own.
pub fn write(version: Version, ends: Option<Ends>, out: &mut Vec<u8>) {
    let pair = ends.map(|Ends { source, destination }| one_family(source, destination));
    match version {
        // Writing to memory cannot fail.
        Version::V1 => drop(match pair {
            None => write!(out, "PROXY UNKNOWN\r\n"),
            Some((source, destination)) => {
                let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
                let (from, to) = (source.port(), destination.port());
                write!(out, "PROXY {family} {} {} {from} {to}\r\n", source.ip(), destination.ip())
            }
        }),
        Version::V2 => {
            out.extend_from_slice(SIGNATURE);
            match pair {
                None => out.extend_from_slice(&[0x20, 0x00, 0, 0]),
                Some((source, destination)) => {
                    let is_v4 = source.is_ipv4();
                    out.extend_from_slice(if is_v4 { &[0x21, 0x11, 0, 12] } else { &[0x21, 0x21, 0, 36] });
                    for end in [source, destination] {
                        match end.ip() {
                            IpAddr::V4(ip) => out.extend_from_slice(&ip.octets()),
                            IpAddr::V6(ip) => out.extend_from_slice(&ip.octets()),
                        }
                    }
                    out.extend_from_slice(&source.port().to_be_bytes());
                    out.extend_from_slice(&destination.port().to_be_bytes());
                }
            }
        }
    }
}

/// Both as IPv4 where both are, else both as IPv6: a header has one family.
fn one_family(source: SocketAddr, destination: SocketAddr) -> (SocketAddr, SocketAddr) {
    let plain = |end: SocketAddr| SocketAddr::new(end.ip().to_canonical(), end.port());
    let (source, destination) = (plain(source), plain(destination));
    let wide = |end: SocketAddr| match end.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), end.port()),
        IpAddr::V6(_) => end,
    };
    if source.is_ipv4() == destination.is_ipv4() {
        (source, destination)
    } else {
        (wide(source), wide(destination))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(source: &str, destination: &str) -> Ends {
        let parse = |text: &str| text.parse().expect("an address");
        Ends { source: parse(source), destination: parse(destination) }
    }

    fn binary(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
        let length = u16::try_from(block.len()).expect("a short block").to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, block].concat()
    }

    #[test]
    fn what_is_written_is_read_again_and_nothing_behind_it() {
        for (source, destination) in [
            ("192.0.2.1:40000", "198.51.100.7:443"),
            ("[2001:db8::1]:1", "[2001:db8::2]:65535"),
            ("255.255.255.255:65535", "255.255.255.255:0"),
        ] {
            for version in [Version::V1, Version::V2] {
                let ends = ends(source, destination);
                let mut bytes = Vec::new();
                write(version, Some(ends), &mut bytes);
                let length = bytes.len();
                assert!(length <= LONGEST_LINE);
                for cut in 0..length {
                    assert_eq!(parse(&bytes[..cut]), Ok(Begins::Unfinished), "{version:?} cut at {cut}");
                }
                bytes.extend_from_slice(b"PROXY GET / HTTP/1.1\r\n");
                assert_eq!(parse(&bytes), Ok(Begins::Header { length, ends: Some(ends) }));
            }
        }
        for version in [Version::V1, Version::V2] {
            let mut bytes = Vec::new();
            write(version, None, &mut bytes);
            assert_eq!(parse(&bytes), Ok(Begins::Header { length: bytes.len(), ends: None }));
        }
    }

    #[test]
    fn a_header_has_one_family() {
        let mut bytes = Vec::new();
        write(Version::V1, Some(ends("[::ffff:192.0.2.1]:1", "[::ffff:192.0.2.2]:2")), &mut bytes);
        assert_eq!(bytes, b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n");
        bytes.clear();
        write(Version::V1, Some(ends("192.0.2.1:1", "[2001:db8::1]:2")), &mut bytes);
        assert_eq!(bytes, b"PROXY TCP6 ::ffff:192.0.2.1 2001:db8::1 1 2\r\n");
    }

    #[test]
    fn lines() {
        let header = |text: &str, ends| Ok(Begins::Header { length: text.len(), ends });
        for (text, expected) in [
            ("PROXY UNKNOWN\r\n", None),
            ("PROXY UNKNOWN ffff:f::1 ::1 65535 65535\r\n", None),
            ("PROXY UNKNOWN \0 anything\r\n", None),
            ("PROXY TCP6 ::1 ::2 0 1\r\n", Some(ends("[::1]:0", "[::2]:1"))),
        ] {
            assert_eq!(parse(text.as_bytes()), header(text, expected), "{text:?}");
        }
        for text in [
            "PROXY \r\n",
            "PROXY\x20\x20TCP4 1.2.3.4 1.2.3.4 1 2\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 1 2 \r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 +1 2\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n",
            "PROXY TCP4 1.2.3.04 1.2.3.4 1 2\r\n",
            "PROXY TCP4 ::1 ::1 1 2\r\n",
            "PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n",
            "PROXY tcp4 1.2.3.4 1.2.3.4 1 2\r\n",
            "PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n",
        ] {
            assert_eq!(parse(text.as_bytes()), Err(BadHeader::Line), "{text:?}");
        }
        let long = format!("PROXY UNKNOWN {}", "x".repeat(LONGEST_LINE));
        assert_eq!(parse(long.as_bytes()), Err(BadHeader::TooLong));
        assert_eq!(parse(&long.as_bytes()[..LONGEST_LINE - 1]), Ok(Begins::Unfinished));
        for text in ["GET / HTTP/1.1", "proxy ", "PROXY\t", "PRI * HTTP/2.0\r\n", "\r\n\r\n\r"] {
            assert_eq!(parse(text.as_bytes()), Ok(Begins::Otherwise), "{text:?}");
        }
    }

    #[test]
    fn binary_headers() {
        let v4 = [192, 0, 2, 1, 198, 51, 100, 7, 0, 80, 1, 187];
        let of = ends("192.0.2.1:80", "198.51.100.7:443");
        let with = |values: &[u8]| binary(0x21, 0x11, &[&v4[..], values].concat());
        let good = |bytes: Vec<u8>, ends| {
            assert_eq!(parse(&bytes), Ok(Begins::Header { length: bytes.len(), ends }), "{bytes:?}");
        };
        good(with(&[]), Some(of));
        good(with(&[0x04, 0, 0]), Some(of));
        good(with(&[0x01, 0, 2, b'h', b'2', 0xe0, 0, 1, 9]), Some(of));
        good(binary(0x20, 0x11, &v4), None);
        good(binary(0x20, 0x00, b"anything"), None);
        good(binary(0x21, 0x00, b""), None);
        good(binary(0x21, 0x31, &[7; 216]), None);
        let bad = |bytes: Vec<u8>, error| assert_eq!(parse(&bytes), Err(error), "{bytes:?}");
        bad(binary(0x11, 0x11, &v4), BadHeader::Command);
        bad(binary(0x22, 0x11, &v4), BadHeader::Command);
        bad(binary(0x21, 0x12, &v4), BadHeader::Family);
        bad(binary(0x21, 0x41, &v4), BadHeader::Family);
        bad(binary(0x21, 0x11, &v4[..11]), BadHeader::Length(27));
        bad(binary(0x21, 0x21, &v4), BadHeader::Length(28));
        bad(with(&[0x01, 0]), BadHeader::Values);
        bad(with(&[0x01, 0, 2, b'h']), BadHeader::Values);
        bad(binary(0x21, 0x00, &[0; LONGEST])[..16].to_vec(), BadHeader::Length(16 + LONGEST));
    }
}
