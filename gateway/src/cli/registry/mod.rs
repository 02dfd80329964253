//! `registry`: who is in a registry, this gateway's or any other with the same calls.

mod call;
mod table;

use super::{Exit, trust::Trust};
use crate::config::Discover;
use call::{Failed, Place};
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};
use std::{io::Write as _, time::Duration};
use tokio::time::{Instant, sleep_until};

/// Least time between two questions for changes.
const AT_MOST_EACH: Duration = Duration::from_millis(100);

/// What VMs may be for.
const ROLES: [&str; 5] = Discover::ROLES;

/// What they may say of themselves.
const STATUSES: [&str; 4] = ["running", "paused", "stopped", "draining"];

/// `registry COMMAND`.
#[derive(Debug, Args)]
pub(super) struct Registry {
    /// Where the registry is, such as https://infra.vm.example.com:3000
    #[arg(long, value_name = "URL", env = "VERS_REGISTRY_URL", global = true)]
    url: Option<String>,
    /// Variable of the environment that has the token
    #[arg(long, value_name = "NAME", default_value = "VERS_AUTH_TOKEN", global = true)]
    token_env: String,
    /// Print what the registry answers, for scripts
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    trust: Trust,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show all VMs
    List {
        /// Only those of this role
        #[arg(long, value_parser = ROLES)]
        role: Option<String>,
        /// Only those of this status
        #[arg(long, value_parser = STATUSES)]
        status: Option<String>,
    },
    /// Show one VM
    Get {
        /// Its id
        id: String,
    },
    /// Register a VM, or replace what is known of it
    Register(Entry),
    /// Show the VMs of a role that may be connected to
    Discover {
        /// What they are for
        #[arg(value_parser = ROLES)]
        role: String,
        /// Only those that have this service
        #[arg(long)]
        service: Option<String>,
        /// At most so many
        #[arg(long)]
        limit: Option<u32>,
        /// Which of them, where not all are wanted
        #[arg(long, value_parser = ["first", "random"])]
        pick: Option<String>,
        /// Those that may not be connected to, too, and why
        #[arg(long)]
        all: bool,
    },
    /// Show changes as they come, until it is stopped
    Watch {
        /// Those after this revision; from now on without
        #[arg(long)]
        since: Option<u64>,
    },
}

#[derive(Debug, Args)]
struct Entry {
    /// Which VM
    #[arg(long, env = "VERS_VM_ID")]
    id: String,
    /// What people call it
    #[arg(long)]
    name: String,
    /// What it is for
    #[arg(long, default_value = "worker", value_parser = ROLES)]
    role: String,
    /// Where it is reached: a host name or an IP address
    #[arg(long)]
    address: String,
    /// Something that it serves, such as api:3000 or api:3000/health; may be repeated
    #[arg(long = "service", value_name = "NAME:PORT[/PATH]", value_parser = service)]
    services: Vec<Value>,
    /// How long it is believed without a heartbeat, such as 45s
    #[arg(long)]
    ttl: Option<String>,
}

impl Entry {
    fn to_json(&self) -> Value {
        let mut entry = json!({
            "id": self.id, "name": self.name, "role": self.role, "address": self.address,
            "services": self.services, "registeredBy": "self",
        });
        if let (Some(ttl), Value::Object(fields)) = (&self.ttl, &mut entry) {
            fields.insert("ttl".to_owned(), ttl.as_str().into());
        }
        entry
    }
}

