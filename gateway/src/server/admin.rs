//! The admin address: is it alive, is it ready, what does it do, reload.
//!
//! It runs on the control thread, and serves few connections for a short time each: operators and
//! scrapers, not traffic.

use super::control::{Command, Reloaded, StartError};
use crate::{config::AdminAddress, io::Seldom, listen::BindError, metrics::render, plugins::Secret};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use std::{
    cell::RefCell,
    convert::Infallible,
    io,
    path::Path,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};
use subtle::ConstantTimeEq as _;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::{Semaphore, mpsc, oneshot},
    task::{AbortHandle, spawn_local},
    time::{sleep, timeout},
};

/// Connections at a time; more wait.
const CONNECTIONS: usize = 32;
/// A connection's whole life. A reload may compile for a while.
const LIFETIME: Duration = Duration::from_secs(120);
const HEAD_DEADLINE: Duration = Duration::from_secs(10);

/// Where and to whom the admin server answers.
#[derive(Debug, Clone)]
pub(super) struct Admin {
    pub(super) address: AdminAddress,
    /// Nobody asked for this address: where it is taken, the gateway runs without.
    pub(super) is_default: bool,
    pub(super) token: Option<Secret>,
}

/// The admin server.
pub(super) struct AdminServer {
    shared: Rc<Shared>,
    wanted: AdminAddress,
    running: Option<Listening>,
}

struct Listening {
    address: AdminAddress,
    task: AbortHandle,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.task.abort();
        if let AdminAddress::Unix(path) = &self.address {
            // It may have been removed by hand.
            let _ = std::fs::remove_file(path);
        }
    }
}

struct Shared {
    commands: mpsc::Sender<Command>,
    token: RefCell<Option<Secret>>,
    page: RefCell<Option<Page>>,
}

/// What is answered now.
struct Page {
    status: Rc<dyn Fn() -> Value>,
    metrics: Rc<dyn Fn() -> String>,
    draining: bool,
}

impl AdminServer {
    pub(super) async fn start(admin: Admin, commands: mpsc::Sender<Command>) -> Result<Self, StartError> {
        let shared = Rc::new(Shared { commands, token: RefCell::new(None), page: RefCell::new(None) });
        let mut server = Self { shared, wanted: AdminAddress::Off, running: None };
        server.apply(admin).await?;
        Ok(server)
    }

    /// Moves to another address, where that changed, and takes the new token.
    pub(super) async fn apply(&mut self, admin: Admin) -> Result<(), StartError> {
        if self.wanted != admin.address {
            match listen(&admin.address, &self.shared).await {
                Ok(running) => self.running = running,
                Err(cause) if admin.is_default => {
                    tracing::warn!(
                        "no admin address: cannot listen on {}: {cause}; set `[admin] address`",
                        admin.address
                    );
                    self.running = None;
                }
                Err(cause) => return Err(StartError::Bind { address: admin.address.to_string(), cause }),
            }
            self.wanted = admin.address;
        }
        self.shared.token.replace(admin.token);
        Ok(())
    }

    /// The real address.
    pub(super) fn address(&self) -> Option<AdminAddress> {
        self.running.as_ref().map(|running| running.address.clone())
    }

    /// Replaces what is answered.
    pub(super) fn publish(
        &self,
        status: Rc<dyn Fn() -> Value>,
        metrics: Rc<dyn Fn() -> String>,
        draining: bool,
    ) {
        self.shared.page.replace(Some(Page { status, metrics, draining }));
    }
}

async fn listen(address: &AdminAddress, shared: &Rc<Shared>) -> Result<Option<Listening>, BindError> {
    let shared = Rc::clone(shared);
    let (address, task) = match address {
        AdminAddress::Off => return Ok(None),
        AdminAddress::Socket(address) => {
            let listener =
                TcpListener::bind(address).await.map_err(|error| BindError::of(error, address.port()))?;
            let address = listener.local_addr().map_err(BindError::Other)?;
            let task = spawn_local(async move {
                accept(async || listener.accept().await.map(|(stream, _)| stream), shared).await;
            });
            (AdminAddress::Socket(address), task)
        }
        AdminAddress::Unix(path) => {
            let listener = bind_unix(path).map_err(BindError::Other)?;
            let task = spawn_local(async move {
                accept(async || listener.accept().await.map(|(stream, _)| stream), shared).await;
            });
            (AdminAddress::Unix(path.clone()), task)
        }
    };
    tracing::info!(%address, "admin");
    Ok(Some(Listening { address, task: task.abort_handle() }))
}

/// A socket file that nobody listens on is what a killed gateway leaves behind.
fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    use std::os::unix::{
        fs::{FileTypeExt as _, PermissionsExt as _},
        net::UnixStream,
    };
    if path.exists() {
        if !std::fs::symlink_metadata(path)?.file_type().is_socket() {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "a file that is no socket lies there"));
        }
        if UnixStream::connect(path).is_ok() {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens there"));
        }
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

