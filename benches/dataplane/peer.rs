//! The proxies that are compared, and the endpoint behind them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::args::NamedProgram;
use crate::case::{BenchCase, Comparison, EndpointProtocol, ProxySetup};
use crate::peer_program::{self, Peer};
use crate::process::{ServerProcess, bound_command, free_ports};
use crate::template::fill_template;
use crate::{LOAD_CORE, PROXY_CORE};

impl Peer {
    /// Whether it is gapless, which is compared with the others.
    pub(crate) fn is_gapless(self) -> bool {
        self == Self::Gapless
    }

    /// Whether it can be measured in `case`.
    pub(crate) fn is_measured_in(self, case: &BenchCase) -> bool {
        let is_compared = self.is_gapless() || matches!(case.compare, Comparison::Peers);
        // Debian's nginx supports HTTP/2 to endpoints only for gRPC.
        is_compared && !(self == Self::Nginx && case.upstream == EndpointProtocol::H2c)
    }

    fn config_template(self) -> &'static str {
        match self {
            Self::Gapless => include_str!("peers/gapless.toml"),
            Self::Haproxy => include_str!("peers/haproxy.cfg"),
            Self::Nginx => include_str!("peers/nginx.conf"),
            Self::Envoy => include_str!("peers/envoy.yaml"),
        }
    }

    /// The name of its configuration file; Envoy derives the format from it.
    fn config_name(self) -> &'static str {
        match self {
            Self::Gapless => "gapless.toml",
            Self::Haproxy => "haproxy.cfg",
            Self::Nginx => "nginx.conf",
            Self::Envoy => "envoy.yaml",
        }
    }

    /// Makes `command` run this proxy in the foreground.
    fn add_arguments(self, command: &mut Command, dir: &Path, config: &Path, workers: u32) {
        match self {
            Self::Gapless => command.arg("run").arg(config),
            Self::Haproxy => command.arg("-db").arg("-f").arg(config),
            Self::Nginx => nginx_arguments(command, dir, config),
            Self::Envoy => command
                .args(["--concurrency", &workers.to_string(), "--log-level", "error"])
                .args(["--disable-hot-restart", "-c"])
                .arg(config),
        };
    }
}

/// An installed program.
#[derive(Clone, Debug)]
pub(crate) struct InstalledProxy {
    /// The kind of proxy.
    pub(crate) peer: Peer,
    /// The name in the table.
    pub(crate) label: String,
    /// The program to start.
    pub(crate) program: PathBuf,
    /// The version that the program reports.
    pub(crate) version: String,
}

impl InstalledProxy {
    /// The gapless in an argument; `None` if it does not run.
    pub(crate) fn gapless(named: &NamedProgram) -> Option<Self> {
        let program = named.path.clone();
        let version = peer_program::read_version(&program, "--version")?;
        Some(Self { peer: Peer::Gapless, label: named.name.clone(), program, version })
    }

    /// Finds the program of another proxy; `envoy` is the path given for Envoy.
    pub(crate) fn find(peer: Peer, envoy: Option<&Path>) -> Option<Self> {
        let (program, version) = match peer {
            Peer::Envoy => peer_program::find_envoy(envoy)?,
            _ => peer_program::find_program(Path::new(peer.name()), "-v")?,
        };
        Some(Self { peer, label: peer.name().to_owned(), program, version })
    }
}

fn nginx_arguments<'a>(command: &'a mut Command, dir: &Path, config: &Path) -> &'a mut Command {
    command.args(["-e", "stderr", "-p"]).arg(dir).arg("-c").arg(config)
}

/// A server and where it listens.
#[derive(Debug)]
pub(crate) struct BenchServer {
    pub(crate) process: ServerProcess,
    pub(crate) port: u16,
    /// The port for TLS; 0 if it has none.
    pub(crate) tls_port: u16,
}

/// Starts the endpoint on the load's core and waits until it serves.
pub(crate) fn start_endpoint(nginx: &Path, dir: &Path) -> io::Result<BenchServer> {
    let [port] = free_ports()?;
    fs::write(dir.join("64k"), vec![b'x'; 64 * 1024])?;
    fs::write(dir.join("1m"), vec![b'x'; 1024 * 1024])?;
    let values = [
        ("dir", &*dir.to_string_lossy()),
        ("endpoint_port", &port.to_string()),
        ("kilobyte", &"x".repeat(1024)),
    ];
    let config = dir.join("endpoint-nginx.conf");
    write_config(include_str!("peers/endpoint-nginx.conf"), &values, &config)?;
    let mut command = bound_command(nginx, Some(LOAD_CORE));
    nginx_arguments(&mut command, dir, &config);
    let mut process = ServerProcess::start("endpoint", command, dir)?;
    process.wait_until_serving(port)?;
    Ok(BenchServer { process, port, tls_port: 0 })
}

/// Starts a proxy for `set_up` and `case` and waits until it serves through to the endpoint.
pub(crate) fn start_proxy(
    installed: &InstalledProxy,
    set_up: &ProxySetup,
    case: &BenchCase,
    endpoint_port: u16,
    dir: &Path,
) -> io::Result<BenchServer> {
    let peer = installed.peer;
    let [port, tls_port, admin_port] = free_ports()?;
    let (upstream_version, upstream_http) = match case.upstream {
        EndpointProtocol::Http1 => ("1", "http"),
        EndpointProtocol::H2c => ("2", "http2"),
    };
    let values = [
        ("dir", &*dir.to_string_lossy()),
        ("port", &port.to_string()),
        ("tls_port", &tls_port.to_string()),
        ("admin_port", &admin_port.to_string()),
        ("endpoint_port", &endpoint_port.to_string()),
        ("upstream_version", upstream_version),
        ("upstream_http", upstream_http),
        ("workers", &set_up.workers.to_string()),
    ];
    let config = dir.join(peer.config_name());
    write_config(peer.config_template(), &values, &config)?;
    let mut command = bound_command(&installed.program, set_up.is_pinned.then_some(PROXY_CORE));
    peer.add_arguments(&mut command, dir, &config, set_up.workers);
    let mut process = ServerProcess::start(peer.name(), command, dir)?;
    let response = process.wait_until_serving(port)?;
    if !response.has_forwarded_for {
        let name = peer.name();
        return Err(io::Error::other(format!("{name} adds no X-Forwarded-For: not comparable")));
    }
    Ok(BenchServer { process, port, tls_port })
}

fn write_config(template: &str, values: &[(&str, &str)], path: &Path) -> io::Result<()> {
    let text = fill_template(template, values)
        .map_err(|error| io::Error::other(format!("{}: {error}", path.display())))?;
    fs::write(path, text)
}
