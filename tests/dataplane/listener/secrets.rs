//! Secrets appear in no log, metric or API: a canary is in each place that holds a secret, and the
//! test reads all output at the most verbose level.

use std::io::Write;

use bytes::Bytes;
use tempfile::TempDir;
use tokio::net::TcpStream;

use super::http2::{block_on_local, get_request, handshake_http2, send_request};
use crate::support::client::TestClient;
use crate::support::config::ConfigBuilder;
use crate::support::endpoint::{ResponseMode, TestEndpoint};
use crate::support::instance::Gapless;
use crate::support::{DEFAULT_TIMEOUT, eventually};

/// Part of every secret.
const CANARY: &str = "kanarienvogel";

const ADMIN_PATHS: [&str; 9] = [
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

fn secret_fields() -> Vec<(&'static str, String)> {
    let names = ["authorization", "proxy-authorization", "cookie", "x-api-key", "idempotency-key"];
    names.into_iter().map(|name| (name, format!("{name}={CANARY}"))).collect()
}

fn config_with_secrets(
    endpoint: &TestEndpoint,
    access_log: &std::path::Path,
    more: &str,
) -> ConfigBuilder {
    let probe = format!(
        "probe = {{ http = \"/healthz\", headers = {{ authorization = \"Bearer {CANARY}\" }}{more} }}"
    );
    ConfigBuilder::new()
        .pool(&probe)
        .tables(&format!("[access_log]\nto = \"{}\"", access_log.display()))
        .zone("here/a", &[endpoint.address()])
}

fn send_over_http1(gapless: &Gapless, method: &str, query: &str) {
    let fields = secret_fields();
    let fields: Vec<(&str, &str)> = fields.iter().map(|(name, v)| (*name, v.as_str())).collect();
    let body: &[u8] = if method == "POST" { CANARY.as_bytes() } else { b"" };
    let answer = TestClient::open(gapless.address).exchange(method, query, &fields, body);
    drop(answer.expect("an answer"));
}

fn send_over_http2(gapless: &Gapless, query: &str) {
    block_on_local(async {
        let stream = TcpStream::connect(gapless.address).await.expect("a connection");
        let (mut client, connection) = handshake_http2(stream, 1 << 20).await;
        tokio::task::spawn_local(connection);
        let mut request = get_request(query);
        for (name, value) in secret_fields() {
            request.headers_mut().append(name, value.parse().expect("a value"));
        }
        let body = Bytes::from(CANARY);
        let _ = send_request(&mut client, request, &body).await;
    });
}

#[test]
fn secrets_never_appear_in_logs_metrics_or_api() {
    let directory = TempDir::new().expect("a directory");
    let access_log = directory.path().join("access.log");
    let endpoint = TestEndpoint::start("one");
    let gapless = Gapless::start_verbose(&config_with_secrets(&endpoint, &access_log, ""));
    gapless.wait_all_up();
    let query = format!("/a?token={CANARY}&{CANARY}");
    let secret =
        format!("HTTP/1.1 200 OK\r\nset-cookie: {CANARY}\r\ncontent-length: 13\r\n\r\n{CANARY}");
    let malformed = format!("HTTP/1.1 2000 {CANARY}\r\n{CANARY}\r\n\r\n");
    for mode in [
        ResponseMode::Ok,
        ResponseMode::Raw(secret.into()),
        ResponseMode::RawClose(malformed.into()),
        ResponseMode::Close,
    ] {
        endpoint.set_mode(mode);
        for method in ["GET", "POST", "CONNECT", "OPTIONS"] {
            send_over_http1(&gapless, method, &query);
        }
        send_over_http2(&gapless, &query);
    }
    // Bytes that are no HTTP, and half a request.
    for wire in [format!("GET /{CANARY} HTTP/9\r\n\r\n"), format!("{CANARY}\0\r\n\r\n")] {
        let mut client = TestClient::open(gapless.address);
        client.send(wire).expect("sent");
        let _ = client.read_response("GET");
    }
    endpoint.set_probe_mode(ResponseMode::Status(500));
    eventually("a verdict", DEFAULT_TIMEOUT, || {
        gapless.endpoint_state(endpoint.address()) == "down"
    });
    gapless.write_config(&config_with_secrets(&endpoint, &access_log, ", intervall = 1").text());
    eventually("a refusal", DEFAULT_TIMEOUT, || {
        gapless.api_json("/api/v1/config")["refused"].is_object()
    });
    let mut file =
        std::fs::OpenOptions::new().append(true).open(gapless.config_file()).expect("a file");
    writeln!(file, "api_token = \"{CANARY}").expect("written");
    eventually("another", DEFAULT_TIMEOUT, || gapless.log().contains("api_token"));
    for path in ADMIN_PATHS {
        let text = gapless.admin_get(path).text();
        assert!(!text.contains(CANARY), "{path} shows it:\n{text}");
    }
    let log = gapless.log();
    assert!(log.contains("DEBUG"), "it was talkative");
    let leaks: Vec<&str> = log.lines().filter(|line| line.contains(CANARY)).collect();
    assert!(leaks.is_empty(), "{leaks:#?}");
    let lines = std::fs::read_to_string(&access_log).expect("a log");
    let leaks: Vec<&str> = lines.lines().filter(|line| line.contains(CANARY)).collect();
    // A path is no secret.
    assert!(leaks.iter().all(|line| line.contains(&format!("/{CANARY}"))), "{leaks:#?}");
    assert!(lines.lines().count() >= 20);
    let probes = endpoint.probes();
    assert!(probes.iter().all(|probe| probe.head.field("authorization").is_some()), "it was sent");
}
