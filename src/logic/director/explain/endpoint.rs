//! An endpoint, and why it is as it is.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::logic::director::endpoint::{EndpointState, EvidenceRecord, WithheldReason};
use crate::logic::director::outlier::{
    EjectionStage, OutlierState, TRIAL_TIMEOUT, TRIALS_TO_RETURN,
};
use crate::logic::director::pools::{Eligibility, PoolState};
use crate::logic::director::{Director, PoolStatus};
use crate::logic::health::endpoint_health::Health;
use crate::logic::incident::IncidentSubject;
use crate::logic::model::outcome::{FailureClass, ProbeOutcome};
use crate::logic::model::topology::DetectionSpec;
use crate::logic::orders::OperatorOrder;
use crate::logic::probing::detection_window;
use crate::logic::probing::probe::{ProbeKind, ProbeRole};
use crate::logic::probing::probe_schedule::traffic_confirmed_interval;
use crate::logic::steering::target::WEIGHT_ONE;

use super::zone::{ZoneStatus, endpoint_shares};

/// One endpoint, with all that bears on it.
#[derive(Clone, Debug)]
pub struct EndpointFacts {
    pub subject: Arc<IncidentSubject>,
    /// What is believed of it.
    pub health: Health,
    /// What it may be given.
    pub eligibility: Eligibility,
    /// Since when it is believed.
    pub since: Instant,
    /// What made its verdict, while that is down.
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
    /// It is due, and waits for the budget of probes.
    pub is_waiting_for_budget: bool,
    /// What its probes add up to.
    pub streak: ProbeStreak,
    /// What keeps it from returning too soon.
    pub hold_down: HoldDown,
    /// How it is to prove itself to traffic, if it must.
    pub ejection_trial: Option<EjectionTrial>,
    /// What speaks against it among its requests.
    pub outlier_score: OutlierScore,
    /// What its ramp gives it of its weight, in thousandths.
    pub ramp: u32,
    /// Its probe passes, and says that it should get less.
    pub is_degraded: bool,
    pub weight: u32,
    /// Less what a ramp or a degraded state takes.
    pub weight_now: f64,
    /// Its part of the pool's traffic, in 0..1.
    pub share: f64,
    /// When live traffic was last answered well.
    pub last_response: Option<Instant>,
    pub in_flight: u32,
    /// While it is up and refuses from now on: until the verdict at the latest, by probes alone.
    pub refused_within: Duration,
    /// The same if it falls silent.
    pub silent_within: Duration,
    /// What operators have ordered of it that holds.
    pub orders: Vec<OperatorOrder>,
    pub zone: ZoneStatus,
    pub pool: PoolStatus,
}

#[derive(Clone, Copy, Debug)]
pub struct ProbeFacts {
    pub started: Instant,
    /// Which of the pool's probes it was.
    pub index: u8,
    /// Its protocol; `None` if the configuration has that probe no more.
    pub protocol: Option<&'static str>,
    /// What its outcome decides.
    pub role: ProbeRole,
    pub outcome: ProbeOutcome,
}

/// Why probes come at the period at which they come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cadence {
    /// Nothing has been decided yet.
    New,
    Steady,
    /// It is up and live traffic shows it: probes may be rarer.
    Vouched,
    /// It is up, but its requests fail more often than usual.
    Doubted,
    /// It has a strike.
    Suspect,
    Returning,
    Down,
    /// It is down, and its pool has nobody better.
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

/// Strikes or passes, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeStreak {
    /// On the way down.
    Strikes { count: u32, needed: u32 },
    /// On the way back.
    Passes { count: u32, needed: u32 },
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HoldDown {
    /// It does not return before then; `None` if nothing holds it.
    pub until: Option<Instant>,
    /// Verdicts of late; see [`crate::logic::health::recovery::Flaps`].
    pub flaps: f32,
}

/// What becomes of an endpoint that traffic has put down.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum EjectionTrial {
    /// No requests before then.
    Held { until: Instant },
    /// A request that can be sent again is tried there from time to time.
    Running {
        /// Answered well, one after the other.
        consecutive_successes: u32,
        /// So many bring it back.
        needed: u32,
        /// Between two trials, at least.
        gap: Duration,
        /// Trials since the process began.
        trials_taken: u32,
        /// Without a trial until then it gets its chance all the same.
        timeout_at: Instant,
    },
}

/// The sequential test of an endpoint's failures; see [`crate::logic::health::failure_ratio`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OutlierScore {
    /// What speaks against it now.
    pub score: f32,
    /// The share of its requests that failed of late; `None` without any.
    pub failure_ratio: Option<f64>,
}

