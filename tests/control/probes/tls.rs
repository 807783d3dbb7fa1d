//! TLS probes: certificates, handshakes, and the probes inside.

use std::net::{Ipv4Addr, TcpListener};

use gapless::logic::model::outcome::{
    CertificateProblem, FailureClass, FailureLayer, FailureReason, ProbeOutcome,
};
use gapless::logic::probing::probe::ProbeSpec;
use tempfile::TempDir;

use super::{
    failed_outcome, is_pass, ms, probe_once, probe_repeatedly, probe_within, spec, spec_at,
};
use crate::support::pki::{CertificateAuthority, CertificateValidity, ClientAuth, Identity};
use crate::support::server::{TestServer, connection_handler, http1_handler, ok_response};

const LOOPBACK: &str = "127.0.0.1";

/// An authority with its certificate in `ca.pem`.
fn authority_with_ca_file() -> (CertificateAuthority, TempDir) {
    let authority = CertificateAuthority::new("tests");
    let directory = TempDir::new().expect("a directory");
    std::fs::write(directory.path().join("ca.pem"), authority.pem()).expect("written");
    (authority, directory)
}

fn start_tls_server(identity: &Identity) -> TestServer {
    TestServer::start_tls(
        identity.server_config(&ClientAuth::NotRequested, &["http/1.1"]),
        http1_handler(&ok_response("", "fine")),
    )
}

const HANDSHAKE_PROBE: &str = "{ tls = { ca_file = \"ca.pem\" } }";
const HTTPS_PROBE: &str =
    "{ http = \"/\", tls = { ca_file = \"ca.pem\" }, expect_body = \"fine\" }";

/// Every kind of probe over TLS has the same outcome.
#[track_caller]
fn assert_all_probes_fail(server: &TestServer, directory: &TempDir, expected: ProbeOutcome) {
    for probe in [HANDSHAKE_PROBE, HTTPS_PROBE] {
        assert_eq!(
            probe_once(server.address, &spec_at(directory.path(), probe)),
            expected,
            "{probe}"
        );
    }
    let ProbeOutcome::Fail(failure) = expected else { panic!("no failure") };
    assert_eq!(failure.class(), FailureClass::Tls);
}

fn certificate_failure(fault: CertificateProblem) -> ProbeOutcome {
    failed_outcome(FailureLayer::Tls, FailureReason::Certificate(fault))
}

#[test]
fn valid_certificate_passes() {
    let (authority, directory) = authority_with_ca_file();
    let server = start_tls_server(
        &authority.server_certificate(&[LOOPBACK, "web.internal"], CertificateValidity::Current),
    );
    for probe in [
        HANDSHAKE_PROBE,
        HTTPS_PROBE,
        "{ tls = { ca_file = \"ca.pem\", server_name = \"web.internal\" } }",
        "{ http = \"/\", host = \"web.internal:8443\", tls = { ca_file = \"ca.pem\" } }",
        "{ tcp = { send = \"GET / HTTP/1.1\\r\\n\\r\\n\", expect = \"fine\" }, tls = { ca_file = \"ca.pem\" } }",
    ] {
        let outcome = probe_once(server.address, &spec_at(directory.path(), probe));
        assert!(is_pass(outcome), "{probe}: {outcome:?}");
    }
}

#[test]
fn invalid_certificates_fail_with_their_fault() {
    let (authority, directory) = authority_with_ca_file();
    let expired =
        start_tls_server(&authority.server_certificate(&[LOOPBACK], CertificateValidity::Expired));
    assert_all_probes_fail(&expired, &directory, certificate_failure(CertificateProblem::Expired));
    let not_yet_valid = start_tls_server(
        &authority.server_certificate(&[LOOPBACK], CertificateValidity::NotYetValid),
    );
    assert_all_probes_fail(
        &not_yet_valid,
        &directory,
        certificate_failure(CertificateProblem::NotYetValid),
    );
    let wrong_name = start_tls_server(
        &authority.server_certificate(&["other.internal"], CertificateValidity::Current),
    );
    assert_all_probes_fail(
        &wrong_name,
        &directory,
        certificate_failure(CertificateProblem::WrongName),
    );
    let unknown_issuer = start_tls_server(
        &CertificateAuthority::new("stranger")
            .server_certificate(&[LOOPBACK], CertificateValidity::Current),
    );
    assert_all_probes_fail(
        &unknown_issuer,
        &directory,
        certificate_failure(CertificateProblem::UnknownIssuer),
    );
    let client = start_tls_server(&authority.client_certificate(LOOPBACK));
    assert_all_probes_fail(&client, &directory, certificate_failure(CertificateProblem::Invalid));

    // The system trusts none of them; without verification all pass.
    let good =
        start_tls_server(&authority.server_certificate(&[LOOPBACK], CertificateValidity::Current));
    let system = probe_once(good.address, &spec("{ tls = true }"));
    assert_eq!(system, certificate_failure(CertificateProblem::UnknownIssuer));
    for server in [&expired, &not_yet_valid, &wrong_name, &unknown_issuer] {
        assert!(is_pass(probe_once(
            server.address,
            &spec("{ http = \"/\", tls = { verify = false } }")
        )));
    }
}

