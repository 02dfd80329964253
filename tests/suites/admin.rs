//! What operators and scrapers ask the gateway itself.

use gateway_tests::{
    Admin, Backend, Raw, TestGateway, eventually, one_route, origin, plugin, plugin_table, within,
};
use http::Method;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, UnixStream},
};
use vers_gateway::{metrics::names, server::StartError};

/// A gateway whose only route answers itself, with these keys of `[admin]` and whatever follows.
fn gateway(admin: &str) -> TestGateway {
    TestGateway::start(&toml("ok", admin))
}

fn toml(body: &str, admin: &str) -> String {
    format!(
        "[[listener]]\naddress = \"[::]:0\"\n\
         [[route]]\nto = {{ respond = {{ body = \"{body}\" }} }}\n[admin]\n{admin}\n"
    )
}

const ANYWHERE: &str = "address = \"127.0.0.1:0\"";

#[tokio::test]
async fn it_says_that_it_lives_and_is_ready() {
    let gateway = gateway(ANYWHERE);
    let admin = gateway.admin();
    for (path, text) in [("/livez", "alive\n"), ("/readyz", "ready\n")] {
        let answer = admin.get(path).await;
        assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, text));
        let head = admin.send(Method::HEAD, path, bytes::Bytes::new()).await;
        assert_eq!((head.status.as_u16(), head.text().as_str()), (200, ""));
    }
    for (method, path, status) in [
        (Method::POST, "/livez", 405),
        (Method::GET, "/reload", 405),
        (Method::DELETE, "/status", 405),
        (Method::GET, "/", 404),
        (Method::GET, "/metrics/", 404),
    ] {
        let answer = admin.send(method.clone(), path, bytes::Bytes::new()).await;
        assert_eq!(answer.status, status, "{method} {path}");
        assert!(answer.text().contains("/status"), "it says what there is: {}", answer.text());
    }
}

/// Families of an OpenMetrics text, by name: kind, help, and their samples (series and value).
type Families = BTreeMap<String, (String, String, Vec<(String, f64)>)>;

/// Reads the text as a scraper does, and panics at everything that is not in the format.
fn parse(text: &str) -> Families {
    let mut families = Families::new();
    let mut current = String::new();
    let body = text.strip_suffix("# EOF\n").unwrap_or_else(|| panic!("no end: {text}"));
    for line in body.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect("a name and words");
            current = name.to_owned();
            let fresh = families.insert(current.clone(), (String::new(), help.to_owned(), Vec::new()));
            assert!(fresh.is_none(), "{name} is there twice");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a name and a type");
            assert_eq!(name, current, "a type without its help");
            families.get_mut(name).expect("a family").0 = kind.to_owned();
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line:?}"));
            let name = series.split('{').next().unwrap_or_default();
            let (kind, _, samples) = families.get_mut(&current).expect("a family");
            let suffix = name.strip_prefix(&current).unwrap_or_else(|| panic!("{line:?} under {current}"));
            let suffixes: &[&str] = match kind.as_str() {
                "counter" => &["_total"],
                "gauge" => &[""],
                "histogram" => &["_bucket", "_count", "_sum"],
                other => panic!("{current} is a {other}"),
            };
            assert!(suffixes.contains(&suffix), "{line:?} is no {kind}");
            assert!(series.len() == name.len() || series.ends_with('}'), "{line:?}");
            samples.push((series.to_owned(), value.parse().unwrap_or_else(|_| panic!("{line:?}"))));
        }
    }
    families
}

