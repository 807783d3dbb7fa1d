//! The proxies that are compared, and the endpoint behind them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::ValueEnum;

use crate::case::Arm;
use crate::process::{Process, bound_command, free_ports};
use crate::template::fill;
use crate::{LOAD_CORE, PROXY_CORE};

/// A proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Peer {
    /// This program.
    Gapless,
    /// The system's haproxy.
    Haproxy,
    /// The system's nginx.
    Nginx,
}

impl Peer {
    /// What it is called everywhere.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Gapless => "gapless",
            Self::Haproxy => "haproxy",
            Self::Nginx => "nginx",
        }
    }

    /// Whether it is the one that is compared with the others.
    pub(crate) fn is_gapless(self) -> bool {
        self == Self::Gapless
    }

    fn template(self) -> &'static str {
        match self {
            Self::Gapless => include_str!("peers/gapless.toml"),
            Self::Haproxy => include_str!("peers/haproxy.cfg"),
            Self::Nginx => include_str!("peers/nginx.conf"),
        }
    }

    /// Makes `command` run this proxy in the foreground.
    fn add_arguments(self, command: &mut Command, dir: &Path, config: &Path) {
        match self {
            Self::Gapless => command.arg("run").arg(config),
            Self::Haproxy => command.arg("-db").arg("-f").arg(config),
            Self::Nginx => nginx_arguments(command, dir, config),
        };
    }
}

/// A program that is there.
#[derive(Clone, Debug)]
pub(crate) struct Installed {
    /// Which proxy it is.
    pub(crate) peer: Peer,
    /// How to start it.
    pub(crate) program: PathBuf,
    /// What it says of its version.
    pub(crate) version: String,
}

impl Installed {
    /// Looks for a peer's program; `gapless` is where this one's was built.
    pub(crate) fn find(peer: Peer, gapless: &Path) -> Option<Self> {
        let (program, version) = match peer {
            Peer::Gapless => {
                (gapless.to_owned(), first_line(Command::new(gapless).arg("--version"))?)
            }
            Peer::Haproxy => find_program("haproxy", "-v")?,
            Peer::Nginx => find_program("nginx", "-v")?,
        };
        Some(Self { peer, program, version })
    }
}

/// Finds a program on the PATH or among the system's servers, and the first line it prints when
/// asked for its version.
pub(crate) fn find_program(name: &str, version_flag: &str) -> Option<(PathBuf, String)> {
    [PathBuf::from(name), Path::new("/usr/sbin").join(name)].into_iter().find_map(|program| {
        let version = first_line(Command::new(&program).arg(version_flag))?;
        Some((program, version))
    })
}

/// The exit code is no help here: wrk prints its version and fails.
fn first_line(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    let printed = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&printed);
    Some(text.lines().next().unwrap_or("version unknown").trim().to_owned())
}

fn nginx_arguments<'a>(command: &'a mut Command, dir: &Path, config: &Path) -> &'a mut Command {
    command.args(["-e", "stderr", "-p"]).arg(dir).arg("-c").arg(config)
}

/// A server and where it listens.
#[derive(Debug)]
pub(crate) struct Server {
    /// Owns the process.
    pub(crate) process: Process,
    /// On loopback.
    pub(crate) port: u16,
}

/// Starts the endpoint on the load's core and waits until it serves.
pub(crate) fn start_endpoint(nginx: &Path, dir: &Path) -> io::Result<Server> {
    let [port] = free_ports()?;
    fs::write(dir.join("64k"), vec![b'x'; 64 * 1024])?;
    let values = [
        ("dir", &*dir.to_string_lossy()),
        ("endpoint_port", &port.to_string()),
        ("kilobyte", &"x".repeat(1024)),
    ];
    let config = dir.join("endpoint-nginx.conf");
    write_filled(include_str!("peers/endpoint-nginx.conf"), &values, &config)?;
    let mut command = bound_command(nginx, Some(LOAD_CORE));
    nginx_arguments(&mut command, dir, &config);
    let mut process = Process::start("endpoint", command, dir)?;
    process.wait_until_serving(port)?;
    Ok(Server { process, port })
}

/// Starts a proxy as `arm` has it and waits until it serves through to the endpoint.
pub(crate) fn start_proxy(
    installed: &Installed,
    arm: &Arm,
    endpoint_port: u16,
    dir: &Path,
) -> io::Result<Server> {
    let peer = installed.peer;
    let [port, admin_port] = free_ports()?;
    let values = [
        ("dir", &*dir.to_string_lossy()),
        ("port", &port.to_string()),
        ("admin_port", &admin_port.to_string()),
        ("endpoint_port", &endpoint_port.to_string()),
        ("workers", &arm.workers.to_string()),
    ];
    let config = dir.join(format!("{}.conf", peer.name()));
    write_filled(peer.template(), &values, &config)?;
    let mut command = bound_command(&installed.program, arm.pinned.then_some(PROXY_CORE));
    peer.add_arguments(&mut command, dir, &config);
    let mut process = Process::start(peer.name(), command, dir)?;
    let answer = process.wait_until_serving(port)?;
    if !answer.was_forwarded {
        let name = peer.name();
        return Err(io::Error::other(format!("{name} adds no X-Forwarded-For: not comparable")));
    }
    Ok(Server { process, port })
}

fn write_filled(template: &str, values: &[(&str, &str)], path: &Path) -> io::Result<()> {
    let text = fill(template, values)
        .map_err(|error| io::Error::other(format!("{}: {error}", path.display())))?;
    fs::write(path, text)
}
