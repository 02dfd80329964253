//! Components that answer requests themselves: bodies both ways, what they may do, how they fail, and what that costs.

use bytes::Bytes;
use futures_util::future::join_all;
use gateway_tests::{
    Backend, Client, GatewayProcess, Http2, Raw, TestGateway, collect, eventually, guest, origin,
    plugin_table, replace, settled, within,
};
use http::{Method, Response};
use http_body_util::Full;
use std::{fs, path::Path, time::Duration};
use vers_gateway::server;

/// One listener, and one route to this component with further keys of the route and of its `[origin.NAME]`.
fn config(component: &Path, route: &str, origin: &str) -> String {
    format!(
        "[[listener]]\naddress = \"[::]:0\"\n[[route]]\nname = \"app\"\nto = \"wasm:it\"\n{route}\n\
         [origin.it]\ncomponent = \"{}\"\n{origin}\n",
        component.display()
    )
}

fn with(origin_keys: &str) -> TestGateway {
    TestGateway::start(&config(&origin("answers"), "", origin_keys))
}

fn answers() -> TestGateway {
    with("")
}

async fn faults(gateway: &TestGateway, kind: &str) -> f64 {
    gateway.metric("vers_origin_faults_total", &["origin=\"it\"", &format!("kind=\"{kind}\"")]).await
}

/// Until so many instances run.
async fn instances(gateway: &TestGateway, count: f64) {
    let running =
        async || (gateway.metric("vers_origin_instances", &["origin=\"it\""]).await == count).then_some(());
    eventually(&format!("{count} instances"), running).await;
}

#[tokio::test]
async fn a_component_of_somebody_elses_toolkit_answers() {
    let text = format!(
        "[[listener]]\naddress = \"[::]:0\"\n[[route]]\nto = \"wasm:{}\"\n",
        origin("toolkit").display()
    );
    let gateway = TestGateway::start(&text);
    let mut kept = gateway.client().connect().await.expect("a connection");
    let answer = kept.get("/greet/you").await;
    assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "hello, you\n"));
    assert_eq!(answer.header("content-type"), "text/plain");
    assert_eq!(kept.get("/elsewhere").await.status, 404);
    let echoed = kept.try_send(Method::POST, "/echo", Bytes::from("ping")).await.expect("an answer");
    assert_eq!(echoed.text(), "ping");
    let mut http2 = Http2::connect(gateway.addr()).await;
    let answer = http2.send(http2.ask(Method::POST, "/echo"), "pong").await;
    assert_eq!((answer.status.as_u16(), answer.text()), (200, "pong"));
}

#[tokio::test]
async fn it_is_told_what_was_asked_for() {
    let gateway = answers();
    let client = gateway
        .client()
        .with("host", "app.test")
        .with("x-own", "1")
        .with("connection", "x-gone")
        .with("x-gone", "1");
    assert_eq!(client.get("/a/hello?b=c").await.text(), "hello from GET http://app.test/a/hello?b=c");
    let headers = client.get("/headers").await.text();
    for line in
        ["x-own: 1\n", "x-forwarded-for: ::1\n", "x-forwarded-proto: http\n", "via: 1.1 vers-gateway\n"]
    {
        assert!(headers.contains(line), "{line:?} in {headers}");
    }
    for name in ["x-gone", "connection", "host"] {
        assert!(!headers.lines().any(|line| line.starts_with(&format!("{name}: "))), "{name} in {headers}");
    }
    let mut http2 = Http2::connect(gateway.addr()).await;
    let answer = http2.send(http2.get("/hello"), "").await;
    assert_eq!(answer.text(), format!("hello from GET http://{}/hello", gateway.addr()));
}

