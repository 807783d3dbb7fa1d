//! The faults that a drill injects, and their effect on one attempt.
//!
//! A drill must never let an endpoint execute a request whose client then gets a failure. So an
//! attempt that the drill fails is not sent, and an attempt that is sent is not failed by the
//! drill: see [`DrillFault::effect`].

use std::fmt;
use std::time::Duration;

use super::length::parse_duration;

/// How the target endpoints seem to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DrillFault {
    /// Connections are refused.
    Refused,
    /// The connection is reset after the request head.
    Reset,
    /// The request is accepted and never answered.
    Hang,
    /// Responses are delayed.
    Slow { delay: Duration },
    /// Every response has this status.
    Status {
        /// From 500 to 599.
        status: u16,
    },
    /// A share of the responses has the status 500.
    ErrorRate {
        /// From 1 to 100.
        percent: u32,
    },
    /// The response is truncated.
    Cut,
}

/// Effect of a fault on one attempt, in place of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultEffect {
    /// The connection is refused; nothing was sent.
    Refused,
    /// A simulated connection that is reset after the request head.
    Reset,
    /// A simulated connection that never answers.
    Silent,
    /// A simulated connection that answers with this status.
    Status(u16),
    /// A simulated connection that answers with a truncated response.
    Truncated,
    /// The real endpoint; its response is delayed.
    Delayed(Duration),
    /// The real endpoint, unchanged.
    Passthrough,
}

const FAULT_SYNTAX: &str =
    "`refused`, `reset`, `hang`, `slow=2s`, `status=503`, `error-rate=30%` or `cut`";

impl DrillFault {
    /// Parses `refused`, `slow=2s`, `status=503`, `error-rate=30%` and the like.
    ///
    /// # Errors
    /// What is wrong, and the accepted syntax.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (word, value) = match text.split_once('=') {
            Some((word, value)) => (word, Some(value)),
            None => (text, None),
        };
        let unknown = || format!("`{text}` is not a fault: write {FAULT_SYNTAX}");
        match (word, value) {
            ("refused", None) => Ok(Self::Refused),
            ("reset", None) => Ok(Self::Reset),
            ("hang", None) => Ok(Self::Hang),
            ("cut", None) => Ok(Self::Cut),
            ("slow", Some(value)) => {
                let delay = parse_duration(value).filter(|delay| !delay.is_zero());
                let delay = delay.ok_or("`slow` needs a duration: write `slow=2s`")?;
                Ok(Self::Slow { delay })
            }
            ("status", Some(value)) => {
                let status = value.parse().ok().filter(|status| (500..=599).contains(status));
                let status =
                    status.ok_or("`status` needs a number from 500 to 599: write `status=503`")?;
                Ok(Self::Status { status })
            }
            ("error-rate", Some(value)) => {
                let percent = value.strip_suffix('%').and_then(|percent| percent.parse().ok());
                let percent = percent.filter(|percent| (1..=100).contains(percent));
                let percent = percent
                    .ok_or("`error-rate` needs a rate from 1% to 100%: write `error-rate=30%`")?;
                Ok(Self::ErrorRate { percent })
            }
            _ => Err(unknown()),
        }
    }

    /// Effect on one attempt. `is_retryable`: sending the request twice does no harm;
    /// `is_plain_get`: a GET without a body; `sample` is drawn evenly from 0 to 1.
    ///
    /// A request that must not run twice is either not sent, or sent and not disturbed. A delay
    /// spares it: its client could give up on a request that then runs. A truncated response is
    /// sent to plain GETs only; for a POST that never ran, half a 200 would be false, so it is
    /// reset.
    pub fn effect(self, is_retryable: bool, is_plain_get: bool, sample: f64) -> FaultEffect {
        match self {
            Self::Refused => FaultEffect::Refused,
            Self::Reset => FaultEffect::Reset,
            Self::Hang => FaultEffect::Silent,
            Self::Slow { delay } if is_retryable => FaultEffect::Delayed(delay),
            Self::Slow { .. } => FaultEffect::Passthrough,
            Self::Status { status } => FaultEffect::Status(status),
            Self::ErrorRate { percent } if sample * 100.0 < f64::from(percent) => {
                FaultEffect::Status(500)
            }
            Self::ErrorRate { .. } => FaultEffect::Passthrough,
            Self::Cut if is_plain_get => FaultEffect::Truncated,
            Self::Cut => FaultEffect::Reset,
        }
    }
}

impl fmt::Display for DrillFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => f.write_str("refused"),
            Self::Reset => f.write_str("reset"),
            Self::Hang => f.write_str("hang"),
            Self::Slow { delay } => write!(f, "slow={delay:?}"),
            Self::Status { status } => write!(f, "status={status}"),
            Self::ErrorRate { percent } => write!(f, "error-rate={percent}%"),
            Self::Cut => f.write_str("cut"),
        }
    }
}
