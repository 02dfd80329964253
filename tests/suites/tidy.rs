//! Habits of this repository that a machine can check: layers, first lines, and pages that say what
//! the code does.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};
use vers_gateway::{
    metrics::{Kind, names},
    proxy::ErrorCode,
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the checkout")
}

/// All files below a folder of the checkout, but for what is built and what git keeps.
fn files(folder: &str) -> Vec<PathBuf> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.expect("an entry").path();
            match path.file_name().and_then(|name| name.to_str()) {
                Some("target" | ".git") => {}
                _ if path.is_dir() => walk(&path, found),
                _ => found.push(path),
            }
        }
    }
    let mut found = Vec::new();
    walk(&root().join(folder), &mut found);
    found.sort();
    assert!(!found.is_empty(), "{folder} has no files");
    found
}

fn rust_files(folder: &str) -> Vec<PathBuf> {
    let is_rust = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "rs");
    files(folder).into_iter().filter(is_rust).collect()
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

/// A file's code with the numbers of its lines: without comments, and without the tests at its end.
fn code(path: &Path) -> Vec<(usize, String)> {
    let text = fs::read_to_string(path).expect("a source");
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let lines = code.lines().enumerate().map(|(index, line)| (index + 1, line));
    lines
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
        .map(|(number, line)| (number, line.split(" // ").next().unwrap_or_default().to_owned()))
        .collect()
}

/// Whether a word stands in a line by itself.
fn names(line: &str, word: &str) -> bool {
    let is_part = |char: char| char.is_alphanumeric() || char == '_';
    line.match_indices(word)
        .any(|(at, _)| !line[..at].ends_with(is_part) && !line[at + word.len()..].starts_with(is_part))
}

#[test]
fn every_source_says_what_it_owns() {
    let silent: Vec<String> = ["gateway", "plugin-sdk", "plugins", "tests", "xtask"]
        .into_iter()
        .flat_map(rust_files)
        .filter(|path| !fs::read_to_string(path).expect("a source").starts_with("//! "))
        .map(|path| shown(&path))
        .collect();
    assert!(silent.is_empty(), "these do not begin with `//! ` and what they own: {silent:#?}");
}

/// The floors of `gateway/src`, lowest first. A module imports only from floors below its own, and
/// never from a sibling.
const FLOORS: [&[&str]; 8] = [
    &["ids", "io", "drain", "message", "metrics", "networks", "ports"],
    &["config", "http1", "proxy_protocol"],
    &["http2"],
    &[
        "acme", "listen", "tls", "route", "headers", "plugins", "upstream", "vms", "registry", "relay",
        "sniff",
    ],
    &["snapshot"],
    &["proxy"],
    &["server"],
    &["cli", "main"],
];

fn floor(module: &str) -> usize {
    let found = FLOORS.iter().position(|floor| floor.contains(&module));
    found.unwrap_or_else(|| {
        panic!("`{module}` stands on no floor: give it one here and in docs/architecture.md")
    })
}

/// The module of `gateway/src` that a file belongs to.
fn module(path: &Path) -> String {
    let inside = path.strip_prefix(root().join("gateway/src")).expect("a file of the gateway");
    let first = inside.components().next().expect("a component").as_os_str().to_string_lossy();
    first.trim_end_matches(".rs").to_owned()
}

/// The modules that code names after `crate::`, also in braces.
fn imported(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, prefix) in code.match_indices("crate::") {
        let rest = &code[at + prefix.len()..];
        match rest.strip_prefix('{') {
            Some(group) => found.extend(heads(group)),
            None => found.extend(identifier(rest)),
        }
    }
    found
}

/// The first identifier of each path in a group, up to its closing brace.
fn heads(group: &str) -> Vec<String> {
    let (mut depth, mut start) = (0, 0);
    let mut found = Vec::new();
    for (at, char) in group.char_indices() {
        match char {
            '{' => depth += 1,
            '}' if depth == 0 => {
                found.extend(identifier(&group[start..at]));
                return found;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                found.extend(identifier(&group[start..at]));
                start = at + 1;
            }
            _ => {}
        }
    }
    panic!("a brace is missing in {group}")
}

fn identifier(path: &str) -> Option<String> {
    let path = path.trim_start();
    let end = path.find(|char: char| !(char.is_alphanumeric() || char == '_')).unwrap_or(path.len());
    (end > 0).then(|| path[..end].to_owned())
}

