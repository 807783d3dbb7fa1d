//! How endpoints behave, and what a probe or a request meets there.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::logic::id::EndpointId;
use crate::logic::outcome::{Class, Failure, Layer, Reason};
use crate::logic::topology::ProbeKind;

/// What an endpoint does with whoever comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behavior {
    /// Answers as expected, after this long.
    Healthy {
        /// From a request's arrival to its answer.
        latency: Duration,
    },
    /// The process is gone: what was in flight is reset, idle connections are closed, new ones are
    /// refused.
    Refused,
    /// Accepts, and resets as soon as something is asked.
    Reset,
    /// Nothing comes back, ever again, to whatever arrives or has arrived.
    Silent,
    /// Answers at once, with this status.
    BadStatus {
        /// The status.
        status: u16,
    },
}

impl Behavior {
    /// The behaviour that a class of failure stands for; a bad status is a 503.
    #[must_use]
    pub const fn of(class: Class) -> Self {
        match class {
            Class::Refused => Self::Refused,
            Class::Reset => Self::Reset,
            Class::Silent => Self::Silent,
            Class::BadStatus => Self::BadStatus { status: 503 },
        }
    }

    /// What a probe of this kind that arrives now will meet.
    #[must_use]
    pub fn meets_probe(self, kind: &ProbeKind) -> Meeting {
        let ProbeKind::Http(http) = kind else {
            // An accepted connection is all that such a probe asks for.
            return match self {
                Self::Refused => Meeting::refused(),
                Self::Silent => Meeting::Silence(Layer::Connect),
                Self::Healthy { .. } | Self::Reset | Self::BadStatus { .. } => {
                    Meeting::Answer { round_trips: 1, service: Duration::ZERO, result: Ok(()) }
                }
            };
        };
        let answer = |service, result| Meeting::Answer { round_trips: 2, service, result };
        match self {
            Self::Healthy { latency } => answer(latency, Ok(())),
            Self::Refused => Meeting::refused(),
            Self::Reset => answer(Duration::ZERO, Err(Failure::http(Reason::Reset))),
            Self::Silent => Meeting::Silence(Layer::Connect),
            Self::BadStatus { status } => {
                let passes = http.expect_status.iter().any(|range| range.contains(&status));
                let failure = Failure::http(Reason::Status(status));
                answer(Duration::ZERO, if passes { Ok(()) } else { Err(failure) })
            }
        }
    }
}

/// What a probe meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meeting {
    /// An end after this many round trips and the endpoint's own time.
    Answer {
        /// One opens the connection, one asks.
        round_trips: u32,
        /// What the endpoint takes to answer.
        service: Duration,
        /// Whether it is the expected one.
        result: Result<(), Failure>,
    },
    /// Nothing, at this layer.
    Silence(Layer),
}

impl Meeting {
    fn refused() -> Self {
        let result = Err(Failure::connect(Reason::Refused));
        Self::Answer { round_trips: 1, service: Duration::ZERO, result }
    }
}

/// One address and whatever listens there.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) behavior: Behavior,
    pub(super) since: Instant,
    /// Until when each pool keeps an idle connection to it, by the endpoint's identity.
    pub(super) pooled: BTreeMap<EndpointId, Instant>,
}

impl Host {
    pub(super) fn new(behavior: Behavior, now: Instant) -> Self {
        Self { behavior, since: now, pooled: BTreeMap::new() }
    }
}
