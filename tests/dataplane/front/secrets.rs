//! What nobody may read in a log, a metric or the API: a canary in each place that holds a secret, and
//! a look at everything that the program says, at its most talkative.

use std::io::Write;

use bytes::Bytes;
use tempfile::TempDir;
use tokio::net::TcpStream;

use super::http2::{ask, get, run, speak};
use crate::support::client::Client;
use crate::support::config::Config;
use crate::support::endpoint::{Endpoint, Mode};
use crate::support::instance::Gapless;
use crate::support::{SOON, eventually};

/// Part of every secret.
const CANARY: &str = "kanarienvogel";

const PAGES: [&str; 9] = [
    "/metrics",
    "/api/v1/pools",
    "/api/v1/zones",
    "/api/v1/endpoints",
    "/api/v1/incidents",
    "/api/v1/incidents.csv",
    "/api/v1/slo",
    "/api/v1/config",
    "/api/v1/explain?of=here/a&format=text",
];

fn fields() -> Vec<(&'static str, String)> {
    let names = ["authorization", "proxy-authorization", "cookie", "x-api-key", "idempotency-key"];
    names.into_iter().map(|name| (name, format!("{name}={CANARY}"))).collect()
}

fn config(endpoint: &Endpoint, access_log: &std::path::Path, more: &str) -> Config {
    let probe = format!(
        "probe = {{ http = \"/healthz\", headers = {{ authorization = \"Bearer {CANARY}\" }}{more} }}"
    );
    Config::new()
        .pool(&probe)
        .tables(&format!("[access_log]\nto = \"{}\"", access_log.display()))
        .zone("here/a", &[endpoint.address()])
}

fn over_http1(gapless: &Gapless, method: &str, query: &str) {
    let fields = fields();
    let fields: Vec<(&str, &str)> = fields.iter().map(|(name, v)| (*name, v.as_str())).collect();
    let body: &[u8] = if method == "POST" { CANARY.as_bytes() } else { b"" };
    let answer = Client::open(gapless.address).exchange(method, query, &fields, body);
    drop(answer.expect("an answer"));
}

fn over_http2(gapless: &Gapless, query: &str) {
    run(async {
        let stream = TcpStream::connect(gapless.address).await.expect("a connection");
        let (mut client, connection) = speak(stream, 1 << 20).await;
        tokio::task::spawn_local(connection);
        let mut request = get(query);
        for (name, value) in fields() {
            request.headers_mut().append(name, value.parse().expect("a value"));
        }
        let body = Bytes::from(CANARY);
        let _ = ask(&mut client, request, &body).await;
    });
}

#[test]
fn no_secret_is_written_down_or_shown() {
    let directory = TempDir::new().expect("a directory");
    let access_log = directory.path().join("access.log");
    let endpoint = Endpoint::start("one");
    let gapless = Gapless::start_talkative(&config(&endpoint, &access_log, ""));
    gapless.wait_all_up();
    let query = format!("/a?token={CANARY}&{CANARY}");
    let secret =
        format!("HTTP/1.1 200 OK\r\nset-cookie: {CANARY}\r\ncontent-length: 13\r\n\r\n{CANARY}");
    let malformed = format!("HTTP/1.1 2000 {CANARY}\r\n{CANARY}\r\n\r\n");
    for mode in [Mode::Ok, Mode::Raw(secret.into()), Mode::RawClose(malformed.into()), Mode::Close]
    {
        endpoint.set(mode);
        for method in ["GET", "POST", "CONNECT", "OPTIONS"] {
            over_http1(&gapless, method, &query);
        }
        over_http2(&gapless, &query);
    }
    // What no server understands, and what is half a request.
    for wire in [format!("GET /{CANARY} HTTP/9\r\n\r\n"), format!("{CANARY}\0\r\n\r\n")] {
        let mut client = Client::open(gapless.address);
        client.send(wire).expect("sent");
        let _ = client.answer("GET");
    }
    endpoint.set_probe(Mode::Status(500));
    eventually("a verdict", SOON, || gapless.state(endpoint.address()) == "down");
    gapless.write(&config(&endpoint, &access_log, ", intervall = 1").text());
    eventually("a refusal", SOON, || gapless.api("/api/v1/config")["refused"].is_object());
    let mut file = std::fs::OpenOptions::new().append(true).open(gapless.file()).expect("a file");
    writeln!(file, "api_token = \"{CANARY}").expect("written");
    eventually("another", SOON, || gapless.log().contains("api_token"));
    for page in PAGES {
        let text = gapless.ask(page).text();
        assert!(!text.contains(CANARY), "{page} shows it:\n{text}");
    }
    let log = gapless.log();
    assert!(log.contains("DEBUG"), "it was talkative");
    let shown: Vec<&str> = log.lines().filter(|line| line.contains(CANARY)).collect();
    assert!(shown.is_empty(), "{shown:#?}");
    let lines = std::fs::read_to_string(&access_log).expect("a log");
    let shown: Vec<&str> = lines.lines().filter(|line| line.contains(CANARY)).collect();
    // A path is no secret.
    assert!(shown.iter().all(|line| line.contains(&format!("/{CANARY}"))), "{shown:#?}");
    assert!(lines.lines().count() >= 20);
    let probes = endpoint.probes();
    assert!(probes.iter().all(|probe| probe.head.field("authorization").is_some()), "it was sent");
}
