//! "Did you mean …?"

/// The known name that `name` was most likely meant to be, if one is near enough to say so.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wanted = folded(name);
    // One slip in three letters: `hots` is `host`, but `log` is not `to`.
    let allowed = (wanted.chars().count() / 3).max(1);
    known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&wanted, &folded(candidate)), candidate))
        .filter(|(distance, candidate)| *distance <= allowed && *distance < candidate.len())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Case and the kind of dash are no difference to a reader.
fn folded(name: &str) -> String {
    name.to_lowercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_meant() {
        let known = ["address", "name", "protocol", "header_size", "to"];
        for (name, meant) in [
            ("adress", Some("address")),
            ("Address", Some("address")),
            ("protocoll", Some("protocol")),
            ("header-size", Some("header_size")),
            ("nmae", Some("name")),
            ("x", None),
            ("url", None),
            ("", None),
        ] {
            assert_eq!(nearest(name, known), meant, "for {name:?}");
        }
    }
}
