//! What the plugins of a route can do to a request and its answer, in which order, and what not.

use bytes::Bytes;
use futures_util::future::join_all;
use gateway_tests::{
    Backend, GatewayProcess, Raw, TestGateway, eventually, guest, one_route, plugin, plugin_table, values,
};
use http::{Method, Response, StatusCode};
use http_body_util::Full;
use std::{net::SocketAddr, path::PathBuf};

/// A gateway with one route to this address, and these plugins on it, each with further keys.
fn through(backend: SocketAddr, plugins: &[(&str, PathBuf, &str)]) -> TestGateway {
    TestGateway::start(&toml(backend, plugins))
}

fn toml(backend: SocketAddr, plugins: &[(&str, PathBuf, &str)]) -> String {
    let names: Vec<_> = plugins.iter().map(|(name, ..)| format!("\"{name}\"")).collect();
    let tables: String = plugins.iter().map(|(name, file, more)| plugin_table(name, file, more)).collect();
    one_route(backend, &format!("plugins = [{}]\n{tables}", names.join(", ")))
}

/// The value behind `name: ` in what the guest `echo_context` answers.
fn told<'a>(text: &'a str, name: &str) -> &'a str {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    line.unwrap_or_else(|| panic!("no {name} in {text}"))
}

#[tokio::test]
async fn requests_meet_plugins_in_order_and_answers_in_reverse() {
    let backend = Backend::hello().await;
    let append = |name: &str| {
        format!(
            "config = {{ request_append = {{ x-met = \"{name}\" }}, response_append = {{ x-met = \"{name}\" }} }}"
        )
    };
    let file = plugin("header_inject");
    let gateway = through(
        backend.addr(),
        &[("a", file.clone(), &append("a")), ("b", file.clone(), &append("b")), ("c", file, &append("c"))],
    );
    let answer = gateway.client().get("/").await;
    assert_eq!(values(&backend.last().headers, "x-met"), ["a", "b", "c"]);
    assert_eq!(values(&answer.headers, "x-met"), ["c", "b", "a"]);
}

#[tokio::test]
async fn a_plugin_that_answers_ends_the_way_in() {
    let backend = Backend::hello().await;
    let append = |name: &str| {
        format!(
            "config = {{ request = {{ x-met = \"{name}\" }}, response_append = {{ x-met = \"{name}\" }} }}"
        )
    };
    let file = plugin("header_inject");
    let gateway = through(
        backend.addr(),
        &[
            ("first", file.clone(), &append("first")),
            ("wall", guest("respond"), "config = { status = 418, body = \"short and stout\" }"),
            ("last", file, &append("last")),
        ],
    );
    let answer = gateway.client().get("/").await;
    assert_eq!((answer.status.as_u16(), answer.text().as_str()), (418, "short and stout"));
    assert_eq!(
        values(&answer.headers, "x-met"),
        ["first"],
        "plugins before it see its answer, later ones not"
    );
    assert_eq!(backend.connections(), 0, "nor does the backend see anything");
    assert_eq!(gateway.metric("vers_plugin_calls_total", &["plugin=\"last\""]).await, 0.0);
}

#[tokio::test]
async fn values_of_an_exchange_last_until_its_answer_and_are_private() {
    let backend = Backend::hello().await;
    let change = "config = { request = { x-store = \"changed\" } }";
    // Both store under the same key: `inner` what `change` put there, `outer` what the client said.
    let gateway = through(
        backend.addr(),
        &[
            ("outer", guest("exchange_values"), ""),
            ("change", plugin("header_inject"), change),
            ("inner", guest("exchange_values"), ""),
        ],
    );
    let ask = async |number: usize| {
        let value = format!("value {number}");
        let answer = gateway.client().with("x-store", &value).get("/").await;
        assert_eq!(answer.header("x-stored"), value, "the outer plugin writes last, and its own value");
    };
    join_all((0..50).map(ask)).await;
    assert_eq!(backend.last().header("x-store"), "changed");

    let only_inner = through(backend.addr(), &[("values", guest("exchange_values"), "")]);
    assert_eq!(only_inner.client().get("/").await.header("x-stored"), "none", "nothing of earlier requests");
}

