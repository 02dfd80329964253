//! The command line: what it prints, what it ends with, and which signals it obeys.

use crate::DAEMON;
use gateway_tests::{
    Backend, Client, GatewayProcess, Raw, eventually, one_route, plugin, plugin_table, within,
};
use rustix::process::{Pid, Signal, kill_process};
use std::{net::SocketAddr, path::Path, process::Stdio};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    net::{TcpListener, TcpStream},
    process::{Child, Command},
};

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(DAEMON);
    command.args(arguments).env_remove("VERS_LOG").stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// Runs it to its end: exit code, standard output, standard error.
async fn says(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = within(&format!("the end of {arguments:?}"), command(arguments).output()).await;
    let output = output.expect("the daemon starts");
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// A file of its own, and its path.
fn file(text: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("gateway.toml");
    std::fs::write(&path, text).expect("the file is written");
    let path = path.to_str().expect("a path that is text").to_owned();
    (folder, path)
}

const GOOD: &str = "[[listener]]\naddress = \"127.0.0.1:0\"\n[[route]]\nto = \"127.0.0.1:3000\"\n\
                    [admin]\naddress = \"off\"\n";

#[tokio::test]
async fn check_says_that_a_good_file_is_fine() {
    let (_folder, path) = file(GOOD);
    let (code, out, err) = says(&["check", "-c", &path]).await;
    assert_eq!((code, out.as_str()), (Some(0), ""));
    assert_eq!(err, format!("{path}: fine: 1 listener, 1 route, 0 plugins\n"));
}

#[tokio::test]
async fn check_says_everything_that_is_wrong_with_its_place() {
    let (_folder, path) = file(
        "[[listener]]\nadress = \"[::]:8080\"\n\n[[route]]\nto = \"127.0.0.1:3000\"\nplugins = [\"auht\"]\n\
         timeouts = { connect = \"5 parsecs\" }\n\n[plugin.auth]\ncomponent = \"auth.wasm\"\n",
    );
    let (code, out, err) = says(&["check", "-c", &path]).await;
    assert_eq!((code, out.as_str()), (Some(1), ""), "{err}");
    for part in [
        "error: unknown key `adress` in `[[listener]]`",
        &format!("{path}:2:1"),
        "did you mean `address`?",
        "error: no plugin is named `auht`",
        &format!("{path}:6:12"),
        "did you mean `auth`?",
        &format!("{path}:7:24"),
        "5 parsecs",
    ] {
        assert!(err.contains(part), "{part:?} is not in\n{err}");
    }
    assert_eq!(err.matches("error: ").count(), 3, "{err}");
    assert!(!err.contains('\u{1b}'), "colours are for terminals: {err:?}");
}

#[tokio::test]
async fn check_tries_plugins_out() {
    let table = plugin_table("auth", &plugin("auth_token"), "");
    let (_folder, path) =
        file(&format!("{GOOD}\n{table}").replace("[admin]", "plugins = [\"auth\"]\n[admin]"));
    let (code, _, err) = says(&["check", "-c", &path]).await;
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("secrets@0.1.0`, which is not granted"), "{err}");
    assert!(err.contains(&format!("{path}:10:13")), "{err}");

    let (_folder, path) = file(
        &format!("{GOOD}\n[plugin.auth]\ncomponent = \"no/such.wasm\"\n")
            .replace("[admin]", "plugins = [\"auth\"]\n[admin]"),
    );
    let (code, _, err) = says(&["check", "-c", &path]).await;
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("such.wasm") && err.contains(&format!("{path}:10:13")), "{err}");
}

#[tokio::test]
async fn check_warns_of_what_is_probably_not_meant() {
    let (_folder, path) = file(&GOOD.replace("127.0.0.1:0", "0.0.0.0:8080"));
    let (code, _, err) = says(&["check", "-c", &path]).await;
    assert_eq!(code, Some(0), "a warning is no refusal: {err}");
    assert!(err.contains("warning: ") && err.contains(&format!("{path}:2:11")), "{err}");
    assert!(err.ends_with("fine: 1 listener, 1 route, 0 plugins\n"), "{err}");
}

