//! Checks what endpoints receive for arbitrary bytes of a client; for property tests and fuzzing
//! only.
//!
//! The bytes pass through the real server, validation and head writer, in memory. An independent
//! strict parser reads the result and accepts exactly one interpretation.

mod strict_parser;

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::task::{Context, Poll, Wake, Waker};

use bytes::{Bytes, BytesMut};
use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::{Body, Incoming};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::service::service_fn;

use crate::app::dataplane::access::RecordedRequest;
use crate::app::dataplane::http_policy::HttpPolicy;
use crate::app::dataplane::worker::http1::http1_builder;
use crate::config::model::{AccessLogConfig, HeaderPolicy, ServerLimits};
use crate::logic::routing::PathNormalisation;
use crate::net::h1;
use crate::net::trailers;
use crate::net::upstream::BodyFraming;

use super::client::Client;
use super::downstream::Downstream;
use super::forward::OutgoingHead;
use super::local_reply_reason::LocalReplyReason;
use super::request_ids::IdGenerator;
use super::{path_normalisation, upgrade_request, validation};

/// The client address in forwarding headers.
const CLIENT_IP: [u8; 4] = [192, 0, 2, 7];

/// Headers that `h2` refuses in a request over HTTP/2 (RFC 9113 8.2.2).
const H2_FORBIDDEN_HEADERS: [&str; 5] =
    ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"];

/// Checks one input: the first byte is the mode, then follow the bytes of a connection or, for
/// HTTP/2, the fields of a head.
///
/// # Panics
/// If an endpoint would receive anything but well-formed requests.
pub fn check_forwarding(data: &[u8]) {
    let Some((&mode, wire)) = data.split_first() else { return };
    let sent = if mode == 2 {
        forward_over_h2(wire)
    } else {
        forward_over_h1(wire, usize::from(mode) + 1)
    };
    let read = strict_parser::parse_requests(&sent.bytes);
    assert_eq!(read, sent.request_count, "{}", sent.bytes.escape_ascii());
}

/// What an endpoint received.
#[derive(Default)]
struct ForwardedRequests {
    bytes: Vec<u8>,
    request_count: usize,
}

struct MemoryConnection<'a> {
    unread: &'a [u8],
    chunk_bytes: usize,
}

impl Read for MemoryConnection<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if self.unread.is_empty() {
            // The client waits for responses, and nothing wakes the task.
            return Poll::Pending;
        }
        let count = self.chunk_bytes.min(self.unread.len()).min(buf.remaining());
        let (now, unread) = self.unread.split_at(count);
        self.unread = unread;
        buf.put_slice(now);
        Poll::Ready(Ok(()))
    }
}

impl Write for MemoryConnection<'_> {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[derive(Default)]
struct WakeFlag(AtomicBool);

impl Wake for WakeFlag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, SeqCst);
    }
}

/// Polls `future` until nothing wakes it any more.
fn run_until_idle<F: Future>(future: F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let runtime = runtime.expect("a runtime");
    let _entered = runtime.enter();
    let woken = Arc::new(WakeFlag(AtomicBool::new(true)));
    let waker = Waker::from(Arc::clone(&woken));
    let mut future = pin!(future);
    while woken.0.swap(false, SeqCst) {
        if future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
            return;
        }
    }
}

fn forward_over_h1(wire: &[u8], chunk_bytes: usize) -> ForwardedRequests {
    let sent = Rc::new(RefCell::new(ForwardedRequests::default()));
    let service = service_fn(|request: Request<Incoming>| {
        let sent = Rc::clone(&sent);
        async move {
            let status = match forward_one(request).await {
                Ok(bytes) => {
                    let mut sent = sent.borrow_mut();
                    sent.bytes.extend_from_slice(&bytes);
                    sent.request_count += 1;
                    StatusCode::OK
                }
                Err(reason) => reason.word_and_status().1,
            };
            let mut response = Response::new(Empty::<Bytes>::new());
            *response.status_mut() = status;
            Ok::<_, Infallible>(response)
        }
    });
    let limits = ServerLimits::default();
    run_until_idle(async {
        http1_builder(&limits, true)
            .serve_connection(MemoryConnection { unread: wire, chunk_bytes }, service)
            .await
    });
    sent.take()
}

