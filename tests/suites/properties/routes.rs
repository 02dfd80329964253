//! Routes: what the table finds is what looking at every route would find.

use super::{checks::routes, config};
use proptest::{collection::vec, prelude::*};

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_table_finds_what_a_look_at_every_route_would(
        host in "(x\\.)?(a|b)(\\.a|\\.b){0,2}",
        path in "(/(a|b|c)?){1,4}",
        patterns in vec((
            "|(\\*\\.|\\{x\\}\\.|x\\.)?(a|b)(\\.a|\\.b){0,2}",
            "|/|/\\*|(/(a|b|\\{x\\}|\\{y\\})){1,3}(/|/\\*)?",
        ), 0..8),
    ) {
        let parsed: Vec<routes::Route> =
            patterns.iter().filter_map(|(host, path)| routes::Route::parse(host, path)).collect();
        routes::asked(&host, &path, &parsed);
    }

    #[test]
    fn no_text_harms_the_reader_of_patterns(text in "[a-z/{}*. \n\u{e9}\\[\\]:]{0,60}") {
        routes::check(text.as_bytes());
        routes::check(format!("a.b /a/b\n{text}").as_bytes());
    }
}
