//! The failures that are predicted: what an endpoint then does, and who can see it.

use std::fmt;
use std::time::Duration;

use crate::logic::model::outcome::FailureClass;
use crate::logic::probing::probe::ProbeSpec;

use crate::sim::world::EndpointBehavior;

/// One way of failing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FaultKind {
    /// The process is gone: connections are refused.
    Refused,
    /// Every connection is reset.
    Reset,
    /// The process stands still: connections are taken, and nothing comes back.
    Hang,
    /// Every packet is dropped.
    BlackHole,
    /// Every answer is a 503, the probe's too.
    StatusAll,
    /// Every answer to traffic is a 503; the probe's is as it should be.
    StatusTraffic,
    /// Everything takes so long.
    Slow { delay: Duration },
    /// Of the answers to traffic so many in a hundred are a 500.
    Errors { percent: u32 },
    /// Answers to traffic end in the middle.
    Cut,
    /// What the probe asks for has the wrong body.
    WrongBody,
    /// The certificate has expired.
    Certificate,
}

impl FaultKind {
    /// Slow as reports have it.
    pub const SLOW: Self = Self::Slow { delay: Duration::from_secs(2) };

    /// Errors as reports have them.
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

    /// The word used in output.
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

    /// What an endpoint does that fails so.
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

    /// What it costs a probe to see it, as the closed form has it.
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

    /// Whether requests meet it.
    pub fn is_visible_to_traffic(self) -> bool {
        !matches!(self, Self::WrongBody | Self::Certificate)
    }

    /// Whether no probe can see it, whatever it asks.
    pub fn is_invisible_to_probes(self) -> bool {
        matches!(self, Self::StatusTraffic | Self::Errors { .. } | Self::Cut)
    }

    /// Whether it can befall an endpoint that is probed so: who speaks no TLS has no certificate.
    pub fn is_applicable_to(self, probe: &ProbeSpec) -> bool {
        self != Self::Certificate || probe.tls.is_some()
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
