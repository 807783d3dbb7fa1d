//! Where lines go, and that nobody who does not take them holds up a request.

use std::io::{BufRead, BufReader};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use super::{LogFile, logged};
use crate::support::client::Client;
use crate::support::config::Config;
use crate::support::endpoint::Endpoint;
use crate::support::instance::Gapless;
use crate::support::{SOON, eventually};

const DROPPED: &str = "gapless_access_log_lines_dropped_total";

#[test]
fn a_file_that_was_moved_away_is_opened_anew() {
    let (_endpoint, gapless, log) = logged(Config::new(), "");
    gapless.get("/first");
    log.line_of("/first");
    let moved = log.path.with_extension("1");
    std::fs::rename(&log.path, &moved).expect("renamed");
    gapless.get("/between");
    let has = |text: &str| std::fs::read_to_string(&moved).expect("a file").contains(text);
    eventually("it is written to by its old name", SOON, || has("/between"));
    gapless.signal(Signal::USR1);
    eventually("it is there again", SOON, || log.path.exists());
    gapless.get("/after");
    log.line_of("/after");
    assert!(!has("/after"));
    assert_eq!(gapless.metric(DROPPED), 0.0);
}

#[test]
fn a_reload_moves_the_log_switches_it_off_and_on() {
    let (endpoint, one, two) = (Endpoint::start("one"), LogFile::new(), LogFile::new());
    let with = |table: &str| Config::new().tables(table).zone("here/a", &[endpoint.address()]);
    let gapless = Gapless::start_ready(&with(&one.table("")));
    let reload = |table: &str| {
        let before = gapless.generation();
        gapless.write(&with(table).text());
        gapless.signal(Signal::HUP);
        eventually("it is obeyed", SOON, || gapless.generation() > before);
    };
    gapless.get("/one");
    one.line_of("/one");
    reload(&two.table("format = \"json\""));
    gapless.get("/two");
    two.line_of("/two");
    reload("");
    gapless.get("/nowhere");
    reload(&one.table(""));
    gapless.get("/back");
    one.line_of("/back");
    let all = [one.lines(), two.lines()].concat().join("\n");
    assert!(!all.contains("/nowhere"), "{all}");
    assert_eq!((one.lines().len(), two.lines().len()), (2, 1), "{all}");
}

#[test]
fn standard_output_gets_lines_too() {
    let endpoint = Endpoint::start("one");
    let config = Config::new().tables("[access_log]\nto = \"stdout\"");
    let (gapless, stdout) = Gapless::start_piped(&config.zone("here/a", &[endpoint.address()]));
    gapless.wait_all_up();
    gapless.get("/out");
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line).expect("a line");
    let line: Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!((&line["path"], &line["status"]), (&"/out".into(), &200.into()));
}

#[test]
fn a_pipe_that_nobody_reads_costs_lines_and_no_request() {
    let endpoint = Endpoint::start("one");
    let config = Config::new().tables("[access_log]\nto = \"stdout\"");
    let config = config.zone("here/a", &[endpoint.address()]);
    let (mut gapless, stdout) = Gapless::start_piped(&config);
    gapless.wait_all_up();
    let mut client = Client::open(gapless.address);
    let started = Instant::now();
    let target = format!("/{}", "x".repeat(2_000));
    while gapless.metric(DROPPED) == 0.0 {
        for _ in 0..500 {
            assert_eq!(client.get(&target).status, 200);
        }
        assert!(started.elapsed() < 6 * SOON, "nothing is dropped");
    }
    assert_eq!(client.get("/").status, 200);
    // A stop does not wait for who does not read.
    gapless.signal(Signal::TERM);
    assert!(gapless.wait(SOON).success());
    drop(stdout);
}

#[test]
fn a_log_that_cannot_be_opened_is_told_counted_and_tried_again() {
    let (endpoint, log) = (Endpoint::start("one"), LogFile::new());
    let parent = log.path.with_file_name("later");
    let path = parent.join("access.log");
    let table = format!("[access_log]\nto = \"{}\"", path.display());
    let config = Config::new().tables(&table).zone("here/a", &[endpoint.address()]);
    let gapless = Gapless::start_ready(&config);
    assert_eq!(gapless.get("/lost").status, 200);
    eventually("the line is counted as lost", SOON, || gapless.metric(DROPPED) == 1.0);
    eventually("it is told", SOON, || gapless.log().contains("access log cannot be opened"));
    std::fs::create_dir(&parent).expect("a directory");
    eventually("it is opened when it can be", SOON, || {
        gapless.get("/found");
        std::thread::sleep(Duration::from_millis(50));
        std::fs::read_to_string(&path).is_ok_and(|text| text.contains("/found"))
    });
}

#[test]
fn a_full_disk_costs_lines_and_no_request() {
    let endpoint = Endpoint::start("one");
    let config = Config::new().tables("[access_log]\nto = \"/dev/full\"");
    let gapless = Gapless::start_ready(&config.zone("here/a", &[endpoint.address()]));
    for _ in 0..20 {
        assert_eq!(gapless.get("/").status, 200);
    }
    eventually("every line is counted as lost", SOON, || gapless.metric(DROPPED) == 20.0);
    eventually("it is told", SOON, || gapless.log().contains("cannot be written"));
}
