//! A fleet in networks of its own: a client, which is the test itself, an edge, and three VMs, which are
//! reached through the edge and in no other way.

use crate::{
    namespace::{Namespace, in_network, must_run},
    process::GatewayProcess,
    tls::{Pair, Pki, TlsClient},
};
use std::{
    net::{Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
};

/// What VMs are named below.
pub const DOMAIN: &str = "vm.test";

/// The address of the client.
pub const CLIENT: &str = "2001:db8:1::2";

/// The address that every public name leads to.
pub const EDGE: &str = "2001:db8:2::1";

/// The addresses of the client and of the edge over IPv4, which names lead to elsewhere.
pub const IPV4: [&str; 2] = ["198.51.100.2", "198.51.100.1"];

/// The name of a VM that is known, and whose network is not there any more.
pub const DOWN: &str = "d0371f5a-6f0b-4a6c-8f6e-1d0f2c3b4a59";

/// The name of no VM.
pub const UNKNOWN: &str = "00000000-0000-4000-8000-000000000000";

/// The VMs, with the third part of their addresses.
const VMS: [(&str, &str); 3] = [
    ("45a68069-defc-4233-9865-6298d87053af", "a"),
    ("0b7f4ac2-52e1-4c7e-9b3e-5d3f27b1c0de", "b"),
    ("c9d1a6de-3a34-4a1c-8c55-0a4a5b6c7d8e", "c"),
];

/// A VM of the fleet.
#[derive(Debug)]
pub struct Vm {
    /// Its name.
    pub id: &'static str,
    /// Its network.
    pub namespace: Namespace,
    /// Its address.
    pub address: Ipv6Addr,
    /// Its interface, at the edge.
    pub link: String,
}

impl Vm {
    /// Its public name.
    pub fn host(&self) -> String {
        format!("{}.{DOMAIN}", self.id)
    }

    /// Where it is for its clients: at the edge, on this port.
    pub fn at(&self, port: u16) -> SocketAddr {
        (EDGE.parse::<Ipv6Addr>().expect("an address"), port).into()
    }

    /// The URL of this port and path, with TLS.
    pub fn url(&self, port: u16, path: &str) -> String {
        format!("https://{}:{port}{path}", self.host())
    }
}

/// A client, an edge, and VMs. No gateway runs yet.
#[derive(Debug)]
pub struct Fleet {
    /// The network of the edge.
    pub edge: Namespace,
    /// A VM whose services bind `::`.
    pub a: Vm,
    /// A VM whose services bind IPv4 only.
    pub b: Vm,
    /// A VM without services.
    pub c: Vm,
    /// The authority of the edge's certificate.
    pub pki: Pki,
    /// The edge's certificate.
    pub pair: Pair,
    folder: tempfile::TempDir,
}

/// Runs a test in a fleet's network: true there, and false here, as [`crate::in_namespace`] does it.
///
/// # Panics
/// Panics where it fails there.
pub fn in_fleet(test: &str, needs: &[&str]) -> bool {
    let names = VMS.iter().map(|(id, _)| *id).chain([DOWN, UNKNOWN]);
    let mut hosts = "127.0.0.1 localhost\n::1 localhost\n".to_owned();
    for name in names {
        hosts.push_str(&format!("{EDGE} {name}.{DOMAIN}\n"));
    }
    hosts.push_str(&format!("{EDGE} elsewhere.test\n"));
    in_network(test, needs, &hosts)
}

impl Fleet {
    /// Connects all of them to the edge, each by a link of its own. None has a way to another.
    ///
    /// # Panics
    /// Panics where there is no right to it.
    pub fn new() -> Self {
        let edge = Namespace::new();
        edge.must_run(&format!("ip address add {EDGE}/128 dev lo nodad"));
        join(&edge, "client", "2001:db8:1::1", |link| {
            must_run("ip", &["link", "set", link, "up"]);
            must_run("ip", &["address", "add", &format!("{CLIENT}/64"), "dev", link, "nodad"]);
            must_run("ip", &["route", "add", EDGE, "via", "2001:db8:1::1"]);
            must_run("ip", &["address", "add", &format!("{}/24", IPV4[0]), "dev", link]);
        });
        edge.must_run(&format!("ip address add {}/24 dev client", IPV4[1]));
        let [a, b, c] = VMS.map(|(id, part)| {
            let namespace = Namespace::new();
            let (link, subnet) = (format!("vm-{part}"), format!("2001:db8:{part}:"));
            join(&edge, &link, &format!("{subnet}:1"), |link| {
                must_run("ip", &["link", "set", link, "netns", &namespace.id()]);
                namespace.must_run(&format!(
                    "ip link set {link} up; ip address add {subnet}:2/64 dev {link} nodad; \
                     ip route add {EDGE} via {subnet}:1"
                ));
            });
            Vm { id, namespace, address: format!("{subnet}:2").parse().expect("an address"), link }
        });
        let pki = Pki::new();
        let pair = pki.issue(&[&format!("*.{DOMAIN}")]);
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("ca.pem"), pki.certificate()).expect("a file is written");
        Self { edge, a, b, c, pki, pair, folder }
    }

    /// What VMs the edge knows, as a file.
    pub fn table(&self) -> String {
        let known = [&self.a, &self.b, &self.c].map(|vm| format!("{},{}\n", vm.id, vm.address));
        format!("{}{DOWN},2001:db8:dead::1\n", known.concat())
    }

    /// Starts the edge's gateway. Beside its configuration are `fullchain.pem`, `privkey.pem`, and what
    /// VMs it knows, `vms.csv`.
    pub async fn start_edge(&self, daemon: &str, toml: &str) -> GatewayProcess {
        let (Pair { cert, key }, table) = (&self.pair, self.table());
        let files = [("fullchain.pem", &**cert), ("privkey.pem", &**key), ("vms.csv", &*table)];
        GatewayProcess::start_in(&self.edge, daemon, toml, &files).await
    }

    /// A folder for the time of the test.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The file of the authority.
    pub fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// A client that speaks TLS with a VM.
    pub fn client(&self, vm: &Vm) -> TlsClient {
        self.pki.client(&vm.host())
    }
}

impl Default for Fleet {
    fn default() -> Self {
        Self::new()
    }
}

/// Joins this network with the edge by a link, whose end there has this address. The end here is named
/// like the one there.
fn join(edge: &Namespace, link: &str, address: &str, here: impl FnOnce(&str)) {
    must_run("ip", &["link", "add", link, "type", "veth", "peer", "name", link, "netns", &edge.id()]);
    edge.must_run(&format!("ip link set {link} up; ip address add {address}/64 dev {link} nodad"));
    here(link);
}
