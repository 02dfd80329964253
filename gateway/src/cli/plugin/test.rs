//! `plugin test`: cases, each a request through the compiled component in the gateway's own sandbox.

use super::{
    Exit, no, print,
    stage::{Became, Met, Stage, words},
};
use crate::{
    config::{self, CaseVerdict, Diagnostic, ExpectedValues, PluginCase, PluginCases, PluginConfig, Source},
    message::Fields,
    plugins::Origin,
};
use clap::Args;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// Where the cases of a crate are.
pub(super) const CASES: &str = "tests/cases.toml";

/// `plugin test [FILE] [--cases CASES]`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Test {
    /// The component; by default the crate in this folder is built
    #[arg(value_name = "FILE")]
    component: Option<PathBuf>,
    /// The cases
    #[arg(long, value_name = "CASES", default_value = CASES)]
    cases: PathBuf,
}

impl Test {
    pub(super) fn run(&self) -> Exit {
        let tried = cases(&self.cases).and_then(|(source, cases)| {
            let file = super::component(self.component.as_deref())?;
            Ok((source, cases, Stage::open(&file)?))
        });
        let (source, cases, stage) = match tried {
            Ok(tried) => tried,
            Err(why) => return no(&why),
        };
        let mut failed = 0;
        for case in &cases.cases {
            let wrong = run(&stage, &cases, case.get_ref());
            let name = &case.get_ref().name;
            if wrong.is_empty() {
                print(&format!("ok      {name}\n"));
                continue;
            }
            failed += 1;
            let (line, _) = source.position(case.span().start);
            print(&format!("FAILED  {name} ({}:{line})\n", source.name));
            for line in wrong.iter().flat_map(|wrong| wrong.lines()) {
                print(&format!("        {line}\n"));
            }
        }
        let all = super::count(cases.cases.len(), "case");
        print(&format!("{all}: {} passed, {failed} failed\n", cases.cases.len() - failed));
        if failed == 0 { Exit::Fine } else { Exit::No }
    }
}

/// Reads a file of cases.
pub(super) fn cases(path: &Path) -> Result<(Source, PluginCases), String> {
    let source = Source::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let shown = |error: Diagnostic| {
        format!("the cases cannot be read\n{}", config::render(&source, &[error], false).trim_end())
    };
    let cases = config::plugin_cases(&source).map_err(|error| shown(*error))?;
    for origin in &cases.http {
        origin.get_ref().parse::<Origin>().map_err(|error| {
            shown(Diagnostic::error(origin.span(), error.to_string()).label("not an origin"))
        })?;
    }
    if cases.cases.is_empty() {
        return Err(format!("there is no [[case]] in {}", path.display()));
    }
    Ok((source, cases))
}

/// The settings of a case, as the plugin gets them.
pub(super) fn settings(cases: &PluginCases, case: &PluginCase) -> String {
    let table = case.config.as_ref().or(cases.config.as_ref());
    table.map_or_else(|| "{}".to_owned(), PluginConfig::to_json)
}

/// What is not as it should be.
fn run(stage: &Stage, cases: &PluginCases, case: &PluginCase) -> Vec<String> {
    let ready = match stage.start(&settings(cases, case), cases, &case.replies) {
        Ok(ready) => ready,
        Err(error) => return vec![words(&error)],
    };
    if let Some(connection) = &case.connection {
        return compare_connection(case, &stage.meet(&ready, connection));
    }
    match stage.ask(&ready, &case.request, &case.response) {
        Ok(became) => compare(case, &became),
        Err(why) => vec![why],
    }
}

