//! What a plugin cannot reach without a grant, whatever its standard library offers; and what of others'
//! never.

use gateway_tests::{Backend, TestGateway, guest, one_route, plugin_table};

/// Two plugins of the same component, each on a route of its own, with these grants; and secrets.
fn toml(backend: &Backend, mine: &str, theirs: &str) -> String {
    let table = |name: &str, grants: &str| {
        plugin_table(name, &guest("escape"), &format!("grants = {{ {grants} }}\n"))
    };
    let to = backend.addr();
    one_route(
        to,
        &format!(
            "plugins = [\"mine\"]\n[[route]]\nname = \"theirs\"\npath = \"/theirs\"\nto = \"{to}\"\nplugins = [\"theirs\"]\n\
             [secret.mine]\nfile = \"mine.txt\"\n[secret.theirs]\nfile = \"theirs.txt\"\n{}{}",
            table("mine", mine),
            table("theirs", theirs),
        ),
    )
}

const FILES: [(&str, &str); 2] = [("mine.txt", "my own"), ("theirs.txt", "theirs")];

async fn tried(gateway: &TestGateway, path: &str, what: (&str, &str)) -> String {
    let client = gateway.client().with("x-try", what.0).with("x-what", what.1);
    let answer = client.get(path).await;
    assert_eq!(answer.status, 200, "{what:?}: {}", answer.text());
    answer.text()
}

#[tokio::test]
async fn a_plugin_has_no_files_no_environment_and_no_sockets() {
    let backend = Backend::hello().await;
    let grants = format!("http = [\"http://{}\"], secrets = [\"mine\"], kv = \"1KiB\"", backend.addr());
    let gateway = TestGateway::with_files(&toml(&backend, &grants, &grants), &FILES);
    let file = gateway.folder().join("gateway.toml");
    let (file, address) = (file.to_str().expect("text").to_owned(), backend.addr().to_string());
    let new = gateway.folder().join("new");
    assert!(std::env::vars().count() > 0, "this process has an environment");
    for what in [
        ("environment", ""),
        ("arguments", ""),
        ("read", file.as_str()),
        ("read", "gateway.toml"),
        ("write", new.to_str().expect("text")),
        ("list", "/"),
        ("list", "."),
        ("connect", &address),
        ("listen", ""),
        ("udp", ""),
        ("resolve", "localhost"),
    ] {
        assert_eq!(tried(&gateway, "/", what).await, "refused", "{what:?}");
    }
    assert!(!new.exists());
    assert_eq!(backend.connections(), 0, "nothing came through");
}

#[tokio::test]
async fn grants_reach_as_far_as_they_say_and_no_further() {
    let (backend, other) = (Backend::hello().await, Backend::hello().await);
    let (to, elsewhere) = (backend.addr(), other.addr());
    let mine = format!("http = [\"http://{to}\"], secrets = [\"mine\"], kv = \"1KiB\"");
    let theirs = format!("http = [\"http://{elsewhere}\"], secrets = [\"theirs\"], kv = \"1KiB\"");
    let gateway = TestGateway::with_files(&toml(&backend, &mine, &theirs), &FILES);
    for (path, what, got) in [
        ("/", ("http", format!("http://{to}/")), "200"),
        ("/", ("http", format!("http://{elsewhere}/")), "refused"),
        ("/theirs", ("http", format!("http://{elsewhere}/")), "200"),
        ("/", ("secret", "mine".to_owned()), "my own"),
        ("/", ("secret", "theirs".to_owned()), "refused"),
        ("/", ("compare", "theirs".to_owned()), "refused"),
        ("/theirs", ("compare", "theirs".to_owned()), "matches"),
        ("/theirs", ("set", String::new()), "set"),
        ("/theirs", ("get", String::new()), "mine"),
        ("/", ("get", String::new()), "refused"),
    ] {
        assert_eq!(tried(&gateway, path, (what.0, &what.1)).await, got, "{path} {what:?}");
    }
}

/// Each import that takes a grant, taken away from a plugin that has the others.
#[tokio::test]
async fn without_a_grant_a_component_is_not_loaded_at_all() {
    let backend = Backend::hello().await;
    let all = ["http = [\"http://localhost:1\"]", "secrets = [\"mine\"]", "kv = \"1KiB\""];
    for (missing, import) in ["outbound-http", "secrets", "kv"].into_iter().enumerate() {
        let others: Vec<&str> =
            all.iter().enumerate().filter(|(at, _)| *at != missing).map(|(_, grant)| *grant).collect();
        let config = toml(&backend, &others.join(", "), &all.join(", "));
        let refused =
            TestGateway::prepared(&config, false, &FILES).expect_err("it is not granted").to_string();
        let words = format!("it imports `vers:gateway/{import}@0.1.0`, which is not granted");
        assert!(refused.contains(&words), "{refused}");
    }
}
