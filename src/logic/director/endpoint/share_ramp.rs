//! The share of one endpoint as it grows back after a return.
//!
//! A recovered endpoint receives the next retryable request first: at low traffic a small share
//! brings no request for a long time, and its first request may be one that cannot be sent again.

use std::time::{Duration, Instant};

use crate::logic::health::recovery::Ramp;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ShareRamp {
    #[default]
    Full,
    /// It grows, and the first request is still to come.
    AwaitingFirstRequest {
        since: Instant,
    },
    Growing {
        since: Instant,
    },
}

impl ShareRamp {
    /// The ramp, without regard to the first request.
    pub(crate) fn ramp(self) -> Ramp {
        match self {
            Self::Full => Ramp::Full,
            Self::AwaitingFirstRequest { since } | Self::Growing { since } => Ramp::Since(since),
        }
    }

    pub(crate) fn is_growing(self) -> bool {
        self != Self::Full
    }

    pub(crate) fn is_awaiting_first_request(self) -> bool {
        matches!(self, Self::AwaitingFirstRequest { .. })
    }

    /// Continues on another ramp; a first request that is still to come stays so.
    pub(crate) fn continue_as(&mut self, ramp: Ramp) {
        *self = match (ramp, *self) {
            (Ramp::Full, _) => Self::Full,
            (Ramp::Since(since), Self::AwaitingFirstRequest { .. }) => {
                Self::AwaitingFirstRequest { since }
            }
            (Ramp::Since(since), Self::Full | Self::Growing { .. }) => Self::Growing { since },
        };
    }

    /// Ends the ramp if it has reached the whole share, and the wait for the first request unless
    /// it `is_still_awaited`; returns whether the share still grows.
    pub(crate) fn advance(
        &mut self,
        length: Duration,
        is_still_awaited: bool,
        now: Instant,
    ) -> bool {
        let mut ramp = self.ramp();
        ramp.finish_if_full(length, now);
        self.continue_as(ramp);
        if let Self::AwaitingFirstRequest { since } = *self
            && !is_still_awaited
        {
            *self = Self::Growing { since };
        }
        self.is_growing()
    }
}

impl From<Ramp> for ShareRamp {
    fn from(ramp: Ramp) -> Self {
        match ramp {
            Ramp::Full => Self::Full,
            Ramp::Since(since) => Self::Growing { since },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_request_is_awaited_until_it_comes_or_the_ramp_ends() {
        let (since, length) = (Instant::now(), Duration::from_secs(10));
        let mut ramp = ShareRamp::AwaitingFirstRequest { since };
        assert!(ramp.advance(length, true, since) && ramp.is_awaiting_first_request());
        let mut served = ramp;
        assert!(served.advance(length, false, since));
        assert_eq!(served, ShareRamp::Growing { since });
        assert!(!ramp.advance(length, true, since + length));
        assert_eq!(ramp, ShareRamp::Full);
    }
}
