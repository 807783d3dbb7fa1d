//! The admin listener and the status listener: what they serve, to which requests, under load.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::support::client::{self, TestClient};
use crate::support::config::ConfigBuilder;
use crate::support::endpoint::TestEndpoint;
use crate::support::instance::{BINARY, Gapless};
use crate::support::pki::{CertificateAuthority, CertificateValidity};
use crate::support::{DEFAULT_TIMEOUT, eventually};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

const OTHER_TOKEN: &str = "fedcba9876543210";

/// More than either listener serves at once.
const HALF_OPEN_CONNECTIONS: usize = 100;

/// An instance with a status listener on all addresses.
fn start_with_status(endpoint: &TestEndpoint) -> (Gapless, SocketAddr) {
    let config = ConfigBuilder::new()
        .tables("[status]\naddress = \"0.0.0.0:0\"")
        .zone("here/a", &[endpoint.address()]);
    let gapless = Gapless::start_ready(&config);
    let log = gapless.log();
    let line =
        log.lines().find(|line| line.contains("status address=")).expect("a status listener");
    let port = line.rsplit(':').next().and_then(|port| port.trim().parse().ok()).expect("a port");
    (gapless, SocketAddr::from(([127, 0, 0, 1], port)))
}

#[test]
fn status_listener_is_read_only_for_any_host() {
    let endpoint = TestEndpoint::start("one");
    let (gapless, status) = start_with_status(&endpoint);
    for path in ["/metrics", "/readyz", "/healthz", "/api/v1/status", "/api/v1/status?format=text"]
    {
        assert_eq!(client::get(status, path).status, 200, "{path}");
        assert_eq!(client::request(status, "HEAD", path, b"").status, 200, "{path}");
        for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
            assert_eq!(client::request(status, method, path, b"").status, 405, "{method} {path}");
        }
    }
    for path in ["/", "/api/v1/orders", "/api/v1/drills/1", "/api/v1/config", "/api/v1/endpoints"] {
        assert_eq!(client::get(status, path).status, 404, "{path}");
    }
    assert_eq!(client::request(status, "POST", "/api/v1/orders", b"{}").status, 405);
    let healthcheck = |admin: &str| {
        let mut command = Command::new(BINARY);
        command.args(["healthcheck", "--ready"]).env("GAPLESS_ADMIN", admin);
        command.output().expect("the program runs").status.code()
    };
    assert_eq!(healthcheck(&status.to_string()), Some(0));
    assert_eq!(healthcheck(&format!("localhost:{}", gapless.admin.port())), Some(0));
    assert_eq!(healthcheck("localhost:1"), Some(1));
}

#[test]
fn half_open_connections_starve_no_operator_listener() {
    let endpoint = TestEndpoint::start("one");
    let (gapless, status) = start_with_status(&endpoint);
    for (address, name) in [(gapless.admin, "admin"), (status, "status")] {
        let half_open: Vec<TestClient> = (0..HALF_OPEN_CONNECTIONS)
            .map(|_| {
                let mut client = TestClient::open(address);
                client.send("GET /healthz HTTP/1.1\r\nhost: loc").expect("sent");
                client
            })
            .collect();
        let started = Instant::now();
        let request = format!("GET /healthz HTTP/1.1\r\nhost: {address}\r\n\r\n");
        assert_eq!(client::send_raw(address, request).status, 200);
        // A half-open connection is cut after 10 s.
        assert!(started.elapsed() < Duration::from_secs(5), "{name}: {:?}", started.elapsed());
        let displaced = format!("gapless_admin_connections_displaced_total{{listener=\"{name}\"}}");
        assert!(gapless.metric(&displaced) >= 68.0, "{name}");
        drop(half_open);
    }
}

#[test]
fn ambiguous_admin_requests_are_refused() {
    let endpoint = TestEndpoint::start("one");
    let gapless = Gapless::start_ready(&ConfigBuilder::new().zone("here/a", &[endpoint.address()]));
    let admin = gapless.admin;
    let status = |target: &str, fields: &str| {
        client::send_raw(admin, format!("GET {target} HTTP/1.1\r\n{fields}\r\n")).status
    };
    let own = format!("host: {admin}\r\n");
    assert_eq!(status("/metrics", &own), 200);
    assert_eq!(status(&format!("http://{admin}/metrics"), &own), 200);
    for host in ["localhost:80@evil", "[::1]evil", "evil", "127.0.0.1, evil", "localhost:"] {
        assert_eq!(status("/metrics", &format!("host: {host}\r\n")), 403, "{host}");
    }
    assert_eq!(status("/metrics", &format!("{own}{own}")), 403, "two hosts");
    assert_eq!(status("http://evil.example/metrics", &own), 403, "a foreign target");
    let post = |fields: &str| {
        let body = r#"{"order":"evacuate","of":"here/b"}"#;
        let length = format!("content-length: {}\r\n", body.len());
        let head = "POST /api/v1/orders HTTP/1.1\r\n";
        client::send_raw(admin, format!("{head}{own}{length}{fields}\r\n{body}")).status
    };
    let json = "content-type: application/json\r\n";
    let origin = format!("origin: http://{admin}\r\n");
    assert_eq!(post(&format!("{json}{origin}")), 404, "there is no such zone");
    assert_eq!(post(&format!("{json}{origin}{origin}")), 403, "two origins");
    assert_eq!(post(&format!("{json}{json}")), 415, "two types");
    assert_eq!(post("content-type: application/json, text/plain\r\n"), 415);
    assert_eq!(gapless.metric("gapless_admin_refusals_total{reason=\"origin\"}"), 1.0);
}

