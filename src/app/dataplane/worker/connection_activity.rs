//! The phase of a client connection, derived from its bytes and its requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConnectionPhase {
    /// No byte of a request has arrived.
    Opening,
    /// Between two requests.
    Idle,
    /// A part of a request head has arrived.
    ReadingHead,
    /// A request or a tunnel is in progress.
    Busy,
}

impl ConnectionPhase {
    const ALL: [Self; 4] = [Self::Opening, Self::Idle, Self::ReadingHead, Self::Busy];
}

/// Only one thread uses it, with relaxed loads and stores. The atomics exist because the type of an
/// upgraded connection must be `Send`.
#[derive(Debug)]
pub(super) struct ConnectionActivity {
    phase: AtomicU8,
    /// All written bytes have been flushed.
    is_flushed: AtomicBool,
    is_head_late: AtomicBool,
    /// The activity number of the last event, which orders the worker's connections.
    last_activity: AtomicU64,
    activity_counter: Arc<AtomicU64>,
}

impl ConnectionActivity {
    /// A new connection; `activity_counter` numbers the events of all connections.
    pub(super) fn new(activity_counter: &Arc<AtomicU64>) -> Self {
        let activity = Self {
            phase: AtomicU8::new(ConnectionPhase::Opening as u8),
            is_flushed: AtomicBool::new(true),
            is_head_late: AtomicBool::new(false),
            last_activity: AtomicU64::new(0),
            activity_counter: Arc::clone(activity_counter),
        };
        activity.touch();
        activity
    }

    pub(super) fn phase(&self) -> ConnectionPhase {
        ConnectionPhase::ALL[usize::from(self.phase.load(Relaxed))]
    }

    /// The activity number of the last event; a greater one is later.
    pub(super) fn last_activity(&self) -> u64 {
        self.last_activity.load(Relaxed)
    }

    fn touch(&self) {
        let sequence = self.activity_counter.load(Relaxed) + 1;
        self.activity_counter.store(sequence, Relaxed);
        self.last_activity.store(sequence, Relaxed);
    }

    fn set_phase(&self, phase: ConnectionPhase) {
        self.phase.store(phase as u8, Relaxed);
    }

    pub(super) fn on_received(&self) {
        self.touch();
        if matches!(self.phase(), ConnectionPhase::Opening | ConnectionPhase::Idle) {
            self.set_phase(ConnectionPhase::ReadingHead);
        }
    }

    pub(super) fn on_sent(&self) {
        self.touch();
        self.is_flushed.store(false, Relaxed);
    }

    /// All written bytes are flushed.
    pub(super) fn on_flushed(&self) {
        self.is_flushed.store(true, Relaxed);
    }

    /// Marks a request or a tunnel as in progress.
    pub(super) fn set_busy(&self) {
        self.touch();
        self.set_phase(ConnectionPhase::Busy);
    }

    /// Marks the connection as idle; some written bytes may still be buffered.
    pub(super) fn set_idle(&self) {
        self.touch();
        self.is_flushed.store(false, Relaxed);
        self.set_phase(ConnectionPhase::Idle);
    }

    /// The header timeout has passed.
    pub(super) fn set_head_late(&self) {
        self.is_head_late.store(true, Relaxed);
    }

    pub(super) fn is_head_late(&self) -> bool {
        self.is_head_late.load(Relaxed)
    }

    /// Whether a 408 can be written below hyper: a part of a head has arrived, and no response is
    /// in progress.
    pub(super) fn can_send_timeout_response(&self) -> bool {
        self.phase() == ConnectionPhase::ReadingHead && self.is_flushed.load(Relaxed)
    }
}
