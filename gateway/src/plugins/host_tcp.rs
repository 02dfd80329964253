//! What a plugin can ask about a connection that carries bytes: these imports of `wit/`, implemented on the
//! store's data.

use super::{
    bindings::vers::gateway::types,
    connection::{Closed, Connection},
    handles::{ClosedHandle, ConnectionHandle, ExchangeHandle},
    host::micros,
    state::State,
};
use std::time::Duration;
use wasmtime::component::Resource;

impl types::HostConnection for State {
    fn exchange(&mut self, _: Resource<ConnectionHandle>) -> Resource<ExchangeHandle> {
        Resource::new_own(0)
    }

    fn client_port(&mut self, _: Resource<ConnectionHandle>) -> u16 {
        self.connection().map_or(0, |connection| connection.client_port)
    }

    fn server_name(&mut self, _: Resource<ConnectionHandle>) -> Option<String> {
        self.connection()?.server_name.as_deref().map(str::to_owned)
    }

    fn is_tls(&mut self, _: Resource<ConnectionHandle>) -> bool {
        self.connection().is_some_and(|connection| connection.is_tls)
    }

    fn client_certificate(&mut self, _: Resource<ConnectionHandle>) -> Option<String> {
        self.connection()?.certificate.as_deref().map(str::to_owned)
    }

    fn is_proxied(&mut self, _: Resource<ConnectionHandle>) -> bool {
        self.connection().is_some_and(|connection| connection.is_proxied)
    }

    fn want_bytes(&mut self, _: Resource<ConnectionHandle>, least: u32, within_ms: u32) {
        let most = self.plugin.limits.peek;
        if let Some(connection) = &mut self.exchange.connection {
            let least = usize::try_from(least).unwrap_or(usize::MAX).clamp(1, most);
            connection.said.asked = Some((least, Duration::from_millis(within_ms.into())));
        }
    }

    fn drop(&mut self, _: Resource<ConnectionHandle>) -> wasmtime::Result<()> {
        Ok(())
    }
}

impl types::HostClosed for State {
    fn exchange(&mut self, _: Resource<ClosedHandle>) -> Resource<ExchangeHandle> {
        Resource::new_own(0)
    }

    fn server_name(&mut self, _: Resource<ClosedHandle>) -> Option<String> {
        self.connection()?.server_name.as_deref().map(str::to_owned)
    }

    fn duration_us(&mut self, _: Resource<ClosedHandle>) -> u64 {
        self.closed().map_or(0, |closed| micros(closed.total))
    }

    fn bytes_to_server(&mut self, _: Resource<ClosedHandle>) -> u64 {
        self.closed().map_or(0, |closed| closed.sent)
    }

    fn bytes_to_client(&mut self, _: Resource<ClosedHandle>) -> u64 {
        self.closed().map_or(0, |closed| closed.received)
    }

    fn why(&mut self, _: Resource<ClosedHandle>) -> String {
        self.closed().map(|closed| closed.why.to_owned()).unwrap_or_default()
    }

    fn refused_by(&mut self, _: Resource<ClosedHandle>) -> Option<String> {
        self.closed()?.refused_by.as_ref().map(|(plugin, _)| plugin.clone())
    }

    fn reason(&mut self, _: Resource<ClosedHandle>) -> Option<String> {
        self.closed()?.refused_by.as_ref().map(|(_, reason)| reason.clone())
    }

    fn drop(&mut self, _: Resource<ClosedHandle>) -> wasmtime::Result<()> {
        Ok(())
    }
}

impl State {
    fn connection(&self) -> Option<&Connection> {
        self.exchange.connection.as_deref()
    }

    fn closed(&self) -> Option<&Closed> {
        self.connection()?.closed.as_ref()
    }
}
