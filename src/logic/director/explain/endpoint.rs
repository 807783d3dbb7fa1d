//! An endpoint, and why it is as it is.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::logic::director::endpoint::{Endpoint, Piece, Withheld};
use crate::logic::director::pools::{PoolState, Standing};
use crate::logic::director::trust::{Stage, TRIAL_PATIENCE, TRIALS_TO_RETURN, Trust};
use crate::logic::director::{Director, PoolStatus};
use crate::logic::health::Health;
use crate::logic::incident::Subject;
use crate::logic::operator::Order;
use crate::logic::outcome::{Class, Outcome};
use crate::logic::probe::{ProbeKind, Role};
use crate::logic::schedule::vouched_interval;
use crate::logic::tier::WEIGHT_ONE;
use crate::logic::topology::Detect;
use crate::logic::window;

use super::zone::{ZoneStatus, parts};

/// One endpoint, with all that bears on it.
#[derive(Clone, Debug)]
pub struct EndpointFacts {
    /// Who.
    pub subject: Arc<Subject>,
    /// What is believed of it.
    pub health: Health,
    /// What it may be given.
    pub standing: Standing,
    /// Since when it is believed.
    pub since: Instant,
    /// What made its verdict, while that is down.
    pub cause: Option<Piece>,
    /// Why it is in service in spite of enough strikes.
    pub withheld: Option<Withheld>,
    /// The last evidence against it, oldest first; up to the verdict, while that is down.
    pub evidence: Vec<Piece>,
    /// The last probes, oldest first.
    pub probes: Vec<ProbeFacts>,
    /// When the next probe starts; `None` while it waits for the running one.
    pub next_probe: Option<Instant>,
    /// From the start of one probe to that of the next.
    pub period: Duration,
    /// Why this period.
    pub cadence: Cadence,
    /// It is due, and waits for the budget of probes.
    pub waits_for_budget: bool,
    /// What its probes add up to.
    pub row: Row,
    /// What keeps it from returning too soon.
    pub hold: Hold,
    /// How it is to prove itself to traffic, if it must.
    pub trial: Option<Trial>,
    /// What speaks against it among its requests.
    pub doubt: Doubt,
    /// What its ramp gives it of its weight, in thousandths.
    pub ramp: u32,
    /// Its probe passes, and says that it should get less.
    pub is_degraded: bool,
    /// As declared.
    pub weight: u32,
    /// Less what a ramp or a degraded state takes.
    pub weight_now: f64,
    /// Its part of the pool's traffic, in 0..1.
    pub share: f64,
    /// When live traffic was last answered well.
    pub last_answer: Option<Instant>,
    /// Requests in flight.
    pub in_flight: u32,
    /// While it is up and refuses from now on: until the verdict at the latest, by probes alone.
    pub refused_within: Duration,
    /// The same if it falls silent.
    pub silent_within: Duration,
    /// What operators have ordered of it that holds.
    pub orders: Vec<Order>,
    /// Its zone.
    pub zone: ZoneStatus,
    /// Its pool.
    pub pool: PoolStatus,
}

/// One probe.
#[derive(Clone, Copy, Debug)]
pub struct ProbeFacts {
    /// When it started.
    pub started: Instant,
    /// Which of the pool's probes it was.
    pub index: u8,
    /// Its protocol; `None` if the configuration has that probe no more.
    pub protocol: Option<&'static str>,
    /// What its outcome decides.
    pub role: Role,
    /// How it ended.
    pub outcome: Outcome,
}

/// Why probes come at the period at which they come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cadence {
    /// Nothing has been decided yet.
    New,
    /// It is up.
    Steady,
    /// It is up and live traffic shows it: probes may be rarer.
    Vouched,
    /// It is up, but its requests fail more often than usual.
    Doubted,
    /// It has a strike.
    Suspect,
    /// It passes again.
    Returning,
    /// It is down.
    Down,
    /// It is down, and its pool has nobody better.
    Panic,
}

impl Cadence {
    /// The word used in output.
    #[must_use]
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
pub enum Row {
    /// On the way down.
    Strikes {
        /// So far.
        count: u32,
        /// For the verdict.
        needed: u32,
    },
    /// On the way back.
    Passes {
        /// So far.
        count: u32,
        /// For the return.
        needed: u32,
    },
}

/// A hold-down.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hold {
    /// It does not return before then; `None` if nothing holds it.
    pub until: Option<Instant>,
    /// Verdicts of late; see [`crate::logic::recovery::Flaps`].
    pub flaps: f32,
}

/// What becomes of an endpoint that traffic has put down.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Trial {
    /// No requests before then.
    Held {
        /// When trials begin.
        until: Instant,
    },
    /// A request that can be sent again is tried there from time to time.
    Running {
        /// Answered well, one after the other.
        good_in_a_row: u32,
        /// So many bring it back.
        needed: u32,
        /// Between two trials, at least.
        gap: Duration,
        /// Trials since the process began.
        taken: u32,
        /// Without a trial until then it gets its chance all the same.
        patience_until: Instant,
    },
}

/// The sequential test of an endpoint's failures; see [`crate::logic::ratio`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Doubt {
    /// What speaks against it now.
    pub score: f32,
    /// The share of its requests that failed of late; `None` without any.
    pub failing: Option<f64>,
}