#[tokio::test]
async fn schema_is_json_that_describes_the_file() {
    let (code, out, err) = says(&["schema"]).await;
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let schema: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    for table in ["gateway", "log", "admin", "limits", "listener", "route", "backend", "plugin", "secret"] {
        assert!(schema["properties"][table].is_object(), "[{table}] is not in the schema");
    }
}

#[tokio::test]
async fn what_it_does_not_understand_ends_with_2() {
    let (_folder, path) = file(GOOD);
    for (arguments, part) in [
        (&[][..], "Usage: "),
        (&["frob"], "unrecognized subcommand 'frob'"),
        (&["run"], "--config <FILE>|--to <PORT>"),
        (&["check"], "--config <FILE>"),
        (&["run", "-c", &path, "--to", "3000"], "cannot be used with"),
        (&["run", "-c", &path, "--listen", "8080"], "cannot be used with"),
        (&["run", "--to", "99999"], "expected a port, or HOST:PORT"),
        (&["run", "--to", "localhost"], "expected a port, or HOST:PORT"),
        (&["run", "--to", "3000", "--listen", "localhost"], "expected a port, or an address"),
    ] {
        let (code, out, err) = says(arguments).await;
        assert_eq!((code, out.as_str()), (Some(2), ""), "{arguments:?}: {err}");
        assert!(err.contains(part), "{arguments:?}: {part:?} is not in\n{err}");
    }
}

#[tokio::test]
async fn run_does_not_start_without_a_good_file() {
    let (folder, path) = file(&GOOD.replace("to =", "too ="));
    let (code, _, err) = says(&["run", "-c", &path]).await;
    assert_eq!(code, Some(78), "{err}");
    assert!(err.starts_with("error: ") && err.contains(&format!("{path}:4:1")), "{err}");

    let missing = folder.path().join("missing.toml");
    let (code, _, err) = says(&["run", "-c", missing.to_str().expect("text")]).await;
    assert_eq!(code, Some(78), "{err}");
    assert!(err.starts_with(&format!("error: cannot read {}: ", missing.display())), "{err}");
    assert_eq!(err.lines().count(), 1, "{err}");
}

#[tokio::test]
async fn run_says_which_port_is_taken() {
    let taken = TcpListener::bind("[::]:0").await.expect("a free port");
    let port = taken.local_addr().expect("an address").port();
    for address in ["[::]", "127.0.0.1"] {
        let (_folder, path) = file(&GOOD.replace("127.0.0.1:0", &format!("{address}:{port}")));
        let (code, _, err) = says(&["run", "-c", &path]).await;
        assert_eq!(code, Some(69), "{err}");
        let expected = format!("error: cannot listen on {address}:{port}: port {port} is in use; `ss -ltnp");
        assert!(err.contains(&expected), "{err}");
    }
    let (_folder, path) = file(&GOOD.replace("127.0.0.1:0", "192.0.2.1:8080"));
    let (code, _, err) = says(&["run", "-c", &path]).await;
    assert_eq!(code, Some(69), "{err}");
    assert!(
        err.contains("cannot listen on 192.0.2.1:8080: no interface of this machine has this address"),
        "{err}"
    );
}

/// `run --to …`, and where it listens, which it says on standard error.
async fn bridge(arguments: &[&str]) -> (Child, SocketAddr) {
    let mut child = command(arguments).stderr(Stdio::piped()).spawn().expect("the daemon starts");
    let mut lines = BufReader::new(child.stderr.take().expect("its standard error")).lines();
    let address = within("the line that says where it listens", async {
        loop {
            let line = lines.next_line().await.expect("a line").expect("it runs");
            if line.contains(" listening ") {
                let (_, address) = line.rsplit_once("address=").expect("an address");
                return address.trim().parse().expect("an address");
            }
        }
    });
    let address = address.await;
    // What it says later must find a reader.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    (child, address)
}

#[tokio::test]
async fn run_to_a_port_needs_no_file() {
    let backend = Backend::hello().await;
    let port = backend.addr().port();
    let (to, host) = (port.to_string(), format!("localhost:{port}"));
    for to in [&to, &host] {
        let (_child, address) = bridge(&["run", "--to", to, "--listen", "[::1]:0"]).await;
        assert_eq!(Client::new(address).get("/").await.text(), "hello", "--to {to}");
        assert_eq!(backend.last().header("x-forwarded-for"), "::1");
    }
    let (_child, address) = bridge(&["run", "--to", &to, "--listen", "0"]).await;
    assert!(address.is_ipv6() && address.ip().is_unspecified(), "IPv6 and IPv4: {address}");
    for loopback in ["127.0.0.1", "::1"] {
        let address = SocketAddr::new(loopback.parse().expect("an address"), address.port());
        assert_eq!(Client::new(address).get("/").await.text(), "hello", "over {loopback}");
    }
}

