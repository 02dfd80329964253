//! Components from registries of container images: fetched by a command, pinned, and never asked for by a gateway.

use crate::DAEMON;
use bytes::Bytes;
use data_encoding::{BASE64, HEXLOWER};
use gateway_tests::{Backend, Client, Heard, TestGateway, eventually, has, one_route, plugin, within};
use http::{Method, Response, StatusCode};
use http_body_util::Full;
use sha2::{Digest as _, Sha256};
use std::{
    collections::HashMap,
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Stdio,
};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};

fn sha256(bytes: &[u8]) -> String {
    HEXLOWER.encode(&Sha256::digest(bytes))
}

fn component() -> Vec<u8> {
    fs::read(plugin("header_inject")).expect("a component")
}

fn manifest(component: &[u8]) -> Vec<u8> {
    let layer = serde_json::json!({
        "mediaType": "application/wasm", "digest": format!("sha256:{}", sha256(component)), "size": component.len()
    });
    let config = serde_json::json!({
        "mediaType": "application/vnd.wasm.config.v0+json", "digest": format!("sha256:{}", sha256(b"{}")), "size": 2
    });
    serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config,
        "layers": [layer]
    })
    .to_string()
    .into_bytes()
}

/// A folder with a configuration, in which commands run.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new(component: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let place = Self { folder };
        place.configure(component);
        place
    }

    fn configure(&self, component: &str) {
        fs::write(self.file(), toml("127.0.0.1:1".parse().expect("an address"), component)).expect("a file");
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("gateway.toml")
    }

    /// The files of the store, by the end of their names.
    fn stored(&self, end: &str) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.folder.path().join("state/components")).into_iter().flatten();
        let files = entries.flatten().map(|entry| entry.path());
        files.filter(|path| path.to_string_lossy().ends_with(end)).collect()
    }

    /// Exit code, and both outputs.
    async fn run(&self, arguments: &[&str], login: Option<&str>) -> (Option<i32>, String) {
        let mut command = Command::new(DAEMON);
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env_remove("VERS_OCI_LOGIN")
            .kill_on_drop(true);
        if let Some(login) = login {
            command.env("VERS_OCI_LOGIN", login);
        }
        let output = within("the command", command.output()).await.expect("it starts");
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).expect("text"))
    }

    async fn fetch(&self, reference: &str) -> (Option<i32>, String) {
        self.run(&["plugin", "fetch", "-c", "gateway.toml", reference], None).await
    }

    async fn check(&self) -> (Option<i32>, String) {
        self.run(&["check", "-c", "gateway.toml"], None).await
    }
}

fn toml(backend: SocketAddr, component: &str) -> String {
    let table = format!(
        "plugins = [\"it\"]\n[plugin.it]\ncomponent = \"{component}\"\n\
         config = {{ response = {{ x-from = \"a registry\" }} }}\n[gateway]\nworkers = 1\nstate_dir = \"state\"\n"
    );
    one_route(backend, &table)
}

/// A registry that has one manifest, and does with requests what registries do.
struct Registry {
    backend: Backend,
    digest: String,
}

/// What is said of the place, whatever is fetched.
const KEPT: &str = "components are kept in state/components\n";

/// What is wrong with a registry.
#[derive(Clone, Copy, PartialEq)]
enum Wrong {
    Nothing,
    /// It wants a token, which a login gives.
    Token,
    /// Its blobs are elsewhere.
    Elsewhere,
    /// It has another manifest under this digest.
    Manifest,
    /// It has another component under this digest.
    Blob,
    /// What it has is no component.
    Text,
    /// It wants a token, and its blobs are at another one.
    At(SocketAddr),
    /// Its blobs are where everybody could read along.
    Far,
    /// So are its tokens.
    FarToken,
    /// It wants name and password, in a way of old.
    Basic,
    /// Its component is larger than it says.
    Large,
    /// It leads to itself.
    Circle,
}

