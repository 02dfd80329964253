//! Never comes back from a request with the header `x-spin`.

use vers_plugin::prelude::*;

#[derive(Deserialize)]
struct Spin {}

impl HttpFilter for Spin {
    fn on_request(&self, req: &mut Request) -> Verdict {
        if req.headers().contains("x-spin") {
            // Not one more call to the host, where the clock stops.
            loop {
                std::hint::black_box(());
            }
        }
        Verdict::Next
    }
}
vers_plugin::export!(Spin: request_filter);
