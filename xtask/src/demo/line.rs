//! The raw TCP service behind the gateway: it speaks first, as SSH and databases do, and says back
//! each line until the client has no more to say.

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};

pub(crate) const GREETING: &str = "hello, this is a raw TCP service on 127.0.0.1; say something";
pub(crate) const FAREWELL: &str = "bye";

/// Serves until the runtime ends.
pub(crate) async fn serve(listener: TcpListener) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        // A client that goes away is its own affair.
        tokio::spawn(async move { talk(stream).await.ok() });
    }
}

async fn talk(mut stream: TcpStream) -> std::io::Result<()> {
    let (read, mut write) = stream.split();
    write.write_all(format!("{GREETING}\n").as_bytes()).await?;
    let mut lines = BufReader::new(read).lines();
    while let Some(line) = lines.next_line().await? {
        write.write_all(format!("you said: {line}\n").as_bytes()).await?;
    }
    // The client has closed its half only: this one still carries.
    write.write_all(format!("{FAREWELL}\n").as_bytes()).await?;
    write.shutdown().await
}
