//! Components and tables that cannot be used: what a start and a reload say of them, and where they
//! point.

use gateway_tests::{Backend, TestGateway, guest, one_route, plugin, plugin_table};
use std::{fmt::Write as _, path::Path, time::Instant};
use vers_gateway::server::StartError;

/// A route through a plugin with this component and these further keys.
fn toml(backend: &Backend, component: &Path, more: &str) -> String {
    let table = plugin_table("guest", component, more);
    one_route(backend.addr(), &format!("plugins = [\"guest\"]\n{table}"))
}

/// `gateway.toml:LINE:COLUMN` of the first place where the text stands.
fn place(toml: &str, text: &str) -> String {
    let at = toml.find(text).unwrap_or_else(|| panic!("no {text} in {toml}"));
    let line_start = toml[..at].rfind('\n').map_or(0, |newline| newline + 1);
    let line = toml[..at].matches('\n').count() + 1;
    format!("gateway.toml:{line}:{}", toml[line_start..at].chars().count() + 1)
}

/// Neither a start nor a reload takes this configuration. Both say all of `parts`; a reload leaves
/// everything as it was.
async fn refused(backend: &Backend, toml: &str, parts: &[&str]) {
    let says = |text: &str, who: &str| {
        for part in parts {
            assert!(text.contains(part), "{who} does not say {part:?} of\n{toml}\nbut\n{text}");
        }
    };
    match TestGateway::try_start(toml) {
        Err(StartError::Config(refused)) => says(&refused.text, "the start"),
        other => panic!("it starts, or fails for another reason: {other:?}\n{toml}"),
    }
    let gateway = TestGateway::to(backend.addr());
    gateway.write(toml);
    let error = gateway.reload().await.expect_err("the reload is refused");
    says(&error.text, "the reload");
    assert!(error.errors > 0, "{error}");
    let status = gateway.status().await;
    says(status["last_reload"]["error"].as_str().unwrap_or_default(), "the status");
    assert_eq!(status["generation"], 1, "{status}");
    assert_eq!(gateway.client().get("/").await.text(), "hello", "the old configuration serves");
}

#[tokio::test]
async fn a_refused_key_is_pointed_at() {
    let backend = Backend::hello().await;
    let toml =
        toml(&backend, &guest("bad_config"), "config = { question = \"six times nine\", answer = 41 }");
    let message = "plugin `guest`: `answer`: not 42; expected 42";
    refused(&backend, &toml, &[message, &place(&toml, "41 }"), "refused by the plugin"]).await;
}

#[tokio::test]
async fn a_key_that_is_not_there_is_missed_in_its_table() {
    let backend = Backend::hello().await;
    let message = "plugin `guest`: `answer`: not 42; expected 42";
    let with_table = toml(&backend, &guest("bad_config"), "config = { question = \"six times nine\" }");
    refused(&backend, &with_table, &[message, &place(&with_table, "{ question")]).await;
    let without = toml(&backend, &guest("bad_config"), "");
    refused(&backend, &without, &[message, &place(&without, "guest]")]).await;
}

#[tokio::test]
async fn a_table_of_a_route_is_pointed_at_in_the_route() {
    let backend = Backend::hello().await;
    let table = plugin_table("guest", &guest("echo_context"), "config = { captures = [\"good\"] }");
    let toml = one_route(
        backend.addr(),
        &format!("plugins = [{{ use = \"guest\", config = {{ captures = [\"good\", 7] }} }}]\n{table}"),
    );
    refused(
        &backend,
        &toml,
        &["`captures.1`: invalid type: integer `7`, expected a string", &place(&toml, "7] }")],
    )
    .await;
}

#[tokio::test]
async fn a_key_that_a_first_party_plugin_does_not_know_is_pointed_at() {
    let backend = Backend::hello().await;
    let grants = "grants = { secrets = [\"fleet\"] }\n[secret.fleet]\nenv = \"NO_SUCH_VARIABLE\"\n";
    let config = "config = { secret = \"fleet\", exemt = [\"/health\"] }";
    let auth = toml(&backend, &plugin("auth_token"), &format!("{config}\n{grants}"));
    let message = "`exemt`: unknown field `exemt`, expected one of `secret`, `exempt`";
    refused(&backend, &auth, &[message, &place(&auth, "[\"/health\"]")]).await;

    let headers = toml(&backend, &plugin("header_inject"), "config = { response = { x-a = \"{rout}\" } }");
    refused(&backend, &headers, &["unknown fact \"{rout}\"", &place(&headers, "\"{rout}\"")]).await;
    let headers =
        toml(&backend, &plugin("header_inject"), "config = { request_remove = [\"x-a\", \"host\"] }");
    refused(&backend, &headers, &["header \"host\": belongs to the gateway", &place(&headers, "\"host\"")])
        .await;
}

