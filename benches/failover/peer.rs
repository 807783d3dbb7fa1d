//! The systems that are compared: gapless at its defaults, the others as experts tune them.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::find::{self, Peer};
use crate::instance::{Incident, Instance};
use crate::layout::{self, POOL_ENDPOINTS, address};
use crate::process::{Process, bound_command, free_ports};
use crate::template::fill;
use crate::watch::Watch;

/// A system that is there.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Installed {
    /// Which one.
    pub(crate) peer: Peer,
    /// How to start it.
    pub(crate) program: PathBuf,
    /// What it says of its version.
    pub(crate) version: String,
}

impl Installed {
    /// Looks for it; `gapless` is where that was built, `envoy` where Envoy is said to be.
    pub(crate) fn find(peer: Peer, gapless: &Path, envoy: Option<&Path>) -> Option<Self> {
        let (program, version) = match peer {
            Peer::Gapless => (gapless.to_owned(), find::version(gapless, "--version")?),
            Peer::Envoy => find::envoy(envoy)?,
            Peer::Haproxy | Peer::Nginx => find::program(Path::new(peer.name()), "-v")?,
        };
        Some(Self { peer, program, version })
    }

    /// Starts it in front of the pool's endpoints, where gapless has `probe` for them, and waits
    /// until it serves.
    pub(crate) fn start(&self, probe: &str, dir: &Path, watch: &Watch) -> io::Result<Proxy> {
        let prefix = dir.to_string_lossy();
        let nginx_arguments = ["-e", "stderr", "-p", &*prefix, "-c"];
        let (template, name, arguments): (_, _, &[&str]) = match self.peer {
            Peer::Gapless => {
                let config = |listen, admin| layout::config(1, probe, listen, admin);
                return Instance::start(&self.program, config, dir, watch).map(Proxy::Gapless);
            }
            Peer::Haproxy => (include_str!("peers/haproxy.cfg"), "haproxy.cfg", &["-db", "-f"]),
            Peer::Nginx => (include_str!("peers/nginx.conf"), "nginx.conf", &nginx_arguments),
            Peer::Envoy => {
                let arguments = &["--log-level", "error", "--disable-hot-restart", "-c"];
                (include_str!("peers/envoy.yaml"), "envoy.yaml", arguments)
            }
        };
        let [port] = free_ports()?;
        let text = filled(template, port, dir)
            .map_err(|what| io::Error::other(format!("{name}: {what}")))?;
        fs::write(dir.join(name), text)?;
        let mut command = bound_command(&self.program, None);
        command.args(arguments).arg(dir.join(name));
        let mut process = Process::start(self.peer.name(), command, dir)?;
        process.wait_until_serving(port)?;
        Ok(Proxy::Other { _process: process, port })
    }
}

/// Puts places and names into a template: `{{port}}`, `{{dir}}`, and `{{0}}` to `{{5}}`, which are
/// the endpoints' hosts, those of the preferred zone first; `{{endpoint_port}}` is common to all.
pub(crate) fn filled(template: &str, port: u16, dir: &Path) -> Result<String, String> {
    let hosts =
        (0..POOL_ENDPOINTS).map(|index| (index.to_string(), address(index).ip().to_string()));
    let others = [
        ("port".to_owned(), port.to_string()),
        ("dir".to_owned(), dir.to_string_lossy().into_owned()),
        ("endpoint_port".to_owned(), address(0).port().to_string()),
    ];
    let values: Vec<(String, String)> = hosts.chain(others).collect();
    let values: Vec<(&str, &str)> =
        values.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    fill(template, &values)
}

/// A running system; ended when dropped.
#[derive(Debug)]
pub(crate) enum Proxy {
    /// With what its admin listener says.
    Gapless(Instance),
    /// One that says nothing.
    Other {
        /// Held, for it ends with its owner.
        _process: Process,
        /// On loopback.
        port: u16,
    },
}

impl Proxy {
    /// Where clients connect.
    pub(crate) fn address(&self) -> SocketAddr {
        match self {
            Self::Gapless(instance) => instance.listen,
            Self::Other { port, .. } => SocketAddr::from((Ipv4Addr::LOCALHOST, *port)),
        }
    }

    /// Every verdict so far, where they can be asked for.
    pub(crate) fn incidents(&self) -> io::Result<Vec<Incident>> {
        match self {
            Self::Gapless(instance) => instance.incidents(),
            Self::Other { .. } => Ok(Vec::new()),
        }
    }
}
