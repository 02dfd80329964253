//! Between the bindings and the traits: what the exports of a component do. Used by [`export!`]
//! only, and not part of the stable interface.
//!
//! [`export!`]: crate::export

use crate::{ConfigProblem, Plugin, config};
use std::{cell::Cell, thread::LocalKey};

/// Where a component keeps its plugin, once it is configured.
pub type Slot<P> = Cell<Option<&'static P>>;

/// What [`export!`](crate::export) defines in the plugin's crate.
pub trait Component {
    /// The exported type.
    type Plugin: Plugin;

    /// The instance's plugin.
    fn slot() -> &'static LocalKey<Slot<Self::Plugin>>;
}

/// What comes of a `config` table.
pub type Configured<P> = Result<P, Vec<ConfigProblem>>;

/// Reads the JSON text of a `config` table.
///
/// # Errors
/// What is wrong with it.
pub fn configure<P: Plugin>(json: &str) -> Configured<P> {
    config::parse(json)
}

#[cfg(target_family = "wasm")]
mod exports {
    use super::Component;
    use crate::{
        Background, BodyFilter, BodyVerdict, Closed, Completed, ConfigProblem, Connection, ExchangeLog,
        HttpFilter, Request, RequestBodyTransform, Response, ResponseBodyTransform, ResponseVerdict,
        TcpBytesFilter, TcpFilter, TcpLog, TcpVerdict, Transform, Verdict,
        bindings::{
            background, base, exchange_log, request_body_filter, request_body_transform, request_filter,
            response_body_transform, response_filter, tcp_bytes_filter, tcp_filter, tcp_log,
        },
        host::types,
    };
    use std::cell::RefCell;

    use background::exports::vers::gateway::background as background_hook;
    use base::exports::vers::gateway::lifecycle;
    use exchange_log::exports::vers::gateway::exchange_log as log_hook;
    use request_body_filter::exports::vers::gateway::request_body_filter as body_hook;
    use request_body_transform::exports::vers::gateway::request_body_transform as upload_hook;
    use request_filter::exports::vers::gateway::request_filter as request_hook;
    use response_body_transform::exports::vers::gateway::response_body_transform as transform_hook;
    use response_filter::exports::vers::gateway::response_filter as response_hook;
    use tcp_bytes_filter::exports::vers::gateway::tcp_bytes_filter as tcp_bytes_hook;
    use tcp_filter::exports::vers::gateway::tcp_filter as tcp_hook;
    use tcp_log::exports::vers::gateway::tcp_log as tcp_log_hook;

