//! All suites, one line each. A test goes where its question is asked.

mod forwarding; // what reaches the backend, and what comes back