#[tokio::test]
async fn every_metric_is_there_with_its_meaning() {
    let (web, second, raw) = (Backend::hello().await, Backend::hello().await, Backend::tcp_echo().await);
    let gateway = TestGateway::start(&format!(
        r#"
        [[listener]]
        name = "web"
        address = "[::]:0"
        [[listener]]
        name = "raw"
        address = "[::1]:0"
        [[route]]
        name = "quote\"d"
        to = "web"
        plugins = ["inject"]
        [[route]]
        listeners = ["raw"]
        protocol = "tcp"
        to = "{}"
        [[route]]
        host = "{{vm}}.test"
        to = "vm:{{vm}}:80"
        [[route]]
        path = "/registry/*"
        to = "registry"
        [[route]]
        path = "/app/*"
        to = "wasm:app"
        [origin.app]
        component = "{}"
        [registry]
        store = "memory"
        [vms]
        table = {{ web = "::1" }}
        [backend.web]
        servers = ["{}", "{}"]
        health = {{ path = "/" }}
        limits = {{ connections = 9 }}
        [certificate.dev]
        self_signed = true
        [certificate.ordered]
        acme = {{ directory = "https://127.0.0.1:1/", terms_agreed = true, domains = ["a.test"] }}
        {}
        "#,
        raw.addr(),
        origin("answers").display(),
        web.addr(),
        second.addr(),
        plugin_table("inject", &plugin("header_inject"), "config = { request = { x-a = \"b\" } }")
    ));
    assert_eq!(gateway.client().get("/").await.status, 200);
    let answer = gateway.admin().get("/metrics").await;
    let media_type = answer.header("content-type");
    assert!(media_type.starts_with("application/openmetrics-text; version=1.0.0"), "{media_type}");
    let families = parse(&answer.text());
    let known: BTreeSet<&str> = names::ALL.iter().map(|name| name.name).collect();
    let there: BTreeSet<&str> = families.keys().map(String::as_str).collect();
    // Lines of the log are counted by the daemon; here there is none. A gateway has its own registry or
    // another's, and a breaker has a gauge once it has opened: they are the business of their own suites.
    let own = [
        &names::LOG_LINES_DROPPED,
        &names::PLUGIN_BREAKERS_OPEN,
        &names::REGISTRY_REMOTE_AGE,
        &names::REGISTRY_REMOTE_FAILURES,
    ];
    let own = BTreeSet::from(own.map(|name| name.name));
    assert_eq!(there, &known - &own);
    for name in names::ALL.iter().filter(|name| !own.contains(name.name)) {
        let (kind, help, samples) = &families[name.name];
        assert_eq!(help, name.help);
        assert_eq!(*kind, format!("{:?}", name.kind).to_lowercase(), "{}", name.name);
        assert!(!samples.is_empty(), "{} has no series", name.name);
    }
    let requests = &families["vers_requests"].2;
    let series = r#"vers_requests_total{route="quote\"d",status="2xx"}"#;
    assert!(requests.contains(&(series.to_owned(), 1.0)), "{requests:?}");
}

#[tokio::test]
async fn a_histogram_adds_up() {
    let backend = Backend::hello().await;
    let gateway = TestGateway::to(backend.addr());
    for _ in 0..5 {
        gateway.client().get("/").await;
    }
    let families = parse(&gateway.admin().get("/metrics").await.text());
    let samples = &families["vers_request_duration_seconds"].2;
    let buckets: Vec<f64> =
        samples.iter().filter(|(series, _)| series.contains("_bucket")).map(|(_, value)| *value).collect();
    assert!(buckets.is_sorted(), "buckets hold what smaller ones hold: {buckets:?}");
    assert_eq!(buckets.last(), Some(&5.0), "{buckets:?}");
    let of = |suffix: &str| samples.iter().find(|(series, _)| series.contains(suffix)).expect(suffix).1;
    assert_eq!(of("_count"), 5.0);
    assert!(of("_sum") > 0.0 && of("_sum") < 60.0, "seconds: {}", of("_sum"));
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "all of it, in the order of the document")]
async fn its_status_says_what_it_runs() {
    let backend = Backend::hello().await;
    let gateway = TestGateway::start(&format!(
        r#"
        [gateway]
        workers = 2
        [[listener]]
        name = "web"
        address = "[::]:0"
        connections = 7
        [[route]]
        name = "app"
        to = "app"
        plugins = ["inject"]
        [[route]]
        name = "gone"
        path = "/gone"
        to = {{ respond = {{ status = 410 }} }}
        [backend.app]
        servers = ["{}"]
        {}
        "#,
        backend.addr(),
        plugin_table("inject", &plugin("header_inject"), "")
    ));
    let mut client = Raw::connect(gateway.addr()).await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    client.until("hello").await;
    // The client may have the answer before the gateway has put the connection to the backend away.
    let status = eventually("a kept connection", async || {
        let status = gateway.status().await;
        (status["backends"][0]["idle_connections"] == 1).then_some(status)
    })
    .await;
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"), "one version for all crates of the workspace");
    assert_eq!((&status["generation"], &status["draining"]), (&json!(1), &json!(false)));
    assert_eq!((&status["workers"], &status["last_reload"]), (&json!(2), &Value::Null));
    let address = format!("[::]:{}", gateway.addr().port());
    assert_eq!(
        status["listeners"],
        json!([{
            "name": "web", "address": address, "ports": 1, "carries": "http", "tls": false, "connections": 1,
            "limit": 7, "limit_per_client": null, "warning": null
        }])
    );
    assert_eq!(
        status["routes"],
        json!([
            { "name": "app", "to": "app", "plugins": ["inject"], "requests": 1, "tunnels": 0 },
            { "name": "gone", "to": "410", "plugins": [], "requests": 0, "tunnels": 0 },
        ])
    );
    let server = json!({
        "address": backend.addr().to_string(), "state": "up", "ejected_for_ms": null, "check": null, "in_use": 0
    });
    assert_eq!(
        status["backends"],
        json!([{
            "name": "app", "servers": [server],
            "connected": 1, "failed": 0, "idle_connections": 1, "pending": 0
        }])
    );
    let of_plugin = &status["plugins"][0];
    assert_eq!((&of_plugin["name"], &of_plugin["faults"]), (&json!("inject"), &json!({})));
    assert_eq!(of_plugin["hooks"], json!(["request-filter", "response-filter"]));
    assert_eq!(of_plugin["sha256"].as_str().map(str::len), Some(64), "{of_plugin}");
    assert!(of_plugin["component"].as_str().is_some_and(|file| file.ends_with("header_inject.wasm")));
}