fn compare(case: &PluginCase, became: &Became) -> Vec<String> {
    let expect = &case.expect;
    let mut wrong = Vec::new();
    let mut same = |what: &str, is: &str, should: Option<&str>| {
        if let Some(should) = should.filter(|should| *should != is) {
            wrong.push(format!("{what} is {is:?}, expected {should:?}"));
        }
    };
    let verdict = match (&became.fault, &became.request) {
        (Some(_), _) => CaseVerdict::Fault,
        (None, Some(_)) if became.to.is_some() => CaseVerdict::RouteTo,
        (None, Some(_)) => CaseVerdict::Next,
        (None, None) => CaseVerdict::Respond,
    };
    same("the verdict", name(verdict), expect.verdict.map(name));
    same("the backend", became.to.as_deref().unwrap_or_default(), expect.to.as_deref());
    if let Some(head) = &became.request {
        let target =
            head.query().map_or_else(|| head.path().to_owned(), |query| format!("{}?{query}", head.path()));
        same("the path", &target, expect.request.path.as_deref());
        let host = head.fields.get_named(b"host").map(String::from_utf8_lossy).unwrap_or_default();
        same("the host", &host, expect.request.host.as_deref());
        same("the body", &String::from_utf8_lossy(&became.body), expect.request.body.as_deref());
    }
    if let Some(head) = &became.response {
        let status = expect.response.status.map(|status| status.to_string());
        same("the status", head.status.as_str(), status.as_deref());
    }
    let (body, reason) = became.said.clone().unwrap_or_default();
    same("the reason", &reason, expect.response.reason.as_deref());
    let body = became.transformed.as_deref().unwrap_or(&body);
    same("the body", &String::from_utf8_lossy(body), expect.response.body.as_deref());
    if let Some(sent) = expect.sent.as_ref().filter(|sent| **sent != became.sent) {
        wrong.push(format!("it sent {:?}, expected {sent:?}", became.sent));
    }
    match &became.request {
        Some(head) => headers("the request's", &head.fields, &expect.request.headers, &mut wrong),
        None if expect.request.headers.is_empty() => {}
        None => wrong.push("the request goes nowhere, and its headers are expected".to_owned()),
    }
    if let Some(head) = &became.response {
        headers("the answer's", &head.fields, &expect.response.headers, &mut wrong);
    }
    if let Some(fault) = became.fault.as_ref().filter(|_| expect.verdict != Some(CaseVerdict::Fault)) {
        wrong.push(format!("the call failed: {}\n{}", fault.kind, fault.detail));
    }
    wrong
}

fn compare_connection(case: &PluginCase, met: &Met) -> Vec<String> {
    let expect = &case.expect;
    let mut wrong = Vec::new();
    let mut same = |what: &str, is: &str, should: Option<&str>| {
        if let Some(should) = should.filter(|should| *should != is) {
            wrong.push(format!("{what} is {is:?}, expected {should:?}"));
        }
    };
    let verdict = match (&met.fault, &met.refusal, &met.to) {
        (Some(_), _, _) => CaseVerdict::Fault,
        (None, Some(_), _) => CaseVerdict::Refuse,
        (None, None, Some(_)) => CaseVerdict::RouteTo,
        (None, None, None) => CaseVerdict::Next,
    };
    same("the verdict", name(verdict), expect.verdict.map(name));
    same("the backend", met.to.as_deref().unwrap_or_default(), expect.to.as_deref());
    let refusal = met.refusal.as_ref();
    let reason = refusal.map(|refusal| refusal.reason.as_str()).unwrap_or_default();
    same("the reason", reason, expect.reason.as_deref());
    let reset = |reset: bool| if reset { "reset" } else { "no reset" };
    let is_reset = refusal.is_some_and(|refusal| refusal.reset);
    same("the end", reset(is_reset), expect.reset.map(reset));
    if let Some(sent) = expect.sent.as_ref().filter(|sent| **sent != met.sent) {
        wrong.push(format!("it sent {:?}, expected {sent:?}", met.sent));
    }
    if let Some(fault) = met.fault.as_ref().filter(|_| expect.verdict != Some(CaseVerdict::Fault)) {
        wrong.push(format!("the call failed: {}\n{}", fault.kind, fault.detail));
    }
    wrong
}

fn headers(
    whose: &str,
    fields: &Fields,
    expected: &BTreeMap<String, ExpectedValues>,
    wrong: &mut Vec<String>,
) {
    for (name, expected) in expected {
        let values =
            fields.all_named(name.as_bytes()).map(|value| String::from_utf8_lossy(value).into_owned());
        let values: Vec<String> = values.collect();
        let what = format!("{whose} header {name} is {values:?}, expected");
        match expected {
            ExpectedValues::Values(list) if list.list() != values => {
                wrong.push(format!("{what} {:?}", list.list()));
            }
            ExpectedValues::IsThere(true) if values.is_empty() => wrong.push(format!("{what} a value")),
            ExpectedValues::IsThere(false) if !values.is_empty() => wrong.push(format!("{what} none")),
            ExpectedValues::Values(_) | ExpectedValues::IsThere(_) => {}
        }
    }
}

fn name(verdict: CaseVerdict) -> &'static str {
    match verdict {
        CaseVerdict::Next => "next",
        CaseVerdict::Respond => "respond",
        CaseVerdict::RouteTo => "route-to",
        CaseVerdict::Refuse => "refuse",
        CaseVerdict::Fault => "fault",
    }
}
