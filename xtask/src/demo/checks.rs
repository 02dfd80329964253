//! The smoke test's checks: each asks from outside and says what it got instead of what it expected.

use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use futures_util::{SinkExt, StreamExt};
use http_body_util::BodyExt;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    time::sleep,
};
use tokio_tungstenite::WebSocketStream;

use super::{
    client::{self, Asker, equal},
    line::{FAREWELL, GREETING},
    plan::{Plan, SERVED_BY, VM},
    tries::{self, DOWNLOAD, Tries, Try},
};
use crate::Result;

pub(crate) async fn refused(ask: Asker, what: &Try) -> Result {
    let answer = ask.fetch(what).await?;
    equal("status", answer.status, 401)?;
    equal("challenge", answer.header("www-authenticate").starts_with("Bearer"), true)
}

pub(crate) async fn health(ask: Asker, what: &Try) -> Result {
    equal("status", ask.fetch(what).await?.status, 200)
}

/// What the application saw, and what came back.
pub(crate) async fn echo(ask: Asker, what: &Try, client: IpAddr) -> Result {
    let answer = ask.fetch(what).await?;
    equal("status", answer.status, 200)?;
    let seen = &answer.json()?["headers"];
    equal("x-vm-id at the application", seen["x-vm-id"].as_str(), Some(VM))?;
    equal("x-client at the application", seen["x-client"].as_str(), Some(&*client.to_string()))?;
    equal("x-request-id at the application", seen["x-request-id"].is_string(), true)?;
    equal(
        "x-forwarded-for at the application",
        seen["x-forwarded-for"].as_str(),
        Some(&*client.to_string()),
    )?;
    equal("x-served-by in the answer", answer.header("x-served-by"), "vers-gateway")
}

pub(crate) async fn post(ask: Asker, what: &Try) -> Result {
    let seen = ask.fetch(what).await?.json()?;
    equal("method", seen["method"].as_str(), Some(what.method))?;
    equal("body", seen["body"].as_str(), what.body.as_deref())
}

pub(crate) async fn download(ask: Asker, what: &Try) -> Result {
    let answer = ask.fetch(what).await?;
    equal("status", answer.status, 200)?;
    equal("bytes", answer.body.len(), DOWNLOAD)
}

/// The second event comes a second after the first: a gateway that holds bodies back fails here.
pub(crate) async fn events(what: &Try) -> Result {
    let mut answer = client::send(what).await?;
    equal("status", answer.status().as_u16(), 200)?;
    let mut text = String::new();
    while let Some(frame) = answer.frame().await {
        if let Some(data) = frame?.data_ref() {
            text += &String::from_utf8_lossy(data);
        }
        if text.contains("data: event 2\n\n") {
            return Ok(());
        }
    }
    Err(format!("the events ended after {text:?}").into())
}

pub(crate) async fn websocket_refused(to: SocketAddr) -> Result {
    equal("status", client::websocket(to, None).await?.err(), Some(401))
}

pub(crate) async fn websocket(to: SocketAddr, token: &str) -> Result {
    let mut socket = open_websocket(to, token).await?;
    said_back(&mut socket, "hello").await?;
    said_back(&mut socket, &"long ".repeat(50_000)).await?;
    Ok(socket.close(None).await?)
}

pub(crate) async fn line(to: SocketAddr) -> Result {
    let mut stream = TcpStream::connect(to).await?;
    let (read, mut write) = stream.split();
    let mut read = BufReader::new(read);
    let mut line = String::new();
    read.read_line(&mut line).await?;
    equal("greeting", line.trim_end(), GREETING)?;
    write.write_all(b"one\n").await?;
    line.clear();
    read.read_line(&mut line).await?;
    equal("answer", line.trim_end(), "you said: one")?;
    // Our half ends; the other half must not end with it.
    write.shutdown().await?;
    line.clear();
    read.read_to_string(&mut line).await?;
    equal("farewell", line.trim_end(), FAREWELL)
}

pub(crate) async fn registered(ask: Asker, plan: &Plan) -> Result {
    loop {
        let said = ask.fetch(&tries::registry(plan)).await?.json()?;
        let entry = &said["vms"][0];
        if entry["id"] == VM {
            return equal("its first port", entry["services"][0]["port"].as_u64(), Some(plan.web.into()));
        }
        sleep(Duration::from_millis(100)).await;
    }
}

