//! A client of etcd: asks one member, and another where that one does not answer. Who follows changes stays with a
//! member; who writes takes whichever answers.

use super::{
    transport::{Access, Pieces, Undelivered, User},
    wire::{self, Authenticated, Header, KeyValue, Leased, NoEtcd, Range, Transacted, Watched},
};
use bytes::{Buf as _, Bytes, BytesMut};
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::{
    cell::{Cell, RefCell},
    ops::ControlFlow,
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout},
};

/// For an answer to a small question. An election takes about a second, with etcd's usual settings.
const SMALL: Duration = Duration::from_secs(2);

/// For a page of entries, and for the beginning of a watch.
const LARGE: Duration = Duration::from_secs(10);

/// With less than this, nobody is asked any more.
const LEAST: Duration = Duration::from_millis(100);

/// How long it holds that somebody is not let in: to find out costs etcd much.
const NOT_LET_IN: Duration = Duration::from_secs(1);

/// Bytes of an answer, and of one message of a watch.
const MOST_BYTES: usize = 64 * 1024 * 1024;

/// Characters of what is answered that is no JSON, which people are shown.
const MOST_SAID: usize = 120;

/// Before another member is asked the same.
const TURN: Duration = Duration::from_millis(50);

/// gRPC's code for who has not shown who it is.
const UNAUTHENTICATED: u32 = 16;

/// Why there is no answer that helps.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failed {
    /// Nobody has read the question.
    #[error("{0}")]
    Unsent(String),
    /// Nobody knows what became of it.
    #[error("{0}")]
    Lost(String),
    /// etcd says no, and another member would as well.
    #[error("etcd says: {}", advised(.1))]
    Refused(u32, String),
}

impl From<Undelivered> for Failed {
    fn from(undelivered: Undelivered) -> Self {
        match undelivered.is_unsent {
            true => Self::Unsent(undelivered.why),
            false => Self::Lost(undelivered.why),
        }
    }
}

impl From<NoEtcd> for Failed {
    fn from(error: NoEtcd) -> Self {
        Self::Lost(error.to_string())
    }
}

impl Failed {
    /// By the code and the words of an error of etcd.
    fn said(code: u32, message: String) -> Self {
        match code {
            // Neither has been looked at.
            14 if message == "no leader" => Self::Unsent(format!("etcd says: {message}")),
            8 if message.contains("too many requests") => Self::Unsent(format!("etcd says: {message}")),
            8 if message.contains("space") => Self::Refused(code, message),
            // Invalid, not found, there already, not permitted, not as it has to be, out of range, unknown, and not
            // known who asks: another member would say the same.
            3 | 5 | 6 | 7 | 9 | 11 | 12 | UNAUTHENTICATED => Self::Refused(code, message),
            // Whatever else is of this member, or of this moment, and may have had an effect.
            _ => Self::Lost(format!("etcd says: {message}")),
        }
    }

    /// Whether etcd has no room for anything new.
    pub(super) fn is_full(&self) -> bool {
        matches!(self, Self::Refused(8, _))
    }

    /// Whether it is for want of a lease.
    pub(super) fn is_no_lease(&self) -> bool {
        matches!(self, Self::Refused(5, message) if message.contains("lease not found"))
    }

    /// Whether it is for want of another number for a lease.
    fn is_lease_there(&self) -> bool {
        matches!(self, Self::Refused(_, message) if message.contains("lease already exists"))
    }
}

#[derive(Debug)]
pub(super) struct Client {
    access: watch::Receiver<Arc<Access>>,
    /// Which member is asked: its number, as they were configured.
    at: Cell<usize>,
    /// Whether the members are asked in this order, or the other way round: not all gateways are to turn from one
    /// that ends to the same.
    is_reversed: bool,
    /// What it gave us for further requests, and who we were then.
    token: RefCell<Option<(Arc<Access>, Arc<str>)>>,
    /// Held by who asks for one: to give it costs etcd much.
    asking: tokio::sync::Mutex<()>,
    /// When we were not let in, who we were then, and why not.
    not_let_in: RefCell<Option<(Arc<Access>, Instant, Failed)>>,
    /// Requests that failed.
    failures: Cell<u64>,
    /// Whether it was said that etcd grants longer leases than it is asked for.
    has_warned: Cell<bool>,
}