impl Registry {
    async fn new(wrong: Wrong) -> Self {
        let component = if wrong == Wrong::Text { b"no component".to_vec() } else { component() };
        let manifest = manifest(&component);
        let digest = sha256(&manifest);
        let blob = format!("/v2/team/it/blobs/sha256:{}", sha256(&component));
        let sent = if wrong == Wrong::Manifest { [&manifest[..], b" "].concat() } else { manifest };
        let bytes = match wrong {
            Wrong::Blob => vec![b'x'; component.len()],
            Wrong::Large => [&component[..], b"more"].concat(),
            _ => component,
        };
        let known: HashMap<String, Vec<u8>> = [
            ("/v2/team/it/manifests/1".to_owned(), sent.clone()),
            (format!("/v2/team/it/manifests/sha256:{digest}"), sent),
            (if wrong == Wrong::Elsewhere { "/elsewhere".to_owned() } else { blob.clone() }, bytes),
        ]
        .into();
        let backend = Backend::http(move |heard| answer(heard, wrong, &known, &blob)).await;
        Self { backend, digest }
    }

    fn reference(&self, by: &str) -> String {
        format!("oci://{}/team/it{by}", self.backend.addr())
    }

    fn pinned(&self) -> String {
        self.reference(&format!("@sha256:{}", self.digest))
    }
}

