//! What a plugin can call: each import of `wit/`, implemented on the store's data.

use super::{
    FetchError,
    bindings::vers::gateway::{
        clock, identity, kv, log, metrics, outbound_http, random, secrets,
        types::{self, EditError, Header},
    },
    exchange::{Completed, Exchange},
    handles::{
        CompletedHandle, ExchangeHandle, HeadersHandle, REQUEST, RESPONSE, RequestHandle, ResponseHandle,
    },
    kv::{Condition, Entry, KvError, Lookup, Space},
    state::{LogVerdict, State},
};
use crate::{
    message::{Fields, Known, RequestHead, ResponseHead, host_of, is_field_value, is_target, is_token, trim},
    metrics::{Cell, DeclareError, Declared, Kind, LABEL_VALUE},
};
use http::{HeaderName, StatusCode};
use std::time::Duration;
use subtle::ConstantTimeEq as _;
use wasmtime::component::Resource;

/// Bytes of a log line; the rest is cut.
const LOG_LINE: usize = 4 * 1024;

impl types::Host for State {}

impl types::HostExchange for State {
    fn id(&mut self, _: Resource<ExchangeHandle>) -> String {
        self.exchange.facts.as_ref().map(|facts| facts.id.to_string()).unwrap_or_default()
    }

    fn route(&mut self, _: Resource<ExchangeHandle>) -> String {
        self.exchange.facts.as_ref().map(|facts| facts.route.to_string()).unwrap_or_default()
    }

    fn client_address(&mut self, _: Resource<ExchangeHandle>) -> String {
        self.exchange.facts.as_ref().map(|facts| facts.client.to_string()).unwrap_or_default()
    }

    fn peer_address(&mut self, _: Resource<ExchangeHandle>) -> String {
        self.exchange.facts.as_ref().map(|facts| facts.peer.to_string()).unwrap_or_default()
    }

    fn local_port(&mut self, _: Resource<ExchangeHandle>) -> u16 {
        self.exchange.facts.as_ref().map_or(0, |facts| facts.local_port)
    }

    fn capture(&mut self, _: Resource<ExchangeHandle>, name: String) -> Option<String> {
        let captures = &self.exchange.facts.as_ref()?.captures;
        captures.iter().find(|(known, _)| **known == *name).map(|(_, text)| text.to_string())
    }

    fn get(&mut self, _: Resource<ExchangeHandle>, key: String) -> Option<Vec<u8>> {
        self.exchange.value(&key).map(<[u8]>::to_vec)
    }

    fn set(&mut self, _: Resource<ExchangeHandle>, key: String, value: Vec<u8>) -> Result<(), EditError> {
        if self.exchange.is_over {
            return Err(EditError::Gone);
        }
        if self.exchange.set_value(key, value) { Ok(()) } else { Err(EditError::TooLarge) }
    }

    fn drop(&mut self, _: Resource<ExchangeHandle>) -> wasmtime::Result<()> {
        Ok(())
    }
}

impl types::HostHeaders for State {
    fn get(&mut self, which: Resource<HeadersHandle>, name: String) -> Option<Vec<u8>> {
        fields(&self.exchange, &which)?.get_named(name.as_bytes()).map(<[u8]>::to_vec)
    }

    fn get_all(&mut self, which: Resource<HeadersHandle>, name: String) -> Vec<Vec<u8>> {
        let fields = fields(&self.exchange, &which).into_iter();
        fields.flat_map(|fields| fields.all_named(name.as_bytes())).map(<[u8]>::to_vec).collect()
    }

    fn has(&mut self, which: Resource<HeadersHandle>, name: String) -> bool {
        fields(&self.exchange, &which).is_some_and(|fields| fields.get_named(name.as_bytes()).is_some())
    }

    fn set(&mut self, which: Resource<HeadersHandle>, name: String, value: Vec<u8>) -> Result<(), EditError> {
        self.set_field(which.rep(), &name, &value)
    }

    fn append(
        &mut self,
        which: Resource<HeadersHandle>,
        name: String,
        value: Vec<u8>,
    ) -> Result<(), EditError> {
        self.append_field(which.rep(), &name, &value)
    }

    fn remove(&mut self, which: Resource<HeadersHandle>, name: String) -> Result<(), EditError> {
        self.remove_field(which.rep(), &name)
    }

