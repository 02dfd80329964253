//! What a proxy says in front of a connection.

#![no_main]

#[path = "../checks/mod.rs"]
#[expect(dead_code, reason = "the checks of the other targets")]
mod checks;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| checks::proxy_header::check(bytes));
