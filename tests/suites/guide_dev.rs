//! The shortest way of `docs/plugins.md`, walked: a new plugin on a route, which follows its sources.

use crate::{authoring::Author, guide::target};
use gateway_tests::{
    Backend, Client, TestGateway, one_route,
    pages::{blocks, checkout, with},
    plugin_table,
};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    time::{Instant, sleep},
};

/// How long a build may take on a busy machine.
const BUILDING: Duration = Duration::from_secs(120);

/// `vers-gateway plugin dev`, while it runs, and what it says.
struct Dev {
    child: Child,
    said: Arc<Mutex<String>>,
}

impl Dev {
    fn start(author: &Author, folder: &str, arguments: &[&str]) -> Self {
        let mut command = std::process::Command::new(crate::DAEMON);
        author.prepare(command.args(["plugin", "dev"]).args(arguments), folder);
        let mut command = Command::from(command);
        let command = command.stdin(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().expect("it starts");
        let mut lines = BufReader::new(child.stderr.take().expect("its standard error")).lines();
        let said = Arc::<Mutex<String>>::default();
        let written = Arc::clone(&said);
        // It ends with the command.
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                let mut said = written.lock().unwrap_or_else(PoisonError::into_inner);
                said.push_str(&line);
                said.push('\n');
            }
        });
        Self { child, said }
    }

    fn said(&self) -> String {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until it says this, and returns what stands behind it on its line. Forgets what was said up to there.
    async fn says(&mut self, words: &str) -> String {
        let deadline = Instant::now() + BUILDING;
        loop {
            if let Some((_, behind)) = self.said().split_once(words)
                && let Some((line, rest)) = behind.split_once('\n')
            {
                *self.said.lock().unwrap_or_else(PoisonError::into_inner) = rest.to_owned();
                return line.to_owned();
            }
            let ended = self.child.try_wait().expect("its state");
            assert!(ended.is_none() && Instant::now() < deadline, "{words:?} is not said: {}", self.said());
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Ctrl-C.
    async fn interrupt(mut self) -> ExitStatus {
        let id = self.child.id().expect("a command that runs");
        let pid = Pid::from_raw(i32::try_from(id).expect("an id")).expect("an id");
        kill_process(pid, Signal::INT).expect("a signal");
        gateway_tests::within("its end", self.child.wait()).await.expect("its end")
    }
}

/// The commands of the guide, from nothing to a plugin on a route.
fn commands() -> Vec<String> {
    let guide = blocks("docs/plugins.md");
    let shown = guide.into_iter().find(|block| block.text.contains("plugin dev --to")).expect("the commands");
    shown.text.lines().map(str::to_owned).collect()
}

async fn status(client: &Client, team: &str) -> u16 {
    client.clone().with("x-team", team).get("/").await.status.as_u16()
}

#[tokio::test]
async fn five_commands_lead_to_a_plugin_that_follows_its_sources() {
    let author = Author::new();
    let shown = commands();
    assert!(shown.len() <= 5, "{shown:?}");
    let [new, cd, dev, curl] = shown.as_slice() else { panic!("{shown:?}") };
    // Under another name: components of all tests lie in one folder.
    let sdk = checkout().join("plugin-sdk").display().to_string();
    let new = with(&with(new, "vers-gateway/plugin-sdk", &sdk), "new teams", "new followed");
    author.plugin(&new.split(' ').skip(2).collect::<Vec<_>>()).fine();
    assert_eq!(cd, "cd teams");
    fs::copy(checkout().join("Cargo.lock"), author.path("followed/Cargo.lock")).expect("a lock file");
    let backend = Backend::hello().await;
    let dev = with(dev, "--to 3000", &format!("--to {} --listen [::1]:0", backend.addr()));
    let mut dev = Dev::start(&author, "followed", &dev.split(' ').skip(3).collect::<Vec<_>>());
    let address = dev.says("runs on ").await;
    let client = Client::new(address.parse().expect("an address"));
    assert_eq!(curl, "curl -H 'x-team: red' http://localhost:8080/");
    assert_eq!((status(&client, "red").await, status(&client, "green").await), (200, 403));
    dev.says("reason=unknown-team").await;

    let library = author.path("followed/src/lib.rs");
    let code = fs::read_to_string(&library).expect("the code");
    let save = |code: &str| fs::write(&library, code).expect("the code");
    save(&with(&code, "Verdict::forbidden(\"unknown-team\")", "Verdict::respond(418, \"teapot\")"));
    dev.says("runs now").await;
    assert_eq!((status(&client, "red").await, status(&client, "green").await), (200, 418));

    save("fn broken(");
    dev.says("unclosed delimiter").await;
    dev.says("it does not compile").await;
    assert_eq!(status(&client, "green").await, 418, "the one before goes on");

    save(&with(&code, "Verdict::forbidden(\"unknown-team\")", "panic!(\"what is {team:?}?\")"));
    dev.says("runs now").await;
    assert_eq!(status(&client, "green").await, 503);
    dev.says("what is \"green\"?").await;

    // Settings are followed, too.
    let cases = author.path("followed/tests/cases.toml");
    let settings = fs::read_to_string(&cases).expect("the cases");
    fs::write(&cases, with(&settings, "allowed = [\"red\", \"blue\"]", "allowed = []")).expect("the cases");
    dev.says("nobody would pass").await;
    fs::write(&cases, with(&settings, "\"blue\"]", "\"green\"]")).expect("the cases");
    dev.says("runs now").await;
    assert_eq!(status(&client, "green").await, 200);
    assert!(dev.interrupt().await.success());

    // The same beside a gateway that runs already.
    let component = target().join("wasm32-wasip2/release/followed.wasm");
    let table = plugin_table("it", &component, "config = { allowed = [\"red\"] }");
    let gateway = TestGateway::start(&one_route(backend.addr(), &format!("plugins = [\"it\"]\n{table}")));
    let admin = gateway.running().admin().expect("an admin address").to_string();
    let mut dev = Dev::start(&author, "followed", &["--admin", &admin]);
    dev.says("runs as `it` in generation 1").await;
    save(&code);
    dev.says("runs as `it` in generation 2").await;
    assert_eq!(status(&gateway.client(), "green").await, 403);
    gateway.write(&one_route(backend.addr(), ""));
    save(&format!("{code}\n// changed\n"));
    dev.says("no [plugin.NAME] of that gateway has").await;
    assert!(dev.interrupt().await.success());
}

#[test]
fn what_dev_needs_is_said() {
    let author = Author::new();
    author.plugin(&["dev"]).no(&["there is no ./gateway.toml", "--to"]);
    author.plugin(&["dev", "--admin", "nowhere"]).no(&["no admin address", "unix:"]);
}