#[tokio::test]
async fn values_of_an_exchange_are_bounded() {
    let backend = Backend::hello().await;
    let gateway = through(backend.addr(), &[("values", guest("exchange_values"), "")]);
    let ask =
        async |size: &str| gateway.client().with("x-store", "v").with("x-store-size", size).get("/").await;
    let answer = ask("16000").await;
    assert_eq!((answer.status.as_u16(), answer.header("x-stored")), (200, "v"));
    let answer = ask("16384").await;
    assert_eq!(answer.status, 507, "16 KiB with the keys and the other value");
    assert_eq!(answer.text(), "over the gateway's limit");
    assert_eq!(answer.header("x-stored"), "v", "what was stored before stays");
}

#[tokio::test]
async fn a_plugin_learns_who_asks_for_what() {
    let backend = Backend::hello().await;
    let config =
        "config = { captures = [\"vm\", \"id\", \"nothing\"] }\n[gateway]\nworkers = 1\nvm_id = \"a1\"\n";
    let table = plugin_table("echo", &guest("echo_context"), config);
    let gateway = TestGateway::start(&format!(
        "[[listener]]\naddress = \"[::]:0\"\n[[route]]\nname = \"api\"\nto = \"{}\"\n\
         host = \"{{vm}}.example.com\"\npath = \"/users/{{id}}/*\"\nplugins = [\"echo\"]\n{table}",
        backend.addr()
    ));
    let client = gateway.client().with("host", "VM7.example.com:8080").with("x-two", "1").with("x-two", "2");
    let text = client.send(Method::DELETE, "/users/42/%7Ea//b?q=1&q=2", Bytes::new()).await.text();
    for (name, expected) in [
        ("route", "api"),
        ("client", "::1"),
        ("peer", "::1"),
        ("port", &gateway.addr().port().to_string()),
        ("vm-id", "a1"),
        ("method", "DELETE"),
        ("authority", "VM7.example.com:8080"),
        ("path", "/users/42/%7Ea//b"),
        ("query", "q=1&q=2"),
        ("upgrade", "no"),
        ("capture.vm", "vm7"),
        ("capture.id", "42"),
        ("capture.nothing", "none"),
        ("x-forwarded-for", "::1"),
        ("x-forwarded-host", "VM7.example.com:8080"),
    ] {
        assert_eq!(told(&text, name), expected, "{name} in {text}");
    }
    assert!(text.contains("\nx-two: 1\nx-two: 2\n"), "each value of a header is there: {text}");
    assert_eq!(told(&text, "id").len(), 16, "{text}");
    let again = client.get("/users/42/").await.text();
    assert_ne!(told(&again, "id"), told(&text, "id"), "each request has an id of its own");
    assert_eq!(told(&again, "query"), "none", "{again}");
}

#[tokio::test]
async fn a_client_is_who_trusted_proxies_say() {
    let backend = Backend::hello().await;
    let table = plugin_table("echo", &guest("echo_context"), "");
    let gateway = TestGateway::start(&format!(
        "[[listener]]\naddress = \"[::]:0\"\ntrusted_proxies = [\"127.0.0.1\", \"10.0.0.0/8\"]\n\
         [[route]]\nto = \"{}\"\nplugins = [\"echo\"]\n{table}",
        backend.addr()
    ));
    let check = async |address, forwarded: &str, client: &str, peer: &str| {
        let from = gateway_tests::Client::new(address).with("x-forwarded-for", forwarded);
        let text = from.get("/").await.text();
        assert_eq!((told(&text, "client"), told(&text, "peer")), (client, peer), "{forwarded}: {text}");
    };
    let (v4, v6) = (gateway.addr_v4(), gateway.addr());
    check(v4, "2001:db8::7", "2001:db8::7", "127.0.0.1").await;
    check(v4, "192.0.2.1, 203.0.113.9, 10.1.1.1", "203.0.113.9", "127.0.0.1").await;
    check(v4, "::ffff:192.0.2.1", "192.0.2.1", "127.0.0.1").await;
    check(v4, "nonsense", "127.0.0.1", "127.0.0.1").await;
    check(v6, "2001:db8::7", "::1", "::1").await;
}

