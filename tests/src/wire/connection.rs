//! A connection that remembers everything that came over it, and how it ended.

use crate::wait::within;
use std::net::SocketAddr;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// A connection that remembers everything that came over it, and how it ended.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    /// What came.
    pub came: Vec<u8>,
    /// How it ended, if it did.
    pub end: Option<End>,
}

/// How the other side ended a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// In order: it will send nothing more.
    Closed,
    /// By a reset, or another failure.
    Reset,
}

impl Connection {
    /// Connects.
    pub async fn connect(address: SocketAddr) -> Self {
        Self::over(within("a connection", TcpStream::connect(address)).await.expect("a connection"))
    }

    /// Takes a connection that is there already.
    pub fn over(stream: TcpStream) -> Self {
        // What is written in pieces shall arrive in pieces.
        let _ = stream.set_nodelay(true);
        Self { stream, came: Vec::new(), end: None }
    }

    /// Sends bytes. The other side may be gone: that is for the reader to see.
    pub async fn send(&mut self, bytes: &[u8]) {
        let _ = within("a write", self.stream.write_all(bytes)).await;
    }

    /// Waits for more bytes, or for the end.
    pub async fn more(&mut self) {
        if self.end.is_none() {
            self.came.reserve(4096);
            self.end = match self.stream.read_buf(&mut self.came).await {
                Ok(0) => Some(End::Closed),
                Ok(_) => None,
                Err(_) => Some(End::Reset),
            };
        }
    }

    /// Says that nothing more will be sent.
    pub async fn finish(&mut self) {
        let _ = self.stream.shutdown().await;
    }

    /// Ends it by a reset, as a process that dies with unread bytes does.
    pub fn reset(self) {
        // The reset is sent when the stream is dropped.
        let _ = self.stream.set_zero_linger();
    }
}
