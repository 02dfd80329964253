//! Where a request goes whose server is known only when it is asked for: a VM, or a port of an address;
//! and what it means to whoever runs it that it cannot be reached.

use super::{answer::Error, arrival::Arrival};
use crate::{
    snapshot::{Goal, VmName},
    upstream::{Cause, Pool},
    vms::{NoVm, VmId},
};
use std::{borrow::Cow, rc::Rc};

impl Goal {
    /// Connections to it. `captured` gives what the route's patterns captured under a name.
    pub(super) async fn pool<'a>(
        &'a self,
        arrival: &Arrival,
        captured: impl Fn(&str) -> Option<&'a str>,
    ) -> Result<Rc<Pool>, Error> {
        let asked = arrival.port;
        match self {
            Self::AnyPort { ip, fleet } => Ok(fleet.pool(&[*ip], asked)),
            Self::Vm { name, port, directory, fleet } => {
                let vm: Cow<'_, VmId> = match name {
                    VmName::Fixed(vm) => Cow::Borrowed(vm),
                    VmName::Captured(name) => {
                        let text = captured(name).ok_or(Error::UnknownVm)?;
                        Cow::Owned(text.parse().map_err(|_| Error::UnknownVm)?)
                    }
                };
                let addresses = directory.find(&vm).await.map_err(|error| match error {
                    NoVm::Unknown => Error::UnknownVm,
                    NoVm::Failed(why) => Error::NoDirectory(why),
                })?;
                Ok(fleet.pool(&addresses, port.unwrap_or(asked)))
            }
        }
    }

    /// What an error says to whoever runs the VM; what the gateway's operator has to do with is left as
    /// it is.
    pub(super) fn explain(&self, error: Error, arrival: &Arrival) -> Error {
        let Self::Vm { port, .. } = self else { return error };
        let Error::Upstream(upstream) = error else { return error };
        let cause = match &upstream.cause {
            Cause::Down(cause) => cause,
            cause => cause,
        };
        match cause {
            Cause::Refused => Error::VmRefuses { port: port.unwrap_or_else(|| arrival.port) },
            Cause::ConnectTimeout => Error::VmSilent,
            // For want of something here.
            Cause::Connect(_) if cause.is_ours() => Error::Upstream(upstream),
            Cause::Connect(_) => Error::VmUnreachable(upstream),
            _ => Error::Upstream(upstream),
        }
    }
}
