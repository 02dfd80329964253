//! An etcd of one process for tests, which does what it is told to do wrong: keys, leases and watches behind a
//! [`Transport`], by the clock that tests stop.

use super::{
    super::{Clock, Moment, Place, Registry, Terms},
    transport::{Access, Answering, Pieces, Transport, Undelivered},
};
use bytes::Bytes;
use data_encoding::BASE64;
use futures_util::stream;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, SystemTime},
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep},
};

/// What becomes of a request to a member: which one, and the path.
pub(super) type Fault = dyn Fn(&str, &str, &Value) -> Faulty + Send + Sync;

/// What it does wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Faulty {
    Not,
    /// It is not done, and not answered.
    Hangs,
    /// It is done, and not answered.
    Loses,
    /// It is answered late.
    Late(Duration),
    /// It is refused, in these words.
    Says(u32, &'static str),
}

#[derive(Clone)]
pub(super) struct Fake(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    fault: Mutex<Box<Fault>>,
}

#[derive(Default)]
struct State {
    revision: u64,
    keys: BTreeMap<Vec<u8>, Kv>,
    leases: HashMap<u64, u64>,
    watchers: Vec<mpsc::UnboundedSender<String>>,
    /// Those who hear nothing any more, and are not told that it is over.
    stalled: Vec<mpsc::UnboundedSender<String>>,
    asked: Vec<(String, Value)>,
}

#[derive(Clone)]
struct Kv {
    value: Vec<u8>,
    revision: u64,
    lease: u64,
}

impl fmt::Debug for Fake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fake")
    }
}

/// The clock that tests stop, and that goes by itself where all wait.
#[derive(Debug)]
struct Stopped(Instant);

impl Clock for Stopped {
    fn now(&self) -> Moment {
        let mono = self.0.elapsed();
        Moment { mono, wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000) + mono }
    }

    fn since_boot(&self) -> Option<Duration> {
        Some(self.0.elapsed())
    }
}

impl Fake {
    pub(super) fn new() -> Self {
        let state = State { revision: 1, ..State::default() };
        Self(Arc::new(Shared {
            state: Mutex::new(state),
            fault: Mutex::new(Box::new(|_, _, _| Faulty::Not)),
        }))
    }

    /// A registry that is there, by the clock of tests.
    pub(super) fn registry() -> Arc<Registry> {
        let terms = Terms {
            ttl: Duration::from_secs(45),
            retention: Duration::from_secs(600),
            strict_conflict: false,
        };
        Arc::new(Registry::with_clock(Place::Etcd("/r".to_owned()), terms, Box::new(Stopped(Instant::now()))))
    }

    /// Two members, both of which are this one.
    pub(super) fn access(&self) -> watch::Receiver<Arc<Access>> {
        let endpoints = ["http://a", "http://b"].map(str::to_owned).into();
        let access = Access { endpoints, user: None, transport: Arc::new(self.clone()) };
        let (sender, access) = watch::channel(Arc::new(access));
        // Nothing changes of it.
        std::mem::forget(sender);
        access
    }

    /// What it does wrong from now on.
    pub(super) fn fails(&self, fault: impl Fn(&str, &str, &Value) -> Faulty + Send + Sync + 'static) {
        *self.0.fault.lock().expect("no panic") = Box::new(fault);
    }

    /// Who watches by now hears of nothing any more.
    pub(super) fn stall(&self) {
        let mut state = self.state();
        let watchers = std::mem::take(&mut state.watchers);
        state.stalled.extend(watchers);
    }

    /// What it was asked since this was called last: paths.
    pub(super) fn take_asked(&self) -> Vec<(String, Value)> {
        std::mem::take(&mut self.state().asked)
    }

    /// Puts a key, as somebody else would.
    pub(super) fn put(&self, key: &str, value: &str, lease: u64) {
        let mut state = self.state();
        state.revision += 1;
        let event = state.put(key.as_bytes(), value.as_bytes().to_vec(), lease);
        state.tell(&[event]);
    }

