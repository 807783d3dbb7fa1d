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

use crate::logic::outcome::{Failure, Layer, Reason};
use crate::logic::retry::Reached;
use crate::net::gathered::Gathered;
use crate::net::tls_client;

use super::connection::{TryError, reason_of};
use super::over_h2::Exchange;
use super::pool::Pool;
use super::queue::{Queue, Slot};
use super::stream::Stream;

/// What one stream may have under way to us before its client has taken it.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;

/// The same for a connection: many streams that stand still must not hold up the others.
const CONNECTION_WINDOW_BYTES: u32 = 16 * STREAM_WINDOW_BYTES;

/// What a stream may have handed over that the socket has not taken.
const SEND_BUFFER_BYTES: usize = 256 * 1024;

/// Streams on one connection, whatever the endpoint allows: what befalls a connection befalls all of
/// them.
const STREAMS: usize = 100;

/// Withdrawn requests of which is still known that what comes for them is to be ignored.
const WITHDRAWN: usize = 1_000;

/// While requests are under way, a connection is looked at this often. One on which nothing has come
/// since is pinged; it takes no new requests until something comes, and dies after a third look.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Time for the last words of a connection that nobody needs.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What has passed on a connection.
#[derive(Debug, Default)]
pub(super) struct Passed {
    read_bytes: Cell<u64>,
    written_bytes: Cell<u64>,
    /// The endpoint has refused our handshake, after we had ended it.
    is_refused: Cell<bool>,
    /// Its end is to be a reset.
    resets: Cell<bool>,
}

impl Passed {
    fn wrote(&self, written: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(count)) = written {
            self.written_bytes.update(|sum| sum + *count as u64);
        }
    }
}

/// A connection's stream, with its bytes counted: what is gathered counts as written.
#[derive(Debug)]
pub(super) struct Counted {
    stream: Gathered<Stream>,
    passed: Rc<Passed>,
}

/// An HTTP/2 connection, as those see it who send requests on it.
#[derive(Debug)]
pub(super) struct Multiplexed {
    /// `None` when it takes no new requests.
    send: RefCell<Option<SendRequest<Bytes>>>,
    streams: Cell<usize>,
    passed: Rc<Passed>,
    /// Whose it is, where a connection belongs to one client.
    pub(super) client: Option<SocketAddr>,
    /// A response has come on it.
    is_proven: Cell<bool>,
    idle_since: Cell<Instant>,
    queue: Rc<Queue>,
    driver: RefCell<Option<Waker>>,
}

/// Room for one request on a connection; given back when dropped.
#[derive(Debug)]
pub struct Seat(Rc<Multiplexed>);

/// What becomes of a wish for a seat.
#[derive(Debug)]
pub(super) enum Room {
    Seat(Seat),
    /// All are taken.
    Full,
    /// The connection takes no new requests.
    Gone,
}

/// A connection that was opened and is not driven yet.
pub(super) struct Opened {
    send: SendRequest<Bytes>,
    connection: Connection<Counted, Bytes>,
    stream: Gathered<Stream>,
    passed: Rc<Passed>,
}

/// Begins HTTP/2 on a new connection, and waits until the endpoint has said what it allows. Nothing of
/// a request is sent before: whoever fails here has seen none.
pub(super) async fn begin(stream: Stream, head_bytes_at_most: usize) -> Result<Opened, TryError> {
    let passed = Rc::new(Passed::default());
    let stream = Gathered::new(stream);
    let counted = Counted { stream: stream.clone(), passed: Rc::clone(&passed) };
    let mut builder = h2::client::Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buffer_size(SEND_BUFFER_BYTES)
        .max_concurrent_reset_streams(WITHDRAWN)
        .max_header_list_size(u32::try_from(head_bytes_at_most).unwrap_or(u32::MAX))
        // What the endpoint allows is known when this is not zero any more.
        .initial_max_send_streams(0);
    let opened = builder.handshake(counted).await;
    let (send, mut connection) = opened.map_err(|error| never_began(&error, &passed))?;
    std::future::poll_fn(|cx| {
        let over = Pin::new(&mut connection).poll(cx);
        stream.pour(cx);
        if connection.max_concurrent_send_streams() > 0 {
            return Poll::Ready(Ok(()));
        }
        over.map(|ended| Err(ended.err()))
    })
    .await
    .map_err(|error| {
        error.map_or_else(|| unreached(Reason::Closed), |e| never_began(&e, &passed))
    })?;
    Ok(Opened { send, connection, stream, passed })
}

