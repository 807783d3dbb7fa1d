//! The client connections of one worker: what each is doing, which of them are silent for too long,
//! and which go first where there is no room for all.
//!
//! A request writes a few cells of its own connection; it reads no clock for that, sets no timer and
//! allocates nothing. Time is told by a look at all connections, twice a second.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use metrics::counter;
use tokio::sync::Notify;

use crate::config::model::Limits;
use crate::logic::descriptors::Descriptor;

use super::pulse::{Pulse, State};

/// Of the idle connections, those that are found at once as the oldest: one of so many, and so many at
/// least. To look at all of them for each would cost those too who are served.
const FOUND_PART: usize = 16;
const FOUND_LEAST: usize = 16;

/// One of so many idle connections goes at once where memory is short.
const SHRINK_PART: usize = 4;

/// Who has just come has not had the time to ask for anything yet.
const GRACE: Duration = Duration::from_secs(1);

/// Where there is too little of something, clients have this part of their time.
const HURRY: u32 = 4;

/// Where none are idle, they are looked for again after this long.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// What a connection is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// The worker drains: end with the request that is under way, or on its way.
    Leave,
    /// End with the request that is under way.
    Go(Why),
}

/// Why a connection is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// Nothing was asked for too long.
    Idle,
    /// A head did not come in its time.
    Head,
    /// Its listener has no room for a new one.
    Connections,
    /// There are too few descriptors.
    Descriptors,
    /// There is too little memory.
    Memory,
}

impl Why {
    /// The word used in metrics.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Head => "header_timeout",
            Self::Connections => "connections",
            Self::Descriptors => "descriptors",
            Self::Memory => "memory",
        }
    }
}

/// The client connections of a worker.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    guests: RefCell<Vec<Rc<Guest>>>,
    turns: Arc<AtomicU64>,
    is_leaving: Cell<bool>,
    /// Somebody has gone.
    parted: Notify,
}

/// The connections that go first, where some have to; found once for many.
#[derive(Debug, Default)]
pub(super) struct Oldest {
    /// Each with the turn at which it was found idle, the oldest last.
    found: Vec<(Rc<Guest>, u64)>,
    /// There are none, as far as is known until then.
    none_until: Option<Instant>,
}

/// One client connection.
#[derive(Debug)]
pub(super) struct Guest {
    pulse: Arc<Pulse>,
    /// Whether the look at all of them keeps its time; another one keeps it itself.
    is_watched: Cell<bool>,
    order: Cell<Option<Order>>,
    told: Cell<Option<Why>>,
    waker: RefCell<Option<Waker>>,
    /// Its place among all of them; none when it has gone.
    place: Cell<Option<usize>>,
    /// How many there are at its listener, while it counts there.
    counted: RefCell<Option<Arc<AtomicUsize>>>,
    /// The turn at which the look found it, and when that was; at first when it came.
    seen: Cell<(u64, Instant)>,
    /// When the head that is awaited began to be.
    head_since: Cell<Option<Instant>>,
}

/// A guest's stay: it is one of the crowd until this is dropped.
#[derive(Debug)]
pub(super) struct Stay {
    crowd: Rc<Crowd>,
    guest: Rc<Guest>,
    _descriptor: Descriptor,
}

/// A request under way; over when dropped.
#[derive(Debug)]
pub(super) struct UnderWay(Rc<Guest>);

impl Crowd {
    /// One more, of which nothing is known yet; `counted` has counted it.
    pub(super) fn join(
        self: &Rc<Self>,
        counted: Arc<AtomicUsize>,
        descriptor: Descriptor,
        now: Instant,
    ) -> Stay {
        let mut guests = self.guests.borrow_mut();
        let guest = Rc::new(Guest {
            pulse: Arc::new(Pulse::new(&self.turns)),
            is_watched: Cell::new(false),
            order: Cell::new(self.is_leaving.get().then_some(Order::Leave)),
            told: Cell::default(),
            waker: RefCell::default(),
            place: Cell::new(Some(guests.len())),
            counted: RefCell::new(Some(counted)),
            seen: Cell::new((0, now)),
            head_since: Cell::default(),
        });
        guests.push(Rc::clone(&guest));
        Stay { crowd: Rc::clone(self), guest, _descriptor: descriptor }
    }

