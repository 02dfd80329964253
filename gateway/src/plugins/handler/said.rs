//! What a guest prints: a line of the gateway's log for each of its lines, and no more than a worker can read.

use super::super::state::{LogBudget, LogVerdict};
use bytes::Bytes;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::AsyncWrite;
use wasmtime_wasi::{
    async_trait,
    cli::{IsTerminal, StdoutStream},
    p2::{OutputStream, Pollable, StreamResult},
};

/// Bytes of a line; what follows is another one.
const LINE: usize = 4 * 1024;

/// Bytes that are taken at a time.
const ROOM: usize = 64 * 1024;

/// One of the two streams that a guest prints to.
#[derive(Debug, Clone)]
pub(super) struct Said(Arc<Mutex<Lines>>);

/// What was printed of the line that is not over.
#[derive(Debug)]
struct Lines {
    origin: Arc<str>,
    stream: &'static str,
    /// That of all instances of a worker.
    budget: Arc<Mutex<LogBudget>>,
    line: Vec<u8>,
}

impl Said {
    pub(super) fn new(origin: &Arc<str>, stream: &'static str, budget: &Arc<Mutex<LogBudget>>) -> Self {
        let (origin, budget) = (Arc::clone(origin), Arc::clone(budget));
        Self(Arc::new(Mutex::new(Lines { origin, stream, budget, line: Vec::new() })))
    }
}

impl Lines {
    fn take(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            for part in piece.chunks(LINE) {
                self.line.extend_from_slice(part);
                if self.line.ends_with(b"\n") || self.line.len() >= LINE {
                    self.emit();
                }
            }
        }
    }

    fn emit(&mut self) {
        let line = std::mem::take(&mut self.line);
        let line = line.trim_ascii_end();
        if line.is_empty() {
            return;
        }
        let (origin, stream) = (&*self.origin, self.stream);
        match self.budget.lock().unwrap_or_else(PoisonError::into_inner).take() {
            LogVerdict::Drop => {}
            LogVerdict::SaySo => {
                tracing::warn!(origin, "too many log lines; the rest of this second is dropped");
            }
            LogVerdict::Write => tracing::info!(origin, stream, "{}", String::from_utf8_lossy(line)),
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.emit();
    }
}

impl OutputStream for Said {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(ROOM)
    }
}

#[async_trait]
impl Pollable for Said {
    async fn ready(&mut self) {}
}

impl IsTerminal for Said {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Said {
    /// Only WASI 0.3 asks for this one, which is not linked.
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(tokio::io::sink())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}