#[test]
fn imports_are_found_in_all_their_forms() {
    let code = "use crate::{\n    a::{b, c},\n    d,\n    e::f::{self, g},\n};\nuse crate::h::i;\nlet j = crate::k::l();";
    let expected = ["a", "d", "e", "h", "k"].map(str::to_owned);
    assert_eq!(imported(code), BTreeSet::from(expected));
}

#[test]
fn modules_import_only_from_floors_below() {
    let mut wrong = Vec::new();
    for path in rust_files("gateway/src") {
        let own = module(&path);
        if own == "lib" {
            continue;
        }
        let lines: Vec<String> = code(&path).into_iter().map(|(_, line)| line).collect();
        for other in imported(&lines.join("\n")) {
            if other != own && floor(&other) >= floor(&own) {
                wrong.push(format!("{} imports `{other}`", shown(&path)));
            }
        }
    }
    assert!(wrong.is_empty(), "not from a lower floor: {wrong:#?}");
}

#[test]
fn the_floors_are_those_of_the_library_and_of_the_map() {
    let library = fs::read_to_string(root().join("gateway/src/lib.rs")).expect("the library");
    let mut declared: Vec<(&str, usize)> = Vec::new();
    let mut floor_now = 0;
    for line in library.lines() {
        if let Some(rest) = line.strip_prefix("// Floor ") {
            floor_now = rest.split(':').next().and_then(|n| n.parse().ok()).expect("a number");
        } else if let Some(name) = line.strip_prefix("pub mod ") {
            declared.push((name.trim_end_matches(';'), floor_now));
        }
    }
    assert!(declared.len() > 10, "{declared:?}");
    let map = fs::read_to_string(root().join("docs/architecture.md")).expect("the map");
    for (module, declared) in declared {
        assert_eq!(declared, floor(module), "lib.rs puts `{module}` on another floor");
        let on_map = map.lines().any(|line| {
            line.starts_with(&format!("| {declared} |"))
                && [format!("`{module}/`"), format!("`{module}.rs`")].iter().any(|name| line.contains(name))
        });
        assert!(on_map, "docs/architecture.md does not show `{module}` on floor {declared}");
    }
}

/// Asserts that lines of the gateway's code in which `is_there` holds are below these paths only.
#[track_caller]
fn only_in(places: &[&str], what: &str, is_there: impl Fn(&str) -> bool) {
    let mut elsewhere = Vec::new();
    let mut seen = false;
    for path in rust_files("gateway/src") {
        let inside = shown(&path);
        let allowed = places.iter().any(|place| inside.starts_with(&format!("gateway/src/{place}")));
        for (number, _) in code(&path).iter().filter(|(_, line)| is_there(line)) {
            seen = true;
            if !allowed {
                elsewhere.push(format!("{inside}:{number}"));
            }
        }
    }
    assert!(seen, "{what} is nowhere: this test looks for the wrong thing");
    assert!(elsewhere.is_empty(), "{what} belongs to {places:?}, and is named in {elsewhere:#?}");
}

#[test]
fn each_great_dependency_has_one_home() {
    only_in(&["plugins/"], "wasmtime", |line| {
        ["wasmtime", "wasmtime_wasi", "wasmtime_wasi_http"].iter().any(|word| names(line, word))
    });
    only_in(&["tls/"], "rustls", |line| line.contains("rustls"));
    // The module of that name in `proxy` has one door.
    only_in(&["http2/"], "h2", |line| line.contains("h2::") && !line.contains("h2::serve("));
    only_in(&["acme/"], "instant-acme", |line| names(line, "instant_acme"));
    only_in(&["registry/"], "redb", |line| names(line, "redb"));
    only_in(&["config/"], "toml", |line| line.contains("toml::"));
}

#[test]
fn only_the_command_line_prints_and_exits() {
    let prints = ["print!(", "println!(", "eprint!(", "eprintln!(", "dbg!("];
    let speaks = ["stdout()", "process::exit", "ExitCode", "process::abort"];
    only_in(&["cli/", "main.rs"], "printing", |line| {
        prints.iter().chain(&speaks).any(|word| line.contains(word))
    });
}