/// Lines of `name: value`, with `:path` and `:authority` as pseudo-headers; the rest after an empty
/// line is the body.
fn forward_over_h2(wire: &[u8]) -> ForwardedRequests {
    let (head, body) = match wire.windows(2).position(|two| two == b"\n\n") {
        Some(end) => (&wire[..end], &wire[end + 2..]),
        None => (wire, &b""[..]),
    };
    let mut headers = HeaderMap::new();
    let (mut path, mut authority) = ("/", None);
    for line in head.split(|&byte| byte == b'\n') {
        let Some(colon) = line.iter().skip(1).position(|&byte| byte == b':') else { continue };
        let (name, value) = (&line[..=colon], &line[colon + 2..]);
        match name {
            b":path" => path = std::str::from_utf8(value).unwrap_or("/"),
            b":authority" => authority = std::str::from_utf8(value).ok(),
            _ => {
                let name = HeaderName::from_bytes(name);
                if let Some((name, value)) = name.ok().zip(HeaderValue::from_bytes(value).ok())
                    && !H2_FORBIDDEN_HEADERS.contains(&name.as_str())
                {
                    headers.append(name, value);
                }
            }
        }
    }
    let mut uri = http::uri::Parts::default();
    if let Some(authority) = authority {
        let Ok(authority) = authority.parse() else { return ForwardedRequests::default() };
        (uri.authority, uri.scheme) = (Some(authority), Some(http::uri::Scheme::HTTP));
    }
    let Ok(path) = path.parse() else { return ForwardedRequests::default() };
    uri.path_and_query = Some(path);
    let Ok(uri) = http::Uri::from_parts(uri) else { return ForwardedRequests::default() };
    // `h2` has compared it with the body.
    if headers.contains_key("content-length") {
        headers.insert("content-length", body.len().into());
    }
    let mut request = Request::new(Full::new(Bytes::copy_from_slice(body)));
    (*request.uri_mut(), *request.version_mut(), *request.headers_mut()) =
        (uri, Version::HTTP_2, headers);
    let mut sent = ForwardedRequests::default();
    run_until_idle(async {
        if let Ok(bytes) = forward_one(request).await {
            sent = ForwardedRequests { bytes: bytes.to_vec(), request_count: 1 };
        }
    });
    sent
}

/// The bytes that the endpoint receives, or the reason for a refusal.
async fn forward_one<B: Body<Data = Bytes>>(
    request: Request<B>,
) -> Result<BytesMut, LocalReplyReason> {
    let policy = default_policy();
    let (parts, body) = request.into_parts();
    let mut request = Request::from_parts(parts, ());
    path_normalisation::normalise_request(&mut request, &policy)?;
    let upgrade = upgrade_request::extract_upgrade(&mut request, || 0);
    let validated = validation::validate(&request)?.validate_h2(
        &request,
        !body.is_end_stream(),
        policy.limits.header_count,
    )?;
    if request.uri().path() == "*" {
        return Err(LocalReplyReason::NoRoute);
    }
    let client = Rc::new(Client::new((CLIENT_IP, 5_000).into(), ([192, 0, 2, 1], 80).into()));
    let recorded = RecordedRequest { request: request.clone(), record: None };
    let downstream = Downstream::new(&policy, &IdGenerator::default(), &client, &recorded);
    let switch_to =
        upgrade.filter(|_| validated.framing.is_none()).map(|_| upgrade_request::PROTOCOL);
    let mut out = BytesMut::new();
    let head = OutgoingHead {
        request: &request,
        validated: &validated,
        downstream: &downstream,
        span: None,
        via: "gapless",
        switch_to,
    };
    head.write(&mut out);
    let mut body = pin!(body);
    let mut body_trailers = None;
    while let Some(frame) = body.frame().await {
        // The upstream connection is reset: the endpoint receives no part of a request as a whole
        // one.
        match frame.map_err(|_| LocalReplyReason::BadRequest)?.into_data() {
            Ok(data) if validated.framing == Some(BodyFraming::Chunked) => {
                h1::write_chunk(&mut out, &data);
            }
            Ok(data) => out.extend_from_slice(&data),
            Err(frame) => {
                body_trailers = frame.into_trailers().ok().and_then(trailers::strip_forbidden);
            }
        }
    }
    if validated.framing == Some(BodyFraming::Chunked) {
        h1::write_last_chunk(&mut out, &body_trailers);
    }
    Ok(out)
}

