//! Connections whose answer was judged before its end.
//!
//! A probe closes by RST. An endpoint that has yet to write the rest of its answer would fail at it,
//! and say so in its log, probe by probe.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::ProbeStream;

/// How long they stay, at least: the rest mostly follows at once.
const MIN_LINGER: Duration = Duration::from_millis(50);

/// So many at most; the oldest ones go.
const MAX_LINGERING: usize = 64;

/// Connections that are about to be closed, the oldest first.
#[derive(Debug, Default)]
pub(super) struct LingeringStreams {
    streams: RefCell<VecDeque<(Instant, Box<ProbeStream>)>>,
}

impl LingeringStreams {
    /// Takes one that is not needed any more.
    pub(super) fn add(&self, stream: Box<ProbeStream>) {
        let mut streams = self.streams.borrow_mut();
        if streams.len() == MAX_LINGERING {
            streams.pop_front();
        }
        streams.push_back((Instant::now(), stream));
    }

    /// Closes those that have stayed long enough.
    pub(super) fn close_expired(&self, now: Instant) {
        let is_expired =
            |&mut (since, _): &mut (Instant, _)| now.saturating_duration_since(since) >= MIN_LINGER;
        let mut streams = self.streams.borrow_mut();
        while streams.pop_front_if(is_expired).is_some() {}
    }
}