    pub(super) fn value(&self, key: &str) -> Option<String> {
        let state = self.state();
        let kv = state.keys.get(key.as_bytes())?;
        Some(String::from_utf8_lossy(&kv.value).into_owned())
    }

    pub(super) fn lease(&self, key: &str) -> Option<u64> {
        Some(self.state().keys.get(key.as_bytes())?.lease)
    }

    /// Ends a lease, with its keys.
    pub(super) fn end(&self, lease: u64) {
        self.state().end(lease);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().expect("no panic")
    }
}

impl Transport for Fake {
    fn send(&self, request: Request<Bytes>) -> Answering {
        let member = request.uri().host().unwrap_or_default().to_owned();
        let path = request.uri().path().trim_start_matches("/v3/").to_owned();
        let body: Value = serde_json::from_slice(request.body()).expect("JSON");
        let this = self.clone();
        Box::pin(async move {
            let fault = (this.0.fault.lock().expect("no panic"))(&member, &path, &body);
            this.state().asked.push((path.clone(), body.clone()));
            match fault {
                Faulty::Not => {}
                Faulty::Hangs => std::future::pending().await,
                Faulty::Says(code, words) => {
                    let said = json!({ "error": words, "code": code });
                    return Ok(answer(400, stream_of(said.to_string())));
                }
                Faulty::Loses => {
                    let _ = this.state().answer(&path, &body);
                    return Err(Undelivered { why: "reset".to_owned(), is_unsent: false });
                }
                Faulty::Late(time) => {
                    let said = this.state().answer(&path, &body);
                    sleep(time).await;
                    return Ok(answer(200, stream_of(said.to_string())));
                }
            }
            if path == "watch" {
                return Ok(answer(200, this.watch()));
            }
            let said = this.state().answer(&path, &body);
            let status = if said.get("error").is_some() { 400 } else { 200 };
            Ok(answer(status, stream_of(said.to_string())))
        })
    }
}

impl Fake {
    fn watch(&self) -> Pieces {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut state = self.state();
        let begun = json!({ "result": { "header": state.header(), "created": true } });
        sender.send(format!("{begun}\n")).expect("it is read");
        state.watchers.push(sender);
        let lines = stream::unfold(receiver, async |mut receiver| {
            let line = receiver.recv().await?;
            Some((Ok(Frame::data(Bytes::from(line))), receiver))
        });
        // Boxed, because what it waits for may not move.
        StreamBody::new(Box::pin(lines)).boxed_unsync()
    }
}

fn stream_of(text: String) -> Pieces {
    StreamBody::new(stream::iter([Ok(Frame::data(Bytes::from(text)))])).boxed_unsync()
}

fn answer(status: u16, body: Pieces) -> Response<Pieces> {
    Response::builder().status(status).body(body).expect("an answer")
}

fn bytes(value: &Value) -> Vec<u8> {
    BASE64.decode(value.as_str().unwrap_or_default().as_bytes()).expect("base64")
}

fn number(value: &Value) -> u64 {
    value.as_str().and_then(|text| text.parse().ok()).unwrap_or_default()
}

impl State {
    fn header(&self) -> Value {
        json!({ "cluster_id": "7", "revision": self.revision.to_string() })
    }

    fn answer(&mut self, path: &str, body: &Value) -> Value {
        match path {
            "kv/range" => self.range(body),
            "kv/txn" => self.transact(body),
            "lease/grant" => {
                let (id, ttl) = (number(&body["ID"]), number(&body["TTL"]));
                if self.leases.insert(id, ttl).is_some() {
                    return json!({ "error": "etcdserver: lease already exists", "code": 9 });
                }
                json!({ "header": self.header(), "ID": id.to_string(), "TTL": ttl.to_string() })
            }
            "lease/keepalive" => {
                let id = number(&body["ID"]);
                let ttl = self.leases.get(&id).copied().unwrap_or_default();
                json!({ "result": { "header": self.header(), "ID": id.to_string(), "TTL": ttl.to_string() } })
            }
            "lease/revoke" => {
                self.end(number(&body["ID"]));
                json!({ "header": self.header() })
            }
            other => panic!("nobody asks for {other}"),
        }
    }

