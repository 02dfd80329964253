//! A story for a terminal.

use super::story::Story;

/// What would become of a request, thing by thing.
pub(super) fn text(story: &Story) -> String {
    let mut text = String::new();
    let mut row = |name: &str, value: &str| {
        for (number, line) in value.lines().enumerate() {
            let name = if number == 0 { name } else { "" };
            text.push_str(format!("{name:<9} {line}").trim_end());
            text.push('\n');
        }
    };
    row("request", &story.request);
    if let Some(place) = &story.listener {
        let tls = if place.tls { ", TLS" } else { "" };
        let address =
            if place.name == place.address { String::new() } else { format!(" on {}", place.address) };
        row("listener", &format!("{}{address}{tls}", place.name));
        if let Some(note) = place.note {
            row("", &format!("it {note}"));
        }
        if !place.others.is_empty() {
            row("", &format!("not asked about: {} (--listener)", place.others.join(", ")));
        }
    }
    match &story.route {
        Some(route) => {
            let captures = route.captures.iter().map(|(name, text)| format!(", {name} = {text}"));
            row("route", &format!("{}{}", route.name, captures.collect::<String>()));
        }
        None => row("route", "none"),
    }
    for other in &story.others {
        row("", &format!("not {}: {}", other.route, other.why));
    }
    plugins(story, &mut row);
    if let Some(goal) = &story.to {
        let servers = match goal.servers.as_slice() {
            [] => String::new(),
            [one] if *one == goal.name => String::new(),
            servers => format!(": {}", servers.join(", ")),
        };
        let by = if goal.by_plugin { ", chosen by a plugin" } else { "" };
        row("to", &format!("{}{by}{servers}", goal.name));
        if let Some(note) = goal.note {
            row("", note);
        }
        row("", &format!("asked for {} of {}", goal.target, goal.host));
    }
    if let Some(answer) = &story.answer {
        row("answer", format!("{} {}", answer.status, answer.why).trim_end());
    }
    text
}

/// What plugins make of the request, and of the answer.
fn plugins(story: &Story, row: &mut impl FnMut(&str, &str)) {
    for (number, step) in story.plugins.iter().enumerate() {
        let title = if number == 0 { "plugins" } else { "" };
        let says = step.says.as_ref().map(|says| format!(" {says}")).unwrap_or_default();
        let verdict = match step.verdict {
            "none" if step.sees_answers => "looks at answers only".to_owned(),
            "none" => "looks at no request".to_owned(),
            verdict if step.sees_answers => format!("{verdict}{says}; looks at the answer, too"),
            verdict => format!("{verdict}{says}"),
        };
        row(title, &format!("{}: {verdict}", step.plugin));
        for change in &step.changes {
            row("", &format!("  {change}"));
        }
    }
    for (number, look) in story.answers.iter().enumerate() {
        let title = if number == 0 { "answers" } else { "" };
        let says = look.says.as_ref().map(|says| format!(" {says}")).unwrap_or_default();
        row(title, &format!("{}: {}{says}", look.plugin, look.verdict));
        for change in &look.changes {
            row("", &format!("  {change}"));
        }
    }
}
