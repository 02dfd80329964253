//! The gateway as native tests see it: the same names as the generated imports, in memory.
//!
//! One simulation per thread, which is one per test.

use std::{cell::RefCell, collections::BTreeMap, collections::VecDeque};

/// What the imports work on.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) secrets: BTreeMap<String, String>,
    pub(crate) vm_id: Option<String>,
    pub(crate) successor: Option<String>,
    pub(crate) replies: VecDeque<Result<outbound_http::Response, outbound_http::Error>>,
    pub(crate) sent: Vec<outbound_http::Request>,
    pub(crate) lines: Vec<(log::Level, String)>,
    random: u64,
    /// Nanoseconds since the test began.
    pub(crate) clock: u64,
    pub(crate) kept: BTreeMap<String, Kept>,
    version: u64,
    pub(crate) metrics: Vec<String>,
    pub(crate) series: BTreeMap<(u32, Vec<String>), f64>,
}

/// What a plugin keeps.
pub(crate) struct Kept {
    value: Vec<u8>,
    version: u64,
    expires: Option<u64>,
}

thread_local! {
    static STATE: RefCell<State> = RefCell::default();
}

pub(crate) fn with<R>(f: impl FnOnce(&mut State) -> R) -> R {
    STATE.with_borrow_mut(f)
}

pub(crate) mod log {
    pub(crate) use crate::bindings::base::vers::gateway::log::Level;

    pub(crate) fn emit(level: Level, message: &str) {
        // Shown by the test runner where a test fails.
        println!("[{level:?}] {message}");
        super::with(|state| state.lines.push((level, message.into())));
    }
}

pub(crate) mod secrets {
    pub(crate) fn get(name: &str) -> Option<String> {
        super::with(|state| state.secrets.get(name).filter(|value| !value.is_empty()).cloned())
    }

    pub(crate) fn is_set(name: &str) -> bool {
        get(name).is_some()
    }

    pub(crate) fn matches(name: &str, candidate: &[u8]) -> bool {
        get(name).is_some_and(|value| value.as_bytes() == candidate)
    }

    pub(crate) fn bearer_matches(name: &str, req: &super::types::Request) -> bool {
        let values = req.headers.get_all("authorization");
        let [value] = values.as_slice() else { return false };
        crate::request::bearer_token(value).is_some_and(|token| matches(name, token))
    }
}

pub(crate) mod outbound_http {
    pub(crate) use crate::bindings::base::vers::gateway::outbound_http::{Error, Request, Response};

    pub(crate) fn send(req: &Request) -> Result<Response, Error> {
        let reply = super::with(|state| {
            state.sent.push(req.clone());
            state.replies.pop_front()
        });
        reply.unwrap_or_else(|| panic!("no reply is scripted for {} {}", req.method, req.url))
    }
}

pub(crate) mod identity {
    pub(crate) fn vm_id() -> Option<String> {
        super::with(|state| state.vm_id.clone())
    }

    pub(crate) fn successor_config() -> Option<String> {
        super::with(|state| state.successor.clone())
    }
}

