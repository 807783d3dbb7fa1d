//! The streams of one HTTP/2 connection: their number, idle time, write timeouts and rapid resets.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::rt::Executor;
use pin_project_lite::pin_project;
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::task::TaskTracker;

use crate::app::dataplane::proxy::{ProxyBody, TunnelFuture};
use crate::app::dataplane::worker::client_connections::ClientConnection;
use crate::net::upstream::ResponseBodyError;

/// A request that is reset within this time, without a response, counts as a rapid reset; Envoy's
/// value.
const RAPID_RESET_WINDOW: Duration = Duration::from_secs(1);

/// Requests on a connection before resets are evaluated. A benign client may reset some. An
/// attacker can send no more than this to endpoints.
const MIN_STREAMS_FOR_ABUSE_CHECK: u64 = 200;

/// The streams of one connection.
pub(super) struct StreamTracker {
    /// Receives whether any request is in progress.
    connection: Rc<ClientConnection>,
    write_timeout: Duration,
    active_count: Cell<u32>,
    started_count: Cell<u64>,
    rapid_reset_count: Cell<u64>,
    /// The end of the last request, or the start of the connection.
    idle_since: Cell<Instant>,
    /// The request whose task hyper spawns next.
    next_stream: Cell<Option<Rc<RequestStream>>>,
    abuse: Notify,
}

/// One request and its response.
pub(super) struct RequestStream {
    began: Instant,
    phase: Cell<StreamPhase>,
}

/// What the stream waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StreamPhase {
    /// The response has not started.
    AwaitingResponse,
    /// More of the response is awaited.
    AwaitingBody,
    /// The client has to read what is buffered.
    Sending,
}

impl StreamTracker {
    /// A connection that is idle since `since`. A client that reads nothing of a response for
    /// `write_timeout` loses that stream.
    pub(super) fn new(
        connection: Rc<ClientConnection>,
        write_timeout: Duration,
        since: Instant,
    ) -> Self {
        Self {
            connection,
            write_timeout,
            active_count: Cell::new(0),
            started_count: Cell::new(0),
            rapid_reset_count: Cell::new(0),
            idle_since: Cell::new(since),
            next_stream: Cell::default(),
            abuse: Notify::new(),
        }
    }

    /// Begins a request; [`StreamExecutor`] gets its task next.
    pub(super) fn start_stream(&self) -> Rc<RequestStream> {
        let stream = Rc::new(RequestStream {
            began: Instant::now(),
            phase: Cell::new(StreamPhase::AwaitingResponse),
        });
        self.next_stream.set(Some(Rc::clone(&stream)));
        stream
    }

    /// Whether any request has arrived.
    pub(super) fn has_started(&self) -> bool {
        self.started_count.get() > 0
    }

    /// Whether there was no request in the `time` before `now`.
    pub(super) fn is_idle_for(&self, time: Duration, now: Instant) -> bool {
        self.active_count.get() == 0 && now >= self.idle_since.get() + time
    }

    /// The earliest time at which [`Self::is_idle_for`] can be true.
    pub(super) fn idle_until(&self, time: Duration) -> Instant {
        let since =
            if self.active_count.get() == 0 { self.idle_since.get() } else { Instant::now() };
        since + time
    }

    /// Returns when the client resets most of its requests.
    pub(super) async fn wait_for_abuse(&self) {
        self.abuse.notified().await;
    }
}

/// Counts a request as active until dropped.
struct ActiveStream {
    tracker: Rc<StreamTracker>,
    stream: Rc<RequestStream>,
}

impl ActiveStream {
    fn new(tracker: Rc<StreamTracker>, stream: Rc<RequestStream>) -> Self {
        tracker.active_count.set(tracker.active_count.get() + 1);
        tracker.connection.set_busy();
        Self { tracker, stream }
    }
}