    /// Everybody is told to leave, those too who come later.
    pub(super) fn leave(&self) {
        self.is_leaving.set(true);
        for guest in &*self.guests.borrow() {
            guest.leave();
        }
    }

    /// Whether everybody was told to.
    pub(super) fn is_leaving(&self) -> bool {
        self.is_leaving.get()
    }

    /// Ends those that were silent for longer than `limits` allow, as of `now`; where there is too little
    /// of something, for a part of that.
    pub(super) fn look(&self, now: Instant, limits: &Limits, is_pressed: bool) {
        let part = if is_pressed { HURRY } else { 1 };
        let (idle, head) = (limits.idle_timeout / part, limits.header_timeout / part);
        for guest in &*self.guests.borrow() {
            if let Some(why) = guest.due(now, idle, head) {
                guest.send_away(why);
            }
        }
    }

    /// Sends away the connection that has been idle for the longest, one of `listener` if that is
    /// asked for; whether there was one. `oldest` remembers what was found, for the next time.
    pub(super) fn shed(
        &self,
        why: Why,
        listener: Option<&Arc<AtomicUsize>>,
        oldest: &mut Oldest,
        now: Instant,
    ) -> bool {
        loop {
            while let Some((guest, turn)) = oldest.found.pop() {
                if guest.pulse.turn() == turn && guest.is_sheddable(now) {
                    guest.cede();
                    guest.send_away(why);
                    return true;
                }
            }
            if oldest.none_until.is_some_and(|until| now < until) {
                return false;
            }
            let fits = |guest: &Guest| {
                listener.is_none_or(|listener| guest.is_of(listener)) && guest.is_sheddable(now)
            };
            oldest.found = self.oldest(fits, |idle| (idle / FOUND_PART).max(FOUND_LEAST));
            oldest.none_until = oldest.found.is_empty().then_some(now + LOOK_AGAIN);
        }
    }

    /// Sends away those that have been idle for the longest: a part of all that are, so that there is
    /// time to see what came of it.
    pub(super) fn shrink(&self, now: Instant) {
        let fits = |guest: &Guest| guest.is_sheddable(now);
        let oldest = self.oldest(fits, |idle| idle.div_ceil(SHRINK_PART));
        for (guest, _) in oldest {
            guest.send_away(Why::Memory);
        }
    }

    /// So many as `count` says of those that fit, the oldest last.
    fn oldest(
        &self,
        fits: impl Fn(&Guest) -> bool,
        count: impl Fn(usize) -> usize,
    ) -> Vec<(Rc<Guest>, u64)> {
        let guests = self.guests.borrow();
        let turns =
            |(place, guest): (usize, &Rc<Guest>)| fits(guest).then(|| (guest.pulse.turn(), place));
        let mut found: Vec<_> = guests.iter().enumerate().filter_map(turns).collect();
        let count = count(found.len());
        if count < found.len() {
            found.select_nth_unstable(count);
            found.truncate(count);
        }
        found.sort_unstable_by_key(|&(turn, _)| Reverse(turn));
        found.into_iter().map(|(turn, place)| (Rc::clone(&guests[place]), turn)).collect()
    }

    /// Ends when a connection has.
    pub(super) async fn parted(&self) {
        self.parted.notified().await;
    }

    fn part(&self, guest: &Guest) {
        let mut guests = self.guests.borrow_mut();
        let Some(place) = guest.place.take() else { return };
        guests.swap_remove(place);
        if let Some(moved) = guests.get(place) {
            moved.place.set(Some(place));
        }
        guest.cede();
        self.parted.notify_waiters();
    }
}

