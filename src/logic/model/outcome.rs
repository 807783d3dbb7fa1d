//! Typed results of probes and requests: the protocol layer that failed and the reason.
//!
//! Layers and reasons follow HAProxy's check results (L4OK, L4TOUT, L7STS …) in words.

use std::fmt;
use std::time::Duration;

/// The protocol layer at which an exchange failed, in the order in which layers are reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FailureLayer {
    Connect,
    /// The handshake of a TLS connection.
    Tls,
    /// Exchange of raw bytes (no HTTP).
    Tcp,
    Http,
    /// gRPC on top of a valid HTTP exchange.
    Grpc,
}

impl FailureLayer {
    pub const ALL: [Self; 5] = [Self::Connect, Self::Tls, Self::Tcp, Self::Http, Self::Grpc];

    /// The word used in output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Tcp => "tcp",
            Self::Http => "http",
            Self::Grpc => "grpc",
        }
    }
}

/// The reason of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailureReason {
    /// The endpoint refused the connection (RST to SYN).
    Refused,
    /// No path to the endpoint (ICMP unreachable, no route, no permission).
    Unreachable,
    /// No answer within the timeout.
    Timeout,
    /// The connection was reset.
    Reset,
    /// The connection was closed before the response was complete.
    Closed,
    /// A request waits longer than the pool's latencies explain: triggers probes.
    Stall,
    /// A request waits many times longer than the pool's latencies explain: counts as failed.
    Slow,
    /// The response body ended early.
    Cut,
    /// The response is not valid HTTP.
    Malformed,
    /// An unexpected HTTP status.
    Status(u16),
    /// An unexpected response body.
    Body,
    /// The endpoint's certificate was rejected.
    Certificate(CertificateProblem),
    /// The TLS handshake failed for a reason other than the endpoint's certificate.
    Handshake,
    /// The service reports that it is not serving.
    NotServing,
    /// A gRPC status other than OK.
    GrpcStatus(u16),
}

impl FailureReason {
    /// Every reason without a numeric code.
    const WITHOUT_CODE: [Self; 18] = [
        Self::Refused,
        Self::Unreachable,
        Self::Timeout,
        Self::Reset,
        Self::Closed,
        Self::Stall,
        Self::Slow,
        Self::Cut,
        Self::Malformed,
        Self::Body,
        Self::Certificate(CertificateProblem::Expired),
        Self::Certificate(CertificateProblem::NotYetValid),
        Self::Certificate(CertificateProblem::UnknownIssuer),
        Self::Certificate(CertificateProblem::WrongName),
        Self::Certificate(CertificateProblem::Revoked),
        Self::Certificate(CertificateProblem::Invalid),
        Self::Handshake,
        Self::NotServing,
    ];
}

/// The reason why an endpoint's certificate was rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CertificateProblem {
    /// The validity period has ended.
    Expired,
    /// The validity period has not begun.
    NotYetValid,
    /// No trusted issuer has signed it.
    UnknownIssuer,
    /// It is issued for another server name.
    WrongName,
    Revoked,
    /// It is malformed, or not issued for this use.
    Invalid,
}

impl CertificateProblem {
    fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::NotYetValid => "not yet valid",
            Self::UnknownIssuer => "of an unknown issuer",
            Self::WrongName => "of another name",
            Self::Revoked => "revoked",
            Self::Invalid => "invalid",
        }
    }
}

/// A failure: the layer and the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Failure {
    /// The layer at which the exchange failed.
    pub layer: FailureLayer,
    pub reason: FailureReason,
}

/// The classes of failure that `predict` separates, because their detection costs differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FailureClass {
    /// Detected after about one round trip.
    Refused,
    /// Accepted, then reset or closed.
    Reset,
    /// No answer: detected only when a timeout expires.
    Silent,
    /// A response with unexpected content.
    BadStatus,
    /// Accepted, but the TLS handshake fails.
    Tls,
}

impl FailureClass {
    /// All classes, in the order of reports.
    pub const ALL: [Self; 5] =
        [Self::Refused, Self::Reset, Self::Silent, Self::BadStatus, Self::Tls];

    /// The word used in output and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::Silent => "silent",
            Self::BadStatus => "bad_status",
            Self::Tls => "tls",
        }
    }
}

impl fmt::Display for FailureClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Failure {
    pub const fn connect(reason: FailureReason) -> Self {
        Self { layer: FailureLayer::Connect, reason }
    }

    /// A failure of the HTTP exchange on an open connection.
    pub const fn http(reason: FailureReason) -> Self {
        Self { layer: FailureLayer::Http, reason }
    }

    /// Parses the output of [`fmt::Display`]; `None` for other text.
    pub fn parse(text: &str) -> Option<Self> {
        let (word, rest) = text.split_once(' ')?;
        let layer = FailureLayer::ALL.into_iter().find(|layer| layer.as_str() == word)?;
        if let Some(code) = rest.strip_prefix("status ") {
            let code = code.parse().ok()?;
            let is_grpc = layer == FailureLayer::Grpc;
            let reason =
                if is_grpc { FailureReason::GrpcStatus(code) } else { FailureReason::Status(code) };
            return Some(Self { layer, reason });
        }
        let mut all = FailureReason::WITHOUT_CODE.into_iter().map(|reason| Self { layer, reason });
        all.find(|failure| failure.to_string() == text)
    }

