//! HTTP/2 as clients that mean well speak it, over TLS and in cleartext.

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

use super::secure::{BOTH, config};
use super::{encrypted, plain};
use crate::support::client::Client;
use crate::support::config::Config;
use crate::support::endpoint::{Mode, Next};
use crate::support::instance::Gapless;
use crate::support::pki::Authority;
use crate::support::{SOON, eventually};

/// Longest that a test waits for one thing.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs a client.
pub(crate) fn run<T>(client: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    LocalSet::new().block_on(&runtime.expect("a runtime"), client)
}

/// What arrived in answer to a request.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

/// Speaks HTTP/2 on a stream.
pub(crate) async fn speak<T>(io: T, window: u32) -> (SendRequest<Bytes>, Connection<T, Bytes>)
where
    T: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(window).initial_connection_window_size(1 << 20);
    builder.handshake(io).await.expect("HTTP/2")
}

/// Begins with HTTP/2 in cleartext.
pub(crate) async fn open(address: SocketAddr) -> SendRequest<Bytes> {
    open_with(address, 1 << 20).await
}

async fn open_with(address: SocketAddr, window: u32) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(address).await.expect("a connection");
    let (client, connection) = speak(stream, window).await;
    tokio::task::spawn_local(connection);
    client
}

/// Agrees on HTTP/2 by ALPN.
async fn open_tls(address: SocketAddr, authority: &Authority) -> SendRequest<Bytes> {
    let client = config(authority, None, &["h2", "http/1.1"], BOTH);
    let stream = TcpStream::connect(address).await.expect("a connection");
    let name = ServerName::try_from("a.example").expect("a name");
    let stream = TlsConnector::from(client).connect(name, stream).await.expect("shaken");
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (client, connection) = speak(stream, 1 << 20).await;
    tokio::task::spawn_local(connection);
    client
}

pub(crate) fn get(path: &str) -> Request<()> {
    let uri = format!("http://a.example{path}");
    Request::builder().uri(uri).body(()).expect("a request")
}

fn post() -> Request<()> {
    let mut request = get("/");
    *request.method_mut() = http::Method::POST;
    request
}

/// Asks; whatever body there is goes in pieces of 10,000 bytes.
pub(crate) async fn ask(
    client: &mut SendRequest<Bytes>,
    request: Request<()>,
    body: &[u8],
) -> Result<Answer, h2::Error> {
    let mut ready = client.clone().ready().await?;
    let (response, mut stream) = ready.send_request(request, body.is_empty())?;
    let sending = async {
        let mut pieces = body.chunks(10_000).peekable();
        while let Some(piece) = pieces.next() {
            stream.reserve_capacity(piece.len());
            let mut sent = 0;
            while sent < piece.len() {
                while stream.capacity() == 0 {
                    // An answer that comes before the end stops the upload.
                    match std::future::poll_fn(|cx| stream.poll_capacity(cx)).await {
                        Some(Ok(_)) => {}
                        _ => return,
                    }
                }
                let room = stream.capacity().min(piece.len() - sent);
                let is_last = pieces.peek().is_none() && sent + room == piece.len();
                let bytes = Bytes::copy_from_slice(&piece[sent..sent + room]);
                if stream.send_data(bytes, is_last).is_err() {
                    return;
                }
                sent += room;
            }
        }
    };
    let (answer, ()) = tokio::join!(receive(response), sending);
    answer
}

pub(crate) async fn receive(response: ResponseFuture) -> Result<Answer, h2::Error> {
    let receiving = async {
        let (head, mut stream) = response.await?.into_parts();
        let mut body = Vec::new();
        while let Some(piece) = stream.data().await {
            let piece = piece?;
            stream.flow_control().release_capacity(piece.len())?;
            body.extend_from_slice(&piece);
        }
        Ok(Answer { status: head.status, headers: head.headers, body })
    };
    tokio::time::timeout(PATIENCE, receiving).await.expect("an answer in time")
}

async fn asked(client: &mut SendRequest<Bytes>, request: Request<()>, body: &[u8]) -> Answer {
    ask(client, request, body).await.expect("an answer")
}

