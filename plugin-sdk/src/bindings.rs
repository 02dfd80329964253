//! What wit-bindgen makes of `wit/`, and nothing else. Not part of the stable interface.
//!
//! One module per world, because a component must export the hooks it has and no others. Each
//! module's export macro brings its world along, and the linker merges those that a plugin uses.
//! An import that nothing calls does not reach the component, so that a plugin asks for no grant
//! that it does not need.
//!
//! `wit` is a link to the folder beside this crate: what is published of it has the files.

#[allow(missing_docs, clippy::too_many_lines, reason = "generated")]
pub mod base {
    wit_bindgen::generate!({
        path: "wit",
        world: "base",
        pub_export_macro: true,
        export_macro_name: "export_base",
    });
}

#[allow(missing_docs, clippy::too_many_lines, reason = "generated")]
pub mod request_filter {
    wit_bindgen::generate!({
        path: "wit",
        world: "with-request-filter",
        pub_export_macro: true,
        export_macro_name: "export_request_filter",
        with: { "vers:gateway/types@0.1.0": crate::bindings::base::vers::gateway::types },
    });
}

#[allow(missing_docs, clippy::too_many_lines, reason = "generated")]
pub mod request_body_filter {
    wit_bindgen::generate!({
        path: "wit",
        world: "with-request-body-filter",
        pub_export_macro: true,
        export_macro_name: "export_request_body_filter",
        with: { "vers:gateway/types@0.1.0": crate::bindings::base::vers::gateway::types },
    });
}

#[allow(missing_docs, clippy::too_many_lines, reason = "generated")]
pub mod request_body_transform {
    wit_bindgen::generate!({
        path: "wit",
        world: "with-request-body-transform",
        pub_export_macro: true,
        export_macro_name: "export_request_body_transform",
        with: { "vers:gateway/types@0.1.0": crate::bindings::base::vers::gateway::types },
    });
}

#[allow(missing_docs, clippy::too_many_lines, reason = "generated")]
pub mod response_filter {
    wit_bindgen::generate!({
        path: "wit",
        world: "with-response-filter",
        pub_export_macro: true,
        export_macro_name: "export_response_filter",
        with: { "vers:gateway/types@0.1.0": crate::bindings::base::vers::gateway::types },
    });
}

#[allow(missing_docs, clippy::too_many_lines, reason = "generated")]
pub mod response_body_transform {
    wit_bindgen::generate!({
        path: "wit",
        world: "with-response-body-transform",
        pub_export_macro: true,
        export_macro_name: "export_response_body_transform",
        with: { "vers:gateway/types@0.1.0": crate::bindings::base::vers::gateway::types },
    });
}

#[allow(missing_docs, clippy::too_many_lines, reason = "generated")]
pub mod exchange_log {
    wit_bindgen::generate!({
        path: "wit",
        world: "with-exchange-log",
        pub_export_macro: true,
        export_macro_name: "export_exchange_log",
        with: { "vers:gateway/types@0.1.0": crate::bindings::base::vers::gateway::types },
    });
}

#[allow(missing_docs, clippy::too_many_lines, reason = "generated")]
pub mod tcp_filter {
    wit_bindgen::generate!({
        path: "wit",
        world: "with-tcp-filter",
        pub_export_macro: true,
        export_macro_name: "export_tcp_filter",
        with: { "vers:gateway/types@0.1.0": crate::bindings::base::vers::gateway::types },
    });
}

#[allow(missing_docs, clippy::too_many_lines, reason = "generated")]
pub mod tcp_bytes_filter {
    wit_bindgen::generate!({
        path: "wit",
        world: "with-tcp-bytes-filter",
        pub_export_macro: true,
        export_macro_name: "export_tcp_bytes_filter",
        with: { "vers:gateway/types@0.1.0": crate::bindings::base::vers::gateway::types },
    });
}

#[allow(missing_docs, clippy::too_many_lines, reason = "generated")]
pub mod tcp_log {
    wit_bindgen::generate!({
        path: "wit",
        world: "with-tcp-log",
        pub_export_macro: true,
        export_macro_name: "export_tcp_log",
        with: { "vers:gateway/types@0.1.0": crate::bindings::base::vers::gateway::types },
    });
}

#[allow(missing_docs, clippy::too_many_lines, reason = "generated")]
pub mod background {
    wit_bindgen::generate!({
        path: "wit",
        world: "with-background",
        pub_export_macro: true,
        export_macro_name: "export_background",
    });
}
