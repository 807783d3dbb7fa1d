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

use super::config::ConfigBuilder;
use super::upgrade::running_pids;
use super::{DEFAULT_TIMEOUT, eventually, poll_until};

/// The program under test.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_gapless");

/// A running `gapless run`; killed when dropped.
pub(crate) struct Gapless {
    /// Where the first listener is.
    pub(crate) address: SocketAddr,
    /// The address of the admin listener.
    pub(crate) admin: SocketAddr,
    child: Child,
    log: Arc<StderrLog>,
    /// Returns the open pipe when it has stopped reading.
    reader: JoinHandle<BufReader<ChildStderr>>,
    file: PathBuf,
    _directory: TempDir,
}

/// The lines read from standard error.
#[derive(Default)]
struct StderrLog {
    lines: Mutex<Vec<String>>,
    should_stop: AtomicBool,
}

impl StderrLog {
    /// Reads until the end, or until reading is stopped.
    fn read(&self, stderr: ChildStderr) -> BufReader<ChildStderr> {
        let mut reader = BufReader::new(stderr);
        let mut line = String::new();
        while !self.should_stop.load(SeqCst) && reader.read_line(&mut line).is_ok_and(|n| n > 0) {
            let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
            lines.push(std::mem::take(&mut line).trim_end().to_owned());
        }
        reader
    }
}

impl Gapless {
    /// Starts, and waits until the listeners are open.
    #[track_caller]
    pub(crate) fn start(config: &ConfigBuilder) -> Self {
        let directory = TempDir::new().expect("a directory");
        let file = directory.path().join("gapless.toml");
        std::fs::write(&file, config.text()).expect("written");
        Self::start_with_file(directory, file)
    }

    /// Starts with a configuration file in `directory`.
    #[track_caller]
    pub(crate) fn start_with_file(directory: TempDir, file: PathBuf) -> Self {
        Self::start_with_output(Stdio::null(), directory, file, "info")
    }

    /// Starts at log level `debug`.
    #[track_caller]
    pub(crate) fn start_verbose(config: &ConfigBuilder) -> Self {
        let directory = TempDir::new().expect("a directory");
        let file = directory.path().join("gapless.toml");
        std::fs::write(&file, config.text()).expect("written");
        Self::start_with_output(Stdio::null(), directory, file, "debug")
    }

    /// Starts with this limit of descriptors.
    #[track_caller]
    pub(crate) fn start_with_descriptor_limit(config: &ConfigBuilder, descriptors: u64) -> Self {
        let directory = TempDir::new().expect("a directory");
        let file = directory.path().join("gapless.toml");
        std::fs::write(&file, config.text()).expect("written");
        let command = run_command(command_with_descriptor_limit(descriptors), &file, Stdio::null());
        Self::start_command(command, directory, file)
    }

    /// Starts with standard output piped.
    #[track_caller]
    pub(crate) fn start_with_piped_stdout(config: &ConfigBuilder) -> (Self, ChildStdout) {
        let directory = TempDir::new().expect("a directory");
        let file = directory.path().join("gapless.toml");
        std::fs::write(&file, config.text()).expect("written");
        let mut gapless = Self::start_with_output(Stdio::piped(), directory, file, "info");
        let stdout = gapless.child.stdout.take().expect("piped");
        (gapless, stdout)
    }

    #[track_caller]
    fn start_with_output(stdout: Stdio, directory: TempDir, file: PathBuf, level: &str) -> Self {
        let mut command = run_command(Command::new(BINARY), &file, stdout);
        command.env("GAPLESS_LOG", level);
        Self::start_command(command, directory, file)
    }

    /// Starts a command that ends in `gapless run` with this file.
    #[track_caller]
    pub(crate) fn start_command(command: Command, directory: TempDir, file: PathBuf) -> Self {
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
        // The admin listener logs its line last.
        let find = |gapless: &mut Self| {
            let exit_status = gapless.child.try_wait().expect("a child");
            assert!(exit_status.is_none(), "ended with {exit_status:?}:\n{}", gapless.log());
            Some((
                gapless.logged_address("listening address=")?,
                gapless.logged_address("admin address=")?,
            ))
        };
        (gapless.address, gapless.admin) =
            poll_until("the listeners are open", DEFAULT_TIMEOUT, || find(&mut gapless));
        gapless
    }

