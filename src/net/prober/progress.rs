//! The progress of an attempt of a probe, and its failure.

use std::cell::Cell;
use std::io;
use std::time::Duration;

use crate::logic::model::outcome::{Failure, FailureLayer, FailureReason};
use crate::net::tls_client;
use crate::net::upstream::io_failure_reason;

/// The progress of one attempt.
#[derive(Debug)]
pub(super) struct ProbeProgress {
    pub(super) layer: Cell<FailureLayer>,
    /// The time that the TLS handshake took.
    pub(super) handshake_time: Cell<Duration>,
    /// Whether a byte of the response has arrived.
    pub(super) has_response: Cell<bool>,
}

/// An attempt that did not pass.
#[derive(Debug)]
pub(super) enum AttemptFailure {
    Failed(Failure),
    /// This process lacks descriptors, ports or memory, or its network is down.
    Local,
}

impl Default for ProbeProgress {
    fn default() -> Self {
        Self {
            layer: Cell::new(FailureLayer::Connect),
            handshake_time: Cell::default(),
            has_response: Cell::default(),
        }
    }
}

impl ProbeProgress {
    pub(super) fn failure(&self, reason: FailureReason) -> AttemptFailure {
        AttemptFailure::Failed(Failure { layer: self.layer.get(), reason })
    }

    pub(super) fn io_failure(&self, error: &io::Error) -> AttemptFailure {
        if let Some(reason) = tls_client::tls_failure_reason(error) {
            // A refusal of the client certificate arrives after this side's handshake (TLS 1.3).
            return AttemptFailure::Failed(Failure { layer: FailureLayer::Tls, reason });
        }
        if is_local_error(error) {
            return AttemptFailure::Local;
        }
        io_failure_reason(error).map_or(AttemptFailure::Local, |reason| self.failure(reason))
    }
}

/// Whether the cause of an error is this process or its network, and not the endpoint.
pub(super) fn is_local_error(error: &io::Error) -> bool {
    let is_down =
        matches!(error.kind(), io::ErrorKind::NetworkDown | io::ErrorKind::NetworkUnreachable);
    is_down || io_failure_reason(error).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;

    #[test]
    fn local_errors_are_not_endpoint_failures() {
        let progress = ProbeProgress::default();
        let failure_of = |errno: Errno| progress.io_failure(&io::Error::from(errno));
        for errno in [
            Errno::MFILE,
            Errno::NFILE,
            Errno::NOBUFS,
            Errno::NOMEM,
            Errno::ADDRNOTAVAIL,
            Errno::NETDOWN,
            Errno::NETUNREACH,
            Errno::PERM,
        ] {
            assert!(matches!(failure_of(errno), AttemptFailure::Local), "{errno:?}");
        }
        for (errno, reason) in [
            (Errno::CONNREFUSED, FailureReason::Refused),
            (Errno::HOSTUNREACH, FailureReason::Unreachable),
            (Errno::CONNRESET, FailureReason::Reset),
            (Errno::TIMEDOUT, FailureReason::Timeout),
        ] {
            let AttemptFailure::Failed(failure) = failure_of(errno) else { panic!("{errno:?}") };
            assert_eq!(failure, Failure { layer: FailureLayer::Connect, reason });
        }
    }
}
