//! Delays the close of connections whose response was not read to its end.
//!
//! A probe closes with RST. An endpoint that has yet to write the rest of its response would fail,
//! and would log an error for each probe.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::stream::ProbeStream;

/// The time a connection stays open; most endpoints write the rest of a response at once.
const MIN_LINGER: Duration = Duration::from_millis(50);

/// Connections that stay open, at most; the oldest one is closed for a new one.
const MAX_LINGERING: usize = 64;

/// Connections to be closed, the oldest first.
#[derive(Debug, Default)]
pub(super) struct LingeringStreams {
    streams: RefCell<VecDeque<(Instant, Box<ProbeStream>)>>,
}

impl LingeringStreams {
    /// Closes `stream` after [`MIN_LINGER`], or earlier if too many linger.
    pub(super) fn add(&self, stream: Box<ProbeStream>) {
        let mut streams = self.streams.borrow_mut();
        if streams.len() == MAX_LINGERING {
            streams.pop_front();
        }
        streams.push_back((Instant::now(), stream));
    }

    /// Closes the connections that have stayed open long enough.
    pub(super) fn close_expired(&self, now: Instant) {
        let is_expired =
            |&mut (since, _): &mut (Instant, _)| now.saturating_duration_since(since) >= MIN_LINGER;
        let mut streams = self.streams.borrow_mut();
        while streams.pop_front_if(is_expired).is_some() {}
    }
}