    pub fn class(self) -> FailureClass {
        match self.reason {
            FailureReason::Refused | FailureReason::Unreachable => FailureClass::Refused,
            FailureReason::Reset | FailureReason::Closed | FailureReason::Cut => {
                FailureClass::Reset
            }
            FailureReason::Timeout | FailureReason::Stall | FailureReason::Slow => {
                FailureClass::Silent
            }
            FailureReason::Malformed
            | FailureReason::Status(_)
            | FailureReason::Body
            | FailureReason::NotServing
            | FailureReason::GrpcStatus(_) => FailureClass::BadStatus,
            FailureReason::Certificate(_) | FailureReason::Handshake => FailureClass::Tls,
        }
    }

    /// Whether the connection itself failed. Neighbours in the same zone may then fail in the same
    /// way, unlike after a response that only this endpoint sent.
    pub fn is_connection_level(self) -> bool {
        matches!(self.class(), FailureClass::Refused | FailureClass::Reset | FailureClass::Silent)
            && !self.is_response_failure()
    }

    /// Whether the endpoint was reachable but answered badly. Such failures are judged by their
    /// ratio, not by a run of consecutive ones.
    pub fn is_response_failure(self) -> bool {
        match self.reason {
            FailureReason::Refused
            | FailureReason::Unreachable
            | FailureReason::Timeout
            | FailureReason::Reset
            | FailureReason::Closed
            | FailureReason::Stall
            | FailureReason::Certificate(_)
            | FailureReason::Handshake => false,
            FailureReason::Slow
            | FailureReason::Cut
            | FailureReason::Malformed
            | FailureReason::Status(_)
            | FailureReason::Body
            | FailureReason::NotServing
            | FailureReason::GrpcStatus(_) => true,
        }
    }

    /// Whether the failure of a live request may have another cause than the endpoint. Examples are
    /// a keep-alive connection that closed just then, a long pause, or an invalid response to this
    /// request. Such evidence makes an endpoint suspect but never decides a verdict.
    pub fn is_soft(self) -> bool {
        self.reason == FailureReason::Stall
            || !matches!(self.layer, FailureLayer::Connect | FailureLayer::Tls)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let layer = self.layer.as_str();
        match self.reason {
            FailureReason::Refused => write!(f, "{layer} refused"),
            FailureReason::Unreachable => write!(f, "{layer} unreachable"),
            FailureReason::Timeout => write!(f, "{layer} timeout"),
            FailureReason::Reset => write!(f, "{layer} reset"),
            FailureReason::Closed => write!(f, "{layer} closed"),
            FailureReason::Stall => write!(f, "{layer} stall"),
            FailureReason::Slow => write!(f, "{layer} slow"),
            FailureReason::Cut => write!(f, "{layer} cut"),
            FailureReason::Malformed => write!(f, "{layer} malformed"),
            FailureReason::Status(code) => write!(f, "{layer} status {code}"),
            FailureReason::Body => write!(f, "{layer} wrong body"),
            FailureReason::Certificate(fault) => {
                write!(f, "{layer} certificate {}", fault.as_str())
            }
            FailureReason::Handshake => write!(f, "{layer} handshake failed"),
            FailureReason::NotServing => write!(f, "{layer} not serving"),
            FailureReason::GrpcStatus(code) => write!(f, "{layer} status {code}"),
        }
    }
}

/// The typed result of one probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeOutcome {
    /// The endpoint gave the expected answer.
    Pass {
        /// From the start of the connection to the end of the check.
        latency: Duration,
    },
    /// The expected answer, with a request for less traffic: a pass with a reduced weight.
    Degraded {
        /// From the start of the connection to the end of the check.
        latency: Duration,
    },
    Fail(Failure),
    /// The observer itself was late or out of resources: no evidence either way.
    Inconclusive,
}

impl ProbeOutcome {
    /// The duration of a pass, degraded or not.
    pub fn latency(self) -> Option<Duration> {
        match self {
            Self::Pass { latency } | Self::Degraded { latency } => Some(latency),
            Self::Fail(_) | Self::Inconclusive => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn displayed_failure_parses_back() {
        let numbered = [FailureReason::Status(503), FailureReason::Status(0)];
        for layer in FailureLayer::ALL {
            for reason in FailureReason::WITHOUT_CODE.into_iter().chain(numbered) {
                if layer == FailureLayer::Grpc && numbered.contains(&reason) {
                    continue;
                }
                let failure = Failure { layer, reason };
                assert_eq!(Failure::parse(&failure.to_string()), Some(failure));
            }
        }
        let grpc = Failure { layer: FailureLayer::Grpc, reason: FailureReason::GrpcStatus(14) };
        assert_eq!(Failure::parse(&grpc.to_string()), Some(grpc));
        for text in ["", "connect", "connect status", "connect status x", "udp refused", "tcp odd"]
        {
            assert_eq!(Failure::parse(text), None, "{text}");
        }
    }
}
