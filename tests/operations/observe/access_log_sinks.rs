//! Sinks of the access log; a blocked sink delays no request.

use std::io::{BufRead, BufReader};
use std::time::Instant;

use rustix::process::Signal;
use serde_json::Value;

use super::{AccessLogFile, start_with_access_log};
use crate::support::client::TestClient;
use crate::support::config::ConfigBuilder;
use crate::support::endpoint::TestEndpoint;
use crate::support::instance::Gapless;
use crate::support::{DEFAULT_TIMEOUT, eventually};

const DROPPED_LINES_METRIC: &str = "gapless_access_log_lines_dropped_total";

#[test]
fn renamed_log_file_is_reopened_on_sigusr1() {
    let (_endpoint, gapless, log) = start_with_access_log(ConfigBuilder::new(), "");
    gapless.get("/first");
    log.wait_for_line("/first");
    let moved = log.path.with_extension("1");
    std::fs::rename(&log.path, &moved).expect("renamed");
    gapless.get("/between");
    let moved_file_has =
        |text: &str| std::fs::read_to_string(&moved).expect("a file").contains(text);
    eventually("it is written to by its old name", DEFAULT_TIMEOUT, || moved_file_has("/between"));
    gapless.signal(Signal::USR1);
    eventually("it is there again", DEFAULT_TIMEOUT, || log.path.exists());
    gapless.get("/after");
    log.wait_for_line("/after");
    assert!(!moved_file_has("/after"));
    assert_eq!(gapless.metric(DROPPED_LINES_METRIC), 0.0);
}

#[test]
fn reload_moves_disables_and_enables_log() {
    let (endpoint, one, two) =
        (TestEndpoint::start("one"), AccessLogFile::new(), AccessLogFile::new());
    let config_with =
        |table: &str| ConfigBuilder::new().tables(table).zone("here/a", &[endpoint.address()]);
    let gapless = Gapless::start_ready(&config_with(&one.config_table("")));
    let reload = |table: &str| {
        let before = gapless.generation();
        gapless.write_config(&config_with(table).text());
        gapless.signal(Signal::HUP);
        eventually("it is obeyed", DEFAULT_TIMEOUT, || gapless.generation() > before);
    };
    gapless.get("/one");
    one.wait_for_line("/one");
    reload(&two.config_table("format = \"json\""));
    gapless.get("/two");
    two.wait_for_line("/two");
    reload("");
    gapless.get("/nowhere");
    reload(&one.config_table(""));
    gapless.get("/back");
    one.wait_for_line("/back");
    let all = [one.lines(), two.lines()].concat().join("\n");
    assert!(!all.contains("/nowhere"), "{all}");
    assert_eq!((one.lines().len(), two.lines().len()), (2, 1), "{all}");
}

#[test]
fn stdout_sink_receives_lines() {
    let endpoint = TestEndpoint::start("one");
    let config = ConfigBuilder::new().tables("[access_log]\nto = \"stdout\"");
    let (gapless, stdout) =
        Gapless::start_with_piped_stdout(&config.zone("here/a", &[endpoint.address()]));
    gapless.wait_all_up();
    gapless.get("/out");
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line).expect("a line");
    let line: Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!((&line["path"], &line["status"]), (&"/out".into(), &200.into()));
}

#[test]
fn unread_stdout_pipe_drops_lines_but_no_request() {
    let endpoint = TestEndpoint::start("one");
    let config = ConfigBuilder::new().tables("[access_log]\nto = \"stdout\"");
    let config = config.zone("here/a", &[endpoint.address()]);
    let (mut gapless, stdout) = Gapless::start_with_piped_stdout(&config);
    gapless.wait_all_up();
    let mut client = TestClient::open(gapless.address);
    let started = Instant::now();
    let target = format!("/{}", "x".repeat(2_000));
    while gapless.metric(DROPPED_LINES_METRIC) == 0.0 {
        for _ in 0..500 {
            assert_eq!(client.get(&target).status, 200);
        }
        assert!(started.elapsed() < 6 * DEFAULT_TIMEOUT, "nothing is dropped");
    }
    assert_eq!(client.get("/").status, 200);
    // A stop does not wait for a blocked reader.
    gapless.signal(Signal::TERM);
    assert!(gapless.wait_for_exit(DEFAULT_TIMEOUT).success());
    drop(stdout);
}

#[test]
fn unopenable_log_is_reported_counted_and_retried() {
    let (endpoint, log) = (TestEndpoint::start("one"), AccessLogFile::new());
    let parent = log.path.with_file_name("later");
    let path = parent.join("access.log");
    let table = format!("[access_log]\nto = \"{}\"", path.display());
    let config = ConfigBuilder::new().tables(&table).zone("here/a", &[endpoint.address()]);
    let gapless = Gapless::start_ready(&config);
    assert_eq!(gapless.get("/lost").status, 200);
    eventually("the line is counted as lost", DEFAULT_TIMEOUT, || {
        gapless.metric(DROPPED_LINES_METRIC) == 1.0
    });
    eventually("it is told", DEFAULT_TIMEOUT, || {
        gapless.log().contains("access log cannot be opened")
    });
    std::fs::create_dir(&parent).expect("a directory");
    eventually("it is opened when it can be", DEFAULT_TIMEOUT, || {
        gapless.get("/found");
        std::fs::read_to_string(&path).is_ok_and(|text| text.contains("/found"))
    });
}

#[test]
fn full_disk_drops_lines_but_no_request() {
    let endpoint = TestEndpoint::start("one");
    let config = ConfigBuilder::new().tables("[access_log]\nto = \"/dev/full\"");
    let gapless = Gapless::start_ready(&config.zone("here/a", &[endpoint.address()]));
    for _ in 0..20 {
        assert_eq!(gapless.get("/").status, 200);
    }
    eventually("every line is counted as lost", DEFAULT_TIMEOUT, || {
        gapless.metric(DROPPED_LINES_METRIC) == 20.0
    });
    eventually("it is told", DEFAULT_TIMEOUT, || gapless.log().contains("cannot be written"));
}
