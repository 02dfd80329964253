//! Whole files to values: what a key means, what its default is, where it stands.

use std::time;

use super::{
    AdminAddress, Balance, Config, ListenerProtocol, LogFormat, LogLevel, OnError, RouteProtocol,
    SecretSource, Source, Target, parse, render,
};

#[track_caller]
fn config(text: &str) -> Config {
    let source = Source::new("test.toml", text);
    let env = |name: &str| (name == "VERS_VM_ID").then(|| "vm-1".to_owned());
    parse(&source, &env).unwrap_or_else(|errors| panic!("{}", render(&source, &errors, false)))
}

#[track_caller]
fn errors(text: &str) -> Vec<String> {
    let source = Source::new("test.toml", text);
    let errors = parse(&source, &|_| None).expect_err("errors");
    errors.into_iter().map(|error| error.message).collect()
}

const MINIMAL: &str = "[[listener]]\naddress = \"[::]:8080\"\n[[route]]\nto = \"127.0.0.1:3000\"\n";

#[test]
fn a_small_file_has_all_defaults() {
    let config = config(MINIMAL);
    assert_eq!(config.gateway.workers, None);
    assert_eq!(config.gateway.shutdown_grace.get(), time::Duration::from_secs(30));
    assert_eq!(config.gateway.vm_id.as_deref(), Some("vm-1"), "from the environment");
    assert_eq!(config.log.level, LogLevel::Info);
    assert!(config.log.access && config.log.format == LogFormat::Human);
    assert_eq!(config.admin.address, None);
    assert_eq!(config.limits.header_size.get(), 65_536);
    assert_eq!((config.limits.headers, config.limits.connections), (100, 20_000));
    let listener = &config.listeners[0];
    assert_eq!((listener.label().as_str(), listener.protocol), ("[::]:8080", ListenerProtocol::Auto));
    assert_eq!(*listener.timeouts.head, time::Duration::from_secs(30));
    let route = &config.routes[0];
    assert_eq!((route.label(0).as_str(), route.protocol), ("route 1", RouteProtocol::Http));
    assert_eq!(route.to.get_ref(), &Target::Address("127.0.0.1:3000".to_owned()));
    assert_eq!(*route.timeouts.tunnel, time::Duration::from_secs(3600));
    assert_eq!(config.warnings, []);
}

#[test]
fn a_large_file_has_what_it_says() {
    let text = include_str!("../../../tests/config/valid/every_key.toml");
    let config = config(text);
    assert_eq!(config.gateway.workers, Some(4));
    assert!(config.gateway.shutdown_grace.is_zero());
    assert_eq!(config.gateway.trusted_proxies[1].to_string(), "2001:db8::1/128");
    let admin = config.admin.address.expect("an address").into_inner();
    assert_eq!(admin, AdminAddress::Unix("/run/vers-gateway/admin.sock".into()));
    let [api, health, old, .., database] = config.routes.as_slice() else { panic!("several routes") };
    assert_eq!(api.to.get_ref(), &Target::Backend("app".to_owned()));
    assert_eq!(api.plugins[1].get_ref().on_error, Some(OnError::Skip));
    let Target::Respond(respond) = health.to.get_ref() else { panic!("an answer") };
    assert_eq!(respond.body, "fine, ${not a variable}");
    let Target::Redirect(redirect) = old.to.get_ref() else { panic!("a redirect") };
    assert_eq!(*redirect.status.get_ref(), 301);
    assert_eq!(database.to.get_ref(), &Target::Address("[::1]:5432".to_owned()), "from the default");
    assert_eq!(config.backends["app"].balance, Balance::Random);
    assert!(matches!(&config.backends["users"].balance, Balance::Header(name) if name.get_ref() == "x-user"));
    assert_eq!(config.backends["app"].keepalive.connections, 16);
    let auth = &config.plugins["auth"];
    assert_eq!(auth.limits.memory.get(), 16 << 20);
    assert_eq!(config.secrets["fleet"].source, SecretSource::Env("VERS_AUTH_TOKEN".to_owned()));
}

#[test]
fn places_are_those_of_the_file() {
    let text = include_str!("../../../tests/config/valid/every_key.toml");
    let config = config(text);
    let at = |span: std::ops::Range<usize>| &text[span];
    assert_eq!(at(config.plugins["auth"].name.span()), "auth");
    assert_eq!(at(config.backends["app"].servers[1].span()), "\"[::1]:3000\"");
    assert_eq!(at(config.routes[0].plugins[0].get_ref().name.span()), "\"auth\"");
    let plugin_config = config.plugins["auth"].config.as_ref().expect("a config");
    assert_eq!(at(plugin_config.span()), "[plugin.auth.config]");
    assert_eq!(plugin_config.span_of("services.0.port").map(at), Some("3000"));
}

#[test]
fn equal_files_are_equal_wherever_their_tables_stand() {
    let moved = format!("# A comment moves everything.\n{MINIMAL}");
    assert_eq!(config(MINIMAL), config(&moved));
}

#[test]
fn one_mistake_is_told_once() {
    for (text, expected) in [
        (
            "[[listener]]\nadress = \"[::]:1\"\n[[route]]\nto = \"a:1\"\n",
            "unknown key `adress` in `[[listener]]`",
        ),
        (
            "[[listener]]\naddress = 1\n[[route]]\nto = \"a:1\"\nlisteners = []\nlistener_port = 1\n",
            "`1` is not an address",
        ),
        (
            "[[listener]]\naddress = \"[::]:1\"\n[[route]]\nto = \"app\"\n[backend.app]\nserver = [\"a:1\"]\n",
            "unknown key `server` in `[backend.app]`",
        ),
        (
            "[[listener]]\naddress = \"[::]:1\"\n[[route]]\nto = \"app\"\n[backend.app]\nservers = [1]\n",
            "an item of `servers` cannot be `1`",
        ),
        (
            "[[listener]]\naddress = \"[::]:1\"\n[[route]]\nto = { redirect = { too = \"/\" } }\n",
            "unknown key `too` in `to.redirect` of `[[route]]`",
        ),
        (
            "[[listener]]\naddress = \"[::]:1\"\n[[route]]\nto = \"${A}\"\n",
            "environment variable `A` is not set",
        ),
    ] {
        assert_eq!(errors(text), [expected], "for {text}");
    }
}

#[test]
fn the_line_of_a_misplaced_secret_is_not_shown() {
    let text = format!("{MINIMAL}[secret.fleet]\nvalue = \"hunter2\"\n");
    let source = Source::new("test.toml", text);
    let errors = parse(&source, &|_| None).expect_err("errors");
    let shown = render(&source, &errors, false);
    assert!(shown.contains("unknown key `value`") && !shown.contains("hunter2"), "{shown}");
}
