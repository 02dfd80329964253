//! `cargo xtask soak`: mixed traffic against a daemon for a long time. No answer may be wrong, memory
//! must stay flat, and when it is over nothing may be left of it.

mod clients; // clients that behave
mod ending; // what must be so at the end
mod random; // numbers that a seed repeats
mod reloads; // the configuration changes under all of them
mod rude; // clients and backends that do not behave
mod stage; // the gateway, its configuration, and what is behind it
mod tally; // what was done, and what was wrong
mod watch; // memory and gauges meanwhile

use gateway_tests::settled;
use std::{env, path::PathBuf, process::ExitCode, rc::Rc, time::Duration};
use tokio::task::LocalSet;

/// An answer that is not as it must be.
type Wrong = Box<dyn std::error::Error + Send + Sync>;

const USAGE: &str = "soak [--minutes N] [--daemon PATH] [--seed N] [--only PART_OF_A_KIND_OF_TRAFFIC]";

struct Options {
    length: Duration,
    daemon: PathBuf,
    seed: u64,
    /// What the names of all traffic hold: to find out what is to blame.
    only: String,
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(wrong) => {
            eprintln!("{wrong}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let faults = runtime.expect("a runtime").block_on(LocalSet::new().run_until(soak(&options)));
    faults.iter().for_each(|fault| println!("FAULT  {fault}"));
    if faults.is_empty() {
        println!("no wrong answer, flat memory, nothing left");
        return ExitCode::SUCCESS;
    }
    ExitCode::FAILURE
}

fn options() -> Result<Options, Wrong> {
    let daemon = env!("CARGO_BIN_EXE_test-daemon").into();
    let mut options = Options { length: Duration::from_secs(20 * 60), daemon, seed: 1, only: String::new() };
    let mut arguments = env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{argument} wants a value"))?;
        match argument.as_str() {
            "--minutes" => options.length = Duration::from_secs_f64(60.0 * value.parse::<f64>()?),
            "--daemon" => options.daemon = value.into(),
            "--seed" => options.seed = value.parse()?,
            "--only" => options.only = value,
            _ => return Err(format!("{argument} is not known").into()),
        }
    }
    Ok(options)
}

/// Runs all of it, and returns what was not as it must be.
async fn soak(options: &Options) -> Vec<String> {
    println!("{}, {:?}, seed {}", options.daemon.display(), options.length, options.seed);
    let stage = Rc::new(stage::Stage::set(&options.daemon).await);
    // Workers begin to listen when they have begun.
    let before = settled("what stands before", async || watch::Standing::of(&stage).await).await;
    let mut load = tally::Load::new(options.seed, &options.only);
    clients::add(&mut load, &stage);
    rude::add(&mut load, &stage);
    reloads::add(&mut load, &stage);
    let memory = watch::memory(&stage, options.length).await;
    let mut faults = load.end().await;
    faults.extend(ending::faults(&stage, &before, &memory).await);
    faults
}
