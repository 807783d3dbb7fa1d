//! From a piece of evidence to its consequences.

use std::time::Instant;

use crate::logic::evidence::Evidence;
use crate::logic::health::{Change, Health, Thresholds};
use crate::logic::id::EndpointId;
use crate::logic::outcome::{Class, Failure, Outcome, Reason};
use crate::logic::probe::Role;
use crate::logic::recovery::Ramp;
use crate::logic::schedule;

use super::endpoint::{Endpoint, Seat, Withheld};
use super::trust::Trust;
use super::{Director, Divergence, Event, Source, Ticket};

impl Director {
    pub(super) fn probed(
        &mut self,
        id: EndpointId,
        ticket: Ticket,
        outcome: Outcome,
        now: Instant,
    ) {
        self.observe(outcome, now);
        let epoch = self.epoch;
        let Some(endpoint) = self.roster.get_mut(id) else { return };
        let since_epoch = ticket.started.saturating_duration_since(epoch);
        endpoint.past.remember(since_epoch, ticket.probe, outcome);
        let index = usize::from(ticket.probe);
        let Some(check) = endpoint.checks.get_mut(index) else { return };
        let evidence = check.timer.finish(ticket.row, outcome, endpoint.health, now);
        let is_gate = endpoint.pool.probes.get(index).is_some_and(|p| p.role == Role::Gate);
        let evidence = evidence.filter(|_| is_gate);
        match evidence {
            Some(Evidence::Pass) => {
                // An answer to a question asked before the last strike says nothing about now.
                let outdated = endpoint.last_strike().is_some_and(|strike| ticket.started < strike);
                let is_degraded = matches!(outcome, Outcome::Degraded { .. });
                let is_news =
                    std::mem::replace(&mut endpoint.is_degraded, is_degraded) != is_degraded;
                let zone = &self.pools[endpoint.seat.pool].zones[endpoint.seat.zone];
                let is_quiet = endpoint.is_beyond_doubt() && !zone.is_down();
                if endpoint.checks.len() == 1 && !is_news && is_quiet {
                    // Nearly all probes end here.
                    endpoint.proven(ticket.started);
                    endpoint.close_books();
                    self.release_cuts(id, ticket.started);
                    return self.arm(id);
                }
                endpoint.checks[index].has_passed |= !outdated;
                if !outdated && endpoint.gates().all(|gate| endpoint.checks[gate].has_passed) {
                    endpoint.checks.iter_mut().for_each(|check| check.has_passed = false);
                    self.weigh(id, Evidence::Pass, Source::Probe, ticket.started, now);
                    self.release_cuts(id, ticket.started);
                }
            }
            Some(Evidence::Firm(failure)) => {
                endpoint.checks.iter_mut().for_each(|check| check.has_passed = false);
                // A lost packet is more likely than a dead endpoint that answers requests.
                let is_vouched = failure.class() == Class::Silent
                    && endpoint.last_answer(epoch).is_some_and(|answer| answer >= ticket.started);
                if !is_vouched {
                    self.weigh(id, Evidence::Firm(failure), Source::Probe, ticket.started, now);
                }
            }
            Some(Evidence::Soft(_)) | None => {}
        }
        self.restand(id, now);
        self.arm(id);
    }

    pub(super) fn traffic(
        &mut self,
        id: EndpointId,
        failure: Failure,
        began: Instant,
        now: Instant,
    ) {
        let Some(endpoint) = self.roster.get(id) else { return };
        if !endpoint.health.serves(true) {
            // Heard and done with: the probes judge.
            return self.look(id, None, now);
        }
        // A try that began before the endpoint came back tells of the failure that is over.
        if endpoint.up_since.is_some_and(|since| began < since) {
            let seen = endpoint.live.look();
            if let Some(endpoint) = self.roster.get_mut(id) {
                endpoint.seen = seen;
            }
            return;
        }
        if !failure.is_answer() {
            // Two lost SYNs among thousands of answers are no outage: they are a reason to look.
            let is_vouched = failure.class() == Class::Silent
                && endpoint.last_good(self.epoch).is_some_and(|good| good >= began);
            let evidence = match Evidence::from_traffic(failure) {
                Evidence::Firm(failure) if is_vouched => Evidence::Soft(failure),
                evidence => evidence,
            };
            self.weigh(id, evidence, Source::Traffic, began, now);
        }
        self.burst(id, now);
        if failure.reason != Reason::Stall {
            self.look(id, Some(failure), now);
        }
        self.arm(id);
    }

