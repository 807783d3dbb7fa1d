//! Every way a request ends is written down, once.

use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use super::{LogFile, logged};
use crate::support::client::{self, Client};
use crate::support::config::Config;
use crate::support::endpoint::{Endpoint, Mode, Next};
use crate::support::instance::Gapless;
use crate::support::{HeldPort, SOON, eventually, until};

fn outcomes(line: &Value) -> Vec<&str> {
    let tries = line["tries"].as_array().expect("a list");
    tries.iter().map(|one| one["outcome"].as_str().expect("a word")).collect()
}

/// Sends a head and more than fits into any buffer, and then nothing.
fn endless() -> Mode {
    Mode::script(|_, wire| {
        wire.send("HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n")?;
        let piece = vec![b'x'; 1 << 20];
        loop {
            wire.send(&piece)?;
        }
    })
}

#[test]
fn a_response_that_is_cut_is_told_as_cut() {
    let (endpoint, gapless, log) = logged(Config::new(), "");
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n";
    endpoint.set(Mode::RawClose(head.into()));
    let mut client = Client::open(gapless.address);
    client.send("GET /cut HTTP/1.1\r\nhost: a\r\n\r\n").expect("sent");
    assert!(client.answer("GET").is_err());
    let line = log.line_of("/cut");
    assert_eq!((&line["status"], &line["reason"]), (&200.into(), &"cut".into()), "{line:#}");
    assert_eq!(line["bytes_out"], 5);
    assert_eq!(outcomes(&line), ["cut"]);
}

#[test]
fn a_client_that_goes_away_before_and_during_the_answer() {
    let (endpoint, gapless, log) = logged(Config::new(), "");
    endpoint.set(Mode::Hang);
    let mut client = Client::open(gapless.address);
    client.send("GET /before HTTP/1.1\r\nhost: a\r\n\r\n").expect("sent");
    eventually("the request has arrived", SOON, || endpoint.seen().len() == 1);
    drop(client);
    let line = log.line_of("/before");
    assert_eq!((&line["status"], &line["reason"]), (&499.into(), &"client_abort".into()));
    assert_eq!((&line["first_byte_ms"], outcomes(&line)), (&Value::Null, vec!["left"]));
    endpoint.set(endless());
    let mut client = Client::open(gapless.address);
    client.send("GET /during HTTP/1.1\r\nhost: a\r\n\r\n").expect("sent");
    client.wire.head().expect("a head");
    client.wire.exactly(1 << 20).expect("some of it");
    drop(client);
    let line = log.line_of("/during");
    assert_eq!((&line["status"], &line["reason"]), (&200.into(), &"client_abort".into()));
    assert!(line["bytes_out"].as_u64() >= Some(1 << 20), "{line:#}");
    assert_eq!(outcomes(&line), ["200"]);
}

#[test]
fn a_client_that_stops_in_the_middle_of_its_own_body() {
    let (endpoint, gapless, log) = logged(Config::new(), "");
    let arrived = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&arrived);
    endpoint.set(Mode::script(move |_, wire| {
        wire.exactly(4)?;
        told.store(true, SeqCst);
        wire.exactly(6)?;
        Ok(Next::Close)
    }));
    let mut client = Client::open(gapless.address);
    client.send("POST /half HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nhalf").expect("sent");
    eventually("half of it has arrived", SOON, || arrived.load(SeqCst));
    client.wire.stream().shutdown(Shutdown::Both).expect("shut down");
    let line = log.line_of("/half");
    assert_eq!(line["bytes_in"], 4, "{line:#}");
    assert!(matches!(line["reason"].as_str(), Some("client_abort" | "bad_request")), "{line:#}");
}

#[test]
fn what_the_proxy_refuses_is_told_with_its_word() {
    let config = Config::new().route("path = \"/in/\"\nlimits = { body = \"1KiB\" }");
    let (_endpoint, gapless, log) = logged(config, "");
    client::get(gapless.address, "/out");
    let line = log.line_of("/out");
    assert_eq!((&line["status"], &line["reason"]), (&404.into(), &"no_route".into()));
    assert_eq!((&line["route"], &line["endpoint"]), (&Value::Null, &Value::Null));
    assert_eq!((&line["attempts"], outcomes(&line).len()), (&0.into(), 0));
    client::request(gapless.address, "POST", "/in/large", &[0; 4096]);
    let line = log.line_of("/in/large");
    assert_eq!((&line["status"], &line["reason"]), (&413.into(), &"body_too_large".into()));
    client::raw(gapless.address, "GET /two HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n");
    assert_eq!(log.line_of("/two")["reason"], "bad_request");
    let mut client = Client::open(gapless.address);
    client.send("HEAD /head HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n").expect("sent");
    assert_eq!(client.answer("HEAD").expect("answered").status, 400);
    assert_eq!(log.line_of("/head")["reason"], "bad_request");
}

