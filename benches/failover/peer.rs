//! The systems that are compared: gapless at its defaults, the others as experts tune them.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::gapless_process::{GaplessProcess, ReportedIncident};
use crate::layout::{self, POOL_ENDPOINTS, endpoint_address};
use crate::peer_program::{self, Peer};
use crate::process::{ServerProcess, bound_command, free_ports};
use crate::run_deadline::RunDeadline;
use crate::template::fill_template;

/// An installed system.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct InstalledPeer {
    pub(crate) peer: Peer,
    /// The program to start.
    pub(crate) program: PathBuf,
    /// The version that the program reports.
    pub(crate) version: String,
}

impl InstalledPeer {
    /// Finds the program of `peer`; `gapless` is the path of the built program, `envoy` the path
    /// given for Envoy.
    pub(crate) fn find(peer: Peer, gapless: &Path, envoy: Option<&Path>) -> Option<Self> {
        let (program, version) = match peer {
            Peer::Gapless => {
                (gapless.to_owned(), peer_program::read_version(gapless, "--version")?)
            }
            Peer::Envoy => peer_program::find_envoy(envoy)?,
            Peer::Haproxy | Peer::Nginx => {
                peer_program::find_program(Path::new(peer.name()), "-v")?
            }
        };
        Some(Self { peer, program, version })
    }

    /// Starts the system in front of the pool's endpoints and waits until it serves; gapless probes
    /// them with `probe`.
    pub(crate) fn start(
        &self,
        probe: &str,
        dir: &Path,
        run_deadline: &RunDeadline,
    ) -> io::Result<RunningPeer> {
        let prefix = dir.to_string_lossy();
        let nginx_arguments = ["-e", "stderr", "-p", &*prefix, "-c"];
        let (template, name, arguments): (_, _, &[&str]) = match self.peer {
            Peer::Gapless => {
                let config = |listen, admin| layout::equal_pools_config(1, probe, listen, admin);
                return GaplessProcess::start(&self.program, config, dir, run_deadline)
                    .map(RunningPeer::Gapless);
            }
            Peer::Haproxy => (include_str!("peers/haproxy.cfg"), "haproxy.cfg", &["-db", "-f"]),
            Peer::Nginx => (include_str!("peers/nginx.conf"), "nginx.conf", &nginx_arguments),
            Peer::Envoy => {
                let arguments = &["--log-level", "error", "--disable-hot-restart", "-c"];
                (include_str!("peers/envoy.yaml"), "envoy.yaml", arguments)
            }
        };
        let [port] = free_ports()?;
        let text = fill_peer_template(template, port, dir)
            .map_err(|what| io::Error::other(format!("{name}: {what}")))?;
        fs::write(dir.join(name), text)?;
        let mut command = bound_command(&self.program, None);
        command.args(arguments).arg(dir.join(name));
        let mut process = ServerProcess::start(self.peer.name(), command, dir)?;
        process.wait_until_serving(port)?;
        Ok(RunningPeer::Other { _process: process, port })
    }
}

/// Fills a template: `{{port}}`, `{{dir}}`, and `{{0}}` to `{{5}}`, which are the endpoints' hosts,
/// those of the preferred zone first; `{{endpoint_port}}` is common to all.
pub(crate) fn fill_peer_template(template: &str, port: u16, dir: &Path) -> Result<String, String> {
    let hosts = (0..POOL_ENDPOINTS)
        .map(|index| (index.to_string(), endpoint_address(index).ip().to_string()));
    let others = [
        ("port".to_owned(), port.to_string()),
        ("dir".to_owned(), dir.to_string_lossy().into_owned()),
        ("endpoint_port".to_owned(), endpoint_address(0).port().to_string()),
    ];
    let values: Vec<(String, String)> = hosts.chain(others).collect();
    let values: Vec<(&str, &str)> =
        values.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    fill_template(template, &values)
}

/// A running system; ended when dropped.
#[derive(Debug)]
pub(crate) enum RunningPeer {
    /// gapless, with its admin listener.
    Gapless(GaplessProcess),
    /// A system without an API for verdicts.
    Other {
        /// Held because the process ends with its owner.
        _process: ServerProcess,
        port: u16,
    },
}

impl RunningPeer {
    pub(crate) fn client_address(&self) -> SocketAddr {
        match self {
            Self::Gapless(instance) => instance.listen,
            Self::Other { port, .. } => SocketAddr::from((Ipv4Addr::LOCALHOST, *port)),
        }
    }

    /// Every verdict so far; empty for systems without an API for them.
    pub(crate) fn incidents(&self) -> io::Result<Vec<ReportedIncident>> {
        match self {
            Self::Gapless(instance) => instance.incidents(),
            Self::Other { .. } => Ok(Vec::new()),
        }
    }
}
