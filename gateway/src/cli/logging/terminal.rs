//! The fields of a log line for somebody who reads along: texts of several lines stay so.

use std::fmt::{self, Debug};
use tracing::field::{Field, Visit};
use tracing_subscriber::{
    field::RecordFields,
    fmt::{FormatFields, format::Writer},
};

/// Writes a line's message and its fields; texts of several lines stand below them.
#[derive(Debug)]
pub(super) struct Lines;

impl<'w> FormatFields<'w> for Lines {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut said = Said::default();
        fields.record(&mut said);
        writer.write_str(&said.line)?;
        writer.write_str(&said.below)
    }
}

#[derive(Default)]
struct Said {
    line: String,
    below: String,
}

impl Visit for Said {
    fn record_str(&mut self, field: &Field, value: &str) {
        match value.trim_end() {
            // Nothing to say.
            "" => {}
            text if text.contains('\n') => {
                for line in text.lines() {
                    self.below.push_str("\n    ");
                    self.below.push_str(line);
                }
            }
            text => self.record_debug(field, &format_args!("{text}")),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        use fmt::Write as _;
        let gap = if self.line.is_empty() { "" } else { " " };
        // Writing to a text cannot fail.
        let _ = match field.name() {
            "message" => write!(self.line, "{gap}{value:?}"),
            name => write!(self.line, "{gap}{name}={value:?}"),
        };
    }
}
