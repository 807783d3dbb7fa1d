//! How endpoints behave, and what a probe or a request meets there.

use std::time::Duration;

use fastrand::Rng;

use crate::logic::model::outcome::{CertificateProblem, Failure, FailureLayer, FailureReason};
use crate::logic::probing::probe::{ProbeKind, ProbeSpec};

use crate::sim::latency::LatencyModel;

/// What an endpoint does with whoever comes.
#[derive(Clone, Debug, PartialEq)]
pub enum EndpointBehavior {
    Healthy {
        /// From a request's arrival to its answer.
        latency: LatencyModel,
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
    BadStatus { status: u16 },
    /// Answers traffic at once with this status, and the probe as expected.
    StatusTraffic { status: u16 },
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
    Errors { share: f64, status: u16 },
    /// Answers to traffic end in the middle; the probe's does not.
    Cut,
    /// What the probe asks for has the wrong body; traffic is answered well.
    WrongBody,
    /// Its certificate has expired, which the probe sees if it speaks TLS; traffic is answered well.
    Certificate,
    /// Answers everything well, and tells the probe that it should get less.
    Degraded,
}

impl EndpointBehavior {
    /// How long a good answer takes of an endpoint that behaves so, when `usual` is as long as any.
    pub(super) fn sample_service_time(&self, usual: &LatencyModel, rng: &mut Rng) -> Duration {
        match self {
            Self::Healthy { latency } => latency.sample(rng),
            _ => usual.sample(rng),
        }
    }

    /// What such a probe that arrives now will meet, if a good answer takes `service`.
    pub fn probe_response(&self, probe: &ProbeSpec, service: Duration) -> ProbeResponse {
        let round_trips = round_trips(probe);
        let answer = |service, finding| ProbeResponse::Answer {
            round_trips,
            service_time: service,
            finding,
        };
        let handshake_failure = |layer, reason| {
            let finding = ProbeFinding::Fail(Failure { layer, reason });
            ProbeResponse::Answer { round_trips: 2, service_time: Duration::ZERO, finding }
        };
        // What is asked first after the connection is there; `None` if that is all there is to it.
        let first_layer = match (&probe.tls, has_request(probe)) {
            (Some(_), _) => Some(FailureLayer::Tls),
            (None, true) => Some(FailureLayer::Http),
            (None, false) => None,
        };
        match (self, first_layer) {
            (Self::Refused, _) => ProbeResponse::Answer {
                round_trips: 1,
                service_time: Duration::ZERO,
                finding: ProbeFinding::Fail(Failure::connect(FailureReason::Refused)),
            },
            (Self::BlackHole, _) => ProbeResponse::Silence(FailureLayer::Connect),
            (_, None) => answer(Duration::ZERO, ProbeFinding::Pass),
            (Self::Hang, Some(layer)) => ProbeResponse::Silence(layer),
            (Self::Reset, Some(layer)) => handshake_failure(layer, FailureReason::Reset),
            (Self::Certificate, Some(FailureLayer::Tls)) => handshake_failure(
                FailureLayer::Tls,
                FailureReason::Certificate(CertificateProblem::Expired),
            ),
            _ if !has_request(probe) => answer(Duration::ZERO, ProbeFinding::Pass),
            (Self::Slow { latency }, _) => answer(*latency, ProbeFinding::Pass),
            (Self::BadStatus { status }, _) => {
                answer(Duration::ZERO, finding_for_status(&probe.kind, *status))
            }
            (Self::WrongBody, _) if has_body_check(&probe.kind) => {
                answer(service, ProbeFinding::Fail(Failure::http(FailureReason::Body)))
            }
            (Self::Degraded, _) if probe.degraded.is_some() => {
                answer(service, ProbeFinding::Degraded)
            }
            _ => answer(service, ProbeFinding::Pass),
        }
    }

