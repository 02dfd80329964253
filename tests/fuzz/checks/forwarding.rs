//! Who the client is: what a stranger says counts for nothing, what a trusted proxy says is kept and
//! continued.

use super::{Lines, consistent, folded, lines, request::fields_of, shown};
use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use vers_gateway::{headers::Forwarding, ids::ClientAddr, message::Fields};

/// The proxies that are trusted in these checks.
pub(crate) const PROXIES: [&str; 2] = ["10.0.0.0/8", "fd00::/8"];

/// Panics where a rule is broken. The first byte chooses where the connection comes from, the second
/// how long the host is; the host follows, and the rest are header lines.
pub(crate) fn check(bytes: &[u8]) {
    let [peer, length, rest @ ..] = bytes else { return };
    let peer = match peer % 6 {
        0 => IpAddr::from(Ipv4Addr::new(192, 0, 2, *peer)),
        1 => Ipv4Addr::new(192, 0, 2, *peer).to_ipv6_mapped().into(),
        2 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, (*peer).into()).into(),
        3 => Ipv4Addr::new(10, 0, 0, *peer).into(),
        4 => Ipv4Addr::new(10, 0, 0, *peer).to_ipv6_mapped().into(),
        _ => Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, (*peer).into()).into(),
    };
    let (host, fields) = rest.split_at(rest.len().min(usize::from(length % 32)));
    if let Some(sent) = fields_of(fields) {
        from(peer, host, &sent);
    }
}

/// Panics where what is said of this connection is not what it is.
pub(crate) fn from(peer: IpAddr, host: &[u8], sent: &Fields) {
    let proxies: Vec<IpNet> = PROXIES.iter().map(|network| network.parse().expect("a network")).collect();
    let is_trusted = |ip: IpAddr| proxies.iter().any(|network| network.contains(&ip.to_canonical()));
    let forwarding = Forwarding::new(peer.into(), "http", 8080, &proxies);
    let mut fields = sent.clone();
    // What a connection remembers of one request must not reach the next.
    forwarding.apply(&mut Fields::from_iter([("x-real-ip", "6.6.6.6")]), b"another.example", &proxies);
    let client = forwarding.apply(&mut fields, host, &proxies);
    consistent(&fields);
    let (sent, got) = (lines(sent), lines(&fields));
    assert_eq!(others(&got), others(&sent), "other fields were touched");
    if is_trusted(peer) {
        after_a_proxy(peer, host, &sent, &got, client, is_trusted);
    } else {
        assert_eq!(client, peer.into());
        let expected = [
            ("x-forwarded-for", peer.to_canonical().to_string().into_bytes()),
            ("x-forwarded-proto", b"http".to_vec()),
            ("x-forwarded-host", host.to_vec()),
            ("x-forwarded-port", b"8080".to_vec()),
            ("forwarded", element(peer, host)),
        ];
        let expected: Lines = expected.map(|(name, value)| (name.as_bytes().to_vec(), value)).to_vec();
        assert_eq!(about_the_client(&got), expected, "a stranger's words were kept: {sent:?}");
    }
}

