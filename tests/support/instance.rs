//! The real program as a child process.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit};
use tempfile::TempDir;

use super::config::Config;
use super::successors::running;
use super::{SOON, eventually, until};

/// The program under test.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_gapless");

/// A running `gapless run`; killed when dropped.
pub(crate) struct Gapless {
    /// Where the first listener is.
    pub(crate) address: SocketAddr,
    /// Where the operator connects.
    pub(crate) admin: SocketAddr,
    child: Child,
    log: Arc<Log>,
    /// Gives back the open pipe when it has stopped reading.
    reader: JoinHandle<BufReader<ChildStderr>>,
    file: PathBuf,
    _directory: TempDir,
}

/// What was read of standard error.
#[derive(Default)]
struct Log {
    lines: Mutex<Vec<String>>,
    is_ignored: AtomicBool,
}

impl Log {
    /// Reads until the end, or until nobody wants to know.
    fn read(&self, stderr: ChildStderr) -> BufReader<ChildStderr> {
        let mut reader = BufReader::new(stderr);
        let mut line = String::new();
        while !self.is_ignored.load(SeqCst) && reader.read_line(&mut line).is_ok_and(|n| n > 0) {
            let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
            lines.push(std::mem::take(&mut line).trim_end().to_owned());
        }
        reader
    }
}

impl Gapless {
    /// Starts, and waits until the listeners are open.
    #[track_caller]
    pub(crate) fn start(config: &Config) -> Self {
        let directory = TempDir::new().expect("a directory");
        let file = directory.path().join("gapless.toml");
        std::fs::write(&file, config.text()).expect("written");
        Self::start_with(directory, file)
    }

    /// Starts with a file that lies in `directory` already.
    #[track_caller]
    pub(crate) fn start_with(directory: TempDir, file: PathBuf) -> Self {
        Self::start_writing_to(Stdio::null(), directory, file)
    }

    /// Starts; what it writes to standard output can be read.
    #[track_caller]
    pub(crate) fn start_piped(config: &Config) -> (Self, ChildStdout) {
        let directory = TempDir::new().expect("a directory");
        let file = directory.path().join("gapless.toml");
        std::fs::write(&file, config.text()).expect("written");
        let mut gapless = Self::start_writing_to(Stdio::piped(), directory, file);
        let stdout = gapless.child.stdout.take().expect("piped");
        (gapless, stdout)
    }

    #[track_caller]
    fn start_writing_to(stdout: Stdio, directory: TempDir, file: PathBuf) -> Self {
        let mut command = Command::new(BINARY);
        command.arg("run").arg(&file).stdout(stdout);
        Self::start_by(command, directory, file)
    }

    /// Starts by a command that leads to `gapless run` with this file.
    #[track_caller]
    pub(crate) fn start_by(command: Command, directory: TempDir, file: PathBuf) -> Self {
        let (child, log, reader) = spawn(command);
        let mut gapless = Self {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            admin: SocketAddr::from(([127, 0, 0, 1], 0)),
            child,
            log,
            reader,
            file,
            _directory: directory,
        };
        // The line of the admin listener is the last one.
        let find = |gapless: &mut Self| {
            let ended = gapless.child.try_wait().expect("a child");
            assert!(ended.is_none(), "ended with {ended:?}:\n{}", gapless.log());
            Some((gapless.said("listening address=")?, gapless.said("admin address=")?))
        };
        (gapless.address, gapless.admin) =
            until("the listeners are open", SOON, || find(&mut gapless));
        gapless
    }

    /// Starts, and waits until every endpoint is up.
    #[track_caller]
    pub(crate) fn start_ready(config: &Config) -> Self {
        let gapless = Self::start(config);
        gapless.wait_all_up();
        gapless
    }

    #[track_caller]
    pub(crate) fn wait_all_up(&self) {
        eventually("every endpoint is up", SOON, || {
            self.endpoints().iter().all(|endpoint| endpoint["state"] == "up")
        });
    }

    fn said(&self, words: &str) -> Option<SocketAddr> {
        let log = self.log.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let line = log.iter().find(|line| line.contains(words))?;
        line.rsplit('=').next()?.trim().parse().ok()
    }

    /// What it wrote to standard error so far.
    pub(crate) fn log(&self) -> String {
        self.log.lines.lock().unwrap_or_else(PoisonError::into_inner).join("\n")
    }

    /// Reads no more of the log than its next line; the pipe stays open.
    pub(crate) fn ignore_log(&self) {
        self.log.is_ignored.store(true, SeqCst);
    }

    /// Whether the log is not read any more.
    pub(crate) fn is_log_ignored(&self) -> bool {
        self.reader.is_finished()
    }

    /// The configuration file.
    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    /// Writes the configuration in place.
    pub(crate) fn write(&self, text: &str) {
        std::fs::write(&self.file, text).expect("written");
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(pid(&self.child), signal).expect("signalled");
    }

    /// Lets it open no descriptor with this number or a higher one; `None` lifts that.
    pub(crate) fn limit_descriptors(&self, below: Option<u64>) {
        let own = getrlimit(Resource::Nofile);
        let limit = Rlimit { current: below.or(own.current), maximum: own.maximum };
        prlimit(Some(pid(&self.child)), Resource::Nofile, limit).expect("a new limit");
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn wait(&mut self, timeout: Duration) -> ExitStatus {
        until("gapless ends", timeout, || self.child.try_wait().expect("a child"))
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_none()
    }

    /// Resident memory.
    pub(crate) fn rss_kib(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).expect("a running process");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }
}

impl Drop for Gapless {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // Who has taken over is no child of this process.
        for pid in running(&self.file) {
            let _ = kill_process(pid, Signal::KILL);
        }
        if std::thread::panicking() {
            eprintln!("--- log of gapless ---\n{}", self.log());
        }
    }
}

fn spawn(mut command: Command) -> (Child, Arc<Log>, JoinHandle<BufReader<ChildStderr>>) {
    let mut child = command.stderr(Stdio::piped()).spawn().expect("the program starts");
    let stderr = child.stderr.take().expect("piped");
    let log = Arc::new(Log::default());
    let lines = Arc::clone(&log);
    let reader = std::thread::spawn(move || lines.read(stderr));
    (child, log, reader)
}

/// The identity of a child that has not been waited for.
pub(crate) fn pid(child: &Child) -> Pid {
    let id = i32::try_from(child.id()).expect("a process id");
    Pid::from_raw(id).expect("not zero")
}
