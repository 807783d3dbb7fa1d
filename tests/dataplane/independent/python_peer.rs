//! Python programs in a virtual environment that is created once.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use serde_json::Value;

/// Their packages with exact versions.
const PACKAGES: [&str; 5] = [
    "grpcio==1.85.3",
    "grpcio-health-checking==1.85.1",
    "protobuf==7.36.2",
    "typing_extensions==4.16.0",
    "websockets==17.4",
];

/// The folder of the programs.
const PROGRAM_DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/dataplane/independent");

/// The interpreter with all packages. Without it the test is reported as skipped, and fails in CI.
pub(crate) fn python_interpreter() -> Option<&'static Path> {
    static PYTHON: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    match PYTHON.get_or_init(install_python_environment) {
        Ok(python) => Some(python),
        Err(error) => {
            assert!(
                std::env::var_os("CI").is_none(),
                "no independent clients: {error} (python3 with venv, and PyPI, are needed)"
            );
            eprintln!("SKIPPED: no independent clients, nothing was tested: {error}");
            None
        }
    }
}

fn install_python_environment() -> Result<PathBuf, String> {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("independent");
    let (python, complete) = (directory.join("bin/python"), directory.join("complete"));
    // Another test run may create the same environment now.
    let lock = File::create(directory.with_extension("lock")).map_err(|error| error.to_string())?;
    lock.lock().map_err(|error| error.to_string())?;
    let wanted = PACKAGES.join("\n");
    if std::fs::read_to_string(&complete).is_ok_and(|installed| installed == wanted) {
        return Ok(python);
    }
    run_to_success(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&directory))?;
    let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"];
    let wheels = ["--only-binary", ":all:"];
    run_to_success(Command::new(&python).args(install).args(wheels).args(PACKAGES))?;
    std::fs::write(complete, wanted).map_err(|error| error.to_string())?;
    Ok(python)
}

fn run_to_success(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let text = [output.stdout, output.stderr].concat();
    Err(format!("{command:?} failed: {}", String::from_utf8_lossy(&text).trim()))
}

fn python_command(python: &Path, program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(python);
    command.arg(Path::new(PROGRAM_DIRECTORY).join(program)).args(arguments);
    // No caches beside the sources, and no proxy for loopback.
    command.env("PYTHONDONTWRITEBYTECODE", "1").env("NO_PROXY", "127.0.0.1");
    command
}

/// An endpoint; killed when dropped.
pub(crate) struct PythonEndpoint {
    pub(crate) address: SocketAddr,
    child: Child,
}

impl PythonEndpoint {
    /// Starts `program serve`, and waits until it prints its port.
    #[track_caller]
    pub(crate) fn start(python: &Path, program: &str) -> Self {
        let mut command = python_command(python, program, &["serve"]);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a process");
        let mut line = String::new();
        let read = BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line);
        read.expect("a line");
        let port: u16 = line.trim().parse().expect("a port");
        Self { address: SocketAddr::from(([127, 0, 0, 1], port)), child }
    }
}

impl Drop for PythonEndpoint {
    fn drop(&mut self) {
        // A failure here means that the process has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a client to its end.
///
/// # Panics
/// If a case fails, or there are not `cases` of them.
#[track_caller]
pub(crate) fn run_python_client(python: &Path, program: &str, arguments: &[&str], cases: usize) {
    let output = python_command(python, program, arguments).output().expect("a process");
    let (stdout, stderr) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let lines: Vec<Value> = stdout.lines().map(|line| line.parse().expect("JSON")).collect();
    let failed: Vec<&Value> = lines.iter().filter(|line| !line["error"].is_null()).collect();
    assert!(failed.is_empty(), "{program} {arguments:?}: {failed:#?}\n{stderr}");
    assert_eq!(lines.len(), cases, "{stdout}\n{stderr}");
}
