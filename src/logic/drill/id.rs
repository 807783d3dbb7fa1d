//! The tag that distinguishes a drill's requests and evidence from production's.

use std::fmt;
use std::num::NonZeroU64;

/// Identifies a drill within one process. `Option<DrillId>` is the tag of a request, a connection
/// or a piece of evidence: `None` is production.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DrillId(NonZeroU64);

impl DrillId {
    /// The first drill of a process.
    pub const FIRST: Self = Self(NonZeroU64::MIN);

    /// The identity of the drill after this one.
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The number used in output, from 1.
    pub fn get(self) -> u64 {
        self.0.get()
    }
}

impl fmt::Display for DrillId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
