//! WebSocket tunnels after a 101 of the endpoint.

use std::net::Shutdown;

use rustix::process::Signal;

use super::{AccessLogFile, start_with_access_log};
use crate::support::client::{self, TestClient};
use crate::support::config::ConfigBuilder;
use crate::support::endpoint::{ConnectionAction, ResponseMode};
use crate::support::wire::{MessageHead, WireStream};
use crate::support::{DEFAULT_TIMEOUT, eventually};

const UPGRADE_REQUEST: &str = "GET /ws HTTP/1.1\r\nhost: a\r\nconnection: keep-alive, Upgrade\r\n\
                   upgrade: WebSocket\r\nsec-websocket-key: k\r\nsec-websocket-version: 13\r\n\r\n";

const SWITCHING_PROTOCOLS: &str = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\n\
                     upgrade: websocket\r\nsec-websocket-accept: v\r\n\r\n";

/// Accepts the upgrade, sends a greeting, and echoes until the end.
fn echo() -> ResponseMode {
    ResponseMode::script(|head, wire| {
        if head.field("upgrade").is_none() {
            wire.send("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nplain")?;
            return Ok(ConnectionAction::Keep);
        }
        wire.send(format!("{SWITCHING_PROTOCOLS}hello"))?;
        loop {
            let byte = wire.read_exact(1)?;
            if byte == b"!" {
                return Ok(ConnectionAction::Close);
            }
            wire.send(byte)?;
        }
    })
}

fn open_tunnel(client: &mut TestClient) -> MessageHead {
    client.send(UPGRADE_REQUEST).expect("sent");
    client.wire.read_head().expect("an answer").expect("a head")
}

fn assert_receives(wire: &mut WireStream, text: &str) {
    assert_eq!(String::from_utf8_lossy(&wire.read_exact(text.len()).expect("bytes")), text);
}

#[test]
fn tunnel_carries_both_directions_and_logs_one_line() {
    let (endpoint, gapless, log) = start_with_access_log(ConfigBuilder::new(), "");
    endpoint.set_mode(echo());
    let mut client = TestClient::open(gapless.address);
    let head = open_tunnel(&mut client);
    assert_eq!(head.start_line_word(1), "101");
    assert_eq!(head.field_values("upgrade").collect::<Vec<_>>(), ["websocket"]);
    assert_eq!(head.field_values("connection").collect::<Vec<_>>(), ["upgrade"]);
    assert_eq!(head.field("sec-websocket-accept"), Some("v"));
    assert_receives(&mut client.wire, "hello");
    let seen = endpoint.requests().pop().expect("a request").head;
    assert_eq!(seen.field_values("connection").collect::<Vec<_>>(), ["upgrade"]);
    assert_eq!(seen.field_values("upgrade").collect::<Vec<_>>(), ["websocket"]);
    assert_eq!(seen.field("sec-websocket-key"), Some("k"));
    for text in ["abc", "GET / HTTP/1.1\r\nhost: a\r\n\r\n", &"x".repeat(100_000)] {
        let mut writer = TestClient { wire: client.wire.shared_handle() };
        let sent = text.to_owned();
        let writing = std::thread::spawn(move || writer.send(sent).expect("sent"));
        assert_receives(&mut client.wire, text);
        writing.join().expect("written");
    }
    assert!(log.lines().is_empty(), "it is not over");
    client.send("!").expect("sent");
    assert!(client.is_closed_by_server(), "the endpoint has closed");
    drop(client);
    let line = log.wait_for_line("/ws");
    assert_eq!((&line["status"], &line["reason"]), (&101.into(), &"-".into()), "{line:#}");
    assert!(line["bytes_out"].as_u64() > line["bytes_in"].as_u64(), "{line:#}");
    assert_eq!(endpoint.requests().len(), 1);
}

