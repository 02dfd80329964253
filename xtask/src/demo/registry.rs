//! A small service registry for the demo, with the API that fleets run today. It keeps entries in
//! memory only, and is no part of the product.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use hyper::{Method, Request, body::Incoming, header::AUTHORIZATION};
use serde_json::{Map, Value, json};

use super::http::{self, Reply};

const ROLES: [&str; 5] = ["infra", "lieutenant", "worker", "golden", "custom"];
const STATUSES: [&str; 3] = ["running", "paused", "stopped"];
/// What a client may change later; the role is not among it.
const CHANGEABLE: [&str; 5] = ["name", "status", "address", "services", "metadata"];
/// Unseen for longer, an entry is not discovered any more.
const STALE: Duration = Duration::from_secs(5 * 60);

#[derive(Clone)]
pub(crate) struct Registry {
    token: Arc<str>,
    state: Arc<Mutex<State>>,
}

/// What it holds, and what has happened so far.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) entries: BTreeMap<String, Entry>,
    pub(crate) heartbeats: u64,
}

pub(crate) struct Entry {
    fields: Map<String, Value>,
    seen: SystemTime,
}

/// A status and what it says.
type Answer = (u16, Value);

impl Registry {
    pub(crate) fn new(token: &str) -> Self {
        Self { token: token.into(), state: Arc::default() }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) async fn answer(self, request: Request<Incoming>) -> Reply {
        let sent = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let is_open = request.uri().path() == "/health";
        if !is_open && sent.and_then(|value| value.strip_prefix("Bearer ")) != Some(&*self.token) {
            return http::json(401, &json!({ "error": "Unauthorized" }));
        }
        let method = request.method().clone();
        let uri = request.uri().clone();
        let body = http::body(request).await.unwrap_or_default();
        let body = serde_json::from_slice(&body).unwrap_or_default();
        let (status, value) = self.state().call(&method, uri.path(), uri.query().unwrap_or_default(), &body);
        http::json(status, &value)
    }
}

impl State {
    fn call(&mut self, method: &Method, path: &str, query: &str, body: &Map<String, Value>) -> Answer {
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        match (method.as_str(), parts.as_slice()) {
            ("GET", ["health"]) => (200, json!({ "status": "ok" })),
            ("POST", ["registry", "vms"]) => self.register(body),
            ("GET", ["registry", "vms"]) => self.list(parameter(query, "role"), parameter(query, "status")),
            ("GET", ["registry", "discover", role]) => self.list(Some(role), Some("running")),
            (method, ["registry", "vms", id, rest @ ..]) => match self.entries.get_mut(*id) {
                Some(entry) => match (method, rest) {
                    ("GET", []) => (200, entry.shown()),
                    ("PATCH", []) => entry.change(body),
                    ("DELETE", []) => self.deregister(id),
                    ("POST", ["heartbeat"]) => self.heartbeat(id),
                    _ => nothing(path),
                },
                None => (404, json!({ "error": "VM not found" })),
            },
            _ => nothing(path),
        }
    }

    fn register(&mut self, body: &Map<String, Value>) -> Answer {
        let entry = match Entry::new(body) {
            Ok(entry) => entry,
            Err(error) => return (400, json!({ "error": error })),
        };
        let id = entry.text("id").to_owned();
        if self.entries.contains_key(&id) {
            return (409, json!({ "error": "VM already registered" }));
        }
        let shown = entry.shown();
        eprintln!("   registry  {id} has registered");
        self.entries.insert(id, entry);
        (201, shown)
    }

    fn heartbeat(&mut self, id: &str) -> Answer {
        self.heartbeats += 1;
        let Some(entry) = self.entries.get_mut(id) else { return (404, Value::Null) };
        entry.seen = SystemTime::now();
        (200, json!({ "id": id, "lastSeen": time(entry.seen) }))
    }

    fn deregister(&mut self, id: &str) -> Answer {
        eprintln!("   registry  {id} has deregistered");
        self.entries.remove(id);
        (200, json!({ "deleted": true }))
    }

    fn list(&self, role: Option<&str>, status: Option<&str>) -> Answer {
        let wanted = |entry: &&Entry| {
            role.is_none_or(|role| entry.text("role") == role)
                && status.is_none_or(|status| entry.text("status") == status)
                && (status != Some("running") || !entry.is_stale())
        };
        let vms: Vec<Value> = self.entries.values().filter(wanted).map(Entry::shown).collect();
        (200, json!({ "count": vms.len(), "vms": vms }))
    }
}

impl Entry {
    fn new(body: &Map<String, Value>) -> Result<Self, String> {
        let mut fields = Map::new();
        for key in ["id", "name", "address", "registeredBy"] {
            fields.insert(key.into(), text(body, key)?.into());
        }
        fields.insert("role".into(), one_of(body, "role", &ROLES)?.into());
        let status = if body.contains_key("status") { one_of(body, "status", &STATUSES)? } else { "running" };
        fields.insert("status".into(), status.into());
        for key in ["services", "metadata"] {
            fields.extend(body.get(key).map(|value| (key.to_owned(), value.clone())));
        }
        let seen = SystemTime::now();
        fields.insert("registeredAt".into(), time(seen).into());
        Ok(Self { fields, seen })
    }

