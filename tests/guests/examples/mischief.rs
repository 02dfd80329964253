//! Does what the request header `x-do` says, and all of it is wrong: `trap`, `loop`, `hog`, `slow` (asks
//! `url`, which does not answer), `edits` (headers without end), `names` and `values` that no header may
//! have, `keep` (more than an exchange may hold), `flood` (log lines), `series` (labels without end).

use std::time::Duration;
use vers_plugin::prelude::*;

static WILD: metrics::Counter<1> = metrics::Counter::new("wild", "Labels without end.", ["number"]);

#[derive(Deserialize)]
struct Mischief {
    url: String,
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
                for number in 0..2000 {
                    let _ = req.headers().append(&format!("x-edit-{number}"), vec![b'x'; 1000]);
                }
            }
            Some("names") => {
                for name in
                    ["", "a b", "a\r\nb", "a:", "content-length", "connection", "x-forwarded-for", "ü"]
                {
                    assert!(req.headers().set(name, "1").is_err(), "{name:?} was taken");
                }
            }
            Some("values") => {
                for value in ["a\r\nb: c", "a\0", "\n"] {
                    assert!(req.headers().set("x-value", value).is_err(), "{value:?} was taken");
                }
            }
            Some("keep") => assert!(req.exchange().set("key", vec![0; 64 * 1024]).is_err()),
            Some("flood") => (0..60).for_each(|_| log::warn("flood")),
            Some("series") => {
                for _ in 0..50 {
                    WILD.add(1, [&random::u64().to_string()]);
                }
            }
            _ => {}
        }
        Verdict::Next
    }
}
vers_plugin::export!(Mischief: request_filter);
