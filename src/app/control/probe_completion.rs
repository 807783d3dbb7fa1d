//! What a probe hands in.

use tokio::sync::mpsc;

use crate::logic::director::ProbeTicket;
use crate::logic::model::id::EndpointId;
use crate::logic::model::outcome::ProbeOutcome;

/// A probe that has ended.
#[derive(Clone, Copy)]
pub(super) struct ProbeCompletion {
    pub(super) endpoint: EndpointId,
    pub(super) ticket: ProbeTicket,
    pub(super) outcome: ProbeOutcome,
}

/// Hands the result in when dropped: a probe that ends in a panic is one without evidence, and its
/// endpoint is probed again.
pub(super) struct ProbeResultGuard {
    pub(super) completion: ProbeCompletion,
    pub(super) results: mpsc::UnboundedSender<ProbeCompletion>,
}

impl ProbeResultGuard {
    pub(super) fn set_outcome(&mut self, outcome: ProbeOutcome) {
        self.completion.outcome = outcome;
    }
}

impl Drop for ProbeResultGuard {
    fn drop(&mut self) {
        let _ = self.results.send(self.completion);
    }
}