#[tokio::test]
async fn bodies_stream_both_ways_and_trailers_with_them() {
    let gateway = answers();
    let mut client = Raw::connect(gateway.addr()).await;
    client.send("POST /talk HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n").await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("transfer-encoding: chunked\r\n"), "{head}");
    client.until("7\r\nfirst, \r\n").await;
    client.send("0\r\n\r\n").await;
    client.until("4\r\nlast\r\n0\r\n\r\n").await;
    let mut client = Raw::connect(gateway.addr()).await;
    client
        .send("POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n")
        .await;
    client.head().await;
    for word in ["one", "more", "and another"] {
        client.send(format!("{:x}\r\n{word}\r\n", word.len())).await;
        client.until(&format!("{:x}\r\n{word}\r\n", word.len())).await;
    }
    client.send("0\r\nx-sum: 7\r\n\r\n").await;
    client.until("0\r\nx-sum: 7\r\n\r\n").await;
    let mut client = Raw::connect(gateway.addr()).await;
    client.send("GET /trailers HTTP/1.1\r\nhost: a\r\n\r\n").await;
    client.until("a body\r\n0\r\nx-sum: 7\r\n\r\n").await;
    let mut http2 = Http2::connect(gateway.addr()).await;
    let (answer, mut stream) = http2.open(http2.ask(Method::POST, "/echo"), false).await;
    stream.send_data(Bytes::from("ping"), false).expect("a piece");
    let mut body = within("a head", answer).await.expect("an answer").into_body();
    assert_eq!(within("a piece", body.data()).await.expect("a piece").expect("a piece"), "ping");
    let mut trailers = http::HeaderMap::new();
    trailers.insert("x-sum", http::HeaderValue::from_static("8"));
    stream.send_trailers(trailers).expect("trailers");
    assert!(within("the end", body.data()).await.is_none());
    let trailers = within("trailers", body.trailers()).await.expect("trailers").expect("trailers");
    assert_eq!(trailers["x-sum"], "8");
}

#[tokio::test]
async fn a_large_upload_arrives_and_one_that_is_not_read_waits() {
    let gateway = with("limits = { memory = \"4MiB\", cpu = \"30s\" }");
    let many = Bytes::from(vec![b'x'; 32 << 20]);
    assert_eq!(gateway.client().post("/count", many.clone()).await.text(), format!("{} bytes", many.len()));
    // Nobody reads this one: what is on its way is bounded, and the client notices.
    let mut client = Raw::connect(gateway.addr()).await;
    client.send(format!("POST /wait HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", 1_u64 << 40)).await;
    let mut sent = 0_usize;
    let taken = settled("what is taken", async || {
        while let Ok(written) = client.stream.try_write(&many) {
            sent += written;
        }
        sent
    });
    let taken = taken.await;
    assert!(taken < many.len(), "{taken} bytes were taken of a body that nobody reads");
}

#[tokio::test]
async fn what_is_not_read_of_a_body_ends_the_connection_and_not_the_answer() {
    let gateway = answers();
    let mut client = Raw::connect(gateway.addr()).await;
    client.send("POST /unread HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\nsome of it").await;
    let answer = client.to_end().await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("not read"), "{answer}");
    assert!(answer.contains("connection: close\r\n"), "{answer}");
}

#[tokio::test]
async fn who_waits_to_be_told_to_go_on_is() {
    let gateway = answers();
    let mut client = Raw::connect(gateway.addr()).await;
    client.send("POST /count HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\nexpect: 100-continue\r\n\r\n").await;
    assert!(client.head().await.starts_with("HTTP/1.1 100 "));
    client.send("ping").await;
    client.until("4 bytes").await;
}