/// What becomes of a question to whichever member answers.
#[derive(Debug)]
pub(super) enum Answer<T> {
    /// It was answered.
    Given(T),
    /// It was not, for this reason, and has had no effect.
    Without(Failed),
    /// It was not, and may have had one.
    Unknown(Failed),
}

impl Client {
    /// Begins with any of the members, so that not all gateways follow the same one.
    pub(super) fn new(access: watch::Receiver<Arc<Access>>) -> Self {
        let random = getrandom::u32().unwrap_or_default();
        let members = access.borrow().endpoints.len().max(1);
        let first = usize::try_from(random >> 1).unwrap_or_default() % members;
        Self::starting(access, first, random % 2 == 1)
    }

    fn starting(access: watch::Receiver<Arc<Access>>, first: usize, is_reversed: bool) -> Self {
        Self {
            access,
            at: Cell::new(first),
            is_reversed,
            token: RefCell::default(),
            asking: tokio::sync::Mutex::default(),
            not_let_in: RefCell::default(),
            failures: Cell::default(),
            has_warned: Cell::default(),
        }
    }

    /// Which member is asked now.
    pub(super) fn member(&self) -> usize {
        self.at.get()
    }

    /// Where that is.
    pub(super) fn address_of(&self, member: usize) -> String {
        let access = self.access.borrow();
        let count = access.endpoints.len().max(1);
        access.endpoints.get(member % count).cloned().unwrap_or_default()
    }

    /// How many members there are to ask.
    pub(super) fn members(&self) -> usize {
        self.access.borrow().endpoints.len()
    }

    /// Turns to the next member, unless somebody did so already.
    pub(super) fn leave(&self, member: usize) {
        if self.at.get() == member {
            let members = self.members().max(1);
            let step = if self.is_reversed { members - 1 } else { 1 };
            self.at.set((member + step) % members);
        }
    }