async fn reload(admin: &Admin) -> (u16, Value) {
    let answer = admin.client().post("/reload", "").await;
    assert_eq!(answer.header("content-type"), "application/json");
    (answer.status.as_u16(), serde_json::from_slice(&answer.body).expect("JSON"))
}

#[tokio::test]
async fn a_reload_says_what_it_did() {
    let gateway = gateway(ANYWHERE);
    let admin = gateway.operator();
    assert_eq!(reload(&admin).await, (200, json!({ "generation": 1, "changed": false })));

    gateway.write(&toml("new", ANYWHERE));
    assert_eq!(reload(&admin).await, (200, json!({ "generation": 2, "changed": true })));
    assert_eq!(gateway.client().get("/").await.text(), "new");

    gateway.write(&toml("newer", ANYWHERE).replace("address = \"[::]:0\"", "adress = \"[::]:0\"\nname = 1"));
    let (status, said) = reload(&admin).await;
    assert_eq!((status, &said["errors"]), (422, &json!(2)), "{said}");
    let text = said["error"].as_str().expect("text");
    for part in ["gateway.toml:2:1", "`adress`", "did you mean `address`?", "gateway.toml:3:8"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(!text.contains('\u{1b}'), "no colours for a program: {text:?}");
    assert_eq!(gateway.client().get("/").await.text(), "new", "what runs, goes on");
    let status = admin.status().await;
    assert_eq!((&status["generation"], &status["last_reload"]["error"]), (&json!(2), &json!(text)));
    assert_eq!(admin.metric("vers_reloads_total", &[]).await, 1.0);
    assert_eq!(admin.metric("vers_reload_failures_total", &[]).await, 1.0);
    assert_eq!(admin.metric("vers_generation", &[]).await, 2.0);
    assert_eq!(admin.client().get("/readyz").await.status, 200, "it is as ready as before");
}

#[tokio::test]
async fn a_token_is_asked_for_where_there_is_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("token");
    std::fs::write(&file, "open sesame\n").expect("the token is written");
    let gateway =
        gateway(&format!("{ANYWHERE}\ntoken = \"ops\"\n[secret.ops]\nfile = \"{}\"", file.display()));
    let admin = gateway.admin();
    let bodies =
        ["", "Bearer", "Bearer ", "Bearer open", "Bearer open sesame!", "Basic open sesame", "open sesame"];
    let mut answers = BTreeSet::new();
    for sent in bodies {
        for (method, path) in [(Method::GET, "/status"), (Method::GET, "/metrics"), (Method::POST, "/reload")]
        {
            let client =
                if sent.is_empty() { admin.clone() } else { admin.clone().with("authorization", sent) };
            let answer = client.send(method, path, bytes::Bytes::new()).await;
            assert_eq!(
                (answer.status.as_u16(), answer.header("www-authenticate")),
                (401, "Bearer"),
                "{sent:?}"
            );
            answers.insert(answer.text());
        }
    }
    assert_eq!(answers.len(), 1, "missing, wrong or nearly right look the same: {answers:?}");
    for path in ["/livez", "/readyz"] {
        assert_eq!(admin.get(path).await.status, 200, "{path} is for whoever watches over the process");
    }
    for right in ["Bearer open sesame", "bearer open sesame", "BEARER  open sesame"] {
        let answer = admin.clone().with("authorization", right).get("/status").await;
        assert_eq!(answer.status, 200, "{right:?}");
        assert!(!answer.text().contains("sesame"), "it tells nobody: {}", answer.text());
    }
    std::fs::write(&file, "close sesame").expect("the token is written");
    let old = admin.clone().with("authorization", "Bearer open sesame");
    assert_eq!(old.post("/reload", "").await.status, 200);
    assert_eq!(old.get("/status").await.status, 401, "the token is another one now");
    assert_eq!(admin.with("authorization", "Bearer close sesame").get("/status").await.status, 200);
}