impl Drop for ActiveStream {
    fn drop(&mut self) {
        let Self { tracker, stream } = self;
        tracker.active_count.set(tracker.active_count.get() - 1);
        tracker.idle_since.set(Instant::now());
        if tracker.active_count.get() == 0 {
            tracker.connection.set_idle();
        }
        // Without a response, the stream was reset or its connection closed.
        if stream.phase.get() == StreamPhase::AwaitingResponse
            && stream.began.elapsed() < RAPID_RESET_WINDOW
        {
            let rapid_resets = tracker.rapid_reset_count.get() + 1;
            tracker.rapid_reset_count.set(rapid_resets);
            let started = tracker.started_count.get();
            if started >= MIN_STREAMS_FOR_ABUSE_CHECK && rapid_resets * 2 > started {
                tracker.abuse.notify_one();
            }
        }
    }
}

/// Runs the requests of a connection on the current thread.
#[derive(Clone)]
pub(super) struct StreamExecutor {
    tracker: Rc<StreamTracker>,
    tasks: TaskTracker,
}

impl StreamExecutor {
    pub(super) fn new(tracker: Rc<StreamTracker>, tasks: TaskTracker) -> Self {
        Self { tracker, tasks }
    }

    /// Runs a tunnel on its stream; the connection is not idle meanwhile.
    pub(super) fn spawn_tunnel(&self, tunnel: TunnelFuture) {
        let phase = Cell::new(StreamPhase::Sending);
        let stream = Rc::new(RequestStream { began: Instant::now(), phase });
        let active = ActiveStream::new(Rc::clone(&self.tracker), stream);
        drop(self.tasks.spawn_local(async move {
            tunnel.await;
            drop(active);
        }));
    }
}

impl<F: Future + 'static> Executor<F> for StreamExecutor {
    fn execute(&self, future: F) {
        match self.tracker.next_stream.take() {
            None => drop(self.tasks.spawn_local(async { drop(future.await) })),
            Some(stream) => {
                self.tracker.started_count.set(self.tracker.started_count.get() + 1);
                let active = ActiveStream::new(Rc::clone(&self.tracker), stream);
                drop(self.tasks.spawn_local(StreamTask { future, write_timer: None, active }));
            }
        }
    }
}

pin_project! {
    /// Runs one request, until its client has read nothing of the response for the write timeout. A
    /// window that stays closed would hold the response and its endpoint forever.
    ///
    /// An `async fn` would reserve space for the future twice, and it is moved for every request.
    struct StreamTask<F> {
        #[pin]
        future: F,
        write_timer: Option<Pin<Box<Sleep>>>,
        active: ActiveStream,
    }
}

impl<F: Future> Future for StreamTask<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let task = self.project();
        let write_timer = task.write_timer;
        let has_timed_out =
            write_timer.as_mut().is_some_and(|timer| timer.as_mut().poll(cx).is_ready());
        if task.future.poll(cx).is_ready() {
            return Poll::Ready(());
        }
        if task.active.stream.phase.get() != StreamPhase::Sending {
            *write_timer = None;
            return Poll::Pending;
        }
        if has_timed_out {
            return Poll::Ready(());
        }
        // A wake-up by anything but the timer means progress.
        let timeout = task.active.tracker.write_timeout;
        let write_timer = write_timer.get_or_insert_with(|| Box::pin(sleep(timeout)));
        write_timer.as_mut().reset(Instant::now() + timeout);
        write_timer.as_mut().poll(cx)
    }
}

/// A response body that records what its stream waits for.
pub(super) struct H2StreamBody {
    body: ProxyBody,
    stream: Rc<RequestStream>,
}

impl H2StreamBody {
    pub(super) fn new(body: ProxyBody, stream: Rc<RequestStream>) -> Self {
        stream.phase.set(StreamPhase::Sending);
        Self { body, stream }
    }
}

impl Body for H2StreamBody {
    type Data = Bytes;
    type Error = ResponseBodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ResponseBodyError>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        let phase =
            if frame.is_pending() { StreamPhase::AwaitingBody } else { StreamPhase::Sending };
        self.stream.phase.set(phase);
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