    /// Waits until it is elsewhere, or we are somebody else there.
    pub(super) async fn moved(&self) {
        let mut access = self.access.clone();
        access.mark_unchanged();
        if access.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// How many requests failed since this was asked last.
    pub(super) fn take_failures(&self) -> u64 {
        self.failures.take()
    }

    /// Hands over the keys from `key` to `end`, as they were at a revision, or as they are where it is 0; a page of so
    /// many at a time, until there are no more, or nobody wants any.
    pub(super) async fn load(
        &self,
        member: usize,
        (key, end): (&[u8], &[u8]),
        (page, revision): (usize, u64),
        mut take: impl FnMut(&[KeyValue]) -> ControlFlow<()>,
    ) -> Result<Header, Failed> {
        let (mut first, mut from) = (None, key.to_vec());
        loop {
            // All pages are of the same moment: the one of the first.
            let moment = first.filter(|_| revision == 0).map_or(revision, |header: Header| header.revision);
            let body = wire::range(&from, end, page, moment);
            let found: Range = self.ask(member, "kv/range", &body, LARGE).await?;
            let header = *first.get_or_insert(found.header);
            let last = found.kvs.last().filter(|_| found.more).map(|kv| kv.key.clone());
            match (take(&found.kvs), last) {
                (ControlFlow::Continue(()), Some(last)) => {
                    from = last;
                    from.push(0);
                }
                _ => return Ok(header),
            }
        }
    }

    /// Asks for a key as all members together have it, and for the revision that it is of, 0 where it is not there.
    /// That it is answered says that most of them are there.
    pub(super) async fn beat(&self, member: usize, key: &[u8]) -> Result<(Header, u64), Failed> {
        let found: Range = self.ask(member, "kv/range", &wire::get(key), SMALL).await?;
        Ok((found.header, found.kvs.first().map_or(0, |kv| kv.mod_revision)))
    }

    /// How many keys there are from `key` to `end`, as all members together have them.
    pub(super) async fn count(&self, (key, end): (&[u8], &[u8]), until: Instant) -> Answer<u64> {
        let found: Answer<Range> = self.anywhere("kv/range", &wire::count(key, end), until).await;
        found.map(|found| found.count)
    }

    /// Changes from a revision on, once they are watched.
    pub(super) async fn watch(
        &self,
        member: usize,
        key: &[u8],
        end: &[u8],
        from: u64,
    ) -> Result<Changes, Failed> {
        let body = wire::watch(key, end, from);
        let mut changes = timeout(LARGE, self.open(member, "watch", &body)).await.map_err(late)??;
        let begun = timeout(LARGE, changes.next()).await.map_err(late)??;
        if begun.canceled || !begun.created {
            return Err(Failed::Lost(begun.why()));
        }
        Ok(changes)
    }

    /// A lease of at least so many seconds, whose number nobody else has chosen.
    pub(super) async fn grant(&self, id: u64, seconds: u64, until: Instant) -> Answer<()> {
        match self.anywhere("lease/grant", &wire::grant(id, seconds), until).await {
            Answer::Given(Leased { ttl, .. }) => {
                if u64::try_from(ttl).is_ok_and(|ttl| ttl > seconds) && !self.has_warned.replace(true) {
                    tracing::warn!(
                        asked = seconds,
                        granted = ttl,
                        "etcd grants longer leases than it is asked for, because its election timeout is long: VMs are \
                         handed out for longer than their time to live"
                    );
                }
                Answer::Given(())
            }
            // It was granted before, and nobody heard so.
            Answer::Without(failed) | Answer::Unknown(failed) if failed.is_lease_there() => Answer::Given(()),
            Answer::Without(failed) => Answer::Without(failed),
            Answer::Unknown(failed) => Answer::Unknown(failed),
        }
    }

    /// Renews a lease; none where there is no such lease any more.
    pub(super) async fn keep_alive(&self, lease: u64, until: Instant) -> Answer<Option<Leased>> {
        let leased = self.anywhere_streamed("lease/keepalive", &wire::lease(lease), until).await;
        leased.map(|leased: Leased| (leased.ttl > 0).then_some(leased))
    }

    /// How long a lease has left; none where there is no such lease.
    pub(super) async fn time_to_live(&self, lease: u64, until: Instant) -> Answer<Option<Leased>> {
        let leased = self.anywhere("lease/timetolive", &wire::lease(lease), until).await;
        leased.map(|leased: Leased| (leased.ttl > 0).then_some(leased))
    }

    /// Ends a lease. Whether that worked does not matter: it runs out by itself.
    pub(super) async fn revoke(&self, lease: u64) {
        let body = wire::lease(lease);
        let revoked: Result<Value, Failed> = self.ask(self.member(), "lease/revoke", &body, SMALL).await;
        if let Err(error) = revoked
            && !error.is_no_lease()
        {
            tracing::debug!(lease, "a lease is left to run out: {error}");
        }
    }

    /// A transaction.
    pub(super) async fn transact(&self, body: &Value, until: Instant) -> Answer<Transacted> {
        self.anywhere("kv/txn", body, until).await
    }

    async fn anywhere<T: DeserializeOwned>(&self, path: &str, body: &Value, until: Instant) -> Answer<T> {
        self.repeat(until, async |member, deadline| self.ask(member, path, body, deadline).await).await
    }

    async fn anywhere_streamed<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &Value,
        until: Instant,
    ) -> Answer<T> {
        let read = |bytes: Bytes| match wire::read_streamed(bytes.trim_ascii())? {
            Ok(answer) => Ok(answer),
            Err((code, message)) => Err(Failed::said(code, message)),
        };
        let ask = async |member, deadline| read(self.whole(member, path, body, deadline).await?);
        self.repeat(until, ask).await
    }

