//! All facts about one endpoint.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::logic::director::eligibility::Eligibility;
use crate::logic::director::endpoint::EndpointMachine;
use crate::logic::director::endpoint::evidence_history::EvidenceRecord;
use crate::logic::director::endpoint::state::WithheldReason;
use crate::logic::director::outlier::state::{
    EjectionStage, OutlierState, TRIAL_TIMEOUT, TRIALS_TO_RETURN,
};
use crate::logic::director::pools::PoolState;
use crate::logic::director::shares::endpoint_shares;
use crate::logic::director::{Director, PoolStatus};
use crate::logic::health::endpoint_health::Health;
use crate::logic::incident::IncidentSubject;
use crate::logic::model::outcome::{FailureClass, ProbeOutcome};
use crate::logic::model::topology::DetectionSpec;
use crate::logic::orders::OperatorOrder;
use crate::logic::probing::detection_window::{detection_bounds, traffic_confirmed_interval};
use crate::logic::probing::probe::{ProbeKind, ProbeRole};
use crate::logic::steering::target::WEIGHT_ONE;

use super::zone::ZoneStatus;

/// One endpoint, with all facts about it.
#[derive(Clone, Debug)]
pub struct EndpointFacts {
    pub subject: Arc<IncidentSubject>,
    /// The verdict of all evidence together.
    pub health: Health,
    /// The requests that it may receive.
    pub eligibility: Eligibility,
    /// When the verdict last changed.
    pub since: Instant,
    /// The cause of its verdict, while that is down.
    pub cause: Option<EvidenceRecord>,
    /// Why it is in service in spite of enough strikes.
    pub withheld: Option<WithheldReason>,
    /// The last evidence against it, oldest first; up to the verdict, while that is down.
    pub evidence: Vec<EvidenceRecord>,
    /// The last probes, oldest first.
    pub probes: Vec<ProbeFacts>,
    /// When the next probe starts; `None` while it waits for the running one.
    pub next_probe: Option<Instant>,
    /// From the start of one probe to that of the next.
    pub period: Duration,
    pub cadence: Cadence,
    /// Whether a probe is due and waits for the budget.
    pub is_waiting_for_budget: bool,
    /// The latest probes of one kind in a row.
    pub streak: ProbeStreak,
    /// The hold-down that keeps it from returning too soon.
    pub hold_down: HoldDown,
    /// The trials by which it returns from an ejection.
    pub ejection_trial: Option<EjectionTrial>,
    /// The sequential test of its requests.
    pub outlier_score: OutlierScore,
    /// The part of its weight that its ramp leaves, in thousandths.
    pub ramp: u32,
    /// Its probes pass, and its responses request less weight.
    pub is_degraded: bool,
    pub weight: u32,
    /// The weight in force, less what a ramp or a degraded state takes.
    pub weight_now: f64,
    /// Its part of the pool's traffic, in 0..1.
    pub share: f64,
    /// When live traffic was last answered well.
    pub last_response: Option<Instant>,
    pub in_flight: u32,
    /// The longest time to the verdict, by probes alone, if it is up and refuses from now on.
    pub refused_within: Duration,
    /// The same if it falls silent from now on.
    pub silent_within: Duration,
    /// The orders in force that concern it.
    pub orders: Vec<OperatorOrder>,
    pub zone: ZoneStatus,
    pub pool: PoolStatus,
}

#[derive(Clone, Copy, Debug)]
pub struct ProbeFacts {
    pub started: Instant,
    /// The index of the probe in its pool.
    pub index: u8,
    /// The protocol; `None` if the configuration no longer has that probe.
    pub protocol: Option<&'static str>,
    /// The role that its outcome has.
    pub role: ProbeRole,
    pub outcome: ProbeOutcome,
}

/// Why probes have the period that they have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cadence {
    /// No probe has decided yet.
    New,
    Steady,
    /// It is up, and live traffic confirms that: probes may be rarer.
    Vouched,
    /// It is up, but its requests fail more often than usual.
    Doubted,
    Suspect,
    Returning,
    Down,
    /// It is down, and its pool has no better endpoint.
    Panic,
}

