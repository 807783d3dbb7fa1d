//! TLS: certificates, handshakes, and what is asked inside.

use std::net::{Ipv4Addr, TcpListener};

use gapless::logic::outcome::{CertificateFault, Class, Layer, Outcome, Reason};
use gapless::logic::probe::ProbeSpec;
use tempfile::TempDir;

use super::{ask, ask_often, ask_within, failed, ms, passes, spec, spec_at};
use crate::support::pki::{Authority, Clients, Identity, Valid};
use crate::support::server::{Server, http1, ok, serving};

const LOCAL: &str = "127.0.0.1";

/// An authority, and a directory with its certificate in `ca.pem`.
fn authority() -> (Authority, TempDir) {
    let authority = Authority::new("tests");
    let directory = TempDir::new().expect("a directory");
    std::fs::write(directory.path().join("ca.pem"), authority.pem()).expect("written");
    (authority, directory)
}

fn serve(identity: &Identity) -> Server {
    Server::tls(identity.server_config(&Clients::Any, &["http/1.1"]), http1(&ok("", "fine")))
}

const HANDSHAKE: &str = "{ tls = { ca_file = \"ca.pem\" } }";
const PAGE: &str = "{ http = \"/\", tls = { ca_file = \"ca.pem\" }, expect_body = \"fine\" }";

/// Every kind of probe over TLS meets the same end.
#[track_caller]
fn all_end(server: &Server, directory: &TempDir, expected: Outcome) {
    for probe in [HANDSHAKE, PAGE] {
        assert_eq!(ask(server.address, &spec_at(directory.path(), probe)), expected, "{probe}");
    }
    let Outcome::Fail(failure) = expected else { panic!("no failure") };
    assert_eq!(failure.class(), Class::Tls);
}

fn certificate(fault: CertificateFault) -> Outcome {
    failed(Layer::Tls, Reason::Certificate(fault))
}

#[test]
fn a_good_certificate_passes() {
    let (authority, directory) = authority();
    let server = serve(&authority.server(&[LOCAL, "web.internal"], Valid::Now));
    for probe in [
        HANDSHAKE,
        PAGE,
        "{ tls = { ca_file = \"ca.pem\", server_name = \"web.internal\" } }",
        "{ http = \"/\", host = \"web.internal:8443\", tls = { ca_file = \"ca.pem\" } }",
        "{ tcp = { send = \"GET / HTTP/1.1\\r\\n\\r\\n\", expect = \"fine\" }, tls = { ca_file = \"ca.pem\" } }",
    ] {
        let outcome = ask(server.address, &spec_at(directory.path(), probe));
        assert!(passes(outcome), "{probe}: {outcome:?}");
    }
}

#[test]
fn certificates_fail_for_what_is_wrong_with_them() {
    let (authority, directory) = authority();
    let expired = serve(&authority.server(&[LOCAL], Valid::UntilLastYear));
    all_end(&expired, &directory, certificate(CertificateFault::Expired));
    let early = serve(&authority.server(&[LOCAL], Valid::FromNextCentury));
    all_end(&early, &directory, certificate(CertificateFault::NotYetValid));
    let renamed = serve(&authority.server(&["other.internal"], Valid::Now));
    all_end(&renamed, &directory, certificate(CertificateFault::WrongName));
    let stranger = serve(&Authority::new("stranger").server(&[LOCAL], Valid::Now));
    all_end(&stranger, &directory, certificate(CertificateFault::UnknownIssuer));
    let client = serve(&authority.client(LOCAL));
    all_end(&client, &directory, certificate(CertificateFault::Invalid));

    // The system knows none of them; unchecked, all of them will do.
    let good = serve(&authority.server(&[LOCAL], Valid::Now));
    let system = ask(good.address, &spec("{ tls = true }"));
    assert_eq!(system, certificate(CertificateFault::UnknownIssuer));
    for server in [&expired, &early, &renamed, &stranger] {
        assert!(passes(ask(server.address, &spec("{ http = \"/\", tls = { verify = false } }"))));
    }
}

#[test]
fn what_is_no_tls_fails_in_the_handshake() {
    let (_, directory) = authority();
    let cleartext = Server::plain(http1(&ok("", "fine")));
    let garbage = Server::plain(serving(|mut io| async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let _ = io.read(&mut [0; 64]).await;
        let _ = io.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        let _ = io.read(&mut [0; 1024]).await;
    }));
    all_end(&garbage, &directory, failed(Layer::Tls, Reason::Handshake));
    let closed = Server::plain(serving(|_| async {}));
    let outcome = ask(closed.address, &spec_at(directory.path(), HANDSHAKE));
    let Outcome::Fail(failure) = outcome else { panic!("{outcome:?}") };
    assert_eq!((failure.layer, failure.class()), (Layer::Tls, Class::Reset));
    // This one waits for the end of a line that never comes.
    let silent = ask_within(cleartext.address, &spec_at(directory.path(), HANDSHAKE), ms(200));
    assert_eq!(silent, failed(Layer::Tls, Reason::Timeout));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let silent = listener.local_addr().expect("bound");
    let outcome = ask_within(silent, &spec_at(directory.path(), PAGE), ms(200));
    assert_eq!(outcome, failed(Layer::Tls, Reason::Timeout));
    drop(listener);
    let outcome = ask(silent, &spec_at(directory.path(), PAGE));
    assert_eq!(outcome, failed(Layer::Connect, Reason::Refused));
}

#[test]
fn a_client_certificate_that_is_asked_for_is_shown() {
    let (authority, directory) = authority();
    let mine = authority.client("probe");
    std::fs::write(directory.path().join("mine.pem"), &mine.chain_pem).expect("written");
    std::fs::write(directory.path().join("mine.key"), &mine.key_pem).expect("written");
    let foreign = Authority::new("foreign").client("probe");
    std::fs::write(directory.path().join("foreign.pem"), &foreign.chain_pem).expect("written");
    std::fs::write(directory.path().join("foreign.key"), &foreign.key_pem).expect("written");
    let identity = authority.server(&[LOCAL], Valid::Now);
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let clients = Clients::Of(&authority);
        let config = identity.server_config_of(&clients, &["http/1.1"], &[version]);
        let server = Server::tls(config, http1(&ok("", "fine")));
        let with = |name: &str, kind: &str| {
            let files = format!("certificate = \"{name}.pem\", key = \"{name}.key\"");
            let probe = format!("{{ {kind} tls = {{ ca_file = \"ca.pem\", {files} }} }}");
            ask(server.address, &spec_at(directory.path(), &probe))
        };
        for kind in ["", "http = \"/\", "] {
            assert!(passes(with("mine", kind)), "{version:?} {kind}");
            assert_eq!(with("foreign", kind), failed(Layer::Tls, Reason::Handshake), "{version:?}");
        }
        all_end(&server, &directory, failed(Layer::Tls, Reason::Handshake));
    }
}

#[test]
fn a_certificate_is_looked_at_each_time() {
    let (authority, directory) = authority();
    let server = serve(&authority.server(&[LOCAL], Valid::Now));
    let spec = spec_at(directory.path(), PAGE);
    assert!(ask_often(server.address, &spec, 3).into_iter().all(passes));
    assert_eq!(server.accepted(), 3);
    let kept = ProbeSpec { reuse: true, ..spec };
    assert!(ask_often(server.address, &kept, 3).into_iter().all(passes));
    assert_eq!(server.accepted(), 4, "one more for three that keep it");
}
