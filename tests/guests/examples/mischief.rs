//! Does what the request header `x-do` says, and all of it is wrong: `trap`, `loop`, `hog`, `slow` (asks
//! `url`, which does not answer), `edits` (headers without end), `removes` (more names at once than any head has), `compares` (long names, many with many),
//! `answer` (headers without end, in an answer of its own), `bulk` (an answer larger than it may hand over), `random`
//! (megabytes at once), `names` and values that no header may have, `keep` (more than an exchange may hold), `pairs`
//! (many values that are nothing but keys), `flood` (log lines), `series` (labels without end), `again` (asks
//! `mirror`, which asks for the same of the same gateway, once more in that call, and then no more), `reserve` (waits for what it has itself).

use serde::de::value::{Error, SeqDeserializer};
use std::{ops::Range, time::Duration};
use vers_plugin::{edits::HeaderNames, prelude::*};

#[allow(unsafe_code, missing_docs, reason = "generated")]
mod wasi {
    wit_bindgen::generate!({
        generate_all,
        inline: "
            package guests:random;

            world asks {
                import wasi:random/random@0.2.0;
            }

            package wasi:random@0.2.0 {
                interface random {
                    get-random-bytes: func(len: u64) -> list<u8>;
                    get-random-u64: func() -> u64;
                }
            }
        ",
    });
}

static WILD: metrics::Counter<1> = metrics::Counter::new("wild", "Labels without end.", ["number"]);

#[derive(Deserialize)]
struct Mischief {
    url: String,
    mirror: String,
}

impl HttpFilter for Mischief {
    fn on_request(&self, req: &mut Request) -> Verdict {
        match req.header_str("x-do").as_deref() {
            Some("trap") => panic!("asked to"),
            Some("loop") => while std::hint::black_box(true) {},
            Some("hog") => {
                let mut hoard = Vec::new();
                loop {
                    hoard.push(std::hint::black_box(vec![1_u8; 1 << 20]));
                }
            }
            Some("slow") => drop(http::get(&self.url).timeout(Duration::from_secs(600)).send()),
            Some("edits") => {
                for number in 0..1300 {
                    let _ = req.headers().append(&format!("x-edit-{number}"), vec![b'x'; 100]);
                }
            }
            Some("removes") => remove(req, |_| String::from("a"), 0..100_000),
            Some("compares") => remove(req, |number| format!("{}{number:04}", "x".repeat(1000)), 2000..3200),
            Some("answer") => {
                let reply =
                    (0..28_000).fold(Reply::new(200), |reply, it| reply.header(&format!("x-{it}"), "1"));
                return reply.into();
            }
            Some("bulk") => return Reply::new(200).body(vec![b'x'; 6 << 20]).into(),
            Some("random") => {
                let bytes = wasi::wasi::random::random::get_random_bytes(2 << 20);
                assert!(bytes.len() < 2 << 20, "so many at once");
            }
            Some("names") => {
                for name in
                    ["", "a b", "a\r\nb", "a:", "content-length", "connection", "x-forwarded-for", "ü"]
                {
                    assert!(req.headers().set(name, "1").is_err(), "{name:?} was taken");
                }
                for value in ["a\r\nb: c", "a\0", "\n"] {
                    assert!(req.headers().set("x-value", value).is_err(), "{value:?} was taken");
                }
            }
            Some("pairs") => {
                let kept = (0..500).filter(|it| req.exchange().set(&format!("{it:x}"), "").is_ok()).count();
                assert!(kept < 300, "{kept} values in 16 KiB");
            }
            Some("keep") => assert!(req.exchange().set("key", vec![0; 64 * 1024]).is_err()),
            Some("flood") => (0..60).for_each(|_| log::warn("flood")),
            Some("series") => {
                for _ in 0..50 {
                    WILD.add(1, [&random::u64().to_string()]);
                }
            }
            Some("again") => again(req, &self.mirror),
            Some("reserve") => reserve(),
            _ => {}
        }
        Verdict::Next
    }
}
vers_plugin::export!(Mischief: request_filter);

/// Has as many headers as there may be, and removes others at once.
fn remove(req: &Request, name: impl Fn(usize) -> String, numbers: Range<usize>) {
    for number in 0..1200 {
        let _ = req.headers().append(&name(number), "1");
    }
    let names = HeaderNames::deserialize(SeqDeserializer::<_, Error>::new(numbers.map(name)));
    names.expect("names").remove_from(req);
}

fn again(req: &Request, mirror: &str) {
    let depth: u32 = req.header_str("x-depth").and_then(|depth| depth.parse().ok()).unwrap_or(0);
    if depth < 2 {
        let _ = http::get(mirror).header("x-depth", (depth + 1).to_string()).send();
    }
}

fn reserve() {
    let key = random::u64().to_string();
    for _ in 0..2 {
        // The second time it has to wait until its own time is over.
        let found = kv::get_or_reserve(&key, Duration::from_millis(20));
        assert!(matches!(found, Ok(kv::Lookup::Reserved(_))), "{found:?}");
    }
    kv::remove(&key).expect("a store");
}
