//! TLS towards others: for the HTTP requests that plugins send.

use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::ConfigVerifierExt as _;
use std::time::Duration;

/// Connects to `http` and `https` addresses; certificates are verified against the machine's roots.
pub type Connector = HttpsConnector<HttpConnector>;

/// A connector whose attempts end after `connect_deadline`.
pub fn connector(connect_deadline: Duration) -> Connector {
    // The process has one provider of cryptography; a second installation changes nothing.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let config = ClientConfig::with_platform_verifier().unwrap_or_else(|error| {
        // A bare machine without root certificates can still talk plain HTTP to its neighbours.
        tracing::warn!(%error, "the root certificates of this machine cannot be used: plugins' https requests will fail");
        ClientConfig::builder().with_root_certificates(RootCertStore::empty()).with_no_client_auth()
    });
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_connect_timeout(Some(connect_deadline));
    HttpsConnectorBuilder::new().with_tls_config(config).https_or_http().enable_http1().wrap_connector(http)
}
