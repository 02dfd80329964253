//! Nothing: the components are in `examples/`, one file each.
