//! An HTTP/2 endpoint: what it is asked for by path is how it behaves, and it remembers what came.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;

use crate::support::server::{Io, Serve, serving};

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Got {
    pub(crate) head: Arc<http::request::Parts>,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Option<HeaderMap>,
}

/// What an endpoint remembers.
pub(crate) struct Did {
    name: &'static str,
    streams_at_most: u32,
    got: Mutex<Vec<Got>>,
    begun: AtomicUsize,
    connections: AtomicUsize,
    resets: Mutex<Vec<Reason>>,
    most_streams: AtomicUsize,
    /// Answers no probe any more.
    pub(crate) sick: AtomicBool,
    /// Answers to `/gate` pass as permits come.
    pub(crate) gate: Semaphore,
}

impl Did {
    pub(crate) fn new(name: &'static str, streams_at_most: u32) -> Arc<Self> {
        Arc::new(Self {
            name,
            streams_at_most,
            got: Mutex::default(),
            begun: AtomicUsize::default(),
            connections: AtomicUsize::default(),
            resets: Mutex::default(),
            most_streams: AtomicUsize::default(),
            sick: AtomicBool::default(),
            gate: Semaphore::new(0),
        })
    }

    /// Requests that were read whole.
    pub(crate) fn got(&self) -> Vec<Got> {
        self.got.lock().expect("no panic").clone()
    }

    /// Requests that have begun.
    pub(crate) fn begun(&self) -> usize {
        self.begun.load(SeqCst)
    }

    /// Connections on which HTTP/2 was spoken.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(SeqCst)
    }

    /// Requests that were withdrawn.
    pub(crate) fn resets(&self) -> Vec<Reason> {
        self.resets.lock().expect("no panic").clone()
    }

    /// The most requests that one connection had at once.
    pub(crate) fn most_streams(&self) -> usize {
        self.most_streams.load(SeqCst)
    }

    /// Serves connections.
    pub(crate) fn serve(self: &Arc<Self>) -> Serve {
        let did = Arc::clone(self);
        serving(move |io| serve(Arc::clone(&did), io))
    }
}

async fn serve(did: Arc<Did>, io: Box<dyn Io>) {
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(did.streams_at_most);
    let Ok(mut connection) = builder.handshake::<_, Bytes>(io).await else { return };
    did.connections.fetch_add(1, SeqCst);
    let streams = Arc::new(AtomicUsize::new(0));
    while let Some(Ok((request, respond))) = connection.accept().await {
        did.begun.fetch_add(1, SeqCst);
        let now = streams.fetch_add(1, SeqCst) + 1;
        did.most_streams.fetch_max(now, SeqCst);
        if request.uri().path() == "/goodbye" {
            connection.graceful_shutdown();
        }
        let (did, streams) = (Arc::clone(&did), Arc::clone(&streams));
        tokio::task::spawn_local(async move {
            answer(&did, request, respond).await;
            streams.fetch_sub(1, SeqCst);
        });
    }
}

async fn read(mut body: RecvStream) -> Option<(Vec<u8>, Option<HeaderMap>)> {
    let mut whole = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece.ok()?;
        body.flow_control().release_capacity(piece.len()).ok()?;
        whole.extend_from_slice(&piece);
    }
    Some((whole, body.trailers().await.ok()?))
}

async fn answer(did: &Did, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    let (head, body) = request.into_parts();
    let path = head.uri.path().to_owned();
    if path == "/refuse" {
        return respond.send_reset(Reason::REFUSED_STREAM);
    }
    if path == "/healthz" {
        if did.sick.load(SeqCst) {
            let _ = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
        } else {
            let _ = respond.send_response(Response::new(()), true);
        }
        return;
    }
    if path == "/hang" {
        let reset = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
        if let Ok(reason) = reset {
            did.resets.lock().expect("no panic").push(reason);
        }
        return;
    }
    let is_head = head.method == http::Method::HEAD;
    let Some((body, trailers)) = read(body).await else { return };
    let got = Got { head: Arc::new(head), body: body.clone(), trailers };
    did.got.lock().expect("no panic").push(got);
    if path == "/gate" {
        did.gate.acquire().await.expect("never closed").forget();
    }
    answer_whole(did, &path, is_head, body, respond).await;
}

