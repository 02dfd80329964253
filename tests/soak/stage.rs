//! The gateway, its configuration, and what is behind it.

use crate::random;
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use gateway_tests::{Backend, GatewayProcess, plugin, plugin_table, replace};
use http::{Response, StatusCode};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::BoxBody};
use hyper::body::Frame;
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::sleep,
};

/// What the guarded route asks for.
pub(crate) const TOKEN: &str = "soak-token";

pub(crate) struct Stage {
    pub(crate) gateway: GatewayProcess,
    pub(crate) web: SocketAddr,
    pub(crate) raw: SocketAddr,
    /// The component of header-inject, which reloads replace.
    component: PathBuf,
    backends: [Backend; 4],
    nobody: SocketAddr,
    /// Requests behind the token that came without it.
    pub(crate) unguarded: Arc<AtomicUsize>,
    _folder: tempfile::TempDir,
}

impl Stage {
    pub(crate) async fn set(daemon: &Path) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let unguarded = Arc::new(AtomicUsize::new(0));
        let backends = [
            application(Arc::clone(&unguarded)).await,
            Backend::websocket().await,
            Backend::tcp_echo().await,
            Backend::tcp(rude).await,
        ];
        let nobody = Backend::nobody().await;
        let component = folder.path().join("header_inject.wasm");
        std::fs::copy(plugin("header_inject"), &component).expect("a component");
        std::fs::write(folder.path().join("token.txt"), TOKEN).expect("a token");
        let text = configuration(&backends, nobody, &component, 1);
        let gateway = GatewayProcess::start(daemon, &text).await;
        let (web, raw) = (gateway.addr_of("web").await, gateway.addr_of("raw").await);
        Self { gateway, web, raw, component, backends, nobody, unguarded, _folder: folder }
    }

    /// The configuration that puts this mark on answers behind plugins.
    pub(crate) fn text(&self, mark: usize) -> String {
        configuration(&self.backends, self.nobody, &self.component, mark)
    }

    /// Replaces the component by one that means the same.
    pub(crate) fn new_component(&self, stamp: usize) {
        let mut bytes = std::fs::read(plugin("header_inject")).expect("a component");
        // A custom section of three bytes.
        bytes.extend([0, 3, 1, b's', stamp as u8]);
        replace(&self.component, &bytes);
    }
}

fn configuration(backends: &[Backend; 4], nobody: SocketAddr, component: &Path, mark: usize) -> String {
    let [app, sockets, lines, rude] = backends.each_ref().map(Backend::addr);
    let folder = component.parent().expect("a folder").display();
    let auth = plugin_table(
        "auth",
        &plugin("auth_token"),
        "grants = { secrets = [\"soak\"] }\nconfig = { secret = \"soak\" }",
    );
    let headers =
        plugin_table("headers", component, &format!("config = {{ response = {{ x-mark = \"{mark}\" }} }}"));
    // A listener and a route that come and go.
    let extra = if mark % 2 == 0 {
        "[[listener]]\nname = \"extra\"\naddress = \"127.0.0.2:0\"\n\
         [[route]]\nname = \"extra\"\nlisteners = [\"extra\"]\nto = { respond = { body = \"extra\" } }\n"
    } else {
        ""
    };
    format!(
        "[[listener]]\nname = \"web\"\naddress = \"[::]:0\"\ntimeouts = {{ head = \"3s\", idle = \"20s\" }}\n\
         [[listener]]\nname = \"raw\"\naddress = \"127.0.0.1:0\"\n{extra}\
         [[route]]\nname = \"app\"\nlisteners = [\"web\"]\nto = \"app\"\n\
         [[route]]\nname = \"guarded\"\nlisteners = [\"web\"]\npath = \"/guarded/*\"\nto = \"app\"\n\
         plugins = [\"auth\", \"headers\"]\n\
         [[route]]\nname = \"ws\"\nlisteners = [\"web\"]\npath = \"/ws\"\nto = \"{sockets}\"\n\
         [[route]]\nname = \"rude\"\nlisteners = [\"web\"]\npath = \"/rude/*\"\nto = \"{rude}\"\n\
         timeouts = {{ response = \"1s\", idle = \"5s\" }}\n\
         [[route]]\nname = \"nobody\"\nlisteners = [\"web\"]\npath = \"/nobody\"\nto = \"{nobody}\"\n\
         [[route]]\nname = \"raw\"\nlisteners = [\"raw\"]\nprotocol = \"tcp\"\nto = \"{lines}\"\n\
         [backend.app]\nservers = [\"{app}\"]\nkeepalive = {{ idle = \"5s\" }}\n\
         {auth}{headers}[secret.soak]\nfile = \"{folder}/token.txt\"\n\
         [gateway]\nworkers = 2\n[log]\nformat = \"json\"\naccess = false\n"
    )
}

