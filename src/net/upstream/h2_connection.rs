//! One HTTP/2 connection to an endpoint, and who drives it.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::{Connection, SendRequest};
use h2::{Ping, PingPong};
use http::Request;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use crate::logic::model::outcome::{Failure, FailureLayer, FailureReason};
use crate::logic::request::retry::RequestExposure;
use crate::net::tls_client;
use crate::net::write_coalescer::WriteCoalescer;

use super::connection::{UpstreamError, io_failure_reason};
use super::connection_queue::{ConnectionPermit, ConnectionQueue};
use super::h2_exchange::H2Exchange;
use super::pool::ConnectionPool;
use super::stream::UpstreamStream;

/// What one stream may have under way to us before its client has taken it.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;

/// The same for a connection: many streams that stand still must not hold up the others.
const CONNECTION_WINDOW_BYTES: u32 = 16 * STREAM_WINDOW_BYTES;

/// What a stream may have handed over that the socket has not taken.
const SEND_BUFFER_BYTES: usize = 256 * 1024;

/// Streams on one connection, whatever the endpoint allows: what befalls a connection befalls all of
/// them.
const MAX_STREAMS: usize = 100;

/// Withdrawn requests of which is still known that what comes for them is to be ignored.
const MAX_RESET_STREAMS: usize = 1_000;

/// While requests are under way, a connection is looked at this often. One on which nothing has come
/// since is pinged; it takes no new requests until something comes, and dies after a third look.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);

/// Time for the last words of a connection that nobody needs.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// What has passed on a connection.
#[derive(Debug, Default)]
pub(super) struct H2IoState {
    read_bytes: Cell<u64>,
    written_bytes: Cell<u64>,
    /// The endpoint has refused our handshake, after we had ended it.
    is_handshake_refused: Cell<bool>,
    /// Its end is to be a reset.
    should_reset: Cell<bool>,
}

impl H2IoState {
    fn count_written(&self, written: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(count)) = written {
            self.written_bytes.update(|sum| sum + *count as u64);
        }
    }
}

/// A connection's stream, with its bytes counted: what is gathered counts as written.
#[derive(Debug)]
pub(super) struct CountingStream {
    stream: WriteCoalescer<UpstreamStream>,
    io_state: Rc<H2IoState>,
}

/// An HTTP/2 connection, as those see it who send requests on it.
#[derive(Debug)]
pub(super) struct H2Connection {
    /// `None` when it takes no new requests.
    sender: RefCell<Option<SendRequest<Bytes>>>,
    active_streams: Cell<usize>,
    io_state: Rc<H2IoState>,
    /// Whose it is, where a connection belongs to one client.
    pub(super) client: Option<SocketAddr>,
    /// A response has come on it.
    has_received_response: Cell<bool>,
    idle_since: Cell<Instant>,
    queue: Rc<ConnectionQueue>,
    driver_waker: RefCell<Option<Waker>>,
}

/// Room for one request on a connection; given back when dropped.
#[derive(Debug)]
pub struct StreamPermit(Rc<H2Connection>);

/// What becomes of a wish for a seat.
#[derive(Debug)]
pub(super) enum StreamAcquisition {
    Permit(StreamPermit),
    AtCapacity,
    /// The connection takes no new requests.
    Closed,
}

/// A connection that was opened and is not driven yet.
pub(super) struct H2Handshake {
    sender: SendRequest<Bytes>,
    connection: Connection<CountingStream, Bytes>,
    stream: WriteCoalescer<UpstreamStream>,
    io_state: Rc<H2IoState>,
}

/// Begins HTTP/2 on a new connection, and waits until the endpoint has said what it allows. Nothing of
/// a request is sent before: whoever fails here has seen none.
pub(super) async fn handshake(
    stream: UpstreamStream,
    max_head_bytes: usize,
) -> Result<H2Handshake, UpstreamError> {
    let io_state = Rc::new(H2IoState::default());
    let stream = WriteCoalescer::new(stream);
    let counted = CountingStream { stream: stream.clone(), io_state: Rc::clone(&io_state) };
    let mut builder = h2::client::Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buffer_size(SEND_BUFFER_BYTES)
        .max_concurrent_reset_streams(MAX_RESET_STREAMS)
        .max_header_list_size(u32::try_from(max_head_bytes).unwrap_or(u32::MAX))
        // What the endpoint allows is known when this is not zero any more.
        .initial_max_send_streams(0);
    let result = builder.handshake(counted).await;
    let (sender, mut connection) = result.map_err(|error| handshake_error(&error, &io_state))?;
    std::future::poll_fn(|cx| {
        let over = Pin::new(&mut connection).poll(cx);
        stream.flush(cx);
        if connection.max_concurrent_send_streams() > 0 {
            return Poll::Ready(Ok(()));
        }
        over.map(|ended| Err(ended.err()))
    })
    .await
    .map_err(|error| {
        error.map_or_else(
            || unreached_failure(FailureReason::Closed),
            |e| handshake_error(&e, &io_state),
        )
    })?;
    Ok(H2Handshake { sender, connection, stream, io_state })
}