fn default_policy() -> HttpPolicy {
    HttpPolicy {
        limits: ServerLimits::default(),
        headers: HeaderPolicy::default(),
        access_log: AccessLogConfig::default(),
        trusted_proxies: Vec::new(),
        paths: PathNormalisation::default(),
        geo_database: None,
        country_header: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Tokens that heads and smuggling attempts consist of.
    const TOKENS: [&str; 73] = [
        "GET ",
        "POST ",
        "HEAD ",
        "OPTIONS ",
        "CONNECT ",
        "/",
        "/a/../b",
        "/%2e%2e/",
        "/a?b=c",
        "*",
        "a:443",
        "http://b.example/x",
        " HTTP/1.1",
        " HTTP/1.0",
        " HTTP/2.0",
        "\r\n",
        "\r\n",
        "\r\n\r\n",
        "\n",
        "\r",
        "Host: a.example",
        "host: b.example",
        "Host: ",
        "Host: a, b",
        "Content-Length: 5",
        "Content-Length: 05",
        "Content-Length: 0",
        "content-length: 5, 5",
        "content-length: +5",
        "Transfer-Encoding: chunked",
        "transfer-encoding: chunked, chunked",
        "Transfer-Encoding : chunked",
        "transfer-encoding: identity",
        "transfer-encoding: xchunked",
        "Connection: close",
        "Connection: keep-alive, x-forwarded-for, host",
        "connection: content-length",
        "connection: transfer-encoding",
        "Connection: upgrade",
        "upgrade: websocket",
        "Upgrade: h2c",
        "http2-settings: AAMAAABk",
        "te: trailers",
        "te: gzip",
        "trailer: x-sum",
        "Expect: 100-continue",
        "x-forwarded-for: 6.6.6.6",
        "X-Forwarded-Proto: https",
        "forwarded: for=6.6.6.6",
        "x_forwarded_for: 6.6.6.6",
        "via: 1.0 x",
        "cookie: a=1",
        "cookie: b=2",
        "cookie:",
        "x: y",
        "x : y",
        ": y",
        " folded",
        "\t",
        "\0",
        "hello",
        "5\r\nhello\r\n",
        "0\r\n\r\n",
        "0\r\nx-sum: 1\r\nhost: evil\r\n\r\n",
        "ffffffffffffffff\r\n",
        "5;x=y\r\nhello\r\n",
        ";\r\n",
        "-1\r\n",
        "\u{e9}",
        "keep-alive: 1",
        "proxy-connection: close",
        "x-request-id: a",
        "content-length: 18446744073709551616",
    ];

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2_000) })]

        #[test]
        fn arbitrary_bytes_forward_nothing_forbidden(
            first in prop_oneof![Just(0u8), Just(255), any::<u8>()],
            tokens in prop::collection::vec(prop::sample::select(&TOKENS[..]), 0..24),
        ) {
            check_forwarding(&[&[first], tokens.concat().as_bytes()].concat());
        }

        /// A valid request line and Host, so that the rest is parsed.
        #[test]
        fn valid_head_with_odd_fields_forwards_nothing_forbidden(
            first in prop_oneof![Just(0u8), Just(2), Just(255), any::<u8>()],
            fields in prop::collection::vec(prop::sample::select(&TOKENS[20..]), 0..8),
            body in prop::collection::vec(prop::sample::select(&TOKENS[..]), 0..8),
        ) {
            let lines: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
            let text = format!("POST /a HTTP/1.1\r\nHost: a.example\r\n{lines}\r\n{}", body.concat());
            let text = if first == 2 { text.replace("\r\n", "\n") } else { text };
            check_forwarding(&[&[first], text.as_bytes()].concat());
        }
    }

    #[test]
    fn valid_request_is_forwarded() {
        let wire = b"\xffPOST /a HTTP/1.1\r\nHost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx-sum: 1\r\n\r\n\
                     GET / HTTP/1.1\r\nhost: a\r\n\r\n";
        check_forwarding(wire);
        for step in [1, 7, 256] {
            let sent = forward_over_h1(&wire[1..], step);
            assert_eq!(sent.request_count, 2, "{}", sent.bytes.escape_ascii());
        }
        let sent =
            forward_over_h2(b":path:/x\n:authority:a.example\ncookie:a=1\ncookie:b=2\n\nhello");
        assert_eq!(strict_parser::parse_requests(&sent.bytes), 1);
        assert!(sent.bytes.ends_with(b"5\r\nhello\r\n0\r\n\r\n"), "{}", sent.bytes.escape_ascii());
    }

    #[test]
    fn regression_corpus_passes() {
        let fuzz = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
        for corpus in ["seeds", "regressions"] {
            let Ok(entries) = std::fs::read_dir(fuzz.join(corpus).join("hygiene")) else {
                continue;
            };
            for entry in entries {
                let path = entry.expect("an entry").path();
                println!("{}", path.display());
                check_forwarding(&std::fs::read(path).expect("a file"));
            }
        }
    }

    #[test]
    #[should_panic(expected = "not the client's")]
    fn strict_parser_rejects_forged_header() {
        strict_parser::parse_requests(
            b"GET / HTTP/1.1\r\nhost: a\r\nx-forwarded-for: 6.6.6.6\r\n\r\n",
        );
    }
}
