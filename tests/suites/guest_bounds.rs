//! What a plugin can make the gateway do for it in one call: what is too much costs that call, and nobody else.

use futures_util::future::join_all;
use gateway_tests::{Backend, Http2, TestGateway, collect, guest, one_route, plugin_table};
use http::Method;

/// A gateway with one worker, and a plugin that does what a header of a request says; beside it `/plain`.
async fn gateway(backend: &Backend) -> TestGateway {
    let more = "config = { url = \"http://localhost:1/\", mirror = \"http://localhost:1/\" }\n\
                grants = { http = [\"http://localhost:1\"], kv = \"1MiB\" }\n\
                breaker = { faults = 0 }\nlimits = { memory = \"32MiB\", cpu = \"5s\", wall = \"60s\" }\n";
    let to = backend.addr();
    let table = plugin_table("mischief", &guest("mischief"), more);
    TestGateway::start(&one_route(
        to,
        &format!(
            "plugins = [\"mischief\"]\n[[route]]\npath = \"/plain\"\nto = \"{to}\"\n[gateway]\nworkers = 1\n{table}"
        ),
    ))
}

async fn faults(gateway: &TestGateway, kind: &str) -> f64 {
    let kind = format!("kind=\"{kind}\"");
    gateway.metric("vers_plugin_faults_total", &["plugin=\"mischief\"", &kind]).await
}

#[tokio::test]
async fn an_answer_with_headers_without_end_is_a_fault_over_http1_and_http2() {
    let backend = Backend::hello().await;
    let gateway = gateway(&backend).await;
    let answer = gateway.client().with("x-do", "answer").get("/").await;
    assert_eq!((answer.status.as_u16(), answer.header("x-gateway-error")), (503, "plugin-fault"));
    let mut client = Http2::connect(gateway.addr()).await;
    // All of a connection's requests are one task: none of them must end with the others.
    let mut answers = Vec::new();
    for what in ["answer", "nothing", "answer", "nothing"] {
        let mut request = client.ask(Method::GET, "/");
        request.headers_mut().insert("x-do", what.parse().expect("a value"));
        answers.push(client.open(request, true).await.0);
    }
    let answers = join_all(answers.into_iter().map(collect)).await;
    let statuses: Vec<u16> =
        answers.iter().map(|it| it.as_ref().map_or(0, |it| it.status.as_u16())).collect();
    assert_eq!(statuses, [503, 200, 503, 200]);
    assert_eq!(faults(&gateway, "response").await, 3.0);
}

/// None of them is interrupted by the clock: the host works on them, and until it is done nobody else has the worker.
#[tokio::test]
async fn what_the_host_would_work_on_for_long_is_refused_at_once() {
    let backend = Backend::hello().await;
    let gateway = gateway(&backend).await;
    for (number, what) in ["removes", "compares", "random", "bulk"].into_iter().enumerate() {
        let answer = gateway.client().with("x-do", what).get("/").await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("x-gateway-error")),
            (503, "plugin-fault"),
            "{what}"
        );
        assert_eq!(faults(&gateway, "trap").await, (number + 1) as f64, "{what}: not by its CPU time");
    }
    assert_eq!(faults(&gateway, "cpu").await, 0.0);
    assert_eq!(gateway.client().get("/plain").await.status, 200);
}

#[tokio::test]
async fn what_is_refused_to_a_plugin_costs_nothing_else() {
    let backend = Backend::hello().await;
    let gateway = gateway(&backend).await;
    for what in ["names", "keep", "reserve", "pairs", "flood", "series"] {
        assert_eq!(gateway.client().with("x-do", what).get("/").await.status, 200, "{what}");
    }
    // As many lines as there may be, which the backend does not take.
    assert_eq!(gateway.client().with("x-do", "edits").get("/").await.status, 431);
    assert_eq!(gateway.metric("vers_gateway_errors_total", &[]).await, 0.0, "none of the gateway's own");
}
