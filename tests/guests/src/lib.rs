//! Plugins that misbehave or tell on the gateway: `examples/`, one file each.
//!
//! What is nasty waits for a request header, so that the requests beside it can be seen to pass.
