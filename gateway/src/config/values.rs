//! Durations and sizes as users write them: a number with a unit.

use std::{borrow::Cow, fmt, marker::PhantomData, ops::Deref, time};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, Unexpected, Visitor},
};

use super::text::{FromText, Mistake, text};

/// A time span: `"50ms"`, `"30s"`, `"1h 30m"`; more than nothing, at most 365 days.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duration(time::Duration);

impl Duration {
    /// A number of milliseconds.
    pub const fn from_millis(millis: u64) -> Self {
        Self(time::Duration::from_millis(millis))
    }

    /// A number of seconds.
    pub const fn from_secs(secs: u64) -> Self {
        Self(time::Duration::from_secs(secs))
    }

    /// The standard library's type.
    pub const fn get(self) -> time::Duration {
        self.0
    }
}

/// An amount of memory: `"512B"`, `"64KiB"`, `"16MiB"`.
#[derive(Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(u64);

impl ByteSize {
    /// A number of KiB.
    pub const fn kib(kib: u64) -> Self {
        Self(kib * KIB)
    }

    /// A number of MiB.
    pub const fn mib(mib: u64) -> Self {
        Self(mib * MIB)
    }

    /// The number of bytes.
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// For `deserialize_with`: a duration that may be zero.
pub(super) fn duration_or_zero<'de, D>(deserializer: D) -> Result<Duration, D::Error>
where
    D: Deserializer<'de>,
{
    text::<D, DurationOrZero>(deserializer).map(|DurationOrZero(duration)| duration)
}

/// For `deserialize_with`: a duration from `MIN` to `MAX` seconds.
pub(super) fn seconds<'de, D, const MIN: u64, const MAX: u64>(deserializer: D) -> Result<Duration, D::Error>
where
    D: Deserializer<'de>,
{
    let duration = Duration::deserialize(deserializer)?;
    let (least, most) = (Duration::from_secs(MIN), Duration::from_secs(MAX));
    if (least..=most).contains(&duration) {
        return Ok(duration);
    }
    let expected = format!("a duration from \"{least}\" to \"{most}\"");
    Err(D::Error::invalid_value(Unexpected::Other(&format!("`{duration}`")), &expected.as_str()))
}

/// For `deserialize_with`: a size from `MIN` to `MAX` bytes.
pub(super) fn size<'de, D, const MIN: u64, const MAX: u64>(deserializer: D) -> Result<ByteSize, D::Error>
where
    D: Deserializer<'de>,
{
    let size = ByteSize::deserialize(deserializer)?;
    if (MIN..=MAX).contains(&size.0) {
        return Ok(size);
    }
    let expected = format!("a size from \"{}\" to \"{}\"", ByteSize(MIN), ByteSize(MAX));
    Err(D::Error::invalid_value(Unexpected::Other(&format!("`{size}`")), &expected.as_str()))
}

/// For `deserialize_with`: a whole number from `MIN` to `MAX`, as an `N` or an `Option` of one.
pub(super) fn whole<'de, D, N, T, const MIN: u32, const MAX: u32>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    N: TryFrom<u32>,
    T: From<N>,
{
    deserializer.deserialize_any(WholeVisitor::<N, MIN, MAX>(PhantomData)).map(T::from)
}

impl From<Duration> for time::Duration {
    fn from(duration: Duration) -> Self {
        duration.0
    }
}

impl Deref for Duration {
    type Target = time::Duration;

    fn deref(&self) -> &time::Duration {
        &self.0
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secs = self.0.as_secs();
        match self.0.subsec_nanos() {
            0 if secs > 0 && secs.is_multiple_of(3600) => write!(f, "{}h", secs / 3600),
            0 => write!(f, "{secs}s"),
            _ => humantime::format_duration(self.0).fmt(f),
        }
    }
}

impl fmt::Debug for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(deserializer)
    }
}

impl FromText for Duration {
    const EXPECTED: &'static str = "expected a duration such as \"30s\", \"50ms\" or \"1h 30m\"";

    fn from_text(text: &str) -> Result<Self, Mistake> {
        let DurationOrZero(duration) = DurationOrZero::from_text(text)?;
        if duration.is_zero() {
            return Err(Mistake::new(format!("`{text}` leaves no time at all")));
        }
        Ok(duration)
    }
}

