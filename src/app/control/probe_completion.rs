//! The result of a probe task, sent even if the task panics.

use tokio::sync::mpsc;

use crate::logic::director::ProbeTicket;
use crate::logic::model::id::EndpointId;
use crate::logic::model::outcome::ProbeOutcome;

/// Result of one probe.
#[derive(Clone, Copy)]
pub(super) struct ProbeCompletion {
    pub(super) endpoint: EndpointId,
    pub(super) ticket: ProbeTicket,
    pub(super) outcome: ProbeOutcome,
}

/// Sends the result when dropped. A probe task that panics thus reports no evidence, and its endpoint
/// is probed again.
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
