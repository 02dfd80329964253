//! A background plugin that panics on each run.

use vers_plugin::prelude::*;

#[derive(Deserialize)]
struct BgTrap {}

impl Background for BgTrap {
    fn run(&self, why: Reason) -> Result<Next, String> {
        panic!("panics on each run; this is {why:?}");
    }
}
vers_plugin::export!(BgTrap: background);