    fn found(&self, key: &[u8]) -> Option<Value> {
        let kv = self.keys.get(key)?;
        Some(json!({ "key": BASE64.encode(key), "value": BASE64.encode(&kv.value),
            "mod_revision": kv.revision.to_string(), "lease": kv.lease.to_string() }))
    }

    fn range(&self, body: &Value) -> Value {
        let key = bytes(&body["key"]);
        let Some(end) = body["range_end"].as_str().map(|_| bytes(&body["range_end"])) else {
            let kvs: Vec<Value> = self.found(&key).into_iter().collect();
            return json!({ "header": self.header(), "kvs": kvs });
        };
        if body["count_only"] == true {
            let count = self.keys.range(key..end).count().to_string();
            return json!({ "header": self.header(), "count": count });
        }
        let limit = usize::try_from(number(&body["limit"])).expect("a number");
        let keys: Vec<&Vec<u8>> = self.keys.range(key..end).map(|(key, _)| key).collect();
        let kvs: Vec<Value> = keys.iter().take(limit).filter_map(|key| self.found(key)).collect();
        json!({ "header": self.header(), "kvs": kvs, "more": keys.len() > limit })
    }

    fn transact(&mut self, body: &Value) -> Value {
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let succeeded = list(&body["compare"]).iter().all(|compare| {
            let revision = self.keys.get(&bytes(&compare["key"])).map_or(0, |kv| kv.revision);
            compare["target"] == "MOD" && revision == number(&compare["mod_revision"])
        });
        if !succeeded {
            let gets = list(&body["failure"]);
            let responses: Vec<Value> = gets
                .iter()
                .map(|get| json!({ "response_range": self.range(&get["request_range"]) }))
                .collect();
            return json!({ "header": self.header(), "responses": responses });
        }
        let (then, mut events) = (list(&body["success"]), Vec::new());
        let leases = then.iter().map(|it| number(&it["request_put"]["lease"]));
        if leases.into_iter().any(|lease| lease != 0 && !self.leases.contains_key(&lease)) {
            return json!({ "error": "etcdserver: requested lease not found", "code": 5 });
        }
        self.revision += 1;
        for it in then {
            if let Some(put) = it.get("request_put") {
                events.push(self.put(&bytes(&put["key"]), bytes(&put["value"]), number(&put["lease"])));
            } else {
                events.extend(self.delete(&bytes(&it["request_delete_range"]["key"])));
            }
        }
        self.tell(&events);
        json!({ "header": self.header(), "succeeded": true })
    }

    fn put(&mut self, key: &[u8], value: Vec<u8>, lease: u64) -> Value {
        self.keys.insert(key.to_vec(), Kv { value, revision: self.revision, lease });
        json!({ "kv": self.found(key) })
    }

    fn delete(&mut self, key: &[u8]) -> Option<Value> {
        self.keys.remove(key)?;
        let revision = self.revision.to_string();
        Some(json!({ "type": "DELETE", "kv": { "key": BASE64.encode(key), "mod_revision": revision } }))
    }

    fn end(&mut self, lease: u64) {
        self.leases.remove(&lease);
        let of_it = |(key, kv): (&Vec<u8>, &Kv)| (kv.lease == lease && lease != 0).then(|| key.clone());
        let keys: Vec<Vec<u8>> = self.keys.iter().filter_map(of_it).collect();
        if !keys.is_empty() {
            self.revision += 1;
            let events: Vec<Value> = keys.iter().filter_map(|key| self.delete(key)).collect();
            self.tell(&events);
        }
    }

    fn tell(&mut self, events: &[Value]) {
        let line = json!({ "result": { "header": self.header(), "events": events } });
        self.watchers.retain(|watcher| watcher.send(format!("{line}\n")).is_ok());
    }
}
