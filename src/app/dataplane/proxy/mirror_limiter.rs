//! Limits on the mirrored requests of one worker.

use std::cell::Cell;
use std::rc::Rc;

/// Limit of copies in progress; further copies are dropped.
const MAX_COPIES: usize = 64;

/// Limit of body bytes that all copies hold together.
const MAX_HELD_BYTES: usize = 4 * 1024 * 1024;

/// The copies in progress of one worker.
#[derive(Debug, Default)]
pub struct MirrorLimiter {
    copies: Cell<usize>,
    bytes: Cell<usize>,
}

/// A copy's share of the limits, released on drop.
pub(super) struct MirrorPermit {
    limiter: Rc<MirrorLimiter>,
    bytes: usize,
}

impl MirrorPermit {
    pub(super) fn take(limiter: &Rc<MirrorLimiter>, bytes: usize) -> Option<Self> {
        let (copies, held_bytes) = (limiter.copies.get() + 1, limiter.bytes.get() + bytes);
        if copies > MAX_COPIES || held_bytes > MAX_HELD_BYTES {
            return None;
        }
        limiter.copies.set(copies);
        limiter.bytes.set(held_bytes);
        Some(Self { limiter: Rc::clone(limiter), bytes })
    }
}

impl Drop for MirrorPermit {
    fn drop(&mut self) {
        self.limiter.copies.set(self.limiter.copies.get() - 1);
        self.limiter.bytes.set(self.limiter.bytes.get() - self.bytes);
    }
}
