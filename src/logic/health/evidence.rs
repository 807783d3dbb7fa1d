//! Evidence for and against an endpoint.

use crate::logic::model::outcome::Failure;

/// One piece of evidence, as input of the verdict machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    Pass,
    /// A strike that may be a coincidence: makes a suspect, never a verdict.
    Soft(Failure),
    /// A strike that counts in full.
    Firm(Failure),
}

impl Evidence {
    /// The evidence that a failure of live traffic is.
    pub fn from_traffic(failure: Failure) -> Self {
        if failure.is_soft() { Self::Soft(failure) } else { Self::Firm(failure) }
    }
}
