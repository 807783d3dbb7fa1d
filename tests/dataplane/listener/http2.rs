//! HTTP/2 from well-behaved clients, over TLS and in cleartext.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Connection, ResponseFuture, SendRequest};
use http::{HeaderMap, Request, StatusCode};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::LocalSet;
use tokio_rustls::TlsConnector;

use super::tls_client::{TLS12_AND_TLS13, client_config};
use super::{start_cleartext, start_tls};
use crate::support::client::TestClient;
use crate::support::config::ConfigBuilder;
use crate::support::endpoint::{ConnectionAction, ResponseMode};
use crate::support::instance::Gapless;
use crate::support::pki::CertificateAuthority;
use crate::support::{DEFAULT_TIMEOUT, eventually};

/// Timeout of one step of a test.
const RECEIVE_TIMEOUT: Duration = Duration::from_secs(20);

pub(crate) fn block_on_local<T>(client: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    LocalSet::new().block_on(&runtime.expect("a runtime"), client)
}

/// The response to a request.
#[derive(Debug)]
pub(crate) struct H2Response {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

/// Speaks HTTP/2 on a stream.
pub(crate) async fn handshake_http2<T>(
    io: T,
    window: u32,
) -> (SendRequest<Bytes>, Connection<T, Bytes>)
where
    T: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(window).initial_connection_window_size(1 << 20);
    builder.handshake(io).await.expect("HTTP/2")
}

/// Starts HTTP/2 in cleartext.
pub(crate) async fn connect_http2(address: SocketAddr) -> SendRequest<Bytes> {
    connect_with_window(address, 1 << 20).await
}

async fn connect_with_window(address: SocketAddr, window: u32) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(address).await.expect("a connection");
    let (client, connection) = handshake_http2(stream, window).await;
    tokio::task::spawn_local(connection);
    client
}

/// Agrees on HTTP/2 by ALPN.
async fn connect_http2_over_tls(
    address: SocketAddr,
    authority: &CertificateAuthority,
) -> SendRequest<Bytes> {
    let client = client_config(authority, None, &["h2", "http/1.1"], TLS12_AND_TLS13);
    let stream = TcpStream::connect(address).await.expect("a connection");
    let name = ServerName::try_from("a.example").expect("a name");
    let stream = TlsConnector::from(client).connect(name, stream).await.expect("shaken");
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (client, connection) = handshake_http2(stream, 1 << 20).await;
    tokio::task::spawn_local(connection);
    client
}

pub(crate) fn get_request(path: &str) -> Request<()> {
    let uri = format!("http://a.example{path}");
    Request::builder().uri(uri).body(()).expect("a request")
}

fn post_request() -> Request<()> {
    let mut request = get_request("/");
    *request.method_mut() = http::Method::POST;
    request
}

/// Sends a request; a body is sent in pieces of 10,000 bytes.
pub(crate) async fn send_request(
    client: &mut SendRequest<Bytes>,
    request: Request<()>,
    body: &[u8],
) -> Result<H2Response, h2::Error> {
    let mut ready = client.clone().ready().await?;
    let (response, mut stream) = ready.send_request(request, body.is_empty())?;
    let sending = async {
        let mut pieces = body.chunks(10_000).peekable();
        while let Some(piece) = pieces.next() {
            stream.reserve_capacity(piece.len());
            let mut sent = 0;
            while sent < piece.len() {
                while stream.capacity() == 0 {
                    // A response before the end stops the upload.
                    match std::future::poll_fn(|cx| stream.poll_capacity(cx)).await {
                        Some(Ok(_)) => {}
                        _ => return,
                    }
                }
                let capacity = stream.capacity().min(piece.len() - sent);
                let is_last = pieces.peek().is_none() && sent + capacity == piece.len();
                let bytes = Bytes::copy_from_slice(&piece[sent..sent + capacity]);
                if stream.send_data(bytes, is_last).is_err() {
                    return;
                }
                sent += capacity;
            }
        }
    };
    let (answer, ()) = tokio::join!(receive_response(response), sending);
    answer
}

pub(crate) async fn receive_response(response: ResponseFuture) -> Result<H2Response, h2::Error> {
    let receiving = async {
        let (head, mut stream) = response.await?.into_parts();
        let mut body = Vec::new();
        while let Some(piece) = stream.data().await {
            let piece = piece?;
            stream.flow_control().release_capacity(piece.len())?;
            body.extend_from_slice(&piece);
        }
        Ok(H2Response { status: head.status, headers: head.headers, body })
    };
    tokio::time::timeout(RECEIVE_TIMEOUT, receiving).await.expect("an answer in time")
}

