//! The first-party filters in front of an application: what they let pass, and what they change.

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use gateway_tests::{Backend, Raw, TestGateway, one_route, plugin, plugin_table, values, within};
use http::{Method, Response};
use http_body_util::Full;
use tokio_tungstenite::tungstenite::{self, Message, client::IntoClientRequest as _};

/// A route behind auth-token, whose secret stands in `token.txt` beside the configuration.
fn behind_auth(backend: &Backend, config: &str) -> String {
    let more = format!(
        "grants = {{ secrets = [\"fleet\"] }}\nconfig = {{ secret = \"fleet\"{config} }}\n\
         [secret.fleet]\nfile = \"token.txt\"\n"
    );
    let table = plugin_table("auth", &plugin("auth_token"), &more);
    one_route(backend.addr(), &format!("plugins = [\"auth\"]\n{table}"))
}

/// A gateway behind auth-token whose secret is `s3cret`.
async fn with_token(backend: &Backend, config: &str) -> TestGateway {
    let gateway = TestGateway::start(&behind_auth(backend, config));
    set_token(&gateway, "s3cret\n").await;
    gateway
}

async fn set_token(gateway: &TestGateway, token: &str) {
    std::fs::write(gateway.folder().join("token.txt"), token).expect("the secret is written");
    gateway.reload().await.expect("the configuration is good");
}

/// A gateway with header-inject, and these lines in its `config`.
fn behind_headers(backend: &Backend, config: &str) -> TestGateway {
    let config = format!("[plugin.headers.config]\n{config}\n");
    let table = plugin_table("headers", &plugin("header_inject"), &config);
    TestGateway::start(&one_route(backend.addr(), &format!("plugins = [\"headers\"]\n{table}")))
}

#[tokio::test]
async fn only_the_right_token_reaches_the_backend() {
    let backend = Backend::hello().await;
    let gateway = with_token(&backend, "").await;
    let check = async |authorization: Option<&str>, status: u16, challenge: &str| {
        let mut client = gateway.client();
        if let Some(authorization) = authorization {
            client = client.with("authorization", authorization);
        }
        let answer = client.get("/").await;
        assert_eq!(answer.status.as_u16(), status, "{authorization:?}");
        assert_eq!(answer.header("www-authenticate"), challenge, "{authorization:?}");
        assert_eq!(answer.text().contains("hello"), status == 200, "{authorization:?}: {}", answer.text());
    };
    check(None, 401, "Bearer").await;
    check(Some(""), 401, "Bearer").await;
    check(Some("s3cret"), 401, "Bearer").await;
    check(Some("Basic s3cret"), 401, "Bearer").await;
    check(Some("Bearer"), 401, "Bearer").await;
    check(Some("Bearer wrong"), 401, "Bearer error=\"invalid_token\"").await;
    check(Some("Bearer s3cre"), 401, "Bearer error=\"invalid_token\"").await;
    check(Some("Bearer s3cret2"), 401, "Bearer error=\"invalid_token\"").await;
    check(Some("Bearer S3CRET"), 401, "Bearer error=\"invalid_token\"").await;
    assert_eq!(backend.heard().len(), 0, "nothing reached the backend so far");
    check(Some("Bearer s3cret"), 200, "").await;
    check(Some("bearer s3cret"), 200, "").await;
    check(Some("BEARER   s3cret"), 200, "").await;
    assert_eq!(backend.heard().len(), 3, "what passes arrives, once");
    assert_eq!(backend.last().header("authorization"), "BEARER   s3cret", "the backend may check it again");
}

#[tokio::test]
async fn two_tokens_are_none() {
    let backend = Backend::hello().await;
    let gateway = with_token(&backend, "").await;
    let twice = gateway.client().with("authorization", "Bearer s3cret").with("authorization", "Bearer x");
    assert_eq!(twice.get("/").await.status, 401);
    assert_eq!(backend.heard().len(), 0, "nobody can say which of the two was meant");
}

