//! What etcd's JSON gateway takes and says (`/v3/…`, etcd 3.4 and later): requests as JSON, answers as what they
//! mean. Pure. Keys and values are base64, numbers are texts, and what is zero, empty or false is left out.

use data_encoding::BASE64;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error as _},
};
use serde_json::{Value, json};
use std::{fmt::Display, str::FromStr};

/// Of each answer: which cluster, and how far it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Header {
    #[serde(deserialize_with = "number")]
    pub(super) cluster_id: u64,
    #[serde(deserialize_with = "number")]
    pub(super) revision: u64,
}

/// A key and what it has. Of one that is deleted, there are `key` and `mod_revision`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct KeyValue {
    #[serde(deserialize_with = "bytes")]
    pub(super) key: Vec<u8>,
    #[serde(deserialize_with = "bytes")]
    pub(super) value: Vec<u8>,
    #[serde(deserialize_with = "number")]
    pub(super) mod_revision: u64,
    /// None is 0.
    #[serde(deserialize_with = "number")]
    pub(super) lease: u64,
}

/// Keys that were asked for.
#[derive(Debug, Deserialize)]
pub(super) struct Range {
    pub(super) header: Header,
    #[serde(default)]
    pub(super) kvs: Vec<KeyValue>,
    /// Whether there are further ones behind them.
    #[serde(default)]
    pub(super) more: bool,
    /// How many there are in all.
    #[serde(default, deserialize_with = "number")]
    pub(super) count: u64,
}

/// What became of a transaction.
#[derive(Debug, Deserialize)]
pub(super) struct Transacted {
    pub(super) header: Header,
    /// Whether all was as it was compared with.
    #[serde(default)]
    pub(super) succeeded: bool,
    #[serde(default)]
    responses: Vec<Response>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Response {
    response_range: Option<Range>,
}

impl Transacted {
    /// Keys that were asked for where it was not.
    pub(super) fn into_found(self) -> impl Iterator<Item = KeyValue> {
        self.responses.into_iter().filter_map(|response| response.response_range).flat_map(|range| range.kvs)
    }
}

/// A lease that was granted, renewed, or looked at.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Leased {
    #[serde(rename = "ID", deserialize_with = "number")]
    pub(super) id: u64,
    /// Seconds that it has left; 0 where there is no such lease.
    #[serde(rename = "TTL", deserialize_with = "number")]
    pub(super) ttl: i64,
    /// Seconds that it had.
    #[serde(rename = "grantedTTL", deserialize_with = "number")]
    pub(super) granted: u64,
}

/// A token for further requests.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Authenticated {
    pub(super) token: String,
}

/// One message of a watch.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Watched {
    pub(super) header: Header,
    pub(super) created: bool,
    pub(super) canceled: bool,
    cancel_reason: String,
    #[serde(deserialize_with = "number")]
    compact_revision: u64,
    pub(super) events: Vec<Event>,
}

impl Watched {
    /// Why it ends here.
    pub(super) fn why(&self) -> String {
        match (self.cancel_reason.as_str(), self.compact_revision) {
            ("", 0) => "the watch was ended".to_owned(),
            ("", _) => "changes that were to be watched are compacted".to_owned(),
            (reason, _) => reason.to_owned(),
        }
    }
}

/// A key that was put or deleted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Event {
    #[serde(rename = "type")]
    kind: Kind,
    pub(super) kv: KeyValue,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum Kind {
    #[default]
    Put,
    Delete,
}

impl Event {
    /// Whether the key is there no more.
    pub(super) fn is_end(&self) -> bool {
        self.kind == Kind::Delete
    }
}

/// A message of a stream, or what ended it.
#[derive(Deserialize)]
struct Streamed<T> {
    result: Option<T>,
    error: Option<Value>,
}

