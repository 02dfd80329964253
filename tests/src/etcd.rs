//! A real etcd, `etcd` of Debian's etcd-server: one member, or several that elect a leader.

use crate::{
    Namespace,
    client::Client,
    pebble::two_ports,
    skip::{has, skipped},
    wait::{eventually, within},
};
use serde_json::{Value, json};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    process::Stdio,
};
use tokio::{
    net::TcpStream,
    process::{Child, Command},
};

/// Members of an etcd, which end when this is dropped, with all that they kept.
#[derive(Debug)]
pub struct Etcd {
    members: Vec<Member>,
    further: Vec<String>,
    scheme: &'static str,
    folder: tempfile::TempDir,
}

#[derive(Debug)]
struct Member {
    client: SocketAddr,
    peer: SocketAddr,
    /// The network that it is in, where that is another one.
    place: Option<Namespace>,
    child: Option<Child>,
}

impl Etcd {
    /// Starts one member; none where there is no such program, which is said.
    pub async fn start(test: &str) -> Option<Self> {
        Self::cluster(test, 1).await
    }

    /// Starts so many members on this machine.
    pub async fn cluster(test: &str, size: usize) -> Option<Self> {
        let here = vec![(IpAddr::from(Ipv4Addr::LOCALHOST), None); size];
        Self::start_with(test, here, "http", &[]).await
    }

    /// Starts a member in each of these networks, at this address.
    pub async fn spread(test: &str, places: Vec<(IpAddr, Namespace)>) -> Option<Self> {
        let places = places.into_iter().map(|(address, place)| (address, Some(place))).collect();
        Self::start_with(test, places, "http", &[]).await
    }

    /// Starts one member that is asked over TLS, with these arguments for that.
    pub async fn over_tls(test: &str, arguments: &[&str]) -> Option<Self> {
        Self::start_with(test, vec![(Ipv4Addr::LOCALHOST.into(), None)], "https", arguments).await
    }

    /// Starts one member with these arguments.
    pub async fn with(test: &str, arguments: &[&str]) -> Option<Self> {
        Self::start_with(test, vec![(Ipv4Addr::LOCALHOST.into(), None)], "http", arguments).await
    }

    async fn start_with(
        test: &str,
        places: Vec<(IpAddr, Option<Namespace>)>,
        scheme: &'static str,
        further: &[&str],
    ) -> Option<Self> {
        if !has(test, &["etcd", "etcdctl"]) {
            return None;
        }
        if !speaks_json().await {
            skipped(test, "`etcd` is older than 3.4");
            return None;
        }
        let member = |(address, place): (IpAddr, Option<Namespace>)| {
            let [client, peer] = two_ports().map(|port| SocketAddr::new(address, port));
            Member { client, peer, place, child: None }
        };
        let mut etcd = Self {
            members: places.into_iter().map(member).collect(),
            further: further.iter().map(|it| (*it).to_owned()).collect(),
            scheme,
            folder: tempfile::tempdir().expect("a temporary folder"),
        };
        (0..etcd.members.len()).for_each(|index| etcd.run(index));
        etcd.answers().await;
        Some(etcd)
    }

    /// As `[registry] store` has it.
    pub fn store(&self) -> String {
        let members: Vec<String> = (0..self.members.len()).map(|index| self.url(index)).collect();
        format!("etcd:{}", members.join(","))
    }

    /// Where a member is.
    pub fn url(&self, index: usize) -> String {
        format!("{}://{}", self.scheme, self.members[index].client)
    }

    /// The folder of what they keep.
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// The address of a member for clients.
    pub fn addr(&self, index: usize) -> SocketAddr {
        self.members[index].client
    }

    /// Kills a member, at once.
    pub async fn kill(&mut self, index: usize) {
        let mut child = self.members[index].child.take().expect("a member that runs");
        child.start_kill().expect("it runs");
        let _ = within("its end", child.wait()).await;
    }

    /// Stops a member: it keeps its connections, and says nothing any more.
    pub async fn stop(&self, index: usize) {
        self.signal(index, "-STOP").await;
    }

    /// Has a member that was stopped go on.
    pub async fn go_on(&self, index: usize) {
        self.signal(index, "-CONT").await;
    }