/// The client decides how a path is spelled, and the backend what it means: anything but the exempt
/// path itself, to the byte, needs the token.
#[tokio::test]
async fn no_spelling_of_a_path_gets_around_the_token() {
    let backend = Backend::hello().await;
    let gateway = with_token(&backend, ", exempt = [\"/health\", \"/assets/*\"]").await;
    let check = async |target: &str, expected: &str| {
        let mut raw = Raw::connect(gateway.addr()).await;
        raw.send(format!("GET {target} HTTP/1.1\r\nhost: app\r\nconnection: close\r\n\r\n")).await;
        let answer = raw.to_end().await;
        let status = answer.split(' ').nth(1).unwrap_or_default();
        assert_eq!(status, expected, "{target} was answered {answer}");
    };
    for exempt in ["/health", "/health?deep=1", "http://app/health", "/assets/", "/assets/a/b.js"] {
        check(exempt, "200").await;
    }
    let passed = backend.heard().len();
    for guarded in [
        "/",
        "/Health",
        "/health/",
        "/healthz",
        "/health/../secret",
        "/health;/../secret",
        "/health%2f..%2fsecret",
        "/%68ealth",
        "//health",
        "/./health",
        "/secret?/health",
        "http://app/secret",
        "/assets",
        "/assets/../secret",
        "/assets/..;/secret",
        "/assets/%2e%2e/secret",
        "/assets/..%2fsecret",
        "/assets/%252e%252e/secret",
        "/assets/..\\secret",
        "/assets/%5c..%5csecret",
    ] {
        check(guarded, "401").await;
    }
    assert_eq!(backend.heard().len(), passed, "nothing more reached the backend");
}

#[tokio::test]
async fn a_secret_without_a_value_denies_unless_told_otherwise() {
    let backend = Backend::hello().await;
    let deny = TestGateway::start(&behind_auth(&backend, ""));
    let with_token = deny.client().with("authorization", "Bearer s3cret");
    assert_eq!(with_token.get("/").await.status, 401, "there is no file with the secret");
    assert_eq!(deny.client().get("/health").await.status, 200, "exempt paths need no secret");
    set_token(&deny, "\n").await;
    let empty = deny.client().with("authorization", "Bearer ");
    assert_eq!(empty.get("/").await.status, 401, "an empty secret is none");

    let allow = TestGateway::start(&behind_auth(&backend, ", when_unset = \"allow\""));
    assert_eq!(allow.client().get("/").await.status, 200);
    set_token(&allow, "s3cret").await;
    assert_eq!(allow.client().get("/").await.status, 401, "now there is something to compare with");
}

#[tokio::test]
async fn a_reload_reads_the_secret_again() {
    let backend = Backend::hello().await;
    let gateway = with_token(&backend, "").await;
    let status = async |token: &str| {
        gateway.client().with("authorization", &format!("Bearer {token}")).get("/").await.status.as_u16()
    };
    assert_eq!((status("s3cret").await, status("next").await), (200, 401));
    set_token(&gateway, "next\r\n").await;
    assert_eq!((status("s3cret").await, status("next").await), (401, 200), "the old token is worth nothing");
    std::fs::remove_file(gateway.folder().join("token.txt")).expect("the secret is removed");
    gateway.reload().await.expect("a secret without a value is no error");
    assert_eq!(status("next").await, 401);
}

/// The same application on a route of its own, for those who may in without a token.
#[tokio::test]
async fn a_route_may_configure_a_plugin_for_itself() {
    let backend = Backend::hello().await;
    let toml = format!(
        "{}[[route]]\nname = \"open\"\npath = \"/open/*\"\nto = \"{}\"\n\
         plugins = [{{ use = \"auth\", config = {{ secret = \"fleet\", exempt = [\"/open/door\"] }} }}]\n",
        behind_auth(&backend, ", exempt = [\"/open/door\", \"/window\"]"),
        backend.addr()
    );
    let gateway = TestGateway::start(&toml);
    let check = async |path: &str, status: u16| {
        assert_eq!(gateway.client().get(path).await.status, status, "{path}");
    };
    check("/window", 200).await;
    check("/open/door", 200).await;
    check("/open/window", 401).await;
    let status = gateway.status().await;
    assert_eq!(status["plugins"].as_array().map(Vec::len), Some(2), "one for each table: {status}");
}

#[tokio::test]
async fn a_websocket_needs_the_token_like_any_request() {
    let backend = Backend::websocket().await;
    let gateway = with_token(&backend, "").await;
    let url = format!("ws://{}/live", gateway.addr());

    let refused = within("a refusal", tokio_tungstenite::connect_async(&url)).await;
    let Err(tungstenite::Error::Http(answer)) = refused else { panic!("not refused: {refused:?}") };
    assert_eq!(answer.status(), 401);
    assert_eq!(answer.headers()["www-authenticate"], "Bearer");
    assert_eq!(backend.connections(), 0, "the backend never heard of it");

    let mut request = url.into_client_request().expect("a request");
    request.headers_mut().insert("authorization", "Bearer s3cret".parse().expect("a value"));
    let connected = within("a WebSocket", tokio_tungstenite::connect_async(request)).await;
    let (mut socket, answer) = connected.expect("the token opens it");
    assert_eq!(answer.status(), 101);
    for text in ["one", "two"] {
        socket.send(Message::text(text)).await.expect("a message goes out");
        let echoed = within("an echo", socket.next()).await.expect("a message").expect("a message");
        assert_eq!(echoed, Message::text(text));
    }
}

