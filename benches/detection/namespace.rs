//! A network namespace of the bench's own, in which packets of an address can be dropped.
//!
//! The drop is a rule of iptables that asks a list of `xt_recent`, and an address is put on the
//! list by one write: it is in force when that returns. A rule that is added when it is to act
//! takes a process to start, and milliseconds.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::thread;

use rustix::process::geteuid;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// The list, as whoever is in the namespace sees it. Not `/proc/net`: that is the main thread's.
const DROP_LIST_PATH: &str = "/proc/thread-self/net/xt_recent/gapless";

/// Brings loopback up, sets the rules, says how far it came, and keeps the namespace alive. What
/// is lost is lost on its way in: a sender that knew of it would behave differently.
const SETUP_SCRIPT: &str = "ip link set lo up || exit 1
    iptables -A INPUT -m recent --name gapless --rcheck --rsource -j DROP \
    && iptables -A INPUT -m recent --name gapless --rcheck --rdest -j DROP \
    && echo drops || echo plain
    exec sleep infinity";

/// A namespace, held open by a process that sleeps in it.
#[derive(Debug)]
pub(crate) struct BenchNamespace {
    holder_process: Child,
    namespace_file: File,
    /// Whether packets can be dropped in it.
    pub(crate) can_drop_packets: bool,
}

impl BenchNamespace {
    /// Makes one; `None`, with a line about it, where that is not permitted.
    pub(crate) fn new() -> io::Result<Option<Self>> {
        if !geteuid().is_root() {
            eprintln!("Not root: no network namespace, and no black hole.");
            return Ok(None);
        }
        let mut command = bound_command("unshare");
        command
            .args(["--net", "sh", "-c", SETUP_SCRIPT])
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut holder = command.spawn()?;
        let mut line = String::new();
        if let Some(output) = holder.stdout.take() {
            BufReader::new(output).read_line(&mut line)?;
        }
        let drops = match line.trim() {
            "drops" => true,
            "plain" => false,
            _ => {
                let _ = holder.wait();
                eprintln!("No network namespace can be made here, and no black hole.");
                return Ok(None);
            }
        };
        if !drops {
            eprintln!("No packets can be dropped here (iptables, xt_recent): no black hole.");
        }
        let link = File::open(format!("/proc/{}/ns/net", holder.id()))?;
        Ok(Some(Self { holder_process: holder, namespace_file: link, can_drop_packets: drops }))
    }
}

impl Drop for BenchNamespace {
    fn drop(&mut self) {
        // It cannot fail but for a process that has ended, and then there is nothing to do.
        let _ = self.holder_process.kill();
        let _ = self.holder_process.wait();
    }
}

/// A command that gets SIGKILL when this thread ends, however that happens.
pub(crate) fn bound_command(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", program]);
    command
}

/// Runs `work` on a thread of its own, inside `namespace` where there is one; what it starts is
/// inside too.
pub(crate) fn run_inside<T: Send>(
    namespace: Option<&BenchNamespace>,
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
        .unwrap_or_else(|_| Err(io::Error::other("the bench's thread panicked")))
}

/// Drops from now on what goes to `address` and what comes from it.
pub(crate) fn drop_packets(address: IpAddr) -> io::Result<()> {
    fs::write(DROP_LIST_PATH, format!("+{address}\n"))
}

/// Lets them pass again.
pub(crate) fn allow_packets(address: IpAddr) -> io::Result<()> {
    fs::write(DROP_LIST_PATH, format!("-{address}\n"))
}
