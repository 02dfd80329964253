//! `connect`: a connection inside verified TLS, between standard input and output. What ssh takes for
//! a ProxyCommand.

use super::{Exit, trust::Trust};
use crate::{
    tls::{DialedStream, ServerName},
    upstream,
};
use clap::Args;
use std::{io::Write as _, pin::pin, time::Duration};
use tokio::io::{AsyncWriteExt as _, copy, split, stdin, stdout};

/// `connect HOST:PORT`.
#[derive(Debug, Args)]
pub(super) struct Connect {
    /// Where to, such as 45a68069.vm.example.com:443
    #[arg(value_name = "HOST:PORT")]
    to: upstream::Server,
    /// Another name that the server must have, and that TLS asks for
    #[arg(long, value_name = "HOST")]
    servername: Option<ServerName>,
    /// Seconds for the connection and for the TLS handshake
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    timeout: u64,
    #[command(flatten)]
    trust: Trust,
}

impl Connect {
    pub(super) fn run(self) -> Exit {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return failed(&error.to_string(), Exit::Machine),
        };
        let exit = match runtime.block_on(self.open()) {
            Ok(stream) => match runtime.block_on(carry(stream)) {
                Ok(()) => Exit::Fine,
                Err(error) => failed(&format!("the connection broke off: {error}"), Exit::No),
            },
            Err(message) => failed(&message, Exit::No),
        };
        // A thread may wait for input that nobody sends.
        runtime.shutdown_background();
        exit
    }

    async fn open(self) -> Result<DialedStream, String> {
        let Self { to, servername, timeout, trust } = self;
        let deadline = Duration::from_secs(timeout);
        let name = match servername {
            Some(name) => name,
            None => to.host().parse()?,
        };
        let roots = trust.roots()?;
        let socket = upstream::connect(&to, None, deadline).await;
        let socket = socket.map_err(|cause| format!("{to}: {cause}"))?;
        let keepalive = socket2::TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE);
        // Without it a session that says nothing notices later that its server is gone.
        let _ = socket2::SockRef::from(&socket).set_tcp_keepalive(&keepalive);
        let stream = roots.handshake(name, socket, deadline).await;
        stream.map_err(|error| format!("{to}: {error}{}", trust.hint(&error)))
    }
}

/// How long a silent connection is left alone before it is asked whether it is alive.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// Carries bytes both ways. The end of the input is passed on as the end of that direction only; the
/// end of the server's is the end.
async fn carry(stream: DialedStream) -> std::io::Result<()> {
    let (mut from, mut to) = split(stream);
    let sending = async {
        copy(&mut stdin(), &mut to).await?;
        to.shutdown().await
    };
    let receiving = async {
        let mut out = stdout();
        copy(&mut from, &mut out).await?;
        out.flush().await
    };
    let mut receiving = pin!(receiving);
    tokio::select! {
        done = &mut receiving => done,
        // A server that takes no more may still have something to say.
        sent = sending => receiving.await.and(sent),
    }
}

fn failed(message: &str, exit: Exit) -> Exit {
    // Standard error that is closed leaves the exit code to say it.
    let _ = writeln!(std::io::stderr(), "vers-gateway: {message}");
    exit
}
