//! HTTP/2 towards endpoints.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread::JoinHandle;

use h2::Reason;

use super::WITHOUT_VERDICTS;
use super::http2_endpoint::{H2EndpointState, RawH2Server};
use crate::support::client::{TestClient, TestResponse, request};
use crate::support::config::ConfigBuilder;
use crate::support::endpoint::TestEndpoint;
use crate::support::instance::Gapless;
use crate::support::pki::{CertificateAuthority, CertificateValidity, ClientAuth};
use crate::support::server::{TestServer, connection_handler, http1_handler, ok_response};
use crate::support::{DEFAULT_TIMEOUT, eventually};

pub(super) fn h2_pool_lines() -> String {
    format!("{WITHOUT_VERDICTS}\nprotocol = \"http2\"")
}

/// A large limit of concurrent streams.
pub(super) const MANY_STREAMS: u32 = 1_000;

pub(super) fn start_h2_endpoint(
    name: &'static str,
    max_streams: u32,
) -> (TestServer, Arc<H2EndpointState>) {
    let state = H2EndpointState::new(name, max_streams);
    (TestServer::start_cleartext(state.serve()), state)
}

fn start_gapless(near: SocketAddr, far: Option<SocketAddr>) -> Gapless {
    let mut config = ConfigBuilder::new().pool(&h2_pool_lines()).zone("here/near", &[near]);
    if let Some(far) = far {
        config = config.zone("here/far", &[far]);
    }
    Gapless::start_ready(&config)
}

pub(super) fn spawn_request(
    address: SocketAddr,
    method: &'static str,
    target: &'static str,
) -> JoinHandle<TestResponse> {
    std::thread::spawn(move || {
        let body: &[u8] = if method == "POST" { b"body" } else { b"" };
        request(address, method, target, body)
    })
}

#[test]
fn requests_and_responses_pass_over_http2() {
    let (server, state) = start_h2_endpoint("web", MANY_STREAMS);
    let gapless = start_gapless(server.address, None);
    let mut client = TestClient::open(gapless.address);
    let fields = [
        ("x-a", "1"),
        ("x-forwarded-for", "6.6.6.6"),
        ("x-real-ip", "6.6.6.6"),
        ("x-forwarded-port", "443"),
        ("connection", "x-secret"),
        ("x-secret", "s"),
        ("te", "gzip"),
        ("keep-alive", "timeout=5"),
    ];
    let answer = client.exchange("POST", "/some/path?q=1", &fields, b"body").expect("an answer");
    assert_eq!((answer.status, answer.text().as_str()), (200, "web"));
    assert_eq!(answer.field("content-length"), Some("3"));
    let got = &state.received()[0];
    let uri = &got.head.uri;
    assert_eq!(uri.to_string(), "http://test.example/some/path?q=1");
    assert_eq!((got.head.method.as_str(), got.body.as_slice()), ("POST", &b"body"[..]));
    let field = |name: &str| got.head.headers.get(name).map(|value| value.to_str().expect("text"));
    assert_eq!(field("x-a"), Some("1"));
    assert_eq!(field("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(field("x-forwarded-host"), Some("test.example"));
    assert_eq!(field("content-length"), Some("4"));
    assert_eq!(field("via"), Some("1.1 gapless"));
    let stripped =
        ["connection", "x-secret", "te", "keep-alive", "host", "x-real-ip", "x-forwarded-port"];
    for field_name in stripped {
        assert_eq!(field(field_name), None, "{field_name}");
    }
    let answer = client.exchange("GET", "/none", &[], b"").expect("an answer");
    assert_eq!((answer.status, answer.body.len()), (204, 0));
    let answer = client.exchange("HEAD", "/", &[], b"").expect("an answer");
    assert_eq!(answer.status, 200);
    assert_eq!(state.connections(), 1, "all on one connection");
}

#[test]
fn large_bodies_pass_in_both_directions() {
    let (server, state) = start_h2_endpoint("web", MANY_STREAMS);
    let gapless = start_gapless(server.address, None);
    let body: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    let answer = request(gapless.address, "POST", "/echo", &body);
    assert_eq!((answer.status, answer.body == body), (200, true));
    let mut client = TestClient::open(gapless.address);
    client
        .send(b"POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n")
        .expect("sent");
    for piece in body.chunks(100_000) {
        client.send(format!("{:x}\r\n", piece.len())).expect("sent");
        client.send(piece).expect("sent");
        client.send("\r\n").expect("sent");
    }
    client.send("0\r\n\r\n").expect("sent");
    let answer = client.read_response("POST").expect("an answer");
    assert_eq!((answer.status, answer.body == body), (200, true));
    assert_eq!(state.connections(), 1);
}

#[test]
fn stream_limit_opens_another_connection() {
    let (server, state) = start_h2_endpoint("web", 3);
    let gapless = start_gapless(server.address, None);
    let requests: Vec<_> =
        (0..20).map(|_| spawn_request(gapless.address, "POST", "/gate")).collect();
    eventually("all have come at once", DEFAULT_TIMEOUT, || state.received().len() == 20);
    assert_eq!(state.peak_streams(), 3);
    assert!((7..=20).contains(&state.connections()), "{}", state.connections());
    state.response_permits.add_permits(20);
    for handle in requests {
        let answer = handle.join().expect("no panic");
        assert_eq!((answer.status, answer.field("x-gapless-attempts")), (200, Some("1")));
    }
    let connections = state.connections();
    for _ in 0..10 {
        assert_eq!(request(gapless.address, "POST", "/", b"body").status, 200);
    }
    assert_eq!(state.connections(), connections, "there are enough");
}

#[test]
fn concurrent_requests_share_the_first_connection() {
    let (server, state) = start_h2_endpoint("web", MANY_STREAMS);
    let gapless = start_gapless(server.address, None);
    let requests: Vec<_> =
        (0..30).map(|_| spawn_request(gapless.address, "GET", "/gate")).collect();
    eventually("all have come at once", DEFAULT_TIMEOUT, || state.received().len() == 30);
    state.response_permits.add_permits(30);
    assert!(requests.into_iter().all(|handle| handle.join().expect("no panic").status == 200));
    assert_eq!((state.connections(), state.peak_streams()), (1, 30));
}

/// After `requests` requests sends a GOAWAY that includes only the first, and answers that one.
fn start_goaway_server(requests: usize) -> (TestServer, Arc<AtomicUsize>) {
    let executed = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&executed);
    let serve = connection_handler(move |io| {
        let count = Arc::clone(&count);
        async move {
            let mut raw = RawH2Server(io);
            let _ = raw.accept_preface().await;
            let mut started = 0;
            while let Ok((kind, ..)) = raw.next_frame().await {
                started += usize::from(kind == 1);
                if kind == 1 && started == requests {
                    let _ = raw.send(7, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0]).await;
                    count.fetch_add(1, SeqCst);
                    let _ = raw.send_ok(1).await;
                }
            }
        }
    });
    (TestServer::start_cleartext(serve), executed)
}