#[test]
fn tunnel_directions_close_independently() {
    let (endpoint, gapless, log) = start_with_access_log(ConfigBuilder::new(), "");
    endpoint.set_mode(ResponseMode::script(|_, wire| {
        wire.send(SWITCHING_PROTOCOLS)?;
        let received = wire.read_to_end()?;
        wire.send(format!("{} bytes", received.len()))?;
        Ok(ConnectionAction::Close)
    }));
    let mut client = TestClient::open(gapless.address);
    assert_eq!(open_tunnel(&mut client).start_line_word(1), "101");
    client.send("12345").expect("sent");
    client.wire.stream().shutdown(Shutdown::Write).expect("shut down");
    assert_eq!(String::from_utf8_lossy(&client.wire.read_to_end().expect("an answer")), "5 bytes");
    assert_eq!(log.wait_for_line("/ws")["reason"], "-");
}

#[test]
fn request_after_refused_upgrade_is_a_normal_request() {
    let (endpoint, gapless, log) = start_with_access_log(ConfigBuilder::new(), "");
    endpoint.set_mode(ResponseMode::script(|head, wire| {
        let body = head.start_line_word(1).to_owned();
        let status = if head.field("upgrade").is_some() { 403 } else { 200 };
        wire.send(format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{body}", body.len()))?;
        Ok(ConnectionAction::Keep)
    }));
    let mut client = TestClient::open(gapless.address);
    client
        .send(format!("{UPGRADE_REQUEST}GET /in/../behind HTTP/1.1\r\nhost: a\r\n\r\n"))
        .expect("sent");
    let refused = client.read_response("GET").expect("answered");
    assert_eq!((refused.status, refused.text()), (403, "/ws".to_owned()));
    assert_eq!(client.read_response("GET").expect("answered").status, 200);
    let seen = endpoint.requests();
    assert_eq!(seen.len(), 2);
    assert!(seen[1].head.field("x-forwarded-for").is_some(), "it came as a request of its own");
    assert_eq!(log.wait_for_line("/ws")["status"], 403);
}

#[test]
fn unsupported_upgrades_are_not_forwarded() {
    let (endpoint, gapless, _log) = start_with_access_log(ConfigBuilder::new(), "");
    endpoint.set_mode(echo());
    let assert_not_upgraded = |method: &str, fields: &str| {
        let text = format!("{method} /no HTTP/1.1\r\nhost: a\r\n{fields}\r\n\r\n");
        let answer = client::send_raw(gapless.address, text);
        assert_eq!((answer.status, answer.text()), (200, "plain".to_owned()), "{fields}");
        let seen = endpoint.requests().pop().expect("a request").head;
        assert_eq!((seen.field("upgrade"), seen.field("connection")), (None, None), "{fields}");
    };
    assert_not_upgraded(
        "GET",
        "connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: x",
    );
    assert_not_upgraded("GET", "connection: upgrade\r\nupgrade: h2c, websocket");
    assert_not_upgraded("GET", "connection: upgrade\r\nupgrade: websocket\r\nupgrade: h2c");
    assert_not_upgraded("GET", "upgrade: websocket");
    assert_not_upgraded("GET", "connection: upgrade\r\nupgrade: websocket/13");
    assert_not_upgraded("DELETE", "connection: upgrade\r\nupgrade: websocket");
    let config = ConfigBuilder::new().route("upgrade = []");
    let (endpoint, gapless, _log) = start_with_access_log(config, "");
    endpoint.set_mode(echo());
    assert_eq!(client::send_raw(gapless.address, UPGRADE_REQUEST).text(), "plain");
}

#[test]
fn unrequested_or_mismatched_101_is_a_bad_response() {
    let config = ConfigBuilder::new().route("retry = { attempts = 1 }");
    let (endpoint, gapless, log) = start_with_access_log(config, "");
    endpoint.set_mode(ResponseMode::RawClose(SWITCHING_PROTOCOLS.into()));
    assert_eq!(gapless.get("/unasked").status_and_reason(), (502, Some("bad_response")));
    endpoint
        .set_mode(ResponseMode::RawClose(SWITCHING_PROTOCOLS.replace("websocket", "h2c").into()));
    let answer = client::send_raw(gapless.address, UPGRADE_REQUEST);
    assert_eq!(answer.status_and_reason(), (502, Some("bad_response")));
    assert_eq!(log.wait_for_line("/ws")["tries"][0]["outcome"], "malformed");
}

#[test]
fn idle_tunnel_is_closed() {
    let config = ConfigBuilder::new().route("timeouts = { tunnel = \"200ms\" }");
    let (endpoint, gapless, log) = start_with_access_log(config, "");
    endpoint.set_mode(echo());
    let mut client = TestClient::open(gapless.address);
    open_tunnel(&mut client);
    assert_receives(&mut client.wire, "hello");
    assert!(client.is_closed_by_server());
    assert_eq!(log.wait_for_line("/ws")["reason"], "idle");
    eventually("the endpoint's side is closed too", DEFAULT_TIMEOUT, || {
        endpoint.reset_count() == 1
    });
}

#[test]
fn silent_verdict_cuts_tunnels_but_other_verdicts_do_not() {
    let detect = "detect = { interval = \"200ms\", timeout = \"100ms\" }";
    let (endpoint, log) = (super::TestEndpoint::start("one"), AccessLogFile::new());
    let other = super::TestEndpoint::start("two");
    let config = ConfigBuilder::new().tables(&log.config_table("")).pool(detect);
    let zones = config.zone("here/a", &[endpoint.address()]).zone("here/b", &[other.address()]);
    let gapless = super::Gapless::start_ready(&zones);
    endpoint.set_mode(echo());
    other.set_mode(echo());
    let mut tunnels: Vec<TestClient> = (0..4).map(|_| TestClient::open(gapless.address)).collect();
    for tunnel in &mut tunnels {
        open_tunnel(tunnel);
        assert_receives(&mut tunnel.wire, "hello");
    }
    // All tunnels are in the preferred zone.
    assert_eq!(endpoint.requests().len(), 4);
    endpoint.set_probe_mode(ResponseMode::Status(500));
    eventually("it is down for what it says", DEFAULT_TIMEOUT, || {
        gapless.endpoint_state(endpoint.address()) == "down"
    });
    tunnels[0].send("a").expect("sent");
    assert_receives(&mut tunnels[0].wire, "a");
    endpoint.set_probe_mode(ResponseMode::Ok);
    eventually("it is up", DEFAULT_TIMEOUT, || gapless.endpoint_state(endpoint.address()) == "up");
    endpoint.set_probe_mode(ResponseMode::Hang);
    assert!(tunnels.iter_mut().all(TestClient::is_closed_by_server), "silence ends them");
    assert_eq!(log.wait_for_line("/ws")["reason"], "cut");
}

#[test]
fn shutdown_waits_for_tunnels_until_drain_deadline() {
    let config = ConfigBuilder::new().tables("[shutdown]\ndrain = \"300ms\"");
    let (endpoint, mut gapless, log) = start_with_access_log(config, "");
    endpoint.set_mode(echo());
    let mut client = TestClient::open(gapless.address);
    open_tunnel(&mut client);
    assert_receives(&mut client.wire, "hello");
    gapless.signal(Signal::TERM);
    eventually("no further tunnel is accepted", DEFAULT_TIMEOUT, || {
        TestClient::connect(gapless.address).is_err()
    });
    assert!(gapless.wait_for_exit(DEFAULT_TIMEOUT).success());
    assert!(client.is_closed_by_server());
    let line = log.wait_for_line("/ws");
    assert_eq!((&line["status"], &line["reason"]), (&101.into(), &"shutdown".into()));
}

#[test]
fn tunnel_counts_toward_connection_limit() {
    let config = ConfigBuilder::new().tables("[limits]\nconnections = 2");
    let (endpoint, gapless, _log) = start_with_access_log(config, "");
    endpoint.set_mode(echo());
    let mut tunnels: Vec<TestClient> = (0..2).map(|_| TestClient::open(gapless.address)).collect();
    for tunnel in &mut tunnels {
        open_tunnel(tunnel);
        assert_receives(&mut tunnel.wire, "hello");
    }
    // The reset may come while the connection is still being set up.
    let refused = TestClient::connect(gapless.address).and_then(|mut third| {
        third.send(UPGRADE_REQUEST)?;
        third.wire.read_head()
    });
    assert!(!matches!(refused, Ok(Some(_))), "{refused:?}");
    drop(tunnels);
    eventually("there is room again", DEFAULT_TIMEOUT, || {
        TestClient::connect(gapless.address).is_ok_and(|mut client| {
            client.exchange("GET", "/", &[], b"").is_ok_and(|answer| answer.status == 200)
        })
    });
}