#[tokio::test]
async fn framing_connection_and_forwarding_are_not_for_plugins() {
    let backend = Backend::echo().await;
    let gateway = through(backend.addr(), &[("edits", guest("forbidden_headers"), "")]);
    let mut client = gateway.client().with("te", "trailers").connect().await.expect("a connection");
    for _ in 0..2 {
        let answer = client.try_send(Method::POST, "/", Bytes::from("ping")).await.expect("an answer");
        assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "ping"), "nothing was harmed");
        for side in ["x-request-edits", "x-response-edits"] {
            for edit in answer.header(side).split(", ") {
                let name = edit.split(' ').next().unwrap_or_default();
                let refusal = if name.is_empty() || name == "bad" { "invalid-name" } else { "forbidden" };
                assert!(edit.ends_with(&[refusal; 3].join(" ")), "{side}: {edit}");
            }
        }
        assert_eq!(answer.header("x-request-edits").split(", ").count(), 16, "each name was tried");
        let heard = backend.last();
        assert_eq!(heard.header("host"), gateway.addr().to_string());
        assert_eq!(heard.header("x-forwarded-for"), "::1");
        assert_eq!(heard.header("te"), "trailers");
        assert_eq!(heard.body, "ping");
    }
    assert_eq!(backend.connections(), 1, "the connection to the backend went on");
}

#[tokio::test]
async fn values_that_no_header_can_have_are_refused() {
    let backend = Backend::hello().await;
    let config = |value: &str| format!("config = {{ names = [\"x-edited\"], value = {value} }}");
    for value in ["\"a\\r\\nx-admin: 1\"", "\"a\\u0000b\"", "\"a\\nb\""] {
        let gateway = through(backend.addr(), &[("edits", guest("forbidden_headers"), &config(value))]);
        let answer = gateway.client().get("/").await;
        let refused = "x-edited invalid-value invalid-value ok";
        assert_eq!(answer.header("x-request-edits"), refused, "{value}");
        assert_eq!(answer.header("x-response-edits"), refused, "{value}");
        assert_eq!(backend.last().header("x-admin"), "", "{value}");
    }
}

#[tokio::test]
async fn an_answer_of_a_plugin_is_sent_as_it_is_less_what_is_the_gateways() {
    let backend = Backend::hello().await;
    let config = r#"
        [plugin.wall.config]
        status = 403
        body = "no\n"
        reason = "because"
        [plugin.wall.config.headers]
        x-why = "because"
        content-type = "text/x-reason"
        content-length = "4711"
        transfer-encoding = "chunked"
        connection = "close"
        keep-alive = "timeout=1"
        upgrade = "h2c"
        trailer = "x-end"
        x-forwarded-for = "192.0.2.1"
        "bad name" = "1"
    "#;
    let gateway = through(backend.addr(), &[("wall", guest("respond"), config)]);
    let mut client = gateway.client().connect().await.expect("a connection");
    for _ in 0..2 {
        let answer = client.get("/").await;
        assert_eq!((answer.status.as_u16(), answer.text().as_str()), (403, "no\n"));
        let mut names: Vec<_> = answer.headers.keys().map(http::HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["content-length", "content-type", "date", "x-why"], "no other header got out");
        assert_eq!((answer.header("x-why"), answer.header("content-length")), ("because", "3"));
    }
    let answer = gateway.client().send(Method::HEAD, "/", Bytes::new()).await;
    assert_eq!((answer.status.as_u16(), answer.body.len(), answer.header("content-length")), (403, 0, "3"));
}

