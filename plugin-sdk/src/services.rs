//! What the gateway does for plugins: log, secrets, identity, clock, random numbers.

/// Lines in the gateway's log, under the plugin's name. Cut at 4 KiB, rate-limited.
///
/// ```
/// use vers_plugin::log;
///
/// log::info("ready");
/// log::warn(format!("{} entries skipped", 3));
/// ```
pub mod log {
    pub use crate::bindings::base::vers::gateway::log::Level;
    use crate::{EditError, host::log::emit};

    /// The finest detail.
    pub fn trace(message: impl AsRef<str>) {
        emit(Level::Trace, message.as_ref());
    }

    /// Detail for finding faults.
    pub fn debug(message: impl AsRef<str>) {
        emit(Level::Debug, message.as_ref());
    }

    /// What an operator may want to know.
    pub fn info(message: impl AsRef<str>) {
        emit(Level::Info, message.as_ref());
    }

    /// What an operator should look into.
    pub fn warn(message: impl AsRef<str>) {
        emit(Level::Warn, message.as_ref());
    }

    /// What an operator must repair.
    pub fn error(message: impl AsRef<str>) {
        emit(Level::Error, message.as_ref());
    }

    pub(crate) fn refusal(header: &str, edit: Result<(), EditError>) {
        if let Err(error) = edit {
            warn(format!("header {header} not changed: {error}"));
        }
    }
}

/// Secrets by name, as far as `grants = { secrets = ["name", …] }` goes.
///
/// ```
/// use vers_plugin::{secrets, testing::MockHost};
///
/// let _host = MockHost::new().secret("fleet", "s3cret");
/// assert!(secrets::matches("fleet", "s3cret"));
/// ```
pub mod secrets {
    use crate::host::secrets;

    /// Compares in constant time inside the gateway; false where the secret is not set.
    pub fn matches(name: &str, candidate: impl AsRef<[u8]>) -> bool {
        secrets::matches(name, candidate.as_ref())
    }

    /// Whether the secret is granted and has a value; an empty one counts as none.
    pub fn is_set(name: &str) -> bool {
        secrets::is_set(name)
    }

    /// The value, where it is granted and set. Prefer [`matches()`], which keeps it out of the plugin.
    pub fn get(name: &str) -> Option<String> {
        secrets::get(name)
    }
}

/// Facts about this gateway.
///
/// ```
/// use vers_plugin::{identity, testing::MockHost};
///
/// let _host = MockHost::new().vm_id("a1");
/// assert_eq!(identity::vm_id().as_deref(), Some("a1"));
/// ```
pub mod identity {
    /// Id of the VM that this gateway runs on, where the environment tells.
    pub fn vm_id() -> Option<String> {
        crate::host::identity::vm_id()
    }

    /// In [`Background::stop`](crate::Background::stop): the configuration, as JSON, of the plugin of this name that
    /// goes on with this work on the same VM, perhaps as another component. None where there is none, and
    /// anywhere else.
    pub fn successor_config() -> Option<String> {
        crate::host::identity::successor_config()
    }
}

/// The gateway's clock, the same for all instances.
///
/// ```
/// use std::time::Duration;
/// use vers_plugin::{clock, testing::MockHost};
///
/// let host = MockHost::new();
/// let before = clock::monotonic();
/// host.advance(Duration::from_secs(2));
/// assert_eq!(clock::monotonic() - before, Duration::from_secs(2));
/// ```
pub mod clock {
    use std::time::{Duration, SystemTime};

    /// Since a moment after the gateway started; it only goes forward.
    pub fn monotonic() -> Duration {
        Duration::from_nanos(crate::host::clock::monotonic_ns())
    }

    /// The time of day. It may be set back.
    pub fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(crate::host::clock::now_ms())
    }
}

/// Random numbers, for jitter and ids; not for keys.
///
/// ```
/// let heads = vers_plugin::random::u64() % 2 == 0;
/// ```
pub mod random {
    /// 64 random bits.
    pub fn u64() -> u64 {
        crate::host::random::u64()
    }
}