async fn send_request_ok(
    client: &mut SendRequest<Bytes>,
    request: Request<()>,
    body: &[u8],
) -> H2Response {
    send_request(client, request, body).await.expect("an answer")
}

#[test]
fn concurrent_streams_work_over_tls_and_cleartext() {
    let (tls_endpoint, tls_gapless, authority) = start_tls(&ConfigBuilder::new(), "");
    let (cleartext_endpoint, cleartext_gapless) = start_cleartext(&ConfigBuilder::new(), "");
    block_on_local(async {
        let tls = connect_http2_over_tls(tls_gapless.address, &authority).await;
        for client in [tls, connect_http2(cleartext_gapless.address).await] {
            let requests: Vec<_> = (0..500)
                .map(|n| {
                    let mut client = client.clone();
                    let path = format!("/{n}");
                    tokio::task::spawn_local(async move {
                        send_request_ok(&mut client, get_request(&path), b"").await
                    })
                })
                .collect();
            for answer in requests {
                let answer = answer.await.expect("no panic");
                assert_eq!((answer.status, &answer.body[..]), (StatusCode::OK, &b"one"[..]));
                assert!(!answer.headers.contains_key("connection"));
            }
        }
    });
    for (endpoint, scheme) in [(tls_endpoint, "https"), (cleartext_endpoint, "http")] {
        let seen = endpoint.requests();
        assert_eq!(seen.len(), 500);
        let head = &seen[0].head;
        assert_eq!(head.field("host"), Some("a.example"));
        assert_eq!(head.field("x-forwarded-proto"), Some(scheme));
        assert_eq!(head.field("via"), Some("2.0 gapless"));
        for framing in ["transfer-encoding", "content-length"] {
            assert_eq!(head.field(framing), None, "there is no body");
        }
    }
}

#[test]
fn http2_bodies_pass_in_both_directions() {
    let (endpoint, gapless, authority) = start_tls(&ConfigBuilder::new(), "");
    let big: String = "0123456789abcdef".repeat(128 * 1024);
    endpoint.set_mode(ResponseMode::Body(big.clone()));
    block_on_local(async {
        let mut client = connect_http2_over_tls(gapless.address, &authority).await;
        let mut with_length = post_request();
        let length = big.len().into();
        with_length.headers_mut().insert("content-length", length);
        for request in [post_request(), with_length] {
            let answer = send_request_ok(&mut client, request, big.as_bytes()).await;
            assert_eq!((answer.status, answer.body.len()), (StatusCode::OK, big.len()));
        }
        let mut empty = post_request();
        empty.headers_mut().insert("content-length", 0.into());
        assert_eq!(send_request_ok(&mut client, empty, b"").await.status, StatusCode::OK);
    });
    let seen = endpoint.requests();
    let framing = |at: usize| {
        let head = &seen[at].head;
        (head.field("transfer-encoding"), head.field("content-length"))
    };
    assert!(seen[..2].iter().all(|seen| seen.body == big.as_bytes()));
    assert_eq!(framing(0), (Some("chunked"), None));
    assert_eq!(framing(1), (None, Some(&*big.len().to_string())));
    assert_eq!(framing(2), (None, Some("0")));
}

#[test]
fn split_cookie_fields_are_joined_for_the_endpoint() {
    let (endpoint, gapless) = start_cleartext(&ConfigBuilder::new(), "");
    block_on_local(async {
        let mut client = connect_http2(gapless.address).await;
        let mut request = get_request("/");
        for cookie in ["a=1", "", "b=2; c=3", "d=4", ""] {
            request.headers_mut().append("cookie", cookie.parse().expect("a value"));
        }
        request.headers_mut().append("te", "trailers".parse().expect("a value"));
        assert_eq!(send_request_ok(&mut client, request, b"").await.status, StatusCode::OK);
    });
    let seen = endpoint.requests();
    let cookies: Vec<_> = seen[0].head.field_values("cookie").collect();
    assert_eq!(cookies, ["a=1; b=2; c=3; d=4"]);
    assert_eq!(seen[0].head.field("te"), Some("trailers"));
    assert_eq!(seen[0].head.field("connection"), Some("te"));
}

