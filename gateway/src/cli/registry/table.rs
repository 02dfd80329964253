//! Entries as people read them. What others wrote cannot move a terminal's cursor.

use serde_json::Value;

const COLUMNS: [&str; 8] = ["ID", "NAME", "ROLE", "STATE", "ADDRESS", "SERVICES", "LAST SEEN", "WHY"];

/// One entry, or several.
pub(super) fn render(answer: &Value) -> String {
    let rows: Vec<[String; COLUMNS.len()]> = match answer.get("vms").and_then(Value::as_array) {
        Some(vms) => vms.iter().map(row).collect(),
        None => vec![row(answer)],
    };
    let widths: Vec<usize> = COLUMNS
        .iter()
        .enumerate()
        .map(|(column, title)| {
            let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
            cells.chain([title.len()]).max().unwrap_or_default()
        })
        .collect();
    let mut text = String::new();
    let mut titles = COLUMNS.map(str::to_owned);
    // Mostly, there is nothing to say of that.
    if let (true, [.., why]) = (rows.iter().all(|[.., why]| why.is_empty()), &mut titles) {
        why.clear();
    }
    for row in std::iter::once(&titles).chain(&rows) {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    if answer.get("stale").and_then(Value::as_bool) == Some(true) {
        text.push_str("stale: too many lapsed at once; some of these may not be there any more\n");
    }
    text
}

/// A change, in a line.
pub(super) fn change(change: &Value) -> String {
    let revision = change.get("revision").and_then(Value::as_u64).unwrap_or_default();
    match change.get("vm") {
        Some(vm) => format!("{revision}  {}\n", row(vm).join("  ").trim_end()),
        None => format!("{revision}  {}  gone\n", field(change, "id")),
    }
}

fn row(vm: &Value) -> [String; COLUMNS.len()] {
    let services = vm.get("services").and_then(Value::as_array).into_iter().flatten();
    let services = services.map(|service| {
        let port = service.get("port").map(ToString::to_string).unwrap_or_default();
        format!("{}:{port}", field(service, "name"))
    });
    // A registry without leases has no state but the status.
    let state = if vm.get("state").is_some() { field(vm, "state") } else { field(vm, "status") };
    [
        field(vm, "id"),
        field(vm, "name"),
        field(vm, "role"),
        state,
        field(vm, "address"),
        services.collect::<Vec<_>>().join(","),
        field(vm, "lastSeen"),
        vm.get("why").map(|_| field(vm, "why")).unwrap_or_default(),
    ]
}

fn field(value: &Value, key: &str) -> String {
    let text = value.get(key).and_then(Value::as_str).unwrap_or("-");
    text.chars().map(|char| if char.is_control() { '\u{fffd}' } else { char }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn columns_are_as_wide_as_they_must_be() {
        let vms = json!({ "vms": [
            { "id": "a", "name": "long name", "role": "worker", "state": "expired", "address": "a.test",
              "services": [{ "name": "api", "port": 80 }, { "name": "db", "port": 5432 }], "lastSeen": "now" },
            { "id": "b\u{1b}[2J", "name": "n", "role": "infra", "status": "running", "address": "b.test" },
        ] });
        assert_eq!(
            render(&vms),
            "ID     NAME       ROLE    STATE    ADDRESS  SERVICES        LAST SEEN\n\
             a      long name  worker  expired  a.test   api:80,db:5432  now\n\
             b\u{fffd}[2J  n          infra   running  b.test                   -\n"
        );
        let why = json!({ "id": "a", "name": "n", "role": "worker", "state": "unhealthy", "address": "a.test",
            "lastSeen": "now", "why": "api: it answered 500" });
        assert_eq!(
            render(&why),
            "ID  NAME  ROLE    STATE      ADDRESS  SERVICES  LAST SEEN  WHY\n\
             a   n     worker  unhealthy  a.test             now        api: it answered 500\n"
        );
        assert_eq!(change(&json!({ "revision": 7, "kind": "gone", "id": "a" })), "7  a  gone\n");
    }
}
