//! `vers-gateway explain`: what it says is what traffic does.

use crate::DAEMON;
use gateway_tests::{Backend, TestGateway, guest, plugin, plugin_table};
use serde_json::Value;
use std::{fs, path::PathBuf, process::Command};

/// A configuration in a file of its own.
struct Config {
    _folder: tempfile::TempDir,
    file: PathBuf,
}

impl Config {
    fn new(toml: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("gateway.toml");
        fs::write(&file, toml).expect("a file");
        Self { _folder: folder, file }
    }

    /// Exit code, and both outputs.
    fn explain(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let mut command = Command::new(DAEMON);
        let output = command.args(["explain", "-c"]).arg(&self.file).args(arguments).output();
        let output = output.expect("it starts");
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).expect("text"))
    }

    #[track_caller]
    fn says(&self, arguments: &[&str], code: i32, words: &[&str]) {
        let (ended, said) = self.explain(arguments);
        assert_eq!(ended, Some(code), "{arguments:?}: {said}");
        for part in words {
            assert!(said.contains(part), "{part:?} is not said of {arguments:?}:\n{said}");
        }
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let (_, said) = self.explain(&[arguments, &["--json"]].concat());
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
    }
}

/// Routes that answer with their names.
const ROUTES: [(&str, &str); 9] = [
    ("everything", ""),
    ("exact", "host = \"a.example.com\""),
    ("below", "host = \"*.example.com\""),
    ("label", "host = \"{vm}.example.com\""),
    ("api", "host = \"{vm}.example.com\"\npath = \"/api/*\""),
    ("v1", "host = \"{vm}.example.com\"\npath = \"/api/v1\""),
    ("post", "host = \"{vm}.example.com\"\npath = \"/api/v1\"\nmethods = [\"POST\"]"),
    ("canary", "host = \"{vm}.example.com\"\npath = \"/api/v1\"\nheaders = { x-canary = \"1\" }"),
    ("elsewhere", "listeners = [\"other\"]\npath = \"/api/*\""),
];

fn routes() -> String {
    let routes = ROUTES.iter().map(|(name, conditions)| {
        format!("[[route]]\nname = \"{name}\"\n{conditions}\nto = {{ respond = {{ body = \"{name}\" }} }}\n")
    });
    let listeners = "[[listener]]\nname = \"main\"\naddress = \"127.0.0.1:0\"\n\
                     [[listener]]\nname = \"other\"\naddress = \"[::1]:0\"\n";
    format!("{listeners}{}", routes.collect::<String>())
}

#[tokio::test]
async fn the_route_that_is_told_is_the_one_that_traffic_takes() {
    let toml = routes();
    let (config, gateway) = (Config::new(&toml), TestGateway::start(&toml));
    let mut told = Vec::new();
    for host in ["a.example.com", "b.example.com", "c.b.example.com", "A.Example.Com:99", "elsewhere"] {
        for path in ["/", "/api/v1", "/api/v1?x=1", "/api/v2", "/API/v1"] {
            for (method, canary) in [("GET", "0"), ("GET", "1"), ("POST", "0"), ("POST", "1")] {
                let client = gateway_tests::Client::new(gateway.addr_of("main"));
                let client = client.with("host", host).with("x-canary", canary);
                let answer = match method {
                    "POST" => client.post(path, "").await,
                    _ => client.get(path).await,
                };
                let (host, canary) = (format!("host: {host}"), format!("x-canary: {canary}"));
                let arguments = ["--listener", "main", method, path, "-H", &host, "-H", &canary];
                let said = config.json(&arguments);
                assert_eq!(said["route"]["name"], answer.text(), "{arguments:?}: {said:#}");
                let others = said["others"].as_array().expect("the others").len();
                assert_eq!(others, ROUTES.len() - 1, "{said:#}");
                told.push(answer.text().to_owned());
            }
        }
    }
    let is_told = |name: &&str| told.iter().any(|told| told == name);
    let untold: Vec<_> = ROUTES.iter().map(|(name, _)| *name).filter(|name| !is_told(name)).collect();
    assert_eq!(untold, ["elsewhere"], "all routes of the listener are taken by some request");
}

