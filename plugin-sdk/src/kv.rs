//! Small values that last from call to call, as far as `grants = { kv = "64KiB" }` goes.
//!
//! All instances of the plugin share them, of every route and configuration that uses it under its name in
//! this gateway; other plugins have their own. A reload keeps them, a restart does not.
//!
//! ```
//! use std::time::Duration;
//! use vers_plugin::{kv, testing::MockHost};
//!
//! let _host = MockHost::new();
//! let minute = Some(Duration::from_secs(60));
//! assert_eq!(kv::increment("seen/192.0.2.1", 1, minute), Ok(1));
//! assert_eq!(kv::increment("seen/192.0.2.1", 1, minute), Ok(2));
//! ```

use crate::host::kv as host;
use std::{fmt, time::Duration};

/// How often [`update`] begins anew when others change the same value.
const TRIES: u32 = 32;

/// A value, and which one it is.
///
/// ```
/// use vers_plugin::{kv, testing::MockHost};
///
/// let _host = MockHost::new();
/// let version = kv::set("team", "red", None)?;
/// let entry = kv::get("team")?.expect("it was set");
/// assert_eq!((entry.value.as_slice(), entry.version), (b"red".as_slice(), version));
/// # Ok::<(), kv::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// As it was set.
    pub value: Vec<u8>,
    /// For [`compare_and_set`].
    pub version: u64,
}

/// Why nothing was changed.
///
/// ```
/// use vers_plugin::{kv, testing::MockHost};
///
/// let _host = MockHost::new();
/// kv::set("team", "red", None)?;
/// assert_eq!(kv::increment("team", 1, None), Err(kv::Error::NotANumber));
/// # Ok::<(), kv::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// Another version is there, or none.
    Conflict(Option<Entry>),
    /// It would exceed the grant, or the key has more than 256 bytes.
    Full,
    /// [`increment`] of something that is no number.
    NotANumber,
    /// The store does not answer.
    Unavailable,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Conflict(_) => "somebody else was first",
            Self::Full => "there is no room for it: the grant is used up, or the key too long",
            Self::NotANumber => "it is no number",
            Self::Unavailable => "the store does not answer",
        })
    }
}

impl std::error::Error for Error {}

/// What [`get_or_reserve`] finds.
///
/// ```
/// use vers_plugin::kv::Lookup;
///
/// assert_ne!(Lookup::Reserved(1), Lookup::Reserved(2));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// The value.
    Found(Entry),
    /// There is none, and it is the caller's to make: [`compare_and_set`] with this version sets it,
    /// [`remove`] gives it up.
    Reserved(u64),
}

/// The value, where there is one.
///
/// ```
/// use vers_plugin::{kv, testing::MockHost};
///
/// let _host = MockHost::new();
/// assert_eq!(kv::get("team"), Ok(None));
/// ```
///
/// # Errors
/// See [`Error`].
pub fn get(key: &str) -> Result<Option<Entry>, Error> {
    Ok(host::get(key)?.map(Entry::from))
}

/// Sets a value, whatever is there, for this time, or until it is removed. Returns its version.
///
/// ```
/// use std::time::Duration;
/// use vers_plugin::{kv, testing::MockHost};
///
/// let host = MockHost::new();
/// kv::set("team", "red", Some(Duration::from_secs(60)))?;
/// host.advance(Duration::from_secs(61));
/// assert_eq!(kv::get("team"), Ok(None));
/// # Ok::<(), kv::Error>(())
/// ```
///
/// # Errors
/// See [`Error`].
pub fn set(key: &str, value: impl AsRef<[u8]>, ttl: Option<Duration>) -> Result<u64, Error> {
    Ok(host::set(key, value.as_ref(), ttl.map(millis))?)
}

/// Sets a value where just this version is there; without one, where there is nothing.
///
/// ```
/// use vers_plugin::{kv, testing::MockHost};
///
/// let _host = MockHost::new();
/// let first = kv::compare_and_set("leader", None, "a", None)?;
/// assert!(matches!(kv::compare_and_set("leader", None, "b", None), Err(kv::Error::Conflict(Some(_)))));
/// kv::compare_and_set("leader", Some(first), "b", None)?;
/// # Ok::<(), kv::Error>(())
/// ```
///
/// # Errors
/// See [`Error`].
pub fn compare_and_set(
    key: &str,
    expected: Option<u64>,
    value: impl AsRef<[u8]>,
    ttl: Option<Duration>,
) -> Result<u64, Error> {
    Ok(host::compare_and_set(key, expected, value.as_ref(), ttl.map(millis))?)
}