fn never_began(error: &h2::Error, passed: &Passed) -> TryError {
    if passed.is_refused.get() { refused() } else { unreached(reason_of_h2(error)) }
}

fn refused() -> TryError {
    let failure = Failure { layer: Layer::Tls, reason: Reason::Handshake };
    TryError::Endpoint { failure, reached: Reached::Nothing }
}

fn unreached(reason: Reason) -> TryError {
    TryError::Endpoint { failure: Failure::http(reason), reached: Reached::Nothing }
}

/// The reason that an error of a stream or its connection gives.
fn reason_of_h2(error: &h2::Error) -> Reason {
    if let Some(io) = error.get_io() {
        return reason_of(io).unwrap_or(Reason::Reset);
    }
    match (error.is_remote(), error.is_go_away()) {
        (true, true) => Reason::Closed,
        (true, false) => Reason::Reset,
        // We found it to break the rules.
        (false, _) => Reason::Malformed,
    }
}

impl Opened {
    /// Has it driven, on the current `LocalSet`, for `pool`.
    pub(super) fn drive(
        self,
        pool: &Rc<Pool>,
        client: Option<SocketAddr>,
        queue: &Rc<Queue>,
        slot: Slot,
    ) -> Rc<Multiplexed> {
        let Self { send, mut connection, stream, passed } = self;
        let line = Rc::new(Multiplexed {
            send: RefCell::new(Some(send)),
            streams: Cell::new(0),
            passed,
            client,
            is_proven: Cell::new(false),
            idle_since: Cell::new(Instant::now()),
            queue: Rc::clone(queue),
            driver: RefCell::default(),
        });
        let driver = Driver {
            pings: connection.ping_pong(),
            connection,
            stream,
            line: Rc::clone(&line),
            pulse: None,
            heard_bytes: 0,
            silent_looks: 0,
            last_words: None,
        };
        let pool = Rc::downgrade(pool);
        tokio::task::spawn_local(run(driver, pool, slot));
        line
    }
}

impl Multiplexed {
    /// A seat, if there is one.
    pub(super) fn take(self: &Rc<Self>) -> Room {
        let mut send = self.send.borrow_mut();
        let Some(sender) = send.as_mut() else { return Room::Gone };
        match sender.poll_ready(&mut Context::from_waker(Waker::noop())) {
            // What was sent last has not even begun.
            Poll::Pending => Room::Full,
            Poll::Ready(Err(_)) => {
                drop(send);
                self.retire();
                Room::Gone
            }
            Poll::Ready(Ok(())) => {
                if self.streams.get() >= sender.current_max_send_streams().min(STREAMS) {
                    return Room::Full;
                }
                self.streams.update(|count| count + 1);
                Room::Seat(Seat(Rc::clone(self)))
            }
        }
    }

    /// How many requests it can carry at once.
    pub(super) fn seats(&self) -> usize {
        let send = self.send.borrow();
        send.as_ref().map_or(0, |send| send.current_max_send_streams().min(STREAMS))
    }

    /// Takes no new requests; ends when those that are under way have.
    pub(super) fn retire(&self) {
        drop(self.send.take());
        self.wake();
    }

    /// Nothing that is cut short on it is to be gone on with.
    pub(super) fn reset_at_end(&self) {
        self.passed.resets.set(true);
    }

    pub(super) fn is_retired(&self) -> bool {
        self.send.borrow().is_none()
    }

    /// Since when nobody uses it, if nobody does.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        (self.streams.get() == 0).then(|| self.idle_since.get())
    }

    /// What was handed to the network so far.
    pub(super) fn written_bytes(&self) -> u64 {
        self.passed.written_bytes.get()
    }

    /// A response has come.
    pub(super) fn proven(&self) {
        self.is_proven.set(true);
    }

    /// What `error`, met by a request, says; `reached` is how much of that may have been seen.
    pub(super) fn broken(&self, error: &h2::Error, reached: Reached) -> TryError {
        if self.passed.is_refused.get() && !self.is_proven.get() {
            return refused();
        }
        // A stream beyond the last one that a GOAWAY names, or one that was refused, was not looked
        // at (RFC 9113 6.8, 8.7).
        let is_unread = error.is_remote()
            && (error.is_go_away() || error.reason() == Some(h2::Reason::REFUSED_STREAM));
        let reached = if is_unread { Reached::Nothing } else { reached };
        TryError::Endpoint { failure: Failure::http(reason_of_h2(error)), reached }
    }

    fn wake(&self) {
        if let Some(driver) = &*self.driver.borrow() {
            driver.wake_by_ref();
        }
    }
}