    /// Starts, and waits until every endpoint is up.
    #[track_caller]
    pub(crate) fn start_ready(config: &ConfigBuilder) -> Self {
        let gapless = Self::start(config);
        gapless.wait_all_up();
        gapless
    }

    #[track_caller]
    pub(crate) fn wait_all_up(&self) {
        eventually("every endpoint is up", DEFAULT_TIMEOUT, || {
            self.endpoints().iter().all(|endpoint| endpoint["state"] == "up")
        });
    }

    fn logged_address(&self, text: &str) -> Option<SocketAddr> {
        let log = self.log.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let line = log.iter().find(|line| line.contains(text))?;
        line.rsplit('=').next()?.trim().parse().ok()
    }

    /// The log so far.
    pub(crate) fn log(&self) -> String {
        self.log.lines.lock().unwrap_or_else(PoisonError::into_inner).join("\n")
    }

    /// Stops reading the log after its next line; the pipe stays open.
    pub(crate) fn stop_reading_log(&self) {
        self.log.should_stop.store(true, SeqCst);
    }

    /// Whether the log is no longer read.
    pub(crate) fn has_stopped_reading_log(&self) -> bool {
        self.reader.is_finished()
    }

    pub(crate) fn config_file(&self) -> &Path {
        &self.file
    }

    /// Writes the configuration in place.
    pub(crate) fn write_config(&self, text: &str) {
        std::fs::write(&self.file, text).expect("written");
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(pid(&self.child), signal).expect("signalled");
    }

    /// Limits its descriptors to numbers below this; `None` lifts the limit.
    pub(crate) fn set_descriptor_limit(&self, below: Option<u64>) {
        let own = getrlimit(Resource::Nofile);
        let limit = Rlimit { current: below.or(own.current), maximum: own.maximum };
        prlimit(Some(pid(&self.child)), Resource::Nofile, limit).expect("a new limit");
    }

    /// Waits until the process ends.
    #[track_caller]
    pub(crate) fn wait_for_exit(&mut self, timeout: Duration) -> ExitStatus {
        poll_until("gapless ends", timeout, || self.child.try_wait().expect("a child"))
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_none()
    }

    /// The number of open descriptors.
    pub(crate) fn open_descriptor_count(&self) -> u64 {
        let all = std::fs::read_dir(format!("/proc/{}/fd", self.child.id()));
        all.expect("a running process").count() as u64
    }

    /// The CPU time that the process used.
    pub(crate) fn cpu_time(&self) -> Duration {
        let path = format!("/proc/{}/stat", self.child.id());
        let stat = std::fs::read_to_string(path).expect("a running process");
        // The fields after the name, which may contain any character.
        let words: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split(' ').collect();
        let ticks = |at: usize| words[at].parse::<u64>().expect("a number");
        // The kernel counts these in hundredths of a second.
        Duration::from_millis((ticks(12) + ticks(13)) * 10)
    }

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
        // A successor is no child of this process.
        for pid in running_pids(&self.file) {
            let _ = kill_process(pid, Signal::KILL);
        }
        if std::thread::panicking() {
            eprintln!("--- log of gapless ---\n{}", self.log());
        }
    }
}

/// The program, started by a shell that limits its descriptors.
pub(crate) fn command_with_descriptor_limit(descriptors: u64) -> Command {
    let mut command = Command::new("sh");
    let script = format!("ulimit -n {descriptors} && exec {BINARY} \"$@\"");
    command.args(["-c", &script, "gapless"]);
    command
}

/// Makes `command` run `file`.
fn run_command(mut command: Command, file: &Path, stdout: Stdio) -> Command {
    command.arg("run").arg(file).stdout(stdout);
    command
}

fn spawn(mut command: Command) -> (Child, Arc<StderrLog>, JoinHandle<BufReader<ChildStderr>>) {
    let mut child = command.stderr(Stdio::piped()).spawn().expect("the program starts");
    let stderr = child.stderr.take().expect("piped");
    let log = Arc::new(StderrLog::default());
    let lines = Arc::clone(&log);
    let reader = std::thread::spawn(move || lines.read(stderr));
    (child, log, reader)
}

/// The process id of a child that was not reaped.
pub(crate) fn pid(child: &Child) -> Pid {
    let id = i32::try_from(child.id()).expect("a process id");
    Pid::from_raw(id).expect("not zero")
}
