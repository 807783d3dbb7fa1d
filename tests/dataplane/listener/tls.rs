//! TLS handshakes: names, versions, client certificates, tickets, slow and broken clients.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use rustls::client::Resumption;
use rustls::{CertificateError, Error};
use tempfile::TempDir;

use super::tls_client::{
    TLS12_AND_TLS13, TLS12_ONLY, TlsTestClient, certificate_der, client_config,
    default_client_config,
};
use super::{
    config_text, start_cleartext, start_tls, start_with_files, tls_listener_table, write_identity,
};
use crate::support::client::TestClient;
use crate::support::config::ConfigBuilder;
use crate::support::endpoint::{ResponseMode, TestEndpoint};
use crate::support::instance::Gapless;
use crate::support::pki::{CertificateAuthority, CertificateValidity};
use crate::support::{DEFAULT_TIMEOUT, eventually};

const CLIENT_CERT_FIELD: &str = "x-forwarded-client-cert";

fn is_wrong_name(error: &io::Error) -> bool {
    let error = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    matches!(
        error,
        Some(Error::InvalidCertificate(CertificateError::NotValidForNameContext { .. }))
    )
}

#[test]
fn sni_selects_the_certificate() {
    let authority = CertificateAuthority::new("authority");
    let endpoint = TestEndpoint::start("one");
    let directory = TempDir::new().expect("a directory");
    let issue = |names: &[&str]| authority.server_certificate(names, CertificateValidity::Current);
    let (a, b, c) =
        (issue(&["a.example"]), issue(&["b.example", "*.b.example"]), issue(&["c.b.example"]));
    for (name, identity) in [("a", &a), ("b", &b), ("c", &c)] {
        write_identity(directory.path(), name, identity);
    }
    let listener = tls_listener_table(&["a", "b", "c"], "");
    let gapless =
        start_with_files(directory, &config_text(&ConfigBuilder::new(), &endpoint, &listener));
    let client = default_client_config(&authority);
    let connect = |name: &str| TlsTestClient::connect(gapless.address, name, &client);
    let served_certificate =
        |name: &str| connect(name).expect("a good certificate").peer_certificate();
    assert_eq!(served_certificate("a.example"), certificate_der(&a));
    assert_eq!(served_certificate("B.example"), certificate_der(&b));
    assert_eq!(served_certificate("x.b.example"), certificate_der(&b), "a wildcard");
    assert_eq!(
        served_certificate("c.b.example"),
        certificate_der(&c),
        "what is exact comes before a wildcard"
    );
    for name in ["x.y.b.example", "other.example", "127.0.0.1"] {
        let error = connect(name).expect_err("the first certificate is for another name");
        assert!(is_wrong_name(&error), "{name}: {error}");
    }
}

#[test]
fn requests_over_tls_pass_with_forwarded_proto_https() {
    let (endpoint, gapless, authority) = start_tls(&ConfigBuilder::new(), "");
    let big: String = "0123456789abcdef".repeat(64 * 1024);
    endpoint.set_mode(ResponseMode::Body(big.clone()));
    for versions in [TLS12_AND_TLS13, TLS12_ONLY] {
        let client = client_config(&authority, None, &[], versions);
        let mut connection =
            TlsTestClient::connect(gapless.address, "a.example", &client).expect("shaken");
        for _ in 0..3 {
            let answer = connection.exchange("", big.as_bytes()).expect("an answer");
            assert_eq!((answer.status, answer.body.len()), (200, big.len()));
        }
    }
    let seen = endpoint.requests();
    assert_eq!(seen.len(), 6);
    for request in &seen {
        assert_eq!(request.head.field("x-forwarded-proto"), Some("https"));
        assert_eq!(request.body.len(), big.len());
    }
}

#[test]
fn access_log_has_tls_version_and_sni() {
    let log = TempDir::new().expect("a directory");
    let file = log.path().join("access.log");
    let table = format!("[access_log]\nto = \"{}\"", file.display());
    let (_endpoint, gapless, authority) = start_tls(&ConfigBuilder::new().tables(&table), "");
    for (versions, version) in [(TLS12_ONLY, "TLSv1.2"), (TLS12_AND_TLS13, "TLSv1.3")] {
        let client = client_config(&authority, None, &[], versions);
        let mut connection =
            TlsTestClient::connect(gapless.address, "A.example", &client).expect("shaken");
        assert_eq!(connection.request_status(""), 200);
        let expected = format!("\"tls_version\":\"{version}\",\"sni\":\"a.example\"");
        let is_logged =
            || std::fs::read_to_string(&file).is_ok_and(|lines| lines.contains(&expected));
        eventually("the line", DEFAULT_TIMEOUT, is_logged);
    }
}

