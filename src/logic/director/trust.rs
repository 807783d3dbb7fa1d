//! Verdicts by what requests got: who is doubted, condemned, tried and readmitted.
//!
//! Traffic outranks probes: no passing probe ends a doubt or a sentence. A doubted endpoint gets
//! only requests that can be sent again, a condemned one a single such request from time to time,
//! and comes back when a row of these was answered well.

use std::time::{Duration, Instant};

use crate::logic::health::Health;
use crate::logic::id::EndpointId;
use crate::logic::live::Tries;
use crate::logic::outcome::Failure;
use crate::logic::ratio::{CLEARED, DOUBT, Faded, GUILTY};

use super::endpoint::Endpoint;
use super::{Director, Event, Source};

/// How often the counters of an endpoint are looked at that is doubted or on trial.
const WATCH: Duration = Duration::from_millis(20);

/// Time between two looks for each endpoint that is watched.
const WATCH_EACH: Duration = Duration::from_micros(5);

/// Trials that must be answered well, one after the other.
pub(super) const TRIALS_TO_RETURN: u32 = 8;

/// Time between two trials at first.
const TRIAL_GAP_US: u32 = 100_000;

/// Between two trials while they go well, at least.
const TRIAL_GAP_MIN_US: u32 = 2_000;

/// Between two trials while they fail, at most.
const TRIAL_GAP_MAX_US: u32 = 500_000;

/// When nobody has a request that may be tried, an endpoint whose probes pass gets its next chance
/// after this long.
pub(super) const TRIAL_PATIENCE: Duration = Duration::from_secs(5);

/// What requests have shown of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Trust {
    /// Nothing is held against it.
    Sound,
    /// More failed than usual.
    Doubted { failure: Failure },
    /// So much failed that it gets no more.
    Condemned(Case),
}

/// A verdict by traffic.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Case {
    pub(super) failure: Failure,
    pub(super) stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Stage {
    /// No trials before then.
    Held { until: Instant },
    /// Tried from time to time.
    OnTrial { good_in_a_row: u32, gap_us: u32, taken: u32, waits_since: Instant },
}

impl Case {
    /// Its trials went well, or nobody had one for so long that it gets its next chance.
    pub(super) fn is_proven(&self, now: Instant) -> bool {
        match self.stage {
            Stage::Held { .. } => false,
            Stage::OnTrial { good_in_a_row, waits_since, .. } => {
                good_in_a_row >= TRIALS_TO_RETURN
                    || now.saturating_duration_since(waits_since) >= TRIAL_PATIENCE
            }
        }
    }
}

impl Director {
    /// Looks at what requests got at an endpoint since the last look.
    pub(super) fn look(&mut self, id: EndpointId, failure: Option<Failure>, now: Instant) {
        let Some(endpoint) = self.roster.get_mut(id) else { return };
        let all = endpoint.live.look();
        let tries = all.since(endpoint.seen);
        endpoint.seen = all;
        let seat = endpoint.seat;
        let is_judged = endpoint.health.serves(true);
        if !is_judged || tries == Tries::default() && failure.is_none() {
            // What the probes see, the probes judge.
            return;
        }
        if let Trust::Condemned(case) = endpoint.trust {
            // Its trials speak of nobody else.
            return self.tried(id, case, tries, now);
        }
        let before = endpoint.verdict();
        let pool = &mut self.pools[seat.pool];
        pool.recent.fade(now);
        let lately = endpoint.ratio.lately(tries, now);
        let own = {
            endpoint.ratio.fade(now);
            endpoint.ratio.recent()
        };
        let score = endpoint.ratio.weigh(tries, lately, pool.recent.recent().without(own), now);
        let zone = &mut pool.zones[seat.zone];
        zone.ratio.fade(now);
        let elsewhere = pool.recent.recent().without(zone.ratio.recent());
        let zone_score = zone.ratio.weigh(tries, lately, elsewhere, now);
        pool.recent.weigh(tries, lately, Faded::default(), now);
        match endpoint.trust {
            Trust::Sound if score > DOUBT => {
                if let Some(failure) = failure {
                    endpoint.trust = Trust::Doubted { failure };
                    endpoint.note(now, Source::Traffic, failure);
                }
            }
            Trust::Doubted { .. } if score < CLEARED => endpoint.trust = Trust::Sound,
            Trust::Doubted { .. } => {
                if let Some(failure) = failure {
                    endpoint.trust = Trust::Doubted { failure };
                }
            }
            Trust::Sound | Trust::Condemned(_) => {}
        }
        let doubted = match endpoint.trust {
            Trust::Doubted { failure } => Some(failure),
            _ => None,
        };
        self.settle(id, before, now);
        if let Some(failure) = doubted {
            self.watch(id, self.next_watch(now));
            if score > GUILTY {
                self.condemn(id, failure, now);
            }
            if zone_score > GUILTY {
                self.condemn_zone(seat.pool, seat.zone, failure, now);
            }
        }
    }

