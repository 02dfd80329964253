//! `schema`: the JSON Schema of the configuration, on standard output.

use super::Exit;
use crate::config;
use std::io::Write as _;

pub(super) fn print() -> Exit {
    let schema = format!("{:#}\n", config::json_schema());
    // A reader that has seen enough (`| head`) is no failure.
    let _ = std::io::stdout().write_all(schema.as_bytes());
    Exit::Fine
}