impl JsonSchema for Duration {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Numbers with units (ns, us, ms, s, m, h, days), such as 30s, 50ms or 1h 30m.",
            "type": "string",
        })
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u64, &str); 3] = [(GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")];
        let whole = |(size, _): &&(u64, &str)| self.0 > 0 && self.0.is_multiple_of(*size);
        match UNITS.iter().find(whole) {
            Some((size, unit)) => write!(f, "{}{unit}", self.0 / size),
            None => write!(f, "{}B", self.0),
        }
    }
}

impl fmt::Debug for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(deserializer)
    }
}

impl FromText for ByteSize {
    const EXPECTED: &'static str = "expected a size such as \"64KiB\" or \"16MiB\"";

    fn from_text(text: &str) -> Result<Self, Mistake> {
        if text.parse::<u64>().is_ok() {
            return Err(
                Mistake::new(format!("`{text}` has no unit")).help(format!("for bytes, write \"{text}B\""))
            );
        }
        match text.parse::<bytesize::ByteSize>() {
            Ok(size) => Ok(Self(size.as_u64())),
            Err(_) => Err(Mistake::new(format!("`{text}` is not a size"))),
        }
    }
}

impl JsonSchema for ByteSize {
    fn schema_name() -> Cow<'static, str> {
        "ByteSize".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A number with a unit (B, KiB, MiB, GiB; kB, MB, GB for powers of ten), such as 64KiB.",
            "type": "string",
        })
    }
}

struct WholeVisitor<N, const MIN: u32, const MAX: u32>(PhantomData<N>);

impl<N: TryFrom<u32>, const MIN: u32, const MAX: u32> Visitor<'_> for WholeVisitor<N, MIN, MAX> {
    type Value = N;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a whole number from {MIN} to {MAX}")
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<N, E> {
        u32::try_from(number)
            .ok()
            .filter(|number| (MIN..=MAX).contains(number))
            .and_then(|number| N::try_from(number).ok())
            .ok_or_else(|| E::invalid_value(Unexpected::Signed(number), &self))
    }
}

/// What [`Duration`] reads before it refuses zero.
struct DurationOrZero(Duration);

impl FromText for DurationOrZero {
    const EXPECTED: &'static str = Duration::EXPECTED;

    fn from_text(text: &str) -> Result<Self, Mistake> {
        // Longer spans only overflow clocks. Nobody waits for a year.
        const LONGEST: time::Duration = time::Duration::from_secs(365 * 24 * 3600);
        let duration = humantime::parse_duration(text).map_err(|_| duration_mistake(text))?;
        if duration > LONGEST {
            return Err(Mistake::new(format!("`{text}` is longer than 365 days")));
        }
        Ok(Self(Duration(duration)))
    }
}

fn duration_mistake(text: &str) -> Mistake {
    if text.parse::<u64>().is_ok_and(|number| number > 0) {
        return Mistake::new(format!("`{text}` has no unit")).help(format!("for seconds, write \"{text}s\""));
    }
    Mistake::new(format!("`{text}` is not a duration"))
}

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_print_as_they_are_written() {
        for text in ["30s", "75s", "60s", "1h", "50ms", "1s 500ms", "2h"] {
            let duration = Duration::from_text(text).expect("a duration");
            assert_eq!(duration.to_string(), text);
        }
        assert_eq!(*Duration::from_text("1h 30m").expect("a duration"), time::Duration::from_secs(5400));
    }

    #[test]
    fn durations_are_neither_zero_nor_endless_nor_bare() {
        for text in ["0s", "0ms", "", "30", "30 parsecs", "-1s", "400days", "584942417355y"] {
            assert!(Duration::from_text(text).is_err(), "{text:?} was taken");
        }
        assert!(DurationOrZero::from_text("0s").is_ok());
    }

    #[test]
    fn sizes_print_as_they_are_written() {
        for text in ["512B", "64KiB", "16MiB", "1GiB", "1000B"] {
            let size = ByteSize::from_text(text).expect("a size");
            assert_eq!(size.to_string(), text);
        }
        assert_eq!(ByteSize::from_text("1MB").map(ByteSize::get), Ok(1_000_000));
        for text in ["", "64", "lots", "-1KiB"] {
            assert!(ByteSize::from_text(text).is_err(), "{text:?} was taken");
        }
    }
}
