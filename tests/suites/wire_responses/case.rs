//! What the tables are made of: raw answers of a backend, and what has to become of them.

/// A raw answer, and its verdict.
///
/// In the bytes, [`WORDS`] stand for what they say, [`HEAD`] and its like for what the backend does
/// between them, and `<70*text>` for 70 times that text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Case {
    pub(super) name: &'static str,
    /// What the client asks.
    pub(super) ask: &'static str,
    /// What the backend answers to that.
    pub(super) play: &'static [u8],
    pub(super) verdict: Verdict,
}

/// How most answers begin.
pub(super) const WORDS: [(&str, &str); 4] = [
    ("<OK>", "HTTP/1.1 200 OK\r\n"),
    ("<CHUNKED>", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"),
    (
        "<SWITCH>",
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n<ACCEPT>\r\n",
    ),
    ("<ACCEPT>", "sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"),
];

/// The backend waits until the client has the head of the answer.
pub(super) const HEAD: &str = "<HEAD>";
/// The backend waits until the client has the whole answer.
pub(super) const DONE: &str = "<DONE>";
/// The backend says that it will send nothing more.
pub(super) const FIN: &str = "<FIN>";
/// The backend resets the connection.
pub(super) const RST: &str = "<RST>";

/// What the client asks where nothing else is said.
pub(super) const GET: &str = "GET /it HTTP/1.1\r\nhost: HOST\r\n\r\n";
pub(super) const ASK_HEAD: &str = "HEAD /it HTTP/1.1\r\nhost: HOST\r\n\r\n";
pub(super) const POST: &str = "POST /it HTTP/1.1\r\nhost: HOST\r\ncontent-length: 5\r\n\r\nhello";
/// By a client that takes trailers (RFC 9110 §10.1.4).
pub(super) const TRAILERS: &str = "GET /it HTTP/1.1\r\nhost: HOST\r\nconnection: te\r\nte: trailers\r\n\r\n";
/// In HTTP/1.0, on a connection that is closed after the answer.
pub(super) const OLD: &str = "GET /it HTTP/1.0\r\nhost: HOST\r\n\r\n";
pub(super) const OLD_HEAD: &str = "HEAD /it HTTP/1.0\r\nhost: HOST\r\n\r\n";
/// In HTTP/1.0, on a connection that is kept if it can be.
pub(super) const OLD_KEPT: &str = "GET /it HTTP/1.0\r\nhost: HOST\r\nconnection: keep-alive\r\n\r\n";
pub(super) const WEBSOCKET: &str = "GET /it HTTP/1.1\r\nhost: HOST\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
    sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n";
/// A WebSocket that the gateway does not ask for, because of its method.
pub(super) const POST_WEBSOCKET: &str = "POST /it HTTP/1.1\r\nhost: HOST\r\nconnection: upgrade\r\n\
    upgrade: websocket\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\
    content-length: 5\r\n\r\nhello";

/// What has to become of an answer. In all cases the backend is asked once, the client is answered
/// once, and a next request is served as if nothing had been.
#[derive(Debug, Clone, Copy)]
pub(super) enum Verdict {
    /// The client gets it.
    Delivered(Delivered),
    /// The client gets 502 after these interim answers; the backend's connection is closed.
    BadGateway(&'static [u16]),
    /// The client gets the head with this status, and then an end that is none; the backend's
    /// connection is closed.
    Aborted(u16),
    /// 502 where all of it arrives at once. Where the fault comes after the head, the one or the other.
    Spoiled(u16),
    /// The one or the other in any case: whether the head was passed on is a matter of time.
    Broken(u16),
    /// The client gets the 101 and then these bytes, and its own bytes come back.
    Tunnel(&'static [u16], &'static str),
}

/// How an answer arrives.
#[derive(Debug, Clone, Copy)]
pub(super) struct Delivered {
    /// Statuses of interim answers.
    pub(super) interim: &'static [u16],
    pub(super) status: u16,
    /// All values of these headers, in order; each one a line.
    pub(super) has: &'static [(&'static str, &'static str)],
    pub(super) lacks: &'static [&'static str],
    pub(super) body: &'static str,
    pub(super) trailers: &'static [(&'static str, &'static str)],
    pub(super) backend: Backend,
    pub(super) client: Client,
}

/// What the backend's connection is worth after the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Backend {
    /// The next request comes on it.
    Reused,
    /// It is closed.
    Closed,
    /// The one or the other.
    Either,
}