pub(crate) mod random {
    /// The same sequence in every test (SplitMix64).
    pub(crate) fn u64() -> u64 {
        super::with(|state| {
            state.random = state.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (state.random ^ (state.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        })
    }
}

pub(crate) mod clock {
    /// 2026-01-01 in milliseconds: where every test begins.
    const BEGIN: u64 = 1_767_225_600_000;

    pub(crate) fn now_ms() -> u64 {
        BEGIN + monotonic_ns() / 1_000_000
    }

    pub(crate) fn monotonic_ns() -> u64 {
        super::with(|state| state.clock)
    }
}

pub(crate) mod metrics {
    use super::with;

    pub(crate) use crate::bindings::base::vers::gateway::metrics::{Error, Kind};

    pub(crate) fn declare(_: Kind, name: &str, _: &str, _: &[String]) -> Result<u32, Error> {
        let is_part = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        if name.is_empty() || !name.bytes().all(is_part) {
            return Err(Error::InvalidName);
        }
        Ok(with(|state| {
            let known = state.metrics.iter().position(|known| known == name);
            let number = known.unwrap_or_else(|| {
                state.metrics.push(name.into());
                state.metrics.len() - 1
            });
            u32::try_from(number).unwrap_or(u32::MAX)
        }))
    }

    pub(crate) fn add(metric: u32, by: u64, values: &[String]) {
        #[expect(clippy::cast_precision_loss, reason = "tests count to less than 2^52")]
        write(metric, values, |value| value + by as f64);
    }

    pub(crate) fn set(metric: u32, value: f64, values: &[String]) {
        write(metric, values, |_| value);
    }

    pub(crate) fn observe(metric: u32, _: f64, values: &[String]) {
        write(metric, values, |value| value + 1.0);
    }

    fn write(metric: u32, values: &[String], change: impl FnOnce(f64) -> f64) {
        with(|state| {
            let series = state.series.entry((metric, values.into())).or_default();
            *series = change(*series);
        });
    }
}

pub(crate) mod kv {
    use super::{Kept, State, with};

    pub(crate) use crate::bindings::base::vers::gateway::kv::{Entry, Error, Lookup};

    fn live<'a>(state: &'a State, key: &str) -> Option<&'a Kept> {
        state.kept.get(key).filter(|kept| kept.expires.is_none_or(|expires| state.clock < expires))
    }

    fn entry(kept: &Kept) -> Entry {
        Entry { value: kept.value.clone(), version: kept.version }
    }

    fn put(state: &mut State, key: &str, value: Vec<u8>, expires: Option<u64>) -> u64 {
        state.version += 1;
        let version = state.version;
        state.kept.insert(key.into(), Kept { value, version, expires });
        version
    }

    fn expiry(state: &State, ttl_ms: Option<u64>) -> Option<u64> {
        ttl_ms.map(|ttl| state.clock.saturating_add(ttl.saturating_mul(1_000_000)))
    }

    pub(crate) fn get(key: &str) -> Result<Option<Entry>, Error> {
        Ok(with(|state| live(state, key).map(entry)))
    }

    pub(crate) fn set(key: &str, value: &[u8], ttl_ms: Option<u64>) -> Result<u64, Error> {
        Ok(with(|state| {
            let expires = expiry(state, ttl_ms);
            put(state, key, value.into(), expires)
        }))
    }

    pub(crate) fn compare_and_set(
        key: &str,
        expected: Option<u64>,
        value: &[u8],
        ttl_ms: Option<u64>,
    ) -> Result<u64, Error> {
        let there = with(|state| live(state, key).map(entry));
        let version = there.as_ref().map(|entry| entry.version);
        // What nobody else can make in the meantime is reserved under the next version.
        if version == expected
            || there.is_none() && expected.is_some_and(|it| it > with(|state| state.version))
        {
            return set(key, value, ttl_ms);
        }
        Err(Error::Conflict(there))
    }

    pub(crate) fn increment(key: &str, by: i64, ttl_ms: Option<u64>) -> Result<i64, Error> {
        with(|state| {
            let (sum, expires) = match live(state, key) {
                Some(kept) => {
                    let number =
                        std::str::from_utf8(&kept.value).ok().and_then(|text| text.parse::<i64>().ok());
                    (number.ok_or(Error::NotANumber)?.saturating_add(by), kept.expires)
                }
                None => (by, expiry(state, ttl_ms)),
            };
            put(state, key, sum.to_string().into_bytes(), expires);
            Ok(sum)
        })
    }

    pub(crate) fn remove(key: &str) -> Result<(), Error> {
        with(|state| state.kept.remove(key));
        Ok(())
    }

    pub(crate) fn get_or_reserve(key: &str, _hold_ms: u32) -> Result<Lookup, Error> {
        Ok(match get(key)? {
            Some(entry) => Lookup::Found(entry),
            None => Lookup::Reserved(with(|state| state.version) + 1),
        })
    }
}

