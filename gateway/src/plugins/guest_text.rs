//! What a guest prints: a panic message, mostly. Kept for the log line of the fault that follows.

use bytes::Bytes;
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::io::AsyncWrite;
use wasmtime_wasi::{
    async_trait,
    cli::{IsTerminal, StdoutStream},
    p2::{OutputStream, Pollable, StreamResult},
};

/// Bytes kept; of longer output the end is kept, because there the reason stands.
const KEEP: usize = 4 * 1024;

/// The last part of what a guest printed to its standard output and error.
#[derive(Debug, Clone, Default)]
pub(super) struct GuestText(Arc<Mutex<VecDeque<u8>>>);

impl GuestText {
    /// Takes what was printed since the last time.
    pub(super) fn take(&self) -> String {
        let mut text = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let text: Vec<u8> = text.drain(..).collect();
        String::from_utf8_lossy(&text).trim().to_owned()
    }
}

impl OutputStream for GuestText {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        let mut text = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        text.extend(bytes);
        let excess = text.len().saturating_sub(KEEP);
        text.drain(..excess);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(KEEP)
    }
}

#[async_trait]
impl Pollable for GuestText {
    async fn ready(&mut self) {}
}

impl IsTerminal for GuestText {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for GuestText {
    /// Only WASI 0.3 asks for this one, which is not linked.
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(tokio::io::sink())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_kept() {
        let text = GuestText::default();
        text.clone().write(Bytes::from(vec![b'x'; 2 * KEEP])).expect("a write");
        text.clone().write(Bytes::from_static(b"the reason\n")).expect("a write");
        let kept = text.take();
        assert!(kept.ends_with("the reason"), "{kept}");
        assert!(kept.len() <= KEEP, "{}", kept.len());
        assert_eq!(text.take(), "", "taken once");
    }
}