impl Director {
    pub(super) fn endpoint_facts(
        &self,
        pool: &PoolState,
        address: SocketAddr,
        now: Instant,
    ) -> Option<EndpointFacts> {
        let mut members = pool.members.iter().filter_map(|id| self.roster.get(*id));
        let endpoint = members.find(|endpoint| endpoint.address == address)?;
        let id = endpoint.id;
        let zone = &pool.zones[endpoint.seat.zone];
        let (entry, parts) = (self.entry_of(endpoint), parts(pool));
        let (period, cadence) = self.cadence(endpoint, pool.in_panic(), now);
        let (refused_within, silent_within) = self.windows(endpoint, period, cadence);
        let mut ratio = endpoint.ratio;
        ratio.fade(now);
        let recover = endpoint.pool.recover;
        Some(EndpointFacts {
            subject: endpoint.subject(),
            health: endpoint.verdict(),
            standing: entry.standing,
            since: endpoint.since,
            cause: endpoint.cause(),
            withheld: endpoint.withheld,
            evidence: endpoint.evidence().copied().collect(),
            probes: endpoint.past.iter(self.epoch).map(|probe| facts(endpoint, probe)).collect(),
            next_probe: endpoint.due(),
            period,
            cadence,
            waits_for_budget: self.pace.is_waiting(id),
            row: row(endpoint),
            hold: Hold {
                until: endpoint.held_until().filter(|&until| endpoint.is_down() && now < until),
                flaps: endpoint.flaps().count(&recover, now),
            },
            trial: trial(endpoint),
            doubt: Doubt { score: ratio.score(), failing: ratio.recent().plain_share() },
            ramp: endpoint.ramp.share(recover.ramp, now),
            is_degraded: endpoint.is_degraded,
            weight: endpoint.seat.weight,
            weight_now: f64::from(entry.weight) / f64::from(WEIGHT_ONE),
            share: parts.get(&id).copied().unwrap_or_default(),
            last_answer: endpoint.last_answer(self.epoch),
            in_flight: endpoint.live.in_flight(),
            refused_within,
            silent_within,
            orders: self.orders_of(endpoint),
            zone: self.zone_status(pool, zone, &parts, now),
            pool: self.pool_status(pool),
        })
    }

    /// The period of an endpoint's probes, and why.
    fn cadence(&self, endpoint: &Endpoint, in_panic: bool, now: Instant) -> (Duration, Cadence) {
        let detect = &endpoint.pool.detect;
        let period = endpoint.period(in_panic);
        let answer = endpoint.last_answer(self.epoch);
        let cadence = match endpoint.health {
            Health::Unknown { .. } => Cadence::New,
            Health::Up if endpoint.trust != Trust::Sound => Cadence::Doubted,
            Health::Up if answer.is_some_and(|answer| answer + detect.interval >= now) => {
                let vouched = vouched_interval(detect);
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
    fn windows(
        &self,
        endpoint: &Endpoint,
        period: Duration,
        cadence: Cadence,
    ) -> (Duration, Duration) {
        let detect = endpoint.pool.detect;
        let steady = if cadence == Cadence::Vouched { period } else { detect.interval };
        let detect = Detect { interval: steady.mul_f64(self.stretch()), ..detect };
        let latencies =
            endpoint.past.iter(self.epoch).filter_map(|(_, _, outcome)| outcome.latency());
        let usual = endpoint.checks.iter().filter_map(|check| check.timer.round_trip());
        let round_trip = latencies.chain(usual).max().unwrap_or(detect.timeout);
        let worst = |class| window::bounds(class, &detect, round_trip).worst;
        (worst(Class::Refused), worst(Class::Silent))
    }
}

fn facts(endpoint: &Endpoint, (started, index, outcome): (Instant, u8, Outcome)) -> ProbeFacts {
    let spec = endpoint.pool.probes.get(usize::from(index));
    let protocol = spec.map(|spec| match spec.kind {
        ProbeKind::Tcp { .. } => "tcp",
        ProbeKind::Tls => "tls",
        ProbeKind::Http(_) => "http",
        ProbeKind::Grpc(_) => "grpc",
    });
    let role = spec.map_or(Role::Watch, |spec| spec.role);
    ProbeFacts { started, index, protocol, role, outcome }
}

fn row(endpoint: &Endpoint) -> Row {
    let detect = &endpoint.pool.detect;
    let strikes = |count| Row::Strikes { count, needed: detect.down_after };
    let passes = |count| Row::Passes { count, needed: detect.up_after };
    match endpoint.health {
        Health::Up => strikes(0),
        Health::Unknown { strikes: count } | Health::Suspect { strikes: count, .. } => {
            strikes(count)
        }
        Health::Down { .. } => passes(0),
        Health::Returning { passes: count, .. } => passes(count),
    }
}

fn trial(endpoint: &Endpoint) -> Option<Trial> {
    let Trust::Condemned(case) = endpoint.trust else { return None };
    Some(match case.stage {
        Stage::Held { until } => Trial::Held { until },
        Stage::OnTrial { good_in_a_row, gap_us, waits_since, .. } => Trial::Running {
            good_in_a_row,
            needed: TRIALS_TO_RETURN,
            gap: Duration::from_micros(u64::from(gap_us)),
            taken: endpoint.live.trials(),
            patience_until: waits_since + TRIAL_PATIENCE,
        },
    })
}
