//! Allocates for ever on a request with the header `x-hog`; with a number in it, so many MiB.

use vers_plugin::prelude::*;

#[derive(Deserialize)]
struct HogMemory {}

impl HttpFilter for HogMemory {
    fn on_request(&self, req: &mut Request) -> Verdict {
        if let Some(mebibytes) = req.header_str("x-hog") {
            let limit = mebibytes.parse().unwrap_or(usize::MAX);
            let mut hoard = Vec::new();
            while hoard.len() < limit {
                hoard.push(std::hint::black_box(vec![1u8; 1024 * 1024]));
            }
        }
        Verdict::Next
    }
}
vers_plugin::export!(HogMemory: request_filter);
