//! Connections whose answer was judged before its end.
//!
//! A probe closes by RST. An endpoint that has yet to write the rest of its answer would fail at it,
//! and say so in its log, probe by probe.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::Stream;

/// How long they stay, at least: the rest mostly follows at once.
const LINGER: Duration = Duration::from_millis(50);

/// So many at most; the oldest ones go.
const AT_MOST: usize = 64;

/// Connections that are about to be closed, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Fading {
    all: RefCell<VecDeque<(Instant, Box<Stream>)>>,
}

impl Fading {
    /// Takes one that is not needed any more.
    pub(super) fn put(&self, stream: Box<Stream>) {
        let mut all = self.all.borrow_mut();
        if all.len() == AT_MOST {
            all.pop_front();
        }
        all.push_back((Instant::now(), stream));
    }

    /// Closes those that have stayed long enough.
    pub(super) fn close(&self, now: Instant) {
        let is_over =
            |&mut (since, _): &mut (Instant, _)| now.saturating_duration_since(since) >= LINGER;
        let mut all = self.all.borrow_mut();
        while all.pop_front_if(is_over).is_some() {}
    }
}