#[tokio::test]
async fn every_mistake_of_every_plugin_is_told_at_once() {
    let backend = Backend::hello().await;
    let tables = [
        plugin_table("one", &guest("bad_config"), "config = { answer = 1 }"),
        plugin_table("two", Path::new("missing.wasm"), ""),
        plugin_table(
            "three",
            &plugin("header_inject"),
            "config = { request = { te = \"\", trailer = \"\" } }",
        ),
    ];
    let toml =
        one_route(backend.addr(), &format!("plugins = [\"one\", \"two\", \"three\"]\n{}", tables.concat()));
    let parts = ["`answer`: not 42", "missing.wasm", "header \"te\"", "header \"trailer\""];
    refused(&backend, &toml, &parts).await;
}

#[tokio::test]
async fn a_mistake_is_told_once_however_many_routes_have_it() {
    let backend = Backend::hello().await;
    let to = backend.addr();
    let route = |path: &str| format!("[[route]]\npath = \"{path}\"\nto = \"{to}\"\nplugins = [\"guest\"]\n");
    let toml = format!(
        "{}{}{}",
        route("/a"),
        route("/b"),
        toml(&backend, &guest("bad_config"), "config = { answer = 1 }")
    );
    match TestGateway::try_start(&toml) {
        Err(StartError::Config(refused)) => assert_eq!(refused.errors, 1, "{refused}"),
        other => panic!("it starts, or fails for another reason: {other:?}"),
    }
}

#[tokio::test]
async fn an_import_that_no_gateway_offers_is_named() {
    let backend = Backend::hello().await;
    let toml = toml(&backend, &guest("missing_import"), "");
    let message = "plugin `guest`: it imports `vers:unknown/thing@9.9.9`, which this gateway does not offer";
    refused(&backend, &toml, &[message, &place(&toml, "\"/"), "vers:gateway@0.1.0"]).await;
}

#[tokio::test]
async fn a_missing_grant_is_named_as_it_would_be_written() {
    let backend = Backend::hello().await;
    let check = async |more: &str, import: &str, grant: &str| {
        let toml = toml(&backend, &guest("ungranted"), more);
        let message =
            format!("plugin `guest`: it imports `vers:gateway/{import}@0.1.0`, which is not granted");
        let help = format!("add `{grant}` to [plugin.guest]");
        refused(&backend, &toml, &[&message, &help, &place(&toml, "\"/"), "needs a grant"]).await;
    };
    let secrets = "grants = { secrets = [\"s\"] }\n[secret.s]\nenv = \"NO_SUCH_VARIABLE\"\n";
    check(secrets, "outbound-http", "grants = { http = [\"https://host:port\"] }").await;
    check("grants = { http = [\"http://a\"] }", "secrets", "grants = { secrets = [\"name\"] }").await;
}

#[tokio::test]
async fn what_is_no_component_is_told_apart() {
    let backend = Backend::hello().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let check = async |content: &[u8], message: &str| {
        let file = folder.path().join("guest.wasm");
        std::fs::write(&file, content).expect("a file");
        let toml = toml(&backend, &file, "");
        refused(&backend, &toml, &["guest.wasm", message, &place(&toml, "\"/")]).await;
    };
    check(b"", "is not a WebAssembly component: it does not start like one").await;
    check(b"#!/bin/sh\n", "is not a WebAssembly component: it does not start like one").await;
    check(b"\0asm\x01\0\0\0", "it is a core module; build it with `--target wasm32-wasip2`").await;
    check(b"\0asm\x0d\0\x01\0", "is no plugin for this gateway: it does not export `vers:gateway/lifecycle`")
        .await;
    let whole = std::fs::read(guest("trap")).expect("a component");
    check(&whole[..whole.len() / 2], "is not a WebAssembly component: ").await;
    let mut damaged = whole;
    let middle = damaged.len() / 2;
    damaged[middle..middle + 64].fill(0xff);
    check(&damaged, "is not a WebAssembly component: ").await;
}

