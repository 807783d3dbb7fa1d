//! TLS towards endpoints.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener};
use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gapless::logic::model::id::EndpointId;
use gapless::logic::model::outcome::{CertificateProblem, Failure, FailureLayer, FailureReason};
use gapless::logic::model::snapshot::Target;
use gapless::logic::request::retry::RequestExposure;
use gapless::net::upstream::{
    Checkout, ConnectProgress, ConnectionPool, DownstreamAddresses, PoolOptions, UpstreamError,
};
use rustls::{HandshakeKind, ServerConfig};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

use super::{WITHOUT_VERDICTS, block_on_local, pool_spec};
use crate::support::client::{TestClient, request};
use crate::support::config::ConfigBuilder;
use crate::support::eventually;
use crate::support::instance::Gapless;
use crate::support::pki::{CertificateAuthority, CertificateValidity, ClientAuth, Identity};
use crate::support::server::{TestServer, connection_handler, ok_response};
use crate::support::{DEFAULT_TIMEOUT, endpoint::TestEndpoint};

const LOOPBACK: &str = "127.0.0.1";

/// An authority with its certificate in `ca.pem`.
fn create_authority() -> (CertificateAuthority, TempDir) {
    let authority = CertificateAuthority::new("tests");
    let directory = TempDir::new().expect("a directory");
    std::fs::write(directory.path().join("ca.pem"), authority.pem()).expect("written");
    (authority, directory)
}

/// The records of a server.
#[derive(Default)]
struct TlsServerState {
    handshakes: Mutex<Vec<Option<HandshakeKind>>>,
    requests: AtomicUsize,
    server_names: Mutex<Vec<Option<String>>>,
}

impl TlsServerState {
    fn handshakes(&self) -> Vec<Option<HandshakeKind>> {
        self.handshakes.lock().expect("no panic").clone()
    }

    fn requests(&self) -> usize {
        self.requests.load(SeqCst)
    }
}

/// The behaviour of a server after its response.
#[derive(Clone, Copy)]
enum AfterResponse {
    KeepOpen,
    /// Sends close_notify, and closes.
    Close,
}

/// Answers every request with its name.
fn start_tls_server(
    tls: Arc<ServerConfig>,
    after_response: AfterResponse,
) -> (TestServer, Arc<TlsServerState>) {
    let state = Arc::new(TlsServerState::default());
    let acceptor = TlsAcceptor::from(tls);
    let seen = Arc::clone(&state);
    let serve = connection_handler(move |io| {
        let (acceptor, state) = (acceptor.clone(), Arc::clone(&seen));
        async move {
            let Ok(mut io) = acceptor.accept(io).await else { return };
            let session = io.get_ref().1;
            state.handshakes.lock().expect("no panic").push(session.handshake_kind());
            state
                .server_names
                .lock()
                .expect("no panic")
                .push(session.server_name().map(str::to_owned));
            let mut input = Vec::new();
            loop {
                let mut piece = [0; 4096];
                let Ok(read @ 1..) = io.read(&mut piece).await else { return };
                input.extend_from_slice(&piece[..read]);
                if !input.windows(4).any(|window| window == b"\r\n\r\n") {
                    continue;
                }
                input.clear();
                state.requests.fetch_add(1, SeqCst);
                if io.write_all(ok_response("", "inside").as_bytes()).await.is_err() {
                    return;
                }
                let _ = io.flush().await;
                if matches!(after_response, AfterResponse::Close) {
                    let _ = io.shutdown().await;
                    return;
                }
            }
        }
    });
    (TestServer::start_cleartext(serve), state)
}

fn tls_server_config(identity: &Identity) -> Arc<ServerConfig> {
    identity.server_config(&ClientAuth::NotRequested, &["http/1.1"])
}

/// Lines of a pool that speaks TLS, with files in `directory`.
fn tls_pool_lines(directory: &Path, more: &str) -> String {
    format!(
        "{WITHOUT_VERDICTS}\ntls = {{ ca_file = \"{}\"{more} }}",
        directory.join("ca.pem").display()
    )
}

fn start_gapless(lines: &str, near: SocketAddr, far: Option<SocketAddr>) -> Gapless {
    let mut config = ConfigBuilder::new().pool(lines).zone("here/near", &[near]);
    if let Some(far) = far {
        config = config.zone("here/far", &[far]);
    }
    Gapless::start_ready(&config)
}

#[test]
fn tls_connection_to_endpoint_is_reused() {
    let (authority, directory) = create_authority();
    let identity =
        authority.server_certificate(&[LOOPBACK, "web.internal"], CertificateValidity::Current);
    let (server, state) = start_tls_server(tls_server_config(&identity), AfterResponse::KeepOpen);
    let lines = tls_pool_lines(directory.path(), ", server_name = \"web.internal\"");
    let gapless = start_gapless(&lines, server.address, None);
    let mut client = TestClient::open(gapless.address);
    for _ in 0..5 {
        let answer = client.exchange("POST", "/", &[], b"body").expect("an answer");
        assert_eq!((answer.status, answer.text().as_str()), (200, "inside"));
    }
    assert_eq!(state.requests(), 5);
    assert_eq!(state.handshakes().len(), 1, "one connection carries them all");
    assert_eq!(*state.server_names.lock().expect("no panic"), [Some("web.internal".to_owned())]);
}

