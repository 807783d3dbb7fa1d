//! What a client connection is doing, as its bytes and its requests say.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Nothing has come that belongs to a request.
    Opening,
    /// It is between two requests.
    Idle,
    /// A part of a request's head is there.
    Head,
    /// A request is under way, or a tunnel.
    Busy,
}

impl State {
    const ALL: [Self; 4] = [Self::Opening, Self::Idle, Self::Head, Self::Busy];
}

/// One thread reads and writes it, without a locked instruction; it is atomic only because a connection
/// that becomes a tunnel might be moved to another one, as far as its type says.
#[derive(Debug)]
pub(super) struct Pulse {
    state: AtomicU8,
    /// Everything that was written has been flushed.
    is_flushed: AtomicBool,
    is_late: AtomicBool,
    /// When it last did something, among all connections of the worker.
    turn: AtomicU64,
    turns: Arc<AtomicU64>,
}

impl Pulse {
    /// A connection that has just come; `turns` counts for all of them.
    pub(super) fn new(turns: &Arc<AtomicU64>) -> Self {
        let pulse = Self {
            state: AtomicU8::new(State::Opening as u8),
            is_flushed: AtomicBool::new(true),
            is_late: AtomicBool::new(false),
            turn: AtomicU64::new(0),
            turns: Arc::clone(turns),
        };
        pulse.touch();
        pulse
    }

    /// What it is doing.
    pub(super) fn state(&self) -> State {
        State::ALL[usize::from(self.state.load(Relaxed))]
    }

    /// When it last did something: a greater turn is later.
    pub(super) fn turn(&self) -> u64 {
        self.turn.load(Relaxed)
    }

    fn touch(&self) {
        let turn = self.turns.load(Relaxed) + 1;
        self.turns.store(turn, Relaxed);
        self.turn.store(turn, Relaxed);
    }

    fn set(&self, state: State) {
        self.state.store(state as u8, Relaxed);
    }

    /// Bytes have come.
    pub(super) fn received(&self) {
        self.touch();
        if matches!(self.state(), State::Opening | State::Idle) {
            self.set(State::Head);
        }
    }

    /// Bytes have gone.
    pub(super) fn sent(&self) {
        self.touch();
        self.is_flushed.store(false, Relaxed);
    }

    /// None are left here.
    pub(super) fn flushed(&self) {
        self.is_flushed.store(true, Relaxed);
    }

    /// Something is under way.
    pub(super) fn busy(&self) {
        self.touch();
        self.set(State::Busy);
    }

    /// Nothing is any more; of what was written something may still be here.
    pub(super) fn idle(&self) {
        self.touch();
        self.is_flushed.store(false, Relaxed);
        self.set(State::Idle);
    }

    /// The head has not come in its time.
    pub(super) fn late(&self) {
        self.is_late.store(true, Relaxed);
    }

    /// Whether that is so.
    pub(super) fn is_late(&self) -> bool {
        self.is_late.load(Relaxed)
    }

    /// Whether an answer can be written below HTTP: there is half a request, and nothing else.
    pub(super) fn can_be_answered(&self) -> bool {
        self.state() == State::Head && self.is_flushed.load(Relaxed)
    }
}
