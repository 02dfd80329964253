//! The Date field (RFC 9110 §6.6.1), made once per second.

use crate::message::Fields;
use std::{
    cell::RefCell,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// The Date field, as it is written.
#[derive(Debug, Default)]
pub(super) struct Date(RefCell<(u64, String)>);

impl Date {
    /// Writes the line.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        self.with(|line| out.extend_from_slice(line.as_bytes()));
    }

    /// Adds the field.
    pub(super) fn add(&self, fields: &mut Fields) {
        self.with(|line| {
            let value = line.trim_end().strip_prefix("date: ").unwrap_or_default();
            fields.append(b"date", value.as_bytes());
        });
    }

    fn with(&self, then: impl FnOnce(&str)) {
        let now = SystemTime::now();
        let second = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
        let (made, line) = &mut *self.0.borrow_mut();
        if *made != second || line.is_empty() {
            *made = second;
            *line = format!("date: {}\r\n", httpdate::fmt_http_date(now));
        }
        then(line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_now() {
        let mut line = Vec::new();
        Date::default().write(&mut line);
        let line = String::from_utf8(line).expect("text");
        let date = line.strip_prefix("date: ").and_then(|line| line.strip_suffix("\r\n")).expect("a line");
        let made = httpdate::parse_http_date(date).expect("a date");
        assert!(
            SystemTime::now().duration_since(made).expect("not later than now") < Duration::from_secs(60)
        );
    }
}
