//! One request to a component while it is answered: the guest runs whenever somebody asks how far it is.

use super::{
    super::{Services, engine::Caller, state::LogBudget},
    Entrance, Handler, HandlerFault, HandlerFaultKind, HandlerMetrics, Handlers, NoAnswer,
    run::{Given, Guest},
    upload::{Upload, upload},
};
use crate::{
    drain::Guard,
    http1::{HeadLimits, Malformed},
    http2,
    message::{Fields, Known, RequestHead, ResponseHead},
};
use bytes::{Buf as _, Bytes};
use http_body::Body as _;
use std::{
    fmt,
    future::poll_fn,
    io,
    pin::Pin,
    rc::Rc,
    sync::{Arc, Mutex},
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{io::ReadBuf, sync::oneshot, task::spawn_local, time::timeout};
use wasmtime_wasi_http::p2::{bindings::http::types::Scheme, body::HyperOutgoingBody};

/// How long a component may go on once its answer has been read.
const AFTERWARDS: Duration = Duration::from_secs(10);

/// Limits of trailers; those of HTTP/1 here.
const TRAILERS: HeadLimits = HeadLimits { size: 16 * 1024, headers: 64 };

/// One request to a component: what is written is its body, and reading gives the body of its answer. Dropped
/// before its end, its instance is gone.
pub struct Serving {
    handler: Arc<Handler>,
    services: Arc<dyn Services>,
    log: Arc<Mutex<LogBudget>>,
    caller: Caller,
    upload: Option<Upload>,
    answer: Option<oneshot::Receiver<Given>>,
    body: Option<HyperOutgoingBody>,
    /// Came, and was not read yet.
    came: Bytes,
    /// Bytes that the head of the answer has told, and that have not come yet.
    owed: Option<u64>,
    trailers: Option<Box<Fields>>,
    running: Running,
    guard: Guard,
}

/// The guest, and what it holds while it runs.
struct Running {
    guest: Option<Guest>,
    /// How it ended, where that was its fault.
    fault: Option<HandlerFaultKind>,
    origin: Arc<str>,
    metrics: Rc<HandlerMetrics>,
    _entrance: Entrance,
}

impl Serving {
    pub(super) fn new(handlers: &Handlers, entrance: Entrance, guard: Guard) -> Self {
        let Handlers { handler, services, log, caller, metrics, .. } = handlers;
        Self {
            running: Running {
                guest: None,
                fault: None,
                origin: Arc::clone(&handler.name),
                metrics: Rc::clone(metrics),
                _entrance: entrance,
            },
            handler: Arc::clone(handler),
            services: Arc::clone(services),
            log: Arc::clone(log),
            caller: caller.clone(),
            upload: None,
            answer: None,
            body: None,
            came: Bytes::new(),
            owed: None,
            trailers: None,
            guard,
        }
    }

    /// Makes an instance, and tells it the request.
    ///
    /// # Errors
    /// Fails where the head is one that only HTTP/1 has.
    pub fn start(&mut self, head: &RequestHead, is_last: bool) -> Result<(), Malformed> {
        let (upload, body) = upload(is_last);
        let request = http2::request(head)?.map(|()| body);
        // The gateway has written it itself, or a proxy that it trusts.
        let is_https = head.fields.get_named(b"x-forwarded-proto").is_some_and(|proto| proto == b"https");
        let scheme = if is_https { Scheme::Https } else { Scheme::Http };
        let (give, given) = oneshot::channel();
        let around = (&self.services, &self.log, &self.caller);
        match Guest::new(&self.handler, around, request, (scheme, give)) {
            Ok(guest) => {
                self.running.metrics.instances.inc();
                self.running.guest = Some(guest);
            }
            Err(fault) => self.running.failed(&fault),
        }
        (self.upload, self.answer) = (Some(upload), Some(given));
        Ok(())
    }

    /// The head of the answer.
    ///
    /// # Errors
    /// Fails where there is none.
    pub fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        limits: HeadLimits,
    ) -> Poll<Result<ResponseHead, NoAnswer>> {
        self.running.poll(cx);
        let Some(answer) = &mut self.answer else { return Poll::Pending };
        let given = ready!(Pin::new(answer).poll(cx));
        self.answer = None;
        let (parts, body) = match given {
            Ok(Ok(response)) => response.into_parts(),
            Ok(Err(code)) => {
                let fault = HandlerFault { kind: HandlerFaultKind::Refused, detail: format!("{code:?}") };
                return Poll::Ready(Err(self.running.gave_up(&fault)));
            }
            Err(_) => return Poll::Ready(Err(self.running.gave_up(&HandlerFaultKind::Silent.into()))),
        };
        // What comes before an answer, and what changes the protocol, no component can give.
        if parts.status.is_informational() {
            return Poll::Ready(Err(NoAnswer::Malformed(Malformed::StatusLine)));
        }
        let head = http2::response_head(parts.status, &parts.headers, limits).map_err(NoAnswer::Malformed)?;
        self.owed = told(&head);
        self.body = Some(body).filter(|body| !body.is_end_stream());
        Poll::Ready(Ok(head))
    }

    /// Whether it is known that nothing more is to be read.
    pub fn is_at_end(&self) -> bool {
        self.answer.is_none()
            && self.body.is_none()
            && self.came.is_empty()
            && self.running.fault.is_none()
            && self.owed.is_none_or(|owed| owed == 0)
    }

    /// The trailers of the answer, after everything else was read.
    pub fn take_trailers(&mut self) -> Option<Box<Fields>> {
        self.trailers.take()
    }

    /// Says that the request's body ends after so many more bytes.
    pub fn ends_after(&mut self, bytes: usize) {
        if let Some(upload) = &mut self.upload {
            upload.ends_after(bytes);
        }
    }

    /// Ends the request's body.
    ///
    /// # Errors
    /// Fails where the component does not read it.
    pub fn end(&mut self, trailers: Option<&Fields>) -> io::Result<()> {
        let trailers = trailers.filter(|trailers| !trailers.is_empty());
        let trailers = trailers.map(http2::header_map).transpose().map_err(io::Error::other)?;
        self.upload.as_mut().map_or(Ok(()), |upload| upload.end(trailers))
    }

    /// Gives it more of the request's body, as soon as it has taken what came before.
    ///
    /// # Errors
    /// Fails where the component does not read it.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.upload {
            Some(upload) => upload.poll_write(cx, data),
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    /// Reads more of the answer's body; nothing at its end.
    ///
    /// # Errors
    /// Fails where the answer breaks off, or is not as long as its head has told.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.came.is_empty() {
            ready!(self.poll_more(cx))?;
        }
        let taken = self.came.len().min(buffer.remaining());
        buffer.put_slice(self.came.get(..taken).unwrap_or_default());
        self.came.advance(taken);
        Poll::Ready(Ok(()))
    }

    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.running.poll(cx);
        while self.came.is_empty() {
            let Some(body) = &mut self.body else { return Poll::Ready(self.ended()) };
            let frame = match ready!(Pin::new(body).poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                Some(Err(code)) => return Poll::Ready(Err(io::Error::other(format!("{code:?}")))),
                None => {
                    self.body = None;
                    continue;
                }
            };
            match frame.into_data() {
                Ok(data) => {
                    if let Some(owed) = &mut self.owed {
                        let left = owed.checked_sub(data.len() as u64);
                        *owed = left.ok_or_else(|| io::Error::other("more bytes than the head has told"))?;
                    }
                    self.came = data;
                }
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        let fields = http2::fields(&trailers, TRAILERS).map_err(io::Error::other)?;
                        self.trailers = Some(Box::new(fields));
                    }
                    self.body = None;
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// A guest that fails lets go of its answer as one that is done with it does; so it has to be asked.
    fn ended(&self) -> io::Result<()> {
        match (self.running.fault, self.owed) {
            (Some(fault), _) => Err(io::Error::other(fault.to_string())),
            (None, Some(1..)) => Err(io::Error::other("less bytes than the head has told")),
            (None, _) => Ok(()),
        }
    }

    /// The answer has been read as far as anybody wants it. What the component does behind it, it may do for a
    /// while.
    pub fn finish(self) {
        let Self { mut running, body, upload, guard, .. } = self;
        if running.guest.is_none() {
            return;
        }
        // It may be writing what nobody wants, such as the body of an answer to HEAD.
        let mut body = body;
        spawn_local(async move {
            let (_guard, _upload) = (guard, upload);
            let running = timeout(
                AFTERWARDS,
                poll_fn(|cx| {
                    running.poll(cx);
                    while let Some(unread) = &mut body
                        && let Poll::Ready(frame) = Pin::new(unread).poll_frame(cx)
                    {
                        if !matches!(frame, Some(Ok(_))) {
                            body = None;
                        }
                    }
                    if running.guest.is_none() { Poll::Ready(()) } else { Poll::Pending }
                }),
            );
            if running.await.is_err() {
                tracing::debug!("a component went on for too long behind its answer, and was ended");
            }
        });
    }
}