#[tokio::test]
async fn an_answer_has_a_body_where_one_belongs() {
    let gateway = answers();
    let mut client = Raw::connect(gateway.addr()).await;
    client.send("HEAD /hello HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(client.head().await.starts_with("HTTP/1.1 200 "));
    for status in [204, 304] {
        client.send(format!("GET /status?{status} HTTP/1.1\r\nhost: a\r\n\r\n")).await;
        assert!(client.head().await.starts_with(&format!("HTTP/1.1 {status} ")));
    }
    client.send("GET /status?418 HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(client.head().await.starts_with("HTTP/1.1 418 "));
    client.until("with a body\r\n0\r\n\r\n").await;
    instances(&gateway, 0.0).await;
    for kind in ["trap", "silent", "refused"] {
        assert_eq!(faults(&gateway, kind).await, 0.0, "{kind}");
    }
}

#[tokio::test]
async fn large_heads_pass_and_larger_ones_do_not() {
    let gateway = answers();
    let answer = gateway.client().get("/grown?50000").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers.iter().filter(|(name, _)| name.as_str().starts_with("x-much-")).count(), 50);
    let answer = gateway.client().get("/grown?100000").await;
    assert_eq!((answer.status.as_u16(), answer.header("x-gateway-error")), (502, "upstream-bad-answer"));
    let many = "x".repeat(30_000);
    let answer = gateway.client().with("x-much", &many).get("/headers").await;
    assert!(answer.text().contains(&many));
}

#[tokio::test]
async fn what_is_about_the_connection_is_not_the_components_to_say() {
    let gateway = answers();
    let said = gateway.client().get("/hop").await.text();
    for name in ["connection", "keep-alive", "transfer-encoding", "upgrade", "host", "proxy-connection"] {
        assert!(said.contains(&format!("{name}: false\n")), "{said}");
    }
    for status in [100, 101, 103] {
        let answer = gateway.client().get(&format!("/status?{status}")).await;
        assert_eq!((answer.status.as_u16(), answer.header("x-gateway-error")), (502, "upstream-bad-answer"));
    }
}

#[tokio::test]
async fn an_answer_of_another_length_than_it_tells_is_seen_to_break_off() {
    let gateway = answers();
    for path in ["/short", "/long", "/left"] {
        let answer = gateway.client().try_send(Method::GET, path, Bytes::new()).await;
        assert!(answer.is_err(), "{path}: {answer:?}");
        let mut http2 = Http2::connect(gateway.addr()).await;
        let answer = http2.try_send(http2.get(path), "").await;
        assert!(answer.is_err(), "{path}: {answer:?}");
    }
}

#[tokio::test]
async fn a_component_that_fails_costs_its_request_and_no_other() {
    let gateway = with("limits = { cpu = \"50ms\", memory = \"8MiB\" }");
    let client = gateway.client();
    for (path, kind) in [
        ("/trap", "trap"),
        ("/spin", "cpu"),
        ("/silent", "silent"),
        ("/refuse", "refused"),
        ("/exit", "trap"),
    ] {
        let before = faults(&gateway, kind).await;
        let answer = client.get(path).await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("x-gateway-error")),
            (502, "origin-fault"),
            "{path}"
        );
        assert!(!answer.text().contains("wasm"), "what went wrong is for the log: {}", answer.text());
        assert_eq!(faults(&gateway, kind).await, before + 1.0, "{path}");
        assert_eq!(client.get("/hello").await.status, 200, "after {path}");
    }
    let hogged = client.get("/hog").await.text();
    let held: usize = hogged.split(' ').next().expect("a number").parse().expect("a number");
    assert!((1..8).contains(&held), "{hogged}");
    assert_eq!(gateway.metric("vers_gateway_errors_total", &["code=\"origin-fault\""]).await, 5.0);
}

#[tokio::test]
async fn a_fault_behind_the_head_breaks_the_answer_off() {
    let gateway = with("limits = { cpu = \"50ms\" }");
    for path in ["/trap-late", "/spin-late"] {
        let mut client = Raw::connect(gateway.addr()).await;
        client.send(format!("POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n")).await;
        let answer = client.to_end().await;
        assert!(answer.contains("some of it"), "{path}: {answer}");
        assert!(!answer.contains("\r\n0\r\n"), "{path} looks whole: {answer}");
        let mut http2 = Http2::connect(gateway.addr()).await;
        let answer = http2.try_send(http2.get(path), "").await;
        assert!(answer.is_err(), "{path}: {answer:?}");
    }
    assert_eq!(gateway.metric("vers_connections_cut_total", &["reason=\"upstream\""]).await, 4.0);
}

#[tokio::test]
async fn endless_loops_hold_no_other_request_of_their_worker() {
    let gateway = with("limits = { cpu = \"400ms\" }");
    let spinning = gateway.client();
    let spinning = tokio::spawn(async move { join_all((0..4).map(|_| spinning.get("/spin"))).await });
    instances(&gateway, 4.0).await;
    // All of this is on the one worker that they run on.
    let answer = gateway.client().get("/hello").await;
    assert_eq!(answer.status, 200);
    assert!(!spinning.is_finished(), "they are still at it");
    for answer in within("the loops", spinning).await.expect("a task") {
        assert_eq!(answer.header("x-gateway-error"), "origin-fault");
    }
}