    /// Asks one member after the other, until one answers or the time is over. `ask` is told how long it may take.
    async fn repeat<T>(
        &self,
        until: Instant,
        ask: impl AsyncFn(usize, Duration) -> Result<T, Failed>,
    ) -> Answer<T> {
        let mut is_unknown = false;
        let mut failed = Failed::Unsent("there was no time left for it".to_owned());
        for attempt in 0_usize.. {
            let left = until.saturating_duration_since(Instant::now());
            if left < LEAST {
                break;
            }
            let member = self.member();
            failed = match ask(member, SMALL.min(left)).await {
                Ok(answer) => return Answer::Given(answer),
                Err(failed @ Failed::Refused(..)) if is_unknown => return Answer::Unknown(failed),
                Err(failed @ Failed::Refused(..)) => return Answer::Without(failed),
                Err(failed) => failed,
            };
            is_unknown |= matches!(failed, Failed::Lost(_));
            self.leave(member);
            // All of them are asked, and all of them again less often.
            let rounds = u32::try_from(attempt / self.members().max(1)).unwrap_or(u32::MAX);
            let again = Instant::now() + TURN * (1 << rounds.min(3));
            if again + LEAST > until {
                break;
            }
            sleep_until(again).await;
        }
        if is_unknown { Answer::Unknown(failed) } else { Answer::Without(failed) }
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        member: usize,
        path: &str,
        body: &Value,
        deadline: Duration,
    ) -> Result<T, Failed> {
        Ok(wire::read(&self.whole(member, path, body, deadline).await?)?)
    }

    /// A whole answer, which is no error.
    async fn whole(
        &self,
        member: usize,
        path: &str,
        body: &Value,
        deadline: Duration,
    ) -> Result<Bytes, Failed> {
        let asking = async {
            let pieces = self.open_body(member, path, body).await?;
            let whole = Limited::new(pieces, MOST_BYTES).collect().await;
            whole.map(|whole| whole.to_bytes()).map_err(|error| Failed::Lost(error.to_string()))
        };
        let answer = timeout(deadline, asking).await.map_err(late).and_then(|answer| answer);
        answer.inspect_err(|_| self.failures.set(self.failures.get() + 1))
    }

    async fn open(&self, member: usize, path: &str, body: &Value) -> Result<Changes, Failed> {
        Ok(Changes {
            pieces: self.open_body(member, path, body).await?,
            buffer: BytesMut::new(),
            looked_through: 0,
        })
    }

    /// The body of an answer that is no error. Says who we are where that is asked for, and once more where it was
    /// forgotten.
    async fn open_body(&self, member: usize, path: &str, body: &Value) -> Result<Pieces, Failed> {
        let token = self.token(member, None).await?;
        match self.post(member, path, body, token.as_deref()).await {
            Err(Failed::Refused(code, message)) if is_forgotten(code, &message) && token.is_some() => {
                let token = self.token(member, token.as_ref()).await?;
                self.post(member, path, body, token.as_deref()).await
            }
            answer => answer,
        }
    }

    /// What says who we are, where that is asked for, and is not the one that was forgotten. Asked for by one at a time:
    /// the others take what that is given.
    async fn token(&self, member: usize, forgotten: Option<&Arc<str>>) -> Result<Option<Arc<str>>, Failed> {
        let access = Arc::clone(&self.access.borrow());
        let Some(user) = &access.user else { return Ok(None) };
        if let Some(token) = self.known_token(&access, forgotten) {
            return Ok(Some(token));
        }
        let _turn = self.asking.lock().await;
        if let Some(token) = self.known_token(&access, forgotten) {
            return Ok(Some(token));
        }
        if let Some((known, at, failed)) = &*self.not_let_in.borrow()
            && Arc::ptr_eq(known, &access)
            && at.elapsed() < NOT_LET_IN
        {
            return Err(failed.clone());
        }
        let token = self.authenticate(member, user).await.inspect_err(|failed| {
            if matches!(failed, Failed::Refused(..)) {
                let not_let_in = (Arc::clone(&access), Instant::now(), failed.clone());
                *self.not_let_in.borrow_mut() = Some(not_let_in);
            }
        })?;
        *self.token.borrow_mut() = Some((access, Arc::clone(&token)));
        Ok(Some(token))
    }

