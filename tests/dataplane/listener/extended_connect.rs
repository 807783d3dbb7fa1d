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

use super::http2::{block_on_local, connect_http2, get_request, send_request};
use super::start_cleartext;
use crate::support::config::ConfigBuilder;
use crate::support::endpoint::{ConnectionAction, ResponseMode, TestEndpoint};
use crate::support::instance::Gapless;
use crate::support::server::{TestServer, connection_handler};
use crate::support::{DEFAULT_TIMEOUT, eventually};

/// The two directions of a stream, as one of bytes.
struct H2Tunnel {
    send: SendStream<Bytes>,
    receive: RecvStream,
    unread: Bytes,
}

fn io_error(error: h2::Error) -> io::Error {
    io::Error::other(error)
}

impl AsyncRead for H2Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.unread.is_empty() {
            match ready!(self.receive.poll_data(cx)) {
                None => return Poll::Ready(Ok(())),
                Some(data) => self.unread = data.map_err(io_error)?,
            }
        }
        let taken = self.unread.len().min(buf.remaining());
        buf.put_slice(&self.unread[..taken]);
        self.unread.advance(taken);
        let _ = self.receive.flow_control().release_capacity(taken);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for H2Tunnel {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.send.reserve_capacity(bytes.len());
        while self.send.capacity() == 0 {
            match ready!(self.send.poll_capacity(cx)) {
                Some(capacity) => drop(capacity.map_err(io_error)?),
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        }
        let taken = self.send.capacity().min(bytes.len());
        self.send.send_data(Bytes::copy_from_slice(&bytes[..taken]), false).map_err(io_error)?;
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.send.send_data(Bytes::new(), true).map_err(io_error))
    }
}

fn extended_connect_request(protocol: &str) -> Request<()> {
    let mut request = get_request("/ws");
    *request.method_mut() = Method::CONNECT;
    request.extensions_mut().insert(Protocol::from(protocol));
    let headers = request.headers_mut();
    headers.insert("sec-websocket-version", 13.into());
    headers.insert("sec-websocket-key", "forged".parse().expect("a value"));
    headers.insert("sec-websocket-protocol", "chat".parse().expect("a value"));
    request
}

/// Requests a tunnel; returns the response head and the stream.
async fn open_tunnel(client: &mut SendRequest<Bytes>) -> (Response<()>, H2Tunnel) {
    let mut ready = client.clone().ready().await.expect("open");
    assert!(ready.is_extended_connect_protocol_enabled(), "it is offered");
    let (response, send) =
        ready.send_request(extended_connect_request("websocket"), false).expect("sent");
    let (head, receive) = response.await.expect("an answer").into_parts();
    (Response::from_parts(head, ()), H2Tunnel { send, receive, unread: Bytes::new() })
}

/// A client that has received the server's SETTINGS.
async fn connect_ready(gapless: &Gapless) -> SendRequest<Bytes> {
    let mut client = connect_http2(gapless.address).await;
    send_request(&mut client, get_request("/"), b"").await.expect("an answer");
    client
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bits: Vec<u8> = bytes.iter().flat_map(|b| (0..8).rev().map(move |n| b >> n & 1)).collect();
    let letter = |six: &[u8]| {
        let number = six.iter().fold(0, |sum, bit| sum * 2 + usize::from(*bit)) << (6 - six.len());
        char::from(ALPHABET[number])
    };
    let mut text: String = bits.chunks(6).map(letter).collect();
    text.push_str(&"=".repeat((4 - text.len() % 4) % 4));
    text
}

/// A 101 to this key.
fn switching_protocols(key: &str) -> String {
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let accept = base64(digest(&SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes()).as_ref());
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-protocol: chat\r\nsec-websocket-accept: {accept}\r\n\r\n"
    )
}

/// Accepts the upgrade, then runs the script.
fn accept_upgrade_then(
    then: impl Fn(&mut crate::support::wire::WireStream) -> io::Result<ConnectionAction>
    + Send
    + Sync
    + 'static,
) -> ResponseMode {
    ResponseMode::script(move |head, wire| match head.field("sec-websocket-key") {
        None => {
            wire.send("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nplain")?;
            Ok(ConnectionAction::Keep)
        }
        Some(key) => {
            wire.send(switching_protocols(key))?;
            then(wire)
        }
    })
}

/// Echoes bytes until the end.
fn echo_mode() -> ResponseMode {
    accept_upgrade_then(|wire| {
        loop {
            let byte = wire.read_exact(1)?;
            wire.send(byte)?;
        }
    })
}

