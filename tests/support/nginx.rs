//! nginx as an endpoint: one process, so that a signal reaches all of it.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Signal, kill_process};
use tempfile::TempDir;

use super::client::TestClient;
use super::instance::pid;
use super::{DEFAULT_TIMEOUT, ReservedPort, eventually};

/// An nginx on a port that stays reserved while it is dead; killed when dropped.
pub(crate) struct Nginx {
    port: ReservedPort,
    child: Option<Child>,
    directory: TempDir,
}

/// Reports a missing program; fails in CI.
pub(crate) fn is_program_missing(program: &str) -> bool {
    let found =
        Command::new(program).arg("-v").stdout(Stdio::null()).stderr(Stdio::null()).status();
    let is_absent = found.is_err();
    if is_absent {
        eprintln!("SKIPPED: {program} is not installed, nothing was tested");
    }
    is_absent
}

impl Nginx {
    /// Answers `/healthz` and everything else with 200.
    #[track_caller]
    pub(crate) fn start() -> Self {
        let port = ReservedPort::reserve();
        let directory = TempDir::new().expect("a directory");
        let text = nginx_config(directory.path(), port.address());
        std::fs::write(directory.path().join("nginx.conf"), text).expect("written");
        let mut nginx = Self { port, child: None, directory };
        nginx.restart();
        nginx
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Starts the killed server again and waits until it answers.
    #[track_caller]
    pub(crate) fn restart(&mut self) {
        let child = Command::new("nginx")
            .arg("-p")
            .arg(self.directory.path())
            .arg("-c")
            .arg(self.directory.path().join("nginx.conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nginx starts");
        self.child = Some(child);
        let address = self.address();
        eventually("nginx answers", DEFAULT_TIMEOUT, || {
            let connected = TestClient::connect(address);
            connected.and_then(|mut client| client.exchange("GET", "/healthz", &[], b"")).is_ok()
        });
    }

    /// SIGKILL: the kernel resets all connections.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGSTOP: the kernel still accepts connections, and no request is answered.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    pub(crate) fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("a running nginx");
        kill_process(pid(child), signal).expect("signalled");
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        self.kill();
    }
}

fn nginx_config(directory: &Path, address: SocketAddr) -> String {
    let root = directory.display();
    let paths: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|kind| format!("    {kind}_temp_path {root}/{kind};\n"))
        .collect();
    format!(
        "daemon off;\nmaster_process off;\npid {root}/nginx.pid;\nerror_log {root}/error.log;\n\
         events {{ worker_connections 1024; }}\nhttp {{\n{paths}    access_log off;\n\
         \x20   keepalive_requests 1000000;\n    server {{\n        listen {address} reuseport;\n\
         \x20       location / {{ return 200 \"well\\n\"; }}\n    }}\n}}\n"
    )
}