#[test]
fn request_beyond_goaway_is_retried_whatever_its_method() {
    let (near, executed) = start_goaway_server(8);
    let (far, others) = start_h2_endpoint("far", MANY_STREAMS);
    let gapless = start_gapless(near.address, Some(far.address));
    let requests: Vec<_> = (0..8).map(|_| spawn_request(gapless.address, "POST", "/")).collect();
    let answers: Vec<_> =
        requests.into_iter().map(|handle| handle.join().expect("no panic")).collect();
    assert!(answers.iter().all(|answer| answer.status == 200));
    let elsewhere = answers.iter().filter(|answer| answer.field("x-endpoint") == Some("far"));
    assert_eq!((executed.load(SeqCst), elsewhere.count()), (1, 7));
    assert_eq!(others.received().len(), 7, "none twice, none lost");
    // The connection with the GOAWAY takes no more requests.
    assert_eq!(gapless.endpoint(near.address)["traffic"]["failed"], 0);
}

#[test]
fn connection_after_goaway_finishes_and_takes_no_more() {
    let (server, state) = start_h2_endpoint("web", MANY_STREAMS);
    let gapless = start_gapless(server.address, None);
    let running = spawn_request(gapless.address, "POST", "/gate");
    eventually("it has come", DEFAULT_TIMEOUT, || state.received().len() == 1);
    assert_eq!(request(gapless.address, "POST", "/goodbye", b"body").status, 200);
    assert_eq!(state.connections(), 1);
    eventually("another connection is used", DEFAULT_TIMEOUT, || {
        assert_eq!(request(gapless.address, "POST", "/", b"body").status, 200);
        state.connections() == 2
    });
    state.response_permits.add_permits(1);
    assert_eq!(running.join().expect("no panic").status, 200);
}

