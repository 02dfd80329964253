//! Words that users may write though this version does not have them.

/// Keys and values that later versions have. A table of nested keys has a dot.
const LATER: &[(&str, &[&str])] = &[
    ("", &["telemetry"]),
    ("route.protocol", &["ssh", "any"]),
    ("backend", &["dns"]),
    ("plugin.grants", &["registry", "env", "wasi"]),
];

/// What other gateways call it, and what it is called here.
const ELSEWHERE: &[(&str, &[&str], &str)] = &[
    ("", &["server", "listen", "entrypoint"], "listener"),
    ("", &["location", "rule"], "route"),
    ("", &["upstream", "service", "cluster", "pool"], "backend"),
    ("", &["filter", "middleware", "wasm"], "plugin"),
    ("", &["tls", "cert", "ssl"], "certificate"),
    ("", &["env", "credential"], "secret"),
    ("gateway", &["data_dir", "storage", "state"], "state_dir"),
    ("listener", &["ssl", "https", "secure"], "tls"),
    ("listener", &["client_certificate", "ssl_client_certificate", "mtls", "trusted_ca"], "client_ca"),
    ("listener", &["verify_client", "ssl_verify_client"], "client_auth"),
    ("certificate", &["certificate", "cert_file", "chain", "fullchain", "ssl_certificate", "crt"], "cert"),
    ("certificate", &["private_key", "key_file", "privkey", "ssl_certificate_key"], "key"),
    ("certificate", &["domains", "hosts", "sni", "server_name"], "names"),
    ("certificate", &["letsencrypt", "lets_encrypt", "auto", "automatic"], "acme"),
    ("certificate.acme", &["names", "hosts"], "domains"),
    ("certificate.acme", &["url", "server", "directory_url"], "directory"),
    ("certificate.acme", &["contact", "mail"], "email"),
    ("certificate.acme", &["agree_tos", "accept_terms", "tos_agreed"], "terms_agreed"),
    ("certificate", &["internal", "selfsigned", "dev"], "self_signed"),
    ("certificate", &["stapling", "ocsp_file"], "ocsp"),
    ("listener", &["listen", "bind", "addr", "port", "host"], "address"),
    ("listener", &["allow_ports", "allowed_ports"], "ports"),
    ("listener", &["accept_proxy", "proxy", "accept_proxy_protocol"], "proxy_protocol"),
    ("listener", &["transparent", "redirect"], "original_destination"),
    ("route", &["upstream", "backend", "target", "proxy_pass", "forward", "service", "url"], "to"),
    ("route", &["domain", "hostname", "server_name", "sni"], "host"),
    ("route", &["location", "uri", "prefix"], "path"),
    ("route", &["middleware", "middlewares", "filters"], "plugins"),
    ("route.limits", &["body_size", "max_body", "max_body_size", "client_max_body_size"], "body"),
    ("limits", &["connections_per_ip", "per_client", "per_ip", "limit_conn"], "connections_per_client"),
    ("listener", &["connections_per_ip", "per_client", "per_ip", "limit_conn"], "connections_per_client"),
    ("backend", &["dns"], "servers"),
    ("backend", &["url", "urls", "targets", "endpoints", "address", "addresses"], "servers"),
    ("backend", &["http2", "h2c", "grpc", "scheme"], "protocol"),
    ("limits", &["streams", "max_concurrent_streams", "http2_max_concurrent_streams"], "http2_streams"),
    ("limits", &["bodies", "body_memory", "client_body_buffer_size", "buffered_bodies"], "held_bodies"),
    ("backend", &["ssl", "https", "secure", "upstream_tls"], "tls"),
    ("backend", &["host_header", "preserve_host", "header_up"], "host"),
    ("backend.tls", &["server_name", "sni", "hostname", "host", "proxy_ssl_name"], "name"),
    ("backend.tls", &["trusted_ca", "cafile", "ca_file", "root_ca", "roots", "trusted_certificate"], "ca"),
    ("backend.tls", &["certificate", "cert_file", "client_cert", "crt"], "cert"),
    ("backend.tls", &["private_key", "key_file", "client_key"], "key"),
    ("backend", &["lb", "policy", "strategy"], "balance"),
    ("backend", &["sticky", "affinity", "hash"], "balance"),
    ("backend", &["health_check", "healthcheck", "check"], "health"),
    ("backend", &["outlier_detection", "passive_health"], "ejection"),
    ("backend.limits", &["max_connections", "max_conns", "maxconn"], "connections"),
    ("backend.limits", &["queue", "max_pending"], "pending"),
    ("backend.health", &["uri", "url"], "path"),
    ("route", &["retry"], "retries"),
    ("", &["vm"], "vms"),
    ("backend", &["send_proxy", "proxy", "send_proxy_protocol"], "proxy_protocol"),
    ("vms", &["static", "hosts", "map", "list"], "table"),
    ("vms", &["path", "csv"], "file"),
    ("vms", &["template", "domain", "name"], "dns"),
    ("vms", &["resolvers", "servers", "nameserver", "dns_servers"], "nameservers"),
    ("vms", &["ipv4"], "allow_ipv4"),
    ("registry", &["file", "path", "storage", "database", "backend"], "store"),
    ("registry", &["lease", "expiry", "expires", "timeout"], "ttl"),
    ("registry", &["keep", "retain"], "retention"),
    ("registry", &["secret", "auth", "auth_token"], "token"),
    ("registry", &["strict", "conflict"], "strict_conflict"),
    ("plugin", &["path", "file", "wasm", "module", "source", "url"], "component"),
    ("plugin", &["settings", "options", "configuration"], "config"),
    ("plugin", &["permissions", "capabilities", "allow"], "grants"),
    ("plugin", &["checksum", "hash", "digest"], "sha256"),
    ("plugin", &["fail", "failure_mode"], "on_error"),
    ("", &["app", "handler", "function", "component"], "origin"),
    ("origin", &["path", "file", "wasm", "module", "source", "url"], "component"),
    ("origin", &["environment", "envs", "variables"], "env"),
    ("origin", &["secrets", "env_secrets"], "secret_env"),
    ("origin", &["permissions", "capabilities", "allow", "allowed_outbound_hosts"], "grants"),
    ("origin", &["checksum", "hash", "digest"], "sha256"),
    ("origin.limits", &["fuel", "timeout", "time"], "cpu"),
    ("origin.limits", &["concurrent", "max_instances", "pool"], "instances"),
    ("secret", &["variable", "var"], "env"),
    ("secret", &["path"], "file"),
    ("admin", &["listen", "bind", "port"], "address"),
];