#[tokio::test]
async fn the_wall_clock_ends_what_waits() {
    let gateway = with("limits = { wall = \"100ms\" }");
    let answer = gateway.client().get("/wait").await;
    assert_eq!((answer.status.as_u16(), answer.header("x-gateway-error")), (502, "origin-fault"));
    assert_eq!(faults(&gateway, "wall").await, 1.0);
    let text = config(&origin("answers"), "timeouts = { response = \"100ms\" }", "");
    let gateway = TestGateway::start(&text);
    let answer = gateway.client().get("/wait").await;
    assert_eq!((answer.status.as_u16(), answer.header("x-gateway-error")), (504, "upstream-timeout"));
    instances(&gateway, 0.0).await;
}

#[tokio::test]
async fn requests_beyond_the_limit_wait_for_their_turn() {
    for limits in ["instances = 1", "instances = 8, concurrency = 1"] {
        let gateway = with(&format!("limits = {{ {limits}, queue = 1, queue_timeout = \"10s\" }}"));
        let mut first = Raw::connect(gateway.addr()).await;
        first.send("POST /talk HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n").await;
        first.until("first, ").await;
        let client = gateway.client();
        let second = tokio::spawn(async move { client.get("/hello").await });
        let waits =
            async || (gateway.metric("vers_origin_waiting", &["origin=\"it\""]).await == 1.0).then_some(());
        eventually("one that waits", waits).await;
        let third = gateway.client().get("/hello").await;
        assert_eq!((third.status.as_u16(), third.header("x-gateway-error")), (503, "upstream-queue-full"));
        first.send("0\r\n\r\n").await;
        first.until("last").await;
        assert_eq!(within("the second", second).await.expect("a task").status, 200, "{limits}");
    }
    let gateway = with("limits = { instances = 1, queue_timeout = \"50ms\" }");
    let mut first = Raw::connect(gateway.addr()).await;
    first.send("GET /wait HTTP/1.1\r\nhost: a\r\n\r\n").await;
    instances(&gateway, 1.0).await;
    let answer = gateway.client().get("/hello").await;
    assert_eq!((answer.status.as_u16(), answer.header("x-gateway-error")), (503, "upstream-queue-timeout"));
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_instance() {
    let gateway = answers();
    let mut raw = Raw::connect(gateway.addr()).await;
    raw.send("GET /wait HTTP/1.1\r\nhost: a\r\n\r\n").await;
    instances(&gateway, 1.0).await;
    drop(raw);
    instances(&gateway, 0.0).await;
    let mut raw = Raw::connect(gateway.addr()).await;
    raw.send("POST /talk HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n").await;
    raw.until("first, ").await;
    drop(raw);
    instances(&gateway, 0.0).await;
    let mut http2 = Http2::connect(gateway.addr()).await;
    let (answer, mut stream) = http2.open(http2.ask(Method::POST, "/wait"), false).await;
    instances(&gateway, 1.0).await;
    stream.send_reset(h2::Reason::CANCEL);
    drop(answer);
    instances(&gateway, 0.0).await;
}

#[tokio::test]
async fn requests_go_where_they_are_granted_and_nowhere_else() {
    let backend = Backend::echo().await;
    let other = Backend::hello().await;
    let granted = format!("grants = {{ http = [\"http://{}\"] }}", backend.addr());
    let gateway = with(&granted);
    let answer = gateway.client().post(&format!("/pass?http://{}/there", backend.addr()), "a body").await;
    assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "a body"));
    let heard = backend.last();
    assert_eq!(
        (heard.method.as_str(), heard.uri.path(), heard.header("x-from")),
        ("POST", "/there", "a component")
    );
    assert_eq!(heard.header("host"), backend.addr().to_string());
    let answer = gateway.client().get(&format!("/fetch?http://{}/", other.addr())).await;
    assert_eq!((answer.status.as_u16(), answer.text().as_str()), (502, "ErrorCode::HttpRequestDenied"));
    assert_eq!(other.connections(), 0);
    let gateway = answers();
    let answer = gateway.client().get(&format!("/fetch?http://{}/", backend.addr())).await;
    assert_eq!(answer.text(), "ErrorCode::HttpRequestDenied", "nothing is granted by itself");
}