#[test]
fn refused_stream_is_retried_whatever_its_method() {
    let (near, refusing) = start_h2_endpoint("near", MANY_STREAMS);
    let (far, others) = start_h2_endpoint("far", MANY_STREAMS);
    let gapless = start_gapless(near.address, Some(far.address));
    // The other endpoint does not refuse and must not get this path.
    let answer = request(gapless.address, "POST", "/refuse", b"body");
    assert_eq!(answer.status_and_reason(), (502, Some("reset")), "both refuse");
    assert_eq!((refusing.started(), others.started()), (1, 1));
    let refusing = start_refusing_server();
    let gapless = start_gapless(refusing.address, Some(far.address));
    let answer = request(gapless.address, "POST", "/", b"body");
    assert_eq!((answer.status, answer.field("x-gapless-attempts")), (200, Some("2")));
    assert_eq!(others.received().len(), 1);
}

fn start_refusing_server() -> TestServer {
    let serve = connection_handler(|io| async move {
        let mut raw = RawH2Server(io);
        let _ = raw.accept_preface().await;
        while let Ok((kind, _, stream, _)) = raw.next_frame().await {
            if kind == 1 {
                let _ = raw.send(3, 0, stream, &[0, 0, 0, 7]).await;
            }
        }
    });
    TestServer::start_cleartext(serve)
}

#[test]
fn post_that_may_have_executed_is_not_retried() {
    let near = start_closing_server();
    let (far, others) = start_h2_endpoint("far", MANY_STREAMS);
    let gapless = start_gapless(near.address, Some(far.address));
    let answer = request(gapless.address, "POST", "/", b"body");
    assert_eq!(answer.status_and_reason(), (502, Some("reset")));
    assert_eq!(others.started(), 0);
    // The failure made a doubt, so a fresh instance is used.
    let gapless = start_gapless(near.address, Some(far.address));
    let answer = request(gapless.address, "GET", "/", b"");
    assert_eq!((answer.status, answer.field("x-gapless-attempts")), (200, Some("2")));
}

/// Reads a request and ends the connection.
fn start_closing_server() -> TestServer {
    let serve = connection_handler(|io| async move {
        let mut raw = RawH2Server(io);
        let _ = raw.accept_preface().await;
        while let Ok((kind, ..)) = raw.next_frame().await {
            if kind == 1 {
                return;
            }
        }
    });
    TestServer::start_cleartext(serve)
}

/// Answers each request with this many interim responses, then with a 200.
fn start_interim_server(count: usize, status: &'static str) -> TestServer {
    TestServer::start_cleartext(connection_handler(move |io| async move {
        let mut raw = RawH2Server(io);
        if raw.accept_preface().await.is_err() {
            return;
        }
        while let Ok((kind, _, stream, _)) = raw.next_frame().await {
            if kind != 1 {
                continue;
            }
            for _ in 0..count {
                // `:status`, never indexed, without END_HEADERS.
                let head = [b"\x18\x03", status.as_bytes()].concat();
                if raw.send(1, 4, stream, &head).await.is_err() {
                    return;
                }
            }
            if raw.send_ok(stream).await.is_err() {
                return;
            }
        }
    }))
}

#[test]
fn interim_responses_are_limited() {
    for (count, status) in [(0, 200), (16, 200), (17, 502), (100_000, 502)] {
        let server = start_interim_server(count, "103");
        let gapless = start_gapless(server.address, None);
        let rss_before_kib = gapless.rss_kib();
        assert_eq!(gapless.get("/").status, status, "{count}");
        // An incident also starts a prediction, which takes some memory; the flood would take 20
        // MiB.
        assert!(
            gapless.rss_kib() < rss_before_kib + 8 * 1024,
            "{count}: {rss_before_kib} {}",
            gapless.rss_kib()
        );
    }
}

/// HTTP/2 has no 101 (RFC 9113 8.6): a client would wait for another protocol.
#[test]
fn http2_response_101_becomes_502() {
    let server = start_interim_server(1, "101");
    let gapless = start_gapless(server.address, None);
    let mut client = TestClient::open(gapless.address);
    client.send("GET / HTTP/1.1\r\nhost: a.example\r\n\r\n").expect("sent");
    let head = client.wire.read_head().expect("read").expect("a head");
    assert_eq!(
        (head.start_line_word(1), head.field("x-gapless-reason")),
        ("502", Some("bad_response"))
    );
}