#[test]
fn hop_by_hop_response_fields_are_dropped() {
    let (endpoint, gapless) = start_cleartext(&ConfigBuilder::new(), "");
    let fields = "connection: x-secret, keep-alive\r\nkeep-alive: timeout=5\r\nx-secret: s\r\n\
                  proxy-connection: close\r\nupgrade: h2c\r\nx-open: o\r\n";
    endpoint.set_mode(ResponseMode::Raw(
        format!("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n{fields}\r\nhi").into_bytes(),
    ));
    block_on_local(async {
        let answer =
            send_request_ok(&mut connect_http2(gapless.address).await, get_request("/"), b"").await;
        assert_eq!(answer.body, b"hi");
        for field in ["connection", "keep-alive", "x-secret", "proxy-connection", "upgrade"] {
            assert_eq!(answer.headers.get(field), None);
        }
        assert_eq!(answer.headers["x-open"], "o");
    });
    assert!(!gapless.log().contains("illegal in HTTP/2"), "nothing was left for hyper to mend");
}

#[test]
fn error_responses_keep_the_http2_connection_open() {
    let config = ConfigBuilder::new()
        .route("limits = { body = \"1KiB\" }")
        .tables("[limits]\nheader_count = 20");
    let (endpoint, gapless) = start_cleartext(&config, "");
    block_on_local(async {
        let mut client = connect_http2(gapless.address).await;
        let mut connect = Request::new(());
        *connect.method_mut() = http::Method::CONNECT;
        *connect.uri_mut() = "a.example:443".parse().expect("an authority");
        let mut many_fields = get_request("/");
        for n in 0..21 {
            let name = http::HeaderName::try_from(format!("x-{n}")).expect("a name");
            many_fields.headers_mut().insert(name, n.into());
        }
        let mut host_mismatch = get_request("/");
        host_mismatch.headers_mut().insert("host", "other.example".parse().expect("a value"));
        let cases = [
            (connect, &b""[..], 405, "method_refused"),
            (many_fields, b"", 431, "head_too_large"),
            (host_mismatch, b"", 400, "bad_request"),
            (post_request(), &[b'x'; 100_000][..], 413, "body_too_large"),
        ];
        for (request, body, status, reason) in cases {
            let answer = send_request_ok(&mut client, request, body).await;
            assert_eq!(answer.status.as_u16(), status);
            assert_eq!(answer.headers["x-gapless-reason"], reason);
            assert_eq!(answer.headers.get("connection"), None);
        }
        let response = send_request_ok(&mut client, get_request("/"), b"").await;
        assert_eq!(response.status, StatusCode::OK, "the connection is as good as before");
    });
    assert_eq!(endpoint.requests().len(), 1);
    assert!(!gapless.log().contains("illegal in HTTP/2"), "nothing was left for hyper to mend");
}

#[test]
fn listener_without_http2_serves_only_http1() {
    let (endpoint, gapless) = start_cleartext(&ConfigBuilder::new(), "http2 = false");
    assert_eq!(gapless.get("/").status, 200);
    block_on_local(async {
        let stream = TcpStream::connect(gapless.address).await.expect("a connection");
        let (mut client, connection) = handshake_http2(stream, 1 << 20).await;
        tokio::task::spawn_local(connection);
        send_request(&mut client, get_request("/"), b"").await.expect_err("no HTTP/2");
    });
    assert_eq!(endpoint.requests().len(), 1);
}

#[test]
fn http1_is_detected_however_its_bytes_are_split() {
    let (endpoint, gapless) = start_cleartext(&ConfigBuilder::new(), "");
    let request = "PRI / HTTP/1.1\r\nhost: a\r\n\r\n";
    let mut client = TestClient::open(gapless.address);
    for byte in request.bytes() {
        client.send([byte]).expect("sent");
        std::thread::yield_now();
    }
    assert_eq!(client.read_response("GET").expect("an answer").status, 200);
    let mut client = TestClient::open(gapless.address);
    let upload = format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9000\r\n\r\n{:9000}", "");
    client.send([upload.as_bytes(), request.as_bytes()].concat()).expect("sent");
    for _ in 0..2 {
        assert_eq!(client.read_response("GET").expect("an answer").status, 200);
    }
    let methods: Vec<_> =
        endpoint.requests().iter().map(|seen| seen.head.start_line_word(0).to_owned()).collect();
    assert_eq!(methods, ["PRI", "POST", "PRI"]);
}

