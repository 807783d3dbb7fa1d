//! Endpoints that are spoken to over TLS.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener};
use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gapless::logic::id::EndpointId;
use gapless::logic::outcome::{CertificateFault, Failure, Layer, Reason};
use gapless::logic::retry::Reached;
use gapless::logic::snapshot::Target;
use gapless::net::upstream::{Caller, Free, Pool, Stage, TryError};
use rustls::{HandshakeKind, ServerConfig};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

use super::{QUIET, on_one_thread, pool_spec};
use crate::support::client::{Client, request};
use crate::support::config::Config;
use crate::support::eventually;
use crate::support::instance::Gapless;
use crate::support::pki::{Authority, Clients, Identity, Valid};
use crate::support::server::{Server, ok, serving};
use crate::support::{SOON, endpoint::Endpoint};

const LOCAL: &str = "127.0.0.1";

/// An authority, and a directory with its certificate in `ca.pem`.
fn authority() -> (Authority, TempDir) {
    let authority = Authority::new("tests");
    let directory = TempDir::new().expect("a directory");
    std::fs::write(directory.path().join("ca.pem"), authority.pem()).expect("written");
    (authority, directory)
}

/// What a server did.
#[derive(Default)]
struct Did {
    handshakes: Mutex<Vec<Option<HandshakeKind>>>,
    requests: AtomicUsize,
    names: Mutex<Vec<Option<String>>>,
}

impl Did {
    fn handshakes(&self) -> Vec<Option<HandshakeKind>> {
        self.handshakes.lock().expect("no panic").clone()
    }

    fn requests(&self) -> usize {
        self.requests.load(SeqCst)
    }
}

/// What a server does when it has answered.
#[derive(Clone, Copy)]
enum Then {
    Waits,
    /// Says that it ends, and ends.
    Closes,
}

/// Answers every request, whatever its body, with its own name.
fn server(tls: Arc<ServerConfig>, then: Then) -> (Server, Arc<Did>) {
    let did = Arc::new(Did::default());
    let acceptor = TlsAcceptor::from(tls);
    let seen = Arc::clone(&did);
    let serve = serving(move |io| {
        let (acceptor, did) = (acceptor.clone(), Arc::clone(&seen));
        async move {
            let Ok(mut io) = acceptor.accept(io).await else { return };
            let session = io.get_ref().1;
            did.handshakes.lock().expect("no panic").push(session.handshake_kind());
            did.names.lock().expect("no panic").push(session.server_name().map(str::to_owned));
            let mut input = Vec::new();
            loop {
                let mut piece = [0; 4096];
                let Ok(read @ 1..) = io.read(&mut piece).await else { return };
                input.extend_from_slice(&piece[..read]);
                if !input.windows(4).any(|window| window == b"\r\n\r\n") {
                    continue;
                }
                input.clear();
                did.requests.fetch_add(1, SeqCst);
                if io.write_all(ok("", "inside").as_bytes()).await.is_err() {
                    return;
                }
                let _ = io.flush().await;
                if matches!(then, Then::Closes) {
                    let _ = io.shutdown().await;
                    return;
                }
            }
        }
    });
    (Server::plain(serve), did)
}

fn plain_tls(identity: &Identity) -> Arc<ServerConfig> {
    identity.server_config(&Clients::Any, &["http/1.1"])
}

/// Lines of a pool that speaks TLS, with files in `directory`.
fn tls(directory: &Path, more: &str) -> String {
    format!("{QUIET}\ntls = {{ ca_file = \"{}\"{more} }}", directory.join("ca.pem").display())
}

fn start(lines: &str, near: SocketAddr, far: Option<SocketAddr>) -> Gapless {
    let mut config = Config::new().pool(lines).zone("here/near", &[near]);
    if let Some(far) = far {
        config = config.zone("here/far", &[far]);
    }
    Gapless::start_ready(&config)
}

#[test]
fn requests_go_over_tls_and_connections_are_kept() {
    let (authority, directory) = authority();
    let identity = authority.server(&[LOCAL, "web.internal"], Valid::Now);
    let (server, did) = server(plain_tls(&identity), Then::Waits);
    let lines = tls(directory.path(), ", server_name = \"web.internal\"");
    let gapless = start(&lines, server.address, None);
    let mut client = Client::open(gapless.address);
    for _ in 0..5 {
        let answer = client.exchange("POST", "/", &[], b"body").expect("an answer");
        assert_eq!((answer.status, answer.text().as_str()), (200, "inside"));
    }
    assert_eq!(did.requests(), 5);
    assert_eq!(did.handshakes().len(), 1, "one connection carries them all");
    assert_eq!(*did.names.lock().expect("no panic"), [Some("web.internal".to_owned())]);
}

