//! The macro that makes a component of a struct.

/// Exports a plugin with its hooks: one or more of `http_filter`, `request_filter`,
/// `request_body_filter`, `request_body_transform`, `response_filter`, `response_body_transform`, `exchange_log`,
/// `tcp_filter`, `tcp_bytes_filter`, `tcp_log` and `background`.
///
/// | hook | trait | called |
/// | --- | --- | --- |
/// | `http_filter` | [`HttpFilter`](crate::HttpFilter) | for requests and for answers |
/// | `request_filter` | [`HttpFilter`](crate::HttpFilter) | for requests only |
/// | `request_body_filter` | [`BodyFilter`](crate::BodyFilter) | for bodies that the request filter asked for |
/// | `request_body_transform` | [`RequestBodyTransform`](crate::RequestBodyTransform) | for bodies of requests to backends |
/// | `response_filter` | [`HttpFilter`](crate::HttpFilter) | for answers only |
/// | `response_body_transform` | [`ResponseBodyTransform`](crate::ResponseBodyTransform) | for bodies of backends' answers |
/// | `exchange_log` | [`ExchangeLog`](crate::ExchangeLog) | for each exchange that is over |
/// | `tcp_filter` | [`TcpFilter`](crate::TcpFilter) | for connections of TCP routes |
/// | `tcp_bytes_filter` | [`TcpBytesFilter`](crate::TcpBytesFilter) | for first bytes that the TCP filter asked for |
/// | `tcp_log` | [`TcpLog`](crate::TcpLog) | for each connection that is over |
/// | `background` | [`Background`](crate::Background) | on start and on a timer |
///
/// The gateway calls the hooks that are named here and no others, so name only those you have: a
/// call costs about a microsecond even if it does nothing.
///
/// ```
/// use vers_plugin::prelude::*;
///
/// #[derive(Deserialize)]
/// struct Nothing {}
///
/// impl HttpFilter for Nothing {}
/// vers_plugin::export!(Nothing: request_filter);
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! export {
    ($plugin:ty: $($hook:ident),+ $(,)?) => {
        impl $crate::Plugin for $plugin {
            fn validate_hooks(&self, problems: &mut $crate::Problems) {
                $( $crate::__validate!($hook, $plugin, self, problems); )+
            }
        }

        // Tests are the only users of a plugin outside a component; it is no dead code for that.
        #[cfg(not(target_family = "wasm"))]
        const _: fn(&::std::primitive::str) -> $crate::guest::Configured<$plugin> = $crate::guest::configure;

        #[cfg(target_family = "wasm")]
        const _: () = {
            struct Component;

            ::std::thread_local! {
                static PLUGIN: $crate::guest::Slot<$plugin> = const { $crate::guest::Slot::new(None) };
            }

            impl $crate::guest::Component for Component {
                type Plugin = $plugin;

                fn slot() -> &'static ::std::thread::LocalKey<$crate::guest::Slot<$plugin>> {
                    &PLUGIN
                }
            }

            // What the component says of itself to those who do not run it.
            const MANIFEST: $crate::schema::Manifest = {
                use $crate::schema::Unknown as _;
                $crate::schema::Manifest {
                    name: ::std::env!("CARGO_PKG_NAME"),
                    version: ::std::env!("CARGO_PKG_VERSION"),
                    description: ::std::env!("CARGO_PKG_DESCRIPTION"),
                    config: $crate::schema::Probe::<$plugin>::SHAPE,
                    config_description: $crate::schema::Probe::<$plugin>::DESCRIPTION,
                }
            };
            #[unsafe(link_section = "vers:plugin")]
            static SECTION: [u8; MANIFEST.length()] = MANIFEST.json();

            $crate::bindings::base::export_base!(Component with_types_in $crate::bindings::base);
            $( $crate::__export!($hook, Component); )+
        };
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __validate {
    (http_filter, $plugin:ty, $self:expr, $problems:expr) => {
        <$plugin as $crate::HttpFilter>::validate($self, $problems)
    };
    (request_filter, $plugin:ty, $self:expr, $problems:expr) => {
        <$plugin as $crate::HttpFilter>::validate($self, $problems)
    };
    (response_filter, $plugin:ty, $self:expr, $problems:expr) => {
        <$plugin as $crate::HttpFilter>::validate($self, $problems)
    };
    (request_body_filter, $plugin:ty, $self:expr, $problems:expr) => {
        <$plugin as $crate::BodyFilter>::validate($self, $problems)
    };
    (request_body_transform, $plugin:ty, $self:expr, $problems:expr) => {
        <$plugin as $crate::RequestBodyTransform>::validate($self, $problems)
    };
    (response_body_transform, $plugin:ty, $self:expr, $problems:expr) => {
        <$plugin as $crate::ResponseBodyTransform>::validate($self, $problems)
    };
    (exchange_log, $plugin:ty, $self:expr, $problems:expr) => {
        <$plugin as $crate::ExchangeLog>::validate($self, $problems)
    };
    (tcp_filter, $plugin:ty, $self:expr, $problems:expr) => {
        <$plugin as $crate::TcpFilter>::validate($self, $problems)
    };
    (tcp_bytes_filter, $plugin:ty, $self:expr, $problems:expr) => {
        <$plugin as $crate::TcpBytesFilter>::validate($self, $problems)
    };
    (tcp_log, $plugin:ty, $self:expr, $problems:expr) => {
        <$plugin as $crate::TcpLog>::validate($self, $problems)
    };
    (background, $plugin:ty, $self:expr, $problems:expr) => {
        <$plugin as $crate::Background>::validate($self, $problems)
    };
    ($unknown:ident, $plugin:ty, $self:expr, $problems:expr) => {
        ::std::compile_error!(::std::concat!(
            "no hook named `",
            ::std::stringify!($unknown),
            "`; there are http_filter, request_filter, request_body_filter, request_body_transform, response_filter, response_body_transform, exchange_log, tcp_filter, tcp_bytes_filter, tcp_log and background"
        ))
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __export {
    (http_filter, $component:ident) => {
        $crate::__export!(request_filter, $component);
        $crate::__export!(response_filter, $component);
    };
    (request_filter, $component:ident) => {
        $crate::bindings::request_filter::export_request_filter!($component with_types_in $crate::bindings::request_filter);
    };
    (response_filter, $component:ident) => {
        $crate::bindings::response_filter::export_response_filter!($component with_types_in $crate::bindings::response_filter);
    };
    (request_body_filter, $component:ident) => {
        $crate::bindings::request_body_filter::export_request_body_filter!($component with_types_in $crate::bindings::request_body_filter);
    };
    (request_body_transform, $component:ident) => {
        $crate::bindings::request_body_transform::export_request_body_transform!($component with_types_in $crate::bindings::request_body_transform);
    };
    (response_body_transform, $component:ident) => {
        $crate::bindings::response_body_transform::export_response_body_transform!($component with_types_in $crate::bindings::response_body_transform);
    };
    (exchange_log, $component:ident) => {
        $crate::bindings::exchange_log::export_exchange_log!($component with_types_in $crate::bindings::exchange_log);
    };
    (tcp_filter, $component:ident) => {
        $crate::bindings::tcp_filter::export_tcp_filter!($component with_types_in $crate::bindings::tcp_filter);
    };
    (tcp_bytes_filter, $component:ident) => {
        $crate::bindings::tcp_bytes_filter::export_tcp_bytes_filter!($component with_types_in $crate::bindings::tcp_bytes_filter);
    };
    (tcp_log, $component:ident) => {
        $crate::bindings::tcp_log::export_tcp_log!($component with_types_in $crate::bindings::tcp_log);
    };
    (background, $component:ident) => {
        $crate::bindings::background::export_background!($component with_types_in $crate::bindings::background);
    };
    // `__validate!` has said what is wrong.
    ($unknown:ident, $component:ident) => {};
}
