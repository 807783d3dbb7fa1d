//! WebSocket: a tunnel after a 101 of the endpoint, and only then.

use std::net::Shutdown;

use rustix::process::Signal;

use super::{LogFile, logged};
use crate::support::client::{self, Client};
use crate::support::config::Config;
use crate::support::endpoint::{Mode, Next};
use crate::support::wire::{Head, Wire};
use crate::support::{SOON, eventually};

const ASK: &str = "GET /ws HTTP/1.1\r\nhost: a\r\nconnection: keep-alive, Upgrade\r\n\
                   upgrade: WebSocket\r\nsec-websocket-key: k\r\nsec-websocket-version: 13\r\n\r\n";

const GRANT: &str = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\n\
                     upgrade: websocket\r\nsec-websocket-accept: v\r\n\r\n";

/// Grants it, says hello at once, and sends back what it gets until the end.
fn echo() -> Mode {
    Mode::script(|head, wire| {
        if head.field("upgrade").is_none() {
            wire.send("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nplain")?;
            return Ok(Next::Keep);
        }
        wire.send(format!("{GRANT}hello"))?;
        loop {
            let byte = wire.exactly(1)?;
            if byte == b"!" {
                return Ok(Next::Close);
            }
            wire.send(byte)?;
        }
    })
}

fn open(client: &mut Client) -> Head {
    client.send(ASK).expect("sent");
    client.wire.head().expect("an answer").expect("a head")
}

fn says(wire: &mut Wire, text: &str) {
    assert_eq!(String::from_utf8_lossy(&wire.exactly(text.len()).expect("bytes")), text);
}

#[test]
fn bytes_go_both_ways_after_a_101_and_one_line_tells_of_it() {
    let (endpoint, gapless, log) = logged(Config::new(), "");
    endpoint.set(echo());
    let mut client = Client::open(gapless.address);
    let head = open(&mut client);
    assert_eq!(head.word(1), "101");
    assert_eq!(head.all("upgrade").collect::<Vec<_>>(), ["websocket"]);
    assert_eq!(head.all("connection").collect::<Vec<_>>(), ["upgrade"]);
    assert_eq!(head.field("sec-websocket-accept"), Some("v"));
    says(&mut client.wire, "hello");
    let seen = endpoint.seen().pop().expect("a request").head;
    assert_eq!(seen.all("connection").collect::<Vec<_>>(), ["upgrade"]);
    assert_eq!(seen.all("upgrade").collect::<Vec<_>>(), ["websocket"]);
    assert_eq!(seen.field("sec-websocket-key"), Some("k"));
    for text in ["abc", "GET / HTTP/1.1\r\nhost: a\r\n\r\n", &"x".repeat(100_000)] {
        let mut writer = Client { wire: client.wire.twin() };
        let sent = text.to_owned();
        let writing = std::thread::spawn(move || writer.send(sent).expect("sent"));
        says(&mut client.wire, text);
        writing.join().expect("written");
    }
    assert!(log.lines().is_empty(), "it is not over");
    client.send("!").expect("sent");
    assert!(client.is_ended(), "the endpoint has closed");
    drop(client);
    let line = log.line_of("/ws");
    assert_eq!((&line["status"], &line["reason"]), (&101.into(), &"-".into()), "{line:#}");
    assert!(line["bytes_out"].as_u64() > line["bytes_in"].as_u64(), "{line:#}");
    assert_eq!(endpoint.seen().len(), 1);
}

#[test]
fn each_direction_ends_by_itself() {
    let (endpoint, gapless, log) = logged(Config::new(), "");
    endpoint.set(Mode::script(|_, wire| {
        wire.send(GRANT)?;
        let asked = wire.rest()?;
        wire.send(format!("{} bytes", asked.len()))?;
        Ok(Next::Close)
    }));
    let mut client = Client::open(gapless.address);
    assert_eq!(open(&mut client).word(1), "101");
    client.send("12345").expect("sent");
    client.wire.stream().shutdown(Shutdown::Write).expect("shut down");
    assert_eq!(String::from_utf8_lossy(&client.wire.rest().expect("an answer")), "5 bytes");
    assert_eq!(log.line_of("/ws")["reason"], "-");
}