pub(crate) mod types {
    use crate::headers::{check_name, check_value};
    use std::{cell::RefCell, collections::BTreeMap, rc::Rc};

    pub(crate) use crate::bindings::base::vers::gateway::types::{EditError, LocalResponse};

    /// What all hooks of one exchange share.
    #[derive(Debug, Clone, Default)]
    pub(crate) struct Exchange(pub(crate) Rc<Facts>);

    #[derive(Debug, Default)]
    pub(crate) struct Facts {
        pub(crate) id: String,
        pub(crate) route: String,
        pub(crate) client: String,
        pub(crate) peer: String,
        pub(crate) local_port: u16,
        pub(crate) captures: BTreeMap<String, String>,
        pub(crate) values: RefCell<BTreeMap<String, Vec<u8>>>,
    }

    impl Exchange {
        pub(crate) fn id(&self) -> String {
            self.0.id.clone()
        }

        pub(crate) fn route(&self) -> String {
            self.0.route.clone()
        }

        pub(crate) fn client_address(&self) -> String {
            self.0.client.clone()
        }

        pub(crate) fn peer_address(&self) -> String {
            self.0.peer.clone()
        }

        pub(crate) fn local_port(&self) -> u16 {
            self.0.local_port
        }

        pub(crate) fn capture(&self, name: &str) -> Option<String> {
            self.0.captures.get(name).cloned()
        }

        pub(crate) fn get(&self, key: &str) -> Option<Vec<u8>> {
            self.0.values.borrow().get(key).cloned()
        }

        pub(crate) fn set(&self, key: &str, value: &[u8]) -> Result<(), EditError> {
            let mut values = self.0.values.borrow_mut();
            let others = values.iter().filter(|(known, _)| *known != key);
            let size: usize = others.map(|(key, value)| 64 + key.len() + value.len()).sum();
            if size + 64 + key.len() + value.len() > 16 * 1024 {
                return Err(EditError::TooLarge);
            }
            values.insert(key.into(), value.into());
            Ok(())
        }
    }

    type Fields = Vec<(String, Vec<u8>)>;

    /// Names in lower case.
    #[derive(Debug, Clone, Default)]
    pub(crate) struct Headers {
        pub(crate) fields: Rc<RefCell<Fields>>,
        /// Whether edits take `_` for `-`.
        pub(crate) is_of_request: bool,
    }

    impl Headers {
        pub(crate) fn get(&self, name: &str) -> Option<Vec<u8>> {
            self.get_all(name).into_iter().next()
        }

        pub(crate) fn get_all(&self, name: &str) -> Vec<Vec<u8>> {
            let fields = self.fields.borrow();
            let of_name = fields.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
            of_name.map(|(_, value)| value.clone()).collect()
        }

        pub(crate) fn has(&self, name: &str) -> bool {
            self.get(name).is_some()
        }

        pub(crate) fn set(&self, name: &str, value: &[u8]) -> Result<(), EditError> {
            check(name, value)?;
            self.remove(name)?;
            self.append(name, value)
        }

        pub(crate) fn append(&self, name: &str, value: &[u8]) -> Result<(), EditError> {
            check(name, value)?;
            self.fields.borrow_mut().push((name.to_ascii_lowercase(), value.into()));
            Ok(())
        }

        pub(crate) fn remove(&self, name: &str) -> Result<(), EditError> {
            check(name, b"")?;
            let folded = |name: &str| match self.is_of_request {
                true => name.to_ascii_lowercase().replace('_', "-"),
                false => name.to_ascii_lowercase(),
            };
            let name = folded(name);
            self.fields.borrow_mut().retain(|(known, _)| folded(known) != name);
            Ok(())
        }

        pub(crate) fn entries(&self) -> Fields {
            self.fields.borrow().clone()
        }
    }

