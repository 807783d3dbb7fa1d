//! WebSocket tunnels: bytes copied both ways between the client and an endpoint after a 101.
//!
//! Each direction ends by itself; the tunnel ends when both have, when nothing moves for the idle
//! timeout, or when the endpoint falls silent.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use crate::app::dataplane::access::{AccessRecord, RequestEnding};
use crate::net::upstream::{AbortEpoch, UpstreamTunnel};

use super::attempt_guard::AttemptGuard;
use super::upgrade_request::UpgradeRequest;

/// Bytes of one read; on the stack, so that an idle tunnel holds no buffer.
const READ_BUFFER_BYTES: usize = 16 * 1024;

/// Interval of checks for a client that has ended its direction.
const CLIENT_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The parts of a tunnel before it runs.
pub(super) struct TunnelSetup {
    pub(super) upgrade: UpgradeRequest,
    pub(super) endpoint: UpstreamTunnel,
    pub(super) guard: AttemptGuard,
    pub(super) abort_epoch: AbortEpoch,
    pub(super) idle: Duration,
    pub(super) record: Option<Rc<AccessRecord>>,
}

impl TunnelSetup {
    /// Copies bytes in both directions until both have ended.
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
            ending = copy_bidirectional(&mut client, &mut endpoint, &traffic) => ending,
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

/// Records the ending of a tunnel, also when its future is dropped.
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

/// Time of the last activity, and the record that counts bytes.
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

    /// Returns when nothing has moved for `idle`.
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

/// Copies both directions; `None` when both have ended in order.
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

/// Whether a client that has ended its direction no longer reads either. Over HTTP/2 a reset stream
/// looks like an ended one; only a write notices it, and nothing wakes for it.
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

/// The side of a pipe that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FailedSide {
    Source,
    Sink,
}

#[derive(Debug, Default)]
struct TunnelPipe {
    /// Read and not yet written.
    buffer: BytesMut,
    state: PipeState,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum PipeState {
    #[default]
    Open,
    /// Written, but maybe not yet flushed.
    Unflushed,
    /// The source has ended; the sink is being shut down.
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

    /// The number of bytes read; 0 at the end.
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
