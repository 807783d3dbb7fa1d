//! Why an exchange with an endpoint failed, before its response head and after it.

use std::io::{self, ErrorKind};

use crate::logic::model::outcome::{Failure, FailureReason};
use crate::logic::request::limits::LimitExceeded;
use crate::logic::request::retry::RequestExposure;

use super::request_body::ClientBodyError;

/// Why an attempt ended without a response head, by the party at fault.
#[derive(Debug)]
pub enum UpstreamError {
    Endpoint {
        failure: Failure,
        /// How much of the request the endpoint may have seen.
        reached: RequestExposure,
    },
    /// The client's request body could not be read.
    Client(ClientBodyError),
    /// This process has no descriptor, port or memory left.
    Local(io::Error),
    /// The operator's limit was reached while the attempt waited for a connection.
    LimitReached(LimitExceeded),
}

impl UpstreamError {
    /// The attempt failed before any byte of the request was sent.
    pub(super) fn unreached(failure: Failure) -> Self {
        Self::Endpoint { failure, reached: RequestExposure::NotSent }
    }
}

/// The endpoint's failure that an I/O error shows; `None` if this process is at fault.
pub fn io_failure_reason(error: &io::Error) -> Option<FailureReason> {
    match error.kind() {
        ErrorKind::ConnectionRefused => Some(FailureReason::Refused),
        ErrorKind::TimedOut => Some(FailureReason::Timeout),
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => {
            Some(FailureReason::Unreachable)
        }
        ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted => Some(FailureReason::Reset),
        ErrorKind::BrokenPipe | ErrorKind::NotConnected => Some(FailureReason::Reset),
        ErrorKind::UnexpectedEof => Some(FailureReason::Closed),
        // EADDRNOTAVAIL (ports), EMFILE, ENFILE, ENOBUFS, ENOMEM, EPERM (a local firewall).
        _ => None,
    }
}

/// Why a response body ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseBodyError {
    /// The endpoint is at fault.
    Endpoint(FailureReason),
    /// The rest of the client's request body could not be read.
    Client,
    /// The endpoint is drained and the deadline for its streaming responses has passed.
    Drained,
}

/// The connection was closed, reset or wrongly framed after the response head.
pub(super) const TRUNCATED: ResponseBodyError = ResponseBodyError::Endpoint(FailureReason::Cut);
