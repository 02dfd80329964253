//! Properties of the parsers: what holds whatever comes. The rules themselves are in
//! `tests/fuzz/checks`, where fuzz targets use them too; here they meet messages that are nearly
//! right, and the corpora that fuzzers left behind.
//!
//! `PROPTEST_CASES=100000 cargo test … properties` looks harder.

#[path = "../../fuzz/checks/mod.rs"]
mod checks;

mod bodies; // framing of bodies, both ways
mod corpora; // what is kept in tests/fuzz/corpus
mod fields; // what a proxy removes and adds
mod heads; // requests, answers, hosts
mod messages; // how messages that are nearly right are made
mod routes; // patterns against looking at every route

use proptest::test_runner::Config;

/// Cases of each property; more than usual, because a case takes microseconds.
const CASES: u32 = 1500;

fn config() -> Config {
    // What fails is printed in its smallest form, which belongs into a test of its own.
    let config = Config { failure_persistence: None, ..Config::default() };
    let is_asked = std::env::var_os("PROPTEST_CASES").is_some();
    Config { cases: if is_asked { config.cases } else { CASES }, ..config }
}