#[test]
fn close_notify_while_idle_loses_no_request() {
    let (authority, directory) = create_authority();
    let (server, state) = start_tls_server(
        tls_server_config(&authority.server_certificate(&[LOOPBACK], CertificateValidity::Current)),
        AfterResponse::Close,
    );
    let gapless = start_gapless(&tls_pool_lines(directory.path(), ""), server.address, None);
    for sent in 1..=5 {
        let answer = request(gapless.address, "POST", "/", b"body");
        assert_eq!((answer.status, answer.text().as_str()), (200, "inside"));
        assert_eq!(state.requests(), sent);
        eventually("the connection is closed", DEFAULT_TIMEOUT, || {
            server.open_connection_count() == 0
        });
    }
    let handshakes = state.handshakes();
    assert_eq!(handshakes[0], Some(HandshakeKind::Full));
    assert!(handshakes[1..].iter().all(|kind| *kind == Some(HandshakeKind::Resumed)));
    let traffic = &gapless.endpoint(server.address)["traffic"];
    assert_eq!((&traffic["errors"], &traffic["failed"]), (&0.into(), &0.into()));
}

const TEST_CLIENT: DownstreamAddresses = DownstreamAddresses {
    remote: SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1)),
    local: SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 2)),
};

/// A worker's connection pool for one endpoint.
fn connect_once(directory: &Path, lines: &str, address: SocketAddr) -> Result<(), UpstreamError> {
    let spec = pool_spec(directory, lines, address);
    let id = EndpointId::new(0, 0);
    let target = Target {
        id,
        address,
        zone: 0,
        weight: 1,
        stats: Arc::default(),
        zone_stats: Arc::default(),
    };
    block_on_local(async {
        let pool = ConnectionPool::new(PoolOptions {
            target,
            pool_stats: Arc::default(),
            descriptors: Arc::default(),
            protocol: &spec.upstream_protocol,
            limits: &spec.limits,
            on_event: Rc::new(|_| ()),
        });
        pool.prepare().await?;
        let Ok(Checkout::New(slot)) = pool.checkout() else { panic!("no room") };
        pool.open_connection(slot, TEST_CLIENT, &ConnectProgress::default()).await.map(drop)
    })
}

#[track_caller]
fn connect_failure(directory: &Path, lines: &str, address: SocketAddr) -> Failure {
    match connect_once(directory, lines, address) {
        Err(UpstreamError::Endpoint { failure, reached: RequestExposure::NotSent }) => failure,
        other => panic!("{other:?}"),
    }
}

#[test]
fn certificate_faults_are_distinguished_and_retried() {
    let (authority, directory) = create_authority();
    let good = start_tls_server(
        tls_server_config(&authority.server_certificate(&[LOOPBACK], CertificateValidity::Current)),
        AfterResponse::KeepOpen,
    )
    .0;
    let untrusted = CertificateAuthority::new("stranger");
    for (fault, identity) in [
        (
            CertificateProblem::WrongName,
            authority.server_certificate(&["other.internal"], CertificateValidity::Current),
        ),
        (
            CertificateProblem::UnknownIssuer,
            untrusted.server_certificate(&[LOOPBACK], CertificateValidity::Current),
        ),
        (
            CertificateProblem::Expired,
            authority.server_certificate(&[LOOPBACK], CertificateValidity::Expired),
        ),
        (
            CertificateProblem::NotYetValid,
            authority.server_certificate(&[LOOPBACK], CertificateValidity::NotYetValid),
        ),
    ] {
        let (bad, state) = start_tls_server(tls_server_config(&identity), AfterResponse::KeepOpen);
        let lines = tls_pool_lines(directory.path(), "");
        let expected =
            Failure { layer: FailureLayer::Tls, reason: FailureReason::Certificate(fault) };
        assert_eq!(connect_failure(directory.path(), &lines, bad.address), expected);

        let gapless = start_gapless(&lines, bad.address, Some(good.address));
        let answer = request(gapless.address, "POST", "/", b"body");
        assert_eq!((answer.status, answer.field("x-gapless-attempts")), (200, Some("2")));
        assert_eq!(state.requests(), 0, "{fault:?}");
        let alone = start_gapless(&lines, bad.address, None);
        let answer = request(alone.address, "POST", "/", b"body");
        assert_eq!(answer.status_and_reason(), (502, Some("connect_failed")), "{fault:?}");
        let unchecked = format!("{WITHOUT_VERDICTS}\ntls = {{ verify = false }}");
        assert!(connect_once(directory.path(), &unchecked, bad.address).is_ok());
    }
    // The system's roots trust none of them.
    let system = format!("{WITHOUT_VERDICTS}\ntls = true");
    let reason = FailureReason::Certificate(CertificateProblem::UnknownIssuer);
    let unknown = Failure { layer: FailureLayer::Tls, reason };
    assert_eq!(connect_failure(directory.path(), &system, good.address), unknown);
}

