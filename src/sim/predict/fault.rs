//! The failures that are predicted: how an endpoint behaves, and what can detect it.

use std::fmt;
use std::time::Duration;

use crate::logic::model::outcome::FailureClass;
use crate::logic::probing::probe::ProbeSpec;

use crate::sim::world::EndpointBehavior;

/// A kind of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FaultKind {
    /// The process has exited: connections are refused.
    Refused,
    /// Every connection is reset.
    Reset,
    /// The process is stopped: connections are accepted, and nothing is answered.
    Hang,
    /// Every packet is dropped.
    BlackHole,
    /// Every response is a 503, the probe's too.
    StatusAll,
    /// Every response to traffic is a 503; the probe's is good.
    StatusTraffic,
    /// Everything is answered with this delay.
    Slow { delay: Duration },
    /// This percentage of the responses to traffic is a 500.
    Errors { percent: u32 },
    /// Responses to traffic are truncated.
    Cut,
    /// The probe's response has the wrong body.
    WrongBody,
    /// The certificate has expired.
    Certificate,
}

impl FaultKind {
    /// The slow fault of reports.
    pub const SLOW: Self = Self::Slow { delay: Duration::from_secs(2) };

    /// The error fault of reports.
    pub const ERRORS_30: Self = Self::Errors { percent: 30 };

    /// Every fault, in the order of reports.
    pub const ALL: [Self; 11] = [
        Self::Refused,
        Self::Reset,
        Self::Hang,
        Self::BlackHole,
        Self::StatusAll,
        Self::StatusTraffic,
        Self::SLOW,
        Self::ERRORS_30,
        Self::Cut,
        Self::WrongBody,
        Self::Certificate,
    ];

    /// The word in the output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::Hang => "hang",
            Self::BlackHole => "black_hole",
            Self::StatusAll => "status_all",
            Self::StatusTraffic => "status_traffic",
            Self::Slow { .. } => "slow",
            Self::Errors { percent: 30 } => "errors_30",
            Self::Errors { .. } => "errors",
            Self::Cut => "cut",
            Self::WrongBody => "wrong_body",
            Self::Certificate => "certificate",
        }
    }

    /// The behaviour of an endpoint with this fault.
    pub fn behavior(self) -> EndpointBehavior {
        match self {
            Self::Refused => EndpointBehavior::Refused,
            Self::Reset => EndpointBehavior::Reset,
            Self::Hang => EndpointBehavior::Hang,
            Self::BlackHole => EndpointBehavior::BlackHole,
            Self::StatusAll => EndpointBehavior::BadStatus { status: 503 },
            Self::StatusTraffic => EndpointBehavior::StatusTraffic { status: 503 },
            Self::Slow { delay } => EndpointBehavior::Slow { latency: delay },
            Self::Errors { percent } => {
                EndpointBehavior::Errors { share: f64::from(percent) / 100.0, status: 500 }
            }
            Self::Cut => EndpointBehavior::Cut,
            Self::WrongBody => EndpointBehavior::WrongBody,
            Self::Certificate => EndpointBehavior::Certificate,
        }
    }

    /// The failure class whose probe cost the closed form uses.
    pub fn class(self) -> FailureClass {
        match self {
            Self::Refused => FailureClass::Refused,
            Self::Reset | Self::Cut => FailureClass::Reset,
            Self::Hang | Self::BlackHole | Self::Slow { .. } => FailureClass::Silent,
            Self::StatusAll | Self::StatusTraffic | Self::Errors { .. } | Self::WrongBody => {
                FailureClass::BadStatus
            }
            Self::Certificate => FailureClass::Tls,
        }
    }

    /// Whether requests can meet it.
    pub fn is_visible_to_traffic(self) -> bool {
        !matches!(self, Self::WrongBody | Self::Certificate)
    }

    /// Whether no kind of probe can detect it.
    pub fn is_invisible_to_probes(self) -> bool {
        matches!(self, Self::StatusTraffic | Self::Errors { .. } | Self::Cut)
    }

    /// Whether an endpoint with this probe can have it: only TLS has a certificate.
    pub fn is_applicable_to(self, probe: &ProbeSpec) -> bool {
        self != Self::Certificate || probe.tls.is_some()
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The extent of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultScope {
    Endpoint,
    /// A whole zone: the window ends with the verdict on its last endpoint.
    Zone,
}

impl FaultScope {
    /// The word in the output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Endpoint => "endpoint",
            Self::Zone => "zone",
        }
    }
}

/// A fault and its extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultCase {
    pub scope: FaultScope,
    pub fault: FaultKind,
}