impl Cadence {
    /// The word used in output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Steady => "steady",
            Self::Vouched => "vouched",
            Self::Doubted => "doubted",
            Self::Suspect => "suspect",
            Self::Returning => "returning",
            Self::Down => "down",
            Self::Panic => "panic",
        }
    }
}

/// Strikes or passes in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeStreak {
    /// On the way down.
    Strikes { count: u32, needed: u32 },
    /// On the way back.
    Passes { count: u32, needed: u32 },
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HoldDown {
    /// It does not return before then; `None` without a hold-down.
    pub until: Option<Instant>,
    /// Recent verdicts; see [`crate::logic::health::recovery::FlapHistory`].
    pub flaps: f32,
}

/// The return of an endpoint that is down by traffic.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum EjectionTrial {
    /// No requests before then.
    Held { until: Instant },
    /// Single repeatable requests are tried.
    Running {
        /// Trials in a row that were answered well.
        consecutive_successes: u32,
        /// The number of good trials in a row that returns it to service.
        needed: u32,
        /// The shortest time between two trials.
        gap: Duration,
        /// Trials since the process began.
        trials_taken: u32,
        /// When it returns without trials, if there are none until then.
        timeout_at: Instant,
    },
}

/// The sequential test of an endpoint's failures; see [`crate::logic::health::failure_ratio`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OutlierScore {
    /// The score of the test.
    pub score: f32,
    /// The share of its latest requests that failed; `None` without any.
    pub failure_ratio: Option<f64>,
}

impl Director {
    pub(super) fn endpoint_facts(
        &self,
        pool: &PoolState,
        address: SocketAddr,
        now: Instant,
    ) -> Option<EndpointFacts> {
        let mut members = pool.members().iter().filter_map(|id| self.endpoints.get(*id));
        let endpoint = members.find(|endpoint| endpoint.address() == address)?;
        let id = endpoint.id();
        let zone = pool.zone(endpoint.location().zone());
        let (member_state, shares) = (self.member_state_of(endpoint), endpoint_shares(pool));
        let (period, cadence) = self.cadence(endpoint, pool.is_in_panic(), now);
        let (refused_within, silent_within) = self.detection_windows(endpoint, period, cadence);
        let ratio = endpoint.ratio().decayed(now);
        let (recovery, history) = (endpoint.pool().recovery, endpoint.history());
        Some(EndpointFacts {
            subject: endpoint.subject(),
            health: endpoint.verdict(),
            eligibility: member_state.eligibility(),
            since: endpoint.since(),
            cause: history.cause(),
            withheld: endpoint.state().withheld(),
            evidence: history.evidence().copied().collect(),
            probes: endpoint
                .probes()
                .history()
                .iter(self.epoch)
                .map(|probe| probe_facts(endpoint, probe))
                .collect(),
            next_probe: endpoint.probes().next_due(),
            period,
            cadence,
            is_waiting_for_budget: self.probe_scheduler.is_waiting(id),
            streak: probe_streak(endpoint),
            hold_down: HoldDown {
                until: history.held_until().filter(|&until| endpoint.is_down() && now < until),
                flaps: history.flaps().decayed_count(&recovery, now),
            },
            ejection_trial: ejection_trial(endpoint),
            outlier_score: OutlierScore {
                score: ratio.score(),
                failure_ratio: ratio.recent().failure_ratio(),
            },
            ramp: endpoint.ramp().ramp().share_permille(recovery.ramp, now),
            is_degraded: endpoint.is_degraded(),
            weight: endpoint.location().weight(),
            weight_now: f64::from(member_state.weight()) / f64::from(WEIGHT_ONE),
            share: shares.get(&id).copied().unwrap_or_default(),
            last_response: endpoint.last_response(self.epoch),
            in_flight: endpoint.stats().in_flight(),
            refused_within,
            silent_within,
            orders: self.orders_for(endpoint),
            zone: self.zone_status(pool, zone, &shares, now),
            pool: self.pool_status(pool),
        })
    }

