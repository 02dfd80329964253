//! One instance and its one request, from the instantiation to the return.

use super::{
    super::{
        FaultKind, Services,
        clock::{CallError, CpuBudgetSpent, CpuClock, Timed},
        engine::Caller,
        instance::HANDED_OVER,
        places::Place,
        state::LogBudget,
    },
    Handler, HandlerFault, HandlerFaultKind,
    state::State,
    upload::UploadBody,
};
use std::{
    fmt,
    pin::{Pin, pin},
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};
use tokio::sync::oneshot;
use wasmtime::{PoolConcurrencyLimitError, Store, StoreContextMut};
use wasmtime_wasi_http::{
    WasiHttpView as _,
    p2::{
        bindings::http::types::{ErrorCode, Scheme},
        body::HyperOutgoingBody,
    },
};

/// What a guest gives for an answer.
pub(super) type Given = Result<http::Response<HyperOutgoingBody>, ErrorCode>;

/// Where no other is configured: nothing runs that long.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// A guest that answers a request: to be polled until it has returned. Dropped before that, it is gone with
/// everything that it had.
pub(super) struct Guest {
    run: Pin<Box<dyn Future<Output = Result<(), HandlerFault>>>>,
    clock: Arc<CpuClock>,
    caller: Caller,
}

impl Guest {
    /// Nothing runs yet.
    pub(super) fn new(
        handler: &Arc<Handler>,
        (services, log, caller): (&Arc<dyn Services>, &Arc<Mutex<LogBudget>>, &Caller),
        request: http::Request<UploadBody>,
        (scheme, answer): (Scheme, oneshot::Sender<Given>),
    ) -> Result<Self, HandlerFault> {
        let place = place(handler)?;
        let (mut store, clock) = store(handler, services, log);
        let of_store = Arc::clone(&clock);
        let handler = Arc::clone(handler);
        let run = Box::pin(async move {
            let _place = place;
            let called = {
                let call = pin!(async {
                    let mut http = store.data_mut().http();
                    let request = http.new_incoming_request(scheme, request)?;
                    let out = store.data_mut().http().new_response_outparam(answer)?;
                    let linked = handler.pre.instantiate_async(&mut store).await?;
                    linked.wasi_http_incoming_handler().call_handle(&mut store, request, out).await
                });
                Timed::new(call, of_store, handler.limits.wall.unwrap_or(LONGEST), 0).await.0
            };
            called.map_err(|error| fault(&store, &error))
        });
        Ok(Self { run, clock, caller: caller.clone() })
    }

    /// Runs it as far as it comes.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), HandlerFault>> {
        // Without the ticker a guest that never returns would never be stopped.
        let _calling = self.caller.calling();
        self.run.as_mut().poll(cx)
    }

    /// What it has computed so far.
    pub(super) fn cpu(&self) -> Duration {
        self.clock.used()
    }
}

impl fmt::Debug for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guest").field("cpu", &self.cpu()).finish_non_exhaustive()
    }
}

/// Makes an instance, and throws it away.
pub(super) async fn try_out(
    handler: &Arc<Handler>,
    services: Arc<dyn Services>,
    caller: Caller,
) -> Result<(), HandlerFault> {
    let _place = place(handler)?;
    let (mut store, clock) = store(handler, &services, &Arc::new(Mutex::new(LogBudget::new())));
    let _calling = caller.calling();
    let made = {
        let making = pin!(handler.pre.instantiate_async(&mut store));
        Timed::new(making, clock, handler.limits.wall.unwrap_or(LONGEST), 0).await.0
    };
    made.map(drop).map_err(|error| fault(&store, &error))
}

fn place(handler: &Handler) -> Result<Place, HandlerFault> {
    handler.share.take().ok_or_else(|| HandlerFaultKind::Full.into())
}

fn store(
    handler: &Arc<Handler>,
    services: &Arc<dyn Services>,
    log: &Arc<Mutex<LogBudget>>,
) -> (Store<State>, Arc<CpuClock>) {
    let mut store = Store::new(handler.pre.engine(), State::new(handler, services, log));
    store.limiter(|state| &mut state.memory);
    store.set_hostcall_fuel(HANDED_OVER);
    store.epoch_deadline_callback(|context: StoreContextMut<'_, State>| context.data().clock.on_epoch());
    store.set_epoch_deadline(1);
    let clock = Arc::clone(&store.data().clock);
    (store, clock)
}

fn fault(store: &Store<State>, error: &CallError) -> HandlerFault {
    let (kind, error) = match error {
        CallError::Host(FaultKind::Wall) => return HandlerFaultKind::Wall.into(),
        CallError::Host(kind) => {
            return HandlerFault { kind: HandlerFaultKind::Trap, detail: kind.to_string() };
        }
        CallError::Guest(error) if error.is::<CpuBudgetSpent>() => (HandlerFaultKind::Cpu, error),
        CallError::Guest(error) if error.is::<PoolConcurrencyLimitError>() => (HandlerFaultKind::Full, error),
        CallError::Guest(error) if store.data().memory.denied => (HandlerFaultKind::Memory, error),
        CallError::Guest(error) => (HandlerFaultKind::Trap, error),
    };
    HandlerFault { kind, detail: format!("{error:?}") }
}