impl Seat {
    pub(super) fn line(&self) -> &Multiplexed {
        &self.0
    }

    /// Begins: hands `request` over; pieces of a body follow if it `has_body`.
    ///
    /// # Errors
    /// [`TryError`] with nothing reached.
    pub fn begin(self, request: Request<()>, has_body: bool) -> Result<Exchange, TryError> {
        let mut send = self.0.send.borrow_mut();
        let Some(sender) = send.as_mut() else { return Err(unreached(Reason::Closed)) };
        let written_before = self.0.written_bytes();
        match sender.send_request(request, !has_body) {
            Ok((response, stream)) => {
                drop(send);
                Ok(Exchange::new(response, stream, has_body, self, written_before))
            }
            Err(error) if error.is_io() || error.is_go_away() => {
                Err(unreached(reason_of_h2(&error)))
            }
            Err(error) => Err(TryError::Local(io::Error::other(error))),
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let line = &self.0;
        line.streams.update(|count| count - 1);
        if line.streams.get() == 0 {
            line.idle_since.set(Instant::now());
            if line.is_retired() {
                line.wake();
            }
        }
        line.queue.wake();
    }
}

/// Moves a connection's bytes; ends with it.
struct Driver {
    connection: Connection<Counted, Bytes>,
    stream: Gathered<Stream>,
    pings: Option<PingPong>,
    line: Rc<Multiplexed>,
    /// Runs while requests are under way.
    pulse: Option<Pin<Box<Sleep>>>,
    heard_bytes: u64,
    silent_looks: u32,
    last_words: Option<Pin<Box<Sleep>>>,
}

async fn run(mut driver: Driver, pool: Weak<Pool>, slot: Slot) {
    std::future::poll_fn(|cx| driver.poll(cx)).await;
    let line = Rc::clone(&driver.line);
    let was_wanted = !line.is_retired() && line.streams.get() == 0;
    line.retire();
    // Those who wait on its streams hear of the end now.
    drop(driver);
    drop(slot);
    if let Some(pool) = pool.upgrade() {
        pool.line_ended(&line, was_wanted);
    }
}

impl Driver {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let known = self.line.driver.borrow().as_ref().is_some_and(|w| w.will_wake(cx.waker()));
        if !known {
            self.line.driver.replace(Some(cx.waker().clone()));
        }
        let is_over = Pin::new(&mut self.connection).poll(cx).is_ready();
        self.stream.pour(cx);
        if is_over {
            return Poll::Ready(());
        }
        if self.line.streams.get() > 0 {
            return self.look(cx);
        }
        self.pulse = None;
        self.silent_looks = 0;
        if !self.line.is_retired() {
            return Poll::Pending;
        }
        if self.line.passed.resets.get() {
            return Poll::Ready(());
        }
        let last_words = self.last_words.get_or_insert_with(|| Box::pin(sleep(LAST_WORDS)));
        last_words.as_mut().poll(cx)
    }

    /// Requests are under way: is the other side still there?
    fn look(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(pings) = &mut self.pings {
            let _ = pings.poll_pong(cx);
        }
        let pulse = self.pulse.get_or_insert_with(|| Box::pin(sleep(LOOK_EVERY)));
        while pulse.as_mut().poll(cx).is_ready() {
            pulse.as_mut().reset(tokio::time::Instant::now() + LOOK_EVERY);
            let heard_bytes = self.line.passed.read_bytes.get();
            if heard_bytes != self.heard_bytes {
                (self.heard_bytes, self.silent_looks) = (heard_bytes, 0);
                continue;
            }
            self.silent_looks += 1;
            match (self.silent_looks, &mut self.pings) {
                (1, Some(pings)) => {
                    let _ = pings.send_ping(Ping::opaque());
                    cx.waker().wake_by_ref();
                }
                (2, _) => self.line.retire(),
                (3.., _) => {
                    self.line.reset_at_end();
                    return Poll::Ready(());
                }
                _ => {}
            }
        }
        Poll::Pending
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if self.passed.resets.get() {
            self.stream.with(Stream::reset_on_drop);
        }
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        // The library keeps no more of an error than its text.
        if let Poll::Ready(Err(error)) = &read
            && tls_client::is_refusal(error)
        {
            self.passed.is_refused.set(true);
        }
        let read_bytes = (buf.filled().len() - before) as u64;
        self.passed.read_bytes.update(|count| count + read_bytes);
        read
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.passed.wrote(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.passed.wrote(&written);
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
