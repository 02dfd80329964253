//! The daemon as it is shipped, for tests that take a process: its memory, its log, signals.

fn main() -> std::process::ExitCode {
    vers_gateway::cli::main()
}
