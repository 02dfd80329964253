//! What a proxy removes from heads and adds to them, whatever is in them.

use super::{
    checks::{self, forwarding, hop_by_hop},
    config,
    messages::{fields, name},
};
use proptest::{collection::vec, prelude::*};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use vers_gateway::message::{Fields, is_token};

proptest! {
    #![proptest_config(config())]

    #[test]
    fn nothing_of_the_connection_is_left_and_nothing_else_goes(sent in fields(9)) {
        hop_by_hop::of(&sent.fields());
    }

    #[test]
    fn whatever_a_client_nominates(
        sent in fields(9),
        nominated in vec(name(), 1..5),
        is_before in any::<bool>(),
    ) {
        let nominated: Vec<Vec<u8>> = nominated.into_iter().filter(|name| is_token(name)).collect();
        let mut all = Fields::new();
        if is_before {
            all.append(b"Connection", &nominated.join(&b" ,\t"[..]));
        }
        sent.0.iter().for_each(|(name, value)| all.append(name, value));
        if !is_before {
            all.append(b"CONNECTION", &nominated.join(&b","[..]));
        }
        hop_by_hop::of(&all);
    }

    #[test]
    fn who_the_client_is_comes_from_the_socket(
        peer in stranger(),
        host in "[a-z0-9.:\\[\\]\"\\\\]{0,20}",
        sent in fields(9),
    ) {
        forwarding::from(peer, host.as_bytes(), &sent.fields());
    }

    #[test]
    fn what_a_proxy_says_is_continued(peer in proxy(), host in "[a-z0-9.:]{0,20}", sent in fields(9)) {
        forwarding::from(peer, host.as_bytes(), &sent.fields());
    }

    #[test]
    fn a_chain_through_proxies_leads_to_the_first_stranger(
        peer in proxy(),
        chain in vec(prop_oneof![stranger(), proxy()], 1..6),
        is_forwarded in any::<bool>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut fields = Fields::new();
        let (before, after) = chain.split_at(cut.index(chain.len() + 1));
        for part in [before, after].into_iter().filter(|part| !part.is_empty()) {
            let nodes = part.iter().map(|ip| match ip {
                IpAddr::V6(ip) if is_forwarded => format!("for=\"[{ip}]:4711\""),
                IpAddr::V4(ip) if is_forwarded => format!("for={ip}"),
                ip => ip.to_string(),
            });
            let name: &[u8] = if is_forwarded { b"Forwarded" } else { b"X-Forwarded-For" };
            fields.append(name, nodes.collect::<Vec<_>>().join(", ").as_bytes());
        }
        forwarding::from(peer, b"a", &fields);
        let proxies: Vec<ipnet::IpNet> =
            forwarding::PROXIES.iter().map(|network| network.parse().expect("a network")).collect();
        let is_proxy = |ip: &IpAddr| proxies.iter().any(|network| network.contains(&ip.to_canonical()));
        let client = vers_gateway::headers::Forwarding::new(peer.into(), "http", 80, &proxies)
            .apply(&mut fields, b"a", &proxies);
        let expected = chain.iter().rev().find(|ip| !is_proxy(ip)).unwrap_or(&chain[0]);
        prop_assert_eq!(client.ip(), expected.to_canonical());
    }

    #[test]
    fn a_cookie_is_found_by_its_whole_name(
        lines in vec("(Cookie|cookie|COOKIE|X): ?((x|X)?(id|ID|i|)=?[a=]{0,2}(;| ; ?|,)){0,4}", 0..3),
    ) {
        checks::cookie::check(lines.join("\n").as_bytes());
    }

    #[test]
    fn handshakes_have_one_key_and_one_answer(lines in vec(handshake_line(), 0..4)) {
        checks::handshake::check(lines.join("\n").as_bytes());
    }
}

/// Not in one of the networks, in any of the ways that a socket writes an address.
fn stranger() -> impl Strategy<Value = IpAddr> {
    let v4 = any::<[u8; 4]>().prop_map(|octets| Ipv4Addr::from([192, octets[1], octets[2], octets[3]]));
    let v6 = any::<u64>().prop_map(|low| Ipv6Addr::from(0x2001_0db8 << 96 | u128::from(low)));
    prop_oneof![
        v4.clone().prop_map(IpAddr::from),
        v4.prop_map(|ip| ip.to_ipv6_mapped().into()),
        v6.prop_map(IpAddr::from)
    ]
}

fn proxy() -> impl Strategy<Value = IpAddr> {
    let v4 = any::<[u8; 4]>().prop_map(|octets| Ipv4Addr::from([10, octets[1], octets[2], octets[3]]));
    let v6 = any::<u64>().prop_map(|low| Ipv6Addr::from(0xfd00 << 112 | u128::from(low)));
    prop_oneof![
        v4.clone().prop_map(IpAddr::from),
        v4.prop_map(|ip| ip.to_ipv6_mapped().into()),
        v6.prop_map(IpAddr::from)
    ]
}

fn handshake_line() -> impl Strategy<Value = String> {
    const LINES: [&str; 11] = [
        "Sec-WebSocket-Version: 13",
        "sec-websocket-version: 13, 8",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "SEC-WEBSOCKET-KEY: AQIDBAUGBwgJCgsMDQ4PEA==",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZR==",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ",
        "Sec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ4P",
        "Sec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ4PEBE=",
        "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
        "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOp=",
        "Upgrade: websocket",
    ];
    prop::sample::select(&LINES[..]).prop_map(str::to_owned)
}