/// What was said is nothing that etcd says.
#[derive(Debug, thiserror::Error)]
#[error("no etcd answers there: {0}")]
pub(super) struct NoEtcd(#[from] serde_json::Error);

/// Reads the body of an answer that is an error: gRPC's code, and the words.
pub(super) fn read_fault(body: &[u8]) -> Result<(u32, String), NoEtcd> {
    let value: Value = serde_json::from_slice(body)?;
    fault(&value).ok_or_else(|| NoEtcd(serde_json::Error::custom("an error without words")))
}

/// Versions differ in the names of fields, and in whether they are in one of their own.
fn fault(value: &Value) -> Option<(u32, String)> {
    if let Some(inner) = value.get("error").filter(|inner| inner.is_object()) {
        return fault(inner);
    }
    let code = ["code", "grpc_code"].iter().find_map(|key| value.get(key)?.as_u64());
    let message = ["message", "error"].iter().find_map(|key| value.get(key)?.as_str());
    let message = message?.trim_start_matches("etcdserver: ").to_owned();
    Some((u32::try_from(code.unwrap_or_default()).unwrap_or_default(), message))
}

/// Reads an answer.
pub(super) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, NoEtcd> {
    Ok(serde_json::from_slice(body)?)
}

/// Reads a message of a stream: it, or the code and the words of what ended it.
pub(super) fn read_streamed<T: DeserializeOwned>(line: &[u8]) -> Result<Result<T, (u32, String)>, NoEtcd> {
    let streamed: Streamed<T> = serde_json::from_slice(line)?;
    match (streamed.result, streamed.error) {
        (Some(result), _) => Ok(Ok(result)),
        (None, Some(error)) => {
            let said = fault(&error).or_else(|| Some((0, error.as_str()?.to_owned())));
            Ok(Err(said.unwrap_or_else(|| (0, error.to_string()))))
        }
        (None, None) => Err(NoEtcd(serde_json::Error::custom("neither `result` nor `error`"))),
    }
}

fn text(bytes: &[u8]) -> String {
    BASE64.encode(bytes)
}

/// Asks for one key, as it is now, of who has asked the others.
pub(super) fn get(key: &[u8]) -> Value {
    json!({ "key": text(key) })
}

/// Asks for the keys from `key` to `end`, so many at most; as they were at a revision, or as they are where it is 0.
pub(super) fn range(key: &[u8], end: &[u8], most: usize, revision: u64) -> Value {
    json!({
        "key": text(key), "range_end": text(end), "limit": most.to_string(), "revision": revision.to_string()
    })
}

/// Asks how many keys there are from `key` to `end`.
pub(super) fn count(key: &[u8], end: &[u8]) -> Value {
    json!({ "key": text(key), "range_end": text(end), "count_only": true })
}

/// A transaction: where all of `same` are of those revisions (0: not there), does `then`; where not, gets them.
pub(super) fn transaction(same: &[(Vec<u8>, u64)], then: &[Value]) -> Value {
    let compare = |(key, revision): &(Vec<u8>, u64)| json!({ "target": "MOD", "key": text(key), "mod_revision": revision.to_string() });
    let get = |(key, _): &(Vec<u8>, u64)| json!({ "request_range": get(key) });
    json!({
        "compare": same.iter().map(compare).collect::<Vec<_>>(),
        "success": then,
        "failure": same.iter().map(get).collect::<Vec<_>>(),
    })
}

/// Of a transaction: compares so that it differs, whatever there is.
pub(super) fn never(key: &[u8]) -> Value {
    json!({ "target": "VERSION", "result": "LESS", "key": text(key), "version": "0" })
}

/// Of a transaction: puts a key, under a lease where it is not 0.
pub(super) fn put(key: &[u8], value: &[u8], lease: u64) -> Value {
    json!({ "request_put": { "key": text(key), "value": text(value), "lease": lease.to_string() } })
}

/// Of a transaction: deletes a key.
pub(super) fn delete(key: &[u8]) -> Value {
    json!({ "request_delete_range": { "key": text(key) } })
}

/// Asks for a lease of this number, for so many seconds.
pub(super) fn grant(id: u64, seconds: u64) -> Value {
    json!({ "ID": id.to_string(), "TTL": seconds.to_string() })
}

/// Names a lease.
pub(super) fn lease(id: u64) -> Value {
    json!({ "ID": id.to_string() })
}

/// Asks for changes of keys from `key` to `end`, from a revision on.
pub(super) fn watch(key: &[u8], end: &[u8], from: u64) -> Value {
    json!({ "create_request": {
        "key": text(key), "range_end": text(end), "start_revision": from.to_string(),
    } })
}

/// Says who asks.
pub(super) fn authenticate(user: &str, password: &str) -> Value {
    json!({ "name": user, "password": password })
}

/// A number, as such or as a text.
fn number<'de, D: Deserializer<'de>, N: FromStr<Err: Display>>(deserializer: D) -> Result<N, D::Error> {
    let text = match Value::deserialize(deserializer)? {
        Value::String(text) => text,
        value => value.to_string(),
    };
    text.parse().map_err(D::Error::custom)
}

fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(deserializer)?;
    BASE64.decode(text.as_bytes()).map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_as_etcd_writes_them() {
        let header =
            r#""header":{"cluster_id":"324952591200643719","member_id":"33","revision":"7","raft_term":"2"}"#;
        let expected = Header { cluster_id: 324_952_591_200_643_719, revision: 7 };
        let found: Range = read(
            format!(
                r#"{{{header},"kvs":[{{"key":"L3YvYQ==","create_revision":"2","mod_revision":"3","version":"1","value":"e30=","lease":"9"}}],"more":true,"count":"4"}}"#
            )
            .as_bytes(),
        )
        .expect("an answer");
        let kv = KeyValue { key: b"/v/a".to_vec(), value: b"{}".to_vec(), mod_revision: 3, lease: 9 };
        assert_eq!((found.header, &*found.kvs, found.more), (expected, &[kv][..], true));
        let none: Range = read(format!("{{{header}}}").as_bytes()).expect("an answer");
        assert!(none.kvs.is_empty() && !none.more);
        let differs: Transacted = read(
            format!(
                r#"{{{header},"responses":[{{"response_range":{{"header":{{"revision":"7"}},"kvs":[{{"key":"YQ==","mod_revision":"2"}}],"count":"1"}}}},{{"response_range":{{"header":{{"revision":"7"}}}}}}]}}"#
            )
            .as_bytes(),
        )
        .expect("an answer");
        assert!(!differs.succeeded);
        assert_eq!(
            differs.into_found().map(|kv| (kv.key, kv.mod_revision)).collect::<Vec<_>>(),
            [(b"a".to_vec(), 2)]
        );
    }

    #[test]
    fn streams_have_messages_and_ends() {
        let watched = |line: &str| read_streamed::<Watched>(line.as_bytes()).expect("a message");
        let begun = watched(r#"{"result":{"header":{"revision":"3"},"created":true}}"#).expect("it begins");
        assert!(begun.created && begun.events.is_empty() && begun.header.revision == 3);
        let news = watched(
            r#"{"result":{"header":{"revision":"4"},"events":[{"kv":{"key":"YQ==","mod_revision":"4","value":"Yg=="}},{"type":"DELETE","kv":{"key":"Yg==","mod_revision":"4"}}]}}"#,
        )
        .expect("news");
        assert_eq!(news.events.iter().map(Event::is_end).collect::<Vec<_>>(), [false, true]);
        let over =
            watched(r#"{"result":{"header":{},"canceled":true,"compact_revision":"3"}}"#).expect("its end");
        assert!(over.canceled && over.why().contains("compacted"), "{over:?}");
        let failed =
            watched(r#"{"error":{"grpc_code":14,"http_code":503,"message":"etcdserver: no leader"}}"#);
        assert_eq!(failed.expect_err("an end"), (14, "no leader".to_owned()));
        for line in ["", "{}", "[]", "<html>", r#"{"result":{"header":{"revision":"x"}}}"#] {
            assert!(read_streamed::<Watched>(line.as_bytes()).is_err(), "{line}");
        }
        let kept: Result<Leased, _> =
            read_streamed(br#"{"result":{"header":{"revision":"1"},"ID":"12","TTL":"5"}}"#)
                .expect("an answer");
        assert_eq!(kept.map(|lease| (lease.id, lease.ttl)), Ok((12, 5)));
        let gone: Result<Leased, _> =
            read_streamed(br#"{"result":{"header":{"revision":"1"},"ID":"12"}}"#).expect("an answer");
        assert_eq!(gone.map(|lease| lease.ttl), Ok(0), "there is no such lease");
    }

    #[test]
    fn errors_are_read_in_either_form() {
        for (body, expected) in [
            (
                r#"{"error":"etcdserver: requested lease not found","message":"etcdserver: requested lease not found","code":5}"#,
                (5, "requested lease not found"),
            ),
            (
                r#"{"code":16,"message":"etcdserver: invalid auth token","details":[]}"#,
                (16, "invalid auth token"),
            ),
            (r#"{"error":{"grpc_code":8,"message":"full"}}"#, (8, "full")),
        ] {
            let said = read_fault(body.as_bytes()).expect(body);
            assert_eq!((said.0, said.1.as_str()), expected);
        }
        for body in ["", "404 page not found", "{}", "[]"] {
            assert!(read_fault(body.as_bytes()).is_err(), "{body}");
        }
    }

    #[test]
    fn a_transaction_compares_and_asks_where_that_fails() {
        let same = [(b"a".to_vec(), 0), (b"b".to_vec(), 7)];
        let written = transaction(&same, &[put(b"a", b"{}", 9), delete(b"b")]);
        let expected = json!({
            "compare": [
                { "target": "MOD", "key": "YQ==", "mod_revision": "0" },
                { "target": "MOD", "key": "Yg==", "mod_revision": "7" },
            ],
            "success": [
                { "request_put": { "key": "YQ==", "value": "e30=", "lease": "9" } },
                { "request_delete_range": { "key": "Yg==" } },
            ],
            "failure": [{ "request_range": { "key": "YQ==" } }, { "request_range": { "key": "Yg==" } }],
        });
        assert_eq!(written, expected);
    }
}
