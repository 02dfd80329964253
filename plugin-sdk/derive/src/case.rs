//! Names as serde's `rename_all` writes them.

/// A field's (`snake_case`) or a variant's (`PascalCase`) name in another style. An unknown style,
/// which serde refuses, changes nothing.
pub(crate) fn renamed(name: &str, style: Option<&str>) -> String {
    let Some(style) = style else { return name.to_owned() };
    let words = words(name);
    let joined = |between: &str| words.join(between);
    let pascal = || words.iter().map(|word| capital(word)).collect::<String>();
    match style {
        "lowercase" => joined(""),
        "UPPERCASE" => joined("").to_uppercase(),
        "snake_case" => joined("_"),
        "SCREAMING_SNAKE_CASE" => joined("_").to_uppercase(),
        "kebab-case" => joined("-"),
        "SCREAMING-KEBAB-CASE" => joined("-").to_uppercase(),
        "PascalCase" => pascal(),
        "camelCase" => {
            let first = words.first().cloned().unwrap_or_default();
            first + &words.iter().skip(1).map(|word| capital(word)).collect::<String>()
        }
        _ => name.to_owned(),
    }
}

/// Its words, in lower case.
fn words(name: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for part in name.split('_').filter(|part| !part.is_empty()) {
        words.push(String::new());
        for char in part.chars() {
            if char.is_uppercase() && words.last().is_some_and(|word| !word.is_empty()) {
                words.push(String::new());
            }
            if let Some(word) = words.last_mut() {
                word.extend(char.to_lowercase());
            }
        }
    }
    words
}

fn capital(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::renamed;

    #[test]
    fn styles() {
        for (style, field, variant) in [
            ("lowercase", "maxage", "maxage"),
            ("UPPERCASE", "MAXAGE", "MAXAGE"),
            ("snake_case", "max_age", "max_age"),
            ("SCREAMING_SNAKE_CASE", "MAX_AGE", "MAX_AGE"),
            ("kebab-case", "max-age", "max-age"),
            ("SCREAMING-KEBAB-CASE", "MAX-AGE", "MAX-AGE"),
            ("PascalCase", "MaxAge", "MaxAge"),
            ("camelCase", "maxAge", "maxAge"),
        ] {
            assert_eq!(renamed("max_age", Some(style)), field);
            assert_eq!(renamed("MaxAge", Some(style)), variant);
        }
        assert_eq!(renamed("max_age", None), "max_age");
    }
}
