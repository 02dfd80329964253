//! Tells `url` when its background work begins and when it ends, and waits for the answers.

use std::time::Duration;
use vers_plugin::prelude::*;

#[derive(Deserialize)]
struct BgTell {
    url: String,
}

impl Background for BgTell {
    fn run(&self, _why: Reason) -> Result<Next, String> {
        self.tell("begins");
        Ok(Next::never())
    }

    fn stop(&self) {
        self.tell("ends");
    }
}
vers_plugin::export!(BgTell: background);

impl BgTell {
    fn tell(&self, what: &str) {
        let told = http::get(&format!("{}/{what}", self.url)).timeout(Duration::from_secs(600)).send();
        if let Err(error) = told {
            log::warn(format!("not told: {error}"));
        }
    }
}
