//! The probes of one endpoint: their timers, their latest results, and which of them have passed.
//!
//! A pool may have several probes; an endpoint passes when each of its gates has passed since the
//! last piece of evidence ([`EndpointProbes::complete_pass`]).

use std::time::{Duration, Instant};

use smallvec::SmallVec;

use super::probe_history::ProbeHistory;
use crate::logic::health::endpoint_health::Health;
use crate::logic::health::evidence::Evidence;
use crate::logic::model::outcome::ProbeOutcome;
use crate::logic::model::topology::PoolSpec;
use crate::logic::probing::probe::ProbeRole;
use crate::logic::probing::probe_schedule::{ProbeTimer, ProbeTrigger};

#[derive(Debug)]
pub(crate) struct EndpointProbes {
    checks: SmallVec<[ProbeCheck; 1]>,
    /// The entry in the scheduler's queue that is valid; any other is outdated.
    queued_at: Option<Instant>,
    history: ProbeHistory,
}

#[derive(Clone, Debug)]
struct ProbeCheck {
    timer: ProbeTimer,
    /// Whether it has passed since the last piece of evidence was applied.
    has_passed: bool,
}

/// A probe that is to start now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StartedProbe {
    index: u8,
    trigger: ProbeTrigger,
    timeout: Duration,
    /// The start of the regular probe before it.
    previous_start: Instant,
}

impl StartedProbe {
    pub(crate) fn index(&self) -> u8 {
        self.index
    }

    pub(crate) fn trigger(&self) -> ProbeTrigger {
        self.trigger
    }

    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    pub(crate) fn previous_start(&self) -> Instant {
        self.previous_start
    }
}

impl EndpointProbes {
    /// `count` probes that are due now.
    pub(crate) fn new(count: usize, now: Instant) -> Self {
        let check = ProbeCheck { timer: ProbeTimer::new(now), has_passed: false };
        Self {
            checks: smallvec::smallvec![check; count],
            queued_at: None,
            history: ProbeHistory::default(),
        }
    }

    /// Changes the number of probes, and makes all of them due now.
    pub(crate) fn resize(&mut self, count: usize, now: Instant) {
        let fresh = ProbeCheck { timer: ProbeTimer::new(now), has_passed: false };
        self.checks.resize(count, fresh);
        self.checks.iter_mut().for_each(|check| check.timer.probe_now(now));
    }

    pub(crate) fn len(&self) -> usize {
        self.checks.len()
    }

    pub(crate) fn history(&self) -> &ProbeHistory {
        &self.history
    }

    pub(crate) fn history_mut(&mut self) -> &mut ProbeHistory {
        &mut self.history
    }

    /// The smoothed round trips of the probes that have passed.
    pub(crate) fn round_trips(&self) -> impl Iterator<Item = Duration> {
        self.checks.iter().filter_map(|check| check.timer.round_trip())
    }