fn handshake_error(error: &h2::Error, io_state: &H2IoState) -> UpstreamError {
    if io_state.is_handshake_refused.get() {
        handshake_refused()
    } else {
        unreached_failure(h2_failure_reason(error))
    }
}

fn handshake_refused() -> UpstreamError {
    let failure = Failure { layer: FailureLayer::Tls, reason: FailureReason::Handshake };
    UpstreamError::Endpoint { failure, reached: RequestExposure::NotSent }
}

fn unreached_failure(reason: FailureReason) -> UpstreamError {
    UpstreamError::Endpoint { failure: Failure::http(reason), reached: RequestExposure::NotSent }
}

/// The reason that an error of a stream or its connection gives.
fn h2_failure_reason(error: &h2::Error) -> FailureReason {
    if let Some(io) = error.get_io() {
        return io_failure_reason(io).unwrap_or(FailureReason::Reset);
    }
    match (error.is_remote(), error.is_go_away()) {
        (true, true) => FailureReason::Closed,
        (true, false) => FailureReason::Reset,
        // We found it to break the rules.
        (false, _) => FailureReason::Malformed,
    }
}

impl H2Handshake {
    /// Has it driven, on the current `LocalSet`, for `pool`.
    pub(super) fn spawn_driver(
        self,
        pool: &Rc<ConnectionPool>,
        client: Option<SocketAddr>,
        queue: &Rc<ConnectionQueue>,
        permit: ConnectionPermit,
    ) -> Rc<H2Connection> {
        let Self { sender, mut connection, stream, io_state } = self;
        let handle = Rc::new(H2Connection {
            sender: RefCell::new(Some(sender)),
            active_streams: Cell::new(0),
            io_state,
            client,
            has_received_response: Cell::new(false),
            idle_since: Cell::new(Instant::now()),
            queue: Rc::clone(queue),
            driver_waker: RefCell::default(),
        });
        let driver = H2Driver {
            pings: connection.ping_pong(),
            connection,
            stream,
            handle: Rc::clone(&handle),
            keepalive_timer: None,
            last_read_bytes: 0,
            silent_checks: 0,
            close_timer: None,
        };
        let pool = Rc::downgrade(pool);
        tokio::task::spawn_local(run_driver(driver, pool, permit));
        handle
    }
}

impl H2Connection {
    /// A seat, if there is one.
    pub(super) fn acquire_stream(self: &Rc<Self>) -> StreamAcquisition {
        let mut send = self.sender.borrow_mut();
        let Some(sender) = send.as_mut() else { return StreamAcquisition::Closed };
        match sender.poll_ready(&mut Context::from_waker(Waker::noop())) {
            // What was sent last has not even begun.
            Poll::Pending => StreamAcquisition::AtCapacity,
            Poll::Ready(Err(_)) => {
                drop(send);
                self.retire();
                StreamAcquisition::Closed
            }
            Poll::Ready(Ok(())) => {
                if self.active_streams.get() >= sender.current_max_send_streams().min(MAX_STREAMS) {
                    return StreamAcquisition::AtCapacity;
                }
                self.active_streams.update(|count| count + 1);
                StreamAcquisition::Permit(StreamPermit(Rc::clone(self)))
            }
        }
    }

    /// How many requests it can carry at once.
    pub(super) fn max_streams(&self) -> usize {
        let send = self.sender.borrow();
        send.as_ref().map_or(0, |send| send.current_max_send_streams().min(MAX_STREAMS))
    }

    /// Takes no new requests; ends when those that are under way have.
    pub(super) fn retire(&self) {
        drop(self.sender.take());
        self.wake_driver();
    }

    /// Nothing that is cut short on it is to be gone on with.
    pub(super) fn reset_on_close(&self) {
        self.io_state.should_reset.set(true);
    }

    pub(super) fn is_retired(&self) -> bool {
        self.sender.borrow().is_none()
    }

    /// Since when nobody uses it, if nobody does.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        (self.active_streams.get() == 0).then(|| self.idle_since.get())
    }

    /// What was handed to the network so far.
    pub(super) fn written_bytes(&self) -> u64 {
        self.io_state.written_bytes.get()
    }

    /// A response has come.
    pub(super) fn set_response_received(&self) {
        self.has_received_response.set(true);
    }

    /// What `error`, met by a request, says; `reached` is how much of that may have been seen.
    pub(super) fn h2_failure(&self, error: &h2::Error, reached: RequestExposure) -> UpstreamError {
        if self.io_state.is_handshake_refused.get() && !self.has_received_response.get() {
            return handshake_refused();
        }
        // A stream beyond the last one that a GOAWAY names, or one that was refused, was not looked
        // at (RFC 9113 6.8, 8.7).
        let is_unprocessed = error.is_remote()
            && (error.is_go_away() || error.reason() == Some(h2::Reason::REFUSED_STREAM));
        let reached = if is_unprocessed { RequestExposure::NotSent } else { reached };
        UpstreamError::Endpoint { failure: Failure::http(h2_failure_reason(error)), reached }
    }

    fn wake_driver(&self) {
        if let Some(driver) = &*self.driver_waker.borrow() {
            driver.wake_by_ref();
        }
    }
}

