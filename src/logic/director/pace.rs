//! When whose probe starts: one queue for all, inside a budget.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use crate::logic::health::Health;
use crate::logic::id::EndpointId;
use crate::logic::outcome::Outcome;
use crate::logic::schedule::{ProbeRow, vouched_interval};

use super::roster::AT_ONCE;
use super::wheel::Wheel;
use super::{Director, Event, Output, Ticket};

/// Probes that may start at once after a rest: this share of a second's budget.
const BURST_SHARE: f64 = 0.05;

/// So many probes in a row without evidence, over at least [`BLIND_AFTER`]: this process cannot see.
const BLIND_PROBES: u32 = 3;

/// See [`BLIND_PROBES`].
const BLIND_AFTER: Duration = Duration::from_secs(1);

/// The queue of endpoints by when they are due, and the global budget of probes.
///
/// Entries are never searched for: one that was overtaken by a change of its endpoint's plans is
/// recognised when its time comes, and dropped.
#[derive(Debug)]
pub(super) struct Pace {
    queue: Wheel,
    /// Due, and waiting for the budget, first come first served: all periods stretch alike.
    waiting: VecDeque<EndpointId>,
    tokens: f64,
    filled: Instant,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        let (queue, waiting) = (Wheel::new(now), VecDeque::new());
        Self { queue, waiting, tokens: 0.0, filled: now }
    }

    pub(super) fn due(&self) -> Option<Instant> {
        let next_token = (!self.waiting.is_empty()).then(|| self.filled + Duration::from_millis(1));
        [self.queue.due(), next_token].into_iter().flatten().min()
    }

    /// Whether an endpoint is due and waits for the budget.
    pub(super) fn is_waiting(&self, id: EndpointId) -> bool {
        self.waiting.contains(&id)
    }

    fn fill(&mut self, per_second: u32, now: Instant) {
        let elapsed = now.saturating_duration_since(self.filled);
        self.filled = now;
        let rate = f64::from(per_second);
        self.tokens =
            (self.tokens + rate * elapsed.as_secs_f64()).min((rate * BURST_SHARE).max(1.0));
    }
}

/// Whether probes bring evidence at all.
#[derive(Debug, Default)]
pub(super) enum Sight {
    #[default]
    Clear,
    Fading {
        since: Instant,
        voids: u32,
    },
    Blind,
}

impl Director {
    /// Starts every probe that is due, within the budget.
    pub(super) fn start_probes(&mut self, now: Instant) {
        let budget = self.topology.probes_per_second;
        self.pace.fill(budget, now);
        while self.pace.tokens >= 1.0 {
            let Some(id) = self.pace.waiting.pop_front() else { break };
            self.start(id, now);
        }
        let mut some = SmallVec::<[_; AT_ONCE]>::new();
        loop {
            let queue = &mut self.pace.queue;
            some.extend(std::iter::from_fn(|| queue.pop(now)).take(AT_ONCE));
            if some.is_empty() {
                return;
            }
            self.roster.warm(some.iter().map(|&(_, id)| id));
            some.drain(..).for_each(|(due, id)| self.take_up(due, id, now));
        }
    }

    /// Its time has come.
    fn take_up(&mut self, due: Instant, id: EndpointId, now: Instant) {
        let Some(endpoint) = self.roster.get_mut(id) else { return };
        if endpoint.armed != Some(due) {
            return;
        }
        // What has no time to lose does not wait for the budget.
        let is_urgent =
            matches!(endpoint.health, Health::Suspect { .. } | Health::Returning { .. })
                || endpoint.checks.iter().any(|check| check.timer.is_burst_due(now));
        if is_urgent || self.pace.tokens >= 1.0 {
            self.start(id, now);
        } else {
            self.pace.waiting.push_back(id);
        }
    }

    /// Starts what is due of one endpoint.
    fn start(&mut self, id: EndpointId, now: Instant) {
        let epoch = self.epoch;
        let Some(endpoint) = self.roster.get_mut(id) else { return };
        endpoint.armed = None;
        let pool = &mut self.pools[endpoint.seat.pool];
        let in_panic = pool.in_panic();
        let detect = endpoint.pool.detect;
        let mut period = endpoint.period(in_panic);
        let steady = period == detect.interval && endpoint.health == Health::Up;
        let is_vouched =
            || endpoint.last_answer(epoch).is_some_and(|answer| answer + detect.interval >= now);
        if steady && detect.target.is_some() && is_vouched() {
            period = vouched_interval(&detect);
        }
        for (index, check) in endpoint.checks.iter_mut().enumerate() {
            let last = check.timer.last_start();
            let random = self.rng.f64();
            let Some((row, timeout)) = check.timer.start(now, period, detect.timeout, random)
            else {
                continue;
            };
            if steady && row == ProbeRow::Regular && endpoint.up_since.is_some_and(|up| up <= last)
            {
                pool.achieved.record(now.saturating_duration_since(last));
            }
            self.pace.tokens -= 1.0;
            self.outputs.push_back(Output::Probe {
                endpoint: id,
                ticket: Ticket { probe: index as u8, row, started: now },
                address: endpoint.address,
                pool: std::sync::Arc::clone(&endpoint.pool),
                timeout,
            });
        }
        self.arm(id);
    }

    /// Puts an endpoint into the queue, if its plans have changed.
    pub(super) fn arm(&mut self, id: EndpointId) {
        let Some(endpoint) = self.roster.get_mut(id) else { return };
        let due = endpoint.due();
        if due != endpoint.armed {
            if let Some(due) = due {
                self.pace.queue.add(due, id);
            }
            endpoint.armed = due;
        }
    }

    /// How many times longer than configured periods are, because of the budget; at least 1.
    #[must_use]
    pub fn stretch(&self) -> f64 {
        (self.nominal_per_second / f64::from(self.topology.probes_per_second.max(1))).max(1.0)
    }

    /// Whether probes end without evidence for want of this process's own resources.
    #[must_use]
    pub fn is_blind(&self) -> bool {
        matches!(self.sight, Sight::Blind)
    }

    /// Notices when probes bring no evidence any more.
    pub(super) fn observe(&mut self, outcome: Outcome, now: Instant) {
        match (outcome, &mut self.sight) {
            (Outcome::Void, Sight::Clear) => self.sight = Sight::Fading { since: now, voids: 1 },
            (Outcome::Void, Sight::Fading { since, voids }) => {
                *voids += 1;
                if *voids >= BLIND_PROBES && now.saturating_duration_since(*since) >= BLIND_AFTER {
                    self.sight = Sight::Blind;
                    self.event(Event::Blind { on: true });
                }
            }
            (Outcome::Void, Sight::Blind) | (_, Sight::Clear) => {}
            (_, Sight::Fading { .. }) => self.sight = Sight::Clear,
            (_, Sight::Blind) => {
                self.sight = Sight::Clear;
                self.event(Event::Blind { on: false });
            }
        }
    }
}
