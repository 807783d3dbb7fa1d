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

use crate::app::proxy::{ProxyBody, Running};
use crate::app::worker::crowd::Guest;
use crate::net::upstream::ResponseError;

/// A request that is given up within this time, unanswered, is suspicious; Envoy's measure.
const AT_ONCE: Duration = Duration::from_secs(1);

/// Requests on a connection before their fates are judged. A client that means no harm may give up
/// some; the first few hundred are all that somebody who does can have sent to the endpoints.
const JUDGED_FROM: u64 = 200;

/// The requests of one connection.
pub(super) struct Activity {
    /// Hears whether there is any.
    guest: Rc<Guest>,
    write_timeout: Duration,
    running: Cell<u32>,
    begun: Cell<u64>,
    given_up: Cell<u64>,
    /// When the last one ended, or the connection began.
    idle_since: Cell<Instant>,
    /// The request whose task hyper is about to start.
    next: Cell<Option<Rc<Stream>>>,
    abuse: Notify,
}

/// One request and its answer.
pub(super) struct Stream {
    began: Instant,
    state: Cell<State>,
}

/// Who is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// There is no answer yet.
    Asking,
    /// More of the answer is awaited.
    Receiving,
    /// The client is to take what there is.
    Sending,
}

impl Activity {
    /// A connection whose client may take nothing of an answer for `write_timeout`, and is awaited
    /// since then.
    pub(super) fn new(guest: Rc<Guest>, write_timeout: Duration, since: Instant) -> Self {
        Self {
            guest,
            write_timeout,
            running: Cell::new(0),
            begun: Cell::new(0),
            given_up: Cell::new(0),
            idle_since: Cell::new(since),
            next: Cell::default(),
            abuse: Notify::new(),
        }
    }

    /// A request has come; [`Streams`] is to get its task next.
    pub(super) fn begin(&self) -> Rc<Stream> {
        let stream = Rc::new(Stream { began: Instant::now(), state: Cell::new(State::Asking) });
        self.next.set(Some(Rc::clone(&stream)));
        stream
    }

    /// Whether there was ever a request.
    pub(super) fn has_begun(&self) -> bool {
        self.begun.get() > 0
    }

    /// Whether there was no request for `time`, up to `now`.
    pub(super) fn is_idle_for(&self, time: Duration, now: Instant) -> bool {
        self.running.get() == 0 && now >= self.idle_since.get() + time
    }

    /// The earliest moment at which there can have been none for `time`.
    pub(super) fn idle_until(&self, time: Duration) -> Instant {
        let since = if self.running.get() == 0 { self.idle_since.get() } else { Instant::now() };
        since + time
    }

    /// Ends when the client turns out to reset most of what it asks.
    pub(super) async fn abused(&self) {
        self.abuse.notified().await;
    }
}

/// Counts a request for as long as its task lives.
struct Busy {
    activity: Rc<Activity>,
    stream: Rc<Stream>,
}

impl Busy {
    fn new(activity: Rc<Activity>, stream: Rc<Stream>) -> Self {
        activity.running.set(activity.running.get() + 1);
        activity.guest.busy();
        Self { activity, stream }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let Self { activity, stream } = self;
        activity.running.set(activity.running.get() - 1);
        activity.idle_since.set(Instant::now());
        if activity.running.get() == 0 {
            activity.guest.idle();
        }
        // Unanswered, it can only have been reset, or its connection is over.
        if stream.state.get() == State::Asking && stream.began.elapsed() < AT_ONCE {
            let given_up = activity.given_up.get() + 1;
            activity.given_up.set(given_up);
            let begun = activity.begun.get();
            if begun >= JUDGED_FROM && given_up * 2 > begun {
                activity.abuse.notify_one();
            }
        }
    }
}

/// Runs the requests of a connection on the thread at hand.
#[derive(Clone)]
pub(super) struct Streams {
    activity: Rc<Activity>,
    tasks: TaskTracker,
}

impl Streams {
    /// For the requests of this connection.
    pub(super) fn new(activity: Rc<Activity>, tasks: TaskTracker) -> Self {
        Self { activity, tasks }
    }

    /// Runs what follows an answer on its stream: the connection is not idle meanwhile.
    pub(super) fn carry(&self, tunnel: Running) {
        let state = Cell::new(State::Sending);
        let stream = Rc::new(Stream { began: Instant::now(), state });
        let busy = Busy::new(Rc::clone(&self.activity), stream);
        drop(self.tasks.spawn_local(async move {
            tunnel.await;
            drop(busy);
        }));
    }
}

impl<F: Future + 'static> Executor<F> for Streams {
    fn execute(&self, future: F) {
        match self.activity.next.take() {
            None => drop(self.tasks.spawn_local(async { drop(future.await) })),
            Some(stream) => {
                self.activity.begun.set(self.activity.begun.get() + 1);
                let running = Busy::new(Rc::clone(&self.activity), stream);
                drop(self.tasks.spawn_local(Run { future, clock: None, running }));
            }
        }
    }
}

pin_project! {
    /// Runs one request to its end, or until its client has taken nothing of the answer for too long:
    /// a window that is never opened would hold the answer, and its endpoint, for ever.
    ///
    /// An `async fn` would have room for the future twice, and each is moved for every request.
    struct Run<F> {
        #[pin]
        future: F,
        clock: Option<Pin<Box<Sleep>>>,
        running: Busy,
    }
}

impl<F: Future> Future for Run<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let run = self.project();
        let clock = run.clock;
        let is_over = clock.as_mut().is_some_and(|clock| clock.as_mut().poll(cx).is_ready());
        if run.future.poll(cx).is_ready() {
            return Poll::Ready(());
        }
        if run.running.stream.state.get() != State::Sending {
            *clock = None;
            return Poll::Pending;
        }
        if is_over {
            return Poll::Ready(());
        }
        // Woken by anything else, something has moved.
        let timeout = run.running.activity.write_timeout;
        let clock = clock.get_or_insert_with(|| Box::pin(sleep(timeout)));
        clock.as_mut().reset(Instant::now() + timeout);
        clock.as_mut().poll(cx)
    }
}

/// An answer's body, which says who is waited for.
pub(super) struct Answering {
    body: ProxyBody,
    stream: Rc<Stream>,
}

impl Answering {
    /// The answer is there; its body follows.
    pub(super) fn new(body: ProxyBody, stream: Rc<Stream>) -> Self {
        stream.state.set(State::Sending);
        Self { body, stream }
    }
}

impl Body for Answering {
    type Data = Bytes;
    type Error = ResponseError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ResponseError>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        let state = if frame.is_pending() { State::Receiving } else { State::Sending };
        self.stream.state.set(state);
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
