//! The text of a configuration file and the name it goes by in messages.

use std::{fs, io, path::Path};

/// A configuration file's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The path, as messages show it.
    pub name: String,
    /// The whole text.
    pub text: String,
}

impl Source {
    /// Reads a file. Text that is not UTF-8 is an error of kind `InvalidData`.
    pub fn read(path: &Path) -> io::Result<Self> {
        let text = fs::read_to_string(path)?;
        Ok(Self::new(path.display().to_string(), text))
    }

    /// Takes a text that did not come from a file.
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        let mut text = text.into();
        // Some editors write a byte order mark. It would shift the columns of the first line.
        if text.starts_with('\u{feff}') {
            text.remove(0);
        }
        Self { name: name.into(), text }
    }

    /// Line and column of a byte, both from 1; columns are characters.
    pub fn position(&self, offset: usize) -> (usize, usize) {
        let before = self.text.char_indices().take_while(|(at, _)| *at < offset).map(|(_, char)| char);
        before.fold((1, 1), |(line, column), char| match char {
            '\n' => (line + 1, 1),
            _ => (line, column + 1),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_order_mark_is_dropped() {
        assert_eq!(Source::new("a.toml", "\u{feff}a = 1").text, "a = 1");
    }

    #[test]
    fn a_position_counts_characters() {
        let source = Source::new("a.toml", "é = 1\r\nb = 2\n");
        let at = |needle: &str| source.position(source.text.find(needle).expect("it is there"));
        assert_eq!(at("é"), (1, 1));
        assert_eq!(at("1"), (1, 5));
        assert_eq!(at("2"), (2, 5));
        assert_eq!(source.position(99), (3, 1));
    }
}
