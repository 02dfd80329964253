//! One thing wrong with a configuration file, and how it looks on a terminal.

use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use super::Source;

/// Whether a gateway starts in spite of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The file cannot be used.
    Error,
    /// The file can be used, but probably does not say what was meant.
    Warning,
}

/// Something wrong at a place in a [`Source`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Error or warning.
    pub severity: Severity,
    /// What is wrong, in one line.
    pub message: String,
    /// Where, in bytes of the text.
    pub span: Range<usize>,
    /// Beside the caret: what was expected there. May be empty.
    pub label: String,
    /// What to do about it.
    pub help: Option<String>,
    /// Another place that has to do with it, and why.
    pub also: Option<(Range<usize>, String)>,
}

impl Diagnostic {
    /// An error at `span`.
    pub fn error(span: Range<usize>, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, span, message.into())
    }

    /// A warning at `span`.
    pub fn warning(span: Range<usize>, message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, span, message.into())
    }

    /// Sets the words beside the caret.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// Sets the line of advice.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Points to a second place.
    #[must_use]
    pub fn also(mut self, span: Range<usize>, label: impl Into<String>) -> Self {
        self.also = Some((span, label.into()));
        self
    }

    fn new(severity: Severity, span: Range<usize>, message: String) -> Self {
        Self { severity, message, span, label: String::new(), help: None, also: None }
    }
}

/// Prints diagnostics one below the other: message, `file:line:column`, the line, caret, advice.
pub fn render(source: &Source, diagnostics: &[Diagnostic], color: bool) -> String {
    let renderer = if color { Renderer::styled() } else { Renderer::plain() };
    // The renderer makes control characters of ASCII visible, and not those of Latin-1, which take as
    // many bytes as this dot: places stay where they are.
    let file = Source {
        name: source.name.clone(),
        text: source.text.replace(|char| matches!(char, '\u{80}'..='\u{9f}'), "·"),
    };
    let blocks: Vec<String> =
        diagnostics.iter().map(|diagnostic| renderer.render(&[group(&file, diagnostic)])).collect();
    let mut text = blocks.join("\n\n");
    if !text.is_empty() {
        text.push('\n');
    }
    text
}

fn group<'a>(source: &'a Source, diagnostic: &'a Diagnostic) -> Group<'a> {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let label = (!diagnostic.label.is_empty()).then(|| printable(&diagnostic.label));
    let primary = AnnotationKind::Primary.span(visible(&source.text, &diagnostic.span)).label(label);
    let mut snippet = Snippet::source(source.text.as_str()).path(source.name.as_str()).annotation(primary);
    if let Some((span, label)) = &diagnostic.also {
        let span = visible(&source.text, span);
        snippet = snippet.annotation(AnnotationKind::Context.span(span).label(printable(label)));
    }
    let group = level.primary_title(printable(&diagnostic.message)).element(snippet);
    match &diagnostic.help {
        Some(help) => group.element(Level::HELP.message(printable(help))),
        None => group,
    }
}

/// Messages repeat what was written: a terminal must not obey it.
fn printable(text: &str) -> String {
    text.replace(|char: char| char.is_control() && !matches!(char, '\n' | '\t'), "\u{fffd}")
}

/// The part of a span that one line can show, inside the text whatever the span says: an array over
/// many lines is pointed at by its first.
fn visible(text: &str, span: &Range<usize>) -> Range<usize> {
    let start = floor(text, span.start);
    let end = floor(text, span.end).max(start);
    let shown = text.get(start..end).unwrap_or_default();
    match shown.find(['\r', '\n']) {
        Some(line_end) => start..start + line_end,
        None => start..end,
    }
}

/// The nearest character boundary at or before `index`.
fn floor(text: &str, index: usize) -> usize {
    let mut index = index.min(text.len());
    while !text.is_char_boundary(index) {
        index -= 1;
    }
    index
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(text: &str, needle: &str) -> String {
        let start = text.find(needle).expect("the needle is in the text");
        let diagnostic = Diagnostic::error(start..start + needle.len(), "what").label("where").help("how");
        render(&Source::new("a.toml", text), &[diagnostic], false)
    }

    #[test]
    fn columns_are_characters_and_lines_may_end_in_crlf() {
        let text = rendered("a = 1\r\nname = \"é日\", bad = 1\r\n", "bad");
        assert_eq!(
            text,
            "error: what\n \
             --> a.toml:2:14\n  \
             |\n\
             2 | name = \"é日\", bad = 1\n  \
             |              ^^^ where\n  \
             |\n  \
             = help: how\n"
                .replace("|              ^^^", "|               ^^^"),
            "the caret stands one cell further than the column: a wide character takes two"
        );
    }

    #[test]
    fn a_span_over_lines_shows_its_first() {
        let text = rendered("a = [\n1,\n]\n", "[\n1,\n]");
        assert!(text.contains("1 | a = [\n  |     ^ where\n"), "{text}");
    }

    #[test]
    fn a_terminal_is_told_nothing_that_it_would_obey() {
        let odd = "a\u{1b}[2Jb\u{9b}2J";
        let diagnostic = Diagnostic::error(0..1, odd).label(odd).help(odd).also(2..3, odd);
        let text = render(&Source::new("a.toml", odd), &[diagnostic], false);
        assert!(!text.contains(|char: char| char.is_control() && char != '\n'), "{text:?}");
    }

    #[test]
    fn a_span_outside_the_text_does_not_panic() {
        for (start, end) in [(0, 0), (5, 9), (2, 1), (1, 2)] {
            let diagnostic = Diagnostic::warning(start..end, "what").also(7..8, "there");
            let text = render(&Source::new("a.toml", "é\n"), &[diagnostic], true);
            assert!(text.contains("what"), "{text}");
        }
        let empty = render(&Source::new("a.toml", ""), &[Diagnostic::error(0..0, "x")], false);
        assert!(empty.contains("a.toml:1:1"), "{empty}");
    }
}
