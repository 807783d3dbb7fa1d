//! Bounds on the mirrored requests of one worker.

use std::cell::Cell;
use std::rc::Rc;

/// Copies that one worker has under way, at most; what would be one more is not sent.
const MAX_COPIES: usize = 64;

/// Bytes of bodies that they hold together, at most.
const MAX_HELD_BYTES: usize = 4 * 1024 * 1024;

/// What one worker has under way.
#[derive(Debug, Default)]
pub struct MirrorLimiter {
    copies: Cell<usize>,
    bytes: Cell<usize>,
}

/// A copy's place among them; given back when dropped.
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