fn answer(
    heard: &Heard,
    wrong: Wrong,
    known: &HashMap<String, Vec<u8>>,
    blob: &str,
) -> Response<Full<Bytes>> {
    let (path, host) = (heard.uri.path(), heard.header("host"));
    let response = Response::builder();
    let empty = Full::default();
    if path == "/token" {
        let is_logged_in = heard.header("authorization") == format!("Basic {}", BASE64.encode(b"ada:s3cret"));
        let asks = heard.uri.query() == Some("service=here&scope=repository%3Ateam%2Fit%3Apull");
        return match is_logged_in && asks {
            true => response.body(Full::from(r#"{ "token": "t0ken" }"#)),
            false => response.status(StatusCode::UNAUTHORIZED).body(empty),
        }
        .expect("a response");
    }
    let refused = |challenge: &str| {
        let refused = Response::builder().status(StatusCode::UNAUTHORIZED);
        // The first line is not all that is offered.
        let refused = refused.header("www-authenticate", "Negotiate").header("www-authenticate", challenge);
        refused.body(Full::default()).expect("a response")
    };
    let authorization = heard.header("authorization");
    match wrong {
        Wrong::Token | Wrong::At(_) if authorization != "Bearer t0ken" => {
            return refused(&format!(
                "bearer realm=\"http://{host}/token\",service=here,scope=\"repository:team/it:pull\""
            ));
        }
        Wrong::FarToken => return refused("Bearer realm=\"http://192.0.2.1/token\",service=\"here\""),
        Wrong::Basic if authorization != format!("Basic {}", BASE64.encode(b"ada:s3cret")) => {
            return refused("Basic realm=\"here\"");
        }
        _ => {}
    }
    let to = match wrong {
        Wrong::Elsewhere => "/elsewhere".to_owned(),
        Wrong::At(addr) => format!("//{addr}/blob"),
        Wrong::Far => "http://192.0.2.1/blob?signature=s3cret".to_owned(),
        Wrong::Circle => blob.to_owned(),
        _ => String::new(),
    };
    if path == blob && !to.is_empty() {
        let response = response.status(StatusCode::TEMPORARY_REDIRECT).header("location", to);
        return response.body(empty).expect("a response");
    }
    match known.get(path) {
        Some(bytes) => response.body(Full::from(bytes.clone())),
        None => response.status(StatusCode::NOT_FOUND).body(empty),
    }
    .expect("a response")
}

#[tokio::test]
async fn what_was_fetched_runs_and_what_was_not_is_told() {
    let registry = Registry::new(Wrong::Nothing).await;
    let place = Place::new(&registry.pinned());
    let (code, said) = place.check().await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("`vers-gateway plugin fetch -c FILE` fetches it"), "{said}");
    assert_eq!(registry.backend.connections(), 0, "nobody but the command asks a registry");

    let (code, said) = place.fetch(&registry.reference(":1")).await;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(said, format!("{}  fetched\n{KEPT}", registry.pinned()));
    for file in place.stored("") {
        let mode = fs::metadata(&file).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", file.display());
    }
    let (code, said) = place.check().await;
    assert_eq!(code, Some(0), "{said}");

    // All that the configuration names; what is there is not asked for.
    let asked = registry.backend.heard().len();
    let (code, said) = place.run(&["plugin", "fetch", "-c", "gateway.toml"], None).await;
    assert_eq!((code, said), (Some(0), format!("{}  was there\n{KEPT}", registry.pinned())));
    assert_eq!(registry.backend.heard().len(), asked);
}

#[tokio::test]
async fn a_gateway_takes_it_as_soon_as_it_is_there() {
    let (backend, registry) = (Backend::hello().await, Registry::new(Wrong::Nothing).await);
    let gateway =
        TestGateway::watching(&one_route(backend.addr(), "[gateway]\nworkers = 1\nstate_dir = \"state\"\n"));
    gateway.write(&toml(backend.addr(), &registry.pinned()));
    eventually("a reload that fails", async || {
        (gateway.metric("vers_reload_failures_total", &[]).await >= 1.0).then_some(())
    })
    .await;
    assert_eq!(gateway.client().get("/").await.text(), "hello", "what runs goes on");
    let mut command = Command::new(DAEMON);
    command.args(["plugin", "fetch", "-c", "gateway.toml"]).current_dir(gateway.folder()).kill_on_drop(true);
    let output = within("the command", command.output()).await.expect("it starts");
    assert!(output.status.success(), "{output:?}");
    eventually("the plugin", async || {
        (gateway.client().get("/").await.header("x-from") == "a registry").then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_is_in_the_store_is_what_was_pinned() {
    let registry = Registry::new(Wrong::Nothing).await;
    let place = Place::new(&registry.pinned());
    assert_eq!(place.fetch(&registry.pinned()).await.0, Some(0));
    for end in [".wasm", ".json"] {
        let files = place.stored(end);
        let [file] = files.as_slice() else { panic!("{files:?}") };
        let kept = fs::read(file).expect("a file");
        fs::write(file, [&kept[..], b"\0"].concat()).expect("a file");
        let (code, said) = place.check().await;
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("is not what was fetched: its SHA-256 is another"), "{said}");
        // And it is fetched anew.
        let (code, said) = place.fetch(&registry.pinned()).await;
        assert!(code == Some(0) && said.contains("  fetched\n"), "{said}");
        assert_eq!(fs::read(file).expect("a file"), kept);
    }
    assert_eq!(place.check().await.0, Some(0));
}

#[tokio::test]
async fn a_login_and_a_place_elsewhere_are_followed() {
    let registry = Registry::new(Wrong::Token).await;
    let place = Place::new(&registry.pinned());
    let arguments = ["plugin", "fetch", "-c", "gateway.toml"];
    let (code, said) = place.run(&arguments, None).await;
    assert!(code == Some(1) && said.contains("gives no token: 401"), "{said}");
    let login = format!("ghcr.io=bob:x {}=ada:s3cret", registry.backend.addr());
    let (code, said) = place.run(&arguments, Some(&login)).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(!said.contains("s3cret"), "{said}");

    let registry = Registry::new(Wrong::Elsewhere).await;
    let place = Place::new(&registry.pinned());
    let (code, said) = place.run(&arguments, None).await;
    assert_eq!(code, Some(0), "{said}");
}

#[tokio::test]
async fn a_login_is_told_to_nobody_but_its_registry() {
    let arguments = ["plugin", "fetch", "-c", "gateway.toml"];
    let secret = |heard: &Heard| heard.header("authorization").starts_with("Basic ");
    // Another registry asks for it, in either way.
    for wrong in [Wrong::Token, Wrong::Basic] {
        let registry = Registry::new(wrong).await;
        let place = Place::new(&registry.pinned());
        let (code, said) = place.run(&arguments, Some("registry.example.com=ada:s3cret")).await;
        assert_eq!(code, Some(1), "{said}");
        assert!(!registry.backend.heard().iter().any(secret), "it has the password of another one");
    }
    let registry = Registry::new(Wrong::Basic).await;
    let place = Place::new(&registry.pinned());
    let its = format!("{}=ada:s3cret", registry.backend.addr());
    let (code, said) = place.run(&arguments, None).await;
    let help = format!("VERS_OCI_LOGIN={}=NAME:PASSWORD", registry.backend.addr());
    assert!(code == Some(1) && said.contains(&help), "{said}");
    let (code, said) = place.run(&arguments, Some("ada:s3cret")).await;
    assert!(code == Some(1) && said.contains("must say whose it is") && !said.contains("s3cret"), "{said}");
    assert!(!registry.backend.heard().iter().any(secret));
    assert_eq!(place.run(&arguments, Some(&its)).await.0, Some(0));
    // Where its blobs are, nobody is told anything, however they ask.
    let (elsewhere, bytes) = (
        Backend::http(|heard| {
            let host = heard.header("host");
            let challenge = format!("Bearer realm=\"http://{host}/token\"");
            let refused = Response::builder().status(401).header("www-authenticate", challenge);
            refused.body(Full::default()).expect("a response")
        })
        .await,
        component(),
    );
    let has = Backend::http(move |_| Response::new(Full::from(bytes.clone()))).await;
    for (at, code, words) in [(elsewhere, 1, "does not let it out"), (has, 0, "fetched")] {
        let registry = Registry::new(Wrong::At(at.addr())).await;
        let place = Place::new(&registry.pinned());
        let its = format!("{}=ada:s3cret", registry.backend.addr());
        let (got, said) = place.run(&arguments, Some(&its)).await;
        assert!(got == Some(code) && said.contains(words), "{said}");
        let heard = at.heard();
        assert!(heard.len() == 1 && heard[0].header("authorization").is_empty(), "{heard:?}");
    }
}

#[tokio::test]
async fn it_is_kept_where_the_gateway_looks_for_it() {
    let registry = Registry::new(Wrong::Nothing).await;
    let place = Place::new(&registry.pinned());
    let pinned = registry.pinned();
    let arguments = ["plugin", "fetch", &pinned, "--state-dir", "other/state"];
    let (code, said) = place.run(&arguments, None).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("components are kept in other/state/components"), "{said}");
    let folder = place.folder.path().join("other/state");
    assert_eq!(fs::metadata(&folder).expect("a folder").permissions().mode() & 0o777, 0o700);
    // Where nobody says it, that is told: a service may have another one.
    let mut command = Command::new(DAEMON);
    command.args(["plugin", "fetch", &pinned]).env_remove("STATE_DIRECTORY").kill_on_drop(true);
    let output = within("the command", command.env("XDG_STATE_HOME", place.folder.path()).output()).await;
    let output = output.expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("warning: nothing names"), "{said}");
}

#[tokio::test]
async fn what_a_registry_sends_instead_is_not_kept() {
    for (wrong, words) in [
        (Wrong::Manifest, "a manifest of another SHA-256"),
        (Wrong::Blob, "a component of another SHA-256"),
        (Wrong::Text, "is not a WebAssembly component"),
        (Wrong::Large, "the answer breaks off"),
        (Wrong::Circle, "leads in a circle"),
        (Wrong::Far, "leads to http://192.0.2.1, where everybody could read along"),
        (Wrong::FarToken, "has tokens at http://192.0.2.1, where everybody could read along"),
    ] {
        let registry = Registry::new(wrong).await;
        let place = Place::new(&registry.pinned());
        let (code, said) = place.fetch(&registry.pinned()).await;
        assert!(code == Some(1) && said.contains(words) && !said.contains("signature"), "{said}");
        assert!(place.stored("").is_empty(), "{words}: {:?}", place.stored(""));
    }
    let registry = Registry::new(Wrong::Nothing).await;
    let place = Place::new(&registry.pinned());
    let (code, said) = place.fetch(&registry.reference(":2")).await;
    assert!(code == Some(1) && said.contains("does not have it"), "{said}");
    let (code, said) = place.fetch(&format!("oci://{}/it", Backend::nobody().await)).await;
    assert!(code == Some(1) && said.contains("127.0.0.1"), "{said}");
}

#[tokio::test]
async fn a_tag_alone_is_not_run() {
    let place = Place::new("oci://registry.example.com/team/it:1");
    let (code, said) = place.check().await;
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("is not pinned") && said.contains("plugin fetch oci://registry.example.com/team/it:1"),
        "{said}"
    );
    place.configure("oci://registry.example.com/it@sha256:12");
    let (code, said) = place.check().await;
    assert!(code == Some(1) && said.contains("64 hexadecimal digits"), "{said}");
}

