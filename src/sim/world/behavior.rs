//! The behaviour of endpoints, and what a probe or a request meets there.

use std::time::Duration;

use fastrand::Rng;

use crate::logic::model::outcome::{CertificateProblem, Failure, FailureLayer, FailureReason};
use crate::logic::probing::probe::{ProbeKind, ProbeSpec};

use crate::sim::latency::LatencyModel;

use super::requests::RequestFault;

/// How an endpoint treats probes and requests.
#[derive(Clone, Debug, PartialEq)]
pub enum EndpointBehavior {
    Healthy {
        /// From a request's arrival to its answer.
        latency: LatencyModel,
    },
    /// The process is gone: what was in flight is reset, idle connections are closed, new ones are
    /// refused.
    Refused,
    /// Connections are accepted, and reset on the first request.
    Reset,
    /// The process is stopped: its kernel accepts connections, and nothing is answered until it
    /// resumes.
    Hang,
    /// Every packet is dropped, SYNs too.
    BlackHole,
    /// Everything is answered at once with this status.
    BadStatus { status: u16 },
    /// Traffic is answered at once with this status; the probe is answered well.
    StatusTraffic { status: u16 },
    /// Everything is answered well, with this latency.
    Slow {
        /// From a request's arrival to its answer.
        latency: Duration,
    },
    /// Traffic is answered with this latency; the probe is answered as fast as before.
    SlowTraffic {
        /// From a request's arrival to its answer.
        latency: Duration,
    },
    /// A share of the traffic is answered with this status; the probe is answered well.
    Errors { share: f64, status: u16 },
    /// Responses to traffic are truncated; the probe's is complete.
    Cut,
    /// The probe's response has the wrong body; traffic is answered well.
    WrongBody,
    /// The certificate has expired, which a probe with TLS detects; traffic is answered well.
    Certificate,
    /// Everything is answered well, and the probe's response requests less traffic.
    Degraded,
}

impl EndpointBehavior {
    /// The time that a good response takes; `usual` is the latency of healthy endpoints.
    pub(super) fn sample_service_time(&self, usual: &LatencyModel, rng: &mut Rng) -> Duration {
        match self {
            Self::Healthy { latency } => latency.sample(rng),
            _ => usual.sample(rng),
        }
    }

    /// What a probe that arrives now meets, if a good answer takes `service`.
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
        // The layer of the first message on the connection; `None` if the probe only connects.
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
    pub(super) fn request_response(
        &self,
        service: Duration,
        fault: Option<RequestFault>,
        rng: &mut Rng,
    ) -> RequestResponse {
        let status = |status| RequestResponse::Answer {
            after: Duration::ZERO,
            answer: SimulatedReply::Status(status),
        };
        let good = |after| match fault {
            None => RequestResponse::Answer { after, answer: SimulatedReply::Good },
            Some(RequestFault::Status(code)) => {
                RequestResponse::Answer { after, answer: SimulatedReply::Status(code) }
            }
            Some(RequestFault::Cut) => {
                RequestResponse::Answer { after, answer: SimulatedReply::Cut }
            }
            Some(RequestFault::Reset) => RequestResponse::Reset,
        };
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

/// Whether the probe sends a request on its connection.
fn has_request(probe: &ProbeSpec) -> bool {
    match &probe.kind {
        ProbeKind::Tcp { expect, .. } => expect.is_some(),
        ProbeKind::Tls => false,
        ProbeKind::Http(_) | ProbeKind::Grpc(_) => true,
    }
}

/// Round trips of a probe: to connect, for the handshake, and for the request.
fn round_trips(probe: &ProbeSpec) -> u32 {
    1 + u32::from(probe.tls.is_some()) + u32::from(has_request(probe))
}

/// The finding of such a probe at an endpoint that answers everything with this status.
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

/// Whether such a probe checks more than the status.
fn has_body_check(kind: &ProbeKind) -> bool {
    match kind {
        ProbeKind::Http(http) => !http.expect_body.is_empty(),
        ProbeKind::Tcp { expect, .. } => expect.is_some(),
        ProbeKind::Tls | ProbeKind::Grpc(_) => false,
    }
}

/// The response of an endpoint to a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeResponse {
    /// The probe ends after these round trips and the service time.
    Answer {
        /// To connect, for the handshake, and for the request.
        round_trips: u32,
        /// The time that the endpoint takes to answer.
        service_time: Duration,
        /// The finding of the probe.
        finding: ProbeFinding,
    },
    /// No answer at this layer.
    Silence(FailureLayer),
}

/// The finding of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeFinding {
    Pass,
    /// Good, and the endpoint requests less traffic.
    Degraded,
    Fail(Failure),
}

/// The response of an endpoint to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestResponse {
    /// A response head, after the service time.
    Answer {
        after: Duration,
        answer: SimulatedReply,
    },
    /// The connection is torn down at once.
    Reset,
    Silence,
}

/// The kind of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SimulatedReply {
    Good,
    Status(u16),
    /// A good head; the connection ends before the body does.
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
        let failing_probes = |behavior: EndpointBehavior| {
            probes.each_ref().map(|probe| has_probe_failure(&behavior, probe))
        };
        assert_eq!(failing_probes(EndpointBehavior::Refused), [true; 4]);
        assert_eq!(failing_probes(EndpointBehavior::BlackHole), [true; 4]);
        assert_eq!(failing_probes(EndpointBehavior::Hang), [false, true, true, true]);
        assert_eq!(failing_probes(EndpointBehavior::Reset), [false, true, true, true]);
        assert_eq!(failing_probes(EndpointBehavior::Certificate), [false, true, false, false]);
        assert_eq!(
            failing_probes(EndpointBehavior::BadStatus { status: 503 }),
            [false, false, true, true]
        );
        assert_eq!(failing_probes(EndpointBehavior::WrongBody), [false, false, false, true]);
        for undetected in [
            EndpointBehavior::StatusTraffic { status: 503 },
            EndpointBehavior::Errors { share: 1.0, status: 500 },
            EndpointBehavior::SlowTraffic { latency: SERVICE * 1_000 },
            EndpointBehavior::Cut,
            EndpointBehavior::Degraded,
        ] {
            assert_eq!(failing_probes(undetected), [false; 4]);
        }
    }

    #[test]
    fn errors_behavior_fails_the_configured_share() {
        let mut rng = Rng::with_seed(3);
        let errors = EndpointBehavior::Errors { share: 0.3, status: 500 };
        let bad =
            RequestResponse::Answer { after: Duration::ZERO, answer: SimulatedReply::Status(500) };
        let count =
            (0..10_000).filter(|_| errors.request_response(SERVICE, None, &mut rng) == bad).count();
        assert!((2_850..3_150).contains(&count), "{count}");
    }
}