    fn entries(&mut self, which: Resource<HeadersHandle>) -> Vec<(String, Vec<u8>)> {
        let fields = fields(&self.exchange, &which).into_iter();
        let text = |name: &[u8]| String::from_utf8_lossy(name).to_ascii_lowercase();
        fields.flat_map(Fields::iter).map(|(name, value)| (text(name), value.to_vec())).collect()
    }

    fn drop(&mut self, _: Resource<HeadersHandle>) -> wasmtime::Result<()> {
        Ok(())
    }
}

impl types::HostRequest for State {
    fn exchange(&mut self, _: Resource<RequestHandle>) -> Resource<ExchangeHandle> {
        Resource::new_own(0)
    }

    fn headers(&mut self, _: Resource<RequestHandle>) -> Resource<HeadersHandle> {
        Resource::new_own(REQUEST)
    }

    fn edit_headers(
        &mut self,
        _: Resource<RequestHandle>,
        remove: Vec<String>,
        set: Vec<Header>,
        append: Vec<Header>,
    ) -> wasmtime::Result<Vec<(String, EditError)>> {
        self.edit_all(REQUEST, remove, set, append)
    }

    fn method(&mut self, _: Resource<RequestHandle>) -> String {
        self.request().map(|head| head.method.to_string()).unwrap_or_default()
    }

    fn authority(&mut self, _: Resource<RequestHandle>) -> String {
        let host = self.request().and_then(|head| head.fields.get(Known::Host)).unwrap_or_default();
        String::from_utf8_lossy(host).into_owned()
    }

    fn path(&mut self, _: Resource<RequestHandle>) -> String {
        self.request().map(|head| head.path().to_owned()).unwrap_or_default()
    }

    fn query(&mut self, _: Resource<RequestHandle>) -> Option<String> {
        self.request()?.query().map(str::to_owned)
    }

    fn set_path_and_query(&mut self, _: Resource<RequestHandle>, value: String) -> Result<(), EditError> {
        if !value.starts_with('/') || !is_target(value.as_bytes()) {
            return Err(EditError::InvalidValue);
        }
        let head = self.exchange.request.as_mut().ok_or(EditError::Gone)?;
        if head.fields.text_len() + value.len() > MOST_TEXT {
            return Err(EditError::TooLarge);
        }
        head.set_target(value.as_bytes());
        Ok(())
    }

    fn set_authority(&mut self, _: Resource<RequestHandle>, value: String) -> Result<(), EditError> {
        if host_of(value.as_bytes()).is_none() {
            return Err(EditError::InvalidValue);
        }
        let head = self.exchange.request.as_mut().ok_or(EditError::Gone)?;
        if head.fields.text_len() + value.len() > MOST_TEXT {
            return Err(EditError::TooLarge);
        }
        head.fields.set_known(Known::Host, value.as_bytes());
        Ok(())
    }

    fn is_upgrade(&mut self, _: Resource<RequestHandle>) -> bool {
        self.exchange.facts.as_ref().is_some_and(|facts| facts.is_upgrade)
    }

    fn want_body(&mut self, _: Resource<RequestHandle>, most: u32) {
        self.exchange.wanted = Some(u64::from(most).min(self.plugin.limits.body));
    }

    fn drop(&mut self, _: Resource<RequestHandle>) -> wasmtime::Result<()> {
        Ok(())
    }
}

impl types::HostCompleted for State {
    fn exchange(&mut self, _: Resource<CompletedHandle>) -> Resource<ExchangeHandle> {
        Resource::new_own(0)
    }

    fn method(&mut self, _: Resource<CompletedHandle>) -> String {
        self.completed().map(|done| done.method.to_string()).unwrap_or_default()
    }

    fn authority(&mut self, _: Resource<CompletedHandle>) -> String {
        self.completed().map(|done| done.authority.to_string()).unwrap_or_default()
    }

    fn path(&mut self, _: Resource<CompletedHandle>) -> String {
        self.completed().map(|done| done.path.to_string()).unwrap_or_default()
    }

    fn status(&mut self, _: Resource<CompletedHandle>) -> Option<u16> {
        Some(self.completed()?.status?.as_u16())
    }

    fn head_duration_us(&mut self, _: Resource<CompletedHandle>) -> Option<u64> {
        self.completed()?.head.map(micros)
    }

    fn duration_us(&mut self, _: Resource<CompletedHandle>) -> u64 {
        self.completed().map_or(0, |done| micros(done.total))
    }

