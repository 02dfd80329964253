//! Tries what no plugin may, as the request header `x-try` says, and answers with what came of it: `refused`,
//! or what it got hold of.

use std::net::{TcpStream, ToSocketAddrs as _, UdpSocket};
use vers_plugin::prelude::*;

#[derive(Deserialize)]
struct Escape {}

impl HttpFilter for Escape {
    fn on_request(&self, req: &mut Request) -> Verdict {
        let header = |name: &str| req.header_str(name).unwrap_or_default();
        let what = header("x-what");
        let got: Option<String> = match header("x-try").as_str() {
            "environment" => {
                Some(std::env::vars().map(|(name, _)| name).collect()).filter(|it: &String| !it.is_empty())
            }
            "arguments" => Some(std::env::args().skip(1).collect()).filter(|it: &String| !it.is_empty()),
            "read" => std::fs::read_to_string(&what).ok(),
            "write" => std::fs::write(&what, "x").ok().map(|()| "written".into()),
            "list" => std::fs::read_dir(&what).ok().map(|_| "listed".into()),
            "connect" => TcpStream::connect(&what).ok().map(|_| "connected".into()),
            "listen" => std::net::TcpListener::bind("127.0.0.1:0").ok().map(|_| "bound".into()),
            "udp" => UdpSocket::bind("127.0.0.1:0").ok().map(|_| "bound".into()),
            "resolve" => (what.as_str(), 80).to_socket_addrs().ok().map(|_| "resolved".into()),
            "http" => http::get(&what).send().ok().map(|answer| answer.status().to_string()),
            "secret" => secrets::get(&what),
            "compare" => secrets::matches(&what, b"theirs").then(|| "matches".into()),
            "set" => kv::set("key", b"mine", None).ok().map(|_| "set".into()),
            "get" => kv::get("key").ok().flatten().map(|entry| String::from_utf8_lossy(&entry.value).into()),
            other => panic!("try {other:?}?"),
        };
        Reply::new(200).text(got.as_deref().unwrap_or("refused")).into()
    }
}
vers_plugin::export!(Escape: request_filter);
