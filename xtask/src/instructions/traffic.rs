//! A client that asks and waits, and a backend that answers: the simplest ones, so that the gateway
//! does the same for every request.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use crate::Result;

/// Bytes of each answer's body.
const BODY: usize = 1024;

/// The gateway is some fifty times slower than usual.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Backend(SocketAddr);

impl Backend {
    /// Answers on 127.0.0.1 until this program ends.
    pub(crate) fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A gateway that goes away ends its connection.
                thread::spawn(move || serve(stream));
            }
        });
        Ok(Self(address))
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.0
    }
}

fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {BODY}\r\n\r\n");
    let answer = [head.as_bytes(), &[b'x'; BODY]].concat();
    let (mut held, mut buffer) = (Vec::new(), [0; 8192]);
    loop {
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            return Ok(());
        }
        held.extend_from_slice(&buffer[..read]);
        if held.ends_with(b"\r\n\r\n") {
            held.clear();
            stream.write_all(&answer)?;
        }
    }
}

pub(crate) struct Client {
    stream: TcpStream,
    request: String,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr, token: &str) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let request = format!(
            "GET /index.html HTTP/1.1\r\nhost: localhost:8080\r\nuser-agent: xtask/0.1\r\naccept: */*\r\n\
             accept-encoding: identity\r\nauthorization: Bearer {token}\r\n\r\n"
        );
        Ok(Self { stream, request })
    }

    /// So many requests, each after the answer to the last.
    pub(crate) fn ask(&mut self, times: u32) -> Result {
        let mut buffer = [0; 8192];
        for _ in 0..times {
            self.stream.write_all(self.request.as_bytes())?;
            let mut answer: Vec<u8> = Vec::new();
            while !is_whole(&answer) {
                let read = self.stream.read(&mut buffer)?;
                if read == 0 {
                    return Err(format!("the gateway closed: {}", String::from_utf8_lossy(&answer)).into());
                }
                answer.extend_from_slice(&buffer[..read]);
            }
            if !answer.starts_with(b"HTTP/1.1 200 ") {
                return Err(format!("answered {}", String::from_utf8_lossy(&answer)).into());
            }
        }
        Ok(())
    }
}

/// Whether it has its head and the body behind that; answers of the gateway itself are smaller.
fn is_whole(answer: &[u8]) -> bool {
    let head = answer.windows(4).position(|window| window == b"\r\n\r\n");
    head.is_some_and(|at| answer.len() >= at + 4 + BODY || !answer.starts_with(b"HTTP/1.1 200 "))
}
