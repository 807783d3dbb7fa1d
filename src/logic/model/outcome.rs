//! The vocabulary of results: what was tried, at which layer it ended, and why.
//!
//! The layers and reasons follow HAProxy's check results (L4OK, L4TOUT, L7STS …) in words.

use std::fmt;
use std::time::Duration;

/// How far an exchange came, the nearest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FailureLayer {
    Connect,
    /// Shaking hands over TLS.
    Tls,
    /// Exchanging bytes that are no HTTP.
    Tcp,
    Http,
    /// Asking over gRPC, on top of HTTP that is as it should be.
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

/// Why it ended there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailureReason {
    /// Nothing listens (RST to SYN).
    Refused,
    /// No way there (ICMP unreachable, no route, no permission).
    Unreachable,
    /// No answer within the bound.
    Timeout,
    /// The connection was reset.
    Reset,
    /// The connection was closed before a whole answer.
    Closed,
    /// A request waits for longer than the pool's requests ever do: a reason to look.
    Stall,
    /// A request waits for many times longer than the pool's requests ever do: as good as failed.
    Slow,
    /// The answer ended in the middle.
    Cut,
    /// The answer is not HTTP, or breaks its rules.
    Malformed,
    /// A status that is not expected.
    Status(u16),
    /// The body is not the expected one.
    Body,
    /// The certificate does not do.
    Certificate(CertificateProblem),
    /// The handshake failed for anything but the endpoint's certificate.
    Handshake,
    /// The service says of itself that it does not serve.
    NotServing,
    /// A gRPC status that is not OK.
    GrpcStatus(u16),
}

impl FailureReason {
    /// Every reason that has no number.
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

/// What is wrong with an endpoint's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CertificateProblem {
    /// Its time is over.
    Expired,
    /// Its time has not come.
    NotYetValid,
    /// Nobody who is trusted has issued it.
    UnknownIssuer,
    /// It is somebody else's.
    WrongName,
    Revoked,
    /// It is broken, or not made for this use.
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

/// A failure: layer × reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Failure {
    /// How far it came.
    pub layer: FailureLayer,
    pub reason: FailureReason,
}

/// The kinds of failure that `predict` tells apart, because their detection costs differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FailureClass {
    /// Known after about a round trip.
    Refused,
    /// Accepted, then torn down.
    Reset,
    /// Nothing comes back: known only when a timeout ends.
    Silent,
    /// An answer, and the wrong one.
    BadStatus,
    /// Accepted, and no handshake comes of it.
    Tls,
}

impl FailureClass {
    /// Every class, in the order of reports.
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
    /// A failure to open a connection.
    pub const fn connect(reason: FailureReason) -> Self {
        Self { layer: FailureLayer::Connect, reason }
    }

    /// A failure on an open connection.
    pub const fn http(reason: FailureReason) -> Self {
        Self { layer: FailureLayer::Http, reason }
    }

    /// Reads what [`fmt::Display`] writes; `None` for other words.
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

    /// The class that this failure belongs to.
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

    /// Whether the connection itself failed, so that a neighbour in the same zone may well fail
    /// alike, as opposed to an answer that only this endpoint gave.
    pub fn is_connection_level(self) -> bool {
        matches!(self.class(), FailureClass::Refused | FailureClass::Reset | FailureClass::Silent)
            && !self.is_response_failure()
    }

    /// Whether the endpoint was there and did badly, and was not just gone: of such failures it is
    /// the ratio that tells, not a row of them.
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

    /// Whether the failure of a live request may also be a coincidence (a keep-alive connection that
    /// the endpoint closed just then, a long pause) or the request's own doing (an answer to it that
    /// breaks the rules). Such evidence makes a suspect but never a verdict.
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
    /// As expected, after this long.
    Pass {
        /// From the start of the connection to the end of the check.
        latency: Duration,
    },
    /// As expected, and the endpoint says that it should get less: a pass with less weight.
    Degraded {
        /// From the start of the connection to the end of the check.
        latency: Duration,
    },
    Fail(Failure),
    /// The observer itself was late or out of resources: no evidence either way.
    Inconclusive,
}

impl ProbeOutcome {
    /// How long a pass took, degraded or not.
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
