//! The content of access-log lines.

use serde_json::Value;

use super::start_with_access_log;
use crate::support::DEFAULT_TIMEOUT;
use crate::support::client::{self, TestClient};
use crate::support::config::ConfigBuilder;
use crate::support::eventually;

#[test]
fn successful_request_logs_one_complete_line() {
    let config = ConfigBuilder::new().route("name = \"all\"");
    let (endpoint, gapless, log) =
        start_with_access_log(config, "headers = [\"x-tenant\", \"x-none\"]");
    let fields = [
        ("user-agent", "ua/1 \"quoted\""),
        ("x-tenant", "t1"),
        ("authorization", "Bearer canary"),
        ("cookie", "session=canary"),
    ];
    let mut client = TestClient::open(gapless.address);
    let answer = client.exchange("POST", "/a?token=canary&b=", &fields, b"four").expect("answered");
    assert_eq!(answer.status, 200);
    let line = log.wait_for_line("/a?token=*&b=");
    let expected = [
        ("client", "127.0.0.1"),
        ("method", "POST"),
        ("scheme", "http"),
        ("host", "test.example"),
        ("protocol", "HTTP/1.1"),
        ("route", "all"),
        ("pool", "web"),
        ("zone", "here/a"),
        ("reason", "-"),
        ("user_agent", "ua/1 \"quoted\""),
        ("endpoint", &endpoint.address().to_string()),
    ];
    for (key, value) in expected {
        assert_eq!(line[key], value, "{key} in {line:#}");
    }
    for (key, value) in [("status", 200), ("bytes_in", 4), ("bytes_out", 3), ("attempts", 1)] {
        assert_eq!(line[key], value, "{key} in {line:#}");
    }
    assert_eq!(line["headers"]["x-tenant"], "t1");
    assert_eq!(line["headers"]["x-none"], Value::Null);
    assert_eq!((&line["tls_version"], &line["sni"]), (&Value::Null, &Value::Null));
    assert_eq!(line["tries"][0]["outcome"], "200");
    assert_eq!(line["tries"].as_array().map(Vec::len), Some(1));
    let ms = |key: &str| line[key].as_f64().expect("a number");
    assert!(ms("duration_ms") >= ms("first_byte_ms") && ms("first_byte_ms") > 0.0, "{line:#}");
    let time = line["time"].as_str().expect("text");
    assert!(time.len() == 24 && time.ends_with('Z') && time.starts_with("20"), "{time}");
    assert!(log.lines().iter().all(|line| !line.contains("canary")), "a secret was written down");
}

#[test]
fn direct_response_logs_route_but_no_pool() {
    let direct_response_routes = "[[route]]\nname = \"moved\"\npath = \"/moved\"\nredirect = { path = \"/here\" }\n\
               [[route]]\nname = \"sorry\"\npath = \"/sorry\"\nrespond = { status = 503 }";
    let (_endpoint, gapless, log) =
        start_with_access_log(ConfigBuilder::new().tables(direct_response_routes), "");
    let mut client = TestClient::open(gapless.address);
    for (path, route) in [("/moved", "moved"), ("/sorry", "sorry")] {
        client.exchange("GET", path, &[], b"").expect("answered");
        let line = log.wait_for_line(path);
        assert_eq!(
            (&line["route"], &line["pool"]),
            (&Value::from(route), &Value::Null),
            "{line:#}"
        );
    }
}

#[test]
fn each_request_on_a_connection_logs_one_line() {
    let (_endpoint, gapless, log) =
        start_with_access_log(ConfigBuilder::new(), "redact_query = false");
    let mut client = TestClient::open(gapless.address);
    for index in 0..20 {
        client.get(&format!("/n?i={index}"));
        client.exchange("HEAD", "/head", &[], b"").expect("answered");
    }
    for index in 0..20 {
        let line = log.wait_for_line(&format!("/n?i={index}"));
        assert_eq!((&line["reason"], &line["status"]), (&Value::from("-"), &Value::from(200)));
    }
    eventually("every HEAD", DEFAULT_TIMEOUT, || log.lines_for_path("/head").len() == 20);
    assert!(log.lines_for_path("/head").iter().all(|line| line["reason"] == "-"));
    assert_eq!(log.lines().len(), 40);
    assert_eq!(gapless.metric("gapless_access_log_lines_dropped_total"), 0.0);
}

#[test]
fn hostile_bytes_stay_inside_their_log_string() {
    let (_endpoint, gapless, log) =
        start_with_access_log(ConfigBuilder::new(), "headers = [\"x-evil\", \"referer\"]");
    let hostile_value = b"\xff\xfe\"},{\"a\":\x80\t\\u0000\\ \xc2\x9b[2J\xf0\x9f\x98\x80";
    let mut bytes = b"GET /evil HTTP/1.1\r\nhost: a.example\r\nx-evil: ".to_vec();
    bytes.extend_from_slice(hostile_value);
    bytes.extend_from_slice(b"\r\nuser-agent: ");
    bytes.extend_from_slice(&vec![b'"'; 4_000]);
    bytes.extend_from_slice(b"\r\nreferer: https://u:canary@a.example/x?k=canary\r\n\r\n");
    client::send_raw(gapless.address, bytes);
    let line = log.wait_for_line("/evil");
    let shown = line["headers"]["x-evil"].as_str().expect("text");
    assert!(shown.starts_with("\u{fffd}\u{fffd}\"},{\"a\":\u{fffd}"), "{shown:?}");
    assert_eq!(line["headers"]["referer"], "https://a.example/x?k=*");
    let agent = line["user_agent"].as_str().expect("text");
    assert!(agent.len() < 1_000 && agent.ends_with('…'), "{agent}");
    let text = log.lines().join("\n");
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
    let long = format!("/long/{}", "x".repeat(20_000));
    client::get(gapless.address, &long);
    let is_shortened_line = |line: &String| line.contains("/long/xxx") && line.len() < 4_000;
    eventually("a line of what is long", DEFAULT_TIMEOUT, || {
        log.lines().iter().any(is_shortened_line)
    });
}

#[test]
fn combined_format_is_readable_by_common_tools() {
    let (_endpoint, gapless, log) =
        start_with_access_log(ConfigBuilder::new(), "format = \"combined\"");
    let fields = [("user-agent", "a \"b\" \\c"), ("referer", "http://r.example/?q=canary")];
    let mut client = TestClient::open(gapless.address);
    client.exchange("GET", "/c?d=canary", &fields, b"").expect("answered");
    eventually("a line", DEFAULT_TIMEOUT, || !log.lines().is_empty());
    let line = log.lines().swap_remove(0);
    let rest = line.strip_prefix("127.0.0.1 - - [").expect("who and when");
    let (time, rest) = rest.split_once("] ").expect("when");
    assert!(time.len() == 26 && time.ends_with(" +0000"), "{time}");
    let expected = "\"GET /c?d=* HTTP/1.1\" 200 3 \"http://r.example/?q=*\" \
                    \"a \\x22b\\x22 \\x5cc\"";
    assert_eq!(rest, expected);
}