    async fn signal(&self, index: usize, signal: &str) {
        let child = self.members[index].child.as_ref().expect("a member that runs");
        let pid = child.id().expect("it runs").to_string();
        let done = Command::new("kill").args([signal, &pid]).status().await.expect("`kill` starts");
        assert!(done.success(), "kill {signal} {pid}");
    }

    /// Starts a member that was killed, with what it had kept.
    pub fn revive(&mut self, index: usize) {
        assert!(self.members[index].child.is_none(), "it runs");
        self.run(index);
    }

    /// Kills all members, and forgets what they had kept.
    pub async fn forget_all(&mut self) {
        for index in 0..self.members.len() {
            self.kill(index).await;
            std::fs::remove_dir_all(self.folder.path().join(format!("m{index}"))).expect("what it kept");
        }
    }

    /// Waits until they have a leader, and answer.
    pub async fn answers(&self) {
        eventually("an etcd that answers", async || {
            for member in self.members.iter().filter(|member| member.child.is_some()) {
                if self.scheme == "https" {
                    TcpStream::connect(member.client).await.ok()?;
                } else {
                    ask(member, "kv/range", &json!({ "key": "eA==" })).await?["header"]["revision"]
                        .as_str()?;
                }
            }
            Some(())
        })
        .await;
    }

    /// Which member leads.
    pub async fn leader(&self) -> usize {
        eventually("a leader", async || {
            for (index, member) in self.members.iter().enumerate() {
                if let Some(status) = ask(member, "maintenance/status", &json!({})).await
                    && let (Some(own), Some(leader)) =
                        (status["header"]["member_id"].as_str(), status["leader"].as_str())
                    && own == leader
                {
                    return Some(index);
                }
            }
            None
        })
        .await
    }

    /// Runs `etcdctl` at the first member, which must succeed.
    ///
    /// # Panics
    /// Panics with what it said where it does not.
    pub async fn must_ctl(&self, arguments: &[&str]) -> String {
        self.ctl(arguments).await.unwrap_or_else(|complained| panic!("etcdctl {arguments:?}: {complained}"))
    }

    /// The same, which may fail.
    ///
    /// # Errors
    /// Fails with what it said.
    pub async fn ctl(&self, arguments: &[&str]) -> Result<String, String> {
        let output = Command::new("etcdctl")
            .args(["--endpoints", &self.url(0)])
            .args(arguments)
            .env("ETCDCTL_API", "3")
            .output()
            .await
            .expect("`etcdctl` starts");
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    fn run(&mut self, index: usize) {
        let all: Vec<String> = self
            .members
            .iter()
            .enumerate()
            .map(|(n, member)| format!("m{n}=http://{}", member.peer))
            .collect();
        let member = &self.members[index];
        let name = format!("m{index}");
        let (client, peer) = (self.url(index), format!("http://{}", member.peer));
        let mut command = match &member.place {
            Some(place) => place.command("etcd"),
            None => Command::new("etcd"),
        };
        command
            .args(["--name", &name])
            .arg("--data-dir")
            .arg(self.folder.path().join(&name))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &all.join(",")])
            // Processes are killed here, and not machines.
            .arg("--unsafe-no-fsync")
            .args(&self.further)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        self.members[index].child = Some(command.spawn().expect("`etcd` starts"));
    }
}

/// Whether it is of a version whose JSON gateway is `/v3`.
async fn speaks_json() -> bool {
    let output = Command::new("etcd").arg("--version").output().await.expect("`etcd` starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = text.split_whitespace().find(|word| word.starts_with(|first: char| first.is_ascii_digit()));
    let mut numbers =
        version.unwrap_or_default().split('.').map(|part| part.parse::<u32>().unwrap_or_default());
    (numbers.next(), numbers.next()) >= (Some(3), Some(4))
}

async fn ask(member: &Member, path: &str, body: &Value) -> Option<Value> {
    let mut client = Client::new(member.client);
    if let Some(place) = &member.place {
        client = client.inside(place.clone());
    }
    let path = format!("/v3/{path}");
    let asked = client.try_send(http::Method::POST, &path, body.to_string().into());
    let answer = tokio::time::timeout(std::time::Duration::from_secs(2), asked).await.ok()?.ok()?;
    serde_json::from_slice(&answer.body).ok()
}
