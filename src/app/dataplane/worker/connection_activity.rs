//! What a client connection is doing, as its bytes and its requests say.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConnectionPhase {
    /// Nothing has come that belongs to a request.
    Opening,
    /// It is between two requests.
    Idle,
    /// A part of a request's head is there.
    ReadingHead,
    /// A request is under way, or a tunnel.
    Busy,
}

impl ConnectionPhase {
    const ALL: [Self; 4] = [Self::Opening, Self::Idle, Self::ReadingHead, Self::Busy];
}

/// One thread reads and writes it, without a locked instruction; it is atomic only because a connection
/// that becomes a tunnel might be moved to another one, as far as its type says.
#[derive(Debug)]
pub(super) struct ConnectionActivity {
    phase: AtomicU8,
    /// Everything that was written has been flushed.
    is_flushed: AtomicBool,
    is_head_late: AtomicBool,
    /// When it last did something, among all connections of the worker.
    last_activity: AtomicU64,
    activity_counter: Arc<AtomicU64>,
}

impl ConnectionActivity {
    /// A connection that has just come; `turns` counts for all of them.
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

    /// What it is doing.
    pub(super) fn phase(&self) -> ConnectionPhase {
        ConnectionPhase::ALL[usize::from(self.phase.load(Relaxed))]
    }

    /// When it last did something: a greater turn is later.
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

    /// None are left here.
    pub(super) fn on_flushed(&self) {
        self.is_flushed.store(true, Relaxed);
    }

    /// Something is under way.
    pub(super) fn set_busy(&self) {
        self.touch();
        self.set_phase(ConnectionPhase::Busy);
    }

    /// Nothing is any more; of what was written something may still be here.
    pub(super) fn set_idle(&self) {
        self.touch();
        self.is_flushed.store(false, Relaxed);
        self.set_phase(ConnectionPhase::Idle);
    }

    /// The head has not come in its time.
    pub(super) fn set_head_late(&self) {
        self.is_head_late.store(true, Relaxed);
    }

    /// Whether that is so.
    pub(super) fn is_head_late(&self) -> bool {
        self.is_head_late.load(Relaxed)
    }

    /// Whether an answer can be written below HTTP: there is half a request, and nothing else.
    pub(super) fn can_send_timeout_response(&self) -> bool {
        self.phase() == ConnectionPhase::ReadingHead && self.is_flushed.load(Relaxed)
    }
}
