//! From a request's host, path, method and headers to a route. Pure: no I/O, no clock; it knows
//! routes only as numbers.

mod pattern;
mod table;
mod weigh;

pub use pattern::{HostPattern, PathPattern, PatternError};
pub use table::{Captures, Conditions, Duplicate, Match, Question, Table};
pub use weigh::{Condition, Precedence, Weighed, Weight};