    fn plugin<C: Component>() -> &'static C::Plugin {
        C::slot().get().expect("the gateway configures an instance before it calls a hook")
    }

    impl<C: Component> lifecycle::Guest for C {
        fn configure(json: String) -> Result<(), Vec<lifecycle::ConfigProblem>> {
            let plugin: C::Plugin = super::configure(&json).map_err(|problems| {
                let wit = |p: ConfigProblem| lifecycle::ConfigProblem { path: p.path, message: p.message };
                problems.into_iter().map(wit).collect::<Vec<_>>()
            })?;
            // It lives as long as the instance does.
            C::slot().set(Some(Box::leak(Box::new(plugin))));
            Ok(())
        }
    }

    // A hook's handle is borrowed for its call; the SDK's types own theirs, and drop them before the
    // call ends.

    impl<C: Component<Plugin: HttpFilter>> request_hook::Guest for C {
        #[allow(unsafe_code, reason = "the handle was just taken from its owner")]
        fn on_request(req: &types::Request) -> request_hook::Verdict {
            let mut req = Request::new(unsafe { types::Request::from_handle(req.take_handle()) });
            match plugin::<C>().on_request(&mut req) {
                Verdict::Next => request_hook::Verdict::Next,
                Verdict::Respond(reply) => request_hook::Verdict::Respond(reply.into()),
                Verdict::RouteTo(backend) => request_hook::Verdict::RouteTo(backend),
                Verdict::NextWithBody(most) => {
                    req.want_body(most);
                    request_hook::Verdict::Next
                }
            }
        }
    }

    impl<C: Component<Plugin: BodyFilter>> body_hook::Guest for C {
        #[allow(unsafe_code, reason = "the handle was just taken from its owner")]
        fn on_request_body(req: &types::Request, body: Vec<u8>) -> body_hook::Verdict {
            let mut req = Request::new(unsafe { types::Request::from_handle(req.take_handle()) });
            match plugin::<C>().on_request_body(&mut req, body) {
                BodyVerdict::Next => body_hook::Verdict::Next,
                BodyVerdict::Replace(body) => body_hook::Verdict::Replace(body),
                BodyVerdict::Respond(reply) => body_hook::Verdict::Respond(reply.into()),
                BodyVerdict::RouteTo(backend) => body_hook::Verdict::RouteTo(backend),
            }
        }
    }

    impl<C: Component<Plugin: HttpFilter>> response_hook::Guest for C {
        #[allow(unsafe_code, reason = "the handle was just taken from its owner")]
        fn on_response(resp: &types::Response) -> response_hook::Verdict {
            let mut resp = Response::new(unsafe { types::Response::from_handle(resp.take_handle()) });
            match plugin::<C>().on_response(&mut resp) {
                ResponseVerdict::Next => response_hook::Verdict::Next,
                ResponseVerdict::Replace(reply) => response_hook::Verdict::Replace(reply.into()),
            }
        }
    }

    /// A body on its way, and what there is of it already.
    pub struct Running(RefCell<(Box<dyn Transform>, Option<Vec<u8>>)>);

    impl Running {
        fn output(
            &self,
            make: impl FnOnce(&mut dyn Transform, Option<Vec<u8>>) -> Result<Vec<u8>, String>,
        ) -> Result<types::Transformed, String> {
            let (transform, next) = &mut *self.0.borrow_mut();
            let bytes = make(transform.as_mut(), next.take())?;
            // The host must know now whether to ask again.
            *next = transform.more()?;
            Ok(types::Transformed { bytes, more: next.is_some() })
        }
    }

    impl transform_hook::GuestTransform for Running {
        fn push(&self, chunk: Vec<u8>) -> Result<types::Transformed, String> {
            self.output(|transform, _| transform.push(chunk))
        }

        fn pull(&self) -> Result<types::Transformed, String> {
            self.output(|_, next| Ok(next.unwrap_or_default()))
        }

        fn finish(&self) -> Result<types::Transformed, String> {
            self.output(|transform, _| transform.finish())
        }
    }

    impl upload_hook::GuestTransform for Running {
        fn push(&self, chunk: Vec<u8>) -> Result<types::Transformed, String> {
            transform_hook::GuestTransform::push(self, chunk)
        }

        fn pull(&self) -> Result<types::Transformed, String> {
            transform_hook::GuestTransform::pull(self)
        }

        fn finish(&self) -> Result<types::Transformed, String> {
            transform_hook::GuestTransform::finish(self)
        }
    }

    impl<C: Component<Plugin: RequestBodyTransform>> upload_hook::Guest for C {
        type Transform = Running;

        #[allow(unsafe_code, reason = "the handle was just taken from its owner")]
        fn begin(req: &types::Request) -> Option<upload_hook::Transform> {
            let mut req = Request::new(unsafe { types::Request::from_handle(req.take_handle()) });
            let begun = plugin::<C>().begin(&mut req)?;
            Some(upload_hook::Transform::new(Running(RefCell::new((begun, None)))))
        }
    }

    impl<C: Component<Plugin: ResponseBodyTransform>> transform_hook::Guest for C {
        type Transform = Running;

        #[allow(unsafe_code, reason = "the handle was just taken from its owner")]
        fn begin(resp: &types::Response) -> Option<transform_hook::Transform> {
            let mut resp = Response::new(unsafe { types::Response::from_handle(resp.take_handle()) });
            let begun = plugin::<C>().begin(&mut resp)?;
            Some(transform_hook::Transform::new(Running(RefCell::new((begun, None)))))
        }
    }

    impl<C: Component<Plugin: ExchangeLog>> log_hook::Guest for C {
        #[allow(unsafe_code, reason = "the handle was just taken from its owner")]
        fn on_complete(done: &types::Completed) {
            let done = Completed::new(unsafe { types::Completed::from_handle(done.take_handle()) });
            plugin::<C>().on_complete(&done);
        }
    }

    fn said(verdict: TcpVerdict, conn: &Connection) -> types::TcpVerdict {
        match verdict {
            TcpVerdict::Next => types::TcpVerdict::Next,
            TcpVerdict::Peek { least, within } => {
                conn.want_bytes(least, within);
                types::TcpVerdict::Next
            }
            TcpVerdict::RouteTo(backend) => types::TcpVerdict::RouteTo(backend),
            TcpVerdict::Refuse { reset, reason } => {
                types::TcpVerdict::Refuse(types::Refusal { reset, reason })
            }
        }
    }

    impl<C: Component<Plugin: TcpFilter>> tcp_hook::Guest for C {
        #[allow(unsafe_code, reason = "the handle was just taken from its owner")]
        fn on_accept(conn: &types::Connection) -> types::TcpVerdict {
            let conn = Connection::new(unsafe { types::Connection::from_handle(conn.take_handle()) });
            said(plugin::<C>().on_accept(&conn), &conn)
        }
    }

    impl<C: Component<Plugin: TcpBytesFilter>> tcp_bytes_hook::Guest for C {
        #[allow(unsafe_code, reason = "the handle was just taken from its owner")]
        fn on_first_bytes(conn: &types::Connection, bytes: Vec<u8>, more: bool) -> types::TcpVerdict {
            let conn = Connection::new(unsafe { types::Connection::from_handle(conn.take_handle()) });
            said(plugin::<C>().on_first_bytes(&conn, bytes, more), &conn)
        }
    }

    impl<C: Component<Plugin: TcpLog>> tcp_log_hook::Guest for C {
        #[allow(unsafe_code, reason = "the handle was just taken from its owner")]
        fn on_close(closed: &types::Closed) {
            let closed = Closed::new(unsafe { types::Closed::from_handle(closed.take_handle()) });
            plugin::<C>().on_close(&closed);
        }
    }

    impl<C: Component<Plugin: Background>> background_hook::Guest for C {
        fn run(why: background_hook::Reason) -> Result<Option<u32>, String> {
            plugin::<C>().run(why).map(crate::Next::millis)
        }

        fn stop() {
            plugin::<C>().stop();
        }
    }
}
