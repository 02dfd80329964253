//! A gateway that runs already, told by its admin address that there is another component.

use crate::plugins::Hash;
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    time::timeout,
};

/// For an answer: a reload compiles components, and waits for nobody else.
const DEADLINE: Duration = Duration::from_secs(120);

/// Bytes of an answer: a status has a line for each route.
const MOST_BYTES: usize = 64 * 1024 * 1024;

/// The admin address of a gateway.
pub(super) struct Remote {
    address: Address,
    token: Option<String>,
}

enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Remote {
    /// With the token that the environment has.
    ///
    /// # Errors
    /// Says what an address looks like.
    pub(super) fn new(text: &str) -> Result<Self, String> {
        let address = match text.strip_prefix("unix:") {
            Some(path) => Address::Unix(path.into()),
            None => Address::Tcp(text.parse().map_err(|_| {
                format!("`{text}` is no admin address, such as [::1]:9900 or unix:/run/vers/admin")
            })?),
        };
        Ok(Self { address, token: std::env::var("VERS_ADMIN_TOKEN").ok() })
    }

    /// Makes the gateway look at its files, and finds out whether it runs this component then.
    ///
    /// # Errors
    /// Says why it does not.
    pub(super) async fn take(&self, component: &Path) -> Result<String, String> {
        let hash = Hash::of(&super::super::read(component)?).to_string();
        let (status, said) = self.ask(Method::POST, "/reload").await?;
        if status != StatusCode::OK {
            let why = said.get("error").and_then(Value::as_str).unwrap_or("no gateway answers there");
            return Err(format!("the one before it goes on: {status}\n{why}"));
        }
        let (_, said) = self.ask(Method::GET, "/status").await?;
        let mut plugins = said.get("plugins").and_then(Value::as_array).into_iter().flatten();
        match plugins.find(|plugin| plugin.get("sha256").and_then(Value::as_str) == Some(hash.as_str())) {
            Some(plugin) => {
                let name = plugin.get("name").and_then(Value::as_str).unwrap_or_default();
                let generation = said.get("generation").cloned().unwrap_or_default();
                Ok(format!("runs as `{name}` in generation {generation}"))
            }
            None => Err(format!("no [plugin.NAME] of that gateway has {}", component.display())),
        }
    }

    async fn ask(&self, method: Method, path: &str) -> Result<(StatusCode, Value), String> {
        let asking = async {
            match &self.address {
                Address::Tcp(address) => self.send(TcpStream::connect(address).await?, method, path).await,
                Address::Unix(socket) => self.send(UnixStream::connect(socket).await?, method, path).await,
            }
        };
        let answer = timeout(DEADLINE, asking).await.map_err(|_| format!("no answer within {DEADLINE:?}"))?;
        answer.map_err(|error| format!("the gateway cannot be asked: {error}"))
    }

    async fn send<S>(
        &self,
        stream: S,
        method: Method,
        path: &str,
    ) -> Result<(StatusCode, Value), Box<dyn std::error::Error + Send + Sync>>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, "admin");
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let answer = sender.send_request(request.body(Empty::<Bytes>::new())?).await?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MOST_BYTES).collect().await?.to_bytes();
        connection.abort();
        Ok((status, serde_json::from_slice(&body).unwrap_or_default()))
    }
}
