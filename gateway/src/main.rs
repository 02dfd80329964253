//! `vers-gateway`: see the library for what it does, and `cli` for what it understands.

fn main() -> std::process::ExitCode {
    vers_gateway::cli::main()
}
