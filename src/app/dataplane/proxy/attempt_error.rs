//! Why an attempt gave no response, and what that means for the request.

use crate::logic::model::outcome::{Failure, FailureReason};
use crate::logic::request::limits::LimitExceeded;
use crate::logic::request::retry::RequestExposure;
use crate::net::upstream::{ClientBodyError, UpstreamError};

use super::attempt_guard::AttemptGuard;
use super::local_reply_reason::LocalReplyReason;

#[derive(Debug)]
pub(super) enum AttemptError {
    EndpointFailed {
        failure: Failure,
        reached: RequestExposure,
    },
    /// The endpoint went down while its response was awaited.
    Aborted {
        reached: RequestExposure,
    },
    Client(ClientBodyError),
    /// This process is out of descriptors, ports or memory.
    LocalResources,
    /// The wait for a connection took too long at this limit.
    LimitReached(LimitExceeded),
}

impl AttemptError {
    /// The response violates the protocol.
    pub(super) fn malformed() -> Self {
        let failure = Failure::http(FailureReason::Malformed);
        Self::EndpointFailed { failure, reached: RequestExposure::MaybeSent }
    }
}

impl From<UpstreamError> for AttemptError {
    fn from(error: UpstreamError) -> Self {
        match error {
            UpstreamError::Endpoint { failure, reached } => {
                Self::EndpointFailed { failure, reached }
            }
            UpstreamError::Client(fault) => Self::Client(fault),
            UpstreamError::Local(_) => Self::LocalResources,
            UpstreamError::LimitReached(full) => Self::LimitReached(full),
        }
    }
}

/// The reason to fail with if no retry follows, and the request's exposure to the endpoint. `Err`
/// if no retry may follow. Records a failure of the endpoint as evidence.
pub(super) fn classify_error(
    error: &AttemptError,
    guard: &AttemptGuard,
) -> Result<(LocalReplyReason, RequestExposure), LocalReplyReason> {
    match *error {
        AttemptError::EndpointFailed { failure, reached } => {
            guard.record_failure(failure, reached);
            Ok((LocalReplyReason::from_failure(failure), reached))
        }
        AttemptError::Aborted { reached } => Ok((LocalReplyReason::EndpointDown, reached)),
        AttemptError::Client(fault) => Err(LocalReplyReason::from_client_fault(fault)),
        AttemptError::LocalResources => Err(LocalReplyReason::LocalLimit),
        AttemptError::LimitReached(full) => Err(LocalReplyReason::from_limit(full)),
    }
}
