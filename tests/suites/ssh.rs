//! `ssh` and `ssh-config`: which key, which options, and what is done when a VM refuses.

use crate::DAEMON;
use gateway_tests::{Backend, lacks, within};
use http::{Response, StatusCode};
use http_body_util::Full;
use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::Output,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};
use tokio::process::Command;

/// Somebody's account: a home, a platform to ask for keys, and an `ssh` that tells what it was asked.
struct Account {
    folder: tempfile::TempDir,
    platform: Backend,
}

impl Account {
    /// The platform gives these keys, one after the other, and the last one for ever. `ssh` is a shell's
    /// script; `$n` in it is how often it has run before.
    async fn with(keys: &'static [&'static str], ssh: &str) -> Self {
        let asked = AtomicUsize::new(0);
        let platform = Backend::http(move |heard| {
            if heard.header("authorization") != "Bearer platform-secret" {
                let mut refused = Response::new(Full::from(""));
                *refused.status_mut() = StatusCode::UNAUTHORIZED;
                return refused;
            }
            let key = keys[asked.fetch_add(1, Relaxed).min(keys.len() - 1)];
            Response::new(Full::from(
                serde_json::json!({ "ssh_port": 22, "ssh_private_key": key }).to_string(),
            ))
        })
        .await;
        let folder = tempfile::tempdir().expect("a folder");
        let program = folder.path().join("bin/ssh");
        fs::create_dir(folder.path().join("bin")).expect("a folder");
        let script = format!(
            "#!/bin/sh\ncd {}\nn=$(cat runs 2>/dev/null || echo 0)\necho $((n + 1)) >runs\n\
             printf '%s\\n' \"$@\" >asked-$n\nfor a in \"$@\"; do case $a in LocalCommand=*) in=${{a#LocalCommand=}};; esac; done\n\
             {ssh}\n",
            folder.path().display()
        );
        fs::write(&program, script).expect("a script");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("it can be run");
        Self { folder, platform }
    }

    async fn run(&self, arguments: &[&str]) -> Output {
        self.run_as("platform-secret", arguments).await
    }

    async fn run_as(&self, api_key: &str, arguments: &[&str]) -> Output {
        let path = std::env::var("PATH").unwrap_or_default();
        let running = Command::new(DAEMON)
            .args(arguments)
            .env("PATH", format!("{}:{path}", self.folder.path().join("bin").display()))
            .env("XDG_STATE_HOME", self.folder.path())
            .env("VERS_API_URL", format!("http://{}/v1/", self.platform.addr()))
            .env("VERS_API_KEY", api_key)
            .env_remove("VERS_DOMAIN")
            .env_remove("VERS_CA_FILE")
            .output();
        within("the end of the command", running).await.expect("the command runs")
    }

    fn key(&self) -> PathBuf {
        self.folder.path().join("vers-gateway/ssh/vm-1.vm.example.com.key")
    }

    /// What ssh was asked for, the first time it ran or a later one; none where it did not.
    fn asked(&self, run: usize) -> Option<Vec<String>> {
        let asked = fs::read_to_string(self.folder.path().join(format!("asked-{run}"))).ok()?;
        Some(asked.lines().map(str::to_owned).collect())
    }
}

const VM: &str = "vm-1.vm.example.com";

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test]
async fn a_key_is_fetched_once_and_nobody_else_can_read_it() {
    let account = Account::with(&["KEY ONE"], "").await;
    for _ in 0..2 {
        let output = account.run(&["ssh", "--key", "--domain", "vm.example.com", "VM-1"]).await;
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        assert_eq!(text(&output.stdout).trim(), account.key().display().to_string());
    }
    let heard = account.platform.heard();
    assert_eq!(heard.len(), 1, "it is kept");
    assert_eq!(heard[0].uri.path(), "/v1/vm/vm-1/ssh_key");
    assert_eq!(fs::read_to_string(account.key()).expect("a key"), "KEY ONE\n");
    let mode = |path: &std::path::Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode(&account.key()), 0o600);
    assert_eq!(mode(account.key().parent().expect("a folder")), 0o700);
}

#[tokio::test]
async fn ssh_gets_the_way_the_key_and_the_command() {
    let account = Account::with(&["KEY ONE"], "sh -c \"$in\"; exit 7").await;
    let output = account.run(&["ssh", VM, "uname", "-a", "--", "-x"]).await;
    assert_eq!(output.status.code(), Some(7), "what the command ended with");
    let asked = account.asked(0).expect("ssh ran");
    let all = asked.join("\n");
    for option in [
        " connect '%h':443".to_owned(),
        "StrictHostKeyChecking=accept-new".to_owned(),
        "IdentitiesOnly=yes".to_owned(),
        format!("-i\n{}", account.key().display()),
        "vers-gateway/ssh/known_hosts".to_owned(),
    ] {
        assert!(all.contains(&option), "{option} in\n{all}");
    }
    assert!(all.ends_with(&format!("--\nroot@{VM}\nuname\n-a\n--\n-x")), "{all}");
    assert!(account.asked(1).is_none(), "it ran once");
}