    fn known_token(&self, access: &Arc<Access>, forgotten: Option<&Arc<str>>) -> Option<Arc<str>> {
        let token = self.token.borrow();
        let (known, token) = token.as_ref()?;
        let is_good =
            Arc::ptr_eq(known, access) && forgotten.is_none_or(|forgotten| !Arc::ptr_eq(forgotten, token));
        is_good.then(|| Arc::clone(token))
    }

    async fn authenticate(&self, member: usize, User { name, password }: &User) -> Result<Arc<str>, Failed> {
        let Some(password) = password else {
            let why = "the secret that `password` of `[registry] etcd` names has no value";
            return Err(Failed::Unsent(why.to_owned()));
        };
        let body = wire::authenticate(name, password);
        let asked = self.post(member, "auth/authenticate", &body, None).await?;
        let whole = Limited::new(asked, MOST_BYTES).collect().await;
        let whole = whole.map_err(|error| Failed::Lost(error.to_string()))?.to_bytes();
        let Authenticated { token } = wire::read(&whole)?;
        Ok(token.into())
    }

    async fn post(
        &self,
        member: usize,
        path: &str,
        body: &Value,
        token: Option<&str>,
    ) -> Result<Pieces, Failed> {
        let url = format!("{}/v3/{path}", self.address_of(member));
        let mut request = Request::post(url).header(header::CONTENT_TYPE, "application/json");
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, token);
        }
        let request = request.body(Bytes::from(body.to_string()));
        let request = request.map_err(|error| Failed::Unsent(error.to_string()))?;
        let sending = self.access.borrow().transport.send(request);
        let answer = sending.await?;
        let status = answer.status();
        let pieces = answer.into_body();
        if status == StatusCode::OK {
            return Ok(pieces);
        }
        let whole = Limited::new(pieces, MOST_BYTES).collect().await;
        let whole = whole.map_err(|error| Failed::Lost(error.to_string()))?.to_bytes();
        Err(match wire::read_fault(&whole) {
            Ok((code, message)) => Failed::said(code, message),
            Err(_) => {
                let text: String = String::from_utf8_lossy(&whole).trim().chars().take(MOST_SAID).collect();
                let said = text.escape_debug();
                Failed::Lost(format!(
                    "what answers there is no etcd of version 3.4 or later: {status}: {said}"
                ))
            }
        })
    }
}

impl<T> Answer<T> {
    fn map<U>(self, map: impl FnOnce(T) -> U) -> Answer<U> {
        match self {
            Self::Given(answer) => Answer::Given(map(answer)),
            Self::Without(failed) => Answer::Without(failed),
            Self::Unknown(failed) => Answer::Unknown(failed),
        }
    }
}

/// Changes as they come, a line each.
#[derive(Debug)]
pub(super) struct Changes {
    pieces: Pieces,
    buffer: BytesMut,
    /// So many bytes at its front have no line end.
    looked_through: usize,
}