    /// The start of the next probe; `None` while that depends on the end of a running one.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.checks.iter().filter_map(|check| check.timer.due()).min()
    }

    pub(crate) fn is_burst_due(&self, now: Instant) -> bool {
        self.checks.iter().any(|check| check.timer.is_burst_due(now))
    }

    /// Whether the queue entry for `due` is the valid one.
    pub(crate) fn is_queued_at(&self, due: Instant) -> bool {
        self.queued_at == Some(due)
    }

    pub(crate) fn unqueue(&mut self) {
        self.queued_at = None;
    }

    /// The entry that the queue needs, if the plans have changed since the last one.
    pub(crate) fn requeue(&mut self) -> Option<Instant> {
        let due = self.next_due();
        let is_changed = due != self.queued_at;
        self.queued_at = due;
        due.filter(|_| is_changed)
    }

    /// Starts the probes that are due. `jitter` draws a share in 0..1 for each probe of the pool.
    pub(crate) fn start_due(
        &mut self,
        period: Duration,
        timeout: Duration,
        now: Instant,
        mut jitter: impl FnMut() -> f64,
    ) -> SmallVec<[StartedProbe; 1]> {
        let mut started = SmallVec::new();
        for (index, check) in self.checks.iter_mut().enumerate() {
            let previous_start = check.timer.last_start();
            let start = check.timer.start(now, period, timeout, jitter());
            started.extend(start.map(|(trigger, timeout)| StartedProbe {
                index: index as u8,
                trigger,
                timeout,
                previous_start,
            }));
        }
        started
    }

    /// Handles the result of a probe; returns its evidence. `None` also for a probe that the pool
    /// no longer has, and for one that decides nothing.
    pub(crate) fn finish(
        &mut self,
        (probe, trigger): (u8, ProbeTrigger),
        outcome: ProbeOutcome,
        health: Health,
        pool: &PoolSpec,
        now: Instant,
    ) -> Option<Evidence> {
        let index = usize::from(probe);
        let evidence = self.checks.get_mut(index)?.timer.finish(trigger, outcome, health, now);
        let is_gate = pool.probes.get(index).is_some_and(|spec| spec.role == ProbeRole::Gate);
        evidence.filter(|_| is_gate)
    }

    /// Records a pass of one probe; returns whether the endpoint passes, because all its gates
    /// have.
    pub(crate) fn complete_pass(&mut self, probe: u8, is_outdated: bool, pool: &PoolSpec) -> bool {
        if is_outdated {
            return false;
        }
        if let Some(check) = self.checks.get_mut(usize::from(probe)) {
            check.has_passed = true;
        }
        let gates = pool.probes.iter().zip(&self.checks);
        let mut gates = gates.filter(|(spec, _)| spec.role == ProbeRole::Gate);
        let is_complete = gates.all(|(_, check)| check.has_passed);
        if is_complete {
            self.reset_passes();
        }
        is_complete
    }

    /// Clears the passes of single probes.
    pub(crate) fn reset_passes(&mut self) {
        self.checks.iter_mut().for_each(|check| check.has_passed = false);
    }

    /// Starts a burst of the first probe, unless one began less than `min_gap` ago.
    pub(crate) fn begin_burst(&mut self, now: Instant, min_gap: Duration) {
        if let Some(check) = self.checks.first_mut() {
            check.timer.begin_burst(now, min_gap);
        }
    }

    pub(crate) fn cancel_bursts(&mut self) {
        self.checks.iter_mut().for_each(|check| check.timer.cancel_burst());
    }

    pub(crate) fn apply_period(&mut self, period: Duration, now: Instant) {
        self.checks.iter_mut().for_each(|check| check.timer.apply_period(now, period));
    }

    /// Moves the next regular probes to `phase`, a share in 0..1 of `interval` from now.
    pub(crate) fn set_phase(&mut self, phase: f64, interval: Duration, now: Instant) {
        self.checks.iter_mut().for_each(|check| check.timer.set_phase(now, phase, interval));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::probing::probe::{ProbeRole, ProbeSpec};

    fn pool(roles: &[ProbeRole]) -> PoolSpec {
        let probes = roles.iter().map(|&role| ProbeSpec { role, ..ProbeSpec::tcp() });
        PoolSpec { probes: probes.collect(), ..PoolSpec::new("web", Vec::new()) }
    }

    #[test]
    fn endpoint_passes_when_every_gate_has_passed() {
        let pool = pool(&[ProbeRole::Gate, ProbeRole::Watch, ProbeRole::Gate]);
        let mut probes = EndpointProbes::new(3, Instant::now());
        assert!(!probes.complete_pass(0, false, &pool));
        assert!(!probes.complete_pass(2, true, &pool), "an outdated answer proves nothing");
        assert!(probes.complete_pass(2, false, &pool));
        assert!(!probes.complete_pass(2, false, &pool), "the row began anew");
    }

    #[test]
    fn watching_probe_gives_no_evidence() {
        let now = Instant::now();
        let pool = pool(&[ProbeRole::Gate, ProbeRole::Watch]);
        let mut probes = EndpointProbes::new(2, now);
        let pass = ProbeOutcome::Pass { latency: Duration::from_millis(1) };
        let mut finish =
            |probe| probes.finish((probe, ProbeTrigger::Regular), pass, Health::Up, &pool, now);
        assert_eq!([finish(0), finish(1), finish(2)], [Some(Evidence::Pass), None, None]);
    }

    #[test]
    fn queue_entry_is_renewed_only_when_plans_change() {
        let now = Instant::now();
        let mut probes = EndpointProbes::new(1, now);
        assert_eq!((probes.requeue(), probes.requeue()), (Some(now), None));
        assert!(probes.is_queued_at(now));
        probes.unqueue();
        assert_eq!(probes.requeue(), Some(now));
    }
}
