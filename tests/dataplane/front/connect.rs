//! WebSocket over HTTP/2 (RFC 8441): an extended CONNECT there, an upgrade at the endpoint, and an
//! independent implementation of WebSocket at both ends.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use bytes::{Buf, Bytes};
use futures_util::{SinkExt, StreamExt};
use h2::client::SendRequest;
use h2::ext::Protocol;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Method, Request, Response};
use rustix::process::Signal;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_websockets::{ClientBuilder, CloseCode, Message, ServerBuilder, WebSocketStream};

use super::http2::{ask, get, open, run};
use super::plain;
use crate::support::config::Config;
use crate::support::endpoint::{Endpoint, Mode, Next};
use crate::support::instance::Gapless;
use crate::support::server::{Server, serving};
use crate::support::{SOON, eventually};

/// The two directions of a stream, as one of bytes.
struct Tunnel {
    send: SendStream<Bytes>,
    receive: RecvStream,
    left: Bytes,
}

fn failed(error: h2::Error) -> io::Error {
    io::Error::other(error)
}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.left.is_empty() {
            match ready!(self.receive.poll_data(cx)) {
                None => return Poll::Ready(Ok(())),
                Some(data) => self.left = data.map_err(failed)?,
            }
        }
        let taken = self.left.len().min(buf.remaining());
        buf.put_slice(&self.left[..taken]);
        self.left.advance(taken);
        let _ = self.receive.flow_control().release_capacity(taken);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.send.reserve_capacity(bytes.len());
        while self.send.capacity() == 0 {
            match ready!(self.send.poll_capacity(cx)) {
                Some(room) => drop(room.map_err(failed)?),
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        }
        let taken = self.send.capacity().min(bytes.len());
        self.send.send_data(Bytes::copy_from_slice(&bytes[..taken]), false).map_err(failed)?;
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.send.send_data(Bytes::new(), true).map_err(failed))
    }
}

fn connect(protocol: &str) -> Request<()> {
    let mut request = get("/ws");
    *request.method_mut() = Method::CONNECT;
    request.extensions_mut().insert(Protocol::from(protocol));
    let headers = request.headers_mut();
    headers.insert("sec-websocket-version", 13.into());
    headers.insert("sec-websocket-key", "forged".parse().expect("a value"));
    headers.insert("sec-websocket-protocol", "chat".parse().expect("a value"));
    request
}

/// Asks for a tunnel; the answer's head, and the stream.
async fn tunnel(client: &mut SendRequest<Bytes>) -> (Response<()>, Tunnel) {
    let mut ready = client.clone().ready().await.expect("open");
    assert!(ready.is_extended_connect_protocol_enabled(), "it is offered");
    let (response, send) = ready.send_request(connect("websocket"), false).expect("sent");
    let (head, receive) = response.await.expect("an answer").into_parts();
    (Response::from_parts(head, ()), Tunnel { send, receive, left: Bytes::new() })
}

/// A client that knows what the server offers.
async fn ready(gapless: &Gapless) -> SendRequest<Bytes> {
    let mut client = open(gapless.address).await;
    ask(&mut client, get("/"), b"").await.expect("an answer");
    client
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bits: Vec<u8> = bytes.iter().flat_map(|b| (0..8).rev().map(move |n| b >> n & 1)).collect();
    let letter = |six: &[u8]| {
        let number = six.iter().fold(0, |sum, bit| sum * 2 + usize::from(*bit)) << (6 - six.len());
        char::from(LETTERS[number])
    };
    let mut text: String = bits.chunks(6).map(letter).collect();
    text.push_str(&"=".repeat((4 - text.len() % 4) % 4));
    text
}

/// A 101 to this key.
fn grant(key: &str) -> String {
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let accept = base64(digest(&SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes()).as_ref());
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-protocol: chat\r\nsec-websocket-accept: {accept}\r\n\r\n"
    )
}

/// Grants it, and then does as the script says.
fn granting(
    then: impl Fn(&mut crate::support::wire::Wire) -> io::Result<Next> + Send + Sync + 'static,
) -> Mode {
    Mode::script(move |head, wire| match head.field("sec-websocket-key") {
        None => {
            wire.send("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nplain")?;
            Ok(Next::Keep)
        }
        Some(key) => {
            wire.send(grant(key))?;
            then(wire)
        }
    })
}

/// Sends back what it gets, until the end.
fn echo() -> Mode {
    granting(|wire| {
        loop {
            let byte = wire.exactly(1)?;
            wire.send(byte)?;
        }
    })
}