    fn request_bytes(&mut self, _: Resource<CompletedHandle>) -> u64 {
        self.completed().map_or(0, |done| done.received)
    }

    fn response_bytes(&mut self, _: Resource<CompletedHandle>) -> u64 {
        self.completed().map_or(0, |done| done.sent)
    }

    fn answered_by(&mut self, _: Resource<CompletedHandle>) -> Option<String> {
        self.completed()?.answered_by.as_ref().map(|(plugin, _)| plugin.clone())
    }

    fn reason(&mut self, _: Resource<CompletedHandle>) -> Option<String> {
        self.completed()?.answered_by.as_ref().map(|(_, reason)| reason.clone())
    }

    fn error(&mut self, _: Resource<CompletedHandle>) -> Option<String> {
        self.completed()?.error.map(str::to_owned)
    }

    fn broke_off(&mut self, _: Resource<CompletedHandle>) -> bool {
        self.completed().is_some_and(|done| done.broke_off)
    }

    fn drop(&mut self, _: Resource<CompletedHandle>) -> wasmtime::Result<()> {
        Ok(())
    }
}

impl types::HostResponse for State {
    fn exchange(&mut self, _: Resource<ResponseHandle>) -> Resource<ExchangeHandle> {
        Resource::new_own(0)
    }

    fn headers(&mut self, _: Resource<ResponseHandle>) -> Resource<HeadersHandle> {
        Resource::new_own(RESPONSE)
    }

    fn edit_headers(
        &mut self,
        _: Resource<ResponseHandle>,
        remove: Vec<String>,
        set: Vec<Header>,
        append: Vec<Header>,
    ) -> wasmtime::Result<Vec<(String, EditError)>> {
        self.edit_all(RESPONSE, remove, set, append)
    }

    fn status(&mut self, _: Resource<ResponseHandle>) -> u16 {
        self.response().map_or(0, |head| head.status.as_u16())
    }

    fn set_status(&mut self, _: Resource<ResponseHandle>, value: u16) -> Result<(), EditError> {
        let status = StatusCode::from_u16(value).map_err(|_| EditError::InvalidValue)?;
        let head = self.exchange.response.as_mut().ok_or(EditError::Gone)?;
        // These frame the body, or say that there is none (RFC 9112 §6.3): it would be lost or
        // invented.
        if frames_the_body(status) || frames_the_body(head.status) || !(200..=599).contains(&value) {
            return Err(EditError::InvalidValue);
        }
        head.status = status;
        Ok(())
    }

    fn drop(&mut self, _: Resource<ResponseHandle>) -> wasmtime::Result<()> {
        Ok(())
    }
}

impl log::Host for State {
    fn emit(&mut self, level: log::Level, message: String) {
        let message = cut(&message, LOG_LINE);
        let plugin = self.plugin.name.as_str();
        match self.log.take() {
            LogVerdict::Drop => {}
            LogVerdict::SaySo => {
                tracing::warn!(plugin, "too many log lines; the rest of this second is dropped")
            }
            LogVerdict::Write => match level {
                log::Level::Trace => tracing::trace!(plugin, "{message}"),
                log::Level::Debug => tracing::debug!(plugin, "{message}"),
                log::Level::Info => tracing::info!(plugin, "{message}"),
                log::Level::Warn => tracing::warn!(plugin, "{message}"),
                log::Level::Error => tracing::error!(plugin, "{message}"),
            },
        }
    }
}

impl identity::Host for State {
    fn vm_id(&mut self) -> Option<String> {
        self.plugin.vm_id.clone()
    }

    fn successor_config(&mut self) -> Option<String> {
        self.successor.as_ref().map(|plugin| plugin.config.clone())
    }
}

impl random::Host for State {
    fn u64(&mut self) -> u64 {
        // The kernel's generator does not fail once the machine is up.
        getrandom::u64().unwrap_or_default()
    }
}

impl metrics::Host for State {
    fn declare(
        &mut self,
        kind: metrics::Kind,
        name: String,
        help: String,
        labels: Vec<String>,
    ) -> Result<u32, metrics::Error> {
        let kind = match kind {
            metrics::Kind::Counter => Kind::Counter,
            metrics::Kind::Gauge => Kind::Gauge,
            metrics::Kind::Histogram => Kind::Histogram,
        };
        let declared = Declared { kind, name, help, labels };
        self.plugin.metrics.declare(&self.plugin.book, declared).map_err(|error| match error {
            DeclareError::Name => metrics::Error::InvalidName,
            DeclareError::Label => metrics::Error::InvalidLabel,
            DeclareError::Conflict => metrics::Error::Conflict,
            DeclareError::Full => metrics::Error::Full,
        })
    }

