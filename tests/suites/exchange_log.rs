//! Plugins that are shown what became of each exchange, and metrics of their own.

use futures_util::future::join_all;
use gateway_tests::{
    Admin, Backend, Raw, TestGateway, assert_told, eventually, guest, one_route, plugin_table, within,
};
use serde_json::json;
use std::{net::SocketAddr, time::Duration};

/// A route through `audit`, which tells the collector, with further keys of the plugin; and `/plain`
/// without it.
fn toml(backend: SocketAddr, collector: Option<&Backend>, more: &str) -> String {
    let told = collector.map_or_else(String::new, |collector| {
        let url = format!("http://{}", collector.addr());
        format!("config = {{ url = \"{url}/\" }}\ngrants = {{ http = [\"{url}\"] }}\n")
    });
    // The component imports it, whatever it is told.
    let grant = if collector.is_some() { "" } else { "grants = { http = [\"http://localhost:1\"] }\n" };
    let table = plugin_table("audit", &guest("audit"), &format!("{told}{grant}{more}"));
    one_route(
        backend,
        &format!(
            "host = \"{{vm}}.test\"\nplugins = [\"audit\"]\nupgrades = [\"chat\"]\n\
             [[route]]\nname = \"plain\"\npath = \"/plain\"\nto = \"{backend}\"\n{table}"
        ),
    )
}

async fn of_audit(gateway: &Admin, name: &str, labels: &[&str]) -> f64 {
    gateway.metric(name, &[&["plugin=\"audit\""], labels].concat()).await
}

#[tokio::test]
async fn it_is_told_everything_that_became_of_a_request() {
    let (backend, collector) = (Backend::hello().await, Backend::hello().await);
    let gateway = TestGateway::start(&toml(backend.addr(), Some(&collector), ""));
    let client = gateway.client().with("host", "a1.test").with("x-tag", "t1");
    assert_eq!(client.post("/up?q=1", "12345").await.text(), "hello");
    let text = collector.told(0).await;
    assert_told(
        &text,
        &[
            "route: app",
            "client: ::1",
            "vm: a1",
            "tag: t1",
            "method: POST",
            "authority: a1.test",
            "path: /up",
            "status: 200",
            "in-order: true",
            "request-bytes: 5",
            "response-bytes: 5",
            "answered-by: none",
            "reason: none",
            "error: none",
            "broke-off: false",
        ],
    );
    assert_eq!(client.with("x-answer", "1").get("/").await.status, 403);
    assert_told(
        &collector.told(1).await,
        &["status: 403", "tag: t1", "answered-by: audit", "reason: asked-to", "response-bytes: 10"],
    );
    assert_eq!(gateway.client().get("/plain").await.status, 200);
    let calls = of_audit(&gateway.operator(), "vers_plugin_calls_total", &["hook=\"log\""]).await;
    assert_eq!(calls, 2.0, "of another route it is told nothing");
}

#[tokio::test]
async fn bytes_of_a_request_are_those_that_the_backend_was_sent() {
    let (backend, collector) = (Backend::echo().await, Backend::hello().await);
    let config = toml(backend.addr(), Some(&collector), "");
    let bodies = plugin_table("bodies", &guest("body_edit"), "");
    let config = config.replace("plugins = [\"audit\"]", "plugins = [\"audit\", \"bodies\"]");
    let gateway = TestGateway::start(&format!("{config}{bodies}"));
    let client = gateway.client().with("host", "a1.test").with("x-body", "100");
    for (number, body, status, bytes) in [(0, "abc", 200, 3), (1, "refuse", 422, 0), (2, "keep", 200, 4)] {
        assert_eq!(client.post("/", body).await.status, status, "{body}");
        assert_told(&collector.told(number).await, &[&format!("request-bytes: {bytes}")]);
    }
}

#[tokio::test]
async fn errors_of_the_gateway_and_clients_that_leave_are_told_too() {
    let (silent, collector) = (Backend::silent().await, Backend::hello().await);
    let gateway = TestGateway::start(&toml(Backend::nobody().await, Some(&collector), ""));
    assert_eq!(gateway.client().with("host", "a1.test").get("/").await.status, 502);
    assert_told(&collector.told(0).await, &["status: 502", "error: upstream-refused", "vm: a1"]);

    gateway.write(&toml(silent.addr(), Some(&collector), ""));
    gateway.reload().await.expect("a good configuration");
    let mut leaving = Raw::connect(gateway.addr()).await;
    leaving.send("GET /gone HTTP/1.1\r\nhost: a1.test\r\n\r\n").await;
    eventually("the backend has it", async || (silent.connections() == 1).then_some(())).await;
    drop(leaving);
    assert_told(&collector.told(1).await, &["path: /gone", "status: none", "broke-off: true"]);
}

