//! A worker's stock of relay buffers: a connection holds one only while bytes are in it, so that an
//! idle tunnel costs no buffer at all.

use std::cell::RefCell;
#[cfg(target_os = "linux")]
use std::{cell::Cell, rc::Rc};

/// Bytes per buffer. Large, because each refill is a pair of system calls; and larger than 64 KiB, so that as
/// much has room with the head before it, or with what TLS adds to its four records.
pub const BUFFER_SIZE: usize = 66 * 1024;

/// How many unused buffers are kept; more are freed.
const KEEP: usize = 32;

/// Texts larger than this are freed: most are a head.
const TEXT_SIZE: usize = 8 * 1024;

/// Unused buffers of one worker.
#[derive(Debug, Default)]
pub struct Buffers {
    blocks: RefCell<Vec<Box<[u8]>>>,
    texts: RefCell<Vec<Vec<u8>>>,
    #[cfg(target_os = "linux")]
    pipes: RefCell<Vec<super::Pipe>>,
    #[cfg(target_os = "linux")]
    piping: Rc<Cell<usize>>,
}

/// How many pipes a worker may have. A transfer whose reader has stopped keeps its own, with up to
/// half a megabyte in it; further ones are copied.
#[cfg(target_os = "linux")]
const MOST_PIPES: usize = 128;

/// How many unused pipes are kept: each has two descriptors.
#[cfg(target_os = "linux")]
const KEEP_PIPES: usize = 8;

impl Buffers {
    /// A buffer of [`BUFFER_SIZE`] bytes, with anything in it.
    pub fn take(&self) -> Box<[u8]> {
        self.blocks.borrow_mut().pop().unwrap_or_else(|| vec![0; BUFFER_SIZE].into_boxed_slice())
    }

    /// Gives a buffer back.
    pub fn put(&self, buffer: Box<[u8]>) {
        let mut stock = self.blocks.borrow_mut();
        if stock.len() < KEEP && buffer.len() == BUFFER_SIZE {
            stock.push(buffer);
        }
    }

    /// An empty pipe; none where there cannot be another.
    #[cfg(target_os = "linux")]
    pub fn pipe(&self) -> Option<super::Pipe> {
        let kept = self.pipes.borrow_mut().pop();
        kept.or_else(|| {
            (self.piping.get() < MOST_PIPES).then(|| super::Pipe::new(&self.piping).ok()).flatten()
        })
    }

    /// Gives a pipe back. One with bytes in it is closed.
    #[cfg(target_os = "linux")]
    pub fn put_pipe(&self, pipe: super::Pipe) {
        let mut stock = self.pipes.borrow_mut();
        if stock.len() < KEEP_PIPES && pipe.is_empty() {
            stock.push(pipe);
        }
    }

    /// An empty buffer to write a head into.
    pub fn text(&self) -> Vec<u8> {
        self.texts.borrow_mut().pop().unwrap_or_else(|| Vec::with_capacity(TEXT_SIZE / 8))
    }

    /// Gives such a buffer back.
    pub fn put_text(&self, mut text: Vec<u8>) {
        let mut stock = self.texts.borrow_mut();
        if stock.len() < KEEP && text.capacity() <= TEXT_SIZE {
            text.clear();
            stock.push(text);
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
        assert_eq!(buffers.blocks.borrow().len(), KEEP);
    }
}