    fn add(&mut self, metric: u32, by: u64, values: Vec<String>) {
        self.with_series(metric, values, |series| series.add(by));
    }

    fn set(&mut self, metric: u32, value: f64, values: Vec<String>) {
        self.with_series(metric, values, |series| series.set(value));
    }

    fn observe(&mut self, metric: u32, seconds: f64, values: Vec<String>) {
        self.with_series(metric, values, |series| series.observe(seconds));
    }
}

impl clock::Host for State {
    fn now_ms(&mut self) -> u64 {
        let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    fn monotonic_ns(&mut self) -> u64 {
        super::kv::monotonic_ns()
    }
}

impl kv::Host for State {
    fn get(&mut self, key: String) -> Result<Option<kv::Entry>, kv::Error> {
        Ok(self.space()?.read(&key).map(kv::Entry::from))
    }

    fn set(&mut self, key: String, value: Vec<u8>, ttl_ms: Option<u64>) -> Result<u64, kv::Error> {
        Ok(self.space()?.write(&key, Condition::Any, value, ttl_ms.map(Duration::from_millis))?)
    }

    fn compare_and_set(
        &mut self,
        key: String,
        expected: Option<u64>,
        value: Vec<u8>,
        ttl_ms: Option<u64>,
    ) -> Result<u64, kv::Error> {
        let condition = Condition::Version(expected);
        Ok(self.space()?.write(&key, condition, value, ttl_ms.map(Duration::from_millis))?)
    }

    fn increment(&mut self, key: String, by: i64, ttl_ms: Option<u64>) -> Result<i64, kv::Error> {
        Ok(self.space()?.increment(&key, by, ttl_ms.map(Duration::from_millis))?)
    }

    fn remove(&mut self, key: String) -> Result<(), kv::Error> {
        self.space()?.remove(&key);
        Ok(())
    }

    async fn get_or_reserve(&mut self, key: String, hold_ms: u32) -> Result<kv::Lookup, kv::Error> {
        let space = self.plugin.space.clone().ok_or(kv::Error::Unavailable)?;
        Ok(match space.get_or_reserve(&key, Duration::from_millis(hold_ms.into())).await? {
            Lookup::Found(entry) => kv::Lookup::Found(entry.into()),
            Lookup::Reserved(version) => kv::Lookup::Reserved(version),
        })
    }
}

impl From<Entry> for kv::Entry {
    fn from(entry: Entry) -> Self {
        Self { value: entry.value, version: entry.version }
    }
}

impl From<KvError> for kv::Error {
    fn from(error: KvError) -> Self {
        match error {
            KvError::Conflict(entry) => Self::Conflict(entry.map(Into::into)),
            KvError::Full => Self::Full,
            KvError::NotANumber => Self::NotANumber,
        }
    }
}

impl secrets::Host for State {
    fn get(&mut self, name: String) -> Option<String> {
        self.plugin.grants.secrets.get(&name)?.reveal().map(str::to_owned)
    }

    fn is_set(&mut self, name: String) -> bool {
        self.plugin.grants.secrets.get(&name).is_some_and(|secret| secret.reveal().is_some())
    }

    fn matches(&mut self, name: String, candidate: Vec<u8>) -> bool {
        let secret = self.plugin.grants.secrets.get(&name).and_then(super::Secret::reveal);
        // Only the length can be told from the time this takes.
        secret.is_some_and(|secret| secret.as_bytes().ct_eq(&candidate).into())
    }

