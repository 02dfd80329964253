//! The functions of a component that the host calls: where they are, and as an instance has them.

use super::{
    Hooks,
    bindings::exports::vers::gateway::{
        background, exchange_log, lifecycle, request_body_filter, request_body_transform, request_filter,
        response_body_transform, response_filter, tcp_bytes_filter, tcp_filter, tcp_log,
    },
    state::State,
};
use wasmtime::{
    Result, Store,
    component::{Instance, InstancePre},
};

/// Where in a component the functions of each hook are; those of hooks that it has.
pub(super) struct Exports {
    pub(super) lifecycle: lifecycle::GuestIndices,
    request: Option<request_filter::GuestIndices>,
    body: Option<request_body_filter::GuestIndices>,
    request_transform: Option<request_body_transform::GuestIndices>,
    response: Option<response_filter::GuestIndices>,
    transform: Option<response_body_transform::GuestIndices>,
    log: Option<exchange_log::GuestIndices>,
    tcp: Option<tcp_filter::GuestIndices>,
    tcp_bytes: Option<tcp_bytes_filter::GuestIndices>,
    tcp_log: Option<tcp_log::GuestIndices>,
    background: Option<background::GuestIndices>,
}

/// The functions of each hook in one instance. Who calls one takes it, and puts it back: a call needs the
/// instance as a whole.
#[derive(Default)]
pub(super) struct Functions {
    pub(super) request: Option<request_filter::Guest>,
    pub(super) body: Option<request_body_filter::Guest>,
    pub(super) request_transform: Option<request_body_transform::Guest>,
    pub(super) response: Option<response_filter::Guest>,
    pub(super) transform: Option<response_body_transform::Guest>,
    pub(super) log: Option<exchange_log::Guest>,
    pub(super) tcp: Option<tcp_filter::Guest>,
    pub(super) tcp_bytes: Option<tcp_bytes_filter::Guest>,
    pub(super) tcp_log: Option<tcp_log::Guest>,
    pub(super) background: Option<background::Guest>,
}

impl Exports {
    /// Finds them.
    pub(super) fn of(hooks: Hooks, pre: &InstancePre<State>) -> Result<Self> {
        use wasmtime::component::InstancePre as Pre;
        fn find<T>(has: bool, pre: &Pre<State>, new: impl Fn(&Pre<State>) -> Result<T>) -> Result<Option<T>> {
            has.then(|| new(pre)).transpose()
        }
        Ok(Self {
            lifecycle: lifecycle::GuestIndices::new(pre)?,
            request: find(hooks.request, pre, request_filter::GuestIndices::new)?,
            body: find(hooks.body, pre, request_body_filter::GuestIndices::new)?,
            request_transform: find(hooks.request_transform, pre, request_body_transform::GuestIndices::new)?,
            response: find(hooks.response, pre, response_filter::GuestIndices::new)?,
            transform: find(hooks.transform, pre, response_body_transform::GuestIndices::new)?,
            log: find(hooks.log, pre, exchange_log::GuestIndices::new)?,
            tcp: find(hooks.tcp, pre, tcp_filter::GuestIndices::new)?,
            tcp_bytes: find(hooks.tcp_bytes, pre, tcp_bytes_filter::GuestIndices::new)?,
            tcp_log: find(hooks.tcp_log, pre, tcp_log::GuestIndices::new)?,
            background: find(hooks.background, pre, background::GuestIndices::new)?,
        })
    }

    /// Those of an instance.
    pub(super) fn load(&self, store: &mut Store<State>, linked: &Instance) -> Result<Functions> {
        Ok(Functions {
            request: self.request.as_ref().map(|hook| hook.load(&mut *store, linked)).transpose()?,
            body: self.body.as_ref().map(|hook| hook.load(&mut *store, linked)).transpose()?,
            request_transform: self
                .request_transform
                .as_ref()
                .map(|hook| hook.load(&mut *store, linked))
                .transpose()?,
            response: self.response.as_ref().map(|hook| hook.load(&mut *store, linked)).transpose()?,
            transform: self.transform.as_ref().map(|hook| hook.load(&mut *store, linked)).transpose()?,
            log: self.log.as_ref().map(|hook| hook.load(&mut *store, linked)).transpose()?,
            tcp: self.tcp.as_ref().map(|hook| hook.load(&mut *store, linked)).transpose()?,
            tcp_bytes: self.tcp_bytes.as_ref().map(|hook| hook.load(&mut *store, linked)).transpose()?,
            tcp_log: self.tcp_log.as_ref().map(|hook| hook.load(&mut *store, linked)).transpose()?,
            background: self.background.as_ref().map(|hook| hook.load(&mut *store, linked)).transpose()?,
        })
    }
}