/// A client that uploads without a token has to learn why it is turned away, however much it still
/// had to say.
#[tokio::test]
async fn an_upload_that_is_refused_is_told_so() {
    let backend = Backend::echo().await;
    let gateway = with_token(&backend, "").await;
    for size in [1_000, 10_000_000] {
        let answer = gateway.client().post("/upload", vec![b'x'; size]).await;
        assert_eq!(answer.status, 401, "{size} bytes");
        let token = gateway.client().with("authorization", "Bearer s3cret");
        assert_eq!(
            token.post("/upload", vec![b'x'; size]).await.body.len(),
            size,
            "and with the token it passes"
        );
    }
    assert_eq!(backend.heard().len(), 2);
}

#[tokio::test]
async fn headers_are_removed_then_set_then_appended() {
    let backend = Backend::http(|_| {
        let answer =
            Response::builder().header("server", "app").header("x-kind", "app").header("x-kind", "2");
        answer.header("x-more", "app").body(Full::from("hello")).expect("an answer")
    })
    .await;
    let gateway = behind_headers(
        &backend,
        r#"
        request = { x-team = "red", X-Twice = "set" }
        request_append = { accept = "text/html", x-twice = "appended" }
        request_remove = ["x-debug", "X-Twice"]
        response = { x-kind = "gateway" }
        response_append = { x-more = "gateway" }
        response_remove = ["server"]
        "#,
    );
    let client = gateway.client().with("x-team", "blue").with("x-team", "green").with("x-debug", "1");
    let answer = client.with("accept", "*/*").with("x-twice", "client").get("/").await;
    let heard = backend.last();
    assert_eq!(values(&heard.headers, "x-team"), ["red"], "set means: this value and no other");
    assert_eq!(values(&heard.headers, "x-debug"), [""; 0]);
    assert_eq!(values(&heard.headers, "accept"), ["*/*", "text/html"], "appended to what the client said");
    assert_eq!(values(&heard.headers, "x-twice"), ["set", "appended"]);
    assert_eq!(values(&answer.headers, "x-kind"), ["gateway"]);
    assert_eq!(values(&answer.headers, "x-more"), ["app", "gateway"]);
    assert_eq!(values(&answer.headers, "server"), [""; 0]);
    assert_eq!(answer.text(), "hello", "the body is as it was");
}

#[tokio::test]
async fn values_name_facts_and_replace_forgeries() {
    let backend = Backend::hello().await;
    let config = r#"
        [plugin.headers.config.request]
        x-client = "{client_address}"
        x-route = "{route}"
        x-vm = "{vm_id}"
        x-id = "{request_id}"
        x-port = "{local_port}"
        x-user = "{capture.user}"
        x-nobody = "{capture.nobody}"
        x-text = "{{{capture.vm}}} in {route}"
        [plugin.headers.config.response]
        x-id = "{request_id}"
    "#;
    let table = plugin_table("headers", &plugin("header_inject"), config);
    let gateway = TestGateway::start(&format!(
        "[[listener]]\naddress = \"[::]:0\"\n[[route]]\nname = \"vms\"\nto = \"{}\"\n\
         host = \"{{vm}}.example.com\"\npath = \"/users/{{user}}/*\"\nplugins = [\"headers\"]\n{table}\
         [gateway]\nworkers = 1\nvm_id = \"a1\"\n",
        backend.addr()
    ));
    let forged = ["x-client", "x-route", "x-vm", "x-id", "x-port", "x-user", "x-nobody", "x-text"];
    // Backends may read those with `_` as the same.
    let alike = ["x_client", "x_route", "x_vm", "x_id", "x_port", "x_user", "x_nobody", "x_text"];
    let client = gateway.client().with("host", "b2.example.com");
    let client = forged
        .iter()
        .chain(&alike)
        .fold(client, |client, name| client.with(name, "forged").with(name, "forged twice"));
    let answer = client.get("/users/ada/profile").await;
    assert_eq!(answer.status, 200);
    let heard = backend.last();
    let check = |name: &str, expected: &str| {
        assert_eq!(heard.header(name), expected, "{name}");
        assert_eq!(heard.headers.get_all(name).iter().count(), usize::from(!expected.is_empty()), "{name}");
    };
    assert_eq!(alike.map(|name| heard.header(name)), [""; 8]);
    check("x-client", "::1");
    check("x-route", "vms");
    check("x-vm", "a1");
    check("x-port", &gateway.addr().port().to_string());
    check("x-user", "ada");
    check("x-text", "{b2} in vms");
    check("x-nobody", "");
    let id = heard.header("x-id");
    assert_eq!(id.len(), 16, "the request's id, not {id}");
    assert_eq!(answer.header("x-id"), id, "request and answer have the same id");
}

