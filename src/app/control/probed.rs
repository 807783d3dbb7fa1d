//! What a probe hands in.

use tokio::sync::mpsc;

use crate::logic::director::Ticket;
use crate::logic::id::EndpointId;
use crate::logic::outcome::Outcome;

/// A probe that has ended.
#[derive(Clone, Copy)]
pub(super) struct Probed {
    pub(super) endpoint: EndpointId,
    pub(super) ticket: Ticket,
    pub(super) outcome: Outcome,
}

/// Hands the result in when dropped: a probe that ends in a panic is one without evidence, and its
/// endpoint is probed again.
pub(super) struct ProbeResult {
    pub(super) probed: Probed,
    pub(super) done: mpsc::UnboundedSender<Probed>,
}

impl ProbeResult {
    pub(super) fn is(&mut self, outcome: Outcome) {
        self.probed.outcome = outcome;
    }
}

impl Drop for ProbeResult {
    fn drop(&mut self) {
        let _ = self.done.send(self.probed);
    }
}