async fn converse<T: AsyncRead + AsyncWrite + Unpin>(mut socket: WebSocketStream<T>) {
    let big = vec![7; 300_000];
    for message in [Message::text("hello"), Message::binary(big), Message::text("")] {
        socket.send(message.clone()).await.expect("sent");
        let back = socket.next().await.expect("an answer").expect("good frames");
        assert_eq!(back.is_text(), message.is_text());
        assert!(**back.as_payload() == **message.as_payload(), "the same bytes");
    }
    socket.send(Message::ping("are you there")).await.expect("sent");
    let pong = socket.next().await.expect("an answer").expect("good frames");
    assert!(pong.is_pong() && &**pong.as_payload() == b"are you there");
    let close = Message::close(Some(CloseCode::NORMAL_CLOSURE), "done");
    socket.send(close).await.expect("sent");
    let closed = socket.next().await.expect("an answer").expect("good frames");
    assert_eq!(closed.as_close().map(|(code, _)| code), Some(CloseCode::NORMAL_CLOSURE));
    assert!(socket.next().await.is_none(), "the end");
}

#[test]
fn it_is_spoken_over_http2_as_over_http1() {
    let server = Server::plain(serving(|io| async move {
        let Ok((_, mut socket)) = ServerBuilder::new().accept(io).await else { return };
        while let Some(Ok(message)) = socket.next().await {
            if message.is_text() || message.is_binary() {
                socket.send(message).await.expect("sent");
            }
        }
    }));
    let config = Config::new().pool("probe = { tcp = true }").zone("here/a", &[server.address]);
    let gapless = Gapless::start_ready(&config);
    run(async {
        let stream = TcpStream::connect(gapless.address).await.expect("a connection");
        let client = ClientBuilder::new().uri("ws://a.example/ws").expect("a URI");
        let (socket, _) = client.connect_on(stream).await.expect("a 101 to its key");
        converse(socket).await;
        let mut http2 = open(gapless.address).await;
        while !http2.is_extended_connect_protocol_enabled() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // Several at once, on one connection.
        let mut sockets = Vec::new();
        for _ in 0..5 {
            let (head, tunnel) = tunnel(&mut http2).await;
            assert_eq!(head.status().as_u16(), 200);
            sockets.push(tokio::task::spawn_local(async {
                converse(ClientBuilder::new().take_over(tunnel)).await;
            }));
        }
        for socket in sockets {
            socket.await.expect("a good conversation");
        }
    });
}