#[tokio::test]
async fn a_command_is_no_option_of_ssh() {
    let account = Account::with(&["KEY ONE"], "sh -c \"$in\"").await;
    account.run(&["ssh", VM, "-oProxyCommand=touch owned"]).await;
    let asked = account.asked(0).expect("ssh ran");
    let own = asked.iter().position(|argument| argument == "--").expect("an end of options");
    assert_eq!(asked[own + 1..], [format!("root@{VM}"), "-oProxyCommand=touch owned".to_owned()]);
}

#[tokio::test]
async fn a_key_that_is_refused_is_fetched_again() {
    let account = Account::with(&["OLD", "NEW"], "[ $n = 0 ] && exit 255\nsh -c \"$in\"; exit 3").await;
    account.run(&["ssh", "--key", VM]).await;
    let output = account.run(&["ssh", VM, "true"]).await;
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    assert_eq!(fs::read_to_string(account.key()).expect("a key"), "NEW\n");
    assert!(account.asked(1).is_some() && account.asked(2).is_none(), "twice");
}

#[tokio::test]
async fn the_same_key_is_not_tried_twice() {
    let account = Account::with(&["OLD"], "exit 255").await;
    account.run(&["ssh", "--key", VM]).await;
    let output = account.run(&["ssh", VM, "true"]).await;
    assert_eq!(output.status.code(), Some(255));
    assert_eq!(account.platform.heard().len(), 2, "the platform was asked");
    assert!(account.asked(1).is_none(), "and has no other one");
}

/// A connection that breaks in the middle of a command looks like a refusal: 255.
#[tokio::test]
async fn a_command_that_has_begun_is_never_run_again() {
    let account = Account::with(&["OLD", "NEW"], "sh -c \"$in\"; exit 255").await;
    account.run(&["ssh", "--key", VM]).await;
    let output = account.run(&["ssh", VM, "rm -rf build"]).await;
    assert_eq!(output.status.code(), Some(255));
    assert!(account.asked(1).is_none(), "it ran once");
}

#[tokio::test]
async fn without_a_platform_ssh_has_keys_of_its_own() {
    let account = Account::with(&["KEY"], "exit 0").await;
    let output = account.run_as("", &["ssh", VM]).await;
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(!account.asked(0).expect("ssh ran").contains(&"-i".to_owned()));
}

#[tokio::test]
async fn errors_say_what_to_do_and_no_secret() {
    let account = Account::with(&["KEY"], "exit 0").await;
    for (api_key, arguments, part) in [
        ("platform-secret", &["ssh", "vm-1"][..], "--domain vm.example.com, or VERS_DOMAIN"),
        ("wrong-secret", &["ssh", VM], "VERS_API_KEY is not the key for this VM's owner"),
        ("", &["ssh", "--key", VM], "VERS_API_KEY"),
        ("platform-secret", &["ssh", "--key", "--api", "http://192.0.2.1/v1", VM], "in the clear"),
        ("platform-secret", &["ssh", "-oProxyCommand=x"], "unexpected argument"),
        ("platform-secret", &["ssh", "a/../b.c"], "no host's name"),
    ] {
        let output = account.run_as(api_key, arguments).await;
        assert_ne!(output.status.code(), Some(0), "{arguments:?}");
        let said = text(&output.stderr) + &text(&output.stdout);
        assert!(said.contains(part), "{arguments:?}: {said}");
        assert!(!said.contains("secret"), "{said}");
    }
    assert!(account.asked(0).is_none(), "ssh did not run");
}

/// As OpenSSH itself reads it.
#[tokio::test]
async fn the_stanza_is_understood() {
    let account = Account::with(&["KEY"], "").await;
    let output = account.run(&["ssh-config", "--domain", "vm.example.com"]).await;
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let file = account.folder.path().join("config");
    fs::write(&file, &output.stdout).expect("the stanza");
    let ssh = ["/usr/bin/ssh", "/usr/local/bin/ssh"].into_iter().find(|ssh| fs::exists(ssh).unwrap_or(false));
    let Some(ssh) = ssh else {
        lacks("ssh::the_stanza_is_understood", "ssh");
        return;
    };
    let reading = Command::new(ssh)
        .args(["-G", "-F"])
        .arg(&file)
        .arg(VM)
        .env("XDG_STATE_HOME", account.folder.path())
        .env("VERS_API_URL", format!("http://{}/v1", account.platform.addr()))
        .env("VERS_API_KEY", "platform-secret")
        .output();
    let output = within("ssh -G", reading).await.expect("ssh runs");
    let read = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    for line in ["user root", "stricthostkeychecking accept-new", "identitiesonly yes"] {
        assert!(read.lines().any(|known| known == line), "{line} in\n{read}");
    }
    assert!(read.contains(" connect '%h':443"), "{read}");
    assert!(
        read.contains(&format!("identityfile {}", account.key().display())) || read.contains("%h.key"),
        "{read}"
    );
    assert!(account.key().exists(), "the key came on the way");
}
