//! WebSocket, and nothing else: a connection to an endpoint that both sides have agreed to use for
//! another protocol (RFC 9110 7.8).
//!
//! It opens only after the endpoint's 101 with the same protocol. Each direction ends by itself; the
//! whole ends when both have, when nothing moves for too long, or when the endpoint falls silent.
//!
//! A client of HTTP/2 asks by an extended CONNECT (RFC 8441), of which an upgrade is made here: from then
//! on all is as over HTTP/1.1, until [`crate::app::dataplane::worker`] makes a 200 of the 101.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use http::header::{
    CONNECTION, CONTENT_LENGTH, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE,
};
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use hyper::ext::Protocol;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use crate::app::dataplane::access::{AccessRecord, RequestEnding};
use crate::net::h1::ConnectionOptions;
use crate::net::upstream::{AbortEpoch, UpstreamTunnel};
use crate::net::websocket::WebSocketKey;

use super::attempt_guard::AttemptGuard;

/// The only protocol that is passed on. Others, `h2c` above all, would smuggle requests past us.
pub(super) const PROTOCOL: &str = "websocket";

/// Read at once; on the stack, so that a tunnel at rest holds no buffer.
const READ_BUFFER_BYTES: usize = 16 * 1024;

/// After a client has said that it sends no more: how often to look whether it is there at all.
const CLIENT_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// A client's wish to go on in another protocol.
pub(super) struct UpgradeRequest {
    on_upgrade: OnUpgrade,
    /// What the endpoint is asked with, where the client cannot: then nothing else will do either.
    key: Option<WebSocketKey>,
}

impl UpgradeRequest {
    /// Whether any other good answer would be taken for a tunnel.
    pub(super) fn is_required(&self) -> bool {
        self.key.is_some()
    }

    /// Whether a 101 with these headers grants it. Where the key is the client's, so is the check.
    pub(super) fn is_accepted(&self, headers: &HeaderMap) -> bool {
        self.key.as_ref().is_none_or(|key| key.is_accepted_by(headers))
    }
}

/// A client's wish to go on in another protocol, if it is one that may be granted. Over HTTP/2 the
/// request becomes the upgrade that it stands for, with a key made of `nonce`.
pub(super) fn extract_upgrade(
    request: &mut Request<()>,
    nonce: impl FnOnce() -> u128,
) -> Option<UpgradeRequest> {
    let on_upgrade = request.extensions_mut().remove::<OnUpgrade>()?;
    if let Some(protocol) = request.extensions_mut().remove::<Protocol>() {
        return from_extended_connect(request, &protocol, on_upgrade, nonce);
    }
    let mut protocols = request.headers().get_all(UPGRADE).iter();
    let only = protocols.next().filter(|_| protocols.next().is_none())?;
    let is_known = only.as_bytes().eq_ignore_ascii_case(PROTOCOL.as_bytes());
    let is_requested = ConnectionOptions::from_headers(request.headers()).has_option("upgrade");
    let is_eligible = *request.method() == Method::GET && request.version() == Version::HTTP_11;
    (is_known && is_requested && is_eligible).then_some(UpgradeRequest { on_upgrade, key: None })
}

/// RFC 8441 5: the same as a GET, but for what the CONNECT says by itself. Of an unknown protocol it stays
/// a CONNECT, which is refused.
fn from_extended_connect(
    request: &mut Request<()>,
    protocol: &Protocol,
    on_upgrade: OnUpgrade,
    nonce: impl FnOnce() -> u128,
) -> Option<UpgradeRequest> {
    if protocol.as_ref() != PROTOCOL.as_bytes() || *request.method() != Method::CONNECT {
        return None;
    }
    let key = WebSocketKey::new(nonce());
    *request.method_mut() = Method::GET;
    let headers = request.headers_mut();
    headers.remove(SEC_WEBSOCKET_ACCEPT);
    headers.remove(CONTENT_LENGTH);
    headers.insert(SEC_WEBSOCKET_KEY, key.header_value());
    Some(UpgradeRequest { on_upgrade, key: Some(key) })
}

/// The 101 as a client of HTTP/2 is told it: a CONNECT that went well.
pub fn adapt_upgrade_for_h2<B>(response: &mut Response<B>) {
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    headers.remove(UPGRADE);
    headers.remove(SEC_WEBSOCKET_ACCEPT);
}

/// The fields of the 101 that are not the endpoint's.
pub(super) fn set_upgrade_headers(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(PROTOCOL));
}