async fn accept<S>(accept: impl AsyncFn() -> io::Result<S>, shared: Rc<Shared>)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    let trouble = Seldom::default();
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        let stream = match accept().await {
            Ok(stream) => stream,
            Err(error) => {
                if let Some(times) = trouble.happened(Instant::now()) {
                    tracing::warn!(%error, times, "the admin address cannot accept connections; it is tried again");
                }
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let shared = Rc::clone(&shared);
        spawn_local(async move {
            let _permit = permit;
            let service = service_fn(|request| answer(request, &shared));
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_DEADLINE)
                .serve_connection(TokioIo::new(stream), service);
            // Neither a broken connection nor one that stays too long is worth a word.
            let _ = timeout(LIFETIME, connection).await;
        });
    }
}

type Answer = Response<Full<Bytes>>;

async fn answer(request: Request<Incoming>, shared: &Shared) -> Result<Answer, Infallible> {
    // A page in a browser can send requests to loopback; none of them needs this address.
    if request.headers().contains_key(header::ORIGIN) {
        return Ok(text(StatusCode::FORBIDDEN, "not for browsers\n"));
    }
    let path = request.uri().path();
    if !matches!(path, "/livez" | "/readyz") && !authorized(&request, shared.token.borrow().as_ref()) {
        let mut answer = text(StatusCode::UNAUTHORIZED, "the admin token is missing or wrong\n");
        answer.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        return Ok(answer);
    }
    Ok(match (request.method(), path) {
        (&Method::GET | &Method::HEAD, "/livez") => text(StatusCode::OK, "alive\n"),
        (&Method::GET | &Method::HEAD, "/readyz") => ready(shared),
        (&Method::GET | &Method::HEAD, "/metrics") => metrics(shared),
        (&Method::GET | &Method::HEAD, "/status") => status(shared),
        (&Method::POST, "/reload") => reload(shared).await,
        (_, "/livez" | "/readyz" | "/metrics" | "/status" | "/reload") => {
            text(StatusCode::METHOD_NOT_ALLOWED, "GET /livez /readyz /metrics /status, POST /reload\n")
        }
        _ => text(StatusCode::NOT_FOUND, "GET /livez /readyz /metrics /status, POST /reload\n"),
    })
}

/// Without a configured token everybody on the address may; with one that has no value, nobody.
fn authorized(request: &Request<Incoming>, token: Option<&Secret>) -> bool {
    let Some(token) = token else { return true };
    let sent = request.headers().get(header::AUTHORIZATION).map(HeaderValue::as_bytes).unwrap_or_default();
    let (scheme, sent) = sent.split_at_checked("bearer ".len()).unwrap_or_default();
    scheme.eq_ignore_ascii_case(b"bearer ")
        && token.reveal().is_some_and(|token| bool::from(token.as_bytes().ct_eq(sent.trim_ascii())))
}

fn ready(shared: &Shared) -> Answer {
    match &*shared.page.borrow() {
        Some(page) if !page.draining => text(StatusCode::OK, "ready\n"),
        Some(_) => text(StatusCode::SERVICE_UNAVAILABLE, "stopping\n"),
        None => text(StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
    }
}

fn metrics(shared: &Shared) -> Answer {
    let page = shared.page.borrow();
    let body = page.as_ref().map(|page| (page.metrics)()).unwrap_or_default();
    with_type(StatusCode::OK, body, render::CONTENT_TYPE)
}

fn status(shared: &Shared) -> Answer {
    let page = shared.page.borrow();
    let value = page.as_ref().map_or(Value::Null, |page| (page.status)());
    with_type(StatusCode::OK, format!("{value:#}\n"), "application/json")
}

async fn reload(shared: &Shared) -> Answer {
    let (reply, answer) = oneshot::channel();
    let sent = shared.commands.send(Command::Reload(reply)).await;
    let (status, value) = match (sent, answer.await) {
        (Ok(()), Ok(Ok(Reloaded::Swapped(generation)))) => {
            (StatusCode::OK, json!({ "generation": generation, "changed": true }))
        }
        (Ok(()), Ok(Ok(Reloaded::Unchanged(generation)))) => {
            (StatusCode::OK, json!({ "generation": generation, "changed": false }))
        }
        (Ok(()), Ok(Err(refused))) => {
            (StatusCode::UNPROCESSABLE_ENTITY, json!({ "errors": refused.errors, "error": refused.text }))
        }
        _ => (StatusCode::SERVICE_UNAVAILABLE, json!({ "error": "the gateway is stopping" })),
    };
    with_type(status, format!("{value:#}\n"), "application/json")
}

fn text(status: StatusCode, body: &str) -> Answer {
    with_type(status, body.to_owned(), "text/plain; charset=utf-8")
}

fn with_type(status: StatusCode, body: String, content_type: &'static str) -> Answer {
    let mut answer = Response::new(Full::from(body));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}