    /// Looks at once, unless it was looked at just now.
    pub(super) fn burst(&mut self, id: EndpointId, now: Instant) {
        let Some(endpoint) = self.roster.get_mut(id) else { return };
        if endpoint.health.serves(true) {
            let rest = endpoint.pool.detect.fast_interval;
            endpoint.checks[0].timer.begin_burst(now, rest);
            self.arm(id);
        }
    }

    /// Puts one piece of evidence to the endpoint and draws the consequences.
    pub(super) fn weigh(
        &mut self,
        id: EndpointId,
        evidence: Evidence,
        source: Source,
        began: Instant,
        now: Instant,
    ) {
        let Some(endpoint) = self.roster.get(id) else { return };
        let detect = endpoint.pool.detect;
        let zone_is_down = {
            let Seat { pool, zone, .. } = endpoint.seat;
            self.pools[pool].zones[zone].is_down()
        };
        let is_held = zone_is_down || endpoint.is_held(now);
        // Where its zone has fallen already, its own first strike says enough.
        let falls_with_zone = zone_is_down
            && matches!(evidence, Evidence::Firm(failure) if failure.is_connection_level());
        let down_after = if falls_with_zone { 1 } else { detect.down_after };
        let mut thresholds =
            Thresholds { down_after, up_after: if is_held { u32::MAX } else { detect.up_after } };
        let withheld = match evidence {
            Evidence::Firm(failure) if would_fall(endpoint.health, down_after) => {
                self.withhold(id, failure, source, (began, now))
            }
            _ => None,
        };
        if withheld.is_some() {
            thresholds.down_after = u32::MAX;
        }
        let Some(endpoint) = self.roster.get_mut(id) else { return };
        let before = endpoint.verdict();
        let change = endpoint.health.apply(evidence, thresholds);
        match evidence {
            Evidence::Pass => {
                self.pools[endpoint.seat.pool].contradicted -= u32::from(endpoint.is_contradicted);
                endpoint.proven(began);
                endpoint.withheld = None;
            }
            Evidence::Soft(failure) => {
                endpoint.trouble_mut().last_strike = Some(now);
                endpoint.note(now, source, failure);
            }
            Evidence::Firm(failure) => {
                endpoint.trouble_mut().last_strike = Some(now);
                match change {
                    Change::WentDown => endpoint.blame(now, source, failure),
                    _ => endpoint.note(now, source, failure),
                }
                endpoint.withheld = withheld;
            }
        }
        let is_first = evidence == Evidence::Pass && std::mem::take(&mut endpoint.is_heir);
        if change == Change::Started || is_first {
            let phase = schedule::phase(&endpoint.pool.name, &endpoint.address.to_string());
            endpoint.checks.iter_mut().for_each(|c| c.timer.spread(now, phase, detect.interval));
        }
        self.settle_since(id, before, began, now);
        self.conclude(id, evidence, source, now);
    }

    /// What follows from a piece of evidence beyond the endpoint's own verdict.
    fn conclude(&mut self, id: EndpointId, evidence: Evidence, source: Source, now: Instant) {
        match evidence {
            Evidence::Pass => {
                self.uncorrelate(id);
                if let Some(pool) = self.roster.get(id).map(|endpoint| endpoint.seat.pool) {
                    self.settle_divergence(pool);
                }
                if let Some(endpoint) = self.roster.get_mut(id) {
                    // Only now: an incident that this pass ends has been given its counts.
                    endpoint.close_books();
                }
                let _ = self.may_return(id, now);
            }
            Evidence::Firm(failure) => {
                if self.roster.get(id).is_some_and(|endpoint| endpoint.health.is_down()) {
                    self.acquit(id, now);
                }
                if failure.is_connection_level()
                    && self.roster.get(id).is_some_and(Endpoint::was_up)
                {
                    self.correlate(id, failure, now);
                }
                // Silence is ambiguous and its next probe asks patiently; an answer is not.
                if source == Source::Probe && failure.class() != Class::Silent {
                    self.burst(id, now);
                }
            }
            Evidence::Soft(_) => {}
        }
        self.restand(id, now);
    }