#[tokio::test]
async fn a_status_that_is_none_becomes_502() {
    let backend = Backend::hello().await;
    let check = async |status: &str, sent: u16, body: &str| {
        let config = format!("config = {{ status = {status}, body = \"text\" }}");
        let gateway = through(backend.addr(), &[("wall", guest("respond"), &config)]);
        let mut client = gateway.client().connect().await.expect("a connection");
        for _ in 0..2 {
            let answer = client.get("/").await;
            assert_eq!((answer.status.as_u16(), answer.text().as_str()), (sent, body), "for {status}");
        }
    };
    check("599", 599, "text").await;
    check("101", 502, "text").await;
    check("0", 502, "text").await;
    check("600", 502, "text").await;
    check("65535", 502, "text").await;
    // These say that there is no body, and the connection has to stay readable.
    check("204", 204, "").await;
    check("304", 304, "").await;
}

#[tokio::test]
async fn an_answer_can_be_edited() {
    let backend = Backend::http(|heard| {
        let status = heard.uri.path().trim_start_matches('/').parse().unwrap_or(StatusCode::OK);
        let answer = Response::builder().status(status).header("server", "app").header("x-kind", "app");
        answer.body(Full::from("hello")).expect("an answer")
    })
    .await;
    let config = r#"
        [plugin.edit.config]
        set = { x-kind = "edited", content-length = "1", connection = "close" }
        append = { x-more = "1" }
        remove = ["server", "content-length"]
        status = 203
    "#;
    let gateway = through(backend.addr(), &[("edit", guest("response_edit"), config)]);
    let mut client = gateway.client().connect().await.expect("a connection");
    let answer = client.get("/").await;
    assert_eq!((answer.status.as_u16(), answer.text().as_str()), (203, "hello"));
    assert_eq!((values(&answer.headers, "x-kind"), answer.header("x-more")), (vec!["edited"], "1"));
    assert_eq!(values(&answer.headers, "server"), [""; 0]);
    let refused = "connection: belongs to the gateway, content-length: belongs to the gateway, \
                   content-length: belongs to the gateway";
    assert_eq!(answer.header("x-edit-errors"), refused);

    // A body that is not there cannot be made, nor one that is there lost.
    let answer = client.get("/204").await;
    assert_eq!(answer.status, 204);
    assert!(answer.header("x-edit-errors").ends_with("status: not a valid value"), "{:?}", answer.headers);
    assert_eq!(client.get("/404").await.status, 203, "the connection goes on");
}

#[tokio::test]
async fn a_status_cannot_be_changed_to_one_without_a_body() {
    let backend = Backend::hello().await;
    for status in ["204", "304", "101", "199", "600"] {
        let config = format!("config = {{ status = {status} }}");
        let gateway = through(backend.addr(), &[("edit", guest("response_edit"), &config)]);
        let answer = gateway.client().get("/").await;
        assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "hello"), "{status}");
        assert_eq!(answer.header("x-edit-errors"), "status: not a valid value", "{status}");
    }
}

#[tokio::test]
async fn an_answer_can_be_replaced() {
    let backend = Backend::http(|heard| {
        let mut answer = Response::new(Full::new(Bytes::from(vec![b'x'; 200_000])));
        if heard.uri.path() == "/replaced" {
            answer.headers_mut().insert("x-replace", "instead".parse().expect("a value"));
        }
        answer
    })
    .await;
    let append = "config = { response_append = { x-saw = \"{route}\" } }";
    let gateway = through(
        backend.addr(),
        &[("outer", plugin("header_inject"), append), ("edit", guest("response_edit"), "")],
    );
    let mut client = gateway.client().connect().await.expect("a connection");
    for _ in 0..3 {
        let answer = client.get("/replaced").await;
        assert_eq!((answer.status.as_u16(), answer.text().as_str()), (503, "instead"));
        assert_eq!(answer.header("x-replaced"), "yes");
        assert_eq!(answer.header("x-replace"), "", "nothing of the backend's answer is left");
        assert_eq!(answer.header("x-saw"), "app", "plugins before it see the replacement");
        assert_eq!(client.get("/").await.body.len(), 200_000, "the connection goes on");
    }
}