#[test]
fn why_others_are_not_taken_is_said() {
    let config = Config::new(&routes());
    config.says(
        &["--listener", "main", "GET", "http://b.example.com/api/v1"],
        0,
        &[
            "request   GET b.example.com/api/v1\n",
            "listener  main on 127.0.0.1:0\n",
            "route     v1, vm = b\n",
            "not label: would take it, but its path is less specific",
            "not everything: would take it, but its host is less specific",
            "not post: is for other methods",
            "not canary: asks for another `x-canary`",
            "not exact: is for another host",
            "not elsewhere: is not on this listener",
            "answer    200 the route's own answer\n",
        ],
    );
    let own = "[[listener]]\naddress = \"[::]:8080\"\n[[route]]\nhost = \"a\"\nto = \"127.0.0.1:3000\"\n";
    let config = Config::new(own);
    config.says(&["GET", "http://a:8080/x"], 0, &["to        127.0.0.1:3000\n", "asked for /x of a:8080"]);
    config.says(&["GET", "http://b:8080/"], 1, &["route     none", "answer    404 no-route"]);
    config.says(&["GET", "/", "-H", "host: a b"], 1, &["answer    400 bad-host"]);
    config.says(&["GET", "http://a/"], 1, &["no listener takes such a request on port 80", "[::]:8080"]);
    config.says(&["GET", "https://a:8080/"], 0, &["speaks no TLS: another gateway must end it before"]);
    config.says(&["GET", "a/b"], 1, &["no path"]);
    config.says(&["CONNECT", "/"], 1, &["answer    501 connect-method"]);
    Config::new("[[listener]]\n").says(&["GET", "/"], 1, &["gateway.toml:1:1"]);
}

#[test]
fn bytes_and_vms_are_told_too() {
    let config = Config::new(
        "[[listener]]\naddress = \"[::]:5432\"\nprotocol = \"tcp\"\n\
         [[listener]]\nname = \"vms\"\naddress = \"[::]:3000-3010\"\n[vms]\ntable = { 45a68069-defc-4233-9865-6298d87053af = \"2001:db8::7\" }\n\
         [[route]]\nname = \"db\"\nlistener_port = 5432\nprotocol = \"tcp\"\nto = \"127.0.0.1:5433\"\n\
         [[route]]\nname = \"vm\"\nlisteners = [\"vms\"]\nhost = \"{vm}.vm.example.com\"\nto = \"vm:{vm}:{port}\"\n",
    );
    config.says(
        &["GET", "http://x:5432/"],
        0,
        &["route     db\n", "to        127.0.0.1:5433\n", "asked for bytes"],
    );
    config.says(
        &["GET", "https://45a68069-defc-4233-9865-6298d87053af.vm.example.com:3005/health"],
        0,
        &[
            "route     vm, vm = 45a68069-defc-4233-9865-6298d87053af\n",
            "to        vm:45a68069-defc-4233-9865-6298d87053af:3005: [2001:db8::7]:3005\n",
            "not db: carries bytes, not requests",
        ],
    );
}

#[tokio::test]
async fn plugins_are_called_and_what_they_change_is_said() {
    let (own, other) = (Backend::hello().await, Backend::hello().await);
    let to = other.addr().to_string();
    let auth = "grants = { secrets = [\"fleet\"] }\nconfig = { secret = \"fleet\", exempt = [\"/health\"] }\n\
                [secret.fleet]\nfile = \"fleet.txt\"\n";
    let headers = "config = { request = { x-team = \"red\", x-peer = \"{client_address}\" } }\n";
    let canary = format!(
        "grants = {{ backends = [\"{to}\"] }}\nconfig = {{ to = \"{to}\", header = {{ name = \"x-canary\" }} }}\n"
    );
    let toml = format!(
        "[[listener]]\naddress = \"[::1]:8080\"\n[[route]]\nname = \"app\"\nto = \"{}\"\n\
         plugins = [\"auth\", \"inject\", \"canary\"]\n{}{}{}",
        own.addr(),
        plugin_table("auth", &plugin("auth_token"), auth),
        plugin_table("inject", &plugin("header_inject"), headers),
        plugin_table("canary", &plugin("canary"), &canary),
    );
    let config = Config::new(&toml);
    fs::write(config.file.with_file_name("fleet.txt"), "s3cret").expect("a secret");
    config.says(
        &["GET", "/"],
        0,
        &["plugins   auth: respond 401 missing-token", "answer    401 missing-token"],
    );
    let token = "authorization: Bearer s3cret";
    let (_, said) = config.explain(&["GET", "/", "-H", token, "--client", "192.0.2.7"]);
    for part in
        ["auth: next", "inject: next", "  sets x-team: red", "  sets x-peer: 192.0.2.7", "canary: next"]
    {
        assert!(said.contains(part), "{part:?} is not said:\n{said}");
    }
    assert!(said.contains(&format!("to        {}\n", own.addr())), "{said}");
    config.says(
        &["GET", "/health?x=1", "-H", "x-canary: 1"],
        0,
        &[
            &format!("canary: route-to {to}"),
            &format!("to        {to}, chosen by a plugin"),
            "asked for /health?x=1",
        ],
    );
    assert_eq!((own.heard().len(), other.heard().len()), (0, 0), "nothing is sent");
}