    fn check(name: &str, value: &[u8]) -> Result<(), EditError> {
        check_name(name).and_then(|()| check_value(value)).map_err(|error| match error {
            crate::EditError::InvalidName => EditError::InvalidName,
            crate::EditError::Forbidden => EditError::Forbidden,
            _ => EditError::InvalidValue,
        })
    }

    type Refused = Vec<(String, EditError)>;

    impl Headers {
        fn edit(
            &self,
            remove: &[String],
            set: &[(String, Vec<u8>)],
            append: &[(String, Vec<u8>)],
        ) -> Refused {
            let refused = |name: &String, edit: Result<(), EditError>| Some((name.clone(), edit.err()?));
            let removed = remove.iter().filter_map(|name| refused(name, self.remove(name)));
            let set = set.iter().filter_map(|(name, value)| refused(name, self.set(name, value)));
            let added = append.iter().filter_map(|(name, value)| refused(name, self.append(name, value)));
            removed.chain(set).chain(added).collect()
        }
    }

    #[derive(Debug, Default)]
    pub(crate) struct Request {
        pub(crate) headers: Headers,
        pub(crate) exchange: Exchange,
        pub(crate) method: String,
        pub(crate) authority: RefCell<String>,
        pub(crate) path_and_query: RefCell<String>,
        pub(crate) is_upgrade: bool,
    }

    impl Request {
        pub(crate) fn exchange(&self) -> Exchange {
            self.exchange.clone()
        }

        pub(crate) fn headers(&self) -> Headers {
            self.headers.clone()
        }

        pub(crate) fn edit_headers(
            &self,
            remove: &[String],
            set: &[(String, Vec<u8>)],
            append: &[(String, Vec<u8>)],
        ) -> Refused {
            self.headers.edit(remove, set, append)
        }

        pub(crate) fn method(&self) -> String {
            self.method.clone()
        }

        pub(crate) fn authority(&self) -> String {
            self.authority.borrow().clone()
        }

        pub(crate) fn set_authority(&self, value: &str) -> Result<(), EditError> {
            let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~[]:".contains(&byte);
            if value.is_empty() || !value.bytes().all(is_part) {
                return Err(EditError::InvalidValue);
            }
            *self.authority.borrow_mut() = value.into();
            Ok(())
        }

        pub(crate) fn path(&self) -> String {
            let target = self.path_and_query.borrow();
            target.split_once('?').map_or(target.as_str(), |(path, _)| path).into()
        }

        pub(crate) fn query(&self) -> Option<String> {
            Some(self.path_and_query.borrow().split_once('?')?.1.into())
        }

        pub(crate) fn set_path_and_query(&self, value: &str) -> Result<(), EditError> {
            if !value.starts_with('/') || !value.bytes().all(|b| b.is_ascii_graphic() && b != b'#') {
                return Err(EditError::InvalidValue);
            }
            *self.path_and_query.borrow_mut() = value.into();
            Ok(())
        }

        pub(crate) fn is_upgrade(&self) -> bool {
            self.is_upgrade
        }
    }

    #[derive(Debug, Default)]
    pub(crate) struct Completed {
        pub(crate) exchange: Exchange,
        pub(crate) method: String,
        pub(crate) authority: String,
        pub(crate) path: String,
        pub(crate) status: Option<u16>,
        pub(crate) head_duration_us: Option<u64>,
        pub(crate) duration_us: u64,
        pub(crate) request_bytes: u64,
        pub(crate) response_bytes: u64,
        pub(crate) answered_by: Option<String>,
        pub(crate) reason: Option<String>,
        pub(crate) error: Option<String>,
        pub(crate) broke_off: bool,
    }

    impl Completed {
        pub(crate) fn exchange(&self) -> Exchange {
            self.exchange.clone()
        }

        pub(crate) fn method(&self) -> String {
            self.method.clone()
        }

        pub(crate) fn authority(&self) -> String {
            self.authority.clone()
        }

        pub(crate) fn path(&self) -> String {
            self.path.clone()
        }

        pub(crate) fn status(&self) -> Option<u16> {
            self.status
        }

