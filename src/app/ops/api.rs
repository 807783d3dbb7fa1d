//! Types of the admin API and of `--format json`. Field names are stable and end in their unit.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::logic::director::{EndpointStatus, PoolStatus};
use crate::logic::health::endpoint_health::Health;
use crate::logic::health::recovery::FULL_SHARE_PERMILLE;
use crate::logic::model::outcome::ProbeOutcome;
use crate::logic::model::snapshot::FailoverCounts;

use super::event_log::millis;
use crate::app::runtime::upgrade::Executable;

/// Converts between monotonic instants and wall-clock times, by one reading of both clocks.
#[derive(Clone, Copy, Debug)]
pub struct WallClock {
    instant: Instant,
    wall: SystemTime,
}

impl WallClock {
    pub fn read() -> Self {
        Self { instant: Instant::now(), wall: SystemTime::now() }
    }

    /// RFC 3339 in UTC with microseconds.
    pub fn to_rfc3339(&self, at: Instant) -> String {
        micros_to_rfc3339(self.unix_micros(at))
    }

    pub fn unix_micros(&self, at: Instant) -> u64 {
        u64::try_from(self.since_unix_epoch(at).as_micros()).unwrap_or(u64::MAX)
    }

    /// The instant of a time in microseconds since 1970; the time of the reading if the difference
    /// cannot be represented.
    pub fn instant(&self, us: u64) -> Instant {
        let wall_us = self.unix_micros(self.instant);
        let apart = Duration::from_micros(us.abs_diff(wall_us));
        let at = if us >= wall_us {
            self.instant.checked_add(apart)
        } else {
            self.instant.checked_sub(apart)
        };
        at.unwrap_or(self.instant)
    }

    pub fn since_unix_epoch(&self, at: Instant) -> Duration {
        let wall = match at.checked_duration_since(self.instant) {
            Some(after) => self.wall + after,
            None => self.wall - self.instant.duration_since(at),
        };
        wall.duration_since(UNIX_EPOCH).unwrap_or_default()
    }
}

/// Microseconds since 1970 as RFC 3339 in UTC.
pub fn micros_to_rfc3339(us: u64) -> String {
    let stamp = i64::try_from(us).ok().and_then(|us| jiff::Timestamp::from_microsecond(us).ok());
    stamp.map_or_else(String::new, |stamp| format!("{stamp:.6}"))
}

/// `/api/v1/pools`.
#[derive(Debug, Serialize)]
pub struct PoolApiJson {
    name: String,
    balance: &'static str,
    panic: bool,
    diverges: bool,
    endpoints: usize,
    serving: usize,
    down: usize,
    drained: usize,
    evict_limit: u32,
    withheld: u64,
    achieved_period_ms: Option<f64>,
    stretch: f64,
    policy: &'static str,
    tiers: Vec<TierJson>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    regions: Vec<RegionJson>,
}

#[derive(Debug, Serialize)]
struct RegionJson {
    region: String,
    answers_after_ms: Option<f64>,
}

#[derive(Debug, Serialize)]
struct TierJson {
    share: f64,
    zones: Vec<String>,
}

impl From<&PoolStatus> for PoolApiJson {
    fn from(status: &PoolStatus) -> Self {
        let region = |(region, us): &(String, Option<f64>)| RegionJson {
            region: region.clone(),
            answers_after_ms: us.map(|us| us / 1e3),
        };
        let tier =
            |(share, zones): &(f64, Vec<String>)| TierJson { share: *share, zones: zones.clone() };
        Self {
            name: status.name.to_string(),
            balance: status.balance,
            panic: status.is_in_panic,
            diverges: status.is_diverging,
            endpoints: status.endpoints,
            serving: status.serving,
            down: status.down,
            drained: status.drained,
            evict_limit: status.evict.allowed,
            withheld: status.withheld,
            achieved_period_ms: status.achieved_period.map(millis),
            stretch: status.stretch,
            policy: status.policy.as_str(),
            tiers: status.tiers.iter().map(tier).collect(),
            regions: status.regions.iter().map(region).collect(),
        }
    }
}

/// `/api/v1/endpoints`.
#[derive(Debug, Serialize)]
pub struct EndpointJson {
    pool: String,
    zone: String,
    address: String,
    weight: u32,
    state: &'static str,
    standing: &'static str,
    reason: Option<String>,
    source: Option<&'static str>,
    since: String,
    withheld: Option<&'static str>,
    degraded: bool,
    ramp_share: f64,
    in_service: bool,
    in_flight: u32,
    traffic: TrafficJson,
    next_probe_in_ms: Option<f64>,
    probes: Vec<ProbeJson>,
}