impl Changes {
    /// The next message. May be dropped at any time, and goes on where it was.
    pub(super) async fn next(&mut self) -> Result<Watched, Failed> {
        loop {
            let rest = self.buffer.get(self.looked_through..).unwrap_or_default();
            if let Some(end) = memchr::memchr(b'\n', rest) {
                let line = self.buffer.split_to(self.looked_through + end);
                self.buffer.advance(1);
                self.looked_through = 0;
                return match wire::read_streamed(&line)? {
                    Ok(watched) => Ok(watched),
                    Err((code, message)) => Err(Failed::said(code, message)),
                };
            }
            self.looked_through = self.buffer.len();
            let frame = match self.pieces.frame().await {
                Some(frame) => frame.map_err(Failed::Lost)?,
                None => return Err(Failed::Lost("the watch has ended".to_owned())),
            };
            if let Ok(data) = frame.into_data() {
                if self.buffer.len() + data.len() > MOST_BYTES {
                    return Err(Failed::Lost("a message of the watch is too large".to_owned()));
                }
                self.buffer.extend_from_slice(&data);
            }
        }
    }
}

fn late<T>(_: T) -> Failed {
    Failed::Lost("no answer in time".to_owned())
}

/// Tokens end: with the time, with a member that keeps them in memory, with a change of users. Of the latter, versions
/// of etcd speak differently, and some of them of an argument.
fn is_forgotten(code: u32, message: &str) -> bool {
    let words = [
        "invalid auth token",
        "revision in header is old",
        "revision of auth store is old",
        // We have said who we are, and it was lost on the way.
        "user name is empty",
    ];
    code == UNAUTHENTICATED || words.iter().any(|words| message.contains(words))
}

/// What etcd says, and what helps.
fn advised(message: &str) -> String {
    let advice = [
        (
            "database space exceeded",
            "compact and defragment it, run `etcdctl alarm disarm`, and switch on `--auto-compaction-retention` (docs/registry.md)",
        ),
        ("authentication is not enabled", "remove `user` and `password`, or run `etcdctl auth enable`"),
    ];
    let advice = advice.iter().find(|(words, _)| message.contains(words));
    advice.map_or_else(|| message.to_owned(), |(_, advice)| format!("{message}: {advice}"))
}

#[cfg(test)]
mod tests {
    use super::{
        super::transport::{Answering, Transport},
        *,
    };
    use futures_util::stream;
    use http::Response;
    use http_body::Frame;
    use http_body_util::StreamBody;
    use std::sync::Mutex;

    /// Says what is said to a request: to which member and path, with which token.
    type Script = dyn Fn(&str, Option<&str>) -> Result<(u16, Vec<&'static str>), Undelivered> + Send + Sync;

    struct Scripted {
        script: Box<Script>,
        asked: Mutex<Vec<String>>,
    }

    impl std::fmt::Debug for Scripted {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("Scripted")
        }
    }

    impl Transport for Scripted {
        fn send(&self, request: Request<Bytes>) -> Answering {
            let asked = request.uri().to_string();
            let token = request.headers().get(header::AUTHORIZATION).and_then(|token| token.to_str().ok());
            let said = (self.script)(&asked, token);
            self.asked.lock().expect("no panic").push(asked);
            Box::pin(std::future::ready(said.map(|(status, pieces)| {
                let frames =
                    pieces.into_iter().map(|piece| Ok(Frame::data(Bytes::from_static(piece.as_bytes()))));
                let body = StreamBody::new(stream::iter(frames.collect::<Vec<_>>())).boxed_unsync();
                Response::builder().status(status).body(body).expect("an answer")
            })))
        }
    }

