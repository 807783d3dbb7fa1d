//! Upgrades in place: the running process starts its executable, hands over and leaves.

mod failures;
mod health;
mod http2;
mod service_manager;
mod traffic;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::support::client::TestClient;
use crate::support::config::ConfigBuilder;
use crate::support::endpoint::{ResponseMode, TestEndpoint};
use crate::support::instance::{BINARY, Gapless};
use crate::support::{DEFAULT_TIMEOUT, ReservedPort, eventually};

fn config_for(endpoint: &TestEndpoint) -> ConfigBuilder {
    ConfigBuilder::new().zone("here/a", &[endpoint.address()])
}

/// A copy of the program beside its configuration.
struct InstalledProgram {
    gapless: Gapless,
    program: PathBuf,
}

impl InstalledProgram {
    #[track_caller]
    fn start(config: &ConfigBuilder) -> Self {
        let directory = TempDir::new().expect("a directory");
        let program = directory.path().join("gapless");
        let file = directory.path().join("gapless.toml");
        std::fs::write(&file, config.text()).expect("written");
        copy_program(&program);
        let mut command = Command::new(&program);
        command.arg("run").arg(&file);
        let gapless = Gapless::start_command(command, directory, file);
        gapless.wait_all_up();
        Self { gapless, program }
    }

    /// Replaces the program as a package manager does.
    fn replace(&self, make: impl FnOnce(&Path)) {
        let aside = self.program.with_extension("new");
        make(&aside);
        std::fs::rename(aside, &self.program).expect("renamed");
    }
}

/// Copies the program by a separate process: a file that is open for writing here while
/// another test starts a process cannot be executed.
fn copy_program(to: &Path) {
    let status = Command::new("cp").arg(BINARY).arg(to).status();
    assert!(status.expect("a process").success());
}

#[test]
fn upgrade_runs_currently_installed_executable() {
    let one = TestEndpoint::start("one");
    let mut installed = InstalledProgram::start(&config_for(&one));
    let before = installed.gapless.process();
    let program = installed.program.to_str().expect("text");
    assert_eq!((&before["upgrades"], before["executable"].as_str()), (&0.into(), Some(program)));
    installed.replace(copy_program);
    let new = installed.gapless.upgrade();
    assert!(installed.gapless.wait_for_exit(DEFAULT_TIMEOUT).success());
    let executable =
        std::fs::read_link(format!("/proc/{}/exe", new.as_raw_nonzero())).expect("a link");
    assert_eq!(executable, installed.program, "not the file that was deleted");
    assert_eq!(installed.gapless.get("/").text(), "one");
    assert_eq!(installed.gapless.metric("gapless_upgrades_total{result=\"ok\"}"), 1.0);
    assert_eq!(installed.gapless.metric("gapless_last_upgrade_ok"), 1.0);
    // The successor is upgraded too.
    installed.gapless.upgrade();
    installed.gapless.wait_for_single_process(DEFAULT_TIMEOUT);
    assert_eq!(installed.gapless.get("/").text(), "one");
}

#[test]
fn request_in_flight_completes_in_old_process() {
    let one = TestEndpoint::start("one");
    let mut gapless = Gapless::start_ready(&config_for(&one));
    one.set_mode(ResponseMode::Slow(Duration::from_secs(4)));
    let mut waiting = TestClient::open(gapless.address);
    waiting.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").expect("sent");
    eventually("the request is under way", DEFAULT_TIMEOUT, || !one.requests().is_empty());
    one.set_mode(ResponseMode::Ok);
    gapless.upgrade();
    assert_eq!(gapless.get("/").text(), "one", "meanwhile the new one serves");
    assert!(gapless.is_running());
    let answer = waiting.read_response("GET").expect("an answer");
    assert_eq!((answer.status, answer.field("connection")), (200, Some("close")));
    assert!(waiting.is_closed_by_server());
    assert!(gapless.wait_for_exit(DEFAULT_TIMEOUT).success());
}

#[test]
fn idle_client_gets_connection_close_after_upgrade() {
    let one = TestEndpoint::start("one");
    let mut gapless = Gapless::start_ready(&config_for(&one));
    let mut idle = TestClient::open(gapless.address);
    assert_eq!(idle.get("/").field("connection"), None);
    gapless.upgrade();
    eventually("the old one leaves", DEFAULT_TIMEOUT, || gapless.log().contains("has taken over"));
    let last = idle.get("/");
    assert_eq!((last.status, last.field("connection")), (200, Some("close")));
    assert!(idle.is_closed_by_server());
    assert!(gapless.wait_for_exit(DEFAULT_TIMEOUT).success(), "the last process ends");
}

#[test]
fn silent_client_is_disconnected_at_drain_deadline() {
    let one = TestEndpoint::start("one");
    let table = "[shutdown]\nlame_duck = \"1s\"\ndrain = \"1s\"";
    let mut gapless = Gapless::start_ready(&config_for(&one).tables(table));
    let mut idle = TestClient::open(gapless.address);
    assert_eq!(idle.get("/").status, 200);
    gapless.upgrade();
    assert!(gapless.is_running());
    assert!(gapless.wait_for_exit(DEFAULT_TIMEOUT).success());
    assert!(idle.is_closed_by_server());
}

#[test]
fn admin_api_is_served_by_new_process_only() {
    let one = TestEndpoint::start("one");
    let table = "[shutdown]\nlame_duck = \"600s\"";
    let mut gapless = Gapless::start_ready(&config_for(&one).tables(table));
    let mut admin_connection = TestClient::open(gapless.admin);
    let host = gapless.admin.to_string();
    let request = format!("GET /readyz HTTP/1.1\r\nhost: {host}\r\n\r\n");
    admin_connection.send(&request).expect("sent");
    assert_eq!(admin_connection.read_response("GET").expect("an answer").status, 200);
    let mut client = TestClient::open(gapless.address);
    assert_eq!(client.get("/").status, 200);
    gapless.upgrade();
    assert!(admin_connection.is_closed_by_server(), "connections to the old process are closed");
    for _ in 0..50 {
        assert_eq!(gapless.admin_get("/readyz").status, 200);
    }
    assert!(gapless.is_running(), "the old one waits for its client");
}

#[test]
fn restart_only_changes_apply_on_upgrade() {
    let one = TestEndpoint::start("one");
    let second = ReservedPort::reserve().address();
    let gapless = Gapless::start_ready(&config_for(&one).listen(second));
    let text = config_text(&gapless).replace("workers = 1", "workers = 3");
    gapless.write_config(&text);
    let needs_restart = || gapless.api_json("/api/v1/config")["needs_restart"].clone();
    eventually("it is seen", DEFAULT_TIMEOUT, || needs_restart() == serde_json::json!(["workers"]));
    gapless.upgrade();
    assert_eq!(needs_restart(), serde_json::json!([]));
    gapless.wait_for_single_process(DEFAULT_TIMEOUT);
    // One socket and three workers, then one worker.
    for _ in 0..50 {
        assert_eq!(gapless.get("/").text(), "one");
        assert_eq!(crate::support::client::get(second, "/").text(), "one");
    }
    gapless.write_config(&text.replace("workers = 3", "workers = 1"));
    eventually("it is seen", DEFAULT_TIMEOUT, || needs_restart() == serde_json::json!(["workers"]));
    gapless.upgrade();
    gapless.wait_for_single_process(DEFAULT_TIMEOUT);
    assert_eq!(gapless.get("/").text(), "one");
}

fn config_text(gapless: &Gapless) -> String {
    std::fs::read_to_string(gapless.config_file()).expect("text")
}
