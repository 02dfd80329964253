//! `docs/plugins.md`, the READMEs of plugins, and the tables of `docs/edge.md`, executed: what they show builds, runs and does what
//! they say.

use gateway_tests::{
    Backend, Client, GatewayProcess, Raw, eventually, one_route,
    pages::{Block, block, blocks, changed, checkout, with},
    plugin, plugin_table,
};
use std::{
    fs,
    path::PathBuf,
    process::{Command, Output},
};

/// The one block in Rust that defines this struct.
fn plugin_code<'a>(blocks: &'a [Block], name: &str) -> &'a str {
    let definition = format!("struct {name} {{");
    let is_it = |block: &&Block| block.language == "rust" && block.text.contains(&definition);
    let found: Vec<_> = blocks.iter().filter(is_it).collect();
    assert_eq!(found.len(), 1, "{} blocks define {name}", found.len());
    &found[0].text
}

/// The crate of the guide, in a folder of its own outside the workspace.
struct Crate {
    folder: tempfile::TempDir,
}

impl Crate {
    /// The first plugin of the guide as its library; everything else that the pages show as examples.
    fn of_the_guide() -> Self {
        let guide = blocks("docs/plugins.md");
        let sdk = checkout().join("plugin-sdk").display().to_string();
        let mut manifest = with(block(&guide, "toml", "# Cargo.toml"), "../vers-gateway/plugin-sdk", &sdk);
        let tests = block(&guide, "rust", "// src/lib.rs, at the end");
        let mut files =
            vec![("src/lib.rs".to_owned(), format!("{}\n{tests}", block(&guide, "rust", "// src/lib.rs")))];
        let readme = blocks("plugin-sdk/README.md");
        for (name, code) in [
            ("echo", plugin_code(&guide, "Echo")),
            ("heartbeat", plugin_code(&guide, "Heartbeat")),
            ("hide", plugin_code(&guide, "Hide")),
            ("login", plugin_code(&guide, "LogInFirst")),
            ("auth", plugin_code(&readme, "AuthToken")),
        ] {
            manifest.push_str(&format!("\n[[example]]\nname = \"{name}\"\ncrate-type = [\"cdylib\"]\n"));
            files.push((format!("examples/{name}.rs"), code.to_owned()));
        }
        let folder = tempfile::tempdir().expect("a temporary folder");
        files.push(("Cargo.toml".to_owned(), manifest));
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            fs::write(path, text).expect("a file");
        }
        // The versions that this checkout was tested with, and that are on this machine already.
        fs::copy(checkout().join("Cargo.lock"), folder.path().join("Cargo.lock")).expect("a lock file");
        Self { folder }
    }

    /// Runs cargo, with the line of the guide that must stand in it.
    fn cargo(&self, line: &str, more: &[&str]) -> Output {
        let said = blocks("docs/plugins.md")
            .iter()
            .any(|block| block.language == "sh" && block.text.lines().any(|shown| shown == line));
        assert!(said, "the guide does not say `{line}`");
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(line.split(' ').skip(1)).arg("--offline").args(more).current_dir(self.folder.path());
        cargo.env("CARGO_TARGET_DIR", target());
        if line.contains("wasm32-wasip2")
            && let Some(compiler) = wasm_compiler()
        {
            cargo.env("RUSTC", compiler);
        }
        // What the cargo that runs this test says of its own crate would make build scripts run again.
        for (name, _) in std::env::vars()
            .filter(|(name, _)| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_"))
        {
            cargo.env_remove(name);
        }
        let output = cargo.output().expect("cargo starts");
        assert!(output.status.success(), "{line} {more:?}:\n{}", String::from_utf8_lossy(&output.stderr));
        output
    }

    fn component(file: &str) -> PathBuf {
        target().join("wasm32-wasip2/release").join(file)
    }
}

/// What `cargo xtask wasm` does: none, if the usual compiler can build plugins.
pub(crate) fn wasm_compiler() -> Option<String> {
    let output =
        Command::new("bash").arg(checkout().join("xtask/ensure-wasm.sh")).output().expect("bash starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let compiler = String::from_utf8(output.stdout).expect("a path").trim().to_owned();
    Some(compiler).filter(|compiler| !compiler.is_empty())
}

/// Shared with the checkout, so that nothing heavy is built again.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| checkout().join("target"), PathBuf::from)
}

