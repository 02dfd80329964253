//! The configuration: any text has a meaning, or errors with places in it.

use vers_gateway::config::{Diagnostic, Source, parse, render};

/// Panics where a rule is broken.
pub(crate) fn check(bytes: &[u8]) {
    let source = Source::new("gateway.toml", String::from_utf8_lossy(bytes));
    let env = |name: &str| match name {
        "SET" => Some("${NOT_AGAIN}\"\n".to_owned()),
        "EMPTY" => Some(String::new()),
        _ => None,
    };
    let read = parse(&source, &env);
    match &read {
        Ok(config) => told(&source, &config.warnings),
        Err(errors) => {
            assert!(!errors.is_empty(), "refused without a word");
            told(&source, errors);
        }
    }
    assert_eq!(parse(&source, &env), read, "read twice");
}

/// Every place is one, and can be shown.
fn told(source: &Source, diagnostics: &[Diagnostic]) {
    for diagnostic in diagnostics {
        let places = [Some(&diagnostic.span), diagnostic.also.as_ref().map(|(place, _)| place)];
        for place in places.into_iter().flatten() {
            assert!(source.text.get(place.clone()).is_some(), "{place:?} of {}", source.text.len());
        }
        assert!(!diagnostic.message.is_empty());
    }
    let shown = render(source, diagnostics, false);
    assert_eq!(shown.is_empty(), diagnostics.is_empty());
    assert!(!shown.contains(|char: char| char.is_control() && !matches!(char, '\n' | '\t')), "{shown:?}");
    // Other characters are shown in other ways.
    let is_plain = |message: &&str| message.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
    for message in diagnostics.iter().map(|diagnostic| diagnostic.message.as_str()).filter(is_plain) {
        assert!(shown.contains(message), "{shown}");
    }
}
