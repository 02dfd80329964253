//! What the user wrote: one TOML file as types, or every error in it with its place.
//!
//! Text becomes a tree that remembers places (`syntax`), variables are put in (`interpolate`), each
//! table becomes its type (`read`, `recover`), and tables are compared with each other (`check`). This module does no I/O except in [`Source::read`], and does not know how anything
//! runs: no path is opened, no host looked up, no pattern compiled.

mod admin;
mod backend;
mod certificate;
mod check;
mod describe;
mod diagnostic;
mod fault;
mod gateway;
mod interpolate;
mod limits;
mod listener;
mod log;
mod nearest;
mod oci;
mod origin;
mod plugin;
mod plugin_cases;
mod plugin_config;
mod read;
mod recover;
mod registry;
mod report;
mod route;
mod schema;
mod secret;
mod source;
mod syntax;
mod target;
mod text;
mod tree;
mod values;
mod vms;
mod vocabulary;

#[cfg(test)]
mod golden;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use schemars::JsonSchema;

/// A value with its place in the file.
pub use toml::Spanned;

pub use self::{
    admin::{Admin, AdminAddress},
    backend::{
        Backend, BackendHost, BackendLimits, BackendProtocol, BackendTls, Balance, Discover, Ejection,
        Health, Keepalive, ProxyHeader, ServerTls,
    },
    certificate::{Acme, AcmeChallenge, Certificate, CertificateFiles, CertificateSource},
    diagnostic::{Diagnostic, Severity, render},
    gateway::Gateway,
    limits::Limits,
    listener::{ClientAuth, Listener, ListenerProtocol, ListenerTimeouts, PortRules, ProxyProtocol},
    log::{Log, LogFormat, LogLevel},
    nearest::nearest,
    oci::{OciReference, OciReferenceError, sha256_digest},
    origin::{Origin, OriginGrants, OriginLimits},
    plugin::{Breaker, Grants, OnError, Plugin, PluginLimits},
    plugin_cases::{
        CaseConnection, CaseReply, CaseRequest, CaseResponse, CaseValues, CaseVerdict, ExpectedValues,
        PluginCase, PluginCases, plugin_cases, plugin_table,
    },
    plugin_config::PluginConfig,
    registry::{Domain, Etcd, EtcdPrefix, Probe, Registry, RegistryAddresses, RegistryStore, RegistryUrl},
    route::{PluginUse, Retries, Route, RouteProtocol, RouteTimeouts},
    schema::json_schema,
    secret::{Secret, SecretSource},
    source::Source,
    target::{PortAsked, Redirect, Respond, Target, VmName, VmTarget, host_port},
    values::{ByteSize, Duration},
    vms::{Resolve, VmKeepalive, VmLimits, VmTimeouts, Vms},
};

/// A configuration file; what it does not say has its default.
#[derive(Clone, Debug, Default, PartialEq, JsonSchema)]
#[schemars(deny_unknown_fields, default)]
pub struct Config {
    /// The process as a whole.
    pub gateway: Gateway,
    /// What the gateway writes about its work.
    pub log: Log,
    /// Where operators look and reload.
    pub admin: Admin,
    /// How much one client may ask for.
    pub limits: Limits,
    /// Addresses that clients connect to.
    #[schemars(rename = "listener")]
    pub listeners: Vec<Listener>,
    /// Which requests and connections go where. The most specific one that matches is taken.
    #[schemars(rename = "route")]
    pub routes: Vec<Route>,
    /// Servers that do the same work, by name.
    #[schemars(rename = "backend")]
    pub backends: BTreeMap<String, Backend>,
    /// Where the VMs of the fleet are.
    pub vms: Option<Vms>,
    /// Which VMs there are, and what they serve.
    pub registry: Option<Registry>,
    /// WebAssembly components, by name.
    #[schemars(rename = "plugin")]
    pub plugins: BTreeMap<String, Plugin>,
    /// WebAssembly components that answer requests themselves, by name.
    #[schemars(rename = "origin")]
    pub origins: BTreeMap<String, Origin>,
    /// What TLS listeners show to clients, by name.
    #[schemars(rename = "certificate")]
    pub certificates: BTreeMap<String, Certificate>,
    /// Where to find values that must not stand in the file, by name.
    #[schemars(rename = "secret")]
    pub secrets: BTreeMap<String, Secret>,
    /// What is probably not as it was meant.
    #[schemars(skip)]
    pub warnings: Vec<Diagnostic>,
}

/// Reads a file: everything in it, or every error.
///
/// `env` gives the value of an environment variable, for `${NAME}` and for the default of
/// `gateway.vm_id`.
pub fn parse(source: &Source, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, Vec<Diagnostic>> {
    let mut report = report::Report::default();
    let mut config = Config::default();
    if let Some(mut tree) = syntax::parse(&source.text, &mut report) {
        interpolate::expand(&mut tree, &source.text, env, &mut report);
        let (read, names) = read::read(tree, &mut report);
        check::check(&read, &names, &mut report);
        config = read;
    }
    config.warnings = report.finish()?;
    let vm_id = || env("VERS_VM_ID").filter(|id| !id.is_empty());
    config.gateway.vm_id = config.gateway.vm_id.or_else(vm_id);
    Ok(config)
}

/// The name of a table before the one in its header is filled in.
fn unnamed() -> Spanned<String> {
    Spanned::new(0..0, String::new())
}