#[test]
fn tls12_is_rejected_when_min_version_is_tls13() {
    let (_endpoint, gapless, authority) = start_tls(&ConfigBuilder::new(), "min_version = \"1.3\"");
    let tls12_client = client_config(&authority, None, &[], TLS12_ONLY);
    TlsTestClient::connect(gapless.address, "a.example", &tls12_client).expect_err("TLS 1.2");
    let mut tls13_connection =
        TlsTestClient::connect(gapless.address, "a.example", &default_client_config(&authority))
            .expect("1.3");
    assert_eq!(tls13_connection.request_status(""), 200);
    let samples = ["failed", "ok"];
    let counted = samples.map(|result| {
        gapless.metric(&format!("gapless_tls_handshakes_total{{result=\"{result}\"}}"))
    });
    assert_eq!(counted, [1.0, 1.0]);
}

#[test]
fn alpn_selects_an_offered_protocol_or_fails() {
    let (_endpoint, gapless, authority) = start_tls(&ConfigBuilder::new(), "");
    let connect = |alpn: &[&str]| {
        TlsTestClient::connect(
            gapless.address,
            "a.example",
            &client_config(&authority, None, alpn, TLS12_AND_TLS13),
        )
    };
    assert_eq!(connect(&["h2", "http/1.1"]).expect("shaken").alpn(), Some(&b"h2"[..]));
    assert_eq!(connect(&["http/1.1"]).expect("shaken").alpn(), Some(&b"http/1.1"[..]));
    assert_eq!(connect(&[]).expect("shaken").alpn(), None);
    connect(&["ftp"]).expect_err("nothing in common");
}

/// The response status, or `None` without a response: with TLS 1.3 a client learns that
/// its certificate is refused only after its own side of the handshake.
fn response_status(
    gapless: &Gapless,
    client: &Arc<rustls::ClientConfig>,
    fields: &str,
) -> Option<u16> {
    let mut connection = TlsTestClient::connect(gapless.address, "a.example", client).ok()?;
    connection.exchange(fields, b"").ok().map(|answer| answer.status)
}

const FORGED_CLIENT_CERT: &str = "x-forwarded-client-cert: Hash=00;Subject=\"CN=root\"\r\n\
                      X-Forwarded-Client-Cert: By=me\r\n";

#[test]
fn required_client_certificate_is_verified_and_forwarded() {
    let (endpoint, gapless, authority) = start_tls(&ConfigBuilder::new(), "client_ca = \"ca.pem\"");
    let trusted = authority.client_certificate("client.example");
    let untrusted = CertificateAuthority::new("stranger").client_certificate("client.example");
    for versions in [TLS12_AND_TLS13, TLS12_ONLY] {
        let client = |identity| client_config(&authority, identity, &[], versions);
        assert_eq!(response_status(&gapless, &client(None), ""), None);
        assert_eq!(response_status(&gapless, &client(Some(&untrusted)), ""), None);
        assert_eq!(endpoint.requests().len(), 0);
    }
    assert_eq!(
        response_status(
            &gapless,
            &client_config(&authority, Some(&trusted), &[], TLS12_AND_TLS13),
            FORGED_CLIENT_CERT
        ),
        Some(200)
    );
    let seen = endpoint.requests();
    let values: Vec<_> = seen[0].head.field_values(CLIENT_CERT_FIELD).collect();
    let [value] = values[..] else { panic!("{values:?}") };
    let (hash, rest) = value.split_once(';').expect("several parts");
    let hash = hash.strip_prefix("Hash=").expect("a hash");
    assert!(hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit()), "{hash}");
    assert_eq!(rest, "Subject=\"CN=rcgen self signed cert\";DNS=client.example");
}

#[test]
fn optional_client_certificate_is_verified_if_present() {
    let lines = "client_ca = \"ca.pem\"\nclient_auth = \"optional\"";
    let (endpoint, gapless, authority) = start_tls(&ConfigBuilder::new(), lines);
    let untrusted = CertificateAuthority::new("stranger").client_certificate("client.example");
    let trusted = authority.client_certificate("client.example");
    let client = |identity| client_config(&authority, identity, &[], TLS12_AND_TLS13);
    assert_eq!(response_status(&gapless, &client(Some(&untrusted)), ""), None);
    assert_eq!(response_status(&gapless, &client(None), FORGED_CLIENT_CERT), Some(200));
    assert_eq!(response_status(&gapless, &client(Some(&trusted)), ""), Some(200));
    let seen = endpoint.requests();
    assert_eq!(seen[0].head.field(CLIENT_CERT_FIELD), None);
    assert!(seen[1].head.field(CLIENT_CERT_FIELD).is_some());
}