    /// When to look again at one of those that are watched: the more they are, the later, so that
    /// looking never takes more than a fraction of a core.
    pub(super) fn next_watch(&self, now: Instant) -> Instant {
        now + WATCH.max(WATCH_EACH * self.watched.len() as u32)
    }

    /// Has the counters of an endpoint looked at again.
    pub(super) fn watch(&mut self, id: EndpointId, at: Instant) {
        let Some(endpoint) = self.roster.get_mut(id) else { return };
        if let Some(old) = endpoint.trouble_mut().watch_at.replace(at) {
            self.watched.remove(&(old, id));
        }
        self.watched.insert((at, id));
    }

    /// Looks again at those whose time has come.
    pub(super) fn watch_due(&mut self, now: Instant) {
        while let Some(&(due, id)) = self.watched.first() {
            if due > now {
                break;
            }
            self.watched.pop_first();
            let Some(endpoint) = self.roster.get_mut(id) else { continue };
            endpoint.trouble_mut().watch_at = None;
            match endpoint.trust {
                Trust::Sound => {}
                Trust::Doubted { failure } => self.look_again(id, failure, now),
                Trust::Condemned(case) => {
                    let all = endpoint.live.look();
                    let tries = all.since(endpoint.seen);
                    endpoint.seen = all;
                    self.tried(id, case, tries, now);
                }
            }
        }
    }

    fn look_again(&mut self, id: EndpointId, failure: Failure, now: Instant) {
        self.look(id, Some(failure), now);
        let is_doubted = |endpoint: &Endpoint| matches!(endpoint.trust, Trust::Doubted { .. });
        if self.roster.get(id).is_some_and(is_doubted) {
            self.watch(id, self.next_watch(now));
        }
    }

    /// Puts an endpoint down for what requests got there, if anybody else can serve them.
    fn condemn(&mut self, id: EndpointId, failure: Failure, now: Instant) {
        let Some(seat) = self.roster.get(id).map(|endpoint| endpoint.seat) else { return };
        let others = self.pools[seat.pool].counts.clear
            - u32::from(self.roster.get(id).is_some_and(Endpoint::is_clear));
        if others == 0 {
            // Nobody is better: nobody is sentenced, and who was is no worse than the rest.
            return self.pardon(seat.pool, now);
        }
        if !self.may_evict(seat, 1) {
            return;
        }
        self.sentence(id, failure, now);
    }

    /// A zone in which failures are spread over its endpoints goes as a whole.
    fn condemn_zone(&mut self, pool: usize, zone: usize, failure: Failure, now: Instant) {
        let state = &self.pools[pool].zones[zone];
        let clear_elsewhere = self.pools[pool].counts.clear > state.counts.clear;
        if state.is_down() || !clear_elsewhere || !self.may_evict_zone(pool, zone) {
            return;
        }
        let members = state.members.clone();
        let bad: Vec<f32> = members
            .iter()
            .filter_map(|&id| self.roster.get(id))
            .map(|endpoint| endpoint.ratio.recent().bad())
            .collect();
        let (sum, most) = (bad.iter().sum::<f32>(), bad.iter().copied().fold(0.0, f32::max));
        let is_spread = most < 0.7 * sum;
        if !is_spread {
            return;
        }
        self.zone_falls(pool, zone, failure, Source::Traffic, now);
        for id in members {
            let serves = self.roster.get(id).is_some_and(Endpoint::serves);
            if serves {
                self.sentence(id, failure, now);
            }
        }
    }

