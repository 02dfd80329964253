//! All suites, one line each. A test goes where its question is asked.

mod acme; // certificates ordered from a real ACME server
mod acme_bounds; // what an authority is not asked for
mod admin; // what operators ask the gateway itself
mod authoring; // what plugin authors type
mod backend_limits; // how much a server takes at a time, and who waits
mod backend_tls; // TLS to servers, and whom they have to be
mod background; // plugins that work beside the traffic, by the example of the registry
mod balance; // which server is next
mod browser; // Chromium, as people use it
mod cli; // the command line
mod clients; // curl and a JavaScript runtime, as people use them
mod connect; // standard input and output inside TLS, for OpenSSH, scp and rsync
mod drain; // a stop
mod edge_and_vm; // two gateways, and who the client is behind both
mod examples; // every file in `examples/` starts
mod exchange_log; // plugins that are shown what became of requests, and metrics of their own
mod execution; // how many calls of a plugin there are, how long instances live, and when nobody calls
mod explain; // which way a request would go, and why no other
mod faults; // what a plugin that misbehaves costs, and whom
mod first_party; // the first-party filters: what they let pass, what they change
mod fleet; // a client, an edge and three VMs in networks of their own: what users type
mod forwarding; // what reaches the backend, and what comes back
mod grpc; // gRPC by a real implementation
mod guest_bounds; // what a plugin can make the gateway do for it in one call
mod guide; // the plugin guide and the READMEs of plugins, executed
mod guide_dev; // its shortest way, walked: `plugin dev`
mod headers; // what a proxy adds to heads and takes away
mod health; // servers that do not work: who notices, and for how long
mod http2; // the same requests over HTTP/2: heads, bodies, ends
mod http2_backends; // HTTP/2 to backends: shared connections, and how they end
mod http2_frames; // frames that no library sends: heads with two readings, and attacks
mod http2_websocket; // WebSocket over a stream, and what is refused
mod isolation; // what a plugin cannot reach without a grant, and what never
mod jwt; // tokens of an issuer that changes its keys
mod languages; // plugins in JavaScript and Python, by their own tools
mod limits; // how long is waited, how much is taken
mod loading; // components and tables that cannot be used: what is said of them
mod oci; // components from registries of container images
mod origins; // components that answer requests themselves: what runs in `wasmtime serve`
mod plugins; // what plugins can do to requests and answers, in which order, and what not
mod ports; // many of them on one listener
mod properties; // what holds of the parsers for any input
mod protocols; // listeners that carry whatever is spoken
mod proxy_header; // who the client is, by the proxy in front of its connection
mod registry; // who is there, for how long, and what outlasts a crash
mod reload; // what a reload changes, and what it leaves alone
mod reload_under_load; // the promise: hundreds of them, and no client notices
mod request_bodies; // plugins that ask for bodies: what they see and change, and what is not held up
mod request_bounds; // how large a request may be, and how long it may take
mod retries; // what is sent once more, and what never
mod routing; // plugins that choose where a request goes
mod scale; // much of everything, in flat memory
mod ssh; // the commands that lead to a VM: keys, options, refusals
mod state; // what plugins keep from request to request
mod stored; // components of older versions of the interface
mod tcp; // raw TCP routes
mod tcp_plugins; // plugins that see connections: who is let in, and what is told at the end
mod tidy; // habits that a machine can check
mod tls; // certificates and handshakes, and what goes over them
mod transforms; // plugins that transform bodies on their way, and how these break off
mod uploads; // plugins that transform what clients upload: what backends get, and what never looks whole
mod vms; // where a VM is, and what is said where it cannot be reached
mod websocket; // protocols that begin as a request
mod wire_faults; // backends and clients that misbehave on the wire
mod wire_requests; // raw requests, each with its verdict
mod wire_responses; // raw answers of backends, each with its verdict

/// The daemon, for suites that take a process.
const DAEMON: &str = env!("CARGO_BIN_EXE_test-daemon");
