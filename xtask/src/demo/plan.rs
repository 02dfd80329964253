//! What the demo runs where: ports, folder, and the gateway's TOML.

use std::{
    fmt::Display,
    fs,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process,
};

use crate::{Result, tree};

pub(crate) const VM: &str = "demo-vm";

const TEMPLATE: &str = include_str!("demo.toml");

const INFRA: &str = include_str!("infra.toml");

/// What answers carry, as it stands in the template; the smoke test changes it while traffic flows.
pub(crate) const SERVED_BY: &str = "x-served-by = \"vers-gateway\"";

/// Addresses of the services, all of them on 127.0.0.1.
pub(crate) struct Services {
    pub(crate) app: SocketAddr,
    pub(crate) line: SocketAddr,
}

pub(crate) struct Plan {
    pub(crate) services: Services,
    /// Ports of the gateway on all addresses.
    pub(crate) web: u16,
    pub(crate) raw: u16,
    /// On loopback: the page for a browser, and the gateway's own admin address.
    pub(crate) page: SocketAddr,
    pub(crate) admin: SocketAddr,
    /// The registry, and the admin address of the gateway that it is.
    pub(crate) registry: SocketAddr,
    pub(crate) infra_admin: SocketAddr,
    pub(crate) token: String,
    folder: PathBuf,
    /// Path from there to the components.
    components: &'static str,
}

impl Plan {
    /// For a person: well-known ports where they are free, and the components as cargo builds them,
    /// so that the next build is taken over.
    pub(crate) fn for_a_person(services: Services, token: String) -> Result<Self> {
        let folder = tree::target().join("demo");
        let ports = [8080, 8081, 8082, 9900, 3002, 9901].map(|port| free_port(Some(port)));
        Self::new(services, token, ports, folder, "../wasm32-wasip2/release/")
    }

    /// For a check: nothing that another run could have, and components of its own.
    pub(crate) fn for_a_check(services: Services, token: String) -> Result<Self> {
        let folder = tree::target().join(format!("demo/smoke-{}", process::id()));
        fs::create_dir_all(&folder)?;
        for name in ["auth_token", "header_inject", "registry_register"] {
            let file = format!("{name}.wasm");
            fs::copy(tree::components().join(&file), folder.join(&file))?;
        }
        Self::new(services, token, [(); 6].map(|()| free_port(None)), folder, "")
    }

    fn new(
        services: Services,
        token: String,
        ports: [Option<u16>; 6],
        folder: PathBuf,
        components: &'static str,
    ) -> Result<Self> {
        let [Some(web), Some(raw), Some(page), Some(admin), Some(registry), Some(infra)] = ports else {
            return Err("no free ports".into());
        };
        let on_loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let [page, admin, registry, infra_admin] = [page, admin, registry, infra].map(on_loopback);
        fs::create_dir_all(&folder)?;
        let plan = Self { services, web, raw, page, admin, registry, infra_admin, token, folder, components };
        fs::write(plan.file(), plan.filled(TEMPLATE))?;
        fs::write(plan.infra(), plan.filled(INFRA))?;
        Ok(plan)
    }

    /// The gateway's configuration.
    pub(crate) fn file(&self) -> PathBuf {
        self.folder.join("demo.toml")
    }

    /// The configuration of the registry's gateway.
    pub(crate) fn infra(&self) -> PathBuf {
        self.folder.join("infra.toml")
    }

    /// Where a check's gateway writes its log.
    pub(crate) fn log(&self) -> PathBuf {
        self.folder.join("gateway.log")
    }

    /// Where the registry's does, which a person need not read beside the other.
    pub(crate) fn infra_log(&self) -> PathBuf {
        self.folder.join("infra.log")
    }

    pub(crate) fn remove(&self) -> Result {
        Ok(fs::remove_dir_all(&self.folder)?)
    }

    fn filled(&self, template: &str) -> String {
        let Services { app, line } = &self.services;
        let values: [(&str, &dyn Display); 10] = [
            ("@web@", &self.web),
            ("@raw@", &self.raw),
            ("@page@", &self.page),
            ("@admin@", &self.admin),
            ("@app@", app),
            ("@line@", line),
            ("@registry@", &self.registry),
            ("@infra_admin@", &self.infra_admin),
            ("@vm@", &VM),
            ("@components@", &self.components),
        ];
        let fill = |text: String, (name, value): (&str, &dyn Display)| text.replace(name, &value.to_string());
        values.into_iter().fold(template.to_owned(), fill)
    }
}

/// Line of `needle` in a file, from 1.
pub(crate) fn line_of(file: &Path, needle: &str) -> usize {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().position(|line| line.contains(needle)).map_or(1, |index| index + 1)
}

/// A port that is free now on every address: the one wished for, or one of a range that this process
/// shares with no other, below those that the system gives to outgoing connections.
fn free_port(wish: Option<u16>) -> Option<u16> {
    use std::sync::atomic::{AtomicU16, Ordering::Relaxed};
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let own = 20_000 + (process::id() % 750) as u16 * 16;
    let others = (0..16).map(|_| own + NEXT.fetch_add(1, Relaxed) % 16);
    wish.into_iter().chain(others).find(|port| is_free(*port))
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok()
        && (!has_ipv6() || TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).is_ok())
}

/// Whether this machine speaks IPv6 at all.
pub(crate) fn has_ipv6() -> bool {
    TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}
