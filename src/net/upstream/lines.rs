//! A pool's HTTP/2 connections: many requests share one, and those that need a new one share its
//! opening.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::logic::outcome::Failure;

use super::connection::TryError;
use super::multiplex::{Multiplexed, Room, Seat};

/// Requests that wait for one opening, while it is not known how many the endpoint allows.
const EXPECTED_SEATS: usize = 100;

/// The HTTP/2 connections of a pool.
#[derive(Debug)]
pub(super) struct Lines {
    open: RefCell<Vec<Rc<Multiplexed>>>,
    opening: RefCell<Option<Rc<Opening>>>,
    /// How many requests the newest connection could carry.
    seats: Cell<usize>,
    /// Whether the endpoint chose HTTP/1.1 when it had the choice.
    chose_h1: Cell<bool>,
}

/// A connection that is being opened, for all who wait for it.
#[derive(Debug)]
pub struct Opening {
    joined: Cell<usize>,
    state: Cell<State>,
    ended: Notify,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Running,
    /// It is open, and may be taken already.
    Open,
    Failed(Failure),
    /// This process is at fault.
    Local,
}

impl Default for Lines {
    fn default() -> Self {
        Self {
            open: RefCell::default(),
            opening: RefCell::default(),
            seats: Cell::new(EXPECTED_SEATS),
            chose_h1: Cell::default(),
        }
    }
}

impl Lines {
    /// A seat on a connection that is open, `client`'s own where connections belong to clients.
    pub(super) fn seat(&self, client: Option<SocketAddr>) -> Option<Seat> {
        let mut open = self.open.borrow_mut();
        let mut seat = None;
        open.retain(|line| {
            if seat.is_some() || line.client != client {
                return true;
            }
            match line.take() {
                Room::Seat(taken) => {
                    seat = Some(taken);
                    true
                }
                Room::Full => true,
                Room::Gone => false,
            }
        });
        seat
    }

    /// Joins those who wait for a connection, if one is being opened that will have a seat.
    pub(super) fn join(&self) -> Option<Rc<Opening>> {
        let opening = self.opening.borrow();
        let opening = opening.as_ref()?;
        let is_running = matches!(opening.state.get(), State::Running);
        if !is_running || opening.joined.get() >= self.seats.get() {
            return None;
        }
        opening.joined.update(|count| count + 1);
        Some(Rc::clone(opening))
    }

    /// A new opening, with one who waits for it.
    pub(super) fn begin(&self) -> Rc<Opening> {
        let opening = Opening {
            joined: Cell::new(1),
            state: Cell::new(State::Running),
            ended: Notify::new(),
        };
        let opening = Rc::new(opening);
        self.opening.replace(Some(Rc::clone(&opening)));
        opening
    }

    pub(super) fn add(&self, line: Rc<Multiplexed>) {
        self.seats.set(line.seats().max(1));
        self.open.borrow_mut().push(line);
    }

    pub(super) fn remove(&self, line: &Rc<Multiplexed>) {
        self.open.borrow_mut().retain(|open| !Rc::ptr_eq(open, line));
    }

    /// The endpoint had the choice.
    pub(super) fn chose_h1(&self, did: bool) {
        self.chose_h1.set(did);
    }

    pub(super) fn has_chosen_h1(&self) -> bool {
        self.chose_h1.get()
    }

    /// Connections that carry nothing.
    pub(super) fn idle(&self) -> usize {
        self.open.borrow().iter().filter(|line| line.idle_since().is_some()).count()
    }

    /// Those that `fits` take no new requests, and end when the last one has.
    pub(super) fn retire(&self, fits: impl Fn(&Multiplexed) -> bool) {
        self.open.borrow_mut().retain(|line| {
            let goes = fits(line);
            if goes {
                line.retire();
            }
            !goes
        });
    }

    /// Those go that have carried nothing for longer than `timeout`.
    pub(super) fn reap(&self, now: Instant, timeout: Duration) {
        let is_old = |since: Instant| now.saturating_duration_since(since) > timeout;
        self.retire(|line| line.idle_since().is_some_and(is_old));
    }

    /// Makes room where each connection belongs to one client: the one goes that has carried nothing
    /// for the longest.
    pub(super) fn give_up_oldest(&self) -> bool {
        let open = self.open.borrow();
        let idle = open.iter().filter(|line| line.idle_since().is_some());
        let Some(oldest) = idle.min_by_key(|line| line.idle_since()).cloned() else {
            return false;
        };
        drop(open);
        self.remove(&oldest);
        oldest.retire();
        true
    }

    /// What is cut short from now on is not to be gone on with.
    pub(super) fn reset_at_end(&self) {
        self.open.borrow().iter().for_each(|line| line.reset_at_end());
    }
}

impl Opening {
    /// Waits for its end.
    ///
    /// # Errors
    /// What it failed for.
    pub(super) async fn wait(&self) -> Result<(), TryError> {
        loop {
            let ended = self.ended.notified();
            match self.state.get() {
                State::Running => ended.await,
                State::Open => return Ok(()),
                State::Failed(failure) => return Err(TryError::never_reached(failure)),
                State::Local => return Err(TryError::Local(std::io::ErrorKind::Other.into())),
            }
        }
    }

    /// It has ended.
    pub(super) fn end(&self, result: &Result<(), TryError>) {
        self.state.set(match result {
            Ok(()) => State::Open,
            Err(TryError::Endpoint { failure, .. }) => State::Failed(*failure),
            Err(_) => State::Local,
        });
        self.ended.notify_waiters();
    }
}