impl Stay {
    /// The guest.
    pub(super) fn guest(&self) -> &Rc<Guest> {
        &self.guest
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        self.crowd.part(&self.guest);
    }
}

impl Guest {
    /// HTTP/1.1 is served from now on: the look keeps the time, that of the first head from `since`.
    pub(super) fn watch(&self, since: Instant) {
        self.head_since.set(Some(since));
        self.is_watched.set(true);
    }

    /// What it is doing.
    pub(super) fn pulse(&self) -> &Arc<Pulse> {
        &self.pulse
    }

    /// Nothing more can be done now: if a head is not all there, its time runs.
    pub(super) fn rests(&self) {
        if self.pulse.state() == State::Head && self.head_since.get().is_none() {
            self.head_since.set(Some(Instant::now()));
        }
    }

    /// A request begins; it is under way until what comes back is dropped.
    pub(super) fn begin(self: &Rc<Self>) -> UnderWay {
        self.busy();
        UnderWay(Rc::clone(self))
    }

    /// Something is under way.
    pub(super) fn busy(&self) {
        self.pulse.busy();
        self.head_since.set(None);
    }

    /// Nothing is any more.
    pub(super) fn idle(&self) {
        self.pulse.idle();
    }

    /// Counts no more at its listener: somebody else may come for it.
    fn cede(&self) {
        if let Some(counted) = self.counted.take() {
            counted.fetch_sub(1, Relaxed);
        }
    }

    fn is_of(&self, listener: &Arc<AtomicUsize>) -> bool {
        self.counted.borrow().as_ref().is_some_and(|counted| Arc::ptr_eq(counted, listener))
    }

    /// Whether nothing is lost with it: no request is under way, nor a part of one there.
    fn is_sheddable(&self, now: Instant) -> bool {
        let is_idle = match self.pulse.state() {
            State::Idle => true,
            State::Opening => now.saturating_duration_since(self.seen.get().1) >= GRACE,
            State::Head | State::Busy => false,
        };
        is_idle && self.place.get().is_some() && self.told.get().is_none()
    }

    fn due(&self, now: Instant, idle: Duration, head: Duration) -> Option<Why> {
        if !self.is_watched.get() {
            return None;
        }
        match (self.pulse.state(), self.told.get()) {
            (_, Some(Why::Head)) | (State::Busy, _) => None,
            (State::Idle, _) => {
                let (turn, since) = self.seen.get();
                if turn != self.pulse.turn() {
                    self.seen.set((self.pulse.turn(), now));
                    return None;
                }
                let is_due = now.saturating_duration_since(since) >= idle;
                (is_due && self.told.get().is_none()).then_some(Why::Idle)
            }
            (State::Opening | State::Head, _) => {
                let since = self.head_since.get()?;
                let is_due = now.saturating_duration_since(since) >= head;
                is_due.then_some(Why::Head)
            }
        }
    }

    fn send_away(&self, why: Why) {
        counter!("gapless_client_connections_closed_total", "reason" => why.as_str()).increment(1);
        self.told.set(Some(why));
        if why == Why::Head {
            self.pulse.late();
        }
        self.tell(Order::Go(why));
    }

    fn tell(&self, order: Order) {
        self.order.set(Some(order));
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// The worker drains.
    pub(super) fn leave(&self) {
        self.tell(Order::Leave);
    }

    /// Waits for an order.
    pub(super) async fn told(&self) -> Order {
        poll_fn(|cx| self.poll_told(cx)).await
    }

    fn poll_told(&self, cx: &mut Context<'_>) -> Poll<Order> {
        if let Some(order) = self.order.take() {
            return Poll::Ready(order);
        }
        let mut waker = self.waker.borrow_mut();
        if waker.as_ref().is_none_or(|known| !known.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.idle();
    }
}