/// An instance whose admin listener is reachable from elsewhere.
struct ProtectedAdmin {
    gapless: Gapless,
    files: TempDir,
    _endpoint: TestEndpoint,
}

impl ProtectedAdmin {
    fn start() -> Self {
        let files = TempDir::new().expect("a directory");
        let authority = CertificateAuthority::new("authority");
        let identity =
            authority.server_certificate(&["127.0.0.1", "localhost"], CertificateValidity::Current);
        for (name, text) in [
            ("ca.pem", authority.pem()),
            ("admin.pem", &identity.chain_pem),
            ("admin.key", &identity.key_pem),
            ("token", TOKEN),
            ("first", TOKEN),
            ("second", OTHER_TOKEN),
        ] {
            std::fs::write(files.path().join(name), text).expect("written");
        }
        let endpoint = TestEndpoint::start("one");
        let plain = ConfigBuilder::new().zone("here/a", &[endpoint.address()]).text();
        let at = |name: &str| files.path().join(name).display().to_string();
        let mut protected = "[admin]\naddress = \"0.0.0.0:0\"\n".to_owned();
        let (certificate, key, token) = (at("admin.pem"), at("admin.key"), at("token"));
        writeln!(protected, "tls = {{ certificate = \"{certificate}\", key = \"{key}\" }}")
            .and_then(|()| writeln!(protected, "token_file = \"{token}\""))
            .expect("text");
        let text = plain.replace("[admin]\naddress = \"127.0.0.1:0\"\n", &protected);
        assert_ne!(text, plain);
        let directory = TempDir::new().expect("a directory");
        let file = directory.path().join("gapless.toml");
        std::fs::write(&file, text).expect("written");
        let gapless = Gapless::start_with_file(directory, file);
        Self { gapless, files, _endpoint: endpoint }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    fn url(&self, scheme: &str) -> String {
        format!("{scheme}localhost:{}", self.gapless.admin.port())
    }

    fn run(&self, admin: &str, more: &[&str]) -> Output {
        let mut command = Command::new(BINARY);
        command.args(["status", "--admin", admin]).args(more);
        command.output().expect("the program runs")
    }

    fn run_with_token(&self, token: &str) -> Output {
        let (ca, token) = (self.file("ca.pem"), self.file(token));
        let (ca, token) = (ca.to_str().expect("text"), token.to_str().expect("text"));
        let more = ["--admin-ca", ca, "--admin-token-file", token];
        self.run(&self.url("https://"), &more)
    }
}

#[test]
fn reachable_admin_listener_needs_tls_and_token() {
    let admin = ProtectedAdmin::start();
    let output = admin.run_with_token("token");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("pool web"), "{output:?}");
    let error_of = |output: Output| {
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(error_of(admin.run_with_token("second")).contains("token is missing or wrong"));
    let ca = admin.file("ca.pem");
    let ca = ["--admin-ca", ca.to_str().expect("text")];
    assert!(error_of(admin.run(&admin.url("https://"), &ca)).contains("token is missing"));
    assert!(error_of(admin.run(&admin.url("https://"), &[])).contains("certificate"));
    error_of(admin.run(&admin.url(""), &[]));
}

#[test]
fn changed_token_applies_without_a_restart() {
    let admin = ProtectedAdmin::start();
    let is_accepted = |token: &str| admin.run_with_token(token).status.success();
    assert!(is_accepted("first") && !is_accepted("second"));
    std::fs::write(admin.file("token"), OTHER_TOKEN).expect("written");
    eventually("the new token applies", DEFAULT_TIMEOUT, || is_accepted("second"));
    assert!(!is_accepted("first"), "the old token is worth nothing");
    let log = admin.gapless.log();
    assert!(!log.contains(OTHER_TOKEN) && !log.contains(TOKEN), "{log}");
}

#[test]
fn status_listener_passes_to_the_upgraded_process() {
    let endpoint = TestEndpoint::start("one");
    let (gapless, status) = start_with_status(&endpoint);
    gapless.upgrade();
    gapless.wait_for_single_process(4 * DEFAULT_TIMEOUT);
    assert_eq!(client::get(status, "/readyz").status, 200);
}

#[test]
fn instance_without_pools_is_ready() {
    let routes = "[[route]]\npath = \"/old\"\nredirect = { path = \"/new\" }\n\
                  [[route]]\nrespond = { status = 200, body = \"hello\" }\n";
    let listen = "[admin]\naddress = \"127.0.0.1:0\"\n[[listen]]\naddress = \"127.0.0.1:0\"\n";
    let directory = TempDir::new().expect("a directory");
    let file = directory.path().join("gapless.toml");
    std::fs::write(&file, format!("{listen}{routes}")).expect("written");
    let gapless = Gapless::start_with_file(directory, file);
    let ready = gapless.admin_get("/readyz");
    assert_eq!((ready.status, ready.text().as_str()), (200, "ready\n"));
    assert_eq!(gapless.get("/").status, 200);
}