type Answer = Response<BoxBody<Bytes, std::io::Error>>;

/// `/bytes/SEED/LENGTH` answers with those bytes, in chunks where the seed is odd; everything else with
/// the request's body.
async fn application(unguarded: Arc<AtomicUsize>) -> Backend {
    Backend::streaming(move |request| {
        let unguarded = Arc::clone(&unguarded);
        async move {
            let path = request.uri().path();
            let token = request.headers().get("authorization").and_then(|value| value.to_str().ok());
            if path.starts_with("/guarded/") && token != Some(&format!("Bearer {TOKEN}")) {
                unguarded.fetch_add(1, Ordering::Relaxed);
            }
            let asked = path.trim_start_matches("/guarded").strip_prefix("/bytes/");
            match asked.and_then(|asked| asked.split_once('/')) {
                Some((seed, length)) => made(seed, length),
                None => Response::new(request.into_body().map_err(std::io::Error::other).boxed()),
            }
        }
    })
    .await
}

fn made(seed: &str, length: &str) -> Answer {
    let (Ok(seed), Ok(length)) = (seed.parse(), length.parse()) else {
        let mut answer = Answer::new(BoxBody::default());
        *answer.status_mut() = StatusCode::NOT_FOUND;
        return answer;
    };
    let bytes = Bytes::from(random::bytes(seed, length));
    if seed % 2 == 0 {
        return Response::new(Full::new(bytes).map_err(|never| match never {}).boxed());
    }
    let pieces: Vec<Bytes> =
        (0..bytes.len()).step_by(5000).map(|at| bytes.slice(at..length.min(at + 5000))).collect();
    let frames = futures_util::stream::iter(pieces.into_iter().map(|piece| Ok(Frame::data(piece))));
    Response::new(BoxBody::new(StreamBody::new(frames)))
}

/// Answers `GET /rude/KIND` as no server should.
async fn rude(mut stream: TcpStream) {
    let mut head = Vec::new();
    while !head.windows(4).any(|window| window == b"\r\n\r\n") {
        if !matches!(stream.read_buf(&mut head).await, Ok(1..)) {
            return;
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let kind = head.split(' ').nth(1).and_then(|path| path.strip_prefix("/rude/")).unwrap_or_default();
    let answer = match kind {
        "half" => "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf",
        "half-chunked" => "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "garbage" => "HTP/9 what?\r\n\r\n",
        "two-lengths" => "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok",
        "behind" => {
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged"
        }
        "interim" => {
            "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
        }
        "early" => "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok",
        _ => "",
    };
    // The gateway may have heard enough.
    let _ = stream.write_all(answer.as_bytes()).await;
    match kind {
        "slow" => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n").await;
            for byte in b"0123456789" {
                sleep(Duration::from_millis(20)).await;
                let _ = stream.write_all(&[*byte]).await;
            }
        }
        "endless" => {
            for _ in 0..100 {
                let _ = stream.write_all(b"HTTP/1.1 103 Early Hints\r\n\r\n").await;
            }
        }
        "silent" => while let Ok(1..) = stream.read(&mut [0; 1024]).await {},
        "behind" | "early" => sleep(Duration::from_millis(100)).await,
        _ => {}
    }
}