    fn sentence(&mut self, id: EndpointId, failure: Failure, now: Instant) {
        let Some(endpoint) = self.roster.get_mut(id) else { return };
        let before = endpoint.verdict();
        let hold = endpoint.pool.recover.hold_down;
        let recover = endpoint.pool.recover;
        let until = now + hold.max(endpoint.trouble_mut().flaps.fell(&recover, now));
        endpoint.trust = Trust::Condemned(Case { failure, stage: Stage::Held { until } });
        endpoint.blame(now, Source::Traffic, failure);
        let (explained, seat) = (endpoint.ratio.convict(now), endpoint.seat);
        let probe_passes = endpoint.health == Health::Up;
        let subject = endpoint.subject();
        self.pools[seat.pool].explain(seat.zone, explained, now);
        self.watch(id, until);
        self.settle(id, before, now);
        if probe_passes {
            self.event(Event::Divergence(super::Divergence::TrafficFails { subject, failure }));
        }
    }

    /// Lets all that traffic put down serve again, under suspicion.
    fn pardon(&mut self, pool: usize, now: Instant) {
        if self.pools[pool].counts.condemned == 0 {
            return;
        }
        let members: Vec<EndpointId> =
            self.pools[pool].zones.iter().flat_map(|zone| zone.members.clone()).collect();
        for id in members {
            self.readmit(id, now);
        }
    }

    /// A condemned endpoint and what its trials brought.
    fn tried(&mut self, id: EndpointId, case: Case, tries: Tries, now: Instant) {
        let (epoch, next_watch) = (self.epoch, self.next_watch(now));
        let Some(endpoint) = self.roster.get_mut(id) else { return };
        let now_us = now.saturating_duration_since(epoch).as_micros() as u64;
        let live = &endpoint.live;
        let stage = match case.stage {
            Stage::Held { until } if now < until => case.stage,
            Stage::Held { .. } => {
                live.want_trials(now_us, TRIAL_GAP_US);
                let (gap_us, taken) = (TRIAL_GAP_US, live.trials());
                Stage::OnTrial { good_in_a_row: 0, gap_us, taken, waits_since: now }
            }
            Stage::OnTrial { good_in_a_row, gap_us, taken, waits_since } => {
                let total = live.trials();
                let waits_since = if total == taken { waits_since } else { now };
                let (good_in_a_row, gap_us) = match tries {
                    Tries { bad: 0, good } => {
                        let faster = gap_us >> good.min(8);
                        (good_in_a_row.saturating_add(good as u32), faster.max(TRIAL_GAP_MIN_US))
                    }
                    _ => (0, (gap_us.max(TRIAL_GAP_US) * 2).min(TRIAL_GAP_MAX_US)),
                };
                if tries != Tries::default() {
                    live.want_trials(now_us + u64::from(gap_us), gap_us);
                }
                Stage::OnTrial { good_in_a_row, gap_us, taken: total, waits_since }
            }
        };
        let next = match stage {
            Stage::Held { until } => until,
            Stage::OnTrial { .. } => next_watch,
        };
        let case = Case { stage, ..case };
        endpoint.trust = Trust::Condemned(case);
        self.restand(id, now);
        self.watch(id, next.max(self.next_watch(now)));
        // Where its zone is down it may be the one that the zone's return has waited for.
        let nobody_is_better =
            self.roster.get(id).is_some_and(|one| self.pools[one.seat.pool].counts.clear == 0)
                && matches!(case.stage, Stage::OnTrial { .. });
        if nobody_is_better || case.is_proven(now) && self.may_return(id, now) {
            self.readmit(id, now);
        }
    }

    /// Back under suspicion: it gets requests that can be sent again until the suspicion fades.
    pub(super) fn readmit(&mut self, id: EndpointId, now: Instant) {
        let Some(endpoint) = self.roster.get_mut(id) else { return };
        let Trust::Condemned(case) = endpoint.trust else { return };
        let before = endpoint.verdict();
        endpoint.live.end_trials();
        endpoint.ratio.restart(DOUBT);
        endpoint.trust = Trust::Doubted { failure: case.failure };
        self.settle(id, before, now);
        self.watch(id, self.next_watch(now));
    }

    /// The probes see a failure too: from now on they judge.
    pub(super) fn acquit(&mut self, id: EndpointId, now: Instant) {
        if let Some(endpoint) = self.roster.get_mut(id) {
            let explained = endpoint.ratio.convict(now);
            self.pools[endpoint.seat.pool].explain(endpoint.seat.zone, explained, now);
            if let Trust::Condemned(Case { stage: Stage::Held { until }, .. }) = endpoint.trust {
                let trouble = endpoint.trouble_mut();
                trouble.held_until = trouble.held_until.max(Some(until));
            }
            endpoint.live.end_trials();
            endpoint.seen = endpoint.live.look();
            endpoint.ratio.restart(0.0);
            endpoint.trust = Trust::Sound;
        }
    }
}