#[tokio::test]
async fn what_it_fetches_streams_through_it() {
    let (backend, mut visitors) = Backend::by_hand().await;
    let gateway = with(&format!("grants = {{ http = [\"http://{}\"] }}", backend.addr()));
    let mut client = Raw::connect(gateway.addr()).await;
    client.send(format!("GET /fetch?http://{}/x HTTP/1.1\r\nhost: a\r\n\r\n", backend.addr())).await;
    let mut server = visitors.next().await;
    server.head().await;
    server.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n").await;
    client.until("3\r\none\r\n").await;
    server.send("3\r\ntwo\r\n").await;
    client.until("3\r\ntwo\r\n").await;
    drop(server);
    let rest = client.to_end().await;
    assert!(!rest.contains("0\r\n\r\n"), "what broke off there breaks off here: {rest}");
}

#[tokio::test]
async fn it_sees_of_the_environment_what_it_is_granted_and_no_files_and_no_sockets() {
    let backend = Backend::hello().await;
    let keys = "env = { LEVEL = \"debug\" }\nsecret_env = { TOKEN = \"token\", UNSET = \"unset\" }\n\
                [secret.token]\nfile = \"token.txt\"\n[secret.unset]\nfile = \"none.txt\"\n";
    let text = config(&origin("answers"), "", keys);
    let gateway = TestGateway::with_files(&text, &[("token.txt", "hunter2\n")]);
    assert_eq!(gateway.client().get("/env").await.text(), "LEVEL=debug\nTOKEN=hunter2\n[]");
    let said = gateway.client().get("/files").await.text();
    assert!(said.starts_with("Err("), "{said}");
    let said = gateway.client().get(&format!("/sockets?{}", backend.addr())).await.text();
    assert!(said.starts_with("Err("), "{said}");
    assert_eq!(backend.connections(), 0);
    // A secret that changes is taken over.
    replace(&gateway.folder().join("token.txt"), "hunter3");
    gateway.reload().await.expect("a reload");
    assert!(gateway.client().get("/env").await.text().contains("TOKEN=hunter3"));
}

#[tokio::test]
async fn what_it_does_behind_its_answer_it_may_do_for_a_while() {
    let backend = Backend::hello().await;
    let gateway = with(&format!("grants = {{ http = [\"http://{}\"] }}", backend.addr()));
    let answer = gateway.client().get(&format!("/after?http://{}/later", backend.addr())).await;
    assert_eq!(answer.text(), "answered");
    eventually("the request behind the answer", async || {
        backend.heard().iter().any(|heard| heard.uri.path() == "/later").then_some(())
    })
    .await;
    instances(&gateway, 0.0).await;
}

#[tokio::test]
async fn plugins_of_the_route_see_requests_first_and_answers_last() {
    let edit = plugin_table("edit", &guest("response_edit"), "config = { set = { x-edited = \"yes\" } }");
    let deny = plugin_table("deny", &guest("respond"), "config = { status = 403 }");
    let grow = plugin_table("grow", &guest("transform"), "config = { tail = \"!\" }");
    let text = format!(
        "[[listener]]\naddress = \"[::]:0\"\n\
         [[route]]\npath = \"/hello\"\nto = \"wasm:it\"\nplugins = [\"edit\"]\n\
         [[route]]\npath = \"/transformed\"\nto = \"wasm:it\"\nplugins = [\"grow\"]\n\
         [[route]]\nto = \"wasm:it\"\nplugins = [\"deny\"]\n\
         [origin.it]\ncomponent = \"{}\"\n{edit}{deny}{grow}",
        origin("answers").display()
    );
    let gateway = TestGateway::start(&text);
    let answer = gateway.client().get("/hello").await;
    assert_eq!((answer.status.as_u16(), answer.header("x-edited")), (200, "yes"));
    assert_eq!(gateway.client().get("/wait").await.status, 403, "it was not asked");
    assert_eq!(gateway.client().get("/transformed").await.text(), "IN CAPITALS!");
    assert_eq!(
        gateway.metric("vers_plugin_calls_total", &["plugin=\"grow\"", "hook=\"transform\""]).await,
        1.0
    );
}