/// The registry of the container world, as Debian has it.
struct Real {
    _process: Child,
    client: Client,
    host: String,
    _folder: tempfile::TempDir,
}

impl Real {
    async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("config.yml");
        let storage = folder.path().join("storage");
        fs::write(&file, config(&storage)).expect("a file");
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&file).stderr(Stdio::piped()).stdout(Stdio::null()).kill_on_drop(true);
        let mut process = command.spawn().expect("it starts");
        let mut lines = BufReader::new(process.stderr.take().expect("its log")).lines();
        let host = within("the registry's address", async {
            loop {
                let line = lines.next_line().await.expect("a line").expect("it runs on");
                if let Some((_, rest)) = line.split_once("listening on ") {
                    let end = rest.find(|char: char| !"0123456789.:".contains(char)).unwrap_or(rest.len());
                    return rest[..end].to_owned();
                }
            }
        })
        .await;
        // What it says further must be read, or it would wait for ever.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Self {
            _process: process,
            client: Client::new(host.parse().expect("an address")),
            host,
            _folder: folder,
        }
    }

    async fn put_blob(&self, bytes: &[u8]) {
        let begun = self.client.post("/v2/team/it/blobs/uploads/", "").await;
        let place: http::Uri = begun.header("location").parse().expect("a place");
        let path = place.path_and_query().expect("a path");
        let put = format!("{path}&digest=sha256:{}", sha256(bytes));
        let client = self.client.clone().with("content-type", "application/octet-stream");
        let answer = client.send(Method::PUT, &put, Bytes::copy_from_slice(bytes)).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text());
    }

    async fn push(&self, component: &[u8]) {
        self.put_blob(component).await;
        self.put_blob(b"{}").await;
        let client = self.client.clone().with("content-type", "application/vnd.oci.image.manifest.v1+json");
        let answer = client.send(Method::PUT, "/v2/team/it/manifests/1", manifest(component).into()).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text());
    }
}

