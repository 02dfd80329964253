//! What the host keeps for one instance that answers a request: the data of its store.

use super::{
    super::{
        Services,
        clock::CpuClock,
        state::{LogBudget, MemoryLimit, RANDOM, bounded_table},
    },
    Handler,
    outgoing::Outgoing,
    said::Said,
};
use std::sync::{Arc, Mutex};
use wasmtime::component::ResourceTable;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

/// Bytes of the fields of one head, in memory: more than the largest head that can be configured.
const FIELDS: usize = 2 * 1024 * 1024;

/// The data of one store.
pub(in super::super) struct State {
    pub(super) memory: MemoryLimit,
    pub(super) clock: Arc<CpuClock>,
    wasi: WasiCtx,
    http: WasiHttpCtx,
    outgoing: Outgoing,
    table: ResourceTable,
}

impl State {
    pub(super) fn new(
        handler: &Arc<Handler>,
        services: &Arc<dyn Services>,
        log: &Arc<Mutex<LogBudget>>,
    ) -> Self {
        let said = |stream| Said::new(&handler.name, stream, log);
        // No files, no sockets, no arguments; of the environment what is granted.
        let mut wasi = WasiCtx::builder();
        wasi.stdout(said("stdout")).stderr(said("stderr")).max_random_size(RANDOM);
        for (name, value) in &handler.grants.env {
            wasi.env(name, value);
        }
        for (name, secret) in &handler.grants.secret_env {
            if let Some(value) = secret.reveal() {
                wasi.env(name, value);
            }
        }
        let mut http = WasiHttpCtx::new();
        http.set_field_size_limit(FIELDS);
        Self {
            memory: MemoryLimit::new(handler.limits.memory),
            clock: CpuClock::new(handler.limits.cpu),
            wasi: wasi.build(),
            http,
            outgoing: Outgoing::new(handler, services),
            table: bounded_table(),
        }
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { ctx: &mut self.http, table: &mut self.table, hooks: &mut self.outgoing }
    }
}
