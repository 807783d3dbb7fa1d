//! The ledger of incidents across restarts, crashes and upgrades, and its reports.

mod crash;
mod disk_full;
mod incident_reports;
mod slo;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rustix::process::{Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::config::ConfigBuilder;
use crate::support::endpoint::TestEndpoint;
use crate::support::instance::{BINARY, Gapless};
use crate::support::{DEFAULT_TIMEOUT, eventually, poll_until};

/// Directories for a ledger and for its instances' files.
struct LedgerDirectory {
    directory: TempDir,
}

impl LedgerDirectory {
    fn new() -> Self {
        Self { directory: TempDir::new().expect("a directory") }
    }

    fn state_dir(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    /// Two zones, short probe intervals, and a ledger on disk.
    fn config(&self, near: &[&TestEndpoint], far: &[&TestEndpoint]) -> ConfigBuilder {
        let addresses =
            |all: &[&TestEndpoint]| all.iter().map(|one| one.address()).collect::<Vec<_>>();
        let keys = format!("state_dir = \"{}\"", self.state_dir().display());
        let config = ConfigBuilder::new().keys(&keys).pool(
            "detect = { interval = \"200ms\", timeout = \"100ms\", down_interval = \"100ms\" }\n\
             recover = { hold_down = \"0s\", ramp = \"200ms\" }",
        );
        let config = config.zone("here/a", &addresses(near));
        if far.is_empty() { config } else { config.zone("here/b", &addresses(far)) }
    }
}

/// Runs the program with these arguments.
fn run_gapless(arguments: &[&str]) -> Output {
    Command::new(BINARY).args(arguments).output().expect("the program runs")
}

/// The JSON output of `gapless incidents --state-dir`.
fn read_incidents(state_dir: &Path) -> Value {
    let state_dir = state_dir.to_str().expect("text");
    let output = run_gapless(&["incidents", "--state-dir", state_dir, "--format", "json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// Waits until the newest incident of an endpoint has this text in this field.
#[track_caller]
fn wait_for_incident(gapless: &Gapless, field: &str, text: &str) -> Value {
    poll_until(&format!("{field} is {text}"), DEFAULT_TIMEOUT, || {
        gapless.incidents("endpoints").pop().filter(|incident| incident[field] == text)
    })
}

#[track_caller]
fn fail_endpoint(gapless: &Gapless, endpoint: &TestEndpoint) {
    let before = gapless.incidents("endpoints").len();
    endpoint.refuse_connections();
    eventually("an incident", DEFAULT_TIMEOUT, || gapless.incidents("endpoints").len() > before);
}

#[test]
fn incident_survives_restart() {
    let (ledger_dir, one, two) =
        (LedgerDirectory::new(), TestEndpoint::start("one"), TestEndpoint::start("two"));
    let config = ledger_dir.config(&[&one, &two], &[]);
    let mut first = Gapless::start_ready(&config);
    fail_endpoint(&first, &one);
    one.listen();
    let incident = wait_for_incident(&first, "ended", "restored");
    first.signal(Signal::TERM);
    assert!(first.wait_for_exit(DEFAULT_TIMEOUT).success());
    assert_eq!(
        read_incidents(&ledger_dir.state_dir())["endpoints"][0]["timeline"],
        incident["timeline"]
    );
    let second = Gapless::start_ready(&config);
    assert_eq!(second.incidents("endpoints")[0]["timeline"], incident["timeline"]);
    assert_eq!(second.metric("gapless_ledger_durable"), 1.0);
    fail_endpoint(&second, &two);
    let ids: Vec<_> = second.incidents("endpoints").iter().map(|one| one["id"].clone()).collect();
    assert_eq!(ids, [1, 2], "numbers go on");
}

#[test]
fn incident_open_at_crash_ends_as_interrupted() {
    let (ledger_dir, one, two) =
        (LedgerDirectory::new(), TestEndpoint::start("one"), TestEndpoint::start("two"));
    let config = ledger_dir.config(&[&one, &two], &[]);
    let mut first = Gapless::start_ready(&config);
    fail_endpoint(&first, &one);
    eventually("it is written", DEFAULT_TIMEOUT, || {
        !read_incidents(&ledger_dir.state_dir())["endpoints"][0].is_null()
    });
    first.signal(Signal::KILL);
    first.wait_for_exit(DEFAULT_TIMEOUT);
    let second = Gapless::start(&config);
    let incident = wait_for_incident(&second, "ended", "interrupted");
    assert!(
        incident["timeline"]["restored"].is_null() && incident["timeline"]["verdict"].is_string()
    );
    assert_eq!(incident["endpoint"], one.address().to_string());
}

#[test]
fn unreadable_ledger_file_is_moved_aside() {
    let (ledger_dir, one) = (LedgerDirectory::new(), TestEndpoint::start("one"));
    std::fs::create_dir_all(ledger_dir.state_dir()).expect("made");
    std::fs::write(ledger_dir.state_dir().join("ledger.redb"), b"no ledger at all")
        .expect("written");
    let gapless = Gapless::start_ready(&ledger_dir.config(&[&one], &[]));
    eventually("it says so", DEFAULT_TIMEOUT, || gapless.log().contains("a new one begins"));
    let names = std::fs::read_dir(ledger_dir.state_dir()).expect("readable").flatten();
    let is_aside = |name: std::ffi::OsString| name.to_string_lossy().contains(".broken-");
    assert_eq!(names.filter(|entry| is_aside(entry.file_name())).count(), 1);
    fail_endpoint(&gapless, &one);
}

#[test]
fn instance_without_writable_ledger_still_serves() {
    let (ledger_dir, one) = (LedgerDirectory::new(), TestEndpoint::start("one"));
    std::fs::write(ledger_dir.state_dir(), b"a file where a directory should be").expect("written");
    let gapless = Gapless::start_ready(&ledger_dir.config(&[&one], &[]));
    eventually("it says so", DEFAULT_TIMEOUT, || gapless.log().contains("kept in memory"));
    assert_eq!(gapless.get("/").text(), "one");
    assert_eq!(gapless.metric("gapless_ledger_durable"), 0.0);
    fail_endpoint(&gapless, &one);
}

#[test]
fn open_incident_continues_after_upgrade() {
    let (ledger_dir, one, two) =
        (LedgerDirectory::new(), TestEndpoint::start("one"), TestEndpoint::start("two"));
    let gapless = Gapless::start_ready(&ledger_dir.config(&[&one, &two], &[]));
    fail_endpoint(&gapless, &one);
    let before = gapless.incidents("endpoints").remove(0);
    gapless.upgrade();
    let open =
        poll_until("it has the ledger", DEFAULT_TIMEOUT, || gapless.incidents("endpoints").pop());
    assert_eq!(open["timeline"]["verdict"], before["timeline"]["verdict"]);
    assert!(open["ended"].is_null(), "{open:#}");
    one.listen();
    let incident = wait_for_incident(&gapless, "ended", "restored");
    assert_eq!(incident["id"], before["id"]);
    assert_eq!(gapless.incidents("endpoints").len(), 1);
    eventually("it is durable", DEFAULT_TIMEOUT, || {
        gapless.metric("gapless_ledger_durable") == 1.0
    });
    gapless.wait_for_single_process(2 * DEFAULT_TIMEOUT);
    let pid = gapless.pid();
    kill_process(pid, Signal::KILL).expect("signalled");
    assert_eq!(read_incidents(&ledger_dir.state_dir())["endpoints"][0]["ended"], "restored");
}
