//! The one table from failures to the status and the reason word that the client receives.

use http::StatusCode;

use crate::logic::incident::client_failure::ClientFailureKind;
use crate::logic::model::outcome;
use crate::logic::model::outcome::{Failure, FailureClass};
use crate::logic::request::limits::{LimitExceeded, LimitKind, LimitScope};
use crate::net::upstream::ClientBodyError;

/// The fixed list of words in `x-gapless-reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocalReplyReason {
    /// The request breaks the rules of HTTP.
    BadRequest,
    /// The request has more fields than are taken.
    HeadTooLarge,
    /// A transfer coding that is not known.
    UnknownCoding,
    /// CONNECT, which a reverse proxy does not do.
    MethodRefused,
    /// No route matches host and path.
    NoRoute,
    /// The request body is larger than the route allows.
    BodyTooLarge,
    /// The client sent no more of its body for the idle timeout.
    BodyTimeout,
    /// No endpoint can be chosen.
    NoEndpoint,
    /// No connection could be opened.
    ConnectFailed,
    /// Opening a connection took too long.
    ConnectTimeout,
    /// The endpoint ended the connection before it answered.
    Reset,
    /// The endpoint did not answer in time.
    ResponseTimeout,
    /// The endpoint's verdict turned down while its answer was awaited.
    EndpointDown,
    /// The endpoint's answer breaks the rules of HTTP.
    BadResponse,
    /// This process is out of descriptors, ports or memory.
    LocalLimit,
    /// Every endpoint that could be chosen is at one of its limits.
    EndpointLimit,
    /// The pool is at one of its limits.
    PoolLimit,
    /// As many requests wait for a connection as may.
    PendingLimit,
    /// All tries together took too long.
    TotalTimeout,
    /// The client's own deadline (`grpc-timeout`) came first.
    DeadlineExceeded,
    /// The path can be read in two ways, or is one that nobody should be asked for.
    BadPath,
    /// A header field has `_` in its name.
    UnderscoreHeader,
    /// More requests than the route takes, from this client or from all.
    RateLimited,
    /// This process is near the bound of its memory.
    Overload,
    /// A client of HTTP/2 asks for a tunnel (RFC 8441), and its route or its endpoint has none.
    UpgradeRefused,
    /// Operators have drained every endpoint of the pool.
    Drained,
}

impl LocalReplyReason {
    pub const ALL: [Self; 26] = [
        Self::BadRequest,
        Self::HeadTooLarge,
        Self::UnknownCoding,
        Self::MethodRefused,
        Self::NoRoute,
        Self::BodyTooLarge,
        Self::BodyTimeout,
        Self::NoEndpoint,
        Self::ConnectFailed,
        Self::ConnectTimeout,
        Self::Reset,
        Self::ResponseTimeout,
        Self::EndpointDown,
        Self::BadResponse,
        Self::LocalLimit,
        Self::EndpointLimit,
        Self::PoolLimit,
        Self::PendingLimit,
        Self::TotalTimeout,
        Self::DeadlineExceeded,
        Self::BadPath,
        Self::UnderscoreHeader,
        Self::RateLimited,
        Self::Overload,
        Self::UpgradeRefused,
        Self::Drained,
    ];

    /// The word, and the status that goes with it.
    pub const fn word_and_status(self) -> (&'static str, StatusCode) {
        match self {
            Self::BadRequest => ("bad_request", StatusCode::BAD_REQUEST),
            Self::HeadTooLarge => ("head_too_large", StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
            Self::UnknownCoding => ("unknown_coding", StatusCode::NOT_IMPLEMENTED),
            Self::MethodRefused => ("method_refused", StatusCode::METHOD_NOT_ALLOWED),
            Self::NoRoute => ("no_route", StatusCode::NOT_FOUND),
            Self::BodyTooLarge => ("body_too_large", StatusCode::PAYLOAD_TOO_LARGE),
            Self::BodyTimeout => ("body_timeout", StatusCode::REQUEST_TIMEOUT),
            Self::NoEndpoint => ("no_endpoint", StatusCode::SERVICE_UNAVAILABLE),
            Self::ConnectFailed => ("connect_failed", StatusCode::BAD_GATEWAY),
            Self::ConnectTimeout => ("connect_timeout", StatusCode::GATEWAY_TIMEOUT),
            Self::Reset => ("reset", StatusCode::BAD_GATEWAY),
            Self::ResponseTimeout => ("response_timeout", StatusCode::GATEWAY_TIMEOUT),
            Self::EndpointDown => ("endpoint_down", StatusCode::BAD_GATEWAY),
            Self::BadResponse => ("bad_response", StatusCode::BAD_GATEWAY),
            Self::LocalLimit => ("local_limit", StatusCode::SERVICE_UNAVAILABLE),
            Self::EndpointLimit => ("endpoint_limit", StatusCode::SERVICE_UNAVAILABLE),
            Self::PoolLimit => ("pool_limit", StatusCode::SERVICE_UNAVAILABLE),
            Self::PendingLimit => ("pending_limit", StatusCode::SERVICE_UNAVAILABLE),
            Self::TotalTimeout => ("total_timeout", StatusCode::GATEWAY_TIMEOUT),
            Self::DeadlineExceeded => ("deadline_exceeded", StatusCode::GATEWAY_TIMEOUT),
            Self::BadPath => ("bad_path", StatusCode::BAD_REQUEST),
            Self::UnderscoreHeader => ("underscore_header", StatusCode::BAD_REQUEST),
            Self::RateLimited => ("rate_limited", StatusCode::TOO_MANY_REQUESTS),
            Self::Overload => ("overload", StatusCode::SERVICE_UNAVAILABLE),
            Self::Drained => ("drained", StatusCode::SERVICE_UNAVAILABLE),
            Self::UpgradeRefused => ("upgrade_refused", StatusCode::NOT_IMPLEMENTED),
        }
    }

    pub const fn as_str(self) -> &'static str {
        self.word_and_status().0
    }