/// Answers a request that was read whole.
async fn answer_whole(
    did: &Did,
    path: &str,
    is_head: bool,
    body: Vec<u8>,
    mut respond: SendResponse<Bytes>,
) {
    let mut response = Response::new(());
    response.headers_mut().insert("x-endpoint", HeaderValue::from_static(did.name));
    match path {
        "/echo" => send_all(respond, response, body.into()).await,
        "/none" => {
            *response.status_mut() = StatusCode::NO_CONTENT;
            let _ = respond.send_response(response, true);
        }
        "/short" => {
            response.headers_mut().insert("content-length", HeaderValue::from_static("10"));
            let Ok(mut stream) = respond.send_response(response, false) else { return };
            let _ = stream.send_data(Bytes::from_static(b"half!"), true);
        }
        "/small" => {
            response.headers_mut().insert("content-length", HeaderValue::from_static("2"));
            let Ok(mut stream) = respond.send_response(response, false) else { return };
            let _ = stream.send_data(Bytes::from_static(b"ok"), false);
            let mut trailers = HeaderMap::new();
            trailers.insert("x-sum", HeaderValue::from_static("1"));
            let _ = stream.send_trailers(trailers);
        }
        "/cut" => {
            let Ok(mut stream) = respond.send_response(response, false) else { return };
            let _ = stream.send_data(Bytes::from_static(b"half!"), false);
            // The reset must not overtake what it cuts.
            tokio::task::yield_now().await;
            did.gate.acquire().await.expect("never closed").forget();
            stream.send_reset(Reason::INTERNAL_ERROR);
        }
        "/grpc" => {
            let kind = HeaderValue::from_static("application/grpc");
            response.headers_mut().insert("content-type", kind);
            let names = HeaderValue::from_static("grpc-status");
            response.headers_mut().insert("trailer", names);
            let Ok(mut stream) = respond.send_response(response, false) else { return };
            let _ = stream.send_data(Bytes::from_static(b"\0\0\0\0\0"), false);
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            trailers.insert("set-cookie", HeaderValue::from_static("evil=1"));
            let _ = stream.send_trailers(trailers);
        }
        _ => {
            let length = HeaderValue::from(did.name.len());
            response.headers_mut().insert("content-length", length);
            if is_head {
                let _ = respond.send_response(response, true);
                return;
            }
            let Ok(mut stream) = respond.send_response(response, false) else { return };
            let _ = stream.send_data(Bytes::from_static(did.name.as_bytes()), true);
        }
    }
}

async fn send_all(mut respond: SendResponse<Bytes>, response: Response<()>, mut body: Bytes) {
    let Ok(mut stream) = respond.send_response(response, false) else { return };
    while !body.is_empty() {
        stream.reserve_capacity(body.len());
        let capacity = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await;
        let Some(Ok(capacity)) = capacity else { return };
        let _ = stream.send_data(body.split_to(capacity.min(body.len())), false);
    }
    let _ = stream.send_data(Bytes::new(), true);
}

/// A frame: its type, flags, stream and payload.
pub(crate) type Frame = (u8, u8, u32, Vec<u8>);

/// HTTP/2 by hand, for what no library would do.
pub(crate) struct Raw(pub(crate) Box<dyn Io>);

impl Raw {
    /// Takes the client's preface and says what is allowed.
    pub(crate) async fn greet(&mut self) -> std::io::Result<()> {
        let mut preface = [0; 24];
        self.0.read_exact(&mut preface).await?;
        self.send(4, 0, 0, &[]).await
    }

    pub(crate) async fn send(
        &mut self,
        kind: u8,
        flags: u8,
        stream: u32,
        payload: &[u8],
    ) -> std::io::Result<()> {
        let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        frame.extend_from_slice(&[kind, flags]);
        frame.extend_from_slice(&stream.to_be_bytes());
        frame.extend_from_slice(payload);
        self.0.write_all(&frame).await?;
        self.0.flush().await
    }

    /// The next frame; settings are acknowledged.
    pub(crate) async fn frame(&mut self) -> std::io::Result<Frame> {
        loop {
            let mut head = [0; 9];
            self.0.read_exact(&mut head).await?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let mut payload = vec![0; length];
            self.0.read_exact(&mut payload).await?;
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            if head[3] == 4 && head[4] == 0 {
                self.send(4, 1, 0, &[]).await?;
                continue;
            }
            return Ok((head[3], head[4], stream, payload));
        }
    }

    /// A 200 without a body.
    pub(crate) async fn ok(&mut self, stream: u32) -> std::io::Result<()> {
        self.send(1, 5, stream, &[0x88]).await
    }
}