#[test]
fn connection_without_first_request_times_out() {
    let config = ConfigBuilder::new().tables("[limits]\nheader_timeout = \"500ms\"");
    let (endpoint, gapless) = start_cleartext(&config, "");
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let preface_and_settings = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &settings].concat();
    for prefix in [
        &b""[..],
        b"P",
        b"PRI * HTTP/2.0\r\n\r\nSM",
        &preface_and_settings[..24],
        &preface_and_settings,
    ] {
        let mut client = TestClient::open(gapless.address);
        client.send(prefix).expect("sent");
        client.wire.read_to_end().expect("the end of the connection");
    }
    assert_eq!(endpoint.requests().len(), 0);
}

#[test]
fn stream_reset_by_client_is_not_endpoint_evidence() {
    let (endpoint, gapless) = start_cleartext(&ConfigBuilder::new(), "");
    endpoint.set_mode(ResponseMode::Hang);
    block_on_local(async {
        let client = connect_http2(gapless.address).await;
        for n in 1..=20 {
            let mut ready = client.clone().ready().await.expect("open");
            let (response, mut stream) = ready.send_request(get_request("/"), true).expect("sent");
            let has_arrived = || endpoint.requests().len() == n;
            while !has_arrived() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            stream.send_reset(h2::Reason::CANCEL);
            drop(response);
        }
        // Half of a body, then a reset.
        endpoint.set_mode(ResponseMode::Ok);
        let mut ready = client.clone().ready().await.expect("open");
        let (response, mut stream) = ready.send_request(post_request(), false).expect("sent");
        stream.send_data(Bytes::from_static(b"half"), false).expect("sent");
        stream.send_reset(h2::Reason::CANCEL);
        drop(response);
        let answer = send_request_ok(&mut client.clone(), get_request("/"), b"").await;
        assert_eq!(answer.status, StatusCode::OK);
    });
    eventually("its requests are withdrawn", DEFAULT_TIMEOUT, || endpoint.reset_count() >= 20);
    assert_eq!(gapless.endpoint_state(endpoint.address()), "up");
    assert!(!gapless.log().contains("suspect"));
}

/// A body whose window is never opened.
#[test]
fn stream_with_closed_window_is_reset_after_timeout() {
    let config = ConfigBuilder::new().tables("[limits]\nwrite_timeout = \"500ms\"");
    let (endpoint, gapless) = start_cleartext(&config, "");
    let is_send_aborted = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let has_failed = Arc::clone(&is_send_aborted);
    endpoint.set_mode(ResponseMode::script(move |_, wire| {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", 64 << 20);
        wire.send(head)?;
        for _ in 0..64 {
            if wire.send(vec![b'x'; 1 << 20]).is_err() {
                has_failed.store(true, std::sync::atomic::Ordering::SeqCst);
                return Ok(ConnectionAction::Close);
            }
        }
        Ok(ConnectionAction::Keep)
    }));
    block_on_local(async {
        let client = connect_with_window(gapless.address, 0).await;
        let mut ready = client.clone().ready().await.expect("open");
        let (response, _stream) = ready.send_request(get_request("/"), true).expect("sent");
        let error = receive_response(response).await.expect_err("a reset");
        assert!(error.is_reset(), "{error}");
    });
    eventually("its endpoint is free", DEFAULT_TIMEOUT, || {
        is_send_aborted.load(std::sync::atomic::Ordering::SeqCst)
    });
    assert_eq!(gapless.endpoint_state(endpoint.address()), "up");
}

/// Unread responses on all streams do not harm the proxy.
#[test]
fn unread_streams_do_not_delay_other_clients() {
    let (endpoint, gapless) = start_cleartext(&ConfigBuilder::new(), "");
    endpoint.set_mode(ResponseMode::Body("x".repeat(60_000)));
    let assert_served = |gapless: &Gapless| assert_eq!(gapless.get("/").status, 200);
    block_on_local(async {
        let client = connect_with_window(gapless.address, 0).await;
        let mut waiting = Vec::new();
        for _ in 0..100 {
            let mut ready = client.clone().ready().await.expect("open");
            waiting.push(ready.send_request(get_request("/"), true).expect("sent"));
        }
        let has_arrived = || endpoint.requests().len() >= 100;
        while !has_arrived() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_served(&gapless);
    });
}