impl Director {
    pub(super) fn endpoint_facts(
        &self,
        pool: &PoolState,
        address: SocketAddr,
        now: Instant,
    ) -> Option<EndpointFacts> {
        let mut members = pool.members.iter().filter_map(|id| self.endpoints.get(*id));
        let endpoint = members.find(|endpoint| endpoint.address == address)?;
        let id = endpoint.id;
        let zone = &pool.zones[endpoint.location.zone];
        let (member_state, shares) = (self.member_state_of(endpoint), endpoint_shares(pool));
        let (period, cadence) = self.cadence(endpoint, pool.is_in_panic(), now);
        let (refused_within, silent_within) = self.detection_windows(endpoint, period, cadence);
        let mut ratio = endpoint.ratio;
        ratio.decay(now);
        let recover = endpoint.pool.recovery;
        Some(EndpointFacts {
            subject: endpoint.subject(),
            health: endpoint.verdict(),
            eligibility: member_state.eligibility,
            since: endpoint.since,
            cause: endpoint.cause(),
            withheld: endpoint.withheld,
            evidence: endpoint.evidence().copied().collect(),
            probes: endpoint
                .probe_history
                .iter(self.epoch)
                .map(|probe| probe_facts(endpoint, probe))
                .collect(),
            next_probe: endpoint.next_probe_at(),
            period,
            cadence,
            is_waiting_for_budget: self.probe_scheduler.is_waiting(id),
            streak: probe_streak(endpoint),
            hold_down: HoldDown {
                until: endpoint.held_until().filter(|&until| endpoint.is_down() && now < until),
                flaps: endpoint.flaps().decayed_count(&recover, now),
            },
            ejection_trial: ejection_trial(endpoint),
            outlier_score: OutlierScore {
                score: ratio.score(),
                failure_ratio: ratio.recent().failure_ratio(),
            },
            ramp: endpoint.ramp.share_permille(recover.ramp, now),
            is_degraded: endpoint.is_degraded,
            weight: endpoint.location.weight,
            weight_now: f64::from(member_state.weight) / f64::from(WEIGHT_ONE),
            share: shares.get(&id).copied().unwrap_or_default(),
            last_response: endpoint.last_response(self.epoch),
            in_flight: endpoint.stats.in_flight(),
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
        endpoint: &EndpointState,
        in_panic: bool,
        now: Instant,
    ) -> (Duration, Cadence) {
        let detect = &endpoint.pool.detect;
        let period = endpoint.probe_period(in_panic);
        let last_response = endpoint.last_response(self.epoch);
        let cadence = match endpoint.health {
            Health::Unknown { .. } => Cadence::New,
            Health::Up if endpoint.outlier != OutlierState::Normal => Cadence::Doubted,
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
        endpoint: &EndpointState,
        period: Duration,
        cadence: Cadence,
    ) -> (Duration, Duration) {
        let detect = endpoint.pool.detect;
        let steady = if cadence == Cadence::Vouched { period } else { detect.interval };
        let detect = DetectionSpec { interval: steady.mul_f64(self.stretch()), ..detect };
        let latencies =
            endpoint.probe_history.iter(self.epoch).filter_map(|(_, _, outcome)| outcome.latency());
        let usual = endpoint.checks.iter().filter_map(|check| check.timer.round_trip());
        let round_trip = latencies.chain(usual).max().unwrap_or(detect.timeout);
        let worst = |class| detection_window::detection_bounds(class, &detect, round_trip).worst;
        (worst(FailureClass::Refused), worst(FailureClass::Silent))
    }
}

fn probe_facts(
    endpoint: &EndpointState,
    (started, index, outcome): (Instant, u8, ProbeOutcome),
) -> ProbeFacts {
    let spec = endpoint.pool.probes.get(usize::from(index));
    let protocol = spec.map(|spec| match spec.kind {
        ProbeKind::Tcp { .. } => "tcp",
        ProbeKind::Tls => "tls",
        ProbeKind::Http(_) => "http",
        ProbeKind::Grpc(_) => "grpc",
    });
    let role = spec.map_or(ProbeRole::Watch, |spec| spec.role);
    ProbeFacts { started, index, protocol, role, outcome }
}

fn probe_streak(endpoint: &EndpointState) -> ProbeStreak {
    let detect = &endpoint.pool.detect;
    let strikes = |count| ProbeStreak::Strikes { count, needed: detect.down_after };
    let passes = |count| ProbeStreak::Passes { count, needed: detect.up_after };
    match endpoint.health {
        Health::Up => strikes(0),
        Health::Unknown { strikes: count } | Health::Suspect { strikes: count, .. } => {
            strikes(count)
        }
        Health::Down { .. } => passes(0),
        Health::Returning { passes: count, .. } => passes(count),
    }
}

fn ejection_trial(endpoint: &EndpointState) -> Option<EjectionTrial> {
    let OutlierState::Ejected(ejection) = endpoint.outlier else { return None };
    Some(match ejection.stage {
        EjectionStage::Held { until } => EjectionTrial::Held { until },
        EjectionStage::OnTrial {
            consecutive_successes: good_in_a_row,
            gap_us,
            waiting_since: waits_since,
            ..
        } => EjectionTrial::Running {
            consecutive_successes: good_in_a_row,
            needed: TRIALS_TO_RETURN,
            gap: Duration::from_micros(u64::from(gap_us)),
            trials_taken: endpoint.stats.trial_count(),
            timeout_at: waits_since + TRIAL_TIMEOUT,
        },
    })
}