#[tokio::test]
async fn a_plugin_sees_what_is_no_get() {
    let backend = Backend::echo().await;
    let gateway = behind_headers(&backend, "request = { x-seen = \"{request_id}\" }");
    let body = Bytes::from(vec![b'x'; 300_000]);
    let answer = within("an answer", gateway.client().send(Method::PUT, "/upload", body.clone())).await;
    assert_eq!(answer.body, body, "bodies pass beside the plugins");
    assert_eq!(backend.last().header("x-seen").len(), 16);
}

#[tokio::test]
async fn addresses_decide_who_passes() {
    let backend = Backend::hello().await;
    let with = |config: &str| {
        let table = plugin_table("office", &plugin("ip_allow"), &format!("config = {{ {config} }}\n"));
        TestGateway::start(&one_route(backend.addr(), &format!("plugins = [\"office\"]\n{table}")))
    };
    // Over IPv4 to a dual-stack socket, and over IPv6.
    let gateway = with(r#"allow = ["127.0.0.0/8"]"#);
    assert_eq!(gateway_tests::Client::new(gateway.addr_v4()).get("/").await.status, 200);
    assert_eq!(gateway.client().get("/").await.status, 403);
    let gateway = with(r#"deny = ["::1"]"#);
    assert_eq!(gateway_tests::Client::new(gateway.addr_v4()).get("/").await.status, 200);
    assert_eq!(gateway.client().get("/").await.status, 403);
    assert_eq!(backend.heard().len(), 2);
}

#[tokio::test]
async fn pages_of_allowed_origins_may_read_answers() {
    let backend = Backend::http(|_| {
        let answer = Response::builder().header("access-control-allow-origin", "*").header("vary", "accept");
        answer.body(Full::new(Bytes::from_static(b"hello"))).expect("an answer")
    })
    .await;
    let config = "config = { origins = [\"https://a.example\"], credentials = true, expose = [\"x-id\"] }\n";
    let table = plugin_table("cors", &plugin("cors"), config);
    let gateway = TestGateway::start(&one_route(backend.addr(), &format!("plugins = [\"cors\"]\n{table}")));
    let from = |origin: &str| gateway.client().with("origin", origin);
    let answer = from("https://a.example").get("/").await;
    assert_eq!(values(&answer.headers, "access-control-allow-origin"), ["https://a.example"]);
    assert_eq!(values(&answer.headers, "vary"), ["accept", "origin"]);
    assert_eq!(answer.header("access-control-allow-credentials"), "true");
    assert_eq!(answer.header("access-control-expose-headers"), "x-id");
    for other in ["https://b.example", "null"] {
        let answer = from(other).get("/").await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("access-control-allow-origin")),
            (200, ""),
            "{other}"
        );
    }
    assert_eq!(backend.heard().len(), 3);
    let preflight = from("https://a.example").with("access-control-request-method", "POST");
    let answer = preflight.send(Method::OPTIONS, "/", Bytes::new()).await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("access-control-allow-methods")),
        (204, "GET, HEAD, POST")
    );
    assert_eq!(answer.header("access-control-allow-origin"), "https://a.example");
    assert_eq!(backend.heard().len(), 3, "the backend is not asked");
}

#[tokio::test]
async fn a_password_is_asked_for_and_the_backend_told_whose_it_was() {
    let backend = Backend::hello().await;
    let more = "grants = { secrets = [\"ann\"] }\nconfig = { users = { ann = \"ann\" }, user_header = \"x-user\" }\n\
                [secret.ann]\nfile = \"ann.txt\"\n";
    let table = plugin_table("login", &plugin("basic_auth"), more);
    let toml = one_route(backend.addr(), &format!("plugins = [\"login\"]\n{table}"));
    let gateway = TestGateway::with_files(&toml, &[("ann.txt", "s3cret\n")]);
    let answer = gateway.client().with("x-user", "ann").get("/").await;
    assert_eq!(answer.status, 401);
    assert_eq!(answer.header("www-authenticate"), "Basic realm=\"gateway\", charset=\"UTF-8\"");
    // `ann:wrong` and `ann:s3cret`
    assert_eq!(gateway.client().with("authorization", "Basic YW5uOndyb25n").get("/").await.status, 401);
    assert_eq!(backend.heard().len(), 0);
    let right = gateway.client().with("authorization", "Basic YW5uOnMzY3JldA==").with("x-user", "root");
    let right = right.with("x_user", "root");
    assert_eq!(right.get("/").await.status, 200);
    assert_eq!(values(&backend.last().headers, "x-user"), ["ann"]);
    assert_eq!(values(&backend.last().headers, "x_user"), [""; 0], "backends may read it as the same");
}
