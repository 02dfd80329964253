//! What was found wrong so far, and which values no later stage needs to look at.

use std::ops::Range;

use super::diagnostic::{Diagnostic, Severity};

/// Collects diagnostics from all stages of reading a file.
#[derive(Debug, Default)]
pub(super) struct Report {
    found: Vec<Diagnostic>,
    spoiled: Vec<Range<usize>>,
}

impl Report {
    pub(super) fn add(&mut self, diagnostic: Diagnostic) {
        self.found.push(diagnostic);
    }

    /// Adds what is wrong with the whole value at `value`, so that nothing more is said of it.
    pub(super) fn spoil(&mut self, value: Range<usize>, diagnostic: Diagnostic) {
        self.spoiled.push(value);
        self.found.push(diagnostic);
    }

    pub(super) fn is_spoiled(&self, value: &Range<usize>) -> bool {
        self.spoiled.contains(value)
    }

    /// The warnings, or the errors if there are any; in the order of the file.
    pub(super) fn finish(mut self) -> Result<Vec<Diagnostic>, Vec<Diagnostic>> {
        self.found.sort_by_key(|diagnostic| diagnostic.span.start);
        let (errors, warnings): (Vec<_>, Vec<_>) =
            self.found.into_iter().partition(|found| found.severity == Severity::Error);
        if errors.is_empty() { Ok(warnings) } else { Err(errors) }
    }
}
