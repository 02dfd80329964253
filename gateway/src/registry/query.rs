//! Queries and paths as clients write them.

use std::borrow::Cow;

/// A part of a path or a query, with its `%XX` undone; `+` is a space in a query.
pub(super) fn decoded(text: &str, is_query: bool) -> Cow<'_, str> {
    let is_plain = |byte: u8| byte != b'%' && (byte != b'+' || !is_query);
    if text.bytes().all(is_plain) {
        return Cow::Borrowed(text);
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        let hex = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        rest = match (first, behind) {
            (b'%', [high, low, behind @ ..]) if hex(high).is_some() && hex(low).is_some() => {
                bytes.push(hex(high).unwrap_or_default() << 4 | hex(low).unwrap_or_default());
                behind
            }
            (b'+', behind) if is_query => {
                bytes.push(b' ');
                behind
            }
            (byte, behind) => {
                bytes.push(*byte);
                behind
            }
        };
    }
    Cow::Owned(String::from_utf8_lossy(&bytes).into_owned())
}

/// A query, by its keys.
#[derive(Debug, Clone, Copy)]
pub(super) struct Query<'a>(pub(super) Option<&'a str>);

impl<'a> Query<'a> {
    /// The value of a key; none where it is absent or empty, as ever.
    pub(super) fn get(self, key: &str) -> Option<Cow<'a, str>> {
        let mut pairs = self.0?.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let (_, value) = pairs.find(|(candidate, _)| decoded(candidate, true) == key)?;
        Some(decoded(value, true)).filter(|value| !value.is_empty())
    }

    /// Whether a key says yes.
    pub(super) fn is_set(self, key: &str) -> bool {
        self.get(key).is_some_and(|value| matches!(&*value, "1" | "true" | "yes"))
    }

    /// A number.
    ///
    /// # Errors
    /// Fails with the message for the client where there is something else.
    pub(super) fn number(self, key: &str) -> Result<Option<u64>, String> {
        match self.get(key) {
            None => Ok(None),
            Some(text) => {
                text.parse().map(Some).map_err(|_| format!("{key} must be a whole number, not {text}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_read_as_clients_write_them() {
        let query = Query(Some("role=worker&status=&x=a%20b+c&healthy=1&n=12&bad=%zz%4"));
        assert_eq!(query.get("role").as_deref(), Some("worker"));
        assert_eq!(query.get("status"), None);
        assert_eq!(query.get("x").as_deref(), Some("a b c"));
        assert_eq!(query.get("bad").as_deref(), Some("%zz%4"));
        assert!(query.is_set("healthy") && !query.is_set("role"));
        assert_eq!((query.number("n"), query.number("none")), (Ok(Some(12)), Ok(None)));
        assert!(query.number("role").is_err());
        assert_eq!(Query(None).get("role"), None);
        assert_eq!(decoded("a%3Ab+", false), "a:b+");
    }
}
