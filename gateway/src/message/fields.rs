//! Header fields: an ordered list of lines over one piece of text.

use super::{
    Known, Span,
    names::{FORWARDING, HOP_BY_HOP, is_alike},
};

/// Header fields in the order in which they came. Names match without regard to case, and keep
/// theirs.
///
/// A head has a dozen lines: looking through them is faster than hashing them, and two allocations
/// hold them all.
#[derive(Debug, Clone, Default)]
pub struct Fields {
    text: Vec<u8>,
    lines: Vec<Line>,
    /// The known fields among the lines, one bit each.
    present: u32,
}

#[derive(Debug, Clone, Copy)]
struct Line {
    name: Span,
    value: Span,
    known: Option<Known>,
}

/// Room for what the gateway adds to a head.
const SPARE_TEXT: usize = 384;
const SPARE_LINES: usize = 10;

impl Fields {
    /// No fields.
    pub fn new() -> Self {
        Self::default()
    }

    /// No fields yet, over this text, which [`Self::push_line`] points into.
    pub fn over(head: &[u8], lines: usize) -> Self {
        let mut text = Vec::with_capacity(head.len() + SPARE_TEXT);
        text.extend_from_slice(head);
        Self { text, lines: Vec::with_capacity(lines + SPARE_LINES), present: 0 }
    }

    /// No fields yet, with room for so many bytes of text in so many lines, and for what the gateway
    /// adds.
    pub fn with_room(text: usize, lines: usize) -> Self {
        let text = Vec::with_capacity(text + SPARE_TEXT);
        Self { text, lines: Vec::with_capacity(lines + SPARE_LINES), present: 0 }
    }

    /// Adds a line whose name and value stand in the text already.
    pub fn push_line(&mut self, name: Span, value: Span) {
        let known = Known::of(name.of(&self.text));
        self.present |= known.map_or(0, Known::bit);
        self.lines.push(Line { name, value, known });
    }

    /// The bytes at a place in the text.
    pub fn text(&self, span: Span) -> &[u8] {
        span.of(&self.text)
    }

    /// Adds text that is no field, such as a new target, and returns its place.
    pub fn keep(&mut self, bytes: &[u8]) -> Span {
        let span = Span::new(self.text.len(), bytes.len());
        self.text.extend_from_slice(bytes);
        span
    }

    /// Number of lines.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Bytes of all names and values.
    pub fn size(&self) -> usize {
        self.lines.iter().map(|line| line.name.len() + line.value.len()).sum()
    }

    /// Bytes of text that the fields hold on to, with what edits left behind.
    pub fn text_len(&self) -> usize {
        self.text.len()
    }

    /// All names and values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.lines.iter().map(|line| (line.name.of(&self.text), line.value.of(&self.text)))
    }

    /// Whether there is a line of this field.
    pub fn has(&self, known: Known) -> bool {
        self.present & known.bit() != 0
    }

    /// Whether there is a line that belongs to the connection.
    pub fn has_hop_by_hop(&self) -> bool {
        self.present & HOP_BY_HOP != 0
    }

    /// Whether there is a line about the client or the way to it.
    pub fn has_forwarding(&self) -> bool {
        self.present & FORWARDING != 0
    }

    /// The first value of a field.
    pub fn get(&self, known: Known) -> Option<&[u8]> {
        self.all(known).next()
    }

    /// The value of a field that has exactly one line.
    pub fn only(&self, known: Known) -> Option<&[u8]> {
        let mut values = self.all(known);
        values.next().filter(|_| values.next().is_none())
    }

    /// All values of a field, in order.
    pub fn all(&self, known: Known) -> impl Iterator<Item = &[u8]> {
        let lines = if self.has(known) { self.lines.as_slice() } else { &[] };
        lines.iter().filter(move |line| line.known == Some(known)).map(|line| line.value.of(&self.text))
    }

    /// The first value of this name.
    pub fn get_named<'a>(&'a self, name: &'a [u8]) -> Option<&'a [u8]> {
        self.all_named(name).next()
    }

    /// All values of this name, in order.
    pub fn all_named<'a>(&'a self, name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        self.lines
            .iter()
            .filter(move |line| line.is_named(name, &self.text))
            .map(|line| line.value.of(&self.text))
    }

    /// Adds a line.
    pub fn append(&mut self, name: &[u8], value: &[u8]) {
        let (name, value) = (self.keep(name), self.keep(value));
        self.push_line(name, value);
    }

    /// Adds a line of a known field.
    pub fn append_known(&mut self, known: Known, value: &[u8]) {
        let (name, value) = (self.keep(known.name().as_bytes()), self.keep(value));
        self.present |= known.bit();
        self.lines.push(Line { name, value, known: Some(known) });
    }

    /// Replaces all lines of this name by one, at the place of the first.
    pub fn set(&mut self, name: &[u8], value: &[u8]) {
        let value = self.keep(value);
        let mut is_set = false;
        let Self { text, lines, .. } = self;
        lines.retain_mut(|line| {
            if !line.is_named(name, text) {
                return true;
            }
            line.value = value;
            !std::mem::replace(&mut is_set, true)
        });
        if !is_set {
            let name = self.keep(name);
            self.push_line(name, value);
        }
    }

    /// Replaces all lines of this name by one, as [`Self::set`] does, and removes those whose names differ from it by `_`
    /// for `-` only: to a backend that reads both alike, they would be values of the same field.
    pub fn set_alike(&mut self, name: &[u8], value: &[u8]) {
        self.remove_others_alike(name);
        self.set(name, value);
    }

    /// Removes all lines of this name, and of those that differ from it by `_` for `-` only.
    pub fn remove_alike(&mut self, name: &[u8]) {
        self.retain(|_, candidate| !is_alike(candidate, name));
    }

    fn remove_others_alike(&mut self, name: &[u8]) {
        let is_other = |candidate: &[u8]| is_alike(candidate, name) && !candidate.eq_ignore_ascii_case(name);
        let has_dash = name.iter().any(|byte| matches!(byte, b'-' | b'_'));
        if has_dash && self.lines.iter().any(|line| is_other(line.name.of(&self.text))) {
            self.retain(|_, candidate| !is_other(candidate));
        }
    }

    /// Replaces all lines of a known field by one.
    pub fn set_known(&mut self, known: Known, value: &[u8]) {
        if self.has(known) {
            self.remove(known);
        }
        self.append_known(known, value);
    }

    /// Removes all lines of a known field.
    pub fn remove(&mut self, known: Known) {
        if self.has(known) {
            self.lines.retain(|line| line.known != Some(known));
            self.present &= !known.bit();
        }
    }

    /// Removes all lines of this name.
    pub fn remove_named(&mut self, name: &[u8]) {
        self.retain(|_, candidate| !candidate.eq_ignore_ascii_case(name));
    }

    /// Removes the lines that the function does not want, which sees their names.
    pub fn retain(&mut self, mut wanted: impl FnMut(Option<Known>, &[u8]) -> bool) {
        let Self { text, lines, present } = self;
        *present = 0;
        lines.retain(|line| {
            let keep = wanted(line.known, line.name.of(text));
            if keep {
                *present |= line.known.map_or(0, Known::bit);
            }
            keep
        });
    }

    /// Writes all lines as HTTP/1 has them (RFC 9112 §5).
    pub fn write(&self, out: &mut Vec<u8>) {
        out.reserve(self.size() + self.lines.len() * ": \r\n".len());
        for (name, value) in self.iter() {
            out.extend_from_slice(name);
            out.extend_from_slice(b": ");
            out.extend_from_slice(value);
            out.extend_from_slice(b"\r\n");
        }
    }
}