    fn bearer_matches(&mut self, name: String, _: Resource<RequestHandle>) -> bool {
        let secret = self.plugin.grants.secrets.get(&name).and_then(super::Secret::reveal);
        let values = self.request().into_iter().flat_map(|head| head.fields.all_named(b"authorization"));
        secret.zip(bearer_token(values)).is_some_and(|(secret, token)| secret.as_bytes().ct_eq(token).into())
    }
}

impl outbound_http::Host for State {
    async fn send(
        &mut self,
        request: outbound_http::Request,
    ) -> Result<outbound_http::Response, outbound_http::Error> {
        use outbound_http::Error;
        // Not cut to the wall-clock limit: that one ends the call, and is not for the guest to survive.
        let deadline = Duration::from_millis(request.timeout_ms.into());
        let request = outbound_request(request)?;
        if !self.plugin.grants.http.iter().any(|origin| origin.covers(request.uri())) {
            return Err(Error::NotGranted);
        }
        let fetched = tokio::time::timeout(deadline, self.services.fetch(request)).await;
        let response = fetched.map_err(|_| Error::Timeout)?.map_err(|error| match error {
            FetchError::Connect(reason) => Error::Connect(reason),
            FetchError::TooLarge => Error::TooLarge,
            FetchError::Protocol(reason) => Error::Protocol(reason),
        })?;
        Ok(outbound_http::Response {
            status: response.status().as_u16(),
            headers: entries(response.headers()),
            body: response.into_body().into(),
        })
    }
}

pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl State {
    /// Does something with a series, where there is one.
    fn with_series(&mut self, metric: u32, values: Vec<String>, write: impl FnOnce(&Cell)) {
        let key = (metric, values);
        if let Some(series) = self.series.get(&key) {
            return write(series);
        }
        if let Some(series) = self.plugin.book.series(metric, &key.1) {
            write(&series);
            // What is cut to one series in the book may have many names here, and long ones.
            let is_short = key.1.iter().all(|value| value.len() <= LABEL_VALUE);
            if is_short && self.series.len() < self.plugin.limits.series {
                self.series.insert(key, series);
            }
        }
    }

    fn space(&self) -> Result<&Space, kv::Error> {
        // Where it is not granted, it is not linked.
        self.plugin.space.as_deref().ok_or(kv::Error::Unavailable)
    }

    fn request(&self) -> Option<&RequestHead> {
        self.exchange.request.as_ref()
    }

    fn completed(&self) -> Option<&Completed> {
        self.exchange.completed.as_ref()
    }

    fn response(&self) -> Option<&ResponseHead> {
        self.exchange.response.as_ref()
    }

    fn set_field(&mut self, which: u32, name: &str, value: &[u8]) -> Result<(), EditError> {
        let (fields, value) = self.edit(which, name, value)?;
        match which {
            REQUEST => fields.set_alike(name.as_bytes(), value),
            _ => fields.set(name.as_bytes(), value),
        }
        Ok(())
    }

    fn append_field(&mut self, which: u32, name: &str, value: &[u8]) -> Result<(), EditError> {
        let (fields, value) = self.edit(which, name, value)?;
        fields.append(name.as_bytes(), value);
        Ok(())
    }

    fn remove_field(&mut self, which: u32, name: &str) -> Result<(), EditError> {
        // Never for want of room: what a plugin takes away, nobody must be able to keep by filling the
        // head up.
        let fields = self.editable(which, name)?;
        match which {
            REQUEST => fields.remove_alike(name.as_bytes()),
            _ => fields.remove_named(name.as_bytes()),
        }
        Ok(())
    }

    /// Does all edits that may be done, and returns the others.
    ///
    /// # Errors
    /// Fails where they are too much work: each looks at all lines, and nothing else runs meanwhile.
    fn edit_all(
        &mut self,
        which: u32,
        remove: Vec<String>,
        set: Vec<Header>,
        append: Vec<Header>,
    ) -> wasmtime::Result<Vec<(String, EditError)>> {
        let edits = remove.len() + set.len() + append.len();
        let others = set.iter().chain(&append).map(|(name, _)| name);
        let names: usize = remove.iter().chain(others).map(|name| name.len() + NAME_LOOK).sum();
        let lines = edits + self.fields_of(which).map_or(0, |fields| fields.len());
        if edits > MOST_LINES || names.saturating_mul(lines) > MOST_WORK {
            return Err(TooManyEdits { edits, lines }.into());
        }
        let mut refused = Vec::new();
        let mut note =
            |name, edit: Result<(), EditError>| refused.extend(edit.err().map(|error| (name, error)));
        for name in remove {
            let edit = self.remove_field(which, &name);
            note(name, edit);
        }
        for (name, value) in set {
            let edit = self.set_field(which, &name, &value);
            note(name, edit);
        }
        for (name, value) in append {
            let edit = self.append_field(which, &name, &value);
            note(name, edit);
        }
        Ok(refused)
    }

    /// The fields, for a change of this name.
    fn editable(&mut self, which: u32, name: &str) -> Result<&mut Fields, EditError> {
        if !is_token(name.as_bytes()) {
            return Err(EditError::InvalidName);
        }
        if Known::of(name.as_bytes()).is_some_and(Known::is_gateways) {
            return Err(EditError::Forbidden);
        }
        self.fields_of(which).ok_or(EditError::Gone)
    }

    fn fields_of(&mut self, which: u32) -> Option<&mut Fields> {
        match which {
            REQUEST => self.exchange.request.as_mut().map(|head| &mut head.fields),
            _ => self.exchange.response.as_mut().map(|head| &mut head.fields),
        }
    }

    /// The fields, for an edit of this name to this value; and the value as it is written.
    fn edit<'a>(
        &mut self,
        which: u32,
        name: &str,
        value: &'a [u8],
    ) -> Result<(&mut Fields, &'a [u8]), EditError> {
        let fields = self.editable(which, name)?;
        if !is_field_value(value) {
            return Err(EditError::InvalidValue);
        }
        // A head may come as large as the configuration allows; edits add to that.
        let fits = fields.text_len() + name.len() + value.len() <= MOST_TEXT && fields.len() < MOST_LINES;
        if fits { Ok((fields, trim(value))) } else { Err(EditError::TooLarge) }
    }
}

