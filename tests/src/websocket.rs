//! The server of a WebSocket.

use crate::Backend;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::accept_async;

impl Backend {
    /// Sends every message of a WebSocket back.
    pub async fn websocket() -> Self {
        Self::tcp(send_messages_back).await
    }
}

/// Sends every message of a WebSocket back. A client that is turned away, or leaves, is part of many tests.
pub async fn send_messages_back(stream: TcpStream) {
    let Ok(mut socket) = accept_async(stream).await else { return };
    while let Some(Ok(message)) = socket.next().await {
        if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
            return;
        }
    }
}
