//! SSH on port 443 of a VM's name, by the lines of `docs/ssh.md`, and what travels inside it.

use super::{edge, file, fleet, run, started};
use crate::DAEMON;
use gateway_tests::{
    Backend,
    fleet::{DOMAIN, Fleet, Vm},
    must_run,
    openssh::{Account, SSHD},
    pages,
};
use http_body_util::Full;
use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};
use tokio::process::{Child, Command};

const NEEDS: &[&str] = &["ssh", "ssh-keygen", "scp", "rsync", "openssl", SSHD];

/// OpenSSH's server on a VM.
async fn serve(vm: &Vm, account: &Account) -> Child {
    let mut sshd = vm.namespace.command(SSHD);
    sshd.args(["-D", "-e", "-o", "ListenAddress=[::]:22", "-f"]).arg(account.server_config());
    started(sshd, vm, 22, "[::1]").await
}

/// The configuration of ssh that everybody on this machine has, for the time of the test: what a person
/// would answer, and then this.
fn configure(fleet: &Fleet, account: &Account, more: &str) {
    let config = fleet.folder().join("ssh_config");
    fs::write(&config, format!("{}\n{more}", account.client_options().join("\n")))
        .expect("a file is written");
    must_run("mount", &["--bind", &config.display().to_string(), "/etc/ssh/ssh_config"]);
}

/// A line of `docs/ssh.md` that begins so, with the name of this fleet's VM.
fn documented(begin: &str, shown: &str, vm: &Vm) -> String {
    let blocks = pages::blocks("docs/ssh.md");
    let mut lines = blocks.iter().flat_map(|block| block.text.lines());
    let line =
        lines.find(|line| line.starts_with(begin)).unwrap_or_else(|| panic!("no line begins {begin:?}"));
    pages::with(line, shown, &vm.host())
}

/// Runs a line as a shell does.
fn shell(fleet: &Fleet, line: &str) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", line]).current_dir(fleet.folder());
    shell.env("VERS_CA_FILE", fleet.ca()).env("XDG_STATE_HOME", fleet.folder().join("state"));
    shell
}

#[test]
fn the_line_that_the_platform_documents_works() {
    let test = "fleet::ssh::the_line_that_the_platform_documents_works";
    fleet(test, NEEDS, async |fleet| {
        let Some(account) = Account::new(test) else { return };
        configure(&fleet, &account, "");
        let _edge = edge(&fleet).await;
        let _sshd = serve(&fleet.a, &account).await;
        // Port 80, which the connection might have been for, answers nobody: nothing waits for it.
        let drop = "nft add table inet test; \
                    nft 'add chain inet test in { type filter hook input priority 0; }'; \
                    nft add rule inet test in tcp dport 80 drop";
        fleet.a.namespace.must_run(drop);
        let line = documented("ssh -o ProxyCommand=\"openssl", "45a68069….vm.example.com", &fleet.a);
        let begin = Instant::now();
        let ran = run(&mut shell(&fleet, &format!("{line} 'echo one; echo two >&2; exit 3'"))).await;
        assert!(
            begin.elapsed() < Duration::from_secs(4),
            "{:?}, and 5 s are what a connection may take",
            begin.elapsed()
        );
        assert_eq!((ran.code, ran.out.as_str()), (Some(3), "one\n"), "{}", ran.err);
        assert!(ran.err.contains("two\n"), "{}", ran.err);
        fleet.a.namespace.must_run("nft delete table inet test");
        // The same port speaks HTTPS still, and says what is missing.
        let url = format!("https://{}/", fleet.a.host());
        let web = run(&mut super::curl(&fleet, &[&url])).await.well();
        assert!(web.contains("nothing listens on IPv6 port 80 of this VM"), "{web}");
    });
}

#[test]
fn without_openssl_and_by_its_name_only() {
    let test = "fleet::ssh::without_openssl_and_by_its_name_only";
    fleet(test, NEEDS, async |fleet| {
        let Some(account) = Account::new(test) else { return };
        let _edge = edge(&fleet).await;
        let _sshd = serve(&fleet.a, &account).await;
        // The platform has the key; ssh has none of its own.
        let key = fs::read_to_string(account.key()).expect("the key");
        let answer = serde_json::json!({ "ssh_port": 22, "ssh_private_key": key }).to_string();
        let platform = Backend::http(move |_| ::http::Response::new(Full::from(answer.clone()))).await;
        fs::rename(account.key(), account.at("elsewhere")).expect("the key is nowhere");
        let api = format!("http://{}/v1", platform.addr());
        let run = async |line: &str| {
            let mut command = shell(&fleet, line);
            run(command.env("VERS_API_URL", &api).env("VERS_API_KEY", "key").env("VERS_DOMAIN", DOMAIN)).await
        };
        let stanza = run(&format!("{DAEMON} ssh-config --domain {DOMAIN}")).await.well();
        configure(&fleet, &account, &stanza);
        let ran = run(&format!("{DAEMON} ssh {} uname", fleet.a.id)).await;
        assert_eq!(ran.well(), "Linux\n");
        let asked = platform.last();
        assert_eq!(asked.uri.path(), format!("/v1/vm/{}/ssh_key", fleet.a.id));
        assert_eq!(asked.header("authorization"), "Bearer key");

        let shown = "45a68069-defc-4233-9865-6298d87053af.vm.example.com";
        let ssh = documented(&format!("ssh {}", fleet.a.id), shown, &fleet.a);
        assert_eq!(run(&format!("{ssh} echo by its name")).await.well(), "by its name\n");
        let (large, content) = file(&fleet, "build.tar", 5_000_000);
        let there = fleet.folder().join("there");
        let scp = documented("scp build.tar", shown, &fleet.a);
        run(&format!("{scp}{}", there.display())).await.well();
        assert!(fs::read(&there).expect("a file") == content, "as it was");
        run(&format!("scp {}:{} back", fleet.a.host(), there.display())).await.well();
        assert!(fs::read(fleet.folder().join("back")).expect("a file") == content, "as it was");

        let folder = fleet.folder().join("site/deep/er");
        fs::create_dir_all(&folder).expect("folders");
        fs::rename(large, folder.join("large")).expect("a file");
        fs::write(folder.join("small"), "small").expect("a file");
        let srv = fleet.folder().join("srv").display().to_string();
        let rsync = documented("rsync -avz site/", shown, &fleet.a);
        run(&pages::with(&rsync, "/srv/site/", &format!("{srv}/"))).await.well();
        same(&fleet, "site", "srv").await;
        run(&format!("rsync -avz {}:{srv}/ again/", fleet.a.host())).await.well();
        same(&fleet, "site", "again").await;
    });
}

/// Asserts that two folders hold the same.
async fn same(fleet: &Fleet, one: &str, other: &str) {
    assert!(fleet.folder().join(one).join(Path::new("deep/er/large")).exists());
    assert_eq!(run(&mut shell(fleet, &format!("diff -r {one} {other}"))).await.well(), "");
}
