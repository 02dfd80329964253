//! Backends and clients that misbehave on the wire: the right status or a visible end, no effect on
//! others, and nothing left behind.

mod rest_of_a_body; // what is left of a request is never the next one
