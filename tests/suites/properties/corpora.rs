//! What fuzzers found worth keeping, on every run of the tests.

use super::checks;
use std::{fs, path::Path};

#[track_caller]
fn all(target: &str, check: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files = 0;
    for entry in entries {
        let path = entry.expect("an entry").path();
        let bytes = fs::read(&path).expect("a file of the corpus");
        println!("{}", path.display());
        check(&bytes);
        files += 1;
    }
    assert!(files > 0, "{} is empty", folder.display());
}

#[test]
fn requests() {
    all("request", checks::request::check);
}

#[test]
fn answers() {
    all("response", checks::response::check);
}

#[test]
fn heads_of_http2() {
    all("downgrade", checks::downgrade::check);
}

#[test]
fn bodies() {
    all("body", checks::body::check);
}

#[test]
fn hosts() {
    all("authority", checks::authority::check);
}

#[test]
fn forwarding() {
    all("forwarding", checks::forwarding::check);
}

#[test]
fn hop_by_hop() {
    all("hop_by_hop", checks::hop_by_hop::check);
}

#[test]
fn handshakes() {
    all("handshake", checks::handshake::check);
}

#[test]
fn routes() {
    all("routes", checks::routes::check);
}

#[test]
fn configurations() {
    all("configuration", checks::configuration::check);
}

#[test]
fn cookies() {
    all("cookie", checks::cookie::check);
}

#[test]
fn proxy_headers() {
    all("proxy_header", checks::proxy_header::check);
}