fn config(storage: &Path) -> String {
    format!(
        "version: 0.1\nlog: {{ level: info }}\nstorage: {{ filesystem: {{ rootdirectory: \"{}\" }} }}\n\
         http: {{ addr: \"127.0.0.1:0\" }}\n",
        storage.display()
    )
}

#[tokio::test]
async fn a_real_registry_has_it_and_traffic_meets_it() {
    if !has("a_real_registry_has_it_and_traffic_meets_it", &["docker-registry"]) {
        return;
    }
    let registry = Real::start().await;
    let component = component();
    registry.push(&component).await;
    let (backend, place) = (Backend::hello().await, Place::new("x.wasm"));
    let pinned = format!("oci://{}/team/it@sha256:{}", registry.host, sha256(&manifest(&component)));
    place.configure(&pinned);
    let (code, said) = place.fetch(&format!("oci://{}/team/it:1", registry.host)).await;
    assert_eq!((code, said), (Some(0), format!("{pinned}  fetched\n{KEPT}")));
    let state = place.folder.path().join("state");
    let gateway = TestGateway::start(
        &toml(backend.addr(), &pinned).replace("\"state\"", &format!("\"{}\"", state.display())),
    );
    assert_eq!(gateway.client().get("/").await.header("x-from"), "a registry");
}