    /// Why a verdict that is due must not be obeyed, if so.
    fn withhold(
        &mut self,
        id: EndpointId,
        failure: Failure,
        source: Source,
        (began, now): (Instant, Instant),
    ) -> Option<Withheld> {
        let epoch = self.epoch;
        let endpoint = self.roster.get_mut(id)?;
        // One that traffic has put down already takes nothing more from the budget.
        if endpoint.is_unknown() || endpoint.is_down() {
            return None;
        }
        let seat = endpoint.seat;
        // Requests must have been answered after the first probe of the row had failed.
        let since = match endpoint.health {
            Health::Suspect { .. } => endpoint.since,
            _ => began,
        };
        let answers = endpoint.last_answer(epoch).is_some_and(|answer| answer >= since);
        let is_definitive = source == Source::Probe
            && matches!(failure.class(), Class::BadStatus | Class::Tls)
            && endpoint.trust == Trust::Sound;
        if is_definitive && answers && !endpoint.is_contradicted {
            endpoint.is_contradicted = true;
            self.pools[seat.pool].contradicted += 1;
        }
        let contradicts = self.roster.get(id).is_some_and(|endpoint| endpoint.is_contradicted);
        let why = if is_definitive && contradicts && self.diverges(seat.pool, now) {
            Withheld::Divergence
        } else if !self.may_evict(seat, 1) {
            Withheld::Budget
        } else {
            return None;
        };
        let endpoint = self.roster.get(id)?;
        if endpoint.withheld != Some(why) {
            let subject = endpoint.subject();
            self.pools[seat.pool].withheld += 1;
            self.event(Event::Withheld { subject, failure, why });
        }
        Some(why)
    }

    /// Whether probes fail in so much of a pool, while its traffic succeeds, that they are not
    /// believed. When that begins, who was put down by them alone comes back.
    fn diverges(&mut self, pool: usize, now: Instant) -> bool {
        let state = &mut self.pools[pool];
        let many = state.counts.all.div_ceil(2).max(2);
        if state.contradicted < many {
            return state.diverges;
        }
        if !std::mem::replace(&mut state.diverges, true) {
            let (name, members) = (state.spec.name.clone(), state.members.clone());
            self.event(Event::Divergence(Divergence::ProbesFail { pool: name, on: true }));
            for &id in &*members {
                let Some(endpoint) = self.roster.get_mut(id) else { continue };
                if endpoint.is_contradicted && endpoint.is_down() {
                    let before = endpoint.verdict();
                    endpoint.health.release();
                    endpoint.withheld = Some(Withheld::Divergence);
                    endpoint.trouble_mut().held_until = None;
                    self.settle(id, before, now);
                }
            }
        }
        true
    }

    /// Ends a divergence when less than half as many contradict as began it: a single endpoint that
    /// says of itself that it is not well is believed again.
    pub(super) fn settle_divergence(&mut self, pool: usize) {
        let state = &mut self.pools[pool];
        let many = state.counts.all.div_ceil(2).max(2);
        if state.diverges && state.contradicted * 2 < many {
            state.diverges = false;
            let name = state.spec.name.clone();
            self.event(Event::Divergence(Divergence::ProbesFail { pool: name, on: false }));
        }
    }

    /// Whether the eviction budget has room for `more` endpoints of a zone.
    pub(super) fn may_evict(&self, seat: Seat, more: u32) -> bool {
        let pool = &self.pools[seat.pool];
        let zone = &pool.zones[seat.zone];
        let evict = &pool.spec.evict;
        pool.counts.down + more <= evict.endpoints.min(part(pool.counts.all, evict.percent))
            && zone.counts.down + more <= part(zone.counts.all, evict.zone_percent)
    }

    /// The same for all of a zone that is not down yet.
    pub(super) fn may_evict_zone(&self, pool: usize, zone: usize) -> bool {
        let counts = self.pools[pool].zones[zone].counts;
        let seat = Seat { pool, zone, position: 0, weight: 0 };
        self.may_evict(seat, counts.all - counts.down)
    }

    pub(super) fn settle(&mut self, id: EndpointId, before: Health, now: Instant) {
        self.settle_since(id, before, now, now);
    }