#[tokio::test]
async fn a_changed_file_is_taken_over_while_old_requests_finish() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("app.wasm");
    fs::copy(origin("answers"), &file).expect("a copy");
    let gateway = TestGateway::start(&config(&file, "", ""));
    let mut old = Raw::connect(gateway.addr()).await;
    old.send("POST /talk HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n").await;
    old.until("first, ").await;
    replace(&file, fs::read(origin("toolkit")).expect("the other one"));
    gateway.reload().await.expect("a reload");
    assert_eq!(gateway.client().get("/greet/new").await.text(), "hello, new\n");
    old.send("0\r\n\r\n").await;
    old.until("last").await;
    // What cannot be used changes nothing.
    replace(&file, "no component");
    let refused = gateway.reload().await.expect_err("no component");
    assert!(refused.text.contains("it does not start like one"), "{}", refused.text);
    assert_eq!(gateway.client().get("/greet/still").await.text(), "hello, still\n");
}

#[tokio::test]
async fn a_stop_waits_for_what_is_answered() {
    let gateway = answers();
    let mut client = Raw::connect(gateway.addr()).await;
    client.send("POST /talk HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n").await;
    client.until("first, ").await;
    let stopping = tokio::spawn(gateway.stop(Duration::from_secs(10)));
    client.send("0\r\n\r\n").await;
    client.until("last\r\n0\r\n\r\n").await;
    within("the stop", stopping).await.expect("a task");
}

#[tokio::test]
async fn operators_see_it() {
    let gateway = answers();
    gateway.client().get("/hello").await;
    let status = gateway.status().await;
    assert_eq!(status["routes"][0]["to"], "wasm:it");
    gateway.client().get("/trap").await;
    let shown = gateway.status().await["origins"][0].clone();
    assert_eq!((&shown["name"], &shown["faults"]["trap"]), (&"it".into(), &1.into()), "{shown}");
    assert_eq!(gateway.metric("vers_requests_total", &["route=\"app\"", "status=\"2xx\""]).await, 1.0);
    assert!(gateway.metric("vers_origin_cpu_nanoseconds_total", &["origin=\"it\""]).await > 0.0);
}

#[tokio::test]
async fn what_it_prints_and_why_it_fails_is_in_the_log() {
    let gateway = GatewayProcess::start(crate::DAEMON, &config(&origin("answers"), "", "")).await;
    let client = Client::new(gateway.addr_of("[::]:0").await);
    assert_eq!(client.get("/print").await.text(), "printed");
    assert_eq!(client.get("/trap").await.status, 502);
    assert_eq!(client.post("/count", "body").await.text(), "4 bytes");
    let lines = eventually("the lines", async || {
        let lines: Vec<_> = gateway.log().into_iter().filter(|line| line["origin"] == "it").collect();
        lines.iter().any(|line| line["fault"] == "trap").then_some(lines)
    });
    let lines = lines.await;
    for (stream, text) in [
        ("stdout", "to the output"),
        ("stdout", "in two lines"),
        ("stderr", "to the errors, without an end"),
        ("stderr", "this goes wrong at once"),
    ] {
        let is_it = |line: &serde_json::Value| line["stream"] == stream && line["message"] == text;
        assert!(lines.iter().any(is_it), "{stream}: {text:?} in {lines:#?}");
    }
    let fault = lines.iter().find(|line| line["fault"] == "trap").expect("a fault");
    assert!(
        fault["detail"].as_str().is_some_and(|detail| detail.contains("handle")),
        "where it was: {fault}"
    );
    let access = eventually("three requests", async || {
        let lines: Vec<_> = gateway.log().into_iter().filter(|line| line["target"] == "access").collect();
        (lines.len() == 3).then_some(lines)
    });
    let access = access.await;
    assert_eq!(
        (&access[1]["status"], &access[1]["error"]),
        (&502.into(), &"origin-fault".into()),
        "{access:#?}"
    );
    assert_eq!((&access[2]["status"], &access[2]["sent"]), (&200.into(), &7.into()), "{access:#?}");
    // A flood of it is cut, and that is said.
    assert_eq!(client.get("/flood").await.text(), "printed");
    let said = async || {
        let log = gateway.log();
        let cut = |line: &&serde_json::Value| {
            line["message"].as_str().is_some_and(|text| text.starts_with("too many log lines"))
        };
        let cut = log.iter().filter(cut).count();
        let told = log
            .iter()
            .filter(|line| line["message"].as_str().is_some_and(|text| text.starts_with("line ")))
            .count();
        (cut > 0).then_some(told)
    };
    let told = eventually("the cut", said).await;
    assert!(told <= 200, "{told} lines of a thousand");
}