    /// The reason that an endpoint's failure gives.
    pub fn from_failure(failure: Failure) -> Self {
        match (failure.layer, failure.class()) {
            (outcome::FailureLayer::Connect | outcome::FailureLayer::Tls, FailureClass::Silent) => {
                Self::ConnectTimeout
            }
            (outcome::FailureLayer::Connect | outcome::FailureLayer::Tls, _) => Self::ConnectFailed,
            (_, FailureClass::Silent) => Self::ResponseTimeout,
            (_, FailureClass::BadStatus) => Self::BadResponse,
            (_, _) => Self::Reset,
        }
    }

    /// The reason that a client's failure gives.
    pub fn from_client_fault(fault: ClientBodyError) -> Self {
        match fault {
            ClientBodyError::Aborted => Self::BadRequest,
            ClientBodyError::TooLarge => Self::BodyTooLarge,
            ClientBodyError::IdleTimeout => Self::BodyTimeout,
        }
    }

    /// The reason that a limit gives.
    pub fn from_limit(full: LimitExceeded) -> Self {
        match (full.limit, full.scope) {
            (LimitKind::Pending, _) => Self::PendingLimit,
            (_, LimitScope::Endpoint) => Self::EndpointLimit,
            (_, LimitScope::Pool) => Self::PoolLimit,
        }
    }

    /// Whether time was up while something was still under way.
    pub(super) fn is_deadline(self) -> bool {
        matches!(self, Self::TotalTimeout | Self::DeadlineExceeded)
    }

    /// Whether an endpoint is to blame, and not the client or this process.
    pub(super) fn is_endpoint_fault(self) -> bool {
        let is_local = matches!(
            self,
            Self::LocalLimit
                | Self::UnknownCoding
                | Self::EndpointLimit
                | Self::PoolLimit
                | Self::PendingLimit
                | Self::DeadlineExceeded
                | Self::Overload
                | Self::UpgradeRefused
        );
        self.word_and_status().1.is_server_error() && !is_local
    }

    /// What the client saw, where an endpoint is to blame.
    pub(super) fn client_failure_kind(self) -> Option<ClientFailureKind> {
        let failure_kind = match self {
            Self::ConnectFailed | Self::ConnectTimeout => ClientFailureKind::Connect,
            Self::Reset => ClientFailureKind::Reset,
            Self::ResponseTimeout => ClientFailureKind::Timeout,
            Self::EndpointDown => ClientFailureKind::Verdict,
            Self::BadResponse => ClientFailureKind::Malformed,
            Self::TotalTimeout => ClientFailureKind::Deadline,
            _ => ClientFailureKind::NoEndpoint,
        };
        self.is_endpoint_fault().then_some(failure_kind)
    }

    /// Whether what follows on the connection cannot be trusted to be a new request.
    pub(super) fn has_unread_body(self) -> bool {
        matches!(
            self,
            Self::BadRequest
                | Self::UnknownCoding
                | Self::MethodRefused
                | Self::BodyTooLarge
                | Self::BodyTimeout
                | Self::BadPath
                | Self::UnderscoreHeader
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reason_list_is_complete_and_words_are_unique() {
        for (index, reason) in LocalReplyReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index, "ALL is in the order of the enum");
            assert!(reason.as_str().bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
            let same = LocalReplyReason::ALL
                .iter()
                .filter(|other| other.as_str() == reason.as_str())
                .count();
            assert_eq!(same, 1);
        }
    }
}
