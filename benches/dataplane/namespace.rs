//! A network namespace whose loopback uses cubic.
//!
//! Where the system's congestion control is bbr, it paces bodies even on loopback, and what is
//! measured is the pacing. Small messages do not feel it.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::os::fd::AsFd;
use std::process::{Child, Stdio};
use std::thread;

use rustix::process::geteuid;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::process::bound_command;

/// Brings loopback up with cubic on its routes, says so, and keeps the namespace alive.
const SETUP_SCRIPT: &str = "ip link set lo up \
    && ip route replace local 127.0.0.1 dev lo table local congctl cubic \
    && echo ready && exec sleep infinity";

/// The system's default congestion control.
pub(crate) fn congestion_control() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control")?.trim().to_owned())
}

/// A namespace, held open by a process that sleeps in it.
#[derive(Debug)]
pub(crate) struct CubicNamespace {
    holder_process: Child,
    namespace_file: File,
}

impl CubicNamespace {
    /// Makes one where bodies need it: `None` when the default is harmless, or with a line about
    /// it when the user may not make namespaces.
    pub(crate) fn for_bulk_cases(congestion_control: &str) -> io::Result<Option<Self>> {
        if matches!(congestion_control, "cubic" | "reno") {
            return Ok(None);
        }
        if !geteuid().is_root() {
            println!(
                "Congestion control is {congestion_control}, which may pace bodies: run as root \
                 for a namespace with cubic, or distrust the figures for bodies."
            );
            return Ok(None);
        }
        Self::new().map(Some)
    }

    fn new() -> io::Result<Self> {
        let mut command = bound_command("unshare", None);
        command.args(["--net", "sh", "-c", SETUP_SCRIPT]).stdout(Stdio::piped());
        let mut holder = command.spawn()?;
        let mut line = String::new();
        if let Some(output) = holder.stdout.take() {
            BufReader::new(output).read_line(&mut line)?;
        }
        let link = File::open(format!("/proc/{}/ns/net", holder.id()))?;
        let namespace = Self { holder_process: holder, namespace_file: link };
        if line.trim() == "ready" {
            Ok(namespace)
        } else {
            Err(io::Error::other("cannot set up a network namespace with cubic"))
        }
    }
}

impl Drop for CubicNamespace {
    fn drop(&mut self) {
        // It cannot fail but for a process that has ended, and then there is nothing to do.
        let _ = self.holder_process.kill();
        let _ = self.holder_process.wait();
    }
}

/// Runs `work` on a thread of its own, inside `namespace` where one is given; what it starts is
/// inside too. A namespace belongs to a thread, so ending the thread is the way out.
pub(crate) fn run_inside<T: Send>(
    namespace: Option<&CubicNamespace>,
    work: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    let in_thread = || {
        if let Some(namespace) = namespace {
            let link = namespace.namespace_file.as_fd();
            move_into_link_name_space(link, Some(LinkNameSpaceType::Network))?;
        }
        work()
    };
    thread::scope(|scope| scope.spawn(in_thread).join())
        .unwrap_or_else(|_| Err(io::Error::other("the thread of a case panicked")))
}