#[test]
fn client_certificate_is_presented_when_requested() {
    let (authority, directory) = create_authority();
    let client_identity = authority.client_certificate("gapless");
    std::fs::write(directory.path().join("mine.pem"), &client_identity.chain_pem).expect("written");
    std::fs::write(directory.path().join("mine.key"), &client_identity.key_pem).expect("written");
    let identity = authority.server_certificate(&[LOOPBACK], CertificateValidity::Current);
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let clients = ClientAuth::Required(&authority);
        let config = identity.server_config_with_versions(&clients, &["http/1.1"], &[version]);
        let (requiring, state) = start_tls_server(config, AfterResponse::KeepOpen);
        let file = |name: &str| directory.path().join(name).display().to_string();
        let client_certificate =
            format!(", certificate = \"{}\", key = \"{}\"", file("mine.pem"), file("mine.key"));
        let gapless = start_gapless(
            &tls_pool_lines(directory.path(), &client_certificate),
            requiring.address,
            None,
        );
        assert_eq!(request(gapless.address, "POST", "/", b"body").status, 200, "{version:?}");
        assert_eq!(state.requests(), 1);
        // Without a certificate it is refused, which TLS 1.3 reports only with the response:
        // nothing was
        // executed, so anything may go elsewhere.
        let lines = tls_pool_lines(directory.path(), "");
        let (other, other_state) =
            start_tls_server(tls_server_config(&identity), AfterResponse::KeepOpen);
        let gapless = start_gapless(&lines, requiring.address, Some(other.address));
        let answer = request(gapless.address, "POST", "/", b"body");
        assert_eq!((answer.status, answer.field("x-gapless-attempts")), (200, Some("2")));
        assert_eq!((state.requests(), other_state.requests()), (1, 1), "{version:?}");
    }
}

#[test]
fn tls_handshake_counts_toward_the_connect_timeout() {
    let (authority, directory) = create_authority();
    let (good, _) = start_tls_server(
        tls_server_config(&authority.server_certificate(&[LOOPBACK], CertificateValidity::Current)),
        AfterResponse::KeepOpen,
    );
    // The kernel accepts, and no process answers.
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = silent.local_addr().expect("bound");
    let config = |far: &[SocketAddr]| {
        let config = ConfigBuilder::new()
            .route("timeouts = { connect = \"200ms\" }")
            .pool(&tls_pool_lines(directory.path(), ""))
            .zone("here/near", &[address]);
        if far.is_empty() { config } else { config.zone("here/far", far) }
    };
    let gapless = Gapless::start_ready(&config(&[good.address]));
    let answer = request(gapless.address, "POST", "/", b"body");
    assert_eq!((answer.status, answer.field("x-gapless-attempts")), (200, Some("2")));
    let alone = Gapless::start_ready(&config(&[]));
    let answer = request(alone.address, "POST", "/", b"body");
    assert_eq!(answer.status_and_reason(), (504, Some("connect_timeout")));

    let stage = ConnectProgress::default();
    let spec = pool_spec(directory.path(), &tls_pool_lines(directory.path(), ""), address);
    let id = EndpointId::new(0, 0);
    let target = Target {
        id,
        address,
        zone: 0,
        weight: 1,
        stats: Arc::default(),
        zone_stats: Arc::default(),
    };
    block_on_local(async {
        let pool = ConnectionPool::new(PoolOptions {
            target,
            pool_stats: Arc::default(),
            descriptors: Arc::default(),
            protocol: &spec.upstream_protocol,
            limits: &spec.limits,
            on_event: Rc::new(|_| ()),
        });
        pool.prepare().await.expect("ready");
        let Ok(Checkout::New(slot)) = pool.checkout() else { panic!("no room") };
        let connecting = pool.open_connection(slot, TEST_CLIENT, &stage);
        assert!(tokio::time::timeout(Duration::from_millis(100), connecting).await.is_err());
    });
    assert_eq!(
        stage.timeout_failure(),
        Failure { layer: FailureLayer::Tls, reason: FailureReason::Timeout }
    );
}

#[test]
fn non_tls_endpoint_fails_the_handshake() {
    let (_, directory) = create_authority();
    let cleartext = TestEndpoint::start("cleartext");
    let lines = tls_pool_lines(directory.path(), "");
    let garbage = TestServer::start_cleartext(connection_handler(|mut io| async move {
        let _ = io.read(&mut [0; 64]).await;
        let _ = io.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        let _ = io.read(&mut [0; 1024]).await;
    }));
    let handshake = Failure { layer: FailureLayer::Tls, reason: FailureReason::Handshake };
    assert_eq!(connect_failure(directory.path(), &lines, garbage.address), handshake);
    cleartext.refuse_connections();
    let refused = Failure { layer: FailureLayer::Connect, reason: FailureReason::Refused };
    assert_eq!(connect_failure(directory.path(), &lines, cleartext.address()), refused);
}
