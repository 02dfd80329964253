//! A place in the text of a head.

/// So many bytes from a place on. Heads are far smaller than 4 GiB: their limits are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Span {
    start: u32,
    len: u32,
}

impl Span {
    /// `len` bytes from `start` on.
    pub fn new(start: usize, len: usize) -> Self {
        let narrow = |number| u32::try_from(number).unwrap_or(u32::MAX);
        Self { start: narrow(start), len: narrow(len) }
    }

    /// The bytes; none where the span lies outside of the text.
    pub fn of(self, text: &[u8]) -> &[u8] {
        let start = self.start as usize;
        text.get(start..start.saturating_add(self.len as usize)).unwrap_or_default()
    }

    /// Number of bytes.
    pub fn len(self) -> usize {
        self.len as usize
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.len == 0
    }

    /// What lies before the byte at `at`, and what lies behind it.
    pub(super) fn split_around(self, at: usize) -> (Self, Self) {
        let start = self.start as usize;
        (Self::new(start, at), Self::new(start + at + 1, self.len().saturating_sub(at + 1)))
    }
}