    fn change(&mut self, body: &Map<String, Value>) -> Answer {
        let checked = [
            ("status", one_of(body, "status", &STATUSES)),
            ("name", text(body, "name")),
            ("address", text(body, "address")),
        ];
        for (key, value) in checked {
            if let (true, Err(error)) = (body.contains_key(key), value) {
                return (400, json!({ "error": error }));
            }
        }
        let changes = body.iter().filter(|(key, _)| CHANGEABLE.contains(&key.as_str()));
        self.fields.extend(changes.map(|(key, value)| (key.clone(), value.clone())));
        self.seen = SystemTime::now();
        (200, self.shown())
    }

    fn shown(&self) -> Value {
        let mut fields = self.fields.clone();
        fields.insert("lastSeen".into(), time(self.seen).into());
        fields.into()
    }

    fn text(&self, key: &str) -> &str {
        self.fields.get(key).and_then(Value::as_str).unwrap_or_default()
    }

    fn is_stale(&self) -> bool {
        self.seen.elapsed().is_ok_and(|age| age > STALE)
    }
}

fn text<'a>(body: &'a Map<String, Value>, key: &str) -> Result<&'a str, String> {
    let value = body.get(key).and_then(Value::as_str).map(str::trim);
    value.filter(|value| !value.is_empty()).ok_or_else(|| format!("{key} is required"))
}

fn one_of<'a>(body: &'a Map<String, Value>, key: &str, words: &[&str]) -> Result<&'a str, String> {
    let value = body.get(key).and_then(Value::as_str).unwrap_or_default();
    if words.contains(&value) { Ok(value) } else { Err(format!("invalid {key}: {value}")) }
}

fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value)
}

fn nothing(path: &str) -> Answer {
    (404, json!({ "error": format!("there is no {path}") }))
}

fn time(at: SystemTime) -> String {
    humantime::format_rfc3339_millis(at).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(state: &mut State, method: &str, path: &str, body: &Value) -> Answer {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let body = body.as_object().cloned().unwrap_or_default();
        state.call(&method.parse().unwrap(), path, query, &body)
    }

    fn entry(id: &str) -> Value {
        json!({ "id": id, "name": "n", "role": "worker", "address": "a", "registeredBy": "self" })
    }

    #[test]
    fn a_life_in_the_registry() {
        let mut state = State::default();
        for (method, path, body, status) in [
            ("GET", "/registry/vms/a", Value::Null, 404),
            ("POST", "/registry/vms/a/heartbeat", Value::Null, 404),
            ("POST", "/registry/vms", entry("a"), 201),
            ("POST", "/registry/vms", entry("a"), 409),
            ("POST", "/registry/vms/a/heartbeat", Value::Null, 200),
            ("PATCH", "/registry/vms/a", json!({ "status": "gone" }), 400),
            ("PATCH", "/registry/vms/a", json!({ "status": "paused", "role": "infra" }), 200),
            ("GET", "/registry/vms/a", Value::Null, 200),
            ("DELETE", "/registry/vms/a", Value::Null, 200),
            ("DELETE", "/registry/vms/a", Value::Null, 404),
            ("GET", "/registry/elsewhere", Value::Null, 404),
        ] {
            assert_eq!(call(&mut state, method, path, &body).0, status, "{method} {path} {body}");
        }
        assert_eq!(state.heartbeats, 1);
    }

    #[test]
    fn an_entry_needs_its_fields() {
        for key in ["id", "name", "role", "address", "registeredBy"] {
            let mut body = entry("a");
            body[key] = " ".into();
            let (status, said) = call(&mut State::default(), "POST", "/registry/vms", &body);
            assert_eq!(status, 400, "without {key}: {said}");
            assert!(said["error"].as_str().unwrap().contains(key), "without {key}: {said}");
        }
    }

    #[test]
    fn discovers_what_runs() {
        let mut state = State::default();
        for id in ["a", "b", "c"] {
            call(&mut state, "POST", "/registry/vms", &entry(id));
        }
        call(&mut state, "PATCH", "/registry/vms/b", &json!({ "status": "paused" }));
        state.entries.get_mut("c").unwrap().seen -= STALE * 2;
        for (path, ids) in [
            ("/registry/discover/worker", vec!["a"]),
            ("/registry/discover/infra", vec![]),
            ("/registry/vms", vec!["a", "b", "c"]),
            ("/registry/vms?status=paused", vec!["b"]),
            ("/registry/vms?role=worker&status=running", vec!["a"]),
        ] {
            let (_, said) = call(&mut state, "GET", path, &Value::Null);
            let found: Vec<&str> =
                said["vms"].as_array().unwrap().iter().map(|vm| vm["id"].as_str().unwrap()).collect();
            assert_eq!(found, ids, "{path}");
            assert_eq!(said["count"], ids.len(), "{path}");
        }
    }
}