/// The gateway's configuration of the guide, in front of this application.
fn configuration(backend: &Backend) -> String {
    let guide = blocks("docs/plugins.md");
    let shown = block(&guide, "toml", "# gateway.toml");
    let shown = with(shown, "[::]:8080", "[::]:0");
    let shown = with(&shown, "127.0.0.1:3000", &backend.addr().to_string());
    let component = Crate::component("teams.wasm").display().to_string();
    with(&shown, "target/wasm32-wasip2/release/teams.wasm", &component)
}

/// What `vers-gateway check` says of a configuration.
fn check(toml: &str) -> (bool, String) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("gateway.toml");
    fs::write(&file, toml).expect("a file");
    let output = Command::new(crate::DAEMON).args(["check", "-c"]).arg(&file).output().expect("it starts");
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// The value of `key = ` on a line, by line and column as an editor counts them.
fn place(toml: &str, value: &str) -> String {
    let (number, line) = (1..).zip(toml.lines()).find(|(_, line)| line.contains(value)).expect("the value");
    format!("gateway.toml:{number}:{}", line.find(value).expect("the value") + 1)
}

#[tokio::test]
async fn the_guide_leads_to_plugins_that_do_what_it_says() {
    let of_the_guide = Crate::of_the_guide();
    of_the_guide.cargo("cargo build --release --target wasm32-wasip2", &["--lib", "--examples"]);
    let tested = of_the_guide.cargo("cargo test", &["--lib"]);
    assert!(String::from_utf8_lossy(&tested.stdout).contains("1 passed"), "the page's own test ran");

    teams_decide().await;
    mistakes_are_found().await;
    tags_are_echoed().await;
    redis_clients_log_in_first().await;
    a_word_is_hidden().await;
    a_heartbeat_is_sent().await;
    the_readme_asks_for_a_token().await;
}

async fn teams_decide() {
    let backend = Backend::hello().await;
    let gateway = GatewayProcess::start(crate::DAEMON, &configuration(&backend)).await;
    let client = Client::new(gateway.addr_of("[::]:0").await);
    for (team, status) in [("red", 200), ("blue", 200), ("green", 403), ("", 403)] {
        let answer = client.clone().with("x-team", team).get("/").await;
        assert_eq!(answer.status, status, "{team:?}: {}", answer.text());
    }
    assert_eq!(client.get("/").await.status, 403, "without the header");
    assert_eq!(backend.heard().len(), 2, "only known teams reach the application");
    eventually("the reason in the access log", async || {
        let refused = |line: &serde_json::Value| line["reason"] == "unknown-team" && line["status"] == 403;
        (gateway.log().iter().filter(|line| refused(line)).count() == 3).then_some(())
    })
    .await;
}