    /// Draws the consequences of a change of an endpoint's verdict; the evidence for it began at
    /// `began`.
    pub(super) fn settle_since(
        &mut self,
        id: EndpointId,
        before: Health,
        began: Instant,
        now: Instant,
    ) {
        let Some((change, after)) = self.take_effect(id, before, now) else { return };
        self.restand(id, now);
        if change != Change::None {
            if self.roster.get(id).is_some_and(|endpoint| endpoint.is_untold) {
                self.tell_falls();
            }
            self.tell(id, (change, after), began, now);
        }
        self.arm(id);
    }

    /// Tells the ledger and the operator how an endpoint's verdict has changed.
    pub(super) fn tell(
        &mut self,
        id: EndpointId,
        (change, health): (Change, Health),
        began: Instant,
        now: Instant,
    ) {
        let Some(endpoint) = self.roster.get(id) else { return };
        let subject = endpoint.subject();
        let last_good = endpoint.last_good(self.epoch).unwrap_or(began);
        self.record(&subject, health, change, (last_good, began, now));
        self.event(Event::Health { subject, change, health });
    }

    /// What a change of an endpoint's verdict, if it is one, does to the endpoint itself; gives the
    /// change and the verdict.
    pub(super) fn take_effect(
        &mut self,
        id: EndpointId,
        before: Health,
        now: Instant,
    ) -> Option<(Change, Health)> {
        let endpoint = self.roster.get_mut(id)?;
        let after = endpoint.verdict();
        let change = Change::between(before, after);
        endpoint.changed(change, now);
        let seat = endpoint.seat;
        match change {
            Change::WentDown => {
                if !matches!(endpoint.trust, Trust::Condemned(_)) && endpoint.was_up() {
                    let recover = endpoint.pool.recover;
                    let trouble = endpoint.trouble_mut();
                    trouble.held_until = Some(now + trouble.flaps.fell(&recover, now));
                }
                endpoint.ramp = Ramp::Full;
                (endpoint.is_late_comer, endpoint.is_awaited) = (false, false);
                endpoint.checks.iter_mut().for_each(|check| check.timer.end_burst());
            }
            Change::Restored => {
                endpoint.up_since = Some(now);
                endpoint.seen = endpoint.live.look();
                self.begin_ramp(id, now);
            }
            Change::Started => {
                endpoint.up_since = Some(now);
                if self.pools[seat.pool].counts.serving > 0 && self.is_late_comer(id) {
                    self.begin_ramp(id, now);
                }
            }
            _ => {}
        }
        let in_panic = self.pools[seat.pool].in_panic();
        if !matches!(change, Change::None | Change::Started) {
            self.roster.get_mut(id)?.repace(now, in_panic);
        }
        Some((change, after))
    }

    /// Whether the endpoint joined a pool that others had served before.
    fn is_late_comer(&self, id: EndpointId) -> bool {
        let Some(endpoint) = self.roster.get(id) else { return false };
        endpoint.is_late_comer
    }

    fn begin_ramp(&mut self, id: EndpointId, now: Instant) {
        let Some(endpoint) = self.roster.get_mut(id) else { return };
        let Seat { pool, zone, .. } = endpoint.seat;
        let state = &mut self.pools[pool];
        let zone_grows = state.zones[zone].ramp.is_growing() || state.zones[zone].is_down();
        if zone_grows || state.in_panic() || endpoint.pool.recover.ramp.is_zero() {
            return;
        }
        endpoint.ramp = Ramp::Since(now);
        // A small share of little traffic may be long in coming, and what comes first may be one that
        // cannot be sent again.
        let now_us = now.saturating_duration_since(self.epoch).as_micros() as u64;
        endpoint.live.want_trials(now_us, u32::MAX);
        endpoint.is_awaited = true;
        state.ramping.push(id);
        self.ramps(pool, now);
    }
}

fn would_fall(health: Health, down_after: u32) -> bool {
    match health {
        Health::Up => down_after <= 1,
        Health::Suspect { strikes, .. } => strikes + 1 >= down_after,
        Health::Unknown { .. } | Health::Down { .. } | Health::Returning { .. } => false,
    }
}

/// At least one, unless it is none: a budget that rounds to nothing would evict nobody.
pub(super) fn part(all: u32, percent: u32) -> u32 {
    let part = (u64::from(all) * u64::from(percent) / 100) as u32;
    if percent > 0 { part.max(1) } else { 0 }
}