pub(crate) async fn heartbeats(ask: Asker, plan: &Plan) -> Result {
    let mut seen = BTreeSet::new();
    while seen.len() < 3 {
        let said = ask.fetch(&tries::registry(plan)).await?.json()?;
        seen.insert(said["vms"][0]["lastSeen"].as_str().unwrap_or_default().to_owned());
        sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

pub(crate) async fn left(ask: Asker, plan: &Plan) -> Result {
    while ask.fetch(&tries::registry(plan)).await?.json()?["count"] != 0 {
        sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

pub(crate) async fn admin(plan: &Plan) -> Result {
    for (path, expected) in [("/livez", ""), ("/readyz", ""), ("/status", "headers"), ("/metrics", "# TYPE")]
    {
        let answer = client::get(&format!("http://{}{path}", plan.admin)).await?;
        equal(path, answer.status, 200)?;
        equal(&format!("{expected:?} in {path}"), answer.text().contains(expected), true)?;
    }
    Ok(())
}

pub(crate) async fn edit(ask: Asker, plan: &Plan) -> Result {
    let edited = async {
        let toml = fs::read_to_string(plan.file())?;
        fs::write(plan.file(), toml.replace(SERVED_BY, &format!("x-served-by = \"{EDITED}\"")))?;
        while served_by(ask, plan).await? != EDITED {
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    };
    uncut(plan, edited).await
}

/// What ran before goes on, and the gateway says why.
pub(crate) async fn broken_edit(ask: Asker, plan: &Plan) -> Result {
    let broken = async {
        let toml = fs::read_to_string(plan.file())?;
        fs::write(plan.file(), format!("{toml}\nthis is not TOML\n"))?;
        while status(plan).await?["last_reload"]["error"].is_null() {
            sleep(Duration::from_millis(50)).await;
        }
        equal("x-served-by", &*served_by(ask, plan).await?, EDITED)?;
        Ok(fs::write(plan.file(), toml)?)
    };
    uncut(plan, broken).await
}

/// The same plugin with other bytes: an empty section of no meaning at its end.
pub(crate) async fn new_component(ask: Asker, plan: &Plan) -> Result {
    let hash = async || -> Result<String> {
        let status = status(plan).await?;
        let plugin =
            status["plugins"].as_array().and_then(|all| all.iter().find(|it| it["name"] == "headers"));
        Ok(plugin.ok_or("the status has no plugin `headers`")?["sha256"].to_string())
    };
    let rebuilt = async {
        let before = hash().await?;
        let component = plan.file().with_file_name("header_inject.wasm");
        fs::write(&component, [&fs::read(&component)?[..], b"\x00\x05\x04demo"].concat())?;
        while hash().await? == before {
            sleep(Duration::from_millis(50)).await;
        }
        equal("x-served-by", &*served_by(ask, plan).await?, EDITED)
    };
    uncut(plan, rebuilt).await
}

const EDITED: &str = "an edited file";

/// A WebSocket is open before a change and still carries after it.
async fn uncut(plan: &Plan, change: impl Future<Output = Result>) -> Result {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, plan.web));
    let mut socket = open_websocket(address, &plan.token).await?;
    said_back(&mut socket, "before").await?;
    change.await?;
    said_back(&mut socket, "after").await?;
    Ok(socket.close(None).await?)
}

async fn served_by(ask: Asker, plan: &Plan) -> Result<String> {
    let answer = ask.fetch(&Tries::at("127.0.0.1", plan).echo).await?;
    equal("status", answer.status, 200)?;
    Ok(answer.header("x-served-by").to_owned())
}

async fn status(plan: &Plan) -> Result<serde_json::Value> {
    client::get(&format!("http://{}/status", plan.admin)).await?.json()
}

async fn open_websocket(to: SocketAddr, token: &str) -> Result<WebSocketStream<TcpStream>> {
    client::websocket(to, Some(token)).await?.map_err(|status| format!("refused with {status}").into())
}

async fn said_back(socket: &mut WebSocketStream<TcpStream>, text: &str) -> Result {
    socket.send(text.into()).await?;
    let back = socket.next().await.ok_or("the WebSocket has ended")??;
    equal("message", back.to_text()?, text)
}

/// The services and the checks without a gateway: what fails in the demo is then the gateway's.
#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::demo::{app, http, line as line_service};

    async fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    #[tokio::test]
    async fn the_application_answers_itself() -> Result {
        let (app, address) = listener().await;
        tokio::spawn(http::serve(app, app::answer));
        let get = |path: &str| Try::get(format!("http://{address}{path}"));
        for ask in [Asker::find(), Asker::Own] {
            health(ask, &get("/health")).await?;
            post(ask, &get("/echo").post("hello")).await?;
            download(ask, &get(&format!("/download?bytes={DOWNLOAD}"))).await?;
            let page = ask.fetch(&get("/").header("x-mark", "<b>")).await?;
            equal("the page shows x-mark", page.text().contains("<th>x-mark</th><td>&lt;b&gt;</td>"), true)?;
            equal("nothing there", ask.fetch(&get("/nothing")).await?.status, 404)?;
            equal("no WebSocket", ask.fetch(&get("/ws")).await?.status, 426)?;
        }
        events(&get("/events")).await?;
        websocket(address, "").await
    }

    #[tokio::test]
    async fn the_line_service_answers_itself() -> Result {
        let (lines, address) = listener().await;
        tokio::spawn(line_service::serve(lines));
        line(address).await
    }
}