#[test]
fn the_path_of_a_request_reads_no_file_and_takes_no_lock() {
    let forbidden = ["std::fs", "tokio::fs", "Mutex", "RwLock", "File::", "spawn_blocking", "block_on"];
    for module in ["proxy", "route", "headers", "upstream", "io"] {
        for path in rust_files(&format!("gateway/src/{module}")) {
            for (number, line) in code(&path) {
                let found = forbidden.iter().find(|word| line.contains(**word));
                assert!(found.is_none(), "{}:{number}: {found:?}", shown(&path));
            }
        }
    }
}

#[test]
fn no_file_names_a_place_of_one_machine() {
    let places = ["home", "root", "work", "Users"].map(|name| format!("/{name}/"));
    let mut found = Vec::new();
    for path in files(".") {
        // What is no text holds no path that a person wrote.
        let Ok(text) = fs::read_to_string(&path) else { continue };
        for (index, line) in text.lines().enumerate() {
            if let Some(place) = places.iter().find(|place| line.contains(place.as_str())) {
                found.push(format!("{}:{}: {place}", shown(&path), index + 1));
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

fn page(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The cells of all rows of tables on a page.
fn rows(page: &str) -> Vec<Vec<&str>> {
    let rows = page.lines().filter_map(|line| line.strip_prefix('|')?.strip_suffix('|'));
    rows.map(|row| row.split('|').map(str::trim).collect()).collect()
}

#[test]
fn every_metric_has_its_row_and_every_row_its_metric() {
    let page = page("docs/operations.md");
    let printed = |name: &names::Name| match name.kind {
        Kind::Counter => format!("`{}_total`", name.name),
        Kind::Gauge | Kind::Histogram => format!("`{}`", name.name),
    };
    let known: BTreeSet<String> = names::ALL.iter().map(|name| printed(name)).collect();
    let rows = rows(&page);
    let told: BTreeSet<String> =
        rows.iter().map(|row| row[0].to_owned()).filter(|name| name.starts_with("`vers_")).collect();
    assert_eq!(told, known);
}

#[test]
fn every_error_code_has_its_row_with_its_status() {
    let page = page("docs/operations.md");
    let rows = rows(&page);
    for code in ErrorCode::ALL {
        let (name, status) = (format!("`{}`", code.as_str()), code.status().as_u16().to_string());
        let row = rows.iter().find(|row| row[0] == name).unwrap_or_else(|| panic!("no row for {name}"));
        assert_eq!(row[1], status, "{name}");
    }
}

#[test]
fn every_field_of_the_access_log_has_its_row() {
    let source = fs::read_to_string(root().join("gateway/src/proxy/access.rs")).expect("the access log");
    let written = source.split("target: TARGET,").nth(1).and_then(|rest| rest.split(");").next());
    let written = written.expect("the call that writes the line");
    let page = page("docs/operations.md");
    let told: BTreeSet<&str> = rows(&page).iter().flat_map(|row| row[0].split(", ")).collect();
    let mut fields = 0;
    for line in written.lines().filter_map(|line| line.trim().strip_suffix(',')) {
        let field = line.split(" = ").next().unwrap_or_default().trim_start_matches(['%', '?']);
        assert!(told.contains(format!("`{field}`").as_str()), "no row for {field}");
        fields += 1;
    }
    assert!(fields > 10, "the fields are written in another way: {written}");
}

#[test]
fn every_link_of_a_page_leads_somewhere() {
    let mut broken = Vec::new();
    for path in files(".") {
        if path.extension().is_none_or(|extension| extension != "md") {
            continue;
        }
        let text = fs::read_to_string(&path).expect("a page");
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { path.clone() } else { path.with_file_name("").join(file) };
            if !target.exists() {
                broken.push(format!("{}: {link}", shown(&path)));
            } else if !anchor.is_empty()
                && !anchors(&fs::read_to_string(&target).expect("a page")).contains(anchor)
            {
                broken.push(format!("{}: {link} (no such heading)", shown(&path)));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

/// The anchors of a page's headings, as they are made from them everywhere.
fn anchors(page: &str) -> BTreeSet<String> {
    let headings =
        page.lines().filter_map(|line| line.strip_prefix('#')).map(|line| line.trim_start_matches('#'));
    headings
        .map(|heading| {
            let kept = heading.trim().to_lowercase().replace(' ', "-");
            kept.chars().filter(|char| char.is_alphanumeric() || matches!(char, '-' | '_')).collect()
        })
        .collect()
}
