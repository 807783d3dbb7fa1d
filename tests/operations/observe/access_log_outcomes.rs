//! Every end of a request has one access-log line.

use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use super::{AccessLogFile, start_with_access_log};
use crate::support::client::{self, TestClient};
use crate::support::config::ConfigBuilder;
use crate::support::endpoint::{ConnectionAction, ResponseMode, TestEndpoint};
use crate::support::instance::Gapless;
use crate::support::{DEFAULT_TIMEOUT, ReservedPort, eventually, poll_until};

fn attempt_outcomes(line: &Value) -> Vec<&str> {
    let attempts = line["tries"].as_array().expect("a list");
    attempts.iter().map(|one| one["outcome"].as_str().expect("a word")).collect()
}

/// Sends a head and more bytes than any buffer holds, then stalls.
fn endless_response() -> ResponseMode {
    ResponseMode::script(|_, wire| {
        wire.send("HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n")?;
        let piece = vec![b'x'; 1 << 20];
        loop {
            wire.send(&piece)?;
        }
    })
}

#[test]
fn cut_response_is_logged_as_cut() {
    let (endpoint, gapless, log) = start_with_access_log(ConfigBuilder::new(), "");
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n";
    endpoint.set_mode(ResponseMode::RawClose(head.into()));
    let mut client = TestClient::open(gapless.address);
    client.send("GET /cut HTTP/1.1\r\nhost: a\r\n\r\n").expect("sent");
    assert!(client.read_response("GET").is_err());
    let line = log.wait_for_line("/cut");
    assert_eq!((&line["status"], &line["reason"]), (&200.into(), &"cut".into()), "{line:#}");
    assert_eq!(line["bytes_out"], 5);
    assert_eq!(attempt_outcomes(&line), ["cut"]);
}

#[test]
fn client_abort_is_logged_before_and_during_response() {
    let (endpoint, gapless, log) = start_with_access_log(ConfigBuilder::new(), "");
    endpoint.set_mode(ResponseMode::Hang);
    let mut client = TestClient::open(gapless.address);
    client.send("GET /before HTTP/1.1\r\nhost: a\r\n\r\n").expect("sent");
    eventually("the request has arrived", DEFAULT_TIMEOUT, || endpoint.requests().len() == 1);
    drop(client);
    let line = log.wait_for_line("/before");
    assert_eq!((&line["status"], &line["reason"]), (&499.into(), &"client_abort".into()));
    assert_eq!((&line["first_byte_ms"], attempt_outcomes(&line)), (&Value::Null, vec!["left"]));
    endpoint.set_mode(endless_response());
    let mut client = TestClient::open(gapless.address);
    client.send("GET /during HTTP/1.1\r\nhost: a\r\n\r\n").expect("sent");
    client.wire.read_head().expect("a head");
    client.wire.read_exact(1 << 20).expect("some of it");
    drop(client);
    let line = log.wait_for_line("/during");
    assert_eq!((&line["status"], &line["reason"]), (&200.into(), &"client_abort".into()));
    assert!(line["bytes_out"].as_u64() >= Some(1 << 20), "{line:#}");
    assert_eq!(attempt_outcomes(&line), ["200"]);
}

#[test]
fn client_abort_during_request_body_is_logged() {
    let (endpoint, gapless, log) = start_with_access_log(ConfigBuilder::new(), "");
    let arrived = Arc::new(AtomicBool::new(false));
    let arrived_flag = Arc::clone(&arrived);
    endpoint.set_mode(ResponseMode::script(move |_, wire| {
        wire.read_exact(4)?;
        arrived_flag.store(true, SeqCst);
        wire.read_exact(6)?;
        Ok(ConnectionAction::Close)
    }));
    let mut client = TestClient::open(gapless.address);
    client.send("POST /half HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nhalf").expect("sent");
    eventually("half of it has arrived", DEFAULT_TIMEOUT, || arrived.load(SeqCst));
    client.wire.stream().shutdown(Shutdown::Both).expect("shut down");
    let line = log.wait_for_line("/half");
    assert_eq!(line["bytes_in"], 4, "{line:#}");
    assert!(matches!(line["reason"].as_str(), Some("client_abort" | "bad_request")), "{line:#}");
}

#[test]
fn local_reply_is_logged_with_its_reason() {
    let config = ConfigBuilder::new().route("path = \"/in/\"\nlimits = { body = \"1KiB\" }");
    let (_endpoint, gapless, log) = start_with_access_log(config, "");
    client::get(gapless.address, "/out");
    let line = log.wait_for_line("/out");
    assert_eq!((&line["status"], &line["reason"]), (&404.into(), &"no_route".into()));
    assert_eq!((&line["route"], &line["endpoint"]), (&Value::Null, &Value::Null));
    assert_eq!((&line["attempts"], attempt_outcomes(&line).len()), (&0.into(), 0));
    client::request(gapless.address, "POST", "/in/large", &[0; 4096]);
    let line = log.wait_for_line("/in/large");
    assert_eq!((&line["status"], &line["reason"]), (&413.into(), &"body_too_large".into()));
    client::send_raw(gapless.address, "GET /two HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n");
    assert_eq!(log.wait_for_line("/two")["reason"], "bad_request");
    let mut client = TestClient::open(gapless.address);
    client.send("HEAD /head HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n").expect("sent");
    assert_eq!(client.read_response("HEAD").expect("answered").status, 400);
    assert_eq!(log.wait_for_line("/head")["reason"], "bad_request");
}

