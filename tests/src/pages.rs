//! What the pages of the documentation show, so that tests can run it.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// A fenced block of a page.
#[derive(Debug, Clone)]
pub struct Block {
    /// What it is written in; empty where it does not say.
    pub language: String,
    /// Its lines.
    pub text: String,
}

/// The checkout that the tests belong to.
pub fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the checkout")
}

/// All blocks of a page, in order.
pub fn blocks(page: &str) -> Vec<Block> {
    let path = checkout().join(page);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut parts = text.split("\n```").skip(1).collect::<Vec<_>>().into_iter();
    let mut blocks = Vec::new();
    // Every other fence ends a block.
    while let (Some(block), _) = (parts.next(), parts.next()) {
        let (language, text) = block.split_once('\n').unwrap_or((block, ""));
        blocks.push(Block { language: language.to_owned(), text: format!("{text}\n") });
    }
    blocks
}

/// The one block in this language that begins with this line.
pub fn block<'a>(blocks: &'a [Block], language: &str, first: &str) -> &'a str {
    let is_it = |block: &&Block| block.language == language && block.text.lines().next() == Some(first);
    let found: Vec<_> = blocks.iter().filter(is_it).collect();
    assert_eq!(found.len(), 1, "{} blocks in {language} begin with {first:?}", found.len());
    &found[0].text
}

/// What a page shows, with something in it that a reader would have to put there too.
pub fn with(text: &str, shown: &str, real: &str) -> String {
    assert!(text.contains(shown), "{shown:?} is not in\n{text}");
    text.replace(shown, real)
}

/// A configuration with what a page shows as a change of it: tables in place of those of the same name,
/// listeners and routes besides those that are there.
pub fn changed(toml: &str, change: &str) -> String {
    let is_replaced = |header: &&str| !header.is_empty() && !header.starts_with("[[");
    let new: BTreeSet<&str> = tables(change).map(|(header, _)| header).filter(is_replaced).collect();
    let kept: String =
        tables(toml).filter(|(header, _)| !new.contains(header)).map(|(_, text)| text).collect();
    format!("{kept}\n{change}")
}

/// The tables of a configuration with their headers; what is in front of the first one has none.
fn tables(toml: &str) -> impl Iterator<Item = (&str, &str)> {
    let starts =
        toml.match_indices('[').map(|(at, _)| at).filter(|at| *at == 0 || toml[..*at].ends_with('\n'));
    let mut bounds: Vec<usize> = std::iter::once(0).chain(starts).chain([toml.len()]).collect();
    bounds.dedup();
    let texts: Vec<&str> = bounds.windows(2).map(|pair| &toml[pair[0]..pair[1]]).collect();
    texts.into_iter().map(|text| {
        let header = text.lines().next().unwrap_or_default();
        (if header.starts_with('[') { header.trim_end() } else { "" }, text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_replaces_tables_and_adds_routes() {
        let toml = "# edge.toml\n[[listener]]\na = 1\n\n[vms]\nb = [\n  1]\n[[route]]\nc = 3\n";
        let change = "# a change\n[vms]\nd = 4\n[[route]]\ne = 5\n";
        let expected = "# edge.toml\n[[listener]]\na = 1\n\n[[route]]\nc = 3\n\n\
                        # a change\n[vms]\nd = 4\n[[route]]\ne = 5\n";
        assert_eq!(changed(toml, change), expected);
    }
}
