//! The WIT interface as Rust types, and nothing else.
//!
//! One world with every hook: the types come from here; which hooks a component has is read from
//! its exports (`component.rs`), never from this world.

#![allow(missing_docs, unreachable_pub, reason = "generated from wit/, which is documented there")]

wasmtime::component::bindgen!({
    path: "../wit",
    inline: "
        package vers:host;
        world every-hook {
            include vers:gateway/base@0.1.0;
            include vers:gateway/with-request-filter@0.1.0;
            include vers:gateway/with-request-body-filter@0.1.0;
            include vers:gateway/with-request-body-transform@0.1.0;
            include vers:gateway/with-response-filter@0.1.0;
            include vers:gateway/with-response-body-transform@0.1.0;
            include vers:gateway/with-exchange-log@0.1.0;
            include vers:gateway/with-tcp-filter@0.1.0;
            include vers:gateway/with-tcp-bytes-filter@0.1.0;
            include vers:gateway/with-tcp-log@0.1.0;
            include vers:gateway/with-background@0.1.0;
        }
    ",
    world: "vers:host/every-hook",
    imports: {
        "vers:gateway/outbound-http.send": async,
        "vers:gateway/kv.get-or-reserve": async,
        "vers:gateway/types.[method]request.edit-headers": trappable,
        "vers:gateway/types.[method]response.edit-headers": trappable,
    },
    exports: { default: async },
    with: {
        "vers:gateway/types.closed": super::handles::ClosedHandle,
        "vers:gateway/types.connection": super::handles::ConnectionHandle,
        "vers:gateway/types.completed": super::handles::CompletedHandle,
        "vers:gateway/types.exchange": super::handles::ExchangeHandle,
        "vers:gateway/types.headers": super::handles::HeadersHandle,
        "vers:gateway/types.request": super::handles::RequestHandle,
        "vers:gateway/types.response": super::handles::ResponseHandle,
    },
});