#[test]
fn forged_client_cert_field_in_cleartext_is_dropped() {
    let (endpoint, gapless) = start_cleartext(&ConfigBuilder::new(), "");
    let mut client = TestClient::open(gapless.address);
    let answer =
        client.exchange("GET", "/", &[(CLIENT_CERT_FIELD, "Hash=00")], b"").expect("an answer");
    assert_eq!(answer.status, 200);
    assert_eq!(endpoint.requests()[0].head.field(CLIENT_CERT_FIELD), None);
}

/// The number of these connections that resumed a session; each sends one request.
fn count_resumed(
    gapless: &Gapless,
    client: &Arc<rustls::ClientConfig>,
    connections: usize,
) -> usize {
    let mut count = 0;
    for _ in 0..connections {
        let mut connection =
            TlsTestClient::connect(gapless.address, "a.example", client).expect("shaken");
        assert_eq!(connection.request_status(""), 200);
        count += usize::from(connection.is_resumed());
    }
    count
}

#[test]
fn tls_session_is_resumed_on_any_worker() {
    let workers = ConfigBuilder::default().keys("workers = 2");
    let (_endpoint, gapless, authority) = start_tls(&workers, "");
    for versions in [TLS12_AND_TLS13, TLS12_ONLY] {
        let client = client_config(&authority, None, &["http/1.1"], versions);
        assert_eq!(count_resumed(&gapless, &client, 30), 29, "all but the first");
    }
}

#[test]
fn client_certificate_auth_disables_resumption() {
    let (_endpoint, gapless, authority) =
        start_tls(&ConfigBuilder::new(), "client_ca = \"ca.pem\"");
    let identity = authority.client_certificate("client.example");
    for versions in [TLS12_AND_TLS13, TLS12_ONLY] {
        let client = client_config(&authority, Some(&identity), &[], versions);
        assert_eq!(count_resumed(&gapless, &client, 5), 0);
    }
}

#[test]
fn early_data_is_not_accepted() {
    let (_endpoint, gapless, authority) = start_tls(&ConfigBuilder::new(), "");
    let client = default_client_config(&authority);
    assert_eq!(count_resumed(&gapless, &client, 2), 1);
    let name = "a.example".try_into().expect("a name");
    let mut session = rustls::ClientConnection::new(Arc::clone(&client), name).expect("a session");
    assert!(session.early_data().is_none(), "the ticket does not allow it");
    let mut without_resumption = (*client).clone();
    without_resumption.resumption = Resumption::disabled();
    assert_eq!(count_resumed(&gapless, &Arc::new(without_resumption), 2), 0);
}

#[test]
fn stalled_handshake_times_out_and_delays_no_other() {
    let (endpoint, gapless, authority) =
        start_tls(&ConfigBuilder::new(), "handshake_timeout = \"500ms\"");
    let mut silent: Vec<TestClient> = (0..20).map(|_| TestClient::open(gapless.address)).collect();
    // A record's header, and nothing in it.
    for client in &mut silent[..10] {
        client.send([0x16, 3, 1, 2, 0, 1]).expect("sent");
    }
    let mut connection =
        TlsTestClient::connect(gapless.address, "a.example", &default_client_config(&authority))
            .expect("shaken");
    assert_eq!(connection.request_status(""), 200);
    let started = Instant::now();
    for client in &mut silent {
        assert!(client.is_closed_by_server());
    }
    assert!(started.elapsed() < DEFAULT_TIMEOUT);
    let timeouts = "gapless_tls_handshakes_total{result=\"timeout\"}";
    eventually("all are counted", DEFAULT_TIMEOUT, || gapless.metric(timeouts) == 20.0);
    assert_eq!(connection.request_status(""), 200, "what is open is not touched");
    assert_eq!(endpoint.requests().len(), 2);
}

#[test]
fn cleartext_on_a_tls_listener_is_rejected() {
    let (endpoint, gapless, _) = start_tls(&ConfigBuilder::new(), "");
    let mut client = TestClient::open(gapless.address);
    client.send("GET / HTTP/1.1\r\nhost: a.example\r\n\r\n").expect("sent");
    assert!(client.read_response("GET").is_err());
    assert_eq!(endpoint.requests().len(), 0);
}
