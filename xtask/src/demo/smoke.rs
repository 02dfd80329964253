//! `cargo xtask demo --smoke`: tries all of it from outside, says what came of each try, and stops.

use std::{fs, net::SocketAddr, time::Duration};

use tokio::time::timeout;

use super::{
    READY, STOPPED, checks,
    client::{self, Asker},
    gateway::Gateway,
    plan::{self, Plan},
    start_services,
    tries::Tries,
};
use crate::{Result, tree};

/// For one check.
const LIMIT: Duration = Duration::from_secs(20);
/// For all of them, however many fail.
const IN_ALL: Duration = Duration::from_secs(180);

pub(crate) async fn run() -> Result {
    let token = "smoke-token".to_owned();
    let services = start_services([0; 2]).await?;
    let plan = Plan::for_a_check(services, token)?;
    let mut infra = Gateway::start_infra(&plan)?;
    let mut gateway = Gateway::start(&plan, Some(&plan.log()))?;
    let mut report = Report { failed: 0 };
    if timeout(IN_ALL, all(&mut report, &plan, &mut infra, &mut gateway)).await.is_err() {
        report.add("in time", Err(format!("not done within {IN_ALL:?}").into()));
    }
    drop((gateway, infra));
    if report.failed == 0 {
        println!("all of it works");
        return plan.remove();
    }
    Err(format!("{} of the checks failed; the gateway's log ends:\n{}", report.failed, tail(&plan)).into())
}

async fn all(report: &mut Report, plan: &Plan, infra: &mut Gateway, gateway: &mut Gateway) {
    let ready = infra.ready(plan.infra_admin, READY).await;
    if !report.add("the registry is ready", ready) {
        return;
    }
    let ready = gateway.ready(plan.admin, READY).await;
    if !report.add("the gateway is ready", ready) {
        return;
    }
    let ask = Asker::find();
    println!("  -  requests are sent {ask}");
    if plan::has_ipv6() {
        family(report, ask, "IPv6", "[::1]", plan).await;
    } else {
        println!("  -  IPv6: this machine has none");
    }
    family(report, ask, "IPv4", "127.0.0.1", plan).await;

    report.check("the VM is in the registry", checks::registered(ask, plan)).await;
    report.check("it renews its registration", checks::heartbeats(ask, plan)).await;
    report.check("the admin address tells", checks::admin(plan)).await;
    report.check("an edit of the TOML is taken over, no connection is cut", checks::edit(ask, plan)).await;
    report.check("a broken edit is refused, and changes nothing", checks::broken_edit(ask, plan)).await;
    report.check("a new build of a plugin is taken over", checks::new_component(ask, plan)).await;

    let ended = gateway.stop(STOPPED).await;
    report.add(
        "SIGTERM ends it well",
        ended.and_then(|status| client::equal("status", status.code(), Some(0))),
    );
    report.check("the VM has left the registry", checks::left(ask, plan)).await;
}

/// Everything that a client sees, over one family of addresses.
async fn family(report: &mut Report, ask: Asker, name: &str, host: &str, plan: &Plan) {
    let tries = Tries::at(host, plan);
    let at = |port| -> SocketAddr { format!("{host}:{port}").parse().expect("a constant of this program") };
    let (web, raw) = (at(plan.web), at(plan.raw));
    let title = |what: &str| format!("{name}: {what}");
    report.check(title("without a token: refused"), checks::refused(ask, &tries.refused)).await;
    report.check(title("with a wrong token: refused"), checks::refused(ask, &tries.wrong)).await;
    report.check(title("/health needs none"), checks::health(ask, &tries.health)).await;
    report.check(title("headers are added both ways"), checks::echo(ask, &tries.echo, web.ip())).await;
    report.check(title("a forged client is not believed"), checks::echo(ask, &tries.forged, web.ip())).await;
    report.check(title("a body arrives"), checks::post(ask, &tries.post)).await;
    report.check(title("10 MB come back"), checks::download(ask, &tries.download)).await;
    report.check(title("events come as they happen"), checks::events(&tries.events)).await;
    report.check(title("a WebSocket without a token: refused"), checks::websocket_refused(web)).await;
    report.check(title("a WebSocket carries"), checks::websocket(web, &plan.token)).await;
    report.check(title("raw TCP carries, each way to its end"), checks::line(raw)).await;
}

struct Report {
    failed: usize,
}

impl Report {
    async fn check(&mut self, what: impl AsRef<str>, work: impl Future<Output = Result>) {
        let done = timeout(LIMIT, work).await;
        self.add(what, done.unwrap_or_else(|_| Err(format!("not done within {LIMIT:?}").into())));
    }

    fn add(&mut self, what: impl AsRef<str>, done: Result) -> bool {
        let what = what.as_ref();
        match done {
            Ok(()) => {
                println!("  ✓  {what}");
                true
            }
            Err(error) => {
                println!("  ✗  {what}\n       {error}");
                self.failed += 1;
                false
            }
        }
    }
}

/// The end of the gateway's log, and where the rest is.
fn tail(plan: &Plan) -> String {
    let log = fs::read_to_string(plan.log()).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    let last = lines.len().saturating_sub(30);
    format!("{}\nall of it: {}", lines[last..].join("\n"), tree::shown(&plan.log()))
}