/// A tunnel, to be run to its end.
pub type TunnelFuture = Pin<Box<dyn Future<Output = ()>>>;

/// What a client's connection goes on with when HTTP on it is over, or beside it, where it carries many
/// streams: whoever serves the connection takes it when an answer is a 101. It counts as the same connection.
#[derive(Default)]
pub struct PendingTunnel(RefCell<Option<TunnelFuture>>);

impl PendingTunnel {
    pub(super) fn set(&self, tunnel: impl Future<Output = ()> + 'static) {
        *self.0.borrow_mut() = Some(Box::pin(tunnel));
    }

    /// Takes it out, if there is one.
    pub fn take(&self) -> Option<TunnelFuture> {
        self.0.borrow_mut().take()
    }
}

impl Clone for PendingTunnel {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl PartialEq for PendingTunnel {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for PendingTunnel {}

impl fmt::Debug for PendingTunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sequel").field(&self.0.borrow().is_some()).finish()
    }
}

/// A tunnel in the making.
pub(super) struct TunnelSetup {
    pub(super) upgrade: UpgradeRequest,
    pub(super) endpoint: UpstreamTunnel,
    pub(super) guard: AttemptGuard,
    pub(super) abort_epoch: AbortEpoch,
    pub(super) idle: Duration,
    pub(super) record: Option<Rc<AccessRecord>>,
}

impl TunnelSetup {
    /// Carries bytes both ways until there are no more.
    pub(super) async fn run(self) {
        let Self { upgrade, mut endpoint, guard, abort_epoch, idle, record } = self;
        let mut ending_recorder = TunnelEndingRecorder {
            record: record.as_deref(),
            ending: Some(RequestEnding::ClientAbort),
        };
        let Ok(upgraded) = upgrade.on_upgrade.await else { return };
        let mut client = TokioIo::new(upgraded);
        let traffic =
            TunnelTraffic { last_activity: Cell::new(Instant::now()), record: record.as_deref() };
        ending_recorder.ending = tokio::select! {
            ended = copy_bidirectional(&mut client, &mut endpoint, &traffic) => ended,
            is_drained = guard.connections().wait_for_tunnel_end(abort_epoch) => {
                Some(if is_drained { RequestEnding::Drained } else { RequestEnding::Cut })
            }
            () = traffic.wait_idle(idle) => Some(RequestEnding::Idle),
        };
        if ending_recorder.ending.is_none() {
            endpoint.finish();
        }
    }
}

/// Says in the end how it ended, also when all of it is dropped.
struct TunnelEndingRecorder<'a> {
    record: Option<&'a AccessRecord>,
    ending: Option<RequestEnding>,
}

impl Drop for TunnelEndingRecorder<'_> {
    fn drop(&mut self) {
        let Some(record) = self.record else { return };
        if let Some(ending) = self.ending {
            record.set_ending(ending);
        }
        record.finish();
    }
}

/// When bytes moved last, and how many.
struct TunnelTraffic<'a> {
    last_activity: Cell<Instant>,
    record: Option<&'a AccessRecord>,
}

impl TunnelTraffic<'_> {
    fn add_upstream_bytes(&self, bytes: usize) {
        self.last_activity.set(Instant::now());
        if let Some(record) = self.record {
            record.add_tunnel_bytes(bytes, 0);
        }
    }

    fn add_downstream_bytes(&self, bytes: usize) {
        self.last_activity.set(Instant::now());
        if let Some(record) = self.record {
            record.add_tunnel_bytes(0, bytes);
        }
    }

    /// Ends when nothing has moved for `idle`.
    async fn wait_idle(&self, idle: Duration) {
        loop {
            let until = self.last_activity.get() + idle;
            if Instant::now() >= until {
                return;
            }
            sleep_until(until).await;
        }
    }
}

