//! How endpoints behave, and what a probe or a request meets there.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::logic::id::EndpointId;
use crate::logic::outcome::{CertificateFault, Class, Failure, Layer, Reason};
use crate::logic::probe::{ProbeKind, ProbeSpec};

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
    /// Its certificate has expired; cleartext is answered at once.
    BadTls,
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
            Class::Tls => Self::BadTls,
        }
    }

    /// What such a probe that arrives now will meet.
    #[must_use]
    pub fn meets_probe(self, probe: &ProbeSpec) -> Meeting {
        let round_trips = round_trips(probe);
        let answer = |service, result| Meeting::Answer { round_trips, service, result };
        // An accepted connection is all that such a probe asks for.
        let only_connects = round_trips == 1;
        match self {
            Self::Refused => Meeting::refused(),
            Self::Silent => Meeting::Silence(Layer::Connect),
            Self::BadTls if probe.tls.is_some() => {
                let reason = Reason::Certificate(CertificateFault::Expired);
                let result = Err(Failure { layer: Layer::Tls, reason });
                Meeting::Answer { round_trips: 2, service: Duration::ZERO, result }
            }
            _ if only_connects => answer(Duration::ZERO, Ok(())),
            Self::Healthy { latency } => answer(latency, Ok(())),
            Self::BadTls => answer(Duration::ZERO, Ok(())),
            Self::Reset => {
                let layer = if probe.tls.is_some() { Layer::Tls } else { Layer::Http };
                let result = Err(Failure { layer, reason: Reason::Reset });
                Meeting::Answer { round_trips: 2, service: Duration::ZERO, result }
            }
            Self::BadStatus { status } => answer(Duration::ZERO, judged(&probe.kind, status)),
        }
    }
}

/// One opens the connection, one shakes hands, one asks.
fn round_trips(probe: &ProbeSpec) -> u32 {
    let asks = match &probe.kind {
        ProbeKind::Tcp { expect, .. } => expect.is_some(),
        ProbeKind::Tls => false,
        ProbeKind::Http(_) | ProbeKind::Grpc(_) => true,
    };
    1 + u32::from(probe.tls.is_some()) + u32::from(asks)
}

/// What a probe of this kind makes of an endpoint that answers everything with this status.
fn judged(kind: &ProbeKind, status: u16) -> Result<(), Failure> {
    let passes = match kind {
        ProbeKind::Http(http) => http.expect_status.iter().any(|range| range.contains(&status)),
        ProbeKind::Tcp { .. } | ProbeKind::Tls => true,
        ProbeKind::Grpc(_) => false,
    };
    if passes { Ok(()) } else { Err(Failure::http(Reason::Status(status))) }
}

/// What a probe meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meeting {
    /// An end after this many round trips and the endpoint's own time.
    Answer {
        /// One opens the connection, one shakes hands, one asks.
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
