//! The functions of a guest that transforms bodies, whichever way these go: two interfaces of the same shape.

use super::{
    Hooks,
    bindings::{
        exports::vers::gateway::{request_body_transform, response_body_transform},
        vers::gateway::types::Transformed,
    },
    exports::Functions,
    handles::{REQUEST, RESPONSE},
    state::State,
};
use wasmtime::{
    Result, Store,
    component::{Resource, ResourceAny},
};

/// Which way a body goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From the client to a backend.
    Request,
    /// From a backend to the client.
    Response,
}

impl Way {
    /// The hook's name in metrics.
    pub(super) fn hook(self) -> &'static str {
        match self {
            Self::Request => "request-transform",
            Self::Response => "transform",
        }
    }
}

impl Hooks {
    /// Whether there is one for bodies that go this way.
    pub(super) fn transforms(self, way: Way) -> bool {
        match way {
            Way::Request => self.request_transform,
            Way::Response => self.transform,
        }
    }
}

/// What a body's transform is asked.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ask<'a> {
    Push(&'a [u8]),
    Pull,
    Finish,
}

/// The guest's functions for one way, taken out of their instance for a call.
pub(super) enum Pieces {
    Request(request_body_transform::Guest),
    Response(response_body_transform::Guest),
}

impl Pieces {
    pub(super) fn take(way: Way, functions: &mut Functions) -> Option<Self> {
        match way {
            Way::Request => functions.request_transform.take().map(Self::Request),
            Way::Response => functions.transform.take().map(Self::Response),
        }
    }

    /// Whether they are where they belong, and not in a call that was given up.
    pub(super) fn are_there(way: Way, functions: &Functions) -> bool {
        match way {
            Way::Request => functions.request_transform.is_some(),
            Way::Response => functions.transform.is_some(),
        }
    }

    pub(super) fn put(self, functions: &mut Functions) {
        match self {
            Self::Request(guest) => functions.request_transform = Some(guest),
            Self::Response(guest) => functions.transform = Some(guest),
        }
    }

    pub(super) async fn begin(&self, store: &mut Store<State>) -> Result<Option<ResourceAny>> {
        match self {
            Self::Request(guest) => guest.call_begin(store, Resource::new_borrow(REQUEST)).await,
            Self::Response(guest) => guest.call_begin(store, Resource::new_borrow(RESPONSE)).await,
        }
    }

    pub(super) async fn ask(
        &self,
        store: &mut Store<State>,
        it: ResourceAny,
        ask: Ask<'_>,
    ) -> Result<std::result::Result<Transformed, String>> {
        match (self, ask) {
            (Self::Request(guest), Ask::Push(bytes)) => guest.transform().call_push(store, it, bytes).await,
            (Self::Request(guest), Ask::Pull) => guest.transform().call_pull(store, it).await,
            (Self::Request(guest), Ask::Finish) => guest.transform().call_finish(store, it).await,
            (Self::Response(guest), Ask::Push(bytes)) => guest.transform().call_push(store, it, bytes).await,
            (Self::Response(guest), Ask::Pull) => guest.transform().call_pull(store, it).await,
            (Self::Response(guest), Ask::Finish) => guest.transform().call_finish(store, it).await,
        }
    }
}