#[test]
fn every_try_of_a_request_that_was_sent_again_is_listed() {
    let (bad, good, log) = (Endpoint::start("bad"), Endpoint::start("good"), LogFile::new());
    let config = Config::new().tables(&log.table("")).pool("detect = { interval = \"60s\" }");
    let config = config.zone("here/a", &[bad.address()]).zone("here/b", &[good.address()]);
    let gapless = Gapless::start_ready(&config);
    for (index, (mode, word)) in
        [(Mode::Status(503), "503"), (Mode::Reset, "reset"), (Mode::Close, "closed")]
            .into_iter()
            .enumerate()
    {
        bad.set(mode);
        let path = format!("/again/{index}");
        let line = until("a request meets the bad endpoint", SOON, || {
            assert_eq!(gapless.get(&path).status, 200);
            eventually("a line", SOON, || !log.lines_of(&path).is_empty());
            log.lines_of(&path).into_iter().find(|line| line["attempts"] == 2)
        });
        assert_eq!(outcomes(&line), [word, "200"], "{line:#}");
        assert_eq!(line["endpoint"], good.address().to_string());
        assert_eq!((&line["zone"], &line["reason"]), (&"here/b".into(), &"-".into()));
        assert_eq!(line["tries"][0]["endpoint"], bad.address().to_string());
    }
}

#[test]
fn a_request_that_no_endpoint_takes_has_its_tries() {
    let (port, log) = (HeldPort::take(), LogFile::new());
    let config = Config::new().tables(&log.table("")).pool("optimistic = true");
    let gapless = Gapless::start(&config.zone("here/a", &[port.address()]));
    let answer = gapless.get("/refused");
    assert_eq!(answer.status, 502);
    let line = log.line_of("/refused");
    assert_eq!((&line["status"], &line["reason"]), (&502.into(), &"connect_failed".into()));
    assert_eq!(outcomes(&line), ["refused"], "{line:#}");
}

#[test]
fn a_stop_writes_what_is_left_and_tells_what_it_cut() {
    let config = Config::new().tables("[shutdown]\ndrain = \"200ms\"");
    let (endpoint, mut gapless, log) = logged(config, "");
    endpoint.set(endless());
    let mut client = Client::open(gapless.address);
    client.send("GET /running HTTP/1.1\r\nhost: a\r\n\r\n").expect("sent");
    client.wire.head().expect("a head");
    gapless.signal(Signal::TERM);
    assert!(gapless.wait(SOON).success());
    let lines = log.lines_of("/running");
    assert_eq!(lines.len(), 1, "written before the end");
    assert_eq!(lines[0]["reason"], "shutdown", "{:#}", lines[0]);
}

#[test]
fn a_pause_between_pieces_is_part_of_the_duration() {
    let (endpoint, gapless, log) = logged(Config::new(), "");
    endpoint.set(Mode::script(|_, wire| {
        wire.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n")?;
        std::thread::sleep(Duration::from_millis(100));
        wire.send("1\r\nb\r\n0\r\n\r\n")?;
        Ok(Next::Keep)
    }));
    assert_eq!(gapless.get("/paused").text(), "ab");
    let line = log.line_of("/paused");
    let ms = |key: &str| line[key].as_f64().expect("a number");
    assert!(ms("duration_ms") - ms("first_byte_ms") > 90.0, "{line:#}");
    assert_eq!(line["reason"], "-");
}

/// The other try lasts for four times as long: what becomes of it is evidence, and nobody waits for it.
#[test]
fn a_hedge_that_lost_is_not_part_of_the_duration() {
    let (silent, good, log) = (Endpoint::start("silent"), Endpoint::start("good"), LogFile::new());
    let detect = "detect = { interval = \"30s\", timeout = \"200ms\", down_after = 1000 }";
    let config = Config::new().tables(&log.table("")).pool(detect);
    let config = config.zone("here/a", &[silent.address()]).zone("here/b", &[good.address()]);
    let gapless = Gapless::start_ready(&config);
    silent.set(Mode::Hang);
    let began = Instant::now();
    assert_eq!(gapless.get("/hedged").text(), "good");
    let took = began.elapsed().as_secs_f64() * 1_000.0;
    let line = log.line_of("/hedged");
    let ms = |value: &Value| value.as_f64().expect("a number");
    assert!(ms(&line["tries"][0]["ms"]) >= 700.0, "{line:#}");
    assert!(ms(&line["duration_ms"]) < took + 300.0, "{took}: {line:#}");
}
