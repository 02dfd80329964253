//! HTTP/2 as frames (RFC 9113 §4), for suites that send what no library would.

use crate::wait::within;
use std::net::SocketAddr;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// Types of frames (RFC 9113 §6).
pub mod kind {
    #![allow(missing_docs, reason = "names of the specification")]
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

/// END_STREAM of DATA and HEADERS, ACK of SETTINGS and PING.
pub const END_STREAM: u8 = 1;
/// END_HEADERS of HEADERS and CONTINUATION.
pub const END_HEADERS: u8 = 4;

/// The error ENHANCE_YOUR_CALM (RFC 9113 §7).
pub const CALM: u32 = 11;
/// The error PROTOCOL_ERROR.
pub const PROTOCOL_ERROR: u32 = 1;

/// A connection on which frames are sent and read.
#[derive(Debug)]
pub struct Frames {
    stream: TcpStream,
    came: Vec<u8>,
}

/// A frame that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Its type.
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// Its stream.
    pub stream: u32,
    /// What it carries.
    pub payload: Vec<u8>,
}

impl Frame {
    /// The error of a RST_STREAM or a GOAWAY.
    pub fn error(&self) -> u32 {
        let at = if self.kind == kind::GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().expect("four bytes"))
    }
}

/// A frame's bytes.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = u32::try_from(payload.len()).expect("a length").to_be_bytes();
    let mut bytes = vec![a, b, c, kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// Header fields as HPACK writes them without a table (RFC 7541 §6.2.2).
pub fn block(fields: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let text = |bytes: &mut Vec<u8>, text: &[u8]| {
        // A length with a prefix of seven bits (§5.1).
        match u8::try_from(text.len()) {
            Ok(short @ 0..127) => bytes.push(short),
            _ => {
                bytes.push(127);
                let mut left = text.len() - 127;
                while left >= 128 {
                    bytes.push((left % 128) as u8 | 128);
                    left /= 128;
                }
                bytes.push(left as u8);
            }
        }
        bytes.extend(text);
    };
    for (name, value) in fields {
        bytes.push(0);
        text(&mut bytes, name.as_bytes());
        text(&mut bytes, value);
    }
    bytes
}

/// The fields of `GET /` for this authority.
pub fn get(authority: &str) -> Vec<(&str, &[u8])> {
    vec![(":method", b"GET"), (":scheme", b"http"), (":path", b"/"), (":authority", authority.as_bytes())]
}

impl Frames {
    /// Connects, and greets with empty settings.
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = within("a connection", TcpStream::connect(address)).await.expect("a connection");
        let _ = stream.set_nodelay(true);
        let mut frames = Self { stream, came: Vec::new() };
        frames.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        frames.send(kind::SETTINGS, 0, 0, &[]).await;
        frames
    }

    /// Sends bytes; false where the other side takes no more of them.
    pub async fn write(&mut self, bytes: &[u8]) -> bool {
        within("a write", self.stream.write_all(bytes)).await.is_ok()
    }

    /// Sends a frame.
    pub async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> bool {
        self.write(&frame(kind, flags, stream, payload)).await
    }

    /// Sends a request without a body.
    pub async fn ask(&mut self, stream: u32, fields: &[(&str, &[u8])]) -> bool {
        self.send(kind::HEADERS, END_HEADERS | END_STREAM, stream, &block(fields)).await
    }

    /// The next frame; none where the connection has ended.
    pub async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(head) = self.came.get(..9) {
                let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
                if self.came.len() >= 9 + length {
                    let rest = self.came.split_off(9 + length);
                    let all = std::mem::replace(&mut self.came, rest);
                    let stream = u32::from_be_bytes(all[5..9].try_into().expect("four bytes"));
                    return Some(Frame { kind: all[3], flags: all[4], stream, payload: all[9..].to_vec() });
                }
            }
            match within("a frame", self.stream.read_buf(&mut self.came)).await {
                Ok(1..) => {}
                _ => return None,
            }
        }
    }

    /// The next frame of this type; those between are forgotten.
    ///
    /// # Panics
    /// Panics where the connection ends before.
    pub async fn until(&mut self, kind: u8) -> Frame {
        loop {
            let frame = self.next().await.unwrap_or_else(|| panic!("the end before a frame of type {kind}"));
            if frame.kind == kind {
                return frame;
            }
        }
    }

    /// The error that the connection ends with: that of the last GOAWAY, if there was any.
    pub async fn end(&mut self) -> Option<u32> {
        let mut error = None;
        while let Some(frame) = self.next().await {
            if frame.kind == kind::GOAWAY {
                error = Some(frame.error());
            }
        }
        error
    }
}
