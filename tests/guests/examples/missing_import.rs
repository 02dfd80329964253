//! Imports an interface that no gateway has.

use vers_plugin::prelude::*;

#[allow(unsafe_code, missing_docs, reason = "generated")]
mod unknown {
    wit_bindgen::generate!({
        inline: "
            package vers:unknown@9.9.9;

            interface thing {
                poke: func();
            }

            world guest {
                import thing;
            }
        ",
    });
}

#[derive(Deserialize)]
struct MissingImport {}

impl HttpFilter for MissingImport {
    fn on_request(&self, _req: &mut Request) -> Verdict {
        unknown::vers::unknown::thing::poke();
        Verdict::Next
    }
}
vers_plugin::export!(MissingImport: request_filter);
