//! Reasons of local replies, with the status and the word that the client receives.

use http::StatusCode;

use crate::logic::incident::client_failure::ClientFailureKind;
use crate::logic::model::outcome;
use crate::logic::model::outcome::{Failure, FailureClass};
use crate::logic::request::limits::{LimitExceeded, LimitKind, LimitScope};
use crate::logic::request::total_deadline::DeadlineSource;
use crate::net::upstream::ClientBodyError;

/// The fixed list of words in `x-gapless-reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocalReplyReason {
    /// The request violates HTTP.
    BadRequest,
    /// The request has more header fields than allowed.
    HeadTooLarge,
    /// The transfer coding is unknown.
    UnknownCoding,
    /// CONNECT, which a reverse proxy does not support.
    MethodRefused,
    /// No route matches the request.
    NoRoute,
    /// The request body is larger than the route allows.
    BodyTooLarge,
    /// The client sent no more of its body within the idle timeout.
    BodyTimeout,
    /// No endpoint can be selected.
    NoEndpoint,
    /// No connection could be opened.
    ConnectFailed,
    /// Opening a connection took too long.
    ConnectTimeout,
    /// The endpoint closed the connection before it responded.
    Reset,
    /// The endpoint did not respond in time.
    ResponseTimeout,
    /// The endpoint went down while its response was awaited.
    EndpointDown,
    /// The endpoint's response violates HTTP.
    BadResponse,
    /// This process is out of descriptors, ports or memory.
    LocalLimit,
    /// Every endpoint that can be selected is at one of its limits.
    EndpointLimit,
    /// The pool is at one of its limits.
    PoolLimit,
    /// Too many requests wait for a connection.
    PendingLimit,
    /// All attempts together took too long.
    TotalTimeout,
    /// The client's deadline (`grpc-timeout`) passed first.
    DeadlineExceeded,
    /// The path is ambiguous or malformed.
    BadPath,
    /// A header name contains `_`.
    UnderscoreHeader,
    /// The route's rate limit, for this client or in total, is exceeded.
    RateLimited,
    /// This process is near its memory limit.
    Overload,
    /// An HTTP/2 client requests a tunnel (RFC 8441) that its route or its endpoint does not offer.
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

    /// The reason word and the status that goes with it.
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

    /// The reason when a request reaches its total deadline.
    pub(super) const fn from_deadline(source: DeadlineSource) -> Self {
        match source {
            DeadlineSource::Route => Self::TotalTimeout,
            DeadlineSource::Client => Self::DeadlineExceeded,
        }
    }

    pub const fn as_str(self) -> &'static str {
        self.word_and_status().0
    }

    /// The reason for an endpoint's failure.
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

    /// The reason for a failure of the client.
    pub fn from_client_fault(fault: ClientBodyError) -> Self {
        match fault {
            ClientBodyError::Aborted => Self::BadRequest,
            ClientBodyError::TooLarge => Self::BodyTooLarge,
            ClientBodyError::IdleTimeout => Self::BodyTimeout,
        }
    }

    /// The reason for an exceeded limit.
    pub fn from_limit(full: LimitExceeded) -> Self {
        match (full.limit, full.scope) {
            (LimitKind::Pending, _) => Self::PendingLimit,
            (_, LimitScope::Endpoint) => Self::EndpointLimit,
            (_, LimitScope::Pool) => Self::PoolLimit,
        }
    }

    /// Whether a deadline passed while an attempt was in progress.
    pub(super) fn is_deadline(self) -> bool {
        matches!(self, Self::TotalTimeout | Self::DeadlineExceeded)
    }

    /// Whether the endpoint is at fault, and not the client or this process.
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

    /// The failure that the client sees, if the endpoint is at fault.
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

    /// Whether unread body bytes on the connection could be mistaken for a new request.
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
