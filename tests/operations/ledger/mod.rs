//! The ledger: what is kept of incidents, across restarts, crashes and upgrades, and how it is told.

mod crash;
mod full;
mod slo;
mod told;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rustix::process::{Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::config::Config;
use crate::support::endpoint::Endpoint;
use crate::support::instance::{BINARY, Gapless};
use crate::support::{SOON, eventually, until};

/// A directory for a ledger, and one for its instances' files.
struct Home {
    directory: TempDir,
}

impl Home {
    fn new() -> Self {
        Self { directory: TempDir::new().expect("a directory") }
    }

    fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    /// Two zones, fast probes, and a ledger on the disk.
    fn config(&self, near: &[&Endpoint], far: &[&Endpoint]) -> Config {
        let addresses = |all: &[&Endpoint]| all.iter().map(|one| one.address()).collect::<Vec<_>>();
        let keys = format!("state_dir = \"{}\"", self.state().display());
        let config = Config::new().keys(&keys).pool(
            "detect = { interval = \"200ms\", timeout = \"100ms\", down_interval = \"100ms\" }\n\
             recover = { hold_down = \"0s\", ramp = \"200ms\" }",
        );
        let config = config.zone("here/a", &addresses(near));
        if far.is_empty() { config } else { config.zone("here/b", &addresses(far)) }
    }
}

/// The program with these arguments.
fn gapless(arguments: &[&str]) -> Output {
    Command::new(BINARY).args(arguments).output().expect("the program runs")
}

/// What `gapless incidents --state-dir` says, as JSON.
fn read(state: &Path) -> Value {
    let state = state.to_str().expect("text");
    let output = gapless(&["incidents", "--state-dir", state, "--format", "json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// Waits until the newest incident of an endpoint has this text in this field.
#[track_caller]
fn wait_for(gapless: &Gapless, field: &str, text: &str) -> Value {
    until(&format!("{field} is {text}"), SOON, || {
        gapless.incidents("endpoints").pop().filter(|incident| incident[field] == text)
    })
}

#[track_caller]
fn fall(gapless: &Gapless, endpoint: &Endpoint) {
    let before = gapless.incidents("endpoints").len();
    endpoint.refuse();
    eventually("an incident", SOON, || gapless.incidents("endpoints").len() > before);
}

#[test]
fn an_incident_outlives_a_restart() {
    let (home, one, two) = (Home::new(), Endpoint::start("one"), Endpoint::start("two"));
    let config = home.config(&[&one, &two], &[]);
    let mut first = Gapless::start_ready(&config);
    fall(&first, &one);
    one.listen();
    let told = wait_for(&first, "ended", "restored");
    first.signal(Signal::TERM);
    assert!(first.wait(SOON).success());
    assert_eq!(read(&home.state())["endpoints"][0]["timeline"], told["timeline"]);
    let second = Gapless::start_ready(&config);
    assert_eq!(second.incidents("endpoints")[0]["timeline"], told["timeline"]);
    assert_eq!(second.metric("gapless_ledger_durable"), 1.0);
    fall(&second, &two);
    let ids: Vec<_> = second.incidents("endpoints").iter().map(|one| one["id"].clone()).collect();
    assert_eq!(ids, [1, 2], "numbers go on");
}

#[test]
fn what_was_open_in_a_crash_was_interrupted() {
    let (home, one, two) = (Home::new(), Endpoint::start("one"), Endpoint::start("two"));
    let config = home.config(&[&one, &two], &[]);
    let mut first = Gapless::start_ready(&config);
    fall(&first, &one);
    eventually("it is written", SOON, || !read(&home.state())["endpoints"][0].is_null());
    first.signal(Signal::KILL);
    first.wait(SOON);
    let second = Gapless::start(&config);
    let told = wait_for(&second, "ended", "interrupted");
    assert!(told["timeline"]["restored"].is_null() && told["timeline"]["verdict"].is_string());
    assert_eq!(told["endpoint"], one.address().to_string());
}

#[test]
fn a_file_that_cannot_be_read_is_put_aside() {
    let (home, one) = (Home::new(), Endpoint::start("one"));
    std::fs::create_dir_all(home.state()).expect("made");
    std::fs::write(home.state().join("ledger.redb"), b"no ledger at all").expect("written");
    let gapless = Gapless::start_ready(&home.config(&[&one], &[]));
    eventually("it says so", SOON, || gapless.log().contains("a new one begins"));
    let names = std::fs::read_dir(home.state()).expect("readable").flatten();
    let is_aside = |name: std::ffi::OsString| name.to_string_lossy().contains(".broken-");
    assert_eq!(names.filter(|entry| is_aside(entry.file_name())).count(), 1);
    fall(&gapless, &one);
}

#[test]
fn who_cannot_keep_a_ledger_serves_all_the_same() {
    let (home, one) = (Home::new(), Endpoint::start("one"));
    std::fs::write(home.state(), b"a file where a directory should be").expect("written");
    let gapless = Gapless::start_ready(&home.config(&[&one], &[]));
    eventually("it says so", SOON, || gapless.log().contains("kept in memory"));
    assert_eq!(gapless.get("/").text(), "one");
    assert_eq!(gapless.metric("gapless_ledger_durable"), 0.0);
    fall(&gapless, &one);
}

#[test]
fn an_incident_goes_on_in_the_process_that_takes_over() {
    let (home, one, two) = (Home::new(), Endpoint::start("one"), Endpoint::start("two"));
    let gapless = Gapless::start_ready(&home.config(&[&one, &two], &[]));
    fall(&gapless, &one);
    let before = gapless.incidents("endpoints").remove(0);
    gapless.upgrade();
    let open = until("it has the ledger", SOON, || gapless.incidents("endpoints").pop());
    assert_eq!(open["timeline"]["verdict"], before["timeline"]["verdict"]);
    assert!(open["ended"].is_null(), "{open:#}");
    one.listen();
    let told = wait_for(&gapless, "ended", "restored");
    assert_eq!(told["id"], before["id"]);
    assert_eq!(gapless.incidents("endpoints").len(), 1);
    eventually("it is durable", SOON, || gapless.metric("gapless_ledger_durable") == 1.0);
    gapless.wait_alone(2 * SOON);
    let pid = gapless.pid();
    kill_process(pid, Signal::KILL).expect("signalled");
    assert_eq!(read(&home.state())["endpoints"][0]["ended"], "restored");
}
