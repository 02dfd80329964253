//! Bytes from one socket to another without a copy in between: splice(2).

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use std::{
    cell::Cell,
    io,
    os::fd::OwnedFd,
    rc::Rc,
    task::{Context, Poll, ready},
};
use tokio::{io::Interest, net::TcpStream};

/// Bytes that a pipe should hold. The kernel may allow less, and counts pages: sixteen of them are
/// what it gives without being asked.
const PIPE_SIZE: usize = 512 * 1024;

/// A pipe of the kernel, through which bytes move from socket to socket.
#[derive(Debug)]
pub struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    /// Bytes in it.
    held: usize,
    _counted: Counted,
}

/// Counts one pipe, however it ends.
#[derive(Debug)]
struct Counted(Rc<Cell<usize>>);

impl Counted {
    fn new(count: &Rc<Cell<usize>>) -> Self {
        count.set(count.get() + 1);
        Self(Rc::clone(count))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Pipe {
    /// An empty pipe, counted as long as it lives.
    ///
    /// # Errors
    /// Fails where the process has no descriptors left.
    pub fn new(count: &Rc<Cell<usize>>) -> io::Result<Self> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // Less is slower, and nothing else: unprivileged users have a limit on all their pipes.
        let _ = fcntl_setpipe_size(&write, PIPE_SIZE);
        Ok(Self { read, write, held: 0, _counted: Counted::new(count) })
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// Fills it once from a socket, with so many bytes at most; 0 is the socket's end. The pipe must be
    /// empty.
    ///
    /// # Errors
    /// Fails as the socket does, and with [`io::ErrorKind::InvalidInput`] where the kernel cannot
    /// splice from it.
    pub fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        from: &TcpStream,
        most: usize,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(from.poll_read_ready(cx))?;
            let filled = from.try_io(Interest::READABLE, || {
                Ok(splice(
                    from,
                    None,
                    &self.write,
                    None,
                    most.min(PIPE_SIZE),
                    SpliceFlags::MOVE | SpliceFlags::NONBLOCK,
                )?)
            });
            match filled {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(filled) => {
                    self.held += filled;
                    return Poll::Ready(Ok(filled));
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Empties it once into a socket, and returns how many bytes left.
    ///
    /// # Errors
    /// Fails as the socket does.
    pub fn poll_empty(&mut self, cx: &mut Context<'_>, to: &TcpStream) -> Poll<io::Result<usize>> {
        loop {
            ready!(to.poll_write_ready(cx))?;
            let emptied = to.try_io(Interest::WRITABLE, || {
                Ok(splice(&self.read, None, to, None, self.held, SpliceFlags::MOVE | SpliceFlags::NONBLOCK)?)
            });
            match emptied {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(emptied) => {
                    self.held -= emptied.min(self.held);
                    return Poll::Ready(Ok(emptied));
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    async fn connected() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (near, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        (near.expect("a connection"), accepted.expect("a connection").0)
    }

    #[tokio::test]
    async fn bytes_and_the_end_pass_through() {
        let ((mut client, from), (to, mut server)) = (connected().await, connected().await);
        client.write_all(b"through the pipe").await.expect("a write");
        client.shutdown().await.expect("a shutdown");
        let mut pipe = Pipe::new(&Rc::default()).expect("a pipe");
        while poll_fn(|cx| pipe.poll_fill(cx, &from, 5)).await.expect("a fill") > 0 {
            while !pipe.is_empty() {
                poll_fn(|cx| pipe.poll_empty(cx, &to)).await.expect("a way out");
            }
        }
        drop(to);
        let mut got = String::new();
        server.read_to_string(&mut got).await.expect("the bytes");
        assert_eq!(got, "through the pipe");
    }
}
