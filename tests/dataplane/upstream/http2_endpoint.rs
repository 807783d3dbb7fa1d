//! An HTTP/2 endpoint: the path selects its behaviour, and it records requests.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;

use crate::support::server::{ConnectionHandler, ConnectionIo, connection_handler};

/// A request as received.
#[derive(Clone, Debug)]
pub(crate) struct H2ReceivedRequest {
    pub(crate) head: Arc<http::request::Parts>,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Option<HeaderMap>,
}

/// The records of an endpoint.
pub(crate) struct H2EndpointState {
    name: &'static str,
    max_streams: u32,
    received: Mutex<Vec<H2ReceivedRequest>>,
    started: AtomicUsize,
    connections: AtomicUsize,
    resets: Mutex<Vec<Reason>>,
    peak_streams: AtomicUsize,
    bulk_bytes: AtomicUsize,
    /// Stops answering probes.
    pub(crate) is_probe_hung: AtomicBool,
    /// Responses to `/gate` wait for permits.
    pub(crate) response_permits: Semaphore,
}

impl H2EndpointState {
    pub(crate) fn new(name: &'static str, max_streams: u32) -> Arc<Self> {
        Arc::new(Self {
            name,
            max_streams,
            received: Mutex::default(),
            started: AtomicUsize::default(),
            connections: AtomicUsize::default(),
            resets: Mutex::default(),
            peak_streams: AtomicUsize::default(),
            bulk_bytes: AtomicUsize::default(),
            is_probe_hung: AtomicBool::default(),
            response_permits: Semaphore::new(0),
        })
    }

    /// Requests that were read completely.
    pub(crate) fn received(&self) -> Vec<H2ReceivedRequest> {
        self.received.lock().expect("no panic").clone()
    }

    /// Requests that have started.
    pub(crate) fn started(&self) -> usize {
        self.started.load(SeqCst)
    }

    /// Connections that used HTTP/2.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(SeqCst)
    }

    /// Requests that were reset.
    pub(crate) fn resets(&self) -> Vec<Reason> {
        self.resets.lock().expect("no panic").clone()
    }

    /// The most concurrent requests of one connection.
    pub(crate) fn peak_streams(&self) -> usize {
        self.peak_streams.load(SeqCst)
    }

    /// Bytes of responses to `/bulk` that the connections have taken.
    pub(crate) fn bulk_bytes(&self) -> usize {
        self.bulk_bytes.load(SeqCst)
    }

    pub(crate) fn serve(self: &Arc<Self>) -> ConnectionHandler {
        let state = Arc::clone(self);
        connection_handler(move |io| serve_connection(Arc::clone(&state), io))
    }
}

async fn serve_connection(state: Arc<H2EndpointState>, io: Box<dyn ConnectionIo>) {
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(state.max_streams);
    let Ok(mut connection) = builder.handshake::<_, Bytes>(io).await else { return };
    state.connections.fetch_add(1, SeqCst);
    let streams = Arc::new(AtomicUsize::new(0));
    while let Some(Ok((request, respond))) = connection.accept().await {
        state.started.fetch_add(1, SeqCst);
        let open_streams = streams.fetch_add(1, SeqCst) + 1;
        state.peak_streams.fetch_max(open_streams, SeqCst);
        if request.uri().path() == "/goodbye" {
            connection.graceful_shutdown();
        }
        let (state, streams) = (Arc::clone(&state), Arc::clone(&streams));
        tokio::task::spawn_local(async move {
            handle_request(&state, request, respond).await;
            streams.fetch_sub(1, SeqCst);
        });
    }
}

async fn read_body(mut body: RecvStream) -> Option<(Vec<u8>, Option<HeaderMap>)> {
    let mut whole = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece.ok()?;
        body.flow_control().release_capacity(piece.len()).ok()?;
        whole.extend_from_slice(&piece);
    }
    Some((whole, body.trailers().await.ok()?))
}

async fn handle_request(
    state: &H2EndpointState,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) {
    let (head, body) = request.into_parts();
    let path = head.uri.path().to_owned();
    if path == "/refuse" {
        return respond.send_reset(Reason::REFUSED_STREAM);
    }
    if path == "/healthz" {
        if state.is_probe_hung.load(SeqCst) {
            let _ = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
        } else {
            let _ = respond.send_response(Response::new(()), true);
        }
        return;
    }
    if path == "/hang" {
        let reset = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
        if let Ok(reason) = reset {
            state.resets.lock().expect("no panic").push(reason);
        }
        return;
    }
    let is_head = head.method == http::Method::HEAD;
    let Some((body, trailers)) = read_body(body).await else { return };
    let received = H2ReceivedRequest { head: Arc::new(head), body: body.clone(), trailers };
    state.received.lock().expect("no panic").push(received);
    if path == "/gate" {
        state.response_permits.acquire().await.expect("never closed").forget();
    }
    respond_by_path(state, &path, is_head, body, respond).await;
}

/// Answers with 64 MiB, as fast as the windows allow.
async fn send_bulk(
    state: &H2EndpointState,
    mut respond: SendResponse<Bytes>,
    response: Response<()>,
) {
    let Ok(mut stream) = respond.send_response(response, false) else { return };
    let mut remaining: usize = 64 << 20;
    while remaining > 0 {
        stream.reserve_capacity(remaining.min(64 << 10));
        let capacity = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await;
        let Some(Ok(capacity)) = capacity else { return };
        let length = capacity.min(remaining);
        remaining -= length;
        if stream.send_data(Bytes::from(vec![b'.'; length]), remaining == 0).is_err() {
            return;
        }
        state.bulk_bytes.fetch_add(length, SeqCst);
    }
}

/// Answers a completely read request.
async fn respond_by_path(
    state: &H2EndpointState,
    path: &str,
    is_head: bool,
    body: Vec<u8>,
    mut respond: SendResponse<Bytes>,
) {
    let mut response = Response::new(());
    response.headers_mut().insert("x-endpoint", HeaderValue::from_static(state.name));
    match path {
        "/echo" => send_body(respond, response, body.into()).await,
        "/bulk" => send_bulk(state, respond, response).await,
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
            // The reset must not overtake the data that it cuts.
            tokio::task::yield_now().await;
            state.response_permits.acquire().await.expect("never closed").forget();
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
            let length = HeaderValue::from(state.name.len());
            response.headers_mut().insert("content-length", length);
            if is_head {
                let _ = respond.send_response(response, true);
                return;
            }
            let Ok(mut stream) = respond.send_response(response, false) else { return };
            let _ = stream.send_data(Bytes::from_static(state.name.as_bytes()), true);
        }
    }
}

async fn send_body(mut respond: SendResponse<Bytes>, response: Response<()>, mut body: Bytes) {
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
pub(crate) type H2FrameParts = (u8, u8, u32, Vec<u8>);

/// HTTP/2 on raw frames, for behaviour that no library has.
pub(crate) struct RawH2Server(pub(crate) Box<dyn ConnectionIo>);

impl RawH2Server {
    /// Reads the client's preface and sends SETTINGS.
    pub(crate) async fn accept_preface(&mut self) -> std::io::Result<()> {
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

    /// The next frame; SETTINGS are acknowledged.
    pub(crate) async fn next_frame(&mut self) -> std::io::Result<H2FrameParts> {
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
    pub(crate) async fn send_ok(&mut self, stream: u32) -> std::io::Result<()> {
        self.send(1, 5, stream, &[0x88]).await
    }
}
