//! The gateway's parsers, without the gateway: its modules that do no I/O, by their paths. A fuzzer
//! that had to instrument the sandbox's compiler as well would take half an hour to build.

#[path = "../../gateway/src/config/mod.rs"]
pub mod config;
#[path = "../../gateway/src/headers/mod.rs"]
pub mod headers;
#[path = "../../gateway/src/http1/mod.rs"]
pub mod http1;
/// Of the module that speaks HTTP/2, the part that judges.
pub mod http2 {
    pub use super::http2_head::request_head;
}
#[expect(dead_code, reason = "what else it does, h2 is needed for to call")]
#[path = "../../gateway/src/http2/head.rs"]
mod http2_head;
#[path = "../../gateway/src/ids.rs"]
pub mod ids;
#[path = "../../gateway/src/message/mod.rs"]
pub mod message;
#[path = "../../gateway/src/ports.rs"]
pub mod ports;
#[path = "../../gateway/src/proxy_protocol.rs"]
pub mod proxy_protocol;
#[path = "../../gateway/src/route/mod.rs"]
pub mod route;
