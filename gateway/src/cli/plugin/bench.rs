//! `plugin bench`: what calls and instances of a component cost on this machine.

use super::{
    Exit, no, print,
    stage::{Ready, Stage, words},
    tell, test,
};
use crate::{
    config::{PluginCase, PluginCases, Spanned},
    plugins::Way,
};
use clap::Args;
use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

/// Rounds, of which the fastest counts: whatever else the machine does only adds.
const ROUNDS: usize = 5;

/// Instances made to tell what one takes.
const INSTANCES: usize = 50;

/// `plugin bench [FILE] [--cases CASES]`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Bench {
    /// The component; by default the crate in this folder is built
    #[arg(value_name = "FILE")]
    component: Option<PathBuf>,
    /// The cases whose requests are measured
    #[arg(long, value_name = "CASES", default_value = test::CASES)]
    cases: PathBuf,
    /// Calls in each of five rounds
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    calls: u32,
}

impl Bench {
    pub(super) fn run(&self) -> Exit {
        match self.measure() {
            Ok(()) => Exit::Fine,
            Err(why) => no(&why),
        }
    }

    fn measure(&self) -> Result<(), String> {
        let (_, cases) = test::cases(&self.cases)?;
        let file = super::component(self.component.as_deref())?;
        let stage = Stage::open(&file)?;
        let first = cases.cases.first().map(Spanned::get_ref).ok_or("there is no case")?;
        let (took, memory) = instances(&stage, &cases, first)?;
        if cfg!(debug_assertions) {
            tell(&"warning: this gateway is no optimised build; calls cost several times as much in it");
        }
        line("compile", &format!("{:.1} ms", stage.compiled_in.as_secs_f64() * 1e3));
        line("make an instance and configure it", &format!("{:.1} µs", took.as_secs_f64() * 1e6));
        line("memory of an instance", &format!("{} KiB", memory.div_ceil(1024)));
        if has(&stage, "background") {
            tell(&"background is not measured");
        }
        cases.cases.iter().try_for_each(|case| self.measure_case(&stage, &cases, case.get_ref()))
    }

    fn measure_case(&self, stage: &Stage, cases: &PluginCases, case: &PluginCase) -> Result<(), String> {
        let measured = |what: &str, measure: &dyn Fn(Option<&Ready>) -> Result<Duration, String>| {
            line(&format!("{what:<12} {}", case.name), &self.fastest(stage, cases, case, measure)?);
            Ok::<_, String>(())
        };
        let (request, answer, calls) = (&case.request, &case.response, self.calls);
        if let Some(connection) = &case.connection {
            // All that is called for one: of the filters, of the first bytes, of the log.
            return measured("a connection", &|ready| stage.measure_connection(ready, connection, calls));
        }
        if has(stage, "request-filter") {
            measured("on-request", &|ready| stage.measure(ready, (request, None), calls))?;
        }
        if has(stage, "request-body-filter") && self.asks(stage, cases, case)? {
            measured("on-request-body", &|ready| stage.measure_body(ready, request, calls))?;
        }
        if has(stage, "request-body-transform") && !request.body.is_empty() {
            measured("a request's body", &|ready| stage.measure_transform(ready, Way::Request, case, calls))?;
        }
        if has(stage, "response-filter") {
            measured("on-response", &|ready| stage.measure(ready, (request, Some(answer)), calls))?;
        }
        if has(stage, "response-body-transform") && !answer.body.is_empty() {
            measured("an answer's body", &|ready| {
                stage.measure_transform(ready, Way::Response, case, calls)
            })?;
        }
        if has(stage, "exchange-log") {
            measured("on-complete", &|ready| stage.measure_log(ready, request, calls))?;
        }
        Ok(())
    }

    /// Whether the plugin asks for the body of a case's request.
    fn asks(&self, stage: &Stage, cases: &PluginCases, case: &PluginCase) -> Result<bool, String> {
        let ready =
            stage.start(&test::settings(cases, case), cases, &case.replies).map_err(|error| words(&error))?;
        stage.wants_body(&ready, &case.request)
    }

    /// Nanoseconds of a call, less what is done around it.
    fn fastest(
        &self,
        stage: &Stage,
        cases: &PluginCases,
        case: &PluginCase,
        measure: impl Fn(Option<&Ready>) -> Result<Duration, String>,
    ) -> Result<String, String> {
        let ready =
            stage.start(&test::settings(cases, case), cases, &case.replies).map_err(|error| words(&error))?;
        let fastest = |ready| {
            let rounds = (0..ROUNDS).map(|_| measure(ready));
            rounds.collect::<Result<Vec<_>, _>>().map(|rounds| rounds.into_iter().min().unwrap_or_default())
        };
        let (without, with) = (fastest(None)?, fastest(Some(&ready))?);
        let nanoseconds = with.saturating_sub(without).as_nanos() / u128::from(self.calls);
        Ok(format!("{nanoseconds} ns"))
    }
}

fn line(what: &str, value: &str) {
    print(&format!("{what:<46} {value}\n"));
}

fn has(stage: &Stage, hook: &str) -> bool {
    stage.inspection().hooks.iter().any(|known| known == hook)
}

/// What an instance takes, the fastest of many; and its memory.
fn instances(stage: &Stage, cases: &PluginCases, case: &PluginCase) -> Result<(Duration, usize), String> {
    let ready =
        stage.start(&test::settings(cases, case), cases, &case.replies).map_err(|error| words(&error))?;
    let (mut fastest, mut memory) = (Duration::MAX, 0);
    for _ in 0..INSTANCES {
        let began = Instant::now();
        memory = stage.footprint(&ready).map_err(|error| words(&error))?;
        fastest = fastest.min(began.elapsed());
    }
    Ok((fastest, memory))
}