/// `api:3000/health`
fn service(text: &str) -> Result<Value, String> {
    let wrong = || format!("`{text}` is not NAME:PORT, as in api:3000 or api:3000/health");
    let (name, rest) = text.split_once(':').filter(|(name, _)| !name.is_empty()).ok_or_else(wrong)?;
    let (port, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    let port: std::num::NonZeroU16 = port.parse().map_err(|_| wrong())?;
    let mut service = Map::new();
    service.insert("name".to_owned(), name.into());
    service.insert("port".to_owned(), port.get().into());
    if !path.is_empty() {
        service.insert("healthPath".to_owned(), path.into());
    }
    Ok(service.into())
}

impl Registry {
    pub(super) fn run(self) -> Exit {
        let Some(url) = self.url.as_deref().filter(|url| !url.is_empty()) else {
            return failed("which registry? --url URL, or VERS_REGISTRY_URL");
        };
        let place = match Place::new(url, &self.token_env, &self.trust) {
            Ok(place) => place,
            Err(message) => return failed(&message),
        };
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return failed(&error.to_string()),
        };
        match runtime.block_on(self.ask(&place)) {
            Ok(()) => Exit::Fine,
            Err(error) => failed(&format!("{url}: {error}")),
        }
    }

    async fn ask(&self, place: &Place) -> Result<(), Failed> {
        match &self.command {
            Command::List { role, status } => {
                let path =
                    with_query("/registry/vms", &[("role", role.as_deref()), ("status", status.as_deref())]);
                self.show(&all_pages(place, &path).await?);
            }
            Command::Get { id } => self.show(&place.get(&format!("/registry/vms/{}", encoded(id))).await?),
            Command::Register(entry) => self.show(&place.post("/registry/vms", &entry.to_json()).await?),
            Command::Discover { role, service, limit, pick, all } => {
                let limit = limit.map(|limit| limit.to_string());
                let query = [
                    ("service", service.as_deref()),
                    ("limit", limit.as_deref()),
                    ("pick", pick.as_deref()),
                    ("all", all.then_some("1")),
                ];
                let path = with_query(&format!("/registry/discover/{}", encoded(role)), &query);
                self.show(&place.get(&path).await?);
            }
            Command::Watch { since } => self.watch(place, *since).await?,
        }
        Ok(())
    }

    fn show(&self, answer: &Value) {
        let text = if self.json { format!("{answer:#}\n") } else { table::render(answer) };
        // A reader that has seen enough (`| head`) is no failure.
        let _ = std::io::stdout().write_all(text.as_bytes());
        if !self.json && answer.get("vms").and_then(Value::as_array).is_some_and(Vec::is_empty) {
            note("no such VM");
        }
    }

    async fn watch(&self, place: &Place, since: Option<u64>) -> Result<(), Failed> {
        let mut since = match since {
            Some(since) => since,
            None => revision(&place.get("/registry/watch?wait=0").await?)?,
        };
        loop {
            let asked = Instant::now();
            match place.get(&format!("/registry/watch?since={since}")).await {
                Ok(answer) => {
                    since = revision(&answer)?;
                    if !self.show_changes(&answer) {
                        return Ok(());
                    }
                }
                Err(Failed::Behind(revision)) => {
                    note(&format!(
                        "changes up to {revision} are not known any more; what follows is after them"
                    ));
                    since = revision;
                }
                Err(error) => return Err(error),
            }
            // Nobody is asked more often than that, whatever it answers.
            sleep_until(asked + AT_MOST_EACH).await;
        }
    }

    /// Returns whether anybody reads on.
    fn show_changes(&self, answer: &Value) -> bool {
        let mut out = std::io::stdout();
        let mut changes = answer.get("changes").and_then(Value::as_array).into_iter().flatten();
        changes.all(|change| {
            let line = if self.json { format!("{change}\n") } else { table::change(change) };
            out.write_all(line.as_bytes()).and_then(|()| out.flush()).is_ok()
        })
    }
}

/// A list, and the pages behind it.
async fn all_pages(place: &Place, path: &str) -> Result<Value, Failed> {
    let mut list = place.get(path).await?;
    while let Some(next) = list.get_mut("next").map(Value::take) {
        let next = next.as_str().ok_or_else(|| Failed::Message("`next` is no text".to_owned()))?;
        let more = if path.contains('?') { '&' } else { '?' };
        let mut page = place.get(&format!("{path}{more}after={}", encoded(next))).await?;
        let vms = page.get_mut("vms").and_then(Value::as_array_mut).map(std::mem::take).unwrap_or_default();
        let Value::Object(fields) = &mut list else { break };
        fields.remove("next");
        if vms.is_empty() {
            break;
        }
        if let Some(known) = fields.get_mut("vms").and_then(Value::as_array_mut) {
            known.extend(vms);
            let count = known.len();
            fields.insert("count".to_owned(), count.into());
        }
        if let Some(next) = page.get_mut("next") {
            fields.insert("next".to_owned(), next.take());
        }
    }
    Ok(list)
}

/// Up to where an answer tells.
fn revision(answer: &Value) -> Result<u64, Failed> {
    let revision = answer.get("revision").and_then(Value::as_u64);
    revision.ok_or_else(|| Failed::Message("this registry knows no changes".to_owned()))
}

fn with_query(path: &str, query: &[(&str, Option<&str>)]) -> String {
    let mut text = path.to_owned();
    for (key, value) in query.iter().filter_map(|(key, value)| Some((key, (*value)?))) {
        text.push(if text.contains('?') { '&' } else { '?' });
        text.push_str(&format!("{key}={}", encoded(value)));
    }
    text
}

/// What a part of a URL cannot have, as `%XX`.
fn encoded(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}

fn note(message: &str) {
    // Standard error that is closed leaves the exit code to say it.
    let _ = writeln!(std::io::stderr(), "vers-gateway: {message}");
}

fn failed(message: &str) -> Exit {
    note(message);
    Exit::No
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_written_in_a_word() {
        assert_eq!(service("api:3000"), Ok(json!({ "name": "api", "port": 3000 })));
        let with_path = json!({ "name": "api", "port": 3000, "healthPath": "/a:b" });
        assert_eq!(service("api:3000/a:b"), Ok(with_path));
        for wrong in ["api", ":3000", "api:", "api:0", "api:70000", "api:http"] {
            assert!(service(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn queries_are_encoded() {
        let query = [("a", Some("x y&z")), ("b", None), ("c", Some("1"))];
        assert_eq!(with_query("/p", &query), "/p?a=x%20y%26z&c=1");
    }
}