#[test]
fn many_streams_are_answered_over_tls_and_in_cleartext() {
    let (one, secret, authority) = encrypted(&Config::new(), "");
    let (two, clear) = plain(&Config::new(), "");
    run(async {
        let tls = open_tls(secret.address, &authority).await;
        for client in [tls, open(clear.address).await] {
            let asking: Vec<_> = (0..500)
                .map(|n| {
                    let mut client = client.clone();
                    let path = format!("/{n}");
                    tokio::task::spawn_local(
                        async move { asked(&mut client, get(&path), b"").await },
                    )
                })
                .collect();
            for answer in asking {
                let answer = answer.await.expect("no panic");
                assert_eq!((answer.status, &answer.body[..]), (StatusCode::OK, &b"one"[..]));
                assert!(!answer.headers.contains_key("connection"));
            }
        }
    });
    for (endpoint, scheme) in [(one, "https"), (two, "http")] {
        let seen = endpoint.seen();
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
fn bodies_pass_both_ways() {
    let (endpoint, gapless, authority) = encrypted(&Config::new(), "");
    let big: String = "0123456789abcdef".repeat(128 * 1024);
    endpoint.set(Mode::Body(big.clone()));
    run(async {
        let mut client = open_tls(gapless.address, &authority).await;
        let mut measured = post();
        let length = big.len().into();
        measured.headers_mut().insert("content-length", length);
        for request in [post(), measured] {
            let answer = asked(&mut client, request, big.as_bytes()).await;
            assert_eq!((answer.status, answer.body.len()), (StatusCode::OK, big.len()));
        }
        let mut empty = post();
        empty.headers_mut().insert("content-length", 0.into());
        assert_eq!(asked(&mut client, empty, b"").await.status, StatusCode::OK);
    });
    let seen = endpoint.seen();
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
fn crumbs_of_cookies_are_one_field_again() {
    let (endpoint, gapless) = plain(&Config::new(), "");
    run(async {
        let mut client = open(gapless.address).await;
        let mut request = get("/");
        for crumb in ["a=1", "", "b=2; c=3", "d=4", ""] {
            request.headers_mut().append("cookie", crumb.parse().expect("a value"));
        }
        request.headers_mut().append("te", "trailers".parse().expect("a value"));
        assert_eq!(asked(&mut client, request, b"").await.status, StatusCode::OK);
    });
    let seen = endpoint.seen();
    let cookies: Vec<_> = seen[0].head.all("cookie").collect();
    assert_eq!(cookies, ["a=1; b=2; c=3; d=4"]);
    assert_eq!(seen[0].head.field("te"), Some("trailers"));
    assert_eq!(seen[0].head.field("connection"), Some("te"));
}

#[test]
fn fields_of_a_connection_stay_on_it() {
    let (endpoint, gapless) = plain(&Config::new(), "");
    let fields = "connection: x-secret, keep-alive\r\nkeep-alive: timeout=5\r\nx-secret: s\r\n\
                  proxy-connection: close\r\nupgrade: h2c\r\nx-open: o\r\n";
    endpoint.set(Mode::Raw(
        format!("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n{fields}\r\nhi").into_bytes(),
    ));
    run(async {
        let answer = asked(&mut open(gapless.address).await, get("/"), b"").await;
        assert_eq!(answer.body, b"hi");
        for field in ["connection", "keep-alive", "x-secret", "proxy-connection", "upgrade"] {
            assert_eq!(answer.headers.get(field), None);
        }
        assert_eq!(answer.headers["x-open"], "o");
    });
    assert!(!gapless.log().contains("illegal in HTTP/2"), "nothing was left for hyper to mend");
}

#[test]
fn own_answers_leave_the_connection_open() {
    let config =
        Config::new().route("limits = { body = \"1KiB\" }").tables("[limits]\nheader_count = 20");
    let (endpoint, gapless) = plain(&config, "");
    run(async {
        let mut client = open(gapless.address).await;
        let mut connect = Request::new(());
        *connect.method_mut() = http::Method::CONNECT;
        *connect.uri_mut() = "a.example:443".parse().expect("an authority");
        let mut long = get("/");
        for n in 0..21 {
            let name = http::HeaderName::try_from(format!("x-{n}")).expect("a name");
            long.headers_mut().insert(name, n.into());
        }
        let mut bad = get("/");
        bad.headers_mut().insert("host", "other.example".parse().expect("a value"));
        let cases = [
            (connect, &b""[..], 405, "method_refused"),
            (long, b"", 431, "head_too_large"),
            (bad, b"", 400, "bad_request"),
            (post(), &[b'x'; 100_000][..], 413, "body_too_large"),
        ];
        for (request, body, status, reason) in cases {
            let answer = asked(&mut client, request, body).await;
            assert_eq!(answer.status.as_u16(), status);
            assert_eq!(answer.headers["x-gapless-reason"], reason);
            assert_eq!(answer.headers.get("connection"), None);
        }
        let same = asked(&mut client, get("/"), b"").await;
        assert_eq!(same.status, StatusCode::OK, "the connection is as good as before");
    });
    assert_eq!(endpoint.seen().len(), 1);
    assert!(!gapless.log().contains("illegal in HTTP/2"), "nothing was left for hyper to mend");
}

#[test]
fn a_listener_can_be_without_it() {
    let (endpoint, gapless) = plain(&Config::new(), "http2 = false");
    assert_eq!(gapless.get("/").status, 200);
    run(async {
        let stream = TcpStream::connect(gapless.address).await.expect("a connection");
        let (mut client, connection) = speak(stream, 1 << 20).await;
        tokio::task::spawn_local(connection);
        ask(&mut client, get("/"), b"").await.expect_err("no HTTP/2");
    });
    assert_eq!(endpoint.seen().len(), 1);
}

#[test]
fn http1_is_known_from_its_first_bytes_however_they_come() {
    let (endpoint, gapless) = plain(&Config::new(), "");
    let request = "PRI / HTTP/1.1\r\nhost: a\r\n\r\n";
    let mut client = Client::open(gapless.address);
    for byte in request.bytes() {
        client.send([byte]).expect("sent");
        std::thread::yield_now();
    }
    assert_eq!(client.answer("GET").expect("an answer").status, 200);
    let mut client = Client::open(gapless.address);
    let upload = format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9000\r\n\r\n{:9000}", "");
    client.send([upload.as_bytes(), request.as_bytes()].concat()).expect("sent");
    for _ in 0..2 {
        assert_eq!(client.answer("GET").expect("an answer").status, 200);
    }
    let methods: Vec<_> = endpoint.seen().iter().map(|seen| seen.head.word(0).to_owned()).collect();
    assert_eq!(methods, ["PRI", "POST", "PRI"]);
}

#[test]
fn who_begins_and_says_no_more_is_cut() {
    let config = Config::new().tables("[limits]\nheader_timeout = \"500ms\"");
    let (endpoint, gapless) = plain(&config, "");
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let whole = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &settings].concat();
    for begin in [&b""[..], b"P", b"PRI * HTTP/2.0\r\n\r\nSM", &whole[..24], &whole] {
        let mut client = Client::open(gapless.address);
        client.send(begin).expect("sent");
        client.wire.rest().expect("the end of the connection");
    }
    assert_eq!(endpoint.seen().len(), 0);
}

#[test]
fn a_stream_that_its_client_resets_is_nobodys_fault() {
    let (endpoint, gapless) = plain(&Config::new(), "");
    endpoint.set(Mode::Hang);
    run(async {
        let client = open(gapless.address).await;
        for n in 1..=20 {
            let mut ready = client.clone().ready().await.expect("open");
            let (response, mut stream) = ready.send_request(get("/"), true).expect("sent");
            let seen = || endpoint.seen().len() == n;
            while !seen() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            stream.send_reset(h2::Reason::CANCEL);
            drop(response);
        }
        // Half of a body, then a reset.
        endpoint.set(Mode::Ok);
        let mut ready = client.clone().ready().await.expect("open");
        let (response, mut stream) = ready.send_request(post(), false).expect("sent");
        stream.send_data(Bytes::from_static(b"half"), false).expect("sent");
        stream.send_reset(h2::Reason::CANCEL);
        drop(response);
        let answer = asked(&mut client.clone(), get("/"), b"").await;
        assert_eq!(answer.status, StatusCode::OK);
    });
    eventually("its requests are withdrawn", SOON, || endpoint.resets() >= 20);
    assert_eq!(gapless.state(endpoint.address()), "up");
    assert!(!gapless.log().contains("suspect"));
}

/// A body whose window is never opened.
#[test]
fn who_does_not_take_an_answer_is_given_up_on() {
    let config = Config::new().tables("[limits]\nwrite_timeout = \"500ms\"");
    let (endpoint, gapless) = plain(&config, "");
    let sent = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let ended = Arc::clone(&sent);
    endpoint.set(Mode::script(move |_, wire| {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", 64 << 20);
        wire.send(head)?;
        for _ in 0..64 {
            if wire.send(vec![b'x'; 1 << 20]).is_err() {
                ended.store(true, std::sync::atomic::Ordering::SeqCst);
                return Ok(Next::Close);
            }
        }
        Ok(Next::Keep)
    }));
    run(async {
        let client = open_with(gapless.address, 0).await;
        let mut ready = client.clone().ready().await.expect("open");
        let (response, _stream) = ready.send_request(get("/"), true).expect("sent");
        let error = receive(response).await.expect_err("a reset");
        assert!(error.is_reset(), "{error}");
    });
    eventually("its endpoint is free", SOON, || sent.load(std::sync::atomic::Ordering::SeqCst));
    assert_eq!(gapless.state(endpoint.address()), "up");
}

/// As many answers as a connection takes, none of them read, leave the proxy as it was.
#[test]
fn other_clients_do_not_notice() {
    let (endpoint, gapless) = plain(&Config::new(), "");
    endpoint.set(Mode::Body("x".repeat(60_000)));
    let serve = |gapless: &Gapless| assert_eq!(gapless.get("/").status, 200);
    run(async {
        let client = open_with(gapless.address, 0).await;
        let mut waiting = Vec::new();
        for _ in 0..100 {
            let mut ready = client.clone().ready().await.expect("open");
            waiting.push(ready.send_request(get("/"), true).expect("sent"));
        }
        let seen = || endpoint.seen().len() >= 100;
        while !seen() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        serve(&gapless);
    });
}