/// What the client's connection is worth after the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Client {
    Kept,
    Closed,
}

/// Answered 200 with this body, on connections that are kept.
pub(super) const fn delivered(name: &'static str, play: &'static [u8], body: &'static str) -> Case {
    let delivered = Delivered {
        interim: &[],
        status: 200,
        has: &[],
        lacks: &[],
        body,
        trailers: &[],
        backend: Backend::Reused,
        client: Client::Kept,
    };
    Case { name, ask: GET, play, verdict: Verdict::Delivered(delivered) }
}

pub(super) const fn bad_gateway(name: &'static str, play: &'static [u8]) -> Case {
    Case { name, ask: GET, play, verdict: Verdict::BadGateway(&[]) }
}

pub(super) const fn aborted(name: &'static str, play: &'static [u8]) -> Case {
    Case { name, ask: GET, play, verdict: Verdict::Aborted(200) }
}

pub(super) const fn spoiled(name: &'static str, play: &'static [u8]) -> Case {
    Case { name, ask: GET, play, verdict: Verdict::Spoiled(200) }
}

pub(super) const fn broken(name: &'static str, play: &'static [u8]) -> Case {
    Case { name, ask: GET, play, verdict: Verdict::Broken(200) }
}

/// `early` is what the client gets of the new protocol before it says anything.
pub(super) const fn tunnel(name: &'static str, play: &'static [u8], early: &'static str) -> Case {
    Case { name, ask: WEBSOCKET, play, verdict: Verdict::Tunnel(&[], early) }
}

impl Case {
    /// Whether the client's connection is closed after the answer even where that does not say so.
    pub(super) fn ends(&self) -> bool {
        match self.verdict {
            Verdict::Delivered(delivered) => delivered.client == Client::Closed,
            _ => self.ask.contains("HTTP/1.0"),
        }
    }

    /// What the backend's connection has to be worth after the answer.
    pub(super) fn backend(&self) -> Backend {
        match self.verdict {
            Verdict::Delivered(delivered) => delivered.backend,
            Verdict::Tunnel(..) => Backend::Reused,
            _ => Backend::Closed,
        }
    }

    pub(super) const fn to(self, ask: &'static str) -> Self {
        Self { ask, ..self }
    }

    /// Interim answers with these statuses come before.
    pub(super) const fn after(self, interim: &'static [u16]) -> Self {
        let verdict = match self.verdict {
            Verdict::Delivered(delivered) => Verdict::Delivered(Delivered { interim, ..delivered }),
            Verdict::BadGateway(_) => Verdict::BadGateway(interim),
            Verdict::Tunnel(_, early) => Verdict::Tunnel(interim, early),
            _ => panic!("no interim answers are looked for"),
        };
        Self { verdict, ..self }
    }

    pub(super) const fn status(self, status: u16) -> Self {
        self.with(Delivered { status, ..self.delivered() })
    }

    pub(super) const fn has(self, has: &'static [(&'static str, &'static str)]) -> Self {
        self.with(Delivered { has, ..self.delivered() })
    }

    pub(super) const fn lacks(self, lacks: &'static [&'static str]) -> Self {
        self.with(Delivered { lacks, ..self.delivered() })
    }

    pub(super) const fn trailers(self, trailers: &'static [(&'static str, &'static str)]) -> Self {
        self.with(Delivered { trailers, ..self.delivered() })
    }

    /// The backend's connection is closed.
    pub(super) const fn unused(self) -> Self {
        self.with(Delivered { backend: Backend::Closed, ..self.delivered() })
    }

    /// The backend's connection may be closed.
    pub(super) const fn doubtful(self) -> Self {
        self.with(Delivered { backend: Backend::Either, ..self.delivered() })
    }

    /// The client's connection is closed.
    pub(super) const fn last(self) -> Self {
        self.with(Delivered { client: Client::Closed, ..self.delivered() })
    }

    const fn delivered(&self) -> Delivered {
        match self.verdict {
            Verdict::Delivered(delivered) => delivered,
            _ => panic!("only what is delivered has more to it"),
        }
    }

    const fn with(self, delivered: Delivered) -> Self {
        Self { verdict: Verdict::Delivered(delivered), ..self }
    }
}