#[test]
fn interim_response_is_forwarded_to_http1() {
    let server = start_interim_server(1, "103");
    let gapless = start_gapless(server.address, None);
    let mut client = TestClient::open(gapless.address);
    client.send("GET / HTTP/1.1\r\nhost: a.example\r\n\r\n").expect("sent");
    let heads: Vec<String> = (0..2)
        .map(|_| {
            client.wire.read_head().expect("read").expect("a head").start_line_word(1).to_owned()
        })
        .collect();
    assert_eq!(heads, ["103", "200"]);
}

#[test]
fn client_disconnect_cancels_only_its_stream() {
    let (server, state) = start_h2_endpoint("web", MANY_STREAMS);
    let gapless = start_gapless(server.address, None);
    let running = spawn_request(gapless.address, "POST", "/gate");
    eventually("it has come", DEFAULT_TIMEOUT, || state.received().len() == 1);
    let mut client = TestClient::open(gapless.address);
    client.send("POST /hang HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nbody").expect("sent");
    eventually("both have come", DEFAULT_TIMEOUT, || state.started() == 2);
    drop(client);
    eventually("it is withdrawn", DEFAULT_TIMEOUT, || state.resets() == [Reason::CANCEL]);
    state.response_permits.add_permits(1);
    assert_eq!(running.join().expect("no panic").status, 200);
    assert_eq!(state.connections(), 1);
}

#[test]
fn truncated_response_is_cut_for_the_client() {
    let (server, state) = start_h2_endpoint("web", MANY_STREAMS);
    let gapless = start_gapless(server.address, None);
    let mut client = TestClient::open(gapless.address);
    client.send("POST /cut HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n").expect("sent");
    let head = client.wire.read_head().expect("a head").expect("an answer");
    assert_eq!(head.start_line_word(1), "200");
    assert_eq!(client.wire.read_chunk().expect("a piece").as_deref(), Some(&b"half!"[..]));
    state.response_permits.add_permits(1);
    assert!(client.wire.read_chunk().is_err(), "no end");
    // A body that differs from its Content-Length ends a retryable request without a retry.
    let answer = request(gapless.address, "GET", "/short", b"");
    assert_eq!((answer.status, answer.field("x-gapless-reason").is_some()), (502, true));
    assert_eq!(request(gapless.address, "GET", "/", b"").status, 200);
    assert_eq!(state.connections(), 1, "the connection is none the worse");
}

#[test]
fn trailers_pass_in_both_directions() {
    let (server, state) = start_h2_endpoint("web", MANY_STREAMS);
    let gapless = start_gapless(server.address, None);
    let mut client = TestClient::open(gapless.address);
    client
        .send(
            "POST /grpc HTTP/1.1\r\nhost: a\r\nte: trailers\r\ntransfer-encoding: chunked\r\n\
             trailer: x-sum\r\n\r\n3\r\nabc\r\n0\r\nx-sum: 1\r\nhost: evil\r\n\r\n",
        )
        .expect("sent");
    let head = client.wire.read_head().expect("a head").expect("an answer");
    assert_eq!(head.field("trailer"), Some("grpc-status"));
    assert_eq!(client.wire.read_chunk().expect("a piece").as_deref(), Some(&b"\0\0\0\0\0"[..]));
    let lines: Vec<_> = (0..3).map(|_| client.wire.read_line().expect("a line")).collect();
    assert_eq!(lines, ["0", "grpc-status: 0", ""]);
    let got = &state.received()[0];
    assert_eq!(
        (got.body.as_slice(), got.head.headers["te"].as_bytes()),
        (&b"abc"[..], &b"trailers"[..])
    );
    let trailers = got.trailers.as_ref().expect("some");
    assert_eq!((trailers.len(), trailers["x-sum"].as_bytes()), (1, &b"1"[..]));
}

#[test]
fn trailers_after_a_known_length_are_dropped() {
    let (server, state) = start_h2_endpoint("web", MANY_STREAMS);
    let gapless = start_gapless(server.address, None);
    let mut client = TestClient::open(gapless.address);
    for method in ["GET", "POST", "GET"] {
        let answer = client.exchange(method, "/small", &[], b"").expect("an answer");
        assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
        assert_eq!(answer.field("content-length"), Some("2"));
    }
    assert_eq!((state.connections(), state.resets().len()), (1, 0));
}

#[test]
fn post_to_http1_only_endpoint_is_retried() {
    let near = TestEndpoint::start("near");
    let (far, others) = start_h2_endpoint("far", MANY_STREAMS);
    let gapless = start_gapless(near.address(), Some(far.address));
    let answer = request(gapless.address, "POST", "/", b"body");
    assert_eq!((answer.status, answer.field("x-gapless-attempts")), (200, Some("2")));
    assert_eq!(others.received().len(), 1);
}

