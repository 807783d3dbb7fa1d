//! What the requests of one HTTP/2 connection are doing: how many, since when none, which of them
//! wait for nothing but their client, and how many it has given up at once.

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

/// A request that is given up within this time, unanswered, is suspicious; Envoy's measure.
const RAPID_RESET_WINDOW: Duration = Duration::from_secs(1);

/// Requests on a connection before their fates are judged. A client that means no harm may give up
/// some; the first few hundred are all that somebody who does can have sent to the endpoints.
const MIN_STREAMS_FOR_ABUSE_CHECK: u64 = 200;

/// The requests of one connection.
pub(super) struct StreamTracker {
    /// Hears whether there is any.
    connection: Rc<ClientConnection>,
    write_timeout: Duration,
    active_count: Cell<u32>,
    started_count: Cell<u64>,
    rapid_reset_count: Cell<u64>,
    /// When the last one ended, or the connection began.
    idle_since: Cell<Instant>,
    /// The request whose task hyper is about to start.
    next_stream: Cell<Option<Rc<RequestStream>>>,
    abuse: Notify,
}

/// One request and its answer.
pub(super) struct RequestStream {
    began: Instant,
    phase: Cell<StreamPhase>,
}

/// Who is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StreamPhase {
    /// There is no answer yet.
    AwaitingResponse,
    /// More of the answer is awaited.
    AwaitingBody,
    /// The client is to take what there is.
    Sending,
}

impl StreamTracker {
    /// A connection whose client may take nothing of an answer for `write_timeout`, and is awaited
    /// since then.
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

    /// A request has come; [`Streams`] is to get its task next.
    pub(super) fn start_stream(&self) -> Rc<RequestStream> {
        let stream = Rc::new(RequestStream {
            began: Instant::now(),
            phase: Cell::new(StreamPhase::AwaitingResponse),
        });
        self.next_stream.set(Some(Rc::clone(&stream)));
        stream
    }

    /// Whether there was ever a request.
    pub(super) fn has_started(&self) -> bool {
        self.started_count.get() > 0
    }

    /// Whether there was no request for `time`, up to `now`.
    pub(super) fn is_idle_for(&self, time: Duration, now: Instant) -> bool {
        self.active_count.get() == 0 && now >= self.idle_since.get() + time
    }

    /// The earliest moment at which there can have been none for `time`.
    pub(super) fn idle_until(&self, time: Duration) -> Instant {
        let since =
            if self.active_count.get() == 0 { self.idle_since.get() } else { Instant::now() };
        since + time
    }

    /// Ends when the client turns out to reset most of what it asks.
    pub(super) async fn wait_for_abuse(&self) {
        self.abuse.notified().await;
    }
}

/// Counts a request for as long as its task lives.
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
        // Unanswered, it can only have been reset, or its connection is over.
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

/// Runs the requests of a connection on the thread at hand.
#[derive(Clone)]
pub(super) struct StreamExecutor {
    tracker: Rc<StreamTracker>,
    tasks: TaskTracker,
}

impl StreamExecutor {
    /// For the requests of this connection.
    pub(super) fn new(tracker: Rc<StreamTracker>, tasks: TaskTracker) -> Self {
        Self { tracker, tasks }
    }

    /// Runs what follows an answer on its stream: the connection is not idle meanwhile.
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
    /// Runs one request to its end, or until its client has taken nothing of the answer for too long:
    /// a window that is never opened would hold the answer, and its endpoint, for ever.
    ///
    /// An `async fn` would have room for the future twice, and each is moved for every request.
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
        let run = self.project();
        let write_timer = run.write_timer;
        let is_over = write_timer.as_mut().is_some_and(|clock| clock.as_mut().poll(cx).is_ready());
        if run.future.poll(cx).is_ready() {
            return Poll::Ready(());
        }
        if run.active.stream.phase.get() != StreamPhase::Sending {
            *write_timer = None;
            return Poll::Pending;
        }
        if is_over {
            return Poll::Ready(());
        }
        // Woken by anything else, something has moved.
        let timeout = run.active.tracker.write_timeout;
        let write_timer = write_timer.get_or_insert_with(|| Box::pin(sleep(timeout)));
        write_timer.as_mut().reset(Instant::now() + timeout);
        write_timer.as_mut().poll(cx)
    }
}

/// An answer's body, which says who is waited for.
pub(super) struct H2StreamBody {
    body: ProxyBody,
    stream: Rc<RequestStream>,
}

impl H2StreamBody {
    /// The answer is there; its body follows.
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
