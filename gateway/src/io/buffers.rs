//! A worker's stock of relay buffers: a connection holds one only while bytes are in it, so that an
//! idle tunnel costs no buffer at all.

use std::cell::RefCell;

/// Bytes per buffer. Large, because each refill is a pair of system calls.
pub const BUFFER_SIZE: usize = 64 * 1024;

/// How many unused buffers are kept; more are freed.
const KEEP: usize = 32;

/// Unused buffers of one worker.
#[derive(Debug, Default)]
pub struct Buffers(RefCell<Vec<Box<[u8]>>>);

impl Buffers {
    /// A buffer of [`BUFFER_SIZE`] bytes, with anything in it.
    pub fn take(&self) -> Box<[u8]> {
        self.0.borrow_mut().pop().unwrap_or_else(|| vec![0; BUFFER_SIZE].into_boxed_slice())
    }

    /// Gives a buffer back.
    pub fn put(&self, buffer: Box<[u8]>) {
        let mut stock = self.0.borrow_mut();
        if stock.len() < KEEP && buffer.len() == BUFFER_SIZE {
            stock.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stock_is_bounded() {
        let buffers = Buffers::default();
        let taken: Vec<_> = (0..2 * KEEP).map(|_| buffers.take()).collect();
        taken.into_iter().for_each(|buffer| buffers.put(buffer));
        assert_eq!(buffers.0.borrow().len(), KEEP);
    }
}