async fn exchange_messages<T: AsyncRead + AsyncWrite + Unpin>(mut socket: WebSocketStream<T>) {
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
fn websocket_works_over_http1_and_http2() {
    let server = TestServer::start_cleartext(connection_handler(|io| async move {
        let Ok((_, mut socket)) = ServerBuilder::new().accept(io).await else { return };
        while let Some(Ok(message)) = socket.next().await {
            if message.is_text() || message.is_binary() {
                socket.send(message).await.expect("sent");
            }
        }
    }));
    let config =
        ConfigBuilder::new().pool("probe = { tcp = true }").zone("here/a", &[server.address]);
    let gapless = Gapless::start_ready(&config);
    block_on_local(async {
        let stream = TcpStream::connect(gapless.address).await.expect("a connection");
        let client = ClientBuilder::new().uri("ws://a.example/ws").expect("a URI");
        let (socket, _) = client.connect_on(stream).await.expect("a 101 to its key");
        exchange_messages(socket).await;
        let mut http2 = connect_http2(gapless.address).await;
        while !http2.is_extended_connect_protocol_enabled() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // Several at once, on one connection.
        let mut sockets = Vec::new();
        for _ in 0..5 {
            let (head, tunnel) = open_tunnel(&mut http2).await;
            assert_eq!(head.status().as_u16(), 200);
            sockets.push(tokio::task::spawn_local(async {
                exchange_messages(ClientBuilder::new().take_over(tunnel)).await;
            }));
        }
        for socket in sockets {
            socket.await.expect("a good conversation");
        }
    });
}

#[test]
fn extended_connect_becomes_an_http1_upgrade() {
    let (endpoint, gapless) = start_cleartext(&ConfigBuilder::new(), "");
    endpoint.set_mode(echo_mode());
    block_on_local(async {
        let mut client = connect_ready(&gapless).await;
        let (head, mut tunnel) = open_tunnel(&mut client).await;
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
        // The other streams of the connection are not affected.
        assert_eq!(
            send_request(&mut client, get_request("/"), b"").await.expect("an answer").body,
            b"plain"
        );
    });
    let seen = endpoint.requests();
    assert_eq!(seen.len(), 3, "nothing in the tunnel was a request");
    let head = &seen[1].head;
    assert_eq!(head.start_line, "GET /ws HTTP/1.1");
    for (field, value) in [
        ("host", "a.example"),
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-protocol", "chat"),
        ("via", "2.0 gapless"),
        ("x-forwarded-for", "127.0.0.1"),
    ] {
        assert_eq!(head.field_values(field).collect::<Vec<_>>(), [value], "{field}");
    }
    let keys: Vec<_> = head.field_values("sec-websocket-key").collect();
    assert!(keys.len() == 1 && keys[0].len() == 24 && keys[0].ends_with("=="), "{keys:?}");
    for framing in ["transfer-encoding", "content-length"] {
        assert_eq!(head.field(framing), None);
    }
}

#[test]
fn tunnel_directions_close_independently() {
    let (endpoint, gapless) = start_cleartext(&ConfigBuilder::new(), "");
    endpoint.set_mode(accept_upgrade_then(|wire| {
        let received = wire.read_to_end()?;
        wire.send(format!("{} bytes", received.len()))?;
        Ok(ConnectionAction::Close)
    }));
    block_on_local(async {
        let (_, mut tunnel) = open_tunnel(&mut connect_ready(&gapless).await).await;
        tunnel.write_all(b"12345").await.expect("sent");
        tunnel.shutdown().await.expect("its end");
        let mut text = String::new();
        tunnel.read_to_string(&mut text).await.expect("an answer");
        assert_eq!(text, "5 bytes");
    });
}

/// The answer to a CONNECT that is none of a tunnel.
async fn connect_response(gapless: &Gapless, request: Request<()>) -> (u16, Option<String>) {
    let answer =
        send_request(&mut connect_ready(gapless).await, request, b"").await.expect("an answer");
    let reason = answer.headers.get("x-gapless-reason");
    (answer.status.as_u16(), reason.map(|word| word.to_str().expect("a word").to_owned()))
}

#[test]
fn connect_without_valid_upgrade_is_rejected() {
    let config = ConfigBuilder::new().route("retry = { attempts = 1 }");
    let (endpoint, gapless) = start_cleartext(&config, "");
    let with_reason = |status, reason: &str| (status, Some(reason.to_owned()));
    let response_to = |request| block_on_local(connect_response(&gapless, request));
    assert_eq!(
        response_to(extended_connect_request("websocket")),
        with_reason(501, "upgrade_refused"),
        "a 200 is no 101"
    );
    let count = endpoint.requests().len();
    assert_eq!(
        response_to(extended_connect_request("connect-udp")),
        with_reason(405, "method_refused")
    );
    let mut plain_connect = Request::new(());
    *plain_connect.method_mut() = Method::CONNECT;
    *plain_connect.uri_mut() = "a.example:443".parse().expect("an authority");
    assert_eq!(response_to(plain_connect), with_reason(405, "method_refused"), "the plain one");
    assert_eq!(endpoint.requests().len(), count + 2, "only what asked for the settings");
    endpoint.set_mode(ResponseMode::Status(403));
    assert_eq!(response_to(extended_connect_request("websocket")), (403, None));
    endpoint.set_mode(ResponseMode::script(|head, wire| {
        let key = head.field("sec-websocket-key");
        wire.send(key.map_or_else(
            || "HTTP/1.1 204 No\r\n\r\n".to_owned(),
            |_| switching_protocols("another"),
        ))?;
        Ok(ConnectionAction::Keep)
    }));
    assert_eq!(
        response_to(extended_connect_request("websocket")),
        with_reason(502, "bad_response"),
        "another's key"
    );
    assert_eq!(gapless.get("/").status, 204);
}

#[test]
fn route_without_upgrade_rejects_tunnels() {
    let (endpoint, gapless) = start_cleartext(&ConfigBuilder::new().route("upgrade = []"), "");
    endpoint.set_mode(echo_mode());
    let answer = block_on_local(connect_response(&gapless, extended_connect_request("websocket")));
    assert_eq!(answer, (501, Some("upgrade_refused".to_owned())));
    assert_eq!(endpoint.requests().len(), 1, "that which asked for the settings");
    let fixed = "[[route]]\nhost = \"a.example\"\nrespond = { status = 200, body = \"ok\" }";
    let (_endpoint, gapless) = start_cleartext(&ConfigBuilder::new().tables(fixed), "");
    let answer = block_on_local(connect_response(&gapless, extended_connect_request("websocket")));
    assert_eq!(answer, (501, Some("upgrade_refused".to_owned())), "its own answer is no tunnel");
}

fn wait_until_reset(endpoint: &TestEndpoint) {
    eventually("the endpoint's side is reset", DEFAULT_TIMEOUT, || endpoint.reset_count() == 1);
}

#[test]
fn idle_tunnel_times_out_and_its_connection_stays_open() {
    let config = ConfigBuilder::new().route("timeouts = { tunnel = \"200ms\" }");
    let (endpoint, gapless) = start_cleartext(&config, "");
    endpoint.set_mode(echo_mode());
    block_on_local(async {
        let mut client = connect_ready(&gapless).await;
        let (_, mut tunnel) = open_tunnel(&mut client).await;
        let ended =
            tokio::time::timeout(DEFAULT_TIMEOUT, tunnel.read(&mut [0; 1])).await.expect("an end");
        assert!(!matches!(ended, Ok(1)), "{ended:?}");
        assert_eq!(
            send_request(&mut client, get_request("/"), b"").await.expect("an answer").body,
            b"plain"
        );
    });
    wait_until_reset(&endpoint);
}

/// hyper shows a reset stream as ended. The endpoint's direction must still be closed.
#[test]
fn tunnel_reset_by_client_resets_the_endpoint() {
    let (endpoint, gapless) = start_cleartext(&ConfigBuilder::new(), "");
    endpoint.set_mode(accept_upgrade_then(|wire| {
        wire.read_to_end()?;
        loop {
            // After an end a reset has another name.
            if wire.stream().take_error()?.is_some() {
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }));
    block_on_local(async {
        let mut client = connect_ready(&gapless).await;
        let (_, mut tunnel) = open_tunnel(&mut client).await;
        tunnel.write_all(b"x").await.expect("sent");
        tunnel.send.send_reset(h2::Reason::CANCEL);
        // Only what is sent is reset.
        client.ready().await.expect("open");
        tokio::task::spawn_blocking(move || wait_until_reset(&endpoint)).await.expect("reset");
    });
}

#[test]
fn stop_waits_for_open_tunnels() {
    let config = ConfigBuilder::new().tables("[shutdown]\ndrain = \"600s\"");
    let (endpoint, mut gapless) = start_cleartext(&config, "");
    endpoint.set_mode(echo_mode());
    block_on_local(async {
        let (_, mut tunnel) = open_tunnel(&mut connect_ready(&gapless).await).await;
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
    assert!(gapless.wait_for_exit(DEFAULT_TIMEOUT).success());
}