/// Both directions; `None` when both have ended in good order.
async fn copy_bidirectional<C, E>(
    client: &mut C,
    endpoint: &mut E,
    traffic: &TunnelTraffic<'_>,
) -> Option<RequestEnding>
where
    C: AsyncRead + AsyncWrite + Unpin,
    E: AsyncRead + AsyncWrite + Unpin,
{
    let (mut up, mut down) = (TunnelPipe::default(), TunnelPipe::default());
    let mut client_check = None;
    poll_fn(|cx| {
        let up = match up.poll(client, endpoint, cx, |bytes| traffic.add_upstream_bytes(bytes)) {
            Poll::Ready(Err(FailedSide::Source)) => {
                return Poll::Ready(Some(RequestEnding::ClientAbort));
            }
            Poll::Ready(Err(FailedSide::Sink)) => return Poll::Ready(Some(RequestEnding::Cut)),
            Poll::Ready(Ok(())) => true,
            Poll::Pending => false,
        };
        if up && is_client_gone(client, &mut client_check, cx) {
            return Poll::Ready(Some(RequestEnding::ClientAbort));
        }
        match down.poll(endpoint, client, cx, |bytes| traffic.add_downstream_bytes(bytes)) {
            Poll::Ready(Err(FailedSide::Source)) => Poll::Ready(Some(RequestEnding::Cut)),
            Poll::Ready(Err(FailedSide::Sink)) => Poll::Ready(Some(RequestEnding::ClientAbort)),
            Poll::Ready(Ok(())) if up => Poll::Ready(None),
            _ => Poll::Pending,
        }
    })
    .await
}

/// Whether a client that sends no more does not take anything either. Over HTTP/2 a stream that its
/// client resets ends like one that is over; only the way to it knows, and does not wake.
fn is_client_gone<C: AsyncWrite + Unpin>(
    client: &mut C,
    client_check: &mut Option<Pin<Box<Sleep>>>,
    cx: &mut Context<'_>,
) -> bool {
    let client_check = client_check.get_or_insert_with(|| Box::pin(sleep(CLIENT_CHECK_INTERVAL)));
    while client_check.as_mut().poll(cx).is_ready() {
        client_check.as_mut().reset(Instant::now() + CLIENT_CHECK_INTERVAL);
    }
    matches!(Pin::new(client).poll_flush(cx), Poll::Ready(Err(_)))
}

/// Whose failure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FailedSide {
    Source,
    Sink,
}

#[derive(Debug, Default)]
struct TunnelPipe {
    /// Read and not written yet.
    buffer: BytesMut,
    state: PipeState,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum PipeState {
    #[default]
    Open,
    /// Written, and perhaps still in a buffer below.
    Unflushed,
    /// The source has ended; so shall the sink.
    ShuttingDown,
    Finished,
}

impl TunnelPipe {
    fn poll<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
        &mut self,
        source: &mut R,
        sink: &mut W,
        cx: &mut Context<'_>,
        mut on_bytes: impl FnMut(usize),
    ) -> Poll<Result<(), FailedSide>> {
        loop {
            while !self.buffer.is_empty() {
                let written = ready!(Pin::new(&mut *sink).poll_write(cx, &self.buffer));
                match written {
                    Ok(0) | Err(_) => return Poll::Ready(Err(FailedSide::Sink)),
                    Ok(written) => {
                        self.buffer.advance(written);
                        self.state = PipeState::Unflushed;
                        on_bytes(written);
                    }
                }
            }
            match self.state {
                PipeState::Finished => return Poll::Ready(Ok(())),
                PipeState::ShuttingDown => {
                    if ready!(Pin::new(&mut *sink).poll_shutdown(cx)).is_err() {
                        return Poll::Ready(Err(FailedSide::Sink));
                    }
                    self.state = PipeState::Finished;
                }
                PipeState::Open | PipeState::Unflushed => match self.poll_read(source, cx) {
                    Poll::Ready(Ok(0)) => self.state = PipeState::ShuttingDown,
                    Poll::Ready(Ok(_)) => {}
                    Poll::Ready(Err(())) => return Poll::Ready(Err(FailedSide::Source)),
                    Poll::Pending => {
                        self.buffer = BytesMut::new();
                        if self.state == PipeState::Unflushed {
                            if ready!(Pin::new(&mut *sink).poll_flush(cx)).is_err() {
                                return Poll::Ready(Err(FailedSide::Sink));
                            }
                            self.state = PipeState::Open;
                        }
                        return Poll::Pending;
                    }
                },
            }
        }
    }

    /// Bytes that were read; 0 at the end.
    fn poll_read<R: AsyncRead + Unpin>(
        &mut self,
        source: &mut R,
        cx: &mut Context<'_>,
    ) -> Poll<Result<usize, ()>> {
        let mut buffer = [std::mem::MaybeUninit::uninit(); READ_BUFFER_BYTES];
        let mut read_buffer = ReadBuf::uninit(&mut buffer);
        match ready!(Pin::new(source).poll_read(cx, &mut read_buffer)) {
            Ok(()) => {
                self.buffer.extend_from_slice(read_buffer.filled());
                Poll::Ready(Ok(read_buffer.filled().len()))
            }
            Err(_) => Poll::Ready(Err(())),
        }
    }
}