fn route(body: &str) -> String {
    format!(
        "[[listener]]\nname = \"web\"\naddress = \"[::]:0\"\n[[route]]\nto = {{ respond = {{ body = \"{body}\" }} }}\n"
    )
}

#[tokio::test]
async fn hang_up_means_read_again() {
    let gateway = GatewayProcess::start(DAEMON, &route("old")).await;
    let client = Client::new(gateway.addr_of("web").await);
    assert_eq!(client.get("/").await.text(), "old");
    gateway.signal(Signal::HUP);
    eventually("word of the reload", async || {
        let log = gateway.log();
        log.into_iter()
            .find(|line| line["message"].as_str().is_some_and(|text| text.starts_with("nothing to reload")))
    })
    .await;
    gateway.write(&route("new"));
    gateway.signal(Signal::HUP);
    eventually("the new configuration", async || (client.get("/").await.text() == "new").then_some(())).await;
}

#[tokio::test]
async fn terminate_and_interrupt_mean_stop_when_all_is_done() {
    for signal in [Signal::TERM, Signal::INT] {
        let (backend, mut visitors) = Backend::by_hand().await;
        let mut gateway = GatewayProcess::start(DAEMON, &named(backend.addr())).await;
        let address = gateway.addr_of("web").await;
        let mut client = Raw::connect(address).await;
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        let mut server = visitors.next().await;
        server.head().await;
        gateway.signal(signal);
        eventually("a closed door", async || TcpStream::connect(address).await.err()).await;
        server.send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone").await;
        assert!(client.to_end().await.ends_with("\r\n\r\ndone"), "what ran was finished");
        assert_eq!(gateway.ended().await.code(), Some(0), "{}", gateway.log_text());
        // Whoever reads its log may be later than its end.
        eventually("the last line", async || {
            gateway.log().pop().is_some_and(|last| last["message"] == "stopped").then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_second_signal_ends_the_wait() {
    let (backend, mut visitors) = Backend::by_hand().await;
    let mut gateway = GatewayProcess::start(DAEMON, &named(backend.addr())).await;
    let address = gateway.addr_of("web").await;
    let mut client = Raw::connect(address).await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let _server = visitors.next().await;
    gateway.signal(Signal::TERM);
    eventually("a closed door", async || TcpStream::connect(address).await.err()).await;
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.ended().await.code(), Some(0), "{}", gateway.log_text());
    assert_eq!(client.to_end().await, "", "it was cut");
    assert!(gateway.log_text().contains("told twice to stop"), "{}", gateway.log_text());
}

/// One route to a backend, on a listener called `web`.
fn named(backend: SocketAddr) -> String {
    one_route(backend, "").replacen("[[listener]]", "[[listener]]\nname = \"web\"", 1)
}

#[tokio::test]
async fn the_log_is_one_object_a_line_and_tells_each_request() {
    let (web, raw) = (Backend::hello().await, Backend::tcp_echo().await);
    let toml = three_routes(web.addr(), Backend::nobody().await, raw.addr());
    let gateway = GatewayProcess::start(DAEMON, &toml).await;
    let client = Client::new(gateway.addr_of("web").await).with("host", "app.example");
    client.get("/path?secret=1").await;
    client.get("/none").await;
    let mut tunnel = Raw::connect(gateway.addr_of("raw").await).await;
    tunnel.send("ping").await;
    tunnel.exactly(4).await;
    tunnel.finish().await;
    tunnel.to_end().await;
    let lines = eventually("three lines", async || {
        let lines: Vec<_> = gateway.log().into_iter().filter(|line| line["target"] == "access").collect();
        (lines.len() >= 3).then_some(lines)
    })
    .await;
    let [answered, refused, carried] = lines.as_slice() else { panic!("{lines:?}") };
    for (key, value) in [
        ("client", "::1"),
        ("method", "GET"),
        ("host", "app.example"),
        ("path", "/path"),
        ("route", "app"),
        ("level", "INFO"),
    ] {
        assert_eq!(answered[key], value, "{answered}");
    }
    assert_eq!((&answered["status"], &answered["sent"]), (&200.into(), &5.into()), "{answered}");
    assert!(answered["duration_us"].as_u64().is_some_and(|micros| micros > 0), "{answered}");
    assert_eq!(answered["request_id"].as_str().map(str::len), Some(16), "{answered}");
    assert!(answered["timestamp"].is_string(), "{answered}");
    assert!(answered.get("error").is_none(), "{answered}");
    assert_eq!(
        (&refused["status"], &refused["error"]),
        (&502.into(), &"upstream-refused".into()),
        "{refused}"
    );
    for (key, value) in [("client", "::1"), ("route", "echo")] {
        assert_eq!(carried[key], value, "{carried}");
    }
    assert_eq!((&carried["sent"], &carried["received"]), (&4.into(), &4.into()), "{carried}");
    assert!(!gateway.log_text().contains("secret=1"), "queries may hold what is nobody's business");
}

fn three_routes(web: SocketAddr, nobody: SocketAddr, raw: SocketAddr) -> String {
    format!(
        r#"
        [[listener]]
        name = "web"
        address = "[::]:0"
        [[listener]]
        name = "raw"
        address = "[::1]:0"
        [[route]]
        name = "app"
        to = "{web}"
        [[route]]
        name = "none"
        path = "/none"
        to = "{nobody}"
        [[route]]
        name = "echo"
        listeners = ["raw"]
        protocol = "tcp"
        to = "{raw}"
        "#
    )
}

#[tokio::test]
async fn lost_lines_of_the_log_are_counted() {
    let gateway = GatewayProcess::start(DAEMON, &route("ok")).await;
    eventually("the count", async || {
        let text = gateway.admin().client().get("/metrics").await.text();
        text.contains("\nvers_log_lines_dropped_total 0\n").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_log_level_leaves_lines_out() {
    let toml = format!("{}[log]\nformat = \"json\"\nlevel = \"info\"\naccess = false\n", route("ok"));
    let gateway = GatewayProcess::start(DAEMON, &toml).await;
    Client::new(gateway.addr_of("web").await).get("/").await;
    gateway.signal(Signal::HUP);
    eventually("word of the reload", async || gateway.log_text().contains("nothing to reload").then_some(()))
        .await;
    assert!(!gateway.log_text().contains("\"access\""), "{}", gateway.log_text());
}

/// Ends a process that no [`GatewayProcess`] stands for.
fn terminate(child: &Child) {
    let id = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)).expect("a process that runs");
    kill_process(id, Signal::TERM).expect("a signal to a process of our own");
}

#[tokio::test]
async fn a_bridge_stops_as_well() {
    let (mut child, address) = bridge(&["run", "--to", "1", "--listen", "[::1]:0"]).await;
    assert_eq!(Client::new(address).get("/").await.header("x-gateway-error"), "upstream-refused");
    terminate(&child);
    let status = within("its end", child.wait()).await.expect("its state");
    assert_eq!(status.code(), Some(0));
}

#[tokio::test]
async fn relative_paths_begin_at_the_file() {
    let (folder, path) = file(
        &format!("{GOOD}\n[plugin.auth]\ncomponent = \"plugins/auth.wasm\"\n[plugin.auth.config]\nsecret = \"s\"\n[secret.s]\nfile = \"secret\"\n")
            .replace("[admin]", "plugins = [\"auth\"]\n[admin]")
            .replace("component =", "grants = { secrets = [\"s\"] }\ncomponent ="),
    );
    std::fs::create_dir(folder.path().join("plugins")).expect("a folder");
    std::fs::copy(plugin("auth_token"), folder.path().join("plugins/auth.wasm")).expect("a copy");
    std::fs::write(folder.path().join("secret"), "hush").expect("a secret");
    assert!(Path::new(&path).is_absolute(), "so the working folder is another one");
    let (code, _, err) = says(&["check", "-c", &path]).await;
    assert_eq!(code, Some(0), "{err}");
    assert!(!err.contains("hush"), "{err}");
}
