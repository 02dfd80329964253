//! Backends: servers are addresses.

use super::{
    super::{Config, diagnostic::Diagnostic, report::Report, target::host_port},
    targets,
};

pub(super) fn check(config: &Config, report: &mut Report) {
    super::names("backend", config.backends.values().map(|backend| &backend.name), report);
    for server in config.backends.values().flat_map(|backend| &backend.servers) {
        if host_port(server.get_ref()).is_some() {
            continue;
        }
        let diagnostic = Diagnostic::error(server.span(), format!("`{server}` is not an address"))
            .label("expected an address such as \"127.0.0.1:3000\"");
        report.add(match targets::advice(server.get_ref()) {
            Some(advice) => diagnostic.help(advice),
            None => diagnostic,
        });
    }
}