#[test]
fn the_endpoint_sees_an_upgrade_and_the_client_a_stream() {
    let (endpoint, gapless) = plain(&Config::new(), "");
    endpoint.set(echo());
    run(async {
        let mut client = ready(&gapless).await;
        let (head, mut tunnel) = tunnel(&mut client).await;
        assert_eq!(head.status().as_u16(), 200);
        let headers: &HeaderMap = head.headers();
        for field in ["upgrade", "connection", "sec-websocket-accept", "content-length"] {
            assert_eq!(headers.get(field), None, "{field}");
        }
        assert_eq!(headers["sec-websocket-protocol"], "chat");
        tunnel.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("sent");
        let mut back = [0; 27];
        tunnel.read_exact(&mut back).await.expect("the same bytes");
        assert_eq!(&back, b"GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        // The other streams of the connection are as they were.
        assert_eq!(ask(&mut client, get("/"), b"").await.expect("an answer").body, b"plain");
    });
    let seen = endpoint.seen();
    assert_eq!(seen.len(), 3, "nothing in the tunnel was a request");
    let head = &seen[1].head;
    assert_eq!(head.start, "GET /ws HTTP/1.1");
    for (field, value) in [
        ("host", "a.example"),
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-protocol", "chat"),
        ("via", "2.0 gapless"),
        ("x-forwarded-for", "127.0.0.1"),
    ] {
        assert_eq!(head.all(field).collect::<Vec<_>>(), [value], "{field}");
    }
    let keys: Vec<_> = head.all("sec-websocket-key").collect();
    assert!(keys.len() == 1 && keys[0].len() == 24 && keys[0].ends_with("=="), "{keys:?}");
    for framing in ["transfer-encoding", "content-length"] {
        assert_eq!(head.field(framing), None);
    }
}

#[test]
fn each_direction_ends_by_itself() {
    let (endpoint, gapless) = plain(&Config::new(), "");
    endpoint.set(granting(|wire| {
        let asked = wire.rest()?;
        wire.send(format!("{} bytes", asked.len()))?;
        Ok(Next::Close)
    }));
    run(async {
        let (_, mut tunnel) = tunnel(&mut ready(&gapless).await).await;
        tunnel.write_all(b"12345").await.expect("sent");
        tunnel.shutdown().await.expect("its end");
        let mut text = String::new();
        tunnel.read_to_string(&mut text).await.expect("an answer");
        assert_eq!(text, "5 bytes");
    });
}

/// The answer to a CONNECT that is none of a tunnel.
async fn refused(gapless: &Gapless, request: Request<()>) -> (u16, Option<String>) {
    let answer = ask(&mut ready(gapless).await, request, b"").await.expect("an answer");
    let reason = answer.headers.get("x-gapless-reason");
    (answer.status.as_u16(), reason.map(|word| word.to_str().expect("a word").to_owned()))
}

#[test]
fn whatever_is_no_tunnel_is_not_taken_for_one() {
    let config = Config::new().route("retry = { attempts = 1 }");
    let (endpoint, gapless) = plain(&config, "");
    let told = |status, reason: &str| (status, Some(reason.to_owned()));
    let refused = |request| run(refused(&gapless, request));
    assert_eq!(refused(connect("websocket")), told(501, "upgrade_refused"), "a 200 is no 101");
    let count = endpoint.seen().len();
    assert_eq!(refused(connect("connect-udp")), told(405, "method_refused"));
    let mut old = Request::new(());
    *old.method_mut() = Method::CONNECT;
    *old.uri_mut() = "a.example:443".parse().expect("an authority");
    assert_eq!(refused(old), told(405, "method_refused"), "the plain one");
    assert_eq!(endpoint.seen().len(), count + 2, "only what asked for the settings");
    endpoint.set(Mode::Status(403));
    assert_eq!(refused(connect("websocket")), (403, None));
    endpoint.set(Mode::script(|head, wire| {
        let key = head.field("sec-websocket-key");
        wire.send(key.map_or_else(|| "HTTP/1.1 204 No\r\n\r\n".to_owned(), |_| grant("another")))?;
        Ok(Next::Keep)
    }));
    assert_eq!(refused(connect("websocket")), told(502, "bad_response"), "another's key");
    assert_eq!(gapless.get("/").status, 204);
}

#[test]
fn a_route_without_tunnels_has_none() {
    let (endpoint, gapless) = plain(&Config::new().route("upgrade = []"), "");
    endpoint.set(echo());
    let answer = run(refused(&gapless, connect("websocket")));
    assert_eq!(answer, (501, Some("upgrade_refused".to_owned())));
    assert_eq!(endpoint.seen().len(), 1, "that which asked for the settings");
    let fixed = "[[route]]\nhost = \"a.example\"\nrespond = { status = 200, body = \"ok\" }";
    let (_endpoint, gapless) = plain(&Config::new().tables(fixed), "");
    let answer = run(refused(&gapless, connect("websocket")));
    assert_eq!(answer, (501, Some("upgrade_refused".to_owned())), "its own answer is no tunnel");
}

fn resets(endpoint: &Endpoint) {
    eventually("the endpoint's side is reset", SOON, || endpoint.resets() == 1);
}

#[test]
fn one_in_which_nothing_moves_ends_and_its_connection_goes_on() {
    let config = Config::new().route("timeouts = { tunnel = \"200ms\" }");
    let (endpoint, gapless) = plain(&config, "");
    endpoint.set(echo());
    run(async {
        let mut client = ready(&gapless).await;
        let (_, mut tunnel) = tunnel(&mut client).await;
        let ended = tokio::time::timeout(SOON, tunnel.read(&mut [0; 1])).await.expect("an end");
        assert!(!matches!(ended, Ok(1)), "{ended:?}");
        assert_eq!(ask(&mut client, get("/"), b"").await.expect("an answer").body, b"plain");
    });
    resets(&endpoint);
}

/// Over HTTP/2 a reset looks like an end. An endpoint that goes on after one must not be left with it.
#[test]
fn one_that_its_client_resets_leaves_nothing_behind() {
    let (endpoint, gapless) = plain(&Config::new(), "");
    endpoint.set(granting(|wire| {
        wire.rest()?;
        loop {
            // After an end a reset has another name.
            if wire.stream().take_error()?.is_some() {
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }));
    run(async {
        let mut client = ready(&gapless).await;
        let (_, mut tunnel) = tunnel(&mut client).await;
        tunnel.write_all(b"x").await.expect("sent");
        tunnel.send.send_reset(h2::Reason::CANCEL);
        // Only what is sent is reset.
        client.ready().await.expect("open");
        tokio::task::spawn_blocking(move || resets(&endpoint)).await.expect("reset");
    });
}

#[test]
fn a_stop_waits_for_tunnels() {
    let config = Config::new().tables("[shutdown]\ndrain = \"600s\"");
    let (endpoint, mut gapless) = plain(&config, "");
    endpoint.set(echo());
    run(async {
        let (_, mut tunnel) = tunnel(&mut ready(&gapless).await).await;
        gapless.signal(Signal::TERM);
        while TcpStream::connect(gapless.address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        for _ in 0..3 {
            tunnel.write_all(b"abc").await.expect("sent");
            let mut back = [0; 3];
            tunnel.read_exact(&mut back).await.expect("still there");
            assert_eq!(&back, b"abc");
        }
        tunnel.shutdown().await.expect("its end");
        tunnel.read_to_end(&mut Vec::new()).await.expect("the other end");
    });
    assert!(gapless.wait(SOON).success());
}
