//! What the tables are made of: raw requests, and what has to become of them.

/// A raw request, and its verdict.
///
/// In the bytes, `MARK` is four characters of the case's own; [`WORDS`] and [`LATER`] stand for what
/// they say, and `<70*text>` for 70 times that text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) raw: &'static [u8],
    pub(super) verdict: Verdict,
}

/// How most requests begin.
pub(super) const WORDS: [(&str, &str); 5] = [
    ("<GET>", "GET /MARK HTTP/1.1\r\nhost: a\r\n"),
    ("<POST>", "POST /MARK HTTP/1.1\r\nhost: a\r\n"),
    ("<CHUNKED>", "POST /MARK HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"),
    ("<WS>", "GET /MARK HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n"),
    ("<KEY>", "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n"),
];

/// What stands behind it is sent when the backend has heard of what stands before it.
pub(super) const LATER: &str = "<LATER>";

/// What has to become of a request.
#[derive(Debug, Clone, Copy)]
pub(super) enum Verdict {
    /// One answer with this status and then the end, however the bytes arrive; the backend sees
    /// nothing of it, nor of what follows.
    Refused(u16),
    /// The same where all of it arrives at once. Where the fault comes after the head the backend may
    /// have seen a beginning, and sees its connection closed in the middle of it.
    Spoiled(u16),
    /// The backend has seen a beginning, and sees its connection closed in the middle of it; the client
    /// gets this status and then the end.
    Aborted(u16),
    /// The client ends it in the middle: the backend sees no whole request, and the client is told
    /// nothing, or once that it was wrong.
    Unfinished,
    /// It is served.
    Forwarded(Forwarded),
}

/// How requests are served.
#[derive(Debug, Clone, Copy)]
pub(super) struct Forwarded {
    /// What the backend hears, in order.
    pub(super) wants: &'static [Want],
    /// Statuses of the answers, where it is not 200 for each.
    pub(super) statuses: Option<&'static [u16]>,
    pub(super) after: After,
    /// Headers of the last answer.
    pub(super) told: &'static [(&'static str, &'static str)],
}

/// What the client's connection is worth after the answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum After {
    Kept,
    Closed,
}

/// What a backend has to hear.
#[derive(Debug, Clone, Copy)]
pub(super) struct Want {
    pub(super) method: &'static str,
    pub(super) target: &'static str,
    /// All values of these headers, in order; each one a line.
    pub(super) has: &'static [(&'static str, &'static str)],
    pub(super) lacks: &'static [&'static str],
    pub(super) body: &'static str,
    pub(super) trailers: &'static [(&'static str, &'static str)],
}

pub(super) const fn refused(status: u16, name: &'static str, raw: &'static [u8]) -> Case {
    Case { name, raw, verdict: Verdict::Refused(status) }
}

pub(super) const fn spoiled(status: u16, name: &'static str, raw: &'static [u8]) -> Case {
    Case { name, raw, verdict: Verdict::Spoiled(status) }
}

pub(super) const fn aborted(status: u16, name: &'static str, raw: &'static [u8]) -> Case {
    Case { name, raw, verdict: Verdict::Aborted(status) }
}

pub(super) const fn unfinished(name: &'static str, raw: &'static [u8]) -> Case {
    Case { name, raw, verdict: Verdict::Unfinished }
}

/// Answered 200, on a connection that is kept.
pub(super) const fn forwarded(name: &'static str, raw: &'static [u8], wants: &'static [Want]) -> Case {
    let forwarded = Forwarded { wants, statuses: None, after: After::Kept, told: &[] };
    Case { name, raw, verdict: Verdict::Forwarded(forwarded) }
}

impl Case {
    /// These are the statuses.
    pub(super) const fn answered(self, statuses: &'static [u16]) -> Self {
        let forwarded = Forwarded { statuses: Some(statuses), ..self.forwarded() };
        Self { verdict: Verdict::Forwarded(forwarded), ..self }
    }

    /// The connection is closed after the answers.
    pub(super) const fn closed(self) -> Self {
        let forwarded = Forwarded { after: After::Closed, ..self.forwarded() };
        Self { verdict: Verdict::Forwarded(forwarded), ..self }
    }

    /// The last answer has these headers.
    pub(super) const fn told(self, told: &'static [(&'static str, &'static str)]) -> Self {
        let forwarded = Forwarded { told, ..self.forwarded() };
        Self { verdict: Verdict::Forwarded(forwarded), ..self }
    }

    const fn forwarded(&self) -> Forwarded {
        match self.verdict {
            Verdict::Forwarded(forwarded) => forwarded,
            _ => panic!("only what is forwarded is answered otherwise than by its status"),
        }
    }
}

pub(super) const fn want(method: &'static str, target: &'static str) -> Want {
    Want { method, target, has: &[("host", "a")], lacks: &[], body: "", trailers: &[] }
}

/// What most cases want.
pub(super) const fn get() -> Want {
    want("GET", "/MARK")
}

/// A POST of these bytes.
pub(super) const fn post(body: &'static str) -> Want {
    Want { body, ..want("POST", "/MARK") }
}

impl Want {
    pub(super) const fn has(self, has: &'static [(&'static str, &'static str)]) -> Self {
        Self { has, ..self }
    }

    pub(super) const fn lacks(self, lacks: &'static [&'static str]) -> Self {
        Self { lacks, ..self }
    }

    pub(super) const fn trailers(self, trailers: &'static [(&'static str, &'static str)]) -> Self {
        Self { trailers, ..self }
    }
}