    /// The period of an endpoint's probes, and why.
    fn cadence(
        &self,
        endpoint: &EndpointMachine,
        in_panic: bool,
        now: Instant,
    ) -> (Duration, Cadence) {
        let detect = &endpoint.pool().detect;
        let period = endpoint.probe_period(in_panic);
        let last_response = endpoint.last_response(self.epoch);
        let cadence = match endpoint.state().probe_verdict() {
            Health::Unknown { .. } => Cadence::New,
            Health::Up if endpoint.state().outlier() != OutlierState::Normal => Cadence::Doubted,
            Health::Up if last_response.is_some_and(|answer| answer + detect.interval >= now) => {
                let vouched = traffic_confirmed_interval(detect);
                if vouched > period {
                    return (vouched, Cadence::Vouched);
                }
                Cadence::Steady
            }
            Health::Up => Cadence::Steady,
            Health::Suspect { .. } => Cadence::Suspect,
            Health::Returning { .. } => Cadence::Returning,
            Health::Down { .. } if in_panic => Cadence::Panic,
            Health::Down { .. } => Cadence::Down,
        };
        (period, cadence)
    }

    /// The worst cases of the detection window for a failure of each kind, as periods are now.
    fn detection_windows(
        &self,
        endpoint: &EndpointMachine,
        period: Duration,
        cadence: Cadence,
    ) -> (Duration, Duration) {
        let detect = endpoint.pool().detect;
        let steady = if cadence == Cadence::Vouched { period } else { detect.interval };
        let detect = DetectionSpec { interval: steady.mul_f64(self.stretch()), ..detect };
        let probes = endpoint.probes();
        let latencies =
            probes.history().iter(self.epoch).filter_map(|(_, _, outcome)| outcome.latency());
        let round_trip = latencies.chain(probes.round_trips()).max().unwrap_or(detect.timeout);
        let worst = |class| detection_bounds(class, &detect, round_trip).worst;
        (worst(FailureClass::Refused), worst(FailureClass::Silent))
    }
}

fn probe_facts(
    endpoint: &EndpointMachine,
    (started, index, outcome): (Instant, u8, ProbeOutcome),
) -> ProbeFacts {
    let spec = endpoint.pool().probes.get(usize::from(index));
    let protocol = spec.map(|spec| match spec.kind {
        ProbeKind::Tcp { .. } => "tcp",
        ProbeKind::Tls => "tls",
        ProbeKind::Http(_) => "http",
        ProbeKind::Grpc(_) => "grpc",
    });
    let role = spec.map_or(ProbeRole::Watch, |spec| spec.role);
    ProbeFacts { started, index, protocol, role, outcome }
}

fn probe_streak(endpoint: &EndpointMachine) -> ProbeStreak {
    let detect = &endpoint.pool().detect;
    let strikes = |count| ProbeStreak::Strikes { count, needed: detect.down_after };
    let passes = |count| ProbeStreak::Passes { count, needed: detect.up_after };
    match endpoint.state().probe_verdict() {
        Health::Up => strikes(0),
        Health::Unknown { strikes: count } | Health::Suspect { strikes: count, .. } => {
            strikes(count)
        }
        Health::Down { .. } => passes(0),
        Health::Returning { passes: count, .. } => passes(count),
    }
}

fn ejection_trial(endpoint: &EndpointMachine) -> Option<EjectionTrial> {
    Some(match endpoint.state().outlier().ejection()?.stage() {
        EjectionStage::Held { until } => EjectionTrial::Held { until },
        EjectionStage::OnTrial { consecutive_successes, gap_us, waiting_since, .. } => {
            EjectionTrial::Running {
                consecutive_successes,
                needed: TRIALS_TO_RETURN,
                gap: Duration::from_micros(u64::from(gap_us)),
                trials_taken: endpoint.stats().trial_count(),
                timeout_at: waiting_since + TRIAL_TIMEOUT,
            }
        }
    })
}