/// What `check` says of this configuration, whose component is this file.
fn refused(folder: &Path, text: &str) -> String {
    let path = folder.join("gateway.toml");
    fs::write(&path, text).expect("a configuration");
    match server::check(&path, false) {
        Ok(checked) => panic!("it can be run: {}", checked.summary),
        Err(error) => error.to_string(),
    }
}

#[test]
fn check_says_what_is_wrong_with_a_component_and_where() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).expect("a file");
    write("core.wasm", b"\0asm\x01\0\0\0");
    write("plugin.wasm", &fs::read(guest("respond")).expect("a plugin"));
    write("empty.wasm", b"\0asm\x0d\0\x01\0");
    let route = |to: &str| format!("[[listener]]\naddress = \"[::]:0\"\n[[route]]\nto = \"{to}\"\n");
    for (to, words) in [
        ("wasm:none.wasm", "cannot read"),
        ("wasm:core.wasm", "it is a core module; build it with `--target wasm32-wasip2`"),
        ("wasm:plugin.wasm", "does not export `wasi:http/incoming-handler@0.2`"),
        ("wasm:plugin.wasm", "it is a plugin: name it in `[plugin.NAME]`"),
        ("wasm:empty.wasm", "a component of the world `wasi:http/proxy` 0.2"),
        ("wasm:", "`wasm:` names no component"),
        ("wasm:app", "define one with `[origin.NAME]`"),
    ] {
        let said = refused(folder.path(), &route(to));
        assert!(said.contains(words), "{to}: {said}");
        assert!(said.contains("gateway.toml:4:6"), "{to}: {said}");
    }
    let text = route("wasm:shp") + "[origin.shop]\ncomponent = \"none.wasm\"\n";
    let said = refused(folder.path(), &text);
    assert!(said.contains("did you mean `shop`?"), "{said}");
    let text = route("wasm:shop") + "[origin.shop]\ncomponent = \"none.wasm\"\n";
    let said = refused(folder.path(), &text);
    assert!(said.contains("gateway.toml:6:13"), "{said}");
    let bytes = fs::read(origin("answers")).expect("a component");
    write("answers.wasm", &bytes);
    let pinned = format!("[origin.shop]\ncomponent = \"answers.wasm\"\nsha256 = \"{}\"\n", "0".repeat(64));
    let said = refused(folder.path(), &(route("wasm:shop") + &pinned));
    assert!(said.contains("the component has another hash"), "{said}");
    let text = route("wasm:shop") + "protocol = \"tcp\"\n[origin.shop]\ncomponent = \"answers.wasm\"\n";
    let said = refused(folder.path(), &text);
    assert!(said.contains("only HTTP requests can be answered"), "{said}");
}

#[tokio::test]
async fn backends_beside_it_are_reached_as_ever() {
    let backend = Backend::http(|_| Response::new(Full::from("a backend"))).await;
    let text = config(&origin("answers"), "", "")
        + &format!("[[route]]\npath = \"/b\"\nto = \"{}\"\n", backend.addr());
    let gateway = TestGateway::start(&text);
    let mut kept = gateway.client().connect().await.expect("a connection");
    for _ in 0..2 {
        assert_eq!(kept.get("/b").await.text(), "a backend");
        assert!(kept.get("/hello").await.text().starts_with("hello"));
    }
    let mut http2 = Http2::connect(gateway.addr()).await;
    let (one, _) = http2.open(http2.get("/hello"), true).await;
    let (other, _) = http2.open(http2.get("/b"), true).await;
    assert!(within("one", collect(one)).await.expect("an answer").text().starts_with("hello"));
    assert_eq!(within("the other", collect(other)).await.expect("an answer").text(), "a backend");
}