/// What to write for a key that has to be there.
const EXAMPLES: &[(&str, &str, &str)] = &[
    ("listener", "address", "\"[::]:8080\""),
    ("route", "to", "\"127.0.0.1:3000\""),
    ("route.to.redirect", "to", "\"https://example.com/\""),
    ("route.plugins", "use", "\"auth\""),
    ("backend", "servers", "[\"127.0.0.1:3000\"]"),
    ("plugin", "component", "\"plugins/auth_token.wasm\""),
    ("origin", "component", "\"app.wasm\""),
];

/// Whether a later version has this key in this table, or this word for this key.
pub(super) fn is_later(table: &str, word: &str) -> bool {
    LATER.iter().any(|(place, words)| *place == table && words.contains(&word))
}

/// The key of ours that does what `word` does elsewhere.
pub(super) fn ours(table: &str, word: &str) -> Option<&'static str> {
    ELSEWHERE
        .iter()
        .find(|(place, words, _)| *place == table && words.contains(&word))
        .map(|(_, _, ours)| *ours)
}

/// What to write for a key that has to be there.
pub(super) fn example(table: &str, key: &str) -> Option<&'static str> {
    EXAMPLES.iter().find(|(place, name, _)| *place == table && *name == key).map(|(_, _, example)| *example)
}
