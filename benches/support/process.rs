//! Child processes that end with their owner, and ports for them.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::{cpu, http_check};

/// Time for a process to serve its first request.
const READY_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for a process to end after SIGTERM.
const EXIT_TIMEOUT: Duration = Duration::from_secs(2);
/// Time between two checks of a condition.
const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// Lines of a process's log in an error.
const LOG_TAIL_LINES: usize = 5;

/// A command whose process gets SIGTERM when this thread ends, and is pinned to `core` if one is
/// given.
pub(crate) fn bound_command(program: impl AsRef<OsStr>, core: Option<u32>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM"]);
    if let Some(core) = core {
        command.args(["taskset", "-c", &core.to_string()]);
    }
    command.arg(program).stdin(Stdio::null());
    command
}

/// A running server. When dropped, it and its children get SIGTERM, and SIGKILL if they ignore
/// that.
#[derive(Debug)]
pub(crate) struct ServerProcess {
    child: Child,
    label: String,
    log: PathBuf,
}

impl ServerProcess {
    /// Starts `command` with its output in a log file of `dir`.
    pub(crate) fn start(label: &str, mut command: Command, dir: &Path) -> io::Result<Self> {
        let log = dir.join(format!("{label}.log"));
        let output = File::create(&log)?;
        let child = command.stdout(output.try_clone()?).stderr(output).spawn()?;
        Ok(Self { child, label: label.to_owned(), log })
    }

    /// The root of its process tree.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until a request to `port` gets status 200, and returns that response.
    pub(crate) fn wait_until_serving(
        &mut self,
        port: u16,
    ) -> io::Result<http_check::CheckResponse> {
        let deadline = Instant::now() + READY_TIMEOUT;
        loop {
            let last_result = match http_check::get(port, "/check") {
                Ok(answer) if answer.status == 200 => return Ok(answer),
                Ok(answer) => format!("status {}", answer.status),
                Err(error) => error.to_string(),
            };
            if let Some(status) = self.child.try_wait()? {
                return Err(self.error_with_log(&format!("ended early ({status})")));
            }
            if Instant::now() >= deadline {
                return Err(self.error_with_log(&format!("does not serve: {last_result}")));
            }
            thread::sleep(POLL_INTERVAL);
        }
    }

    fn error_with_log(&self, what: &str) -> io::Error {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join(" | ");
        io::Error::other(format!("{} {what}; its log ends: {tail}", self.label))
    }

    fn has_exited_in_time(&mut self) -> bool {
        let deadline = Instant::now() + EXIT_TIMEOUT;
        while Instant::now() < deadline {
            match self.child.try_wait() {
                Ok(None) => thread::sleep(POLL_INTERVAL),
                Ok(Some(_)) | Err(_) => return true,
            }
        }
        false
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        // The calls below fail only for a process that has ended already.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        if self.has_exited_in_time() {
            return;
        }
        for pid in cpu::process_tree(self.child.id()).unwrap_or_default() {
            if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        let _ = self.child.wait();
    }
}

/// `N` different ports that are free on loopback right now.
pub(crate) fn free_ports<const N: usize>() -> io::Result<[u16; N]> {
    let mut ports = [0; N];
    // All listeners stay open until the last port is known, so that no two are equal.
    let mut listeners = Vec::with_capacity(N);
    for port in &mut ports {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        *port = listener.local_addr()?.port();
        listeners.push(listener);
    }
    Ok(ports)
}