    /// What a request that arrives now will meet, if a good answer takes `service`.
    pub(super) fn request_response(&self, service: Duration, rng: &mut Rng) -> RequestResponse {
        let status = |status| RequestResponse::Answer {
            after: Duration::ZERO,
            answer: SimulatedReply::Status(status),
        };
        let good = |after| RequestResponse::Answer { after, answer: SimulatedReply::Good };
        match self {
            Self::Refused | Self::Reset => RequestResponse::Reset,
            Self::Hang | Self::BlackHole => RequestResponse::Silence,
            Self::BadStatus { status: code } | Self::StatusTraffic { status: code } => {
                status(*code)
            }
            Self::Errors { share, status: code } if rng.f64() < *share => status(*code),
            Self::Slow { latency } | Self::SlowTraffic { latency } => good(*latency),
            Self::Cut => RequestResponse::Answer { after: service, answer: SimulatedReply::Cut },
            Self::Healthy { .. }
            | Self::Errors { .. }
            | Self::WrongBody
            | Self::Certificate
            | Self::Degraded => good(service),
        }
    }
}

/// Whether something is asked once the connection stands.
fn has_request(probe: &ProbeSpec) -> bool {
    match &probe.kind {
        ProbeKind::Tcp { expect, .. } => expect.is_some(),
        ProbeKind::Tls => false,
        ProbeKind::Http(_) | ProbeKind::Grpc(_) => true,
    }
}

/// One opens the connection, one shakes hands, one asks.
fn round_trips(probe: &ProbeSpec) -> u32 {
    1 + u32::from(probe.tls.is_some()) + u32::from(has_request(probe))
}

/// What a probe of this kind makes of an endpoint that answers everything with this status.
fn finding_for_status(kind: &ProbeKind, status: u16) -> ProbeFinding {
    let is_expected = match kind {
        ProbeKind::Http(http) => http.expect_status.iter().any(|range| range.contains(&status)),
        ProbeKind::Tcp { .. } | ProbeKind::Tls => true,
        ProbeKind::Grpc(_) => false,
    };
    if is_expected {
        ProbeFinding::Pass
    } else {
        ProbeFinding::Fail(Failure::http(FailureReason::Status(status)))
    }
}

/// Whether a probe of this kind looks at what comes after the status.
fn has_body_check(kind: &ProbeKind) -> bool {
    match kind {
        ProbeKind::Http(http) => !http.expect_body.is_empty(),
        ProbeKind::Tcp { expect, .. } => expect.is_some(),
        ProbeKind::Tls | ProbeKind::Grpc(_) => false,
    }
}

/// What a probe meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeResponse {
    /// An end after this many round trips and the endpoint's own time.
    Answer {
        /// One opens the connection, one shakes hands, one asks.
        round_trips: u32,
        /// What the endpoint takes to answer.
        service_time: Duration,
        /// What the probe makes of it.
        finding: ProbeFinding,
    },
    /// Nothing, at this layer.
    Silence(FailureLayer),
}

/// What a probe makes of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeFinding {
    Pass,
    /// As expected, and the endpoint should get less.
    Degraded,
    Fail(Failure),
}

/// What a request meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestResponse {
    /// The head of an answer, after the endpoint's own time.
    Answer {
        after: Duration,
        answer: SimulatedReply,
    },
    /// The connection is torn down at once.
    Reset,
    Silence,
}

/// What a request is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SimulatedReply {
    /// As it should be.
    Good,
    Status(u16),
    /// A good head, and the connection ends before the body does.
    Cut,
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::logic::model::upstream_protocol::UpstreamTls;
    use crate::logic::probing::probe::{BodyMatcher, HttpProbe};

    const SERVICE: Duration = Duration::from_millis(3);

    fn http() -> HttpProbe {
        HttpProbe::get("/")
    }

    fn has_probe_failure(behavior: &EndpointBehavior, probe: &ProbeSpec) -> bool {
        match behavior.probe_response(probe, SERVICE) {
            ProbeResponse::Answer { finding, .. } => matches!(finding, ProbeFinding::Fail(_)),
            ProbeResponse::Silence(_) => true,
        }
    }

    #[test]
    fn probe_detects_only_faults_within_its_checks() {
        let tls = UpstreamTls {
            server_name: None,
            roots: None,
            client_certificate: None,
            is_verification_enabled: true,
            alpn: Vec::new(),
        };
        let tls = ProbeSpec { tls: Some(Arc::new(tls)), ..ProbeSpec::new(ProbeKind::Tls) };
        let body = HttpProbe { expect_body: vec![BodyMatcher::Contains("ok".into())], ..http() };
        let probes = [ProbeSpec::tcp(), tls, ProbeSpec::http(http()), ProbeSpec::http(body)];
        let seen_by = |behavior: EndpointBehavior| {
            probes.each_ref().map(|probe| has_probe_failure(&behavior, probe))
        };
        assert_eq!(seen_by(EndpointBehavior::Refused), [true; 4]);
        assert_eq!(seen_by(EndpointBehavior::BlackHole), [true; 4]);
        assert_eq!(seen_by(EndpointBehavior::Hang), [false, true, true, true]);
        assert_eq!(seen_by(EndpointBehavior::Reset), [false, true, true, true]);
        assert_eq!(seen_by(EndpointBehavior::Certificate), [false, true, false, false]);
        assert_eq!(
            seen_by(EndpointBehavior::BadStatus { status: 503 }),
            [false, false, true, true]
        );
        assert_eq!(seen_by(EndpointBehavior::WrongBody), [false, false, false, true]);
        for unseen in [
            EndpointBehavior::StatusTraffic { status: 503 },
            EndpointBehavior::Errors { share: 1.0, status: 500 },
            EndpointBehavior::SlowTraffic { latency: SERVICE * 1_000 },
            EndpointBehavior::Cut,
            EndpointBehavior::Degraded,
        ] {
            assert_eq!(seen_by(unseen), [false; 4]);
        }
    }

    #[test]
    fn errors_behavior_fails_the_configured_share() {
        let mut rng = Rng::with_seed(3);
        let errors = EndpointBehavior::Errors { share: 0.3, status: 500 };
        let bad =
            RequestResponse::Answer { after: Duration::ZERO, answer: SimulatedReply::Status(500) };
        let count =
            (0..10_000).filter(|_| errors.request_response(SERVICE, &mut rng) == bad).count();
        assert!((2_850..3_150).contains(&count), "{count}");
    }
}
