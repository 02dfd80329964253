//! Raw messages as tables write them: short, and with what the machine repeats left out.

/// Bytes as the characters of Latin-1, so that each byte can be told from every other.
pub fn latin(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

/// Bytes for a person to read: escaped, and the middle of what is long left out.
pub fn escape(bytes: &[u8]) -> String {
    const SHOWN: usize = 400;
    if bytes.len() <= SHOWN {
        return bytes.escape_ascii().to_string();
    }
    let (first, last) = (&bytes[..SHOWN - 80], &bytes[bytes.len() - 80..]);
    format!("{} [{} bytes] {}", first.escape_ascii(), bytes.len(), last.escape_ascii())
}

/// A template with its words replaced, as often as they occur, and `<70*text>` by 70 times that text.
/// Words may stand in what words stand for.
pub fn expand(template: &[u8], words: &[(&str, &str)]) -> Vec<u8> {
    let mut expanded = Vec::with_capacity(template.len());
    let mut rest = template;
    while let Some((first, after)) = rest.split_first() {
        if let Some((word, text)) = words.iter().find(|(word, _)| rest.starts_with(word.as_bytes())) {
            expanded.extend(expand(text.as_bytes(), words));
            rest = &rest[word.len()..];
        } else if let Some((times, text, after)) = repetition(rest) {
            expanded.extend(expand(text, words).repeat(times));
            rest = after;
        } else {
            expanded.push(*first);
            rest = after;
        }
    }
    expanded
}

/// `<70*text>` at the beginning of a template, and what follows.
fn repetition(template: &[u8]) -> Option<(usize, &[u8], &[u8])> {
    let inside = template.strip_prefix(b"<")?;
    let digits = inside.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let text = inside[digits..].strip_prefix(b"*")?;
    let times = std::str::from_utf8(&inside[..digits]).ok()?.parse().ok()?;
    let end = text.iter().position(|byte| *byte == b'>')?;
    Some((times, &text[..end], &text[end + 1..]))
}

/// A template's bytes, and the words between them that stand for no bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part<'a> {
    /// To be sent.
    Bytes(&'a [u8]),
    /// To be done.
    Word(&'a str),
}

/// Takes bytes apart at words. Nothing between two words is no part.
pub fn parts<'a>(mut bytes: &'a [u8], words: &[&'a str]) -> Vec<Part<'a>> {
    let mut parts = Vec::new();
    let mut at = 0;
    while at <= bytes.len() {
        let (before, rest) = bytes.split_at(at);
        let word = words.iter().find(|word| rest.starts_with(word.as_bytes()));
        if (word.is_some() || rest.is_empty()) && !before.is_empty() {
            parts.push(Part::Bytes(before));
        }
        match word {
            Some(word) => {
                parts.push(Part::Word(word));
                (bytes, at) = (&rest[word.len()..], 0);
            }
            None => at += 1,
        }
    }
    parts
}

/// Bytes one by one; of what is long, the first ones, and blocks after them.
pub fn pieces(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    const SHORT: usize = 600;
    const SINGLE: usize = 64;
    let single = if bytes.len() <= SHORT { bytes.len() } else { SINGLE };
    let (first, rest) = bytes.split_at(single);
    // An odd size, so that no boundary of anything falls on one of these.
    first.chunks(1).chain(rest.chunks(509.max((rest.len() / 64) | 1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_repetitions_are_replaced_and_nothing_else() {
        let words = [("MARK", "m1"), ("<GET>", "GET /MARK HTTP/1.1\r\n")];
        for (template, expected) in [
            ("<GET>x: <3*ab>\r\n", "GET /m1 HTTP/1.1\r\nx: ababab\r\n"),
            ("<a> < > <*> <3> MARKMARK", "<a> < > <*> <3> m1m1"),
            ("<2*x: MARK\r\n>", "x: m1\r\nx: m1\r\n"),
            ("<2*<a>", "<a<a"),
        ] {
            assert_eq!(expand(template.as_bytes(), &words), expected.as_bytes(), "{template:?}");
        }
    }

    #[test]
    fn bytes_are_taken_apart_at_words() {
        use Part::{Bytes, Word};
        for (text, expected) in [
            ("", vec![]),
            ("ab", vec![Bytes(b"ab")]),
            ("<W>", vec![Word("<W>")]),
            ("a<W>b<V>", vec![Bytes(b"a"), Word("<W>"), Bytes(b"b"), Word("<V>")]),
            ("<V><W>a", vec![Word("<V>"), Word("<W>"), Bytes(b"a")]),
        ] {
            assert_eq!(parts(text.as_bytes(), &["<V>", "<W>"]), expected, "{text:?}");
        }
    }

    #[test]
    fn pieces_are_all_there_is() {
        for length in [0, 1, 600, 601, 10_000, 500_000] {
            let bytes: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
            assert_eq!(pieces(&bytes).collect::<Vec<_>>().concat(), bytes);
            assert!(pieces(&bytes).take(64).all(|piece| piece.len() == 1));
        }
    }
}