#[test]
fn an_end_that_was_said_while_idle_costs_no_request_and_sessions_are_resumed() {
    let (authority, directory) = authority();
    let (server, did) = server(plain_tls(&authority.server(&[LOCAL], Valid::Now)), Then::Closes);
    let gapless = start(&tls(directory.path(), ""), server.address, None);
    for sent in 1..=5 {
        let answer = request(gapless.address, "POST", "/", b"body");
        assert_eq!((answer.status, answer.text().as_str()), (200, "inside"));
        assert_eq!(did.requests(), sent);
        eventually("the connection is closed", SOON, || server.open() == 0);
    }
    let handshakes = did.handshakes();
    assert_eq!(handshakes[0], Some(HandshakeKind::Full));
    assert!(handshakes[1..].iter().all(|kind| *kind == Some(HandshakeKind::Resumed)));
    let traffic = &gapless.endpoint(server.address)["traffic"];
    assert_eq!((&traffic["errors"], &traffic["failed"]), (&0.into(), &0.into()));
}

const CALLER: Caller = Caller {
    address: SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1)),
    local: SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 2)),
};

/// A pool of connections to one endpoint, as a worker has it.
fn connect(directory: &Path, lines: &str, address: SocketAddr) -> Result<(), TryError> {
    let spec = pool_spec(directory, lines, address);
    let id = EndpointId::new(0, 0);
    let target =
        Target { id, address, zone: 0, weight: 1, live: Arc::default(), kin: Arc::default() };
    on_one_thread(async {
        let pool =
            Pool::new(target, Default::default(), &spec.speech, &spec.limits, Rc::new(|_| ()));
        pool.prepare().await?;
        let Ok(Free::Room(slot)) = pool.free() else { panic!("no room") };
        pool.open(slot, CALLER, &Stage::default()).await.map(drop)
    })
}

#[track_caller]
fn fails(directory: &Path, lines: &str, address: SocketAddr) -> Failure {
    match connect(directory, lines, address) {
        Err(TryError::Endpoint { failure, reached: Reached::Nothing }) => failure,
        other => panic!("{other:?}"),
    }
}

#[test]
fn faults_of_certificates_are_told_apart_and_requests_go_elsewhere() {
    let (authority, directory) = authority();
    let good = server(plain_tls(&authority.server(&[LOCAL], Valid::Now)), Then::Waits).0;
    let stranger = Authority::new("stranger");
    for (fault, identity) in [
        (CertificateFault::WrongName, authority.server(&["other.internal"], Valid::Now)),
        (CertificateFault::UnknownIssuer, stranger.server(&[LOCAL], Valid::Now)),
        (CertificateFault::Expired, authority.server(&[LOCAL], Valid::UntilLastYear)),
        (CertificateFault::NotYetValid, authority.server(&[LOCAL], Valid::FromNextCentury)),
    ] {
        let (bad, did) = server(plain_tls(&identity), Then::Waits);
        let lines = tls(directory.path(), "");
        let expected = Failure { layer: Layer::Tls, reason: Reason::Certificate(fault) };
        assert_eq!(fails(directory.path(), &lines, bad.address), expected);

        let gapless = start(&lines, bad.address, Some(good.address));
        let answer = request(gapless.address, "POST", "/", b"body");
        assert_eq!((answer.status, answer.field("x-gapless-attempts")), (200, Some("2")));
        assert_eq!(did.requests(), 0, "{fault:?}");
        let alone = start(&lines, bad.address, None);
        let answer = request(alone.address, "POST", "/", b"body");
        assert_eq!(answer.verdict(), (502, Some("connect_failed")), "{fault:?}");
        let unchecked = format!("{QUIET}\ntls = {{ verify = false }}");
        assert!(connect(directory.path(), &unchecked, bad.address).is_ok());
    }
    // What the system trusts does not hold any of them.
    let system = format!("{QUIET}\ntls = true");
    let reason = Reason::Certificate(CertificateFault::UnknownIssuer);
    let unknown = Failure { layer: Layer::Tls, reason };
    assert_eq!(fails(directory.path(), &system, good.address), unknown);
}