#[test]
fn closed_connection_to_a_stopped_endpoint_is_not_reused() {
    let (near, state) = start_h2_endpoint("near", MANY_STREAMS);
    let (far, _) = start_h2_endpoint("far", MANY_STREAMS);
    let gapless = start_gapless(near.address, Some(far.address));
    assert_eq!(request(gapless.address, "POST", "/", b"body").field("x-endpoint"), Some("near"));
    drop(near);
    for _ in 0..5 {
        let answer = request(gapless.address, "POST", "/", b"body");
        assert_eq!(answer.field("x-endpoint"), Some("far"));
    }
    assert_eq!(state.received().len(), 1);
}

#[test]
fn verdict_aborts_streams_and_rescues_only_the_get() {
    let (near, state) = start_h2_endpoint("near", MANY_STREAMS);
    let (far, others) = start_h2_endpoint("far", MANY_STREAMS);
    others.response_permits.add_permits(10);
    let lines = "probe = { http2 = \"/healthz\" }\nprotocol = \"http2\"\n\
                 detect = { interval = \"200ms\", timeout = \"200ms\", down_interval = \"200ms\" }\n\
                 stall = { floor = \"5s\" }";
    let config = ConfigBuilder::new()
        .pool(lines)
        .zone("here/near", &[near.address])
        .zone("here/far", &[far.address]);
    let gapless = Gapless::start_ready(&config);
    let waiting = ["GET", "POST"].map(|method| spawn_request(gapless.address, method, "/gate"));
    eventually("both wait", DEFAULT_TIMEOUT, || state.received().len() == 2);
    state.is_probe_hung.store(true, SeqCst);
    let [get, post] = waiting.map(|handle| handle.join().expect("no panic"));
    assert_eq!((get.status, get.field("x-endpoint")), (200, Some("far")));
    assert_eq!(post.status_and_reason(), (502, Some("endpoint_down")));
    assert_eq!(others.received().len(), 1, "what may have been executed is not asked again");
}

#[test]
fn alpn_selects_the_upstream_protocol() {
    let authority = CertificateAuthority::new("tests");
    let directory = tempfile::TempDir::new().expect("a directory");
    let ca_file = directory.path().join("ca.pem");
    std::fs::write(&ca_file, authority.pem()).expect("written");
    let identity = authority.server_certificate(&["127.0.0.1"], CertificateValidity::Current);
    let config = |alpn: &[&str]| identity.server_config(&ClientAuth::NotRequested, alpn);
    let state = H2EndpointState::new("h2", MANY_STREAMS);
    let both = TestServer::start_tls(config(&["h2", "http/1.1"]), state.serve());
    let only_h1 = TestServer::start_tls(
        config(&["http/1.1"]),
        http1_handler(&ok_response("x-endpoint: h1\r\n", "h1")),
    );
    let silent =
        TestServer::start_tls(config(&[]), http1_handler(&ok_response("x-endpoint: h1\r\n", "h1")));
    let result_of = |protocol: &str, address: SocketAddr| {
        let tls = format!("tls = {{ ca_file = \"{}\" }}", ca_file.display());
        let lines = format!("{WITHOUT_VERDICTS}\n{tls}\nprotocol = \"{protocol}\"");
        let gapless =
            Gapless::start_ready(&ConfigBuilder::new().pool(&lines).zone("a/b", &[address]));
        let requests: Vec<_> = (0..4).map(|_| spawn_request(gapless.address, "GET", "/")).collect();
        let answers = requests.into_iter().map(|handle| handle.join().expect("no panic"));
        let mut results: Vec<_> = answers
            .map(|answer| (answer.status, answer.field("x-endpoint").map(str::to_owned)))
            .collect();
        results.dedup();
        assert_eq!(results.len(), 1, "{results:?}");
        results.remove(0)
    };
    let expected = |name: &str| (200, Some(name.to_owned()));
    assert_eq!(result_of("auto", both.address), expected("h2"));
    assert_eq!(result_of("http2", both.address), expected("h2"));
    assert_eq!(state.connections(), 2, "one for each instance");
    assert!(state.received().iter().all(|got| got.head.uri.scheme_str() == Some("https")));
    assert_eq!(result_of("auto", only_h1.address), expected("h1"));
    assert_eq!(result_of("auto", silent.address), expected("h1"));
    assert_eq!(result_of("http2", only_h1.address), (502, None));
    assert_eq!(result_of("http2", silent.address), (502, None));
}
