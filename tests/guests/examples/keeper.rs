//! Keeps the handle of an answer's exchange for as long as its body is on its way, as no plugin of the SDK can, and
//! returns what that says instead of each piece.

use vers::gateway::types::{EditError, Exchange, Response, Transformed};

#[allow(unsafe_code, missing_docs, reason = "generated")]
mod bindings {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package guests:keeper;

            world keeper {
                include vers:gateway/base@0.1.0;
                include vers:gateway/with-response-body-transform@0.1.0;
            }
        ",
        world: "guests:keeper/keeper",
        generate_all,
    });

    export!(Keeper);

    pub(crate) struct Keeper;
}

use bindings::{
    Keeper,
    exports::vers::gateway::{
        lifecycle::{self, ConfigProblem},
        response_body_transform::{Guest, GuestTransform, Transform},
    },
    vers,
};

impl lifecycle::Guest for Keeper {
    fn configure(_config: String) -> Result<(), Vec<ConfigProblem>> {
        Ok(())
    }
}

pub(crate) struct Kept(Exchange);

impl Guest for Keeper {
    type Transform = Kept;

    fn begin(resp: &Response) -> Option<Transform> {
        let exchange = resp.exchange();
        let name = exchange.capture("name").unwrap_or_default();
        exchange.set("name", name.as_bytes()).expect("a small value");
        assert_eq!(exchange.get("name").as_deref(), Some(name.as_bytes()));
        Some(Transform::new(Kept(exchange)))
    }
}

impl Kept {
    fn said(&self) -> Transformed {
        let Self(exchange) = self;
        let text = format!(
            "id {} route {} client {} name {:?} stored {:?} gone {};",
            !exchange.id().is_empty(),
            exchange.route(),
            exchange.client_address(),
            exchange.capture("name"),
            exchange.get("name"),
            matches!(exchange.set("other", b"1"), Err(EditError::Gone)),
        );
        Transformed { bytes: text.into_bytes(), more: false }
    }
}

impl GuestTransform for Kept {
    fn push(&self, _chunk: Vec<u8>) -> Result<Transformed, String> {
        Ok(self.said())
    }

    fn pull(&self) -> Result<Transformed, String> {
        Err("nothing more was promised".to_owned())
    }

    fn finish(&self) -> Result<Transformed, String> {
        Ok(Transformed { bytes: Vec::new(), more: false })
    }
}