#[test]
fn an_endpoint_that_asks_for_a_certificate_gets_it() {
    let (authority, directory) = authority();
    let mine = authority.client("gapless");
    std::fs::write(directory.path().join("mine.pem"), &mine.chain_pem).expect("written");
    std::fs::write(directory.path().join("mine.key"), &mine.key_pem).expect("written");
    let identity = authority.server(&[LOCAL], Valid::Now);
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let clients = Clients::Of(&authority);
        let config = identity.server_config_of(&clients, &["http/1.1"], &[version]);
        let (asking, did) = server(config, Then::Waits);
        let file = |name: &str| directory.path().join(name).display().to_string();
        let shown =
            format!(", certificate = \"{}\", key = \"{}\"", file("mine.pem"), file("mine.key"));
        let gapless = start(&tls(directory.path(), &shown), asking.address, None);
        assert_eq!(request(gapless.address, "POST", "/", b"body").status, 200, "{version:?}");
        assert_eq!(did.requests(), 1);
        // Without one it is refused, which in TLS 1.3 is heard only with the answer: nothing was
        // executed, so anything may go elsewhere.
        let lines = tls(directory.path(), "");
        let (other, others) = server(plain_tls(&identity), Then::Waits);
        let gapless = start(&lines, asking.address, Some(other.address));
        let answer = request(gapless.address, "POST", "/", b"body");
        assert_eq!((answer.status, answer.field("x-gapless-attempts")), (200, Some("2")));
        assert_eq!((did.requests(), others.requests()), (1, 1), "{version:?}");
    }
}

#[test]
fn the_handshake_counts_into_the_connect_timeout() {
    let (authority, directory) = authority();
    let (good, _) = server(plain_tls(&authority.server(&[LOCAL], Valid::Now)), Then::Waits);
    // The kernel accepts, and nobody ever answers.
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = silent.local_addr().expect("bound");
    let config = |far: &[SocketAddr]| {
        let config = Config::new()
            .route("timeouts = { connect = \"200ms\" }")
            .pool(&tls(directory.path(), ""))
            .zone("here/near", &[address]);
        if far.is_empty() { config } else { config.zone("here/far", far) }
    };
    let gapless = Gapless::start_ready(&config(&[good.address]));
    let answer = request(gapless.address, "POST", "/", b"body");
    assert_eq!((answer.status, answer.field("x-gapless-attempts")), (200, Some("2")));
    let alone = Gapless::start_ready(&config(&[]));
    let answer = request(alone.address, "POST", "/", b"body");
    assert_eq!(answer.verdict(), (504, Some("connect_timeout")));

    let stage = Stage::default();
    let spec = pool_spec(directory.path(), &tls(directory.path(), ""), address);
    let id = EndpointId::new(0, 0);
    let target =
        Target { id, address, zone: 0, weight: 1, live: Arc::default(), kin: Arc::default() };
    on_one_thread(async {
        let pool =
            Pool::new(target, Default::default(), &spec.speech, &spec.limits, Rc::new(|_| ()));
        pool.prepare().await.expect("ready");
        let Ok(Free::Room(slot)) = pool.free() else { panic!("no room") };
        let opening = pool.open(slot, CALLER, &stage);
        assert!(tokio::time::timeout(Duration::from_millis(100), opening).await.is_err());
    });
    assert_eq!(stage.timeout(), Failure { layer: Layer::Tls, reason: Reason::Timeout });
}

#[test]
fn what_is_no_tls_is_no_endpoint() {
    let (_, directory) = authority();
    let cleartext = Endpoint::start("cleartext");
    let lines = tls(directory.path(), "");
    let garbage = Server::plain(serving(|mut io| async move {
        let _ = io.read(&mut [0; 64]).await;
        let _ = io.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        let _ = io.read(&mut [0; 1024]).await;
    }));
    let handshake = Failure { layer: Layer::Tls, reason: Reason::Handshake };
    assert_eq!(fails(directory.path(), &lines, garbage.address), handshake);
    cleartext.refuse();
    let refused = Failure { layer: Layer::Connect, reason: Reason::Refused };
    assert_eq!(fails(directory.path(), &lines, cleartext.address()), refused);
}
