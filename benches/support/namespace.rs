//! Network namespaces for benches: one is held open by a process that sleeps in it, and a thread
//! enters it. Making one needs root.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A namespace, held open by a process that sleeps in it.
#[derive(Debug)]
pub(crate) struct NetworkNamespace {
    holder_process: Child,
    namespace_file: File,
}

impl NetworkNamespace {
    /// Makes a namespace and runs `setup_script` (for `sh`) in it, which prints one line and then
    /// sleeps. Returns the namespace and the line; `None` if the script ended without a line.
    pub(crate) fn start(setup_script: &str) -> io::Result<Option<(Self, String)>> {
        let mut command = bound_command("unshare");
        command
            .args(["--net", "sh", "-c", setup_script])
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut holder = command.spawn()?;
        let mut line = String::new();
        if let Some(output) = holder.stdout.take() {
            BufReader::new(output).read_line(&mut line)?;
        }
        if line.trim().is_empty() {
            let _ = holder.wait();
            return Ok(None);
        }
        let namespace_file = File::open(format!("/proc/{}/ns/net", holder.id()))?;
        let namespace = Self { holder_process: holder, namespace_file };
        Ok(Some((namespace, line.trim().to_owned())))
    }
}

impl Drop for NetworkNamespace {
    fn drop(&mut self) {
        // Both calls fail only for a process that has ended already.
        let _ = self.holder_process.kill();
        let _ = self.holder_process.wait();
    }
}

/// A command whose process gets SIGKILL when the thread that starts it ends, however that happens.
pub(crate) fn bound_command(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", program]);
    command
}

/// Runs `work` on a new thread, inside `namespace` if there is one; processes that it starts are
/// inside too. A namespace belongs to a thread, so the end of the thread leaves it.
pub(crate) fn run_inside<T: Send>(
    namespace: Option<&NetworkNamespace>,
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
        .unwrap_or_else(|_| Err(io::Error::other("the thread of the bench panicked")))
}
