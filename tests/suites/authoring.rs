//! What plugin authors type: `vers-gateway plugin new`, `build`, `inspect`, `check`, `test`, `bench`; for `dev` see `guide_dev`.

use crate::guide::{target, wasm_compiler};
use gateway_tests::{guest, pages::checkout, plugin};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// What a command said, and what it ended with.
#[derive(Debug)]
pub(crate) struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
    }
}

impl Said {
    #[track_caller]
    pub(crate) fn fine(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }

    /// The answer is no, and these words are said.
    #[track_caller]
    pub(crate) fn no(self, words: &[&str]) -> Self {
        assert_eq!(self.code, Some(1), "{self:?}");
        self.has(words)
    }

    #[track_caller]
    pub(crate) fn has(self, words: &[&str]) -> Self {
        for part in words {
            assert!(self.out.contains(part) || self.err.contains(part), "{part:?} is not said: {self:#?}");
        }
        self
    }
}

/// A folder in which an author works.
pub(crate) struct Author {
    folder: tempfile::TempDir,
}

impl Author {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder") }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(&path, text).expect("a file");
        path
    }

    /// `vers-gateway plugin …`, in this folder.
    pub(crate) fn plugin(&self, arguments: &[&str]) -> Said {
        self.run(Command::new(crate::DAEMON).arg("plugin").args(arguments), "")
    }

    /// The same, in the crate's folder.
    fn plugin_in(&self, folder: &str, arguments: &[&str]) -> Said {
        self.run(Command::new(crate::DAEMON).arg("plugin").args(arguments), folder)
    }

    fn run(&self, command: &mut Command, folder: &str) -> Said {
        self.prepare(command, folder);
        command.output().expect("it starts").into()
    }

    /// Has a command run in a crate's folder, as its author would have it.
    pub(crate) fn prepare(&self, command: &mut Command, folder: &str) {
        // The versions that this checkout was tested with are on this machine already.
        command
            .current_dir(self.path(folder))
            .env("CARGO_TARGET_DIR", target())
            .env("CARGO_NET_OFFLINE", "true");
        if let Some(compiler) = wasm_compiler() {
            command.env("RUSTC", compiler);
        }
        // What the cargo that runs this test says of its own crate would make build scripts run again.
        for (name, _) in std::env::vars()
            .filter(|(name, _)| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_"))
        {
            command.env_remove(name);
        }
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path that is text")
}

#[test]
fn the_sdk_could_be_published_with_all_that_it_needs() {
    let mut cargo = Command::new("cargo");
    cargo.args(["package", "--package", "vers-plugin", "--list", "--allow-dirty", "--offline"]);
    let output = cargo.current_dir(checkout()).output().expect("cargo starts");
    let list = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for file in fs::read_dir(checkout().join("wit")).expect("the interface") {
        let name = file.expect("a file").file_name().into_string().expect("a name");
        assert!(list.lines().any(|line| line == format!("wit/{name}")), "{name} is not in\n{list}");
    }
}

#[test]
fn inspect_says_what_a_component_is_and_runs_nothing() {
    let author = Author::new();
    author.plugin(&["inspect", text(&plugin("auth_token"))]).fine().has(&[
        "auth-token 0.1.0",
        "vers:gateway@0.1.0",
        "request-filter",
        "grants = { secrets = [\"name\"] }",
        "string, required  Name of the secret",
        "\"deny\" or \"allow\"",
    ]);
    let said = author.plugin(&["inspect", "--json", text(&plugin("registry_register"))]).fine();
    let json: serde_json::Value = serde_json::from_str(&said.out).expect("JSON");
    assert_eq!(json["hooks"], serde_json::json!(["background"]));
    assert_eq!(json["manifest"]["config"]["required"], serde_json::json!(["name"]));
    assert_eq!(json["manifest"]["config"]["properties"]["interval"]["title"], "duration such as \"15s\"");
    let import = |name: &str| {
        let imports = json["imports"].as_array().expect("imports");
        let is_it = |import: &&serde_json::Value| import["name"] == format!("vers:gateway/{name}@0.1.0");
        imports.iter().find(is_it).unwrap_or_else(|| panic!("{name} in {imports:?}")).clone()
    };
    assert_eq!(import("outbound-http")["grant"], "grants = { http = [\"https://host:port\"] }");
    assert_eq!(import("log")["grant"], serde_json::Value::Null);
    let sha256 = json["sha256"].as_str().expect("a hash");
    assert_eq!(sha256.len(), 64);
    // Its `configure` never returns, and nobody notices.
    author.plugin(&["inspect", text(&guest("spin"))]).fine();
    author.plugin(&["inspect", text(&guest("missing_import"))]).fine().has(&["does not offer"]);
}

#[test]
fn what_is_no_plugin_is_told_so() {
    let author = Author::new();
    let module = author.write("module.wasm", "\0asm\u{1}\0\0\0");
    author.plugin(&["inspect", text(&module)]).no(&["build it with `--target wasm32-wasip2`"]);
    let words = author.write("words.wasm", "hello");
    author.plugin(&["inspect", text(&words)]).no(&["does not start like one"]);
    author.plugin(&["inspect", "nowhere.wasm"]).no(&["cannot read nowhere.wasm"]);
    author.plugin(&["check", text(&guest("missing_import"))]).no(&["which this gateway does not offer"]);
    author.plugin(&["build"]).no(&["no Cargo.toml", "plugin new NAME"]);
    author.plugin(&["new", "Team_Check"]).has(&["such as `team-check`"]);
    author.write("full/file", "");
    author.plugin(&["new", "full"]).no(&["not empty"]);
}

#[test]
fn check_tries_settings_and_shows_the_place_of_each_mistake() {
    let author = Author::new();
    let component = plugin("auth_token");
    author.plugin(&["check", text(&component)]).fine().has(&["needs grants = { secrets", "were not tried"]);
    let good = author.write("good.toml", "secret = \"fleet\"\n");
    author.plugin(&["check", text(&component), "-c", text(&good)]).fine().has(&["its settings are accepted"]);
    let bad = author.write("bad.toml", "secret = \"fleet\"\nexempt = [\"/health\", \"/*\"]\n");
    let place = format!("{}:2:22", text(&bad));
    author.plugin(&["check", text(&component), "-c", text(&bad)]).no(&[&place, "exempts every path"]);
    let broken = author.write("broken.toml", "secret = \n");
    author.plugin(&["check", text(&component), "-c", text(&broken)]).no(&["broken.toml:1:"]);
}

#[test]
fn cases_show_what_is_not_as_it_should_be_and_where() {
    let author = Author::new();
    author.write(
        "tests/cases.toml",
        r#"config = { secret = "fleet", exempt = ["/health"] }
secrets = { fleet = "s3cret" }

[[case]]
name = "the token passes"
request = { headers = { authorization = "Bearer s3cret" } }
expect = { verdict = "next" }

[[case]]
name = "health needs none"
request = { path = "/health" }
expect = { verdict = "next", request = { path = "/health", headers = { authorization = false } } }

[[case]]
name = "no token, no answer"
expect = { verdict = "respond", response = { status = 401, reason = "missing-token", headers = { www-authenticate = "Bearer" } } }
"#,
    );
    let component = plugin("auth_token");
    author
        .plugin(&["test", text(&component)])
        .fine()
        .has(&["ok      the token passes", "3 passed, 0 failed"]);

    let wrong = author.write(
        "wrong.toml",
        r#"config = { secret = "fleet" }

[[case]]
name = "everybody passes"
expect = { verdict = "next", response = { status = 200, headers = { www-authenticate = false } } }

[[case]]
name = "its own settings are wrong"
config = { secrets = "fleet" }
expect = {}
"#,
    );
    author.plugin(&["test", text(&component), "--cases", text(&wrong)]).no(&[
        "FAILED  everybody passes",
        "wrong.toml:3)",
        "the verdict is \"respond\", expected \"next\"",
        "the status is \"401\", expected \"200\"",
        "header www-authenticate is [\"Bearer\"], expected none",
        "unknown field `secrets`",
        "2 cases: 0 passed, 2 failed",
    ]);
    let typo = author.write("typo.toml", "[[case]]\nname = \"a\"\nexpect = { verdikt = \"next\" }\n");
    author.plugin(&["test", text(&component), "--cases", text(&typo)]).no(&["typo.toml:3:12", "verdikt"]);
    let origin = author.write("origin.toml", "http = [\"a.example\"]\n[[case]]\nname = \"a\"\nexpect = {}\n");
    author
        .plugin(&["test", text(&component), "--cases", text(&origin)])
        .no(&["origin.toml:1:9", "not an origin"]);
    let none = author.write("none.toml", "");
    author.plugin(&["test", text(&component), "--cases", text(&none)]).no(&["there is no [[case]]"]);
}

#[test]
fn a_body_is_shown_where_the_gateway_would_and_measured() {
    let author = Author::new();
    let cases = author.write(
        "tests/cases.toml",
        r#"[[case]]
name = "a body is turned around"
request = { method = "POST", body = "abc", headers = { x-body = "100" } }
expect = { verdict = "next", request = { body = "cba", headers = { x-bytes = "3" } } }

[[case]]
name = "what is for another protocol has none"
request = { body = "refuse", headers = { x-body = "100", connection = "upgrade", upgrade = "chat" } }
expect = { verdict = "next", request = { body = "refuse", headers = { x-bytes = false } } }
"#,
    );
    let component = guest("body_edit");
    author.plugin(&["test", text(&component), "--cases", text(&cases)]).fine().has(&["2 passed, 0 failed"]);
    author
        .plugin(&["bench", text(&component), "--cases", text(&cases), "--calls", "10"])
        .fine()
        .has(&["on-request   a body", "on-request-body a body"]);
}

#[test]
fn a_panic_is_shown_with_its_words_and_may_be_expected() {
    let author = Author::new();
    let cases = |expect: &str| {
        format!(
            "[[case]]\nname = \"it panics\"\nrequest = {{ headers = {{ x-trap = \"request\" }} }}\n{expect}\n"
        )
    };
    let passes = author.write("passes.toml", &cases("expect = { verdict = \"next\" }"));
    author
        .plugin(&["test", text(&guest("trap")), "--cases", text(&passes)])
        .no(&["the call failed: it trapped", "asked to panic on request"]);
    let fault = author.write("fault.toml", &cases("expect = { verdict = \"fault\" }"));
    author.plugin(&["test", text(&guest("trap")), "--cases", text(&fault)]).fine();
}

#[test]
fn a_new_plugin_passes_its_tests_as_it_is_and_a_changed_one_fails_them() {
    let author = Author::new();
    let sdk = checkout().join("plugin-sdk");
    author.plugin(&["new", "team-check", "--sdk-path", text(&sdk)]).fine();
    fs::copy(checkout().join("Cargo.lock"), author.path("team-check/Cargo.lock")).expect("a lock file");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    author.run(cargo.arg("test"), "team-check").fine().has(&["2 passed"]);
    author.plugin_in("team-check", &["test"]).fine().has(&["3 cases: 3 passed, 0 failed"]);
    let component = target().join("wasm32-wasip2/release/team_check.wasm");
    author.plugin_in("team-check", &["build"]).fine().has(&[
        text(&component),
        "team-check 0.1.0",
        "Lets requests of known teams pass",
        "request-filter, response-filter",
        "list of string, required  The teams, as `x-team` names them.",
    ]);
    author.plugin_in("team-check", &["bench", "--calls", "10"]).fine().has(&[
        "on-request   a known team passes",
        "on-response  all others are refused",
        "make an instance and configure it",
        " KiB",
        " ns",
    ]);
    let gateway = author.path("team-check/gateway.toml");
    let toml = fs::read_to_string(&gateway).expect("a configuration");
    let here = toml.replace("target/wasm32-wasip2", text(&target().join("wasm32-wasip2")));
    fs::write(&gateway, here).expect("a configuration");
    let mut check = Command::new(crate::DAEMON);
    author.run(check.args(["check", "-c", "gateway.toml"]), "team-check").fine().has(&["1 plugin"]);

    let library = author.path("team-check/src/lib.rs");
    let code = fs::read_to_string(&library).expect("the code");
    fs::write(&library, code.replace("\"unknown-team\"", "\"stranger\"")).expect("the code");
    author.plugin_in("team-check", &["test"]).no(&[
        "FAILED  all others are refused (tests/cases.toml:",
        "the reason is \"stranger\", expected \"unknown-team\"",
        "2 passed, 1 failed",
    ]);
    fs::write(&library, "fn broken(").expect("the code");
    author.plugin_in("team-check", &["test"]).no(&["unclosed delimiter", "it does not compile"]);
}

#[test]
fn a_version_of_the_sdk_may_be_named() {
    let author = Author::new();
    author.plugin(&["new", "a", "--sdk-version", "0.2"]).fine();
    let manifest = fs::read_to_string(author.path("a/Cargo.toml")).expect("a manifest");
    assert!(manifest.contains("vers-plugin = \"0.2\""), "{manifest}");
}

#[test]
fn without_an_sdk_nothing_is_made_that_would_not_build() {
    let author = Author::new();
    author.plugin(&["new", "a"]).no(&["its SDK is in no public registry yet", "--sdk-path", "--sdk-version"]);
    assert!(!author.path("a").exists(), "a folder was made");
    // The one of a checkout beside this folder, or around it.
    let sdk = author.path("vers-gateway/plugin-sdk");
    fs::create_dir_all(&sdk).expect("a folder");
    fs::write(sdk.join("Cargo.toml"), "[package]\nname = \"vers-plugin\"\n").expect("a manifest");
    author.plugin(&["new", "a"]).fine();
    let manifest = fs::read_to_string(author.path("a/Cargo.toml")).expect("a manifest");
    let sdk = sdk.canonicalize().expect("its path");
    assert!(manifest.contains(&format!("vers-plugin = {{ path = \"{}\" }}", sdk.display())), "{manifest}");
}

#[test]
fn cases_may_be_connections_and_bodies() {
    let author = Author::new();
    let cases = |text: &str| fs::write(author.path("cases.toml"), text).expect("cases");
    let test = |component: &str| author.plugin(&["test", text(&guest(component)), "--cases", "cases.toml"]);
    cases(
        "backends = [\"other\"]\nconfig = { accept = \"peek\", least = 3, to = \"other\" }\n\
         [[case]]\nname = \"what is fine goes on\"\nconnection = { bytes = \"hello\" }\nexpect = { verdict = \"next\" }\n\
         [[case]]\nname = \"what is bad does not\"\nconnection = { bytes = \"BAD\", tls = true }\n\
         expect = { verdict = \"refuse\", reason = \"bad-bytes\", reset = false }\n\
         [[case]]\nname = \"another server\"\nconnection = { bytes = \"ALT\" }\n\
         expect = { verdict = \"route-to\", to = \"other\" }\n\
         [[case]]\nname = \"a panic\"\nconnection = { bytes = \"PANIC\" }\nexpect = { verdict = \"fault\" }\n\
         [[case]]\nname = \"it asks for what it has\"\nconnection = { bytes = \"SAME?\" }\n\
         expect = { verdict = \"refuse\", reason = \"no-end\" }\n\
         [[case]]\nname = \"wrong\"\nconnection = { bytes = \"BAD\" }\nexpect = { verdict = \"next\", reset = true }\n",
    );
    test("tcp_gate").no(&[
        "5 passed, 1 failed",
        "the verdict is \"refuse\", expected \"next\"",
        "the end is \"no reset\", expected \"reset\"",
    ]);
    cases(
        "config = { tail = \"!\" }\n\
         [[case]]\nname = \"all of it\"\nresponse = { headers = { x-transform = \"upper\" }, body = [\"one \", \"two\"] }\n\
         expect = { response = { body = \"ONE TWO!\", headers = { x-transformed = \"upper\" } } }\n\
         [[case]]\nname = \"broken off\"\nresponse = { headers = { x-transform = \"end\" }, body = \"one\" }\n\
         expect = { verdict = \"fault\" }\n\
         [[case]]\nname = \"an upload\"\nrequest = { method = \"POST\", headers = { x-transform = \"upper\" }, body = [\"one \", \"two\"] }\n\
         expect = { verdict = \"next\", request = { body = \"ONE TWO!\", headers = { x-transformed = \"upper\" } } }\n\
         [[case]]\nname = \"none for it\"\nrequest = { method = \"POST\", body = \"one\" }\n\
         expect = { verdict = \"next\", request = { body = \"one\", headers = { x-transformed = false } } }\n\
         [[case]]\nname = \"an upload broken off\"\nrequest = { method = \"POST\", headers = { x-transform = \"end\" }, body = \"one\" }\n\
         expect = { verdict = \"fault\" }\n\
         [[case]]\nname = \"wrong\"\nrequest = { method = \"POST\", headers = { x-transform = \"upper\" }, body = \"one\" }\n\
         expect = { request = { body = \"one\" } }\n",
    );
    test("transform").no(&["5 passed, 1 failed", "the body is \"ONE!\", expected \"one\""]);
}
