//! Takes no configuration whatever: `answer` is always wrong.

use vers_plugin::prelude::*;

#[derive(Deserialize)]
struct BadConfig {}

impl HttpFilter for BadConfig {
    fn validate(&self, problems: &mut Problems) {
        problems.add("answer", "not 42; expected 42");
    }
}
vers_plugin::export!(BadConfig: request_filter);
