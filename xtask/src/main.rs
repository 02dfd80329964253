//! What a developer types: `cargo xtask wasm | plugins | test | demo | soak | instructions`.

mod build;
mod demo;
mod instructions;
mod tree;

use std::{env, process::ExitCode};

/// What went wrong, for the person at the terminal.
pub(crate) type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

const USAGE: &str = "\
cargo xtask wasm                make this Rust toolchain able to build plugins (wasm32-wasip2)
cargo xtask plugins [--guests]  build the first-party plugins; with --guests those of the tests too
cargo xtask test [ARGUMENT...]  build all of them and run all tests; arguments go to `cargo test`
cargo xtask demo [--smoke]      build and start the gateway with plugins in front of an application;
                                with --smoke check that all of it works, and stop
cargo xtask soak [--minutes N]  mixed traffic against the gateway for 20 minutes, or N: no wrong answer, flat
                                memory, nothing left; the release build, where there is one
cargo xtask instructions [--accept]
                                count the instructions of a request with valgrind, and fail where they are more
                                than bench/instructions.toml allows; with --accept write them there";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments.as_slice() {
        ["wasm"] => build::wasm(),
        ["plugins"] => build::plugins(),
        ["plugins", "--guests"] => build::plugins_and_guests(),
        ["test", rest @ ..] => build::test(rest),
        ["instructions"] => instructions::run(instructions::Mode::Compare),
        ["instructions", "--accept"] => instructions::run(instructions::Mode::Accept),
        ["soak", rest @ ..] => build::soak(rest),
        ["demo"] => demo::run(demo::Mode::Show),
        ["demo", "--smoke"] => demo::run(demo::Mode::Smoke),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}