#[tokio::test]
async fn a_file_that_is_not_there_is_pointed_at() {
    let backend = Backend::hello().await;
    let missing = toml(&backend, Path::new("no/such.wasm"), "");
    let parts = ["cannot read `", "no/such.wasm`: No such file", &place(&missing, "\"no/such.wasm\"")];
    refused(&backend, &missing, &parts).await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let toml = toml(&backend, folder.path(), "");
    refused(&backend, &toml, &["cannot read `", "directory"]).await;
}

#[tokio::test]
async fn another_content_than_the_hash_says_is_refused() {
    let backend = Backend::hello().await;
    let file = guest("echo_context");
    let zeros = "0".repeat(64);
    let bad = toml(&backend, &file, &format!("sha256 = \"{zeros}\""));
    let gateway = TestGateway::start(&toml(&backend, &file, ""));
    let plugin = gateway.operator().plugin("guest").await;
    let real = plugin["sha256"].as_str().expect("a hash");
    refused(&backend, &bad, &["another hash", &format!("it is {real}"), &place(&bad, &format!("\"{zeros}"))])
        .await;
    for good in [real.to_owned(), real.to_uppercase()] {
        gateway.write(&toml(&backend, &file, &format!("sha256 = \"{good}\"")));
        gateway.reload().await.unwrap_or_else(|error| panic!("{good} is its hash: {error}"));
    }
}

#[tokio::test]
async fn a_guest_that_fails_on_its_table_is_refused_with_its_words() {
    let backend = Backend::hello().await;
    let toml = toml(&backend, &guest("trap"), "config = { configure = true }");
    let message = "plugin `guest` failed while being configured: it trapped";
    refused(&backend, &toml, &[message, "asked to panic on configure", &place(&toml, "\"guest\"]")]).await;
}

#[tokio::test]
async fn a_guest_that_never_ends_its_configuration_is_ended() {
    // Nothing else runs that could keep the clock of the guests awake.
    let backend = Backend::hello().await;
    let more = "config = { configure = true }\nlimits = { cpu = \"50ms\" }";
    refused(
        &backend,
        &toml(&backend, &guest("spin"), more),
        &["`guest` failed while being configured", "CPU time"],
    )
    .await;
}

#[tokio::test]
async fn a_limit_that_a_guest_cannot_start_in_is_named() {
    let backend = Backend::hello().await;
    let toml = toml(&backend, &guest("trap"), "limits = { memory = \"1MiB\" }");
    let message = "plugin `guest` failed while being configured: it wanted more memory than `limits.memory`";
    refused(&backend, &toml, &[message]).await;
}

/// Compiling takes nearly all of a start's time, so compiling once for each route would show.
#[tokio::test]
async fn a_component_on_many_routes_is_compiled_once() {
    const ROUTES: usize = 50;
    let backend = Backend::hello().await;
    let start = |routes: usize| {
        let mut toml = String::from("[[listener]]\naddress = \"[::]:0\"\n");
        for route in 0..routes {
            let own =
                format!("{{ use = \"headers\", config = {{ response = {{ x-route = \"{route}\" }} }} }}");
            let used = if route % 2 == 0 { "\"headers\"" } else { &own };
            let to = backend.addr();
            let _ = writeln!(
                toml,
                "[[route]]\nname = \"{route}\"\npath = \"/{route}\"\nto = \"{to}\"\nplugins = [{used}]"
            );
        }
        toml.push_str(&plugin_table("headers", &plugin("header_inject"), ""));
        let began = Instant::now();
        (TestGateway::start(&toml), began.elapsed())
    };
    let (_one, alone) = start(1);
    let (many, all) = start(ROUTES);
    println!("a start with one route takes {alone:?}, with {ROUTES} routes {all:?}");
    assert!(all < alone * 10, "{alone:?} with one route, {all:?} with {ROUTES}");
    let plugins = many.status().await["plugins"].as_array().map(Vec::len);
    assert_eq!(
        plugins,
        Some(1 + ROUTES / 2),
        "one plugin for each table, shared by routes that use it alike"
    );
    let answer = many.client().get("/7").await;
    assert_eq!((answer.status.as_u16(), answer.header("x-route")), (200, "7"));
    assert_eq!(many.client().get("/8").await.header("x-route"), "");
}