#[test]
fn non_tls_servers_fail_in_handshake() {
    let (_, directory) = authority_with_ca_file();
    let cleartext = TestServer::start_cleartext(http1_handler(&ok_response("", "fine")));
    let garbage = TestServer::start_cleartext(connection_handler(|mut io| async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let _ = io.read(&mut [0; 64]).await;
        let _ = io.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        let _ = io.read(&mut [0; 1024]).await;
    }));
    assert_all_probes_fail(
        &garbage,
        &directory,
        failed_outcome(FailureLayer::Tls, FailureReason::Handshake),
    );
    let closed = TestServer::start_cleartext(connection_handler(|_| async {}));
    let outcome = probe_once(closed.address, &spec_at(directory.path(), HANDSHAKE_PROBE));
    let ProbeOutcome::Fail(failure) = outcome else { panic!("{outcome:?}") };
    assert_eq!((failure.layer, failure.class()), (FailureLayer::Tls, FailureClass::Reset));
    // This server waits for the end of a line that never arrives.
    let silent =
        probe_within(cleartext.address, &spec_at(directory.path(), HANDSHAKE_PROBE), ms(200));
    assert_eq!(silent, failed_outcome(FailureLayer::Tls, FailureReason::Timeout));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let silent = listener.local_addr().expect("bound");
    let outcome = probe_within(silent, &spec_at(directory.path(), HTTPS_PROBE), ms(200));
    assert_eq!(outcome, failed_outcome(FailureLayer::Tls, FailureReason::Timeout));
    drop(listener);
    let outcome = probe_once(silent, &spec_at(directory.path(), HTTPS_PROBE));
    assert_eq!(outcome, failed_outcome(FailureLayer::Connect, FailureReason::Refused));
}

#[test]
fn requested_client_certificate_is_presented() {
    let (authority, directory) = authority_with_ca_file();
    let trusted_client = authority.client_certificate("probe");
    std::fs::write(directory.path().join("mine.pem"), &trusted_client.chain_pem).expect("written");
    std::fs::write(directory.path().join("mine.key"), &trusted_client.key_pem).expect("written");
    let foreign_client = CertificateAuthority::new("foreign").client_certificate("probe");
    std::fs::write(directory.path().join("foreign.pem"), &foreign_client.chain_pem)
        .expect("written");
    std::fs::write(directory.path().join("foreign.key"), &foreign_client.key_pem).expect("written");
    let identity = authority.server_certificate(&[LOOPBACK], CertificateValidity::Current);
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let clients = ClientAuth::Required(&authority);
        let config = identity.server_config_with_versions(&clients, &["http/1.1"], &[version]);
        let server = TestServer::start_tls(config, http1_handler(&ok_response("", "fine")));
        let probe_with_certificate = |name: &str, kind: &str| {
            let files = format!("certificate = \"{name}.pem\", key = \"{name}.key\"");
            let probe = format!("{{ {kind} tls = {{ ca_file = \"ca.pem\", {files} }} }}");
            probe_once(server.address, &spec_at(directory.path(), &probe))
        };
        for kind in ["", "http = \"/\", "] {
            assert!(is_pass(probe_with_certificate("mine", kind)), "{version:?} {kind}");
            assert_eq!(
                probe_with_certificate("foreign", kind),
                failed_outcome(FailureLayer::Tls, FailureReason::Handshake),
                "{version:?}"
            );
        }
        assert_all_probes_fail(
            &server,
            &directory,
            failed_outcome(FailureLayer::Tls, FailureReason::Handshake),
        );
    }
}

#[test]
fn certificate_is_verified_on_each_new_connection() {
    let (authority, directory) = authority_with_ca_file();
    let server =
        start_tls_server(&authority.server_certificate(&[LOOPBACK], CertificateValidity::Current));
    let spec = spec_at(directory.path(), HTTPS_PROBE);
    assert!(probe_repeatedly(server.address, &spec, 3).into_iter().all(is_pass));
    assert_eq!(server.accepted_count(), 3);
    let reusing_probe = ProbeSpec { is_connection_reused: true, ..spec };
    assert!(probe_repeatedly(server.address, &reusing_probe, 3).into_iter().all(is_pass));
    assert_eq!(server.accepted_count(), 4, "one more for three that keep it");
}