fn fields<'a>(exchange: &'a Exchange, which: &Resource<HeadersHandle>) -> Option<&'a Fields> {
    match which.rep() {
        REQUEST => exchange.request.as_ref().map(|head| &head.fields),
        _ => exchange.response.as_ref().map(|head| &head.fields),
    }
}

/// The token of the only value, where that is `Bearer <token>`. Two values could mean one thing here
/// and another to the backend.
fn bearer_token<'a>(mut values: impl Iterator<Item = &'a [u8]>) -> Option<&'a [u8]> {
    let value = values.next().filter(|_| values.next().is_none())?;
    let (scheme, rest) = value.split_at_checked("bearer".len())?;
    let token = rest.strip_prefix(b" ")?.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"bearer") && !token.is_empty()).then_some(token)
}

fn entries(headers: &http::HeaderMap) -> Vec<(String, Vec<u8>)> {
    headers.iter().map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec())).collect()
}

/// Bytes of text of a head, with what its edits left behind: twice the largest head that can be
/// configured. Lines of it: those of the largest, and as many as any plugin needs.
pub(super) const MOST_TEXT: usize = 2 * 1024 * 1024;
pub(super) const MOST_LINES: usize = 1000 + 256;

/// Bytes of names that many edits at once may compare, all lines with each name; and what it takes to look at a line of
/// another length. Some milliseconds, for a thousand lines and a hundred edits.
const MOST_WORK: usize = 8 * 1024 * 1024;
const NAME_LOOK: usize = 8;

/// Ends the call of a guest that wants to edit too much at once.
#[derive(Debug, thiserror::Error)]
#[error("{edits} edits at once, of up to {lines} headers, are too many")]
struct TooManyEdits {
    edits: usize,
    lines: usize,
}

fn frames_the_body(status: StatusCode) -> bool {
    status.is_informational() || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

fn cut(text: &str, most: usize) -> &str {
    text.get(..text.floor_char_boundary(most)).unwrap_or(text)
}

/// The host decides where a request goes and how it is framed; a header could say otherwise.
fn outbound_request(
    request: outbound_http::Request,
) -> Result<http::Request<bytes::Bytes>, outbound_http::Error> {
    let invalid = |what: &dyn std::fmt::Display| outbound_http::Error::InvalidRequest(what.to_string());
    let mut builder = http::Request::builder().method(request.method.as_str()).uri(request.url);
    for (name, value) in request.headers {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|error| invalid(&error))?;
        if Known::of(name.as_str().as_bytes()).is_some_and(Known::is_gateways) {
            return Err(invalid(&format_args!("the header {name} is the gateway's")));
        }
        builder = builder.header(name, value);
    }
    let request = builder.body(request.body.into()).map_err(|error| invalid(&error))?;
    if request.method() == http::Method::CONNECT {
        return Err(invalid(&"CONNECT opens a tunnel, and there are none"));
    }
    Ok(request)
}