#[test]
fn every_attempt_of_retried_request_is_logged() {
    let (bad, good, log) =
        (TestEndpoint::start("bad"), TestEndpoint::start("good"), AccessLogFile::new());
    let config =
        ConfigBuilder::new().tables(&log.config_table("")).pool("detect = { interval = \"60s\" }");
    let config = config.zone("here/a", &[bad.address()]).zone("here/b", &[good.address()]);
    let gapless = Gapless::start_ready(&config);
    for (index, (mode, outcome)) in [
        (ResponseMode::Status(503), "503"),
        (ResponseMode::Reset, "reset"),
        (ResponseMode::Close, "closed"),
    ]
    .into_iter()
    .enumerate()
    {
        bad.set_mode(mode);
        let path = format!("/again/{index}");
        let line = poll_until("a request meets the bad endpoint", DEFAULT_TIMEOUT, || {
            assert_eq!(gapless.get(&path).status, 200);
            eventually("a line", DEFAULT_TIMEOUT, || !log.lines_for_path(&path).is_empty());
            log.lines_for_path(&path).into_iter().find(|line| line["attempts"] == 2)
        });
        assert_eq!(attempt_outcomes(&line), [outcome, "200"], "{line:#}");
        assert_eq!(line["endpoint"], good.address().to_string());
        assert_eq!((&line["zone"], &line["reason"]), (&"here/b".into(), &"-".into()));
        assert_eq!(line["tries"][0]["endpoint"], bad.address().to_string());
    }
}

#[test]
fn request_without_serving_endpoint_logs_its_attempts() {
    let (port, log) = (ReservedPort::reserve(), AccessLogFile::new());
    let config = ConfigBuilder::new().tables(&log.config_table("")).pool("optimistic = true");
    let gapless = Gapless::start(&config.zone("here/a", &[port.address()]));
    let answer = gapless.get("/refused");
    assert_eq!(answer.status, 502);
    let line = log.wait_for_line("/refused");
    assert_eq!((&line["status"], &line["reason"]), (&502.into(), &"connect_failed".into()));
    assert_eq!(attempt_outcomes(&line), ["refused"], "{line:#}");
}

#[test]
fn shutdown_flushes_log_and_records_cut_requests() {
    let config = ConfigBuilder::new().tables("[shutdown]\ndrain = \"200ms\"");
    let (endpoint, mut gapless, log) = start_with_access_log(config, "");
    endpoint.set_mode(endless_response());
    let mut client = TestClient::open(gapless.address);
    client.send("GET /running HTTP/1.1\r\nhost: a\r\n\r\n").expect("sent");
    client.wire.read_head().expect("a head");
    gapless.signal(Signal::TERM);
    assert!(gapless.wait_for_exit(DEFAULT_TIMEOUT).success());
    let lines = log.lines_for_path("/running");
    assert_eq!(lines.len(), 1, "written before the end");
    assert_eq!(lines[0]["reason"], "shutdown", "{:#}", lines[0]);
}

#[test]
fn pause_between_chunks_counts_in_duration() {
    let (endpoint, gapless, log) = start_with_access_log(ConfigBuilder::new(), "");
    endpoint.set_mode(ResponseMode::script(|_, wire| {
        wire.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n")?;
        std::thread::sleep(Duration::from_millis(100));
        wire.send("1\r\nb\r\n0\r\n\r\n")?;
        Ok(ConnectionAction::Keep)
    }));
    assert_eq!(gapless.get("/paused").text(), "ab");
    let line = log.wait_for_line("/paused");
    let ms = |key: &str| line[key].as_f64().expect("a number");
    assert!(ms("duration_ms") - ms("first_byte_ms") > 90.0, "{line:#}");
    assert_eq!(line["reason"], "-");
}

/// The losing attempt lasts four times as long; it is evidence, and the line does not wait for it.
#[test]
fn losing_hedge_does_not_extend_duration() {
    let (silent, good, log) =
        (TestEndpoint::start("silent"), TestEndpoint::start("good"), AccessLogFile::new());
    let detect = "detect = { interval = \"30s\", timeout = \"200ms\", down_after = 1000 }";
    let config = ConfigBuilder::new().tables(&log.config_table("")).pool(detect);
    let config = config.zone("here/a", &[silent.address()]).zone("here/b", &[good.address()]);
    let gapless = Gapless::start_ready(&config);
    silent.set_mode(ResponseMode::Hang);
    let started = Instant::now();
    assert_eq!(gapless.get("/hedged").text(), "good");
    let elapsed_ms = started.elapsed().as_secs_f64() * 1_000.0;
    let line = log.wait_for_line("/hedged");
    let ms = |value: &Value| value.as_f64().expect("a number");
    assert!(ms(&line["tries"][0]["ms"]) >= 700.0, "{line:#}");
    assert!(ms(&line["duration_ms"]) < elapsed_ms + 300.0, "{elapsed_ms}: {line:#}");
}
