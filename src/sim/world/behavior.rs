//! How endpoints behave, and what a probe or a request meets there.

use std::time::Duration;

use fastrand::Rng;

use crate::logic::outcome::{CertificateFault, Failure, Layer, Reason};
use crate::logic::probe::{ProbeKind, ProbeSpec};

use crate::sim::latency::Latency;

/// What an endpoint does with whoever comes.
#[derive(Clone, Debug, PartialEq)]
pub enum Behavior {
    /// Answers as expected.
    Healthy {
        /// From a request's arrival to its answer.
        latency: Latency,
    },
    /// The process is gone: what was in flight is reset, idle connections are closed, new ones are
    /// refused.
    Refused,
    /// Accepts, and resets as soon as something is asked.
    Reset,
    /// The process stands still: its kernel takes connections, and nothing comes back until it goes
    /// on.
    Hang,
    /// Nothing comes from there any more, not even to a SYN.
    BlackHole,
    /// Answers everything at once, with this status.
    BadStatus {
        /// The status.
        status: u16,
    },
    /// Answers traffic at once with this status, and the probe as expected.
    StatusTraffic {
        /// The status.
        status: u16,
    },
    /// Answers everything well, and this late.
    Slow {
        /// From a request's arrival to its answer.
        latency: Duration,
    },
    /// Answers traffic this late, and the probe as fast as ever.
    SlowTraffic {
        /// From a request's arrival to its answer.
        latency: Duration,
    },
    /// Answers a share of the traffic with this status, and the probe as expected.
    Errors {
        /// In 0..=1.
        share: f64,
        /// The status.
        status: u16,
    },
    /// Answers to traffic end in the middle; the probe's does not.
    Cut,
    /// What the probe asks for has the wrong body; traffic is answered well.
    WrongBody,
    /// Its certificate has expired, which the probe sees if it speaks TLS; traffic is answered well.
    Certificate,
    /// Answers everything well, and tells the probe that it should get less.
    Degraded,
}

impl Behavior {
    /// How long a good answer takes of an endpoint that behaves so, when `usual` is as long as any.
    pub(super) fn service(&self, usual: &Latency, rng: &mut Rng) -> Duration {
        match self {
            Self::Healthy { latency } => latency.draw(rng),
            _ => usual.draw(rng),
        }
    }

    /// What such a probe that arrives now will meet, if a good answer takes `service`.
    #[must_use]
    pub fn meets_probe(&self, probe: &ProbeSpec, service: Duration) -> Meeting {
        let round_trips = round_trips(probe);
        let answer = |service, finding| Meeting::Answer { round_trips, service, finding };
        let early = |layer, reason| {
            let finding = Finding::Fail(Failure { layer, reason });
            Meeting::Answer { round_trips: 2, service: Duration::ZERO, finding }
        };
        // What is asked first after the connection is there; `None` if that is all there is to it.
        let first_layer = match (&probe.tls, asks(probe)) {
            (Some(_), _) => Some(Layer::Tls),
            (None, true) => Some(Layer::Http),
            (None, false) => None,
        };
        match (self, first_layer) {
            (Self::Refused, _) => Meeting::Answer {
                round_trips: 1,
                service: Duration::ZERO,
                finding: Finding::Fail(Failure::connect(Reason::Refused)),
            },
            (Self::BlackHole, _) => Meeting::Silence(Layer::Connect),
            (_, None) => answer(Duration::ZERO, Finding::Pass),
            (Self::Hang, Some(layer)) => Meeting::Silence(layer),
            (Self::Reset, Some(layer)) => early(layer, Reason::Reset),
            (Self::Certificate, Some(Layer::Tls)) => {
                early(Layer::Tls, Reason::Certificate(CertificateFault::Expired))
            }
            _ if !asks(probe) => answer(Duration::ZERO, Finding::Pass),
            (Self::Slow { latency }, _) => answer(*latency, Finding::Pass),
            (Self::BadStatus { status }, _) => answer(Duration::ZERO, judged(&probe.kind, *status)),
            (Self::WrongBody, _) if expects_body(&probe.kind) => {
                answer(service, Finding::Fail(Failure::http(Reason::Body)))
            }
            (Self::Degraded, _) if probe.degraded.is_some() => answer(service, Finding::Degraded),
            _ => answer(service, Finding::Pass),
        }
    }

    /// What a request that arrives now will meet, if a good answer takes `service`.
    pub(super) fn meets_request(&self, service: Duration, rng: &mut Rng) -> Reply {
        let status =
            |status| Reply::Answer { after: Duration::ZERO, answer: Answer::Status(status) };
        let good = |after| Reply::Answer { after, answer: Answer::Good };
        match self {
            Self::Refused | Self::Reset => Reply::Reset,
            Self::Hang | Self::BlackHole => Reply::Silence,
            Self::BadStatus { status: code } | Self::StatusTraffic { status: code } => {
                status(*code)
            }
            Self::Errors { share, status: code } if rng.f64() < *share => status(*code),
            Self::Slow { latency } | Self::SlowTraffic { latency } => good(*latency),
            Self::Cut => Reply::Answer { after: service, answer: Answer::Cut },
            Self::Healthy { .. }
            | Self::Errors { .. }
            | Self::WrongBody
            | Self::Certificate
            | Self::Degraded => good(service),
        }
    }
}

