//! Durations as operators write them: `"15s"`.
//!
//! As a field of a configuration, `#[serde(with = "duration")]` reads it:
//!
//! ```
//! use std::time::Duration;
//! use vers_plugin::{prelude::*, testing};
//!
//! #[derive(Debug, Deserialize)]
//! struct Probe {
//!     #[serde(with = "duration", default = "duration::seconds::<60>")]
//!     interval: Duration,
//! }
//! # impl HttpFilter for Probe {}
//! # vers_plugin::export!(Probe: http_filter);
//!
//! # fn main() {
//! let probe: Probe = testing::configure("interval = '2m'").expect("a good table");
//! assert_eq!(probe.interval, Duration::from_secs(120));
//! let probe: Probe = testing::configure("").expect("a good table");
//! assert_eq!(probe.interval, Duration::from_secs(60));
//! let problems = testing::configure::<Probe>("interval = '15'").expect_err("no unit");
//! assert_eq!(problems[0].path, "interval");
//! assert_eq!(problems[0].message, "expected a duration such as \"15s\" or \"2m\"");
//! # }
//! ```

use crate::ParseError;
use serde::{Deserialize, Deserializer, de::Error};
use std::time::Duration;

/// Reads a whole number with its unit: `ms`, `s`, `m` or `h`. Zero is refused: a wait of no length would
/// make work that never rests, a time limit of none an operation that never succeeds.
///
/// ```
/// use std::time::Duration;
/// use vers_plugin::duration;
///
/// assert_eq!(duration::parse("500ms"), Ok(Duration::from_millis(500)));
/// assert!(duration::parse("500").is_err());
/// ```
///
/// # Errors
/// Where there is no number, no unit or another one, or more than one of each; for zero, and for a
/// number over 4294967295.
pub fn parse(text: &str) -> Result<Duration, ParseError> {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let number = text.strip_suffix(unit).and_then(|digits| digits.parse::<u32>().ok());
    let unit = match unit {
        "ms" => Some(1),
        "s" => Some(1_000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        _ => None,
    };
    match (number, unit) {
        (Some(number @ 1..), Some(millis)) => Ok(Duration::from_millis(u64::from(number) * millis)),
        _ => Err(ParseError::new("expected a duration such as \"15s\" or \"2m\"")),
    }
}

/// So many seconds, as a default that can be seen at its field: `default = "duration::seconds::<15>"`.
///
/// ```
/// use std::time::Duration;
/// use vers_plugin::duration;
///
/// assert_eq!(duration::seconds::<15>(), Duration::from_secs(15));
/// ```
pub const fn seconds<const SECONDS: u64>() -> Duration {
    Duration::from_secs(SECONDS)
}

/// For `#[serde(with = "duration")]`, as shown [above](self).
///
/// # Errors
/// Where the value is no string, and as [`parse`].
pub fn deserialize<'de, D: Deserializer<'de>>(value: D) -> Result<Duration, D::Error> {
    parse(&String::deserialize(value)?).map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_units() {
        let check = |text: &str, millis: u64| {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        };
        check("1ms", 1);
        check("15s", 15_000);
        check("2m", 120_000);
        check("24h", 86_400_000);
        check("007s", 7_000);
        check("4294967295m", 4_294_967_295 * 60_000);
    }

    #[test]
    fn what_is_no_duration() {
        for text in [
            "",
            "0s",
            "0",
            "15",
            "s",
            "1h30m",
            "1d",
            "2H",
            "1m30s",
            "-1s",
            "+1s",
            " 1s",
            "1 s",
            "1.5s",
            "1S",
            "99999999999s",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }
}
