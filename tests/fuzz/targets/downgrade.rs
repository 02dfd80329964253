//! Heads of HTTP/2 as those of HTTP/1.

#![no_main]

#[path = "../checks/mod.rs"]
#[expect(dead_code, reason = "the checks of the other targets")]
mod checks;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| checks::downgrade::check(bytes));