#[test]
fn a_request_behind_a_refused_upgrade_stays_a_request() {
    let (endpoint, gapless, log) = logged(Config::new(), "");
    endpoint.set(Mode::script(|head, wire| {
        let body = head.word(1).to_owned();
        let status = if head.field("upgrade").is_some() { 403 } else { 200 };
        wire.send(format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{body}", body.len()))?;
        Ok(Next::Keep)
    }));
    let mut client = Client::open(gapless.address);
    client.send(format!("{ASK}GET /in/../behind HTTP/1.1\r\nhost: a\r\n\r\n")).expect("sent");
    let refused = client.answer("GET").expect("answered");
    assert_eq!((refused.status, refused.text()), (403, "/ws".to_owned()));
    assert_eq!(client.answer("GET").expect("answered").status, 200);
    let seen = endpoint.seen();
    assert_eq!(seen.len(), 2);
    assert!(seen[1].head.field("x-forwarded-for").is_some(), "it came as a request of its own");
    assert_eq!(log.line_of("/ws")["status"], 403);
}

#[test]
fn nothing_else_is_passed_on() {
    let (endpoint, gapless, _log) = logged(Config::new(), "");
    endpoint.set(echo());
    let ask = |method: &str, fields: &str| {
        let text = format!("{method} /no HTTP/1.1\r\nhost: a\r\n{fields}\r\n\r\n");
        let answer = client::raw(gapless.address, text);
        assert_eq!((answer.status, answer.text()), (200, "plain".to_owned()), "{fields}");
        let seen = endpoint.seen().pop().expect("a request").head;
        assert_eq!((seen.field("upgrade"), seen.field("connection")), (None, None), "{fields}");
    };
    ask("GET", "connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: x");
    ask("GET", "connection: upgrade\r\nupgrade: h2c, websocket");
    ask("GET", "connection: upgrade\r\nupgrade: websocket\r\nupgrade: h2c");
    ask("GET", "upgrade: websocket");
    ask("GET", "connection: upgrade\r\nupgrade: websocket/13");
    ask("DELETE", "connection: upgrade\r\nupgrade: websocket");
    let config = Config::new().route("upgrade = []");
    let (endpoint, gapless, _log) = logged(config, "");
    endpoint.set(echo());
    assert_eq!(client::raw(gapless.address, ASK).text(), "plain");
}

#[test]
fn a_101_that_nobody_asked_for_or_of_another_protocol_is_a_bad_answer() {
    let config = Config::new().route("retry = { attempts = 1 }");
    let (endpoint, gapless, log) = logged(config, "");
    endpoint.set(Mode::RawClose(GRANT.into()));
    assert_eq!(gapless.get("/unasked").verdict(), (502, Some("bad_response")));
    endpoint.set(Mode::RawClose(GRANT.replace("websocket", "h2c").into()));
    let answer = client::raw(gapless.address, ASK);
    assert_eq!(answer.verdict(), (502, Some("bad_response")));
    assert_eq!(log.line_of("/ws")["tries"][0]["outcome"], "malformed");
}

#[test]
fn a_tunnel_in_which_nothing_moves_ends() {
    let config = Config::new().route("timeouts = { tunnel = \"200ms\" }");
    let (endpoint, gapless, log) = logged(config, "");
    endpoint.set(echo());
    let mut client = Client::open(gapless.address);
    open(&mut client);
    says(&mut client.wire, "hello");
    assert!(client.is_ended());
    assert_eq!(log.line_of("/ws")["reason"], "idle");
    eventually("the endpoint's side is closed too", SOON, || endpoint.resets() == 1);
}

#[test]
fn a_verdict_of_silence_ends_tunnels_and_others_do_not() {
    let detect = "detect = { interval = \"200ms\", timeout = \"100ms\" }";
    let (endpoint, log) = (super::Endpoint::start("one"), LogFile::new());
    let other = super::Endpoint::start("two");
    let config = Config::new().tables(&log.table("")).pool(detect);
    let zones = config.zone("here/a", &[endpoint.address()]).zone("here/b", &[other.address()]);
    let gapless = super::Gapless::start_ready(&zones);
    endpoint.set(echo());
    other.set(echo());
    let mut tunnels: Vec<Client> = (0..4).map(|_| Client::open(gapless.address)).collect();
    for tunnel in &mut tunnels {
        open(tunnel);
        says(&mut tunnel.wire, "hello");
    }
    // All of them have the first zone, which is preferred.
    assert_eq!(endpoint.seen().len(), 4);
    endpoint.set_probe(Mode::Status(500));
    eventually("it is down for what it says", SOON, || gapless.state(endpoint.address()) == "down");
    tunnels[0].send("a").expect("sent");
    says(&mut tunnels[0].wire, "a");
    endpoint.set_probe(Mode::Ok);
    eventually("it is up", SOON, || gapless.state(endpoint.address()) == "up");
    endpoint.set_probe(Mode::Hang);
    assert!(tunnels.iter_mut().all(Client::is_ended), "silence ends them");
    assert_eq!(log.line_of("/ws")["reason"], "cut");
}

#[test]
fn a_stop_waits_for_tunnels_until_its_deadline() {
    let config = Config::new().tables("[shutdown]\ndrain = \"300ms\"");
    let (endpoint, mut gapless, log) = logged(config, "");
    endpoint.set(echo());
    let mut client = Client::open(gapless.address);
    open(&mut client);
    says(&mut client.wire, "hello");
    gapless.signal(Signal::TERM);
    eventually("nobody else is taken", SOON, || Client::connect(gapless.address).is_err());
    assert!(gapless.wait(SOON).success());
    assert!(client.is_ended());
    let line = log.line_of("/ws");
    assert_eq!((&line["status"], &line["reason"]), (&101.into(), &"shutdown".into()));
}

#[test]
fn a_tunnel_counts_as_a_connection_of_its_client() {
    let config = Config::new().tables("[limits]\nconnections = 2");
    let (endpoint, gapless, _log) = logged(config, "");
    endpoint.set(echo());
    let mut tunnels: Vec<Client> = (0..2).map(|_| Client::open(gapless.address)).collect();
    for tunnel in &mut tunnels {
        open(tunnel);
        says(&mut tunnel.wire, "hello");
    }
    let mut third = Client::open(gapless.address);
    let refused = third.send(ASK).and_then(|()| third.wire.head());
    assert!(!matches!(refused, Ok(Some(_))), "{refused:?}");
    drop(tunnels);
    eventually("there is room again", SOON, || {
        Client::connect(gapless.address).is_ok_and(|mut client| {
            client.exchange("GET", "/", &[], b"").is_ok_and(|answer| answer.status == 200)
        })
    });
}
