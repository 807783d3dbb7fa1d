//! Upgrades in place: the running process starts its executable anew, hands over, and leaves.

mod failed;
mod health;
mod http2;
mod manager;
mod traffic;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::support::client::Client;
use crate::support::config::Config;
use crate::support::endpoint::{Endpoint, Mode};
use crate::support::instance::{BINARY, Gapless};
use crate::support::{HeldPort, SOON, eventually};

fn to(endpoint: &Endpoint) -> Config {
    Config::new().zone("here/a", &[endpoint.address()])
}

/// A program of its own, beside its configuration.
struct Installed {
    gapless: Gapless,
    program: PathBuf,
}

impl Installed {
    #[track_caller]
    fn start(config: &Config) -> Self {
        let directory = TempDir::new().expect("a directory");
        let program = directory.path().join("gapless");
        let file = directory.path().join("gapless.toml");
        std::fs::write(&file, config.text()).expect("written");
        copy(&program);
        let mut command = Command::new(&program);
        command.arg("run").arg(&file);
        let gapless = Gapless::start_by(command, directory, file);
        gapless.wait_all_up();
        Self { gapless, program }
    }

    /// Puts another program in its place, as a package manager does.
    fn replace(&self, make: impl FnOnce(&Path)) {
        let aside = self.program.with_extension("new");
        make(&aside);
        std::fs::rename(aside, &self.program).expect("renamed");
    }
}

/// Puts the program there. Written by a process of its own: what is open for writing here while
/// another test starts a process cannot be executed.
fn copy(to: &Path) {
    let status = Command::new("cp").arg(BINARY).arg(to).status();
    assert!(status.expect("a process").success());
}

#[test]
fn another_process_runs_what_is_installed_now() {
    let one = Endpoint::start("one");
    let mut installed = Installed::start(&to(&one));
    let before = installed.gapless.process();
    let program = installed.program.to_str().expect("text");
    assert_eq!((&before["upgrades"], before["executable"].as_str()), (&0.into(), Some(program)));
    installed.replace(copy);
    let new = installed.gapless.upgrade();
    assert!(installed.gapless.wait(SOON).success());
    let runs = std::fs::read_link(format!("/proc/{}/exe", new.as_raw_nonzero())).expect("a link");
    assert_eq!(runs, installed.program, "not the file that was deleted");
    assert_eq!(installed.gapless.get("/").text(), "one");
    assert_eq!(installed.gapless.metric("gapless_upgrades_total{result=\"ok\"}"), 1.0);
    assert_eq!(installed.gapless.metric("gapless_last_upgrade_ok"), 1.0);
    // And what took over is taken over from.
    installed.gapless.upgrade();
    installed.gapless.wait_alone(SOON);
    assert_eq!(installed.gapless.get("/").text(), "one");
}

#[test]
fn a_request_in_flight_ends_well_in_the_old_process() {
    let one = Endpoint::start("one");
    let mut gapless = Gapless::start_ready(&to(&one));
    one.set(Mode::Slow(Duration::from_secs(4)));
    let mut waiting = Client::open(gapless.address);
    waiting.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").expect("sent");
    eventually("the request is under way", SOON, || !one.seen().is_empty());
    one.set(Mode::Ok);
    gapless.upgrade();
    assert_eq!(gapless.get("/").text(), "one", "meanwhile the new one serves");
    assert!(gapless.is_running());
    let answer = waiting.answer("GET").expect("an answer");
    assert_eq!((answer.status, answer.field("connection")), (200, Some("close")));
    assert!(waiting.is_ended());
    assert!(gapless.wait(SOON).success());
}

#[test]
fn who_asks_for_nothing_is_told_before_its_connection_ends() {
    let one = Endpoint::start("one");
    let mut gapless = Gapless::start_ready(&to(&one));
    let mut idle = Client::open(gapless.address);
    assert_eq!(idle.get("/").field("connection"), None);
    gapless.upgrade();
    eventually("the old one leaves", SOON, || gapless.log().contains("has taken over"));
    let last = idle.get("/");
    assert_eq!((last.status, last.field("connection")), (200, Some("close")));
    assert!(idle.is_ended());
    assert!(gapless.wait(SOON).success(), "nobody is left");
}

#[test]
fn who_never_asks_again_has_until_the_end() {
    let one = Endpoint::start("one");
    let table = "[shutdown]\nlame_duck = \"1s\"\ndrain = \"1s\"";
    let mut gapless = Gapless::start_ready(&to(&one).tables(table));
    let mut idle = Client::open(gapless.address);
    assert_eq!(idle.get("/").status, 200);
    gapless.upgrade();
    assert!(gapless.is_running());
    assert!(gapless.wait(SOON).success());
    assert!(idle.is_ended());
}

#[test]
fn the_operator_is_answered_by_the_new_process_only() {
    let one = Endpoint::start("one");
    let table = "[shutdown]\nlame_duck = \"600s\"";
    let mut gapless = Gapless::start_ready(&to(&one).tables(table));
    let mut kept = Client::open(gapless.admin);
    let host = gapless.admin.to_string();
    let ask = format!("GET /readyz HTTP/1.1\r\nhost: {host}\r\n\r\n");
    kept.send(&ask).expect("sent");
    assert_eq!(kept.answer("GET").expect("an answer").status, 200);
    let mut client = Client::open(gapless.address);
    assert_eq!(client.get("/").status, 200);
    gapless.upgrade();
    assert!(kept.is_ended(), "nobody is told of a process that goes");
    for _ in 0..50 {
        assert_eq!(gapless.ask("/readyz").status, 200);
    }
    assert!(gapless.is_running(), "the old one waits for its client");
}

#[test]
fn what_only_a_start_can_change_is_changed() {
    let one = Endpoint::start("one");
    let second = HeldPort::take().address();
    let gapless = Gapless::start_ready(&to(&one).listen(second));
    let text = gapless_text(&gapless).replace("workers = 1", "workers = 3");
    gapless.write(&text);
    let restart = || gapless.api("/api/v1/config")["needs_restart"].clone();
    eventually("it is seen", SOON, || restart() == serde_json::json!(["workers"]));
    gapless.upgrade();
    assert_eq!(restart(), serde_json::json!([]));
    gapless.wait_alone(SOON);
    // One socket and three workers, then three workers less two.
    for _ in 0..50 {
        assert_eq!(gapless.get("/").text(), "one");
        assert_eq!(crate::support::client::get(second, "/").text(), "one");
    }
    gapless.write(&text.replace("workers = 3", "workers = 1"));
    eventually("it is seen", SOON, || restart() == serde_json::json!(["workers"]));
    gapless.upgrade();
    gapless.wait_alone(SOON);
    assert_eq!(gapless.get("/").text(), "one");
}

fn gapless_text(gapless: &Gapless) -> String {
    std::fs::read_to_string(gapless.file()).expect("text")
}