impl Line {
    fn is_named(&self, name: &[u8], text: &[u8]) -> bool {
        self.name.len() == name.len() && self.name.of(text).eq_ignore_ascii_case(name)
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for Fields {
    fn from_iter<T: IntoIterator<Item = (&'a str, &'a str)>>(lines: T) -> Self {
        let mut fields = Self::new();
        for (name, value) in lines {
            fields.append(name.as_bytes(), value.as_bytes());
        }
        fields
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(fields: &Fields) -> String {
        let mut out = Vec::new();
        fields.write(&mut out);
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn names_match_in_any_case_and_keep_theirs() {
        let fields = Fields::from_iter([("Host", "a"), ("X-A", "1"), ("x-a", "2")]);
        assert_eq!(fields.get(Known::Host), Some(b"a".as_slice()));
        assert_eq!(fields.all_named(b"X-a").collect::<Vec<_>>(), [b"1", b"2"]);
        assert_eq!(shown(&fields), "Host: a\r\nX-A: 1\r\nx-a: 2\r\n");
    }

    #[test]
    fn set_replaces_all_at_the_place_of_the_first() {
        let mut fields = Fields::from_iter([("a", "1"), ("b", "2"), ("A", "3")]);
        fields.set(b"a", b"new");
        fields.set(b"c", b"4");
        assert_eq!(shown(&fields), "a: new\r\nb: 2\r\nc: 4\r\n");
        fields.remove_named(b"B");
        assert_eq!(shown(&fields), "a: new\r\nc: 4\r\n");
    }

    #[test]
    fn what_backends_read_alike_goes_with_it() {
        let mut fields =
            Fields::from_iter([("X_User", "1"), ("x-user", "2"), ("x-user_", "3"), ("X-USER", "4")]);
        fields.set_alike(b"x-user", b"new");
        assert_eq!(shown(&fields), "x-user: new\r\nx-user_: 3\r\n");
        fields.append(b"x_user", b"again");
        fields.remove_alike(b"X-User");
        assert_eq!(shown(&fields), "x-user_: 3\r\n");
        fields.set_alike(b"x-user-", b"new");
        assert_eq!(shown(&fields), "x-user-: new\r\n");
        let mut fields = Fields::from_iter([("sec-websocket-key", "1"), ("a", "2")]);
        fields.set_alike(b"sec_websocket_key", b"3");
        assert!(!fields.has(Known::SecWebSocketKey));
    }

    #[test]
    fn what_is_present_follows_every_edit() {
        let mut fields = Fields::from_iter([("te", "trailers"), ("x_forwarded_for", "1"), ("via", "x")]);
        assert!(fields.has_hop_by_hop() && fields.has_forwarding() && fields.has(Known::Via));
        fields.remove(Known::Te);
        assert!(!fields.has_hop_by_hop());
        fields.retain(|known, _| known != Some(Known::ForwardedOther));
        assert!(!fields.has_forwarding());
        fields.set(b"TE", b"trailers");
        assert_eq!(fields.get(Known::Te), Some(b"trailers".as_slice()));
        fields.remove_named(b"Te");
        assert!(!fields.has(Known::Te));
        assert_eq!(fields.only(Known::Via), Some(b"x".as_slice()));
        fields.append(b"Via", b"y");
        assert_eq!(fields.only(Known::Via), None);
    }
}