#[tokio::test]
async fn a_plugin_can_choose_what_the_backend_is_asked_for() {
    let backend = Backend::hello().await;
    let gateway = through(backend.addr(), &[("rewrite", guest("rewrite"), "")]);
    let check = async |target: &str, outcome: &str, asked: &str| {
        let answer = gateway.client().with("x-target", target).get("/old?o=1").await;
        assert_eq!(answer.status, 200, "{target}");
        let heard = backend.last();
        assert_eq!(heard.header("x-rewritten"), outcome, "{target}");
        assert_eq!(heard.uri.to_string(), asked, "{target}");
    };
    check("/new", "path /new query none", "/new").await;
    check("/new?n=2", "path /new query n=2", "/new?n=2").await;
    check("//other/x", "path //other/x query none", "//other/x").await;
    for refused in ["new", "http://other/", "*", "/a b", "/a#b", ""] {
        check(refused, "not a valid value", "/old?o=1").await;
    }
}

#[tokio::test]
async fn a_full_head_keeps_no_header_that_a_plugin_takes_away() {
    let backend = Backend::hello().await;
    let config = "config = { request_remove = [\"x-user\"], request = { x-role = \"guest\" } }";
    let gateway = through(backend.addr(), &[("inject", plugin("header_inject"), config)]);
    let mut raw = Raw::connect(gateway.addr()).await;
    let head = "GET / HTTP/1.1\r\nhost: a\r\nx-user: forged\r\nx-role: forged\r\nx-padding: \r\n\r\n";
    // As large as a head may be.
    let padding = "p".repeat(64 * 1024 - head.len());
    raw.send(head.replace("x-padding: ", &format!("x-padding: {padding}"))).await;
    assert!(raw.head().await.starts_with("HTTP/1.1 200 "));
    let heard = backend.last();
    assert_eq!((heard.header("x-user"), heard.header("x-role")), ("", "guest"));
}

