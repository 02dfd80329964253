//! `cargo xtask demo`: the main job on real input. An application on 127.0.0.1 only, in front of it the real
//! gateway with the first-party plugins, and another one that is the registry of the fleet.

mod app;
mod checks;
mod client;
mod gateway;
mod http;
mod line;
mod plan;
mod screen;
mod smoke;
mod tries;

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};

use self::{
    gateway::Gateway,
    plan::{Plan, Services},
};
use crate::{Result, build};

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Mode {
    /// For a person to try, until Ctrl-C.
    Show,
    /// Tries everything itself and stops.
    Smoke,
}

/// For the gateway to serve: it compiles its plugins first.
const READY: Duration = Duration::from_secs(60);
/// For the gateway to stop; its own grace is shorter.
const STOPPED: Duration = Duration::from_secs(20);

pub(crate) fn run(mode: Mode) -> Result {
    screen::step(1, "the plugins");
    build::plugins()?;
    screen::step(2, "the gateway (the first time takes some minutes)");
    build::gateway()?;
    screen::step(3, "the application, the registry and the gateway start");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match mode {
            Mode::Show => show().await,
            Mode::Smoke => tokio::select! {
                done = smoke::run() => done,
                () = told_to_stop() => Err("interrupted".into()),
            },
        }
    })
}

async fn show() -> Result {
    // Never the user's own: it is shown.
    let token = "demo-token".to_owned();
    let services = start_services([3000, 3001]).await?;
    let plan = Plan::for_a_person(services, token)?;
    let mut infra = Gateway::start_infra(&plan)?;
    infra.ready(plan.infra_admin, READY).await?;
    let mut gateway = Gateway::start(&plan, None)?;
    tokio::select! {
        failed = serve(&mut gateway, &plan) => return failed,
        () = told_to_stop() => {}
    }
    screen::stopping();
    gateway.stop(STOPPED).await?;
    infra.stop(STOPPED).await?;
    screen::stopped();
    Ok(())
}

async fn serve(gateway: &mut Gateway, plan: &Plan) -> Result {
    gateway.ready(plan.admin, READY).await?;
    screen::show(plan);
    Err(format!("the gateway has ended: {}", gateway.ended().await?).into())
}

/// Starts what is behind the gateway, on the ports wished for or on free ones.
async fn start_services(wishes: [u16; 2]) -> Result<Services> {
    let [app, line] = [listen(wishes[0]).await?, listen(wishes[1]).await?];
    let services = Services { app: app.local_addr()?, line: line.local_addr()? };
    tokio::spawn(http::serve(app, app::answer));
    tokio::spawn(line::serve(line));
    Ok(services)
}

/// A listener as users write it: on IPv4 loopback.
async fn listen(wish: u16) -> Result<TcpListener> {
    let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    match TcpListener::bind(at(wish)).await {
        Ok(listener) => Ok(listener),
        Err(_) => Ok(TcpListener::bind(at(0)).await?),
    }
}

/// Ctrl-C, a closed terminal, or the end that a service manager asks for.
async fn told_to_stop() {
    let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
    let [Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)] = kinds.map(signal) else { return };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
}
