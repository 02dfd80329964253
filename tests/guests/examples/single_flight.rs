//! Answers with what a server says, which it asks once for all requests: the first one asks, and the
//! others wait.

use std::time::Duration;
use vers_plugin::prelude::*;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SingleFlight {
    url: String,
}

impl HttpFilter for SingleFlight {
    fn on_request(&self, _req: &mut Request) -> Verdict {
        let value = match kv::get_or_reserve("value", Duration::from_secs(30)).expect("a grant") {
            kv::Lookup::Found(entry) => entry.value,
            kv::Lookup::Reserved(version) => {
                let value = http::get(&self.url).send().expect("an answer").body().to_vec();
                kv::compare_and_set("value", Some(version), &value, None).expect("it was reserved");
                value
            }
        };
        Reply::new(200).body(value).into()
    }
}
vers_plugin::export!(SingleFlight: request_filter);