#[tokio::test]
async fn an_upgrade_shows_itself_to_plugins() {
    let backend = Backend::hello().await;
    let gateway = through(backend.addr(), &[("echo", guest("echo_context"), "")]);
    let mut raw = Raw::connect(gateway.addr()).await;
    raw.send(
        "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade, close\r\nupgrade: websocket\r\n\
              sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    )
    .await;
    let answer = raw.to_end().await;
    assert_eq!(told(&answer, "upgrade"), "yes", "{answer}");
    assert!(!answer.contains("\nconnection: upgrade"), "hop-by-hop headers are gone by then: {answer}");
}

#[tokio::test]
async fn outbound_requests_go_where_they_are_granted() {
    let backend = Backend::hello().await;
    let elsewhere = Backend::http(|heard| match heard.uri.path() {
        "/large" => Response::new(Full::new(Bytes::from(vec![0; 1024 * 1024 + 1]))),
        "/fits" => Response::new(Full::new(Bytes::from(vec![0; 1024 * 1024]))),
        "/moved" => {
            let moved = Response::builder().status(302).header("location", "/elsewhere");
            moved.body(Full::default()).expect("an answer")
        }
        _ => Response::new(Full::from("hello")),
    })
    .await;
    let (granted, other, nobody) = (elsewhere.addr(), Backend::hello().await, Backend::nobody().await);
    let grants = format!(
        "grants = {{ http = [\"http://{granted}\", \"http://{nobody}\"], secrets = [\"mine\"] }}\n\
         [secret.mine]\nfile = \"mine.txt\"\n[secret.other]\nfile = \"other.txt\"\n"
    );
    let gateway = through(backend.addr(), &[("calls", guest("ungranted"), &grants)]);
    for name in ["mine", "other"] {
        std::fs::write(gateway.folder().join(format!("{name}.txt")), name).expect("a secret");
    }
    gateway.reload().await.expect("a good configuration");
    let check = async |url: String, expected: &str| {
        let text = gateway.client().with("x-url", &url).get("/").await.text();
        assert!(text.starts_with(expected), "{url} gave {text}, not {expected}");
    };
    check(format!("http://{granted}/x"), "200").await;
    check(format!("http://{granted}/fits"), "200").await;
    check(format!("http://{granted}/large"), "the answer is too large").await;
    check(format!("http://{granted}/moved"), "302").await;
    check(format!("http://{nobody}/"), "no connection: ").await;
    check(format!("http://{}/", other.addr()), "no grant for this origin").await;
    check(format!("http://{granted}@{}/", other.addr()), "no grant for this origin").await;
    check(format!("https://{granted}/"), "no grant for this origin").await;
    check("nonsense".to_owned(), "no grant for this origin").await;
    assert_eq!(other.connections(), 0, "nothing went where it must not");
    assert!(
        elsewhere.heard().iter().all(|heard| heard.uri.path() != "/elsewhere"),
        "no redirect is followed"
    );

    let secret = async |name: &str| gateway.client().with("x-secret", name).get("/").await.text();
    assert_eq!(secret("mine").await, "mine");
    assert_eq!(secret("other").await, "none", "defined, with a value, and not granted");
    assert_eq!(secret("unknown").await, "none");
}

#[tokio::test]
async fn log_metrics_and_status_tell_what_plugins_did() {
    let backend = Backend::hello().await;
    let more = "config = { status = 418, reason = \"teapot\" }";
    let plugins = [
        ("headers", plugin("header_inject"), "config = { response = { x-a = \"1\" } }"),
        ("wall", guest("respond"), more),
    ];
    let toml = toml(backend.addr(), &plugins);
    let gateway = GatewayProcess::start(crate::DAEMON, &toml).await;
    let client = gateway_tests::Client::new(gateway.addr_of("[::]:0").await);
    for _ in 0..3 {
        assert_eq!(client.get("/pot").await.status, 418);
    }

    let lines = eventually("three lines in the access log", async || {
        let log = gateway.log();
        let lines: Vec<_> = log.into_iter().filter(|line| line["target"] == "access").collect();
        (lines.len() >= 3).then_some(lines)
    });
    for line in lines.await {
        let told = (&line["status"], &line["plugin"], &line["reason"], &line["route"], &line["path"]);
        let expected = (418, "wall", "teapot", "app", "/pot");
        assert_eq!(
            told,
            (
                &expected.0.into(),
                &expected.1.into(),
                &expected.2.into(),
                &expected.3.into(),
                &expected.4.into()
            ),
            "{line}"
        );
    }
    let calls = async |plugin: &str, hook: &str| {
        let labels = [format!("plugin=\"{plugin}\""), format!("hook=\"{hook}\"")];
        gateway.admin().metric("vers_plugin_calls_total", &[&labels[0], &labels[1]]).await
    };
    assert_eq!((calls("headers", "request").await, calls("headers", "response").await), (3.0, 3.0));
    assert_eq!((calls("wall", "request").await, calls("wall", "response").await), (3.0, 0.0));
    assert!(gateway.admin().metric("vers_plugin_cpu_nanoseconds_total", &["plugin=\"wall\""]).await > 0.0);
    assert_eq!(gateway.admin().metric("vers_plugin_instances", &["plugin=\"wall\""]).await, 1.0);

    let headers = gateway.admin().plugin("headers").await;
    assert_eq!(headers["hooks"], serde_json::json!(["request-filter", "response-filter"]), "{headers}");
    assert_eq!((&headers["calls"], &headers["instances"]), (&6.into(), &1.into()), "{headers}");
    assert_eq!(headers["faults"], serde_json::json!({}), "{headers}");
    let wall = gateway.admin().plugin("wall").await;
    assert_eq!(
        (&wall["calls"], &wall["hooks"]),
        (&3.into(), &serde_json::json!(["request-filter"])),
        "{wall}"
    );
    assert_eq!(wall["component"], guest("respond").display().to_string(), "{wall}");
    let status = gateway.admin().status().await;
    assert_eq!(status["routes"][0]["plugins"], serde_json::json!(["headers", "wall"]), "{status}");
    assert_eq!(status["routes"][0]["requests"], 3, "{status}");
}