#[tokio::test]
async fn a_page_in_a_browser_is_not_served() {
    let gateway = gateway(ANYWHERE);
    let browser = gateway.admin().with("origin", "https://evil.example");
    for (method, path) in [(Method::GET, "/status"), (Method::GET, "/livez"), (Method::POST, "/reload")] {
        let answer = browser.send(method, path, bytes::Bytes::new()).await;
        assert_eq!(answer.status, 403, "{path}");
    }
    assert_eq!(gateway.status().await["last_reload"], Value::Null, "nothing was reloaded");
}

async fn ask_socket(path: &Path, what: &str) -> std::io::Result<String> {
    let mut stream = UnixStream::connect(path).await?;
    stream
        .write_all(format!("{what} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n").as_bytes())
        .await?;
    let mut answer = String::new();
    within("an answer", stream.read_to_string(&mut answer)).await?;
    Ok(answer)
}

#[tokio::test]
async fn a_unix_socket_serves_as_address() {
    use std::os::unix::fs::PermissionsExt as _;
    // Relative: it begins where the configuration file is.
    let gateway = gateway("address = \"unix:admin.sock\"");
    let path = gateway.folder().join("admin.sock");
    let answer = ask_socket(&path, "GET /livez").await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("alive\n"), "{answer}");
    let answer = ask_socket(&path, "POST /reload").await.expect("an answer");
    assert!(answer.contains("\"changed\": false"), "{answer}");
    let mode = std::fs::metadata(&path).expect("the socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "for its owner only");
    let kept = tempfile::tempdir().expect("a folder");
    let elsewhere = kept.path().join("admin.sock");
    gateway.write(&toml("ok", &format!("address = \"unix:{}\"", elsewhere.display())));
    gateway.reload().await.expect("a reload");
    assert!(!path.exists(), "it moved away");
    ask_socket(&elsewhere, "GET /livez").await.expect("an answer at the new place");
    drop(gateway);
    assert!(!elsewhere.exists(), "nothing is left behind");
}

#[tokio::test]
async fn a_socket_file_that_nobody_listens_on_is_replaced() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("admin.sock");
    // What a gateway leaves behind that was killed.
    drop(std::os::unix::net::UnixListener::bind(&path).expect("a socket"));
    let admin = format!("address = \"unix:{}\"", path.display());
    let first = gateway(&admin);
    ask_socket(&path, "GET /livez").await.expect("an answer");
    let error = TestGateway::try_start(&toml("ok", &admin)).expect_err("the first one is still there");
    assert!(error.to_string().contains("another process listens there"), "{error}");
    ask_socket(&path, "GET /livez").await.expect("the first one is untouched");
    drop(first);
}

#[tokio::test]
async fn without_an_address_of_its_own_a_taken_default_is_no_reason_not_to_start() {
    // Whoever has it, somebody has.
    let _taken = TcpListener::bind("[::1]:9900").await;
    let gateway = gateway("");
    assert_eq!(gateway.running().admin(), None);
    assert_eq!(gateway.client().get("/").await.text(), "ok");
}

#[tokio::test]
async fn an_address_that_was_asked_for_must_be_free() {
    let taken = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = taken.local_addr().expect("an address");
    let error = TestGateway::try_start(&toml("ok", &format!("address = \"{address}\""))).err();
    let error = error.expect("it does not start");
    assert!(matches!(error, StartError::Bind { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains(&address.to_string()) && text.contains("is in use"), "{text}");
}

#[tokio::test]
async fn it_can_be_off() {
    let gateway = gateway("address = \"off\"");
    assert_eq!(gateway.client().get("/").await.text(), "ok");
    let admin = gateway.running().admin();
    assert!(admin.is_none(), "{admin:?}");
}

#[tokio::test]
async fn it_moves_with_a_reload() {
    let gateway = gateway(ANYWHERE);
    let before = gateway.admin();
    gateway.write(&toml("ok", "address = \"off\""));
    gateway.reload().await.expect("a reload");
    eventually("a closed door", async || before.connect().await.err()).await;
    // What cannot be listened on leaves everything as it was.
    gateway.write(&toml("new", "address = \"192.0.2.1:1\""));
    let error = gateway.reload().await.expect_err("no interface has this address");
    assert!(error.text.contains("192.0.2.1:1"), "{error}");
    assert_eq!(gateway.client().get("/").await.text(), "ok");
}

#[tokio::test]
async fn traffic_and_operators_do_not_meet() {
    let backend = Backend::http(|heard| http::Response::new(heard.uri.path().to_owned().into())).await;
    let gateway = TestGateway::start(&one_route(backend.addr(), ""));
    for path in ["/livez", "/metrics", "/reload"] {
        assert_eq!(gateway.client().get(path).await.text(), path, "a path like any other");
    }
}