fn after_a_proxy(
    peer: IpAddr,
    host: &[u8],
    sent: &Lines,
    got: &Lines,
    client: ClientAddr,
    is_trusted: impl Fn(IpAddr) -> bool,
) {
    let said = |of: &Lines, name: &str| -> Vec<Vec<u8>> {
        let named = of.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name.as_bytes()));
        named.map(|(_, value)| value.clone()).collect()
    };
    let peer_text = peer.to_canonical().to_string().into_bytes();
    let mut chain = said(sent, "x-forwarded-for");
    chain.push(peer_text);
    assert_eq!(said(got, "x-forwarded-for"), [chain.join(&b", "[..])]);
    let mut elements = said(sent, "forwarded");
    elements.push(element(peer, host));
    let told = said(got, "forwarded");
    // What disagrees with the other family is not the proxies'.
    let allowed = [elements.join(&b", "[..]), element(peer, host)];
    assert!(told.len() == 1 && allowed.contains(&told[0]), "{told:?} of {elements:?}");
    for name in ["x-forwarded-proto", "x-forwarded-host", "x-forwarded-port"] {
        let (before, after) = (said(sent, name), said(got, name));
        assert!(if before.is_empty() { after.len() == 1 } else { after == before }, "{name}: {after:?}");
    }
    for (name, _) in about_the_client(got) {
        assert!(!name.contains(&b'_') && !name.eq_ignore_ascii_case(b"x-real-ip"), "{}", shown(&name));
    }
    // Somebody else than the proxy, if the proxy says so; and never what a stranger said to it.
    // With X-Forwarded-For, that is what counts. A line that is no text says nothing at all.
    let (lines, is_forwarded) = if chain.len() > 1 { (chain, false) } else { (elements, true) };
    let lines = &lines[..lines.len() - 1];
    let told: Vec<Option<IpAddr>> = lines
        .iter()
        .map(|line| std::str::from_utf8(line).unwrap_or("?"))
        .flat_map(|line| if is_forwarded { unquoted(line, b',') } else { line.split(',').collect() })
        .map(|element| if is_forwarded { node(of_element(element)?) } else { node(element.trim()) })
        .collect();
    let addresses = told.iter().rev().map_while(|address| *address);
    let stranger = addresses.clone().find(|address| !is_trusted(*address));
    let expected = stranger.or(addresses.last()).unwrap_or(peer);
    assert_eq!(client, expected.into(), "of {:?}", lines.iter().map(|line| shown(line)).collect::<Vec<_>>());
}

/// An address in the usual forms.
fn node(text: &str) -> Option<IpAddr> {
    let text = text.trim_matches('"');
    let bare = match text.strip_prefix('[') {
        Some(v6) => v6.find(']').map(|end| &v6[..end])?,
        None if text.matches(':').count() == 1 => &text[..text.find(':')?],
        None => text,
    };
    bare.parse().ok()
}

fn of_element(element: &str) -> Option<&str> {
    let pairs = unquoted(element, b';').into_iter();
    let (_, value) = pairs
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(key, _)| key.eq_ignore_ascii_case("for"))?;
    Some(value)
}

/// The parts between separators that stand in no quoted string.
fn unquoted(text: &str, separator: u8) -> Vec<&str> {
    let (mut parts, mut start, mut at) = (Vec::new(), 0, 0);
    let bytes = text.as_bytes();
    let mut is_open = false;
    while at < bytes.len() {
        match bytes[at] {
            // The next byte is no quote, or the first one of a character: both are no end.
            b'\\' if is_open => at += 1,
            b'"' => is_open = !is_open,
            byte if byte == separator && !is_open => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
        at += 1;
    }
    parts.push(&text[start..]);
    parts
}

/// RFC 7239 §4.
fn element(peer: IpAddr, host: &[u8]) -> Vec<u8> {
    let node = match peer.to_canonical() {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("\"[{ip}]\""),
    };
    let host = std::str::from_utf8(host).ok().filter(|host| !host.contains(['"', '\\']));
    let host = host.map(|host| format!(";host=\"{host}\"")).unwrap_or_default();
    format!("for={node}{host};proto=http").into_bytes()
}

/// Fields that some backend takes for a statement about the client.
fn is_about_the_client(name: &[u8]) -> bool {
    let name = folded(name);
    name == b"forwarded" || name == b"x-real-ip" || name.starts_with(b"x-forwarded")
}

fn about_the_client(lines: &Lines) -> Lines {
    lines.iter().filter(|(name, _)| is_about_the_client(name)).cloned().collect()
}

fn others(lines: &Lines) -> Lines {
    lines.iter().filter(|(name, _)| !is_about_the_client(name)).cloned().collect()
}