    /// Several members, and a user where it has a password.
    fn client(
        password: Option<&str>,
        script: impl Fn(&str, Option<&str>) -> Result<(u16, Vec<&'static str>), Undelivered>
        + Send
        + Sync
        + 'static,
    ) -> (Client, Arc<Scripted>, watch::Sender<Arc<Access>>) {
        let transport = Arc::new(Scripted { script: Box::new(script), asked: Mutex::default() });
        let access = Access {
            endpoints: ["http://a", "http://b", "http://c"].map(str::to_owned).into(),
            user: password.map(|password| User { name: "vers".to_owned(), password: Some(password.into()) }),
            transport: Arc::clone(&transport) as Arc<dyn Transport>,
        };
        let (sender, access) = watch::channel(Arc::new(access));
        (Client::starting(access, 0, false), transport, sender)
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(8)
    }

    fn asked(transport: &Scripted) -> Vec<String> {
        std::mem::take(&mut transport.asked.lock().expect("no panic"))
    }

    const NOBODY: fn(bool) -> Undelivered = |is_unsent| Undelivered { why: "nobody".to_owned(), is_unsent };

    #[tokio::test(start_paused = true)]
    async fn whoever_answers_is_asked_and_stayed_with() {
        let (client, transport, _access) = client(None, |asked, _| match asked.starts_with("http://c") {
            true => Ok((200, vec![r#"{"ID":"7","#, r#""TTL":"5"}"#])),
            false => Err(NOBODY(true)),
        });
        assert!(matches!(client.grant(7, 5, soon()).await, Answer::Given(())));
        assert_eq!(asked(&transport), ["a", "b", "c"].map(|it| format!("http://{it}/v3/lease/grant")));
        assert!(matches!(client.grant(7, 5, soon()).await, Answer::Given(_)));
        assert_eq!(asked(&transport), ["http://c/v3/lease/grant"]);
        assert_eq!((client.take_failures(), client.take_failures()), (2, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_known_whether_something_may_have_been_done() {
        let without = |said: Result<(u16, Vec<&'static str>), Undelivered>| async move {
            let (client, _, _access) = client(None, move |_, _| said.clone());
            let begun = Instant::now();
            let answer = client.transact(&Value::Null, soon()).await;
            (answer, begun.elapsed())
        };
        let (answer, took) = without(Err(NOBODY(true))).await;
        assert!(
            matches!(answer, Answer::Without(Failed::Unsent(_))) && took <= Duration::from_secs(8),
            "{took:?}"
        );
        let (answer, took) = without(Err(NOBODY(false))).await;
        assert!(
            matches!(answer, Answer::Unknown(Failed::Lost(_))) && took <= Duration::from_secs(8),
            "{took:?}"
        );
        let leaderless = r#"{"error":"etcdserver: no leader","code":14}"#;
        assert!(matches!(without(Ok((503, vec![leaderless]))).await.0, Answer::Without(_)));
        let late = r#"{"error":"etcdserver: request timed out","code":14}"#;
        assert!(matches!(without(Ok((503, vec![late]))).await.0, Answer::Unknown(_)));
        let full = r#"{"error":"etcdserver: mvcc: database space exceeded","code":8}"#;
        let (answer, took) = without(Ok((429, vec![full]))).await;
        assert!(
            matches!(&answer, Answer::Without(Failed::Refused(8, why)) if why.contains("space")),
            "{answer:?}"
        );
        assert_eq!(took, Duration::ZERO, "another member would say the same");
        for noise in ["", "[]", "<html>", "{\"succeeded\":7}"] {
            assert!(matches!(without(Ok((200, vec![noise]))).await.0, Answer::Unknown(_)), "{noise}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_we_are_is_said_once_and_again_when_it_is_forgotten() {
        let tokens = std::sync::atomic::AtomicU32::new(0);
        let (client, transport, access) = client(Some("s3cret"), move |asked, token| {
            Ok(match (asked.ends_with("authenticate"), token) {
                (true, None) if tokens.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 0 => {
                    (200, vec![r#"{"token":"old"}"#])
                }
                (true, None) => (200, vec![r#"{"token":"new"}"#]),
                (false, Some("new")) => (200, vec![r#"{"header":{"revision":"9"}}"#]),
                (false, Some("old")) => {
                    (401, vec![r#"{"error":"etcdserver: invalid auth token","code":16}"#])
                }
                _ => (400, vec![r#"{"error":"etcdserver: user name is empty","code":3}"#]),
            })
        });
        assert_eq!(client.beat(0, b"x").await.map(|(header, _)| header.revision), Ok(9));
        assert_eq!(asked(&transport).len(), 4, "old, refused, new, answered");
        assert!(client.beat(0, b"x").await.is_ok());
        assert_eq!(asked(&transport), ["http://a/v3/kv/range"]);
        assert!(!format!("{client:?}").contains("s3cret"));
        // Somebody else is asked for another token.
        let other = Access::clone(&access.borrow());
        access.send_replace(Arc::new(other));
        assert!(client.beat(0, b"x").await.is_ok());
        assert_eq!(asked(&transport).len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_that_was_forgotten_is_asked_for_once_by_all() {
        let tokens = std::sync::atomic::AtomicU32::new(0);
        let (client, transport, _access) = client(Some("s3cret"), move |asked, token| {
            Ok(match (asked.ends_with("authenticate"), token) {
                (true, _) if tokens.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 0 => {
                    (200, vec![r#"{"token":"old"}"#])
                }
                (true, _) => (200, vec![r#"{"token":"new"}"#]),
                (false, Some("new")) => (200, vec![r#"{"header":{"revision":"9"}}"#]),
                // What a change of users or roles makes of tokens that are signed.
                _ => (400, vec![r#"{"error":"etcdserver: revision of auth store is old","code":3}"#]),
            })
        });
        let (one, another) = tokio::join!(client.beat(0, b"x"), client.beat(0, b"x"));
        assert!(one.is_ok() && another.is_ok(), "{one:?} {another:?}");
        let authenticated = asked(&transport).iter().filter(|it| it.ends_with("authenticate")).count();
        assert_eq!(authenticated, 2, "the old one, and the new one");
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_not_let_in_does_not_ask_again_at_once() {
        let (client, transport, _access) = client(Some("wr0ng"), |_, _| {
            Ok((
                400,
                vec![
                    r#"{"error":"etcdserver: authentication failed, invalid user ID or password","code":3}"#,
                ],
            ))
        });
        for _ in 0..10 {
            let refused = client.beat(0, b"x").await.expect_err("it is wrong");
            assert!(refused.to_string().contains("authentication failed"), "{refused}");
        }
        assert_eq!(asked(&transport).len(), 1);
        tokio::time::advance(2 * NOT_LET_IN).await;
        assert!(client.beat(0, b"x").await.is_err());
        assert_eq!(asked(&transport).len(), 1, "it may be right by now");
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_is_a_no_is_taken_for_one() {
        for (code, words, is_no) in [
            (3, "invalid", true),
            (7, "permission denied", true),
            (8, "mvcc: database space exceeded", true),
            (8, "received message larger than max", false),
            (10, "aborted", false),
            (13, "internal", false),
            (15, "corrupt", false),
        ] {
            let failed = Failed::said(code, words.to_owned());
            assert_eq!(matches!(failed, Failed::Refused(..)), is_no, "{code} {words}: {failed:?}");
        }
        assert!(matches!(Failed::said(8, "too many requests".to_owned()), Failed::Unsent(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn changes_come_in_pieces_and_end_in_words() {
        let (client, _, _access) = client(None, |_, _| {
            Ok((
                200,
                vec![
                    r#"{"result":{"created":true,"header":{"revision":"1"}}}"#,
                    "\n{\"result\":{\"header\":{\"revision\":\"2\"},",
                    "\"events\":[]}}\n{\"result\":{\"header\":{\"revision\":\"3\"}}}\n<html>\n",
                ],
            ))
        });
        let mut changes = client.watch(0, b"a", b"b", 1).await.expect("it begins");
        for revision in [2, 3] {
            assert_eq!(changes.next().await.map(|it| it.header.revision), Ok(revision));
        }
        assert!(matches!(changes.next().await, Err(Failed::Lost(_))), "what is no change");
        assert!(matches!(changes.next().await, Err(Failed::Lost(why)) if why.contains("ended")));
    }
}