/// Adds to a number, which is 0 where there is none, and returns the sum. The time counts from the first of
/// them: later ones do not prolong it.
///
/// ```
/// use vers_plugin::{kv, testing::MockHost};
///
/// let _host = MockHost::new();
/// assert_eq!(kv::increment("n", 5, None), Ok(5));
/// assert_eq!(kv::increment("n", -2, None), Ok(3));
/// ```
///
/// # Errors
/// See [`Error`].
pub fn increment(key: &str, by: i64, ttl: Option<Duration>) -> Result<i64, Error> {
    Ok(host::increment(key, by, ttl.map(millis))?)
}

/// Removes a value; no error where there is none.
///
/// ```
/// use vers_plugin::{kv, testing::MockHost};
///
/// let _host = MockHost::new();
/// assert_eq!(kv::remove("team"), Ok(()));
/// ```
///
/// # Errors
/// See [`Error`].
pub fn remove(key: &str) -> Result<(), Error> {
    Ok(host::remove(key)?)
}

/// The value; or, for the first of many who ask for it, the task to make it in this time. The others wait
/// until it is there or given up, and then one of them has the task.
///
/// ```
/// use std::time::Duration;
/// use vers_plugin::{kv, kv::Lookup, testing::MockHost};
///
/// let _host = MockHost::new();
/// let keys = match kv::get_or_reserve("keys", Duration::from_secs(2))? {
///     Lookup::Found(entry) => entry.value,
///     Lookup::Reserved(version) => {
///         let fetched = b"fetched".to_vec();
///         kv::compare_and_set("keys", Some(version), &fetched, Some(Duration::from_secs(300)))?;
///         fetched
///     }
/// };
/// assert_eq!(keys, b"fetched");
/// # Ok::<(), kv::Error>(())
/// ```
///
/// # Errors
/// See [`Error`].
pub fn get_or_reserve(key: &str, hold: Duration) -> Result<Lookup, Error> {
    let hold = u32::try_from(hold.as_millis()).unwrap_or(u32::MAX);
    Ok(match host::get_or_reserve(key, hold)? {
        host::Lookup::Found(entry) => Lookup::Found(entry.into()),
        host::Lookup::Reserved(version) => Lookup::Reserved(version),
    })
}

/// Makes a new value of the one that is there, as one step: where somebody else changes it meanwhile, it
/// begins anew with what that made of it. `change` returns the new value with its time, or none to leave
/// things as they are, and whatever else the caller wants to know.
///
/// ```
/// use vers_plugin::{kv, testing::MockHost};
///
/// let _host = MockHost::new();
/// let length = kv::update("list", |old| {
///     let new = [old.unwrap_or_default(), b"x"].concat();
///     (Some((new.clone(), None)), new.len())
/// });
/// assert_eq!(length, Ok(1));
/// ```
///
/// # Errors
/// See [`Error`]; [`Error::Conflict`] where others were first again and again.
pub fn update<T>(
    key: &str,
    mut change: impl FnMut(Option<&[u8]>) -> (Option<(Vec<u8>, Option<Duration>)>, T),
) -> Result<T, Error> {
    let mut there = get(key)?;
    for _ in 0..TRIES {
        let (new, result) = change(there.as_ref().map(|entry| entry.value.as_slice()));
        let Some((value, ttl)) = new else { return Ok(result) };
        match compare_and_set(key, there.as_ref().map(|entry| entry.version), value, ttl) {
            Ok(_) => return Ok(result),
            Err(Error::Conflict(other)) => there = other,
            Err(error) => return Err(error),
        }
    }
    Err(Error::Conflict(there))
}

fn millis(ttl: Duration) -> u64 {
    u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)
}

impl From<host::Entry> for Entry {
    fn from(entry: host::Entry) -> Self {
        Self { value: entry.value, version: entry.version }
    }
}

impl From<host::Error> for Error {
    fn from(error: host::Error) -> Self {
        match error {
            host::Error::Conflict(entry) => Self::Conflict(entry.map(Into::into)),
            host::Error::Full => Self::Full,
            host::Error::NotANumber => Self::NotANumber,
            host::Error::Unavailable => Self::Unavailable,
        }
    }
}