impl StreamPermit {
    pub(super) fn connection(&self) -> &H2Connection {
        &self.0
    }

    /// Begins: hands `request` over; pieces of a body follow if it `has_body`.
    ///
    /// # Errors
    /// [`TryError`] with nothing reached.
    pub fn send_request(
        self,
        request: Request<()>,
        has_body: bool,
    ) -> Result<H2Exchange, UpstreamError> {
        let mut send = self.0.sender.borrow_mut();
        let Some(sender) = send.as_mut() else {
            return Err(unreached_failure(FailureReason::Closed));
        };
        let written_before = self.0.written_bytes();
        match sender.send_request(request, !has_body) {
            Ok((response, stream)) => {
                drop(send);
                Ok(H2Exchange::new(response, stream, has_body, self, written_before))
            }
            Err(error) if error.is_io() || error.is_go_away() => {
                Err(unreached_failure(h2_failure_reason(&error)))
            }
            Err(error) => Err(UpstreamError::Local(io::Error::other(error))),
        }
    }
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        let connection = &self.0;
        connection.active_streams.update(|count| count - 1);
        if connection.active_streams.get() == 0 {
            connection.idle_since.set(Instant::now());
            if connection.is_retired() {
                connection.wake_driver();
            }
        }
        connection.queue.wake_first();
    }
}

/// Moves a connection's bytes; ends with it.
struct H2Driver {
    connection: Connection<CountingStream, Bytes>,
    stream: WriteCoalescer<UpstreamStream>,
    pings: Option<PingPong>,
    handle: Rc<H2Connection>,
    /// Runs while requests are under way.
    keepalive_timer: Option<Pin<Box<Sleep>>>,
    last_read_bytes: u64,
    silent_checks: u32,
    close_timer: Option<Pin<Box<Sleep>>>,
}

async fn run_driver(mut driver: H2Driver, pool: Weak<ConnectionPool>, permit: ConnectionPermit) {
    std::future::poll_fn(|cx| driver.poll(cx)).await;
    let handle = Rc::clone(&driver.handle);
    let is_idle_close = !handle.is_retired() && handle.active_streams.get() == 0;
    handle.retire();
    // Those who wait on its streams hear of the end now.
    drop(driver);
    drop(permit);
    if let Some(pool) = pool.upgrade() {
        pool.h2_connection_closed(&handle, is_idle_close);
    }
}

impl H2Driver {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let is_same_waker =
            self.handle.driver_waker.borrow().as_ref().is_some_and(|w| w.will_wake(cx.waker()));
        if !is_same_waker {
            self.handle.driver_waker.replace(Some(cx.waker().clone()));
        }
        let is_over = Pin::new(&mut self.connection).poll(cx).is_ready();
        self.stream.flush(cx);
        if is_over {
            return Poll::Ready(());
        }
        if self.handle.active_streams.get() > 0 {
            return self.poll_keepalive(cx);
        }
        self.keepalive_timer = None;
        self.silent_checks = 0;
        if !self.handle.is_retired() {
            return Poll::Pending;
        }
        if self.handle.io_state.should_reset.get() {
            return Poll::Ready(());
        }
        let close_timer = self.close_timer.get_or_insert_with(|| Box::pin(sleep(CLOSE_TIMEOUT)));
        close_timer.as_mut().poll(cx)
    }

    /// Requests are under way: is the other side still there?
    fn poll_keepalive(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(pings) = &mut self.pings {
            let _ = pings.poll_pong(cx);
        }
        let timer = self.keepalive_timer.get_or_insert_with(|| Box::pin(sleep(KEEPALIVE_INTERVAL)));
        while timer.as_mut().poll(cx).is_ready() {
            timer.as_mut().reset(tokio::time::Instant::now() + KEEPALIVE_INTERVAL);
            let read_bytes = self.handle.io_state.read_bytes.get();
            if read_bytes != self.last_read_bytes {
                (self.last_read_bytes, self.silent_checks) = (read_bytes, 0);
                continue;
            }
            self.silent_checks += 1;
            match (self.silent_checks, &mut self.pings) {
                (1, Some(pings)) => {
                    let _ = pings.send_ping(Ping::opaque());
                    cx.waker().wake_by_ref();
                }
                (2, _) => self.handle.retire(),
                (3.., _) => {
                    self.handle.reset_on_close();
                    return Poll::Ready(());
                }
                _ => {}
            }
        }
        Poll::Pending
    }
}

impl Drop for CountingStream {
    fn drop(&mut self) {
        if self.io_state.should_reset.get() {
            self.stream.with_stream(UpstreamStream::reset_on_drop);
        }
    }
}

impl AsyncRead for CountingStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        // The library keeps no more of an error than its text.
        if let Poll::Ready(Err(error)) = &read
            && tls_client::is_handshake_refusal(error)
        {
            self.io_state.is_handshake_refused.set(true);
        }
        let read_bytes = (buf.filled().len() - before) as u64;
        self.io_state.read_bytes.update(|count| count + read_bytes);
        read
    }
}

impl AsyncWrite for CountingStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.io_state.count_written(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.io_state.count_written(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