        pub(crate) fn head_duration_us(&self) -> Option<u64> {
            self.head_duration_us
        }

        pub(crate) fn duration_us(&self) -> u64 {
            self.duration_us
        }

        pub(crate) fn request_bytes(&self) -> u64 {
            self.request_bytes
        }

        pub(crate) fn response_bytes(&self) -> u64 {
            self.response_bytes
        }

        pub(crate) fn answered_by(&self) -> Option<String> {
            self.answered_by.clone()
        }

        pub(crate) fn reason(&self) -> Option<String> {
            self.reason.clone()
        }

        pub(crate) fn error(&self) -> Option<String> {
            self.error.clone()
        }

        pub(crate) fn broke_off(&self) -> bool {
            self.broke_off
        }
    }

    #[derive(Debug, Default)]
    pub(crate) struct Connection {
        pub(crate) exchange: Exchange,
        pub(crate) client_port: u16,
        pub(crate) server_name: Option<String>,
        pub(crate) is_tls: bool,
        pub(crate) client_certificate: Option<String>,
        pub(crate) is_proxied: bool,
    }

    impl Connection {
        pub(crate) fn exchange(&self) -> Exchange {
            self.exchange.clone()
        }

        pub(crate) fn client_port(&self) -> u16 {
            self.client_port
        }

        pub(crate) fn server_name(&self) -> Option<String> {
            self.server_name.clone()
        }

        pub(crate) fn is_tls(&self) -> bool {
            self.is_tls
        }

        pub(crate) fn client_certificate(&self) -> Option<String> {
            self.client_certificate.clone()
        }

        pub(crate) fn is_proxied(&self) -> bool {
            self.is_proxied
        }
    }

    #[derive(Debug, Default)]
    pub(crate) struct Closed {
        pub(crate) exchange: Exchange,
        pub(crate) server_name: Option<String>,
        pub(crate) duration_us: u64,
        pub(crate) bytes_to_server: u64,
        pub(crate) bytes_to_client: u64,
        pub(crate) why: String,
        pub(crate) refused_by: Option<String>,
        pub(crate) reason: Option<String>,
    }

    impl Closed {
        pub(crate) fn exchange(&self) -> Exchange {
            self.exchange.clone()
        }

        pub(crate) fn server_name(&self) -> Option<String> {
            self.server_name.clone()
        }

        pub(crate) fn duration_us(&self) -> u64 {
            self.duration_us
        }

        pub(crate) fn bytes_to_server(&self) -> u64 {
            self.bytes_to_server
        }

        pub(crate) fn bytes_to_client(&self) -> u64 {
            self.bytes_to_client
        }

        pub(crate) fn why(&self) -> String {
            self.why.clone()
        }

        pub(crate) fn refused_by(&self) -> Option<String> {
            self.refused_by.clone()
        }

        pub(crate) fn reason(&self) -> Option<String> {
            self.reason.clone()
        }
    }

    #[derive(Debug, Default)]
    pub(crate) struct Response {
        pub(crate) headers: Headers,
        pub(crate) exchange: Exchange,
        pub(crate) status: std::cell::Cell<u16>,
    }

    impl Response {
        pub(crate) fn exchange(&self) -> Exchange {
            self.exchange.clone()
        }

        pub(crate) fn headers(&self) -> Headers {
            self.headers.clone()
        }

        pub(crate) fn edit_headers(
            &self,
            remove: &[String],
            set: &[(String, Vec<u8>)],
            append: &[(String, Vec<u8>)],
        ) -> Refused {
            self.headers.edit(remove, set, append)
        }

        pub(crate) fn status(&self) -> u16 {
            self.status.get()
        }

        pub(crate) fn set_status(&self, value: u16) -> Result<(), EditError> {
            let frames_the_body = |status| matches!(status, ..200 | 204 | 304);
            if !(200..=599).contains(&value) || frames_the_body(value) || frames_the_body(self.status()) {
                return Err(EditError::InvalidValue);
            }
            self.status.set(value);
            Ok(())
        }
    }
}