async fn mistakes_are_found() {
    let backend = Backend::hello().await;
    let good = configuration(&backend);
    let (fine, told) = check(&good);
    assert!(fine, "{told}");
    let allowed = r#"allowed = ["red", "blue"]"#;
    for (mistake, value, words) in [
        (r#"allowed = "red""#, r#""red""#, "expected a sequence"),
        (r#"alowed = ["red"]"#, r#"["red"]"#, "unknown field `alowed`, expected `allowed`"),
    ] {
        let bad = with(&good, allowed, mistake);
        let (fine, told) = check(&bad);
        assert!(!fine, "{mistake} is accepted");
        for part in [words, &place(&bad, value)] {
            assert!(told.contains(part), "{part:?} is not said of {mistake}:\n{told}");
        }
    }
    // The promise of the table for routes, and of the one about grants.
    let own = with(
        &good,
        r#"plugins = ["teams"]"#,
        r#"plugins = [{ use = "teams", config = { allowed = ["red"] } }]"#,
    );
    let (fine, told) = check(&own);
    assert!(fine, "{told}");
    let heartbeat = plugin_table("h", &Crate::component("examples/heartbeat.wasm"), "");
    let (fine, told) = check(&one_route(backend.addr(), &format!("plugins = [\"h\"]\n{heartbeat}")));
    assert!(!fine && told.contains("which is not granted"), "{told}");
}

async fn tags_are_echoed() {
    let backend = Backend::hello().await;
    let table = plugin_table("echo", &Crate::component("examples/echo.wasm"), "");
    let toml = one_route(backend.addr(), &format!("plugins = [\"echo\"]\n{table}"));
    let gateway = gateway_tests::TestGateway::start(&toml);
    assert_eq!(gateway.client().with("x-tag", "a tag").get("/").await.header("x-tag"), "a tag");
    assert!(!gateway.client().get("/").await.headers.contains_key("x-tag"));
    let long = "x".repeat(20_000);
    let answer = gateway.client().with("x-tag", &long).get("/").await;
    assert_eq!((answer.status.as_u16(), answer.header("x-tag")), (200, ""), "too long to be echoed");
}

async fn redis_clients_log_in_first() {
    let backend = Backend::tcp_echo().await;
    let more = "grants = { backends = [\"127.0.0.1:1\"] }\nconfig = { beta = \"127.0.0.1:1\" }\n";
    let table = plugin_table("login", &Crate::component("examples/login.wasm"), more);
    let gateway = gateway_tests::TestGateway::start(&format!(
        "[[listener]]\naddress = \"[::]:0\"\n[[route]]\nprotocol = \"tcp\"\nto = \"{}\"\n\
         plugins = [\"login\"]\n{table}",
        backend.addr()
    ));
    let login = "*2\r\n$4\r\nAUTH\r\n$6\r\ns3cret\r\n";
    for (said, is_in) in
        [(login, true), ("auth s3cret\r\n", true), ("*1\r\n$4\r\nPING\r\n", false), ("PI", false)]
    {
        let mut client = Raw::connect(gateway.addr()).await;
        // As a network may cut it.
        let (begin, rest) = said.split_at(2);
        client.send(begin).await;
        client.send(rest).await;
        client.finish().await;
        assert_eq!(client.to_end().await, if is_in { said } else { "" }, "{said:?}");
    }
}

async fn a_word_is_hidden() {
    let backend = Backend::http(|heard| {
        let is_packed = !heard.header("accept-encoding").is_empty() || !heard.header("range").is_empty();
        let kind = if heard.uri.path() == "/stream" { "text/event-stream" } else { "text/plain" };
        let body = if is_packed { "in a way that shows no secret" } else { "a secret, a sec" };
        http::Response::builder().header("content-type", kind).body(body.into()).expect("a response")
    })
    .await;
    let table =
        plugin_table("hide", &Crate::component("examples/hide.wasm"), "config = { word = \"secret\" }\n");
    let toml = one_route(backend.addr(), &format!("plugins = [\"hide\"]\n{table}"));
    let gateway = gateway_tests::TestGateway::start(&toml);
    let client = gateway.client().with("accept-encoding", "gzip").with("range", "bytes=0-9");
    assert_eq!(client.get("/").await.text(), "a ***, a sec");
    assert_eq!(client.get("/stream").await.text(), "a secret, a sec", "it says so: no event streams");
}

async fn a_heartbeat_is_sent() {
    let (backend, listener) = (Backend::hello().await, Backend::hello().await);
    let toml = |seconds: u32| {
        let more = format!(
            "grants = {{ http = [\"http://{0}\"], secrets = [\"beat\"] }}\n\
             config = {{ url = \"http://{0}/beat\", seconds = {seconds}, secret = \"beat\" }}\n\
             [secret.beat]\nfile = \"beat.txt\"\n",
            listener.addr()
        );
        let table = plugin_table("beat", &Crate::component("examples/heartbeat.wasm"), &more);
        one_route(backend.addr(), &format!("plugins = [\"beat\"]\n{table}"))
    };
    let (fine, told) = check(&toml(0));
    assert!(!fine && told.contains("expected at least 1"), "{told}");
    let gateway = gateway_tests::TestGateway::start(&toml(1));
    eventually("its error", async || {
        (gateway.operator().plugin("beat").await["background"] == "failed: no token").then_some(())
    })
    .await;
    fs::write(gateway.folder().join("beat.txt"), "s3cret").expect("a secret");
    gateway.reload().await.expect("a good configuration");
    eventually("two heartbeats", async || (listener.heard().len() >= 2).then_some(())).await;
    let heard = listener.last();
    let told = (heard.method.as_str(), heard.uri.path(), heard.header("authorization"));
    assert_eq!(told, ("POST", "/beat", "Bearer s3cret"));
}

async fn the_readme_asks_for_a_token() {
    let backend = Backend::hello().await;
    let more = "grants = { secrets = [\"fleet\"] }\nconfig = { secret = \"fleet\", exempt = [\"/health\"] }\n\
                [secret.fleet]\nfile = \"fleet.txt\"\n";
    let table = plugin_table("auth", &Crate::component("examples/auth.wasm"), more);
    let toml = one_route(backend.addr(), &format!("plugins = [\"auth\"]\n{table}"));
    let gateway = gateway_tests::TestGateway::start(&toml);
    fs::write(gateway.folder().join("fleet.txt"), "s3cret").expect("a secret");
    gateway.reload().await.expect("a good configuration");
    let status = async |path: &str, token: &str| {
        let client = gateway.client().with("authorization", &format!("Bearer {token}"));
        client.get(path).await.status.as_u16()
    };
    assert_eq!(status("/", "s3cret").await, 200);
    assert_eq!(status("/", "wrong").await, 401);
    assert_eq!(status("/health", "wrong").await, 200);
}

/// The first-party plugins: folders with a manifest.
fn plugins() -> Vec<String> {
    let folder = fs::read_dir(checkout().join("plugins")).expect("the plugins");
    let folders = folder.map(|entry| entry.expect("a folder").path());
    let plugins = folders.filter(|folder| folder.join("Cargo.toml").exists());
    let names: Vec<String> =
        plugins.map(|folder| folder.file_name().expect("a name").to_string_lossy().into_owned()).collect();
    assert!(names.len() > 3, "the plugins are somewhere else: {names:?}");
    names
}

#[test]
fn tables_in_the_readmes_of_plugins_are_accepted() {
    for name in plugins() {
        let page = format!("plugins/{name}/README.md");
        let shown: Vec<_> = blocks(&page).into_iter().filter(|block| block.language == "toml").collect();
        assert_eq!(shown.len(), 1, "{page} shows one table");
        let file = name.replace('-', "_");
        let table = with(&shown[0].text, &format!("{file}.wasm"), &plugin(&file).display().to_string());
        let used = table.trim_start().trim_start_matches("[plugin.").split(']').next().unwrap_or_default();
        let toml = format!(
            "[[listener]]\naddress = \"[::]:8080\"\n[[route]]\nto = \"127.0.0.1:3000\"\n\
             plugins = [\"{used}\"]\n{table}[secret.fleet]\nenv = \"VERS_AUTH_TOKEN\"\n"
        );
        let (fine, told) = check(&toml);
        assert!(fine, "{page}: {told}");
    }
}

/// Each with what it is a change of, and without a warning.
#[test]
fn the_tables_of_the_page_about_the_edge_are_accepted() {
    let shown: Vec<_> = blocks("docs/edge.md").into_iter().filter(|block| block.language == "toml").collect();
    let of = |page: &[Block], first: &str| block(page, "toml", first).to_owned();
    let folder = tempfile::tempdir().expect("a folder");
    let here = format!("{}/", folder.path().display());
    let pair = gateway_tests::Pki::new().issue(&["*.vm.example.com"]);
    for (name, text) in [
        ("fullchain.pem", pair.cert.as_str()),
        ("privkey.pem", &pair.key),
        ("vms.csv", block(&blocks("docs/edge.md"), "", "# /etc/vers/vms.csv")),
        ("fleet-token", "s3cret"),
    ] {
        fs::write(folder.path().join(name), text).expect("a file");
    }
    let plugins = format!("{}/", plugin("auth_token").parent().expect("a folder").display());
    let mut pages = 0;
    for block in &shown {
        let first = block.text.lines().next().expect("a line");
        let (page, is_change) = match first.split_once(": ") {
            Some((page @ "# edge.toml", _)) => (page, true),
            _ => (first, false),
        };
        let toml = if is_change { changed(&of(&shown, page), &block.text) } else { block.text.clone() };
        let (fine, told) =
            check(&toml.replace("/etc/vers/", &here).replace("\"plugins/", &format!("\"{plugins}")));
        assert!(fine && !told.contains("warning"), "{first}: {told}");
        pages += 1;
    }
    assert_eq!(pages, 7, "as many as there are");
}