#[tokio::test]
async fn a_tunnel_is_over_when_it_ends_whatever_was_reloaded_meanwhile() {
    let (backend, mut visits) = Backend::by_hand().await;
    let collector = Backend::hello().await;
    let config = toml(backend.addr(), Some(&collector), "");
    let gateway = TestGateway::start(&config);
    for (number, reload, tag) in
        [(0, None, "tag: t1"), (1, Some("limits = { instances = 3 }\n"), "tag: none")]
    {
        let mut client = Raw::connect(gateway.addr()).await;
        let head = "connection: upgrade\r\nupgrade: chat\r\n\r\n";
        client.send(format!("GET /chat HTTP/1.1\r\nhost: a1.test\r\nx-tag: t1\r\n{head}")).await;
        let mut server = visits.next().await;
        server.head().await;
        server.send(format!("HTTP/1.1 101 Switching Protocols\r\n{head}")).await;
        client.head().await;
        client.send("12345").await;
        server.until("12345").await;
        server.send("123").await;
        client.until("123").await;
        assert_eq!(collector.heard().len(), number, "it goes on");
        if let Some(more) = reload {
            gateway.write(&toml(backend.addr(), Some(&collector), more));
            gateway.reload().await.expect("a good configuration");
        }
        drop((client, server));
        let text = collector.told(number).await;
        let lines = ["status: 101", "path: /chat", "request-bytes: 5", "response-bytes: 3", tag];
        assert_told(&text, &lines);
    }
}

#[tokio::test]
async fn nobody_waits_for_it_and_what_finds_no_room_is_counted() {
    const AT_A_TIME: usize = 8;
    let (backend, collector) = (Backend::hello().await, Backend::silent().await);
    let limits = "limits = { wall = \"10m\", log_queue = 3 }\n";
    let gateway = TestGateway::start(&toml(backend.addr(), Some(&collector), limits));
    let client = gateway.client().with("host", "a1.test");
    for number in 0..AT_A_TIME {
        assert_eq!(client.get("/").await.status, 200);
        eventually("it is being told", async || (collector.connections() == number + 1).then_some(())).await;
    }
    let all = join_all((0..10).map(async |_| client.get("/").await));
    for answer in within("answers, though nobody listens to what became of them", all).await {
        assert_eq!(answer.status, 200);
    }
    let operator = gateway.operator();
    eventually("seven are counted", async || {
        (of_audit(&operator, "vers_plugin_log_dropped_total", &[]).await == 7.0).then_some(())
    })
    .await;
    assert_eq!(collector.connections(), AT_A_TIME);
}

#[tokio::test]
async fn a_fault_of_it_is_nobody_elses() {
    let backend = Backend::hello().await;
    let more = "limits = { cpu = \"20ms\" }\nbreaker = { faults = 2, open = \"10m\" }\n";
    let gateway = TestGateway::start(&toml(backend.addr(), None, more));
    let (operator, client) = (gateway.operator(), gateway.client().with("host", "a1.test"));
    let faults = async |kind: &str, count: f64| {
        eventually("a fault", async || {
            let kind = format!("kind=\"{kind}\"");
            (of_audit(&operator, "vers_plugin_faults_total", &[&kind]).await == count).then_some(())
        })
        .await;
    };
    assert_eq!(client.clone().with("x-trap", "panic").get("/").await.text(), "hello");
    faults("trap", 1.0).await;
    assert_eq!(client.clone().with("x-trap", "loop").get("/").await.text(), "hello");
    faults("cpu", 1.0).await;
    assert_eq!(client.get("/").await.text(), "hello");
    faults("open", 1.0).await;
    let open = json!([{ "route": "app", "hook": "log", "state": "open", "workers": 1 }]);
    assert_eq!(operator.plugin("audit").await["breakers"], open, "requests pass it all the same");
}

#[tokio::test]
async fn a_stop_waits_for_what_is_over_and_not_told_yet() {
    let (backend, collector) = (Backend::hello().await, Backend::hello().await);
    let gateway = TestGateway::start(&toml(backend.addr(), Some(&collector), ""));
    let client = gateway.client().with("host", "a1.test");
    join_all((0..50).map(async |_| assert_eq!(client.get("/").await.status, 200))).await;
    gateway.stop(Duration::from_secs(10)).await;
    assert_eq!(collector.heard().len(), 50);
}

#[tokio::test]
async fn plugins_count_for_themselves_within_bounds() {
    let backend = Backend::hello().await;
    let config = toml(backend.addr(), None, "limits = { series = 5 }\n");
    let gateway = TestGateway::start(&config);
    let (operator, client) = (gateway.operator(), gateway.client().with("host", "a1.test"));
    let seen = async |path: &str, count: f64| {
        eventually("so many exchanges", async || {
            let path = format!("path=\"{path}\"");
            let labels = ["status=\"200\"", &path];
            (of_audit(&operator, "vers_plugin_custom_exchanges_total", &labels).await == count).then_some(())
        })
        .await;
    };
    for _ in 0..3 {
        assert_eq!(client.get("/a").await.status, 200);
    }
    seen("/a", 3.0).await;
    assert_eq!(of_audit(&operator, "vers_plugin_custom_last_bytes", &[]).await, 5.0);
    assert_eq!(of_audit(&operator, "vers_plugin_custom_exchange_seconds_count", &[]).await, 3.0);

    gateway.write(&config.replace("series = 5", "series = 4"));
    gateway.reload().await.expect("a good configuration");
    assert_eq!(client.get("/a").await.status, 200);
    seen("/a", 4.0).await;
    // Two of the four are the gauge and the histogram.
    for number in 0..20 {
        assert_eq!(client.get(&format!("/b{number}")).await.status, 200);
    }
    eventually("19 are counted", async || {
        (of_audit(&operator, "vers_plugin_series_dropped_total", &[]).await == 19.0).then_some(())
    })
    .await;
    assert_eq!(of_audit(&operator, "vers_plugin_custom_exchanges_total", &[]).await, 5.0);
    assert_eq!(of_audit(&operator, "vers_plugin_custom_exchange_seconds_count", &[]).await, 24.0);
}