impl Running {
    /// Runs the guest as far as it comes.
    fn poll(&mut self, cx: &mut Context<'_>) {
        if let Some(guest) = &mut self.guest
            && let Poll::Ready(returned) = guest.poll(cx)
        {
            self.leave();
            if let Err(fault) = returned {
                self.failed(&fault);
            }
        }
    }

    fn failed(&mut self, fault: &HandlerFault) {
        self.metrics.report(&self.origin, fault);
        self.fault = Some(fault.kind);
    }

    /// There is no answer: for the reason that is known, or else for this one.
    fn gave_up(&mut self, fault: &HandlerFault) -> NoAnswer {
        if self.fault.is_none() {
            self.failed(fault);
        }
        NoAnswer::Failed(self.fault.unwrap_or(fault.kind))
    }

    /// The guest is gone.
    fn leave(&mut self) {
        if let Some(guest) = self.guest.take() {
            self.metrics.instances.dec();
            self.metrics.count_cpu(guest.cpu());
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.leave();
    }
}

impl fmt::Debug for Serving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serving")
            .field("handler", &self.handler)
            .field("guest", &self.running.guest)
            .finish_non_exhaustive()
    }
}

/// Bytes that a head says will follow it. One that says so twice, or in other words, is refused elsewhere.
fn told(head: &ResponseHead) -> Option<u64> {
    std::str::from_utf8(head.fields.only(Known::ContentLength)?).ok()?.parse().ok()
}
