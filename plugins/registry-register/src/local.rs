//! Whether services of this VM work, asked on this VM.

use super::Service;
use std::time::Duration;
use vers_plugin::prelude::*;

/// For one answer. A service on the same machine that takes longer does not work yet.
const PATIENCE: Duration = Duration::from_millis(500);

/// For all of them in one call, which must stay below the plugin's limit.
const ENOUGH: Duration = Duration::from_secs(2);

/// What came of it.
pub(super) struct Checked {
    /// So many work, in their order.
    pub(super) working: usize,
    /// Why the next one does not.
    pub(super) failed: Option<String>,
}

/// Asks the services behind those that are known to work. Where the grants do not let it ask, or it is not told how,
/// a service is taken to work.
pub(super) fn check(services: &[Service], working: usize, began: Duration) -> Checked {
    for (index, service) in services.iter().enumerate().skip(working) {
        let Some(path) = &service.health_path else { continue };
        if clock::monotonic().saturating_sub(began) > ENOUGH {
            return Checked { working: index, failed: Some(format!("{}: not asked yet", service.name)) };
        }
        if let Err(why) = ask(service, path) {
            return Checked { working: index, failed: Some(format!("{}: {why}", service.name)) };
        }
    }
    Checked { working: services.len(), failed: None }
}

/// On either family: which one a service listens on is this gateway's business, and not its health.
fn ask(service: &Service, path: &str) -> Result<(), String> {
    let mut why = String::new();
    let mut may_ask = false;
    for host in ["127.0.0.1", "[::1]"] {
        let url = format!("http://{host}:{}{path}", service.port);
        match http::get(&url).timeout(PATIENCE).send() {
            Ok(answer) if (200..400).contains(&answer.status()) => return Ok(()),
            Ok(answer) => return Err(format!("{path} answers {}", answer.status())),
            Err(http::Error::NotGranted) => {}
            Err(error) => (may_ask, why) = (true, error.to_string()),
        }
    }
    if may_ask { Err(why) } else { Ok(()) }
}