/// Counts of attempts and requests since the endpoint was added.
#[derive(Debug, Serialize)]
struct TrafficJson {
    /// Attempts that were answered well, to the last byte.
    answered: u64,
    /// Attempts that ended with a failure of the endpoint.
    errors: u64,
    #[serde(flatten)]
    tally: TallyJson,
}

#[derive(Debug, Serialize)]
struct ProbeJson {
    started: String,
    result: String,
    latency_ms: Option<f64>,
}

impl EndpointJson {
    /// The status of one endpoint as of `now`.
    pub fn new(status: &EndpointStatus, clock: &WallClock, now: Instant) -> Self {
        let reason = match status.health {
            Health::Suspect { failure, .. }
            | Health::Down { failure }
            | Health::Returning { failure, .. } => Some(failure.to_string()),
            Health::Unknown { .. } | Health::Up => None,
        };
        let probe = |&(started, outcome): &(Instant, ProbeOutcome)| ProbeJson {
            started: clock.to_rfc3339(started),
            result: probe_outcome_text(outcome),
            latency_ms: outcome.latency().map(millis),
        };
        Self {
            pool: status.subject.pool.to_string(),
            zone: status.subject.locality.to_string(),
            address: status.subject.address.to_string(),
            weight: status.weight,
            state: status.health.as_str(),
            standing: status.eligibility.as_str(),
            reason,
            source: status.cause.map(|cause| cause.source.as_str()),
            since: clock.to_rfc3339(status.since),
            withheld: status.withheld.map(|why| why.as_str()),
            degraded: status.is_degraded,
            ramp_share: f64::from(status.ramp) / f64::from(FULL_SHARE_PERMILLE),
            in_service: status.is_in_service,
            in_flight: status.in_flight,
            traffic: TrafficJson {
                answered: status.attempts.good,
                errors: status.attempts.bad,
                tally: status.failover_counts.into(),
            },
            next_probe_in_ms: status.next_probe.map(|at| millis(at.saturating_duration_since(now))),
            probes: status.probes.iter().map(probe).collect(),
        }
    }
}

/// The outcome of a probe in a word or two.
pub fn probe_outcome_text(outcome: ProbeOutcome) -> String {
    match outcome {
        ProbeOutcome::Pass { .. } => "pass".to_owned(),
        ProbeOutcome::Degraded { .. } => "degraded".to_owned(),
        ProbeOutcome::Fail(failure) => failure.to_string(),
        ProbeOutcome::Inconclusive => "void".to_owned(),
    }
}

#[derive(Debug, Serialize)]
struct TallyJson {
    failed: u64,
    rescued: u64,
    late: u64,
}

impl From<FailoverCounts> for TallyJson {
    fn from(tally: FailoverCounts) -> Self {
        Self { failed: tally.failed, rescued: tally.rescued, late: tally.late }
    }
}

/// `/api/v1/process`: version, executable and upgrades of the process.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ProcessJson {
    pub pid: u32,
    pub version: &'static str,
    /// Path of the executable that an upgrade starts.
    pub executable: Option<String>,
    /// Consecutive upgrades that led to this process.
    pub upgrades: u64,
    /// The last upgrade from this process, if it failed.
    pub failed_upgrade: Option<FailedUpgradeJson>,
}

/// A failed upgrade.
#[derive(Clone, Debug, Serialize)]
pub struct FailedUpgradeJson {
    pub at: String,
    pub why: String,
}

impl ProcessJson {
    pub fn new(executable: Option<&Executable>, upgrades: u64) -> Self {
        Self {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION"),
            executable: executable.map(|one| one.path.display().to_string()),
            upgrades,
            failed_upgrade: None,
        }
    }
}

/// `/api/v1/config`: the configuration in force, and the last refused one.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ConfigJson {
    /// Path of the watched file.
    pub path: Option<String>,
    /// Time at which the configuration in force was loaded.
    pub loaded_at: String,
    /// Configurations applied since the start, the first included.
    pub generation: u64,
    /// Keys whose values in the file take effect at the next start only.
    pub needs_restart: Vec<&'static str>,
    /// Why the current content of the file was refused.
    pub refused: Option<RefusedJson>,
}

/// A refused configuration.
#[derive(Clone, Debug, Serialize)]
pub struct RefusedJson {
    pub at: String,
    /// Report as `gapless check` prints it.
    pub report: String,
    /// The same as structured errors.
    pub errors: serde_json::Value,
}
