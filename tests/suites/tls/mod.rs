//! TLS towards clients: certificates, handshakes, and what goes over them.

mod certificates;
mod clients;
mod handshakes;
mod renewal;
mod traffic;

use gateway_tests::{Pair, Pki, TestGateway, certificate_table, eventually, lacks, within};
use std::net::SocketAddr;
use tokio::process::Command;

/// A TLS listener and a plain one, and a route, `app`, on both of them.
fn config(backend: SocketAddr, more: &str) -> String {
    format!(
        "[[listener]]\nname = \"tls\"\naddress = \"[::]:0\"\ntls = true\n\
         [[listener]]\nname = \"plain\"\naddress = \"127.0.0.1:0\"\n\
         [[route]]\nname = \"app\"\nto = \"{backend}\"\n{more}\n"
    )
}

/// A gateway with one certificate, for `app.test` and one label below it, and the authority of that.
fn gateway(backend: SocketAddr) -> (TestGateway, Pki) {
    let pki = Pki::new();
    let pair = pki.issue(&["app.test", "*.app.test"]);
    let toml = config(backend, &certificate_table("web"));
    (TestGateway::with_files(&toml, &[("web.pem", &pair.cert), ("web-key.pem", &pair.key)]), pki)
}

/// Waits until so many handshakes have ended so.
async fn counted(gateway: &TestGateway, outcome: &str, times: f64) {
    let label = format!("outcome=\"{outcome}\"");
    eventually(&format!("{times} times {outcome}"), async || {
        (gateway.metric("vers_tls_handshakes_total", &[&label]).await == times).then_some(())
    })
    .await;
}

/// What a program printed on both streams; an error where there is no such program here.
async fn run(program: &str, arguments: &[&str]) -> std::io::Result<String> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(std::process::Stdio::null()).kill_on_drop(true);
    let result = within(program, command.output()).await;
    if result.is_err() {
        lacks("tls", program);
    }
    let output = result?;
    let text = [output.stdout, output.stderr].concat();
    Ok(String::from_utf8_lossy(&text).into_owned())
}

async fn openssl(arguments: &[&str]) -> std::io::Result<String> {
    run("openssl", &[&["s_client"], arguments].concat()).await
}

/// A TLS listener with one raw TCP route.
fn tcp_route(backend: SocketAddr) -> String {
    format!(
        "[[listener]]\naddress = \"[::]:0\"\ntls = true\n\
         [[route]]\nname = \"db\"\nprotocol = \"tcp\"\nto = \"{backend}\"\n{}",
        certificate_table("web")
    )
}

/// Files of these pairs, as [`TestGateway::with_files`] takes them.
fn files_of<'a>(pairs: &'a [(&str, &'a Pair)]) -> Vec<(String, &'a str)> {
    let files = pairs.iter().flat_map(|(name, pair)| {
        [(format!("{name}.pem"), pair.cert.as_str()), (format!("{name}-key.pem"), pair.key.as_str())]
    });
    files.collect()
}

fn start(toml: &str, pairs: &[(&str, &Pair)], watch: bool) -> TestGateway {
    let files = files_of(pairs);
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (name.as_str(), *text)).collect();
    TestGateway::prepared(toml, watch, &files).expect("the gateway starts")
}