/// Whether something is asked once the connection stands.
fn asks(probe: &ProbeSpec) -> bool {
    match &probe.kind {
        ProbeKind::Tcp { expect, .. } => expect.is_some(),
        ProbeKind::Tls => false,
        ProbeKind::Http(_) | ProbeKind::Grpc(_) => true,
    }
}

/// One opens the connection, one shakes hands, one asks.
fn round_trips(probe: &ProbeSpec) -> u32 {
    1 + u32::from(probe.tls.is_some()) + u32::from(asks(probe))
}

/// What a probe of this kind makes of an endpoint that answers everything with this status.
fn judged(kind: &ProbeKind, status: u16) -> Finding {
    let passes = match kind {
        ProbeKind::Http(http) => http.expect_status.iter().any(|range| range.contains(&status)),
        ProbeKind::Tcp { .. } | ProbeKind::Tls => true,
        ProbeKind::Grpc(_) => false,
    };
    if passes { Finding::Pass } else { Finding::Fail(Failure::http(Reason::Status(status))) }
}

/// Whether a probe of this kind looks at what comes after the status.
fn expects_body(kind: &ProbeKind) -> bool {
    match kind {
        ProbeKind::Http(http) => !http.expect_body.is_empty(),
        ProbeKind::Tcp { expect, .. } => expect.is_some(),
        ProbeKind::Tls | ProbeKind::Grpc(_) => false,
    }
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
        /// What the probe makes of it.
        finding: Finding,
    },
    /// Nothing, at this layer.
    Silence(Layer),
}

/// What a probe makes of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// As expected.
    Pass,
    /// As expected, and the endpoint should get less.
    Degraded,
    /// Not as expected.
    Fail(Failure),
}

/// What a request meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// The head of an answer, after the endpoint's own time.
    Answer { after: Duration, answer: Answer },
    /// The connection is torn down at once.
    Reset,
    /// Nothing.
    Silence,
}

/// What a request is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// As it should be.
    Good,
    /// With this status.
    Status(u16),
    /// A good head, and the connection ends before the body does.
    Cut,
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::logic::probe::{BodyTest, HttpProbe};
    use crate::logic::speech::TlsClient;

    const SERVICE: Duration = Duration::from_millis(3);

    fn http() -> HttpProbe {
        HttpProbe::get("/")
    }

    fn fails(behavior: &Behavior, probe: &ProbeSpec) -> bool {
        match behavior.meets_probe(probe, SERVICE) {
            Meeting::Answer { finding, .. } => matches!(finding, Finding::Fail(_)),
            Meeting::Silence(_) => true,
        }
    }

    #[test]
    fn a_probe_sees_what_it_asks_for_and_no_more() {
        let tls = TlsClient {
            server_name: None,
            roots: None,
            client: None,
            verify: true,
            alpn: Vec::new(),
        };
        let tls = ProbeSpec { tls: Some(Arc::new(tls)), ..ProbeSpec::new(ProbeKind::Tls) };
        let body = HttpProbe { expect_body: vec![BodyTest::Contains("ok".into())], ..http() };
        let probes = [ProbeSpec::tcp(), tls, ProbeSpec::http(http()), ProbeSpec::http(body)];
        let seen_by = |behavior: Behavior| probes.each_ref().map(|probe| fails(&behavior, probe));
        assert_eq!(seen_by(Behavior::Refused), [true; 4]);
        assert_eq!(seen_by(Behavior::BlackHole), [true; 4]);
        assert_eq!(seen_by(Behavior::Hang), [false, true, true, true]);
        assert_eq!(seen_by(Behavior::Reset), [false, true, true, true]);
        assert_eq!(seen_by(Behavior::Certificate), [false, true, false, false]);
        assert_eq!(seen_by(Behavior::BadStatus { status: 503 }), [false, false, true, true]);
        assert_eq!(seen_by(Behavior::WrongBody), [false, false, false, true]);
        for unseen in [
            Behavior::StatusTraffic { status: 503 },
            Behavior::Errors { share: 1.0, status: 500 },
            Behavior::SlowTraffic { latency: SERVICE * 1_000 },
            Behavior::Cut,
            Behavior::Degraded,
        ] {
            assert_eq!(seen_by(unseen), [false; 4]);
        }
    }

    #[test]
    fn a_share_of_errors_is_that_share() {
        let mut rng = Rng::with_seed(3);
        let errors = Behavior::Errors { share: 0.3, status: 500 };
        let bad = Reply::Answer { after: Duration::ZERO, answer: Answer::Status(500) };
        let count = (0..10_000).filter(|_| errors.meets_request(SERVICE, &mut rng) == bad).count();
        assert!((2_850..3_150).contains(&count), "{count}");
    }
}
