//! What a drill has endpoints seem to do, and what a try then meets.
//!
//! A drill must never have a request run that its client is then told has failed. So whatever seems to
//! fail is not sent at all, and what is sent for real is not failed by the drill: see [`Fault::meets`].

use std::fmt;
use std::time::Duration;

use super::plan::parse_duration;

/// How endpoints seem to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DrillFault {
    Refused,
    /// The connection is reset once the request's head is out.
    Reset,
    /// The request is taken, and nothing comes back.
    Hang,
    /// Answers come this late.
    Slow {
        delay: Duration,
    },
    /// Every answer has this status.
    Status {
        /// From 500 to 599.
        status: u16,
    },
    /// A share of the answers has the status 500.
    ErrorRate {
        /// From 1 to 100.
        percent: u32,
    },
    /// The answer ends in the middle.
    Cut,
}

/// What one try meets in the connector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultEffect {
    /// No connection: nothing has left.
    Refused,
    /// A connection that leads nowhere, and is reset when the head has been written to it.
    Reset,
    /// One that leads nowhere and stays silent.
    Silent,
    /// One that leads nowhere and answers with this status.
    Status(u16),
    /// One that leads nowhere and begins an answer that it does not end.
    Truncated,
    /// The endpoint, whose answer is held back for this long.
    Delayed(Duration),
    /// The endpoint, as ever; nothing that the drill leads to takes the request from it.
    Passthrough,
}

const FAULT_SYNTAX: &str =
    "`refused`, `reset`, `hang`, `slow=2s`, `status=503`, `error-rate=30%` or `cut`";

impl DrillFault {
    /// Reads `refused`, `slow=2s`, `status=503`, `error-rate=30%` and so on.
    ///
    /// # Errors
    /// What is wrong with it, and how it is written.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (word, value) = match text.split_once('=') {
            Some((word, value)) => (word, Some(value)),
            None => (text, None),
        };
        let unknown = || format!("`{text}` is no fault: write {FAULT_SYNTAX}");
        match (word, value) {
            ("refused", None) => Ok(Self::Refused),
            ("reset", None) => Ok(Self::Reset),
            ("hang", None) => Ok(Self::Hang),
            ("cut", None) => Ok(Self::Cut),
            ("slow", Some(value)) => {
                let delay = parse_duration(value).filter(|delay| !delay.is_zero());
                let delay = delay.ok_or("how slow is said by a duration: write `slow=2s`")?;
                Ok(Self::Slow { delay })
            }
            ("status", Some(value)) => {
                let status = value.parse().ok().filter(|status| (500..=599).contains(status));
                let status =
                    status.ok_or("a status that fails is from 500 to 599: write `status=503`")?;
                Ok(Self::Status { status })
            }
            ("error-rate", Some(value)) => {
                let percent = value.strip_suffix('%').and_then(|percent| percent.parse().ok());
                let percent = percent.filter(|percent| (1..=100).contains(percent));
                let percent = percent.ok_or("a rate is from 1% to 100%: write `error-rate=30%`")?;
                Ok(Self::ErrorRate { percent })
            }
            _ => Err(unknown()),
        }
    }

    /// What a try meets. `is_repeatable`: sending it twice does no harm; `is_plain_get`: a GET without a
    /// body; `chance` is drawn evenly from 0 to 1.
    ///
    /// What must not run twice is either not sent at all, or sent and not interfered with: slowness
    /// spares it, since its client could give up on what then runs. The beginning of an answer is shown
    /// to nobody but a GET, of which it is thrown away: half a 200 to a POST that never ran would be a
    /// lie, and so that one meets a reset.
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