/// A TLS listener before VMs, and a route that is none.
fn edge(vms: &str) -> Config {
    Config::new(&format!(
        "[[listener]]\naddress = \"[::]:443\"\ntls = true\n[certificate.own]\nself_signed = true\nnames = [\"*.vm.test\", \"app.test\"]\n\
         [vms]\n{vms}\n\
         [[route]]\nname = \"vm\"\nhost = \"{{vm}}.vm.test\"\nto = \"vm:{{vm}}:3000\"\n\
         [[route]]\nname = \"app\"\nhost = \"app.test\"\nto = \"127.0.0.1:3000\"\n"
    ))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_a_vm_is_found_is_told() {
    let table = edge("table = { web = \"2001:db8::7\" }");
    table.says(&["GET", "https://web.vm.test/"], 0, &["to        vm:web:3000: [2001:db8::7]:3000\n"]);
    table.says(
        &["GET", "https://other.vm.test/"],
        1,
        &["route     vm, vm = other", "answer    404 vm-unknown"],
    );

    let dns = gateway_tests::NameServer::start().await;
    dns.knows("web.internal", &["2001:db8::8"], 60);
    let asked = edge(&format!("dns = \"{{vm}}.internal\"\nnameservers = [\"{}\"]", dns.addr()));
    asked.says(&["GET", "https://web.vm.test/"], 0, &["to        vm:web:3000: [2001:db8::8]:3000\n"]);
    asked.says(&["GET", "https://other.vm.test/"], 1, &["vm-unknown"]);
    dns.says(gateway_tests::Says::Failure);
    asked.says(&["GET", "https://late.vm.test/"], 1, &["vm-lookup-failed: "]);
}

#[test]
fn a_request_for_another_host_than_the_handshakes_is_told() {
    let edge = edge("table = { web = \"2001:db8::7\", other = \"2001:db8::8\" }");
    let misdirected = ["answer    421 misdirected"];
    edge.says(&["GET", "https://web.vm.test/", "-H", "host: other.vm.test"], 1, &misdirected);
    edge.says(&["GET", "https://web.vm.test/", "-H", "host: app.test"], 1, &misdirected);
    edge.says(&["GET", "https://app.test/", "-H", "host: web.vm.test"], 1, &misdirected);
    edge.says(&["GET", "https://WEB.vm.test/", "-H", "host: web.VM.test"], 0, &["to        vm:web:3000"]);
    edge.says(&["GET", "https://b.test/", "-H", "host: app.test"], 0, &["to        127.0.0.1:3000"]);
}

#[tokio::test]
async fn what_plugins_make_of_answers_is_told() {
    let auth = "grants = { secrets = [\"fleet\"] }\nconfig = { secret = \"fleet\", exempt = [\"/health\"] }\n\
                [secret.fleet]\nfile = \"none.txt\"\n";
    let headers = "config = { request = { x-team = \"red\" }, response = { x-served-by = \"{route}\" }, response_remove = [\"server\"] }\n";
    let toml = format!(
        "[[listener]]\naddress = \"[::1]:8080\"\n[[route]]\nname = \"app\"\nto = \"127.0.0.1:1\"\n\
         plugins = [\"inject\", \"auth\"]\n{}{}",
        plugin_table("inject", &plugin("header_inject"), headers),
        plugin_table("auth", &plugin("auth_token"), auth),
    );
    let config = Config::new(&toml);
    config.says(
        &["GET", "/health"],
        0,
        &[
            "inject: next; looks at the answer, too",
            "answers   inject: next\n            sets x-served-by: app\n",
        ],
    );
    // That of a plugin is seen by those before it.
    config.says(
        &["GET", "/"],
        0,
        &["answers   inject: next\n", "sets x-served-by: app", "answer    401 secret-unset"],
    );
    let said = config.json(&["GET", "/health"]);
    assert_eq!(said["answers"][0]["changes"], serde_json::json!(["sets x-served-by: app"]), "{said:#}");
}

#[test]
fn secrets_that_plugins_put_anywhere_are_not_shown() {
    let more =
        "grants = { secrets = [\"key\"] }\nconfig = { secret = \"key\" }\n[secret.key]\nfile = \"key.txt\"\n";
    let config = Config::new(&format!(
        "[[listener]]\naddress = \"[::1]:8080\"\n[[route]]\nname = \"app\"\nto = \"127.0.0.1:1\"\n\
         plugins = [\"tell\"]\n{}",
        plugin_table("tell", &guest("tell_secret"), more)
    ));
    fs::write(config.file.with_file_name("key.txt"), "s3cret").expect("a secret");
    for (path, shown) in [
        ("/", &["sets x-api-key: key ***", "becomes /app?key=***", "asked for /app?key=***"][..]),
        ("/answer", &["respond 403 ***"]),
    ] {
        let (_, said) = config.explain(&["GET", path]);
        for part in shown {
            assert!(said.contains(part), "{part:?} is not said:\n{said}");
        }
        let (_, json) = config.explain(&["GET", path, "--json"]);
        assert!(json.contains("***"), "{json}");
        assert!(!said.contains("s3cret") && !json.contains("s3cret"), "a secret is shown:\n{said}\n{json}");
    }
}
