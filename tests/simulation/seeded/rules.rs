//! What must hold of everything that the director publishes and tells.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use gapless::logic::director::{Divergence, Event};
use gapless::logic::health::{Change, Health};
use gapless::logic::id::EndpointId;
use gapless::logic::outcome::{Class, Outcome};
use gapless::logic::snapshot::PoolView;
use gapless::sim::world::{Mark, What, World};

/// What a watcher from outside knows of one endpoint.
#[derive(Default)]
struct Known {
    /// Passes since the endpoint was new or went down.
    passes: u32,
    /// How many of them it needs to serve again: the least `up_after` since it went down.
    needed: Option<u32>,
    was_up: bool,
    /// It went down, and is not any more.
    is_back: bool,
    /// What requests put down, requests bring back: it serves under suspicion, without a pass.
    is_readmitted: bool,
    /// What spoke against it since it was new or went down.
    strikes: u32,
}

/// The rules, and what they must remember.
pub(crate) struct Rules {
    known: HashMap<EndpointId, Known>,
    version: u64,
    last_publish: Option<(u64, u64)>,
    /// Endpoints that went down after they had been up, with the time of it.
    pub(crate) verdicts: Vec<(EndpointId, Instant)>,
    went_down_this_turn: (u64, HashSet<EndpointId>),
    /// The last turn in which a panic ended.
    panic_ended: Option<u64>,
    /// The last turn in which a zone fell.
    zone_fell: Option<u64>,
    /// Who passed a probe in that turn.
    passed: (u64, HashSet<EndpointId>),
    /// Who serves without a pass since that turn; the end of the turn must say why.
    unproven: Vec<(u64, EndpointId)>,
    /// The last turn in which probes were found to fail while requests succeed.
    diverged: Option<u64>,
    /// Pools as they were published last.
    pools: Vec<Arc<PoolView>>,
}

impl Rules {
    /// Begins to watch. What has happened so far is checked too.
    pub(crate) fn new(world: &mut World) -> Self {
        let mut rules = Self {
            known: HashMap::new(),
            version: 0,
            last_publish: None,
            verdicts: Vec::new(),
            went_down_this_turn: (0, HashSet::new()),
            panic_ended: None,
            zone_fell: None,
            passed: (0, HashSet::new()),
            unproven: Vec::new(),
            diverged: None,
            pools: Vec::new(),
        };
        rules.watch(world);
        rules
    }

    /// Checks all that happened since the last call.
    pub(crate) fn watch(&mut self, world: &mut World) {
        for mark in world.take_log() {
            self.see(&mark);
        }
        world.snapshot().pools.iter().for_each(|pool| self.never_empty(pool));
    }

    fn see(&mut self, mark: &Mark) {
        let late = self.unproven.iter().find(|(turn, _)| *turn < mark.turn);
        assert!(late.is_none(), "{late:?} serves without a pass since it was new or went down");
        match &mark.what {
            What::Probed { endpoint, outcome, .. } => {
                let known = self.known.entry(*endpoint).or_default();
                if outcome.latency().is_some() {
                    known.passes += 1;
                    if self.passed.0 != mark.turn {
                        self.passed = (mark.turn, HashSet::new());
                    }
                    self.passed.1.insert(*endpoint);
                }
                known.strikes += u32::from(matches!(outcome, Outcome::Fail(_)));
            }
            What::Met { endpoint, .. } => self.known.entry(*endpoint).or_default().strikes += 1,
            What::Event(Event::Health { subject, change, health }) => {
                self.changed(subject.endpoint, *change, *health, mark);
            }
            What::Event(Event::Panic { on: false, .. }) => self.panic_ended = Some(mark.turn),
            What::Event(Event::Zone { verdict: Some(_), .. }) => self.zone_fell = Some(mark.turn),
            What::Event(Event::Divergence(Divergence::ProbesFail { on: true, .. })) => {
                self.diverged = Some(mark.turn);
            }
            What::Event(_) => {}
            What::Published(snapshot) => {
                assert!(snapshot.version > self.version, "versions increase");
                self.version = snapshot.version;
                let last = self.last_publish.replace((mark.turn, snapshot.version));
                let turn = last.map(|(turn, _)| turn);
                assert_ne!(turn, Some(mark.turn), "one turn, one snapshot");
                for pool in &snapshot.pools {
                    self.published(pool, mark.turn);
                }
                self.pools.clone_from(&snapshot.pools);
            }
            What::Cut { endpoint, failure } if failure.class() == Class::Silent => {
                self.silent_left(*endpoint, mark.turn);
            }
            What::Cut { endpoint, .. } => {
                let (turn, down) = &self.went_down_this_turn;
                let fell = *turn == mark.turn && down.contains(endpoint);
                let is_down = self.known.get(endpoint).is_some_and(|known| known.needed.is_some());
                let may_leave = is_down && self.panic_ended == Some(mark.turn);
                let with_zone = self.zone_fell == Some(mark.turn);
                assert!(fell || may_leave || with_zone, "a cut follows a verdict or a panic's end");
                let published = self.last_publish.map(|(turn, _)| turn);
                assert_eq!(published, Some(mark.turn), "a cut comes after the snapshot");
            }
        }
    }

    /// A silent endpoint is left when another one of its pool has answered, and is in no snapshot then.
    fn silent_left(&self, endpoint: EndpointId, turn: u64) {
        let pool = self.pools.iter().find(|pool| pool.members.contains(&endpoint));
        let pool = pool.expect("an endpoint of a pool");
        let (when, passed) = &self.passed;
        let is_alive = |id: &EndpointId| *id != endpoint && passed.contains(id);
        assert_eq!(*when, turn, "a silent endpoint is left when there is an answer");
        assert!(pool.members.iter().any(is_alive), "one of another endpoint");
        assert!(!pool.panic, "nobody is left in a panic");
    }

    fn changed(&mut self, endpoint: EndpointId, change: Change, health: Health, mark: &Mark) {
        let known = self.known.entry(endpoint).or_default();
        match change {
            Change::WentDown => {
                let with_zone = self.zone_fell == Some(mark.turn);
                let has_evidence = known.strikes > 0 || with_zone;
                assert!(has_evidence, "{endpoint} went down, and nothing spoke against it");
                (known.passes, known.strikes) = (0, 0);
                known.needed = Some(u32::MAX);
                known.is_readmitted = false;
                known.is_back = false;
                if known.was_up {
                    self.verdicts.push((endpoint, mark.at));
                }
                if self.went_down_this_turn.0 != mark.turn {
                    self.went_down_this_turn = (mark.turn, HashSet::new());
                }
                self.went_down_this_turn.1.insert(endpoint);
                self.within_budget(endpoint);
            }
            Change::Started => known.was_up = true,
            Change::Restored => {
                known.was_up = true;
                known.is_back = true;
                let proven = known.needed.is_none_or(|needed| known.passes >= needed);
                let doubted = matches!(health, Health::Suspect { .. });
                // Where probes alone fail, it is requests that vouch for an endpoint.
                let readmitted = doubted || self.diverged == Some(mark.turn);
                assert!(proven || readmitted, "{endpoint} is back without proof, and not doubted");
                known.is_readmitted = readmitted;
                self.unproven.retain(|(_, id)| *id != endpoint || !readmitted);
            }
            _ => {}
        }
    }

    /// A verdict on an endpoint that had served leaves no more down than the budget allows.
    fn within_budget(&self, fell: EndpointId) {
        if !self.known[&fell].was_up {
            return;
        }
        let Some(pool) = self.pools.iter().find(|pool| pool.members.contains(&fell)) else {
            return;
        };
        let is_down = |id: &&EndpointId| {
            self.known.get(id).is_some_and(|known| known.needed.is_some() && !known.is_back)
        };
        let down = pool.members.iter().filter(is_down).count();
        let evict = &pool.spec.evict;
        let share = pool.members.len() * evict.percent as usize / 100;
        let allowed = share.max(1).min(evict.endpoints as usize);
        assert!(down <= allowed, "{fell} is one of {down} that are down, {allowed} may be");
    }

    fn published(&mut self, pool: &PoolView, turn: u64) {
        for id in &*pool.members {
            let known = self.known.entry(*id).or_default();
            known.needed = known.needed.map(|needed| needed.min(pool.spec.detect.up_after));
        }
        let targets: Vec<EndpointId> = pool.targets().map(|target| target.id).collect();
        let distinct: HashSet<_> = targets.iter().collect();
        assert_eq!(distinct.len(), targets.len(), "nobody is in two tiers");
        assert!(targets.iter().all(|id| pool.members.contains(id)));
        if pool.panic {
            assert_eq!(targets.len(), pool.members.len(), "panic is everywhere");
        } else {
            for id in &targets {
                let known = &self.known[id];
                let proven = known.passes >= known.needed.unwrap_or(1) || known.is_readmitted;
                if !proven {
                    self.unproven.push((turn, *id));
                }
            }
        }
        let shares: u64 = pool.led.tiers.iter().map(|tier| tier.share).sum();
        assert!(targets.is_empty() || shares > 0);
    }

    /// Where anything was ever decided, requests have somewhere to go.
    fn never_empty(&self, pool: &PoolView) {
        let knows = |id: &EndpointId| self.known.get(id);
        let decided = |id: &EndpointId| knows(id).is_some_and(|k| k.was_up || k.needed.is_some());
        let any_decided = pool.members.iter().any(decided);
        let is_empty = pool.targets().next().is_none();
        assert!(!is_empty || !any_decided, "the pool {} is empty", pool.spec.name);
    }

    /// Checks that every verdict has its incident, and that its times are in order.
    pub(crate) fn check_incidents(&mut self, world: &mut World) {
        self.watch(world);
        let incidents = world.director().incidents();
        for (endpoint, at) in &self.verdicts {
            let of_it = incidents.iter().find(|incident| {
                incident.subject.endpoint == *endpoint && incident.timeline.verdict == Some(*at)
            });
            let incident = of_it.unwrap_or_else(|| panic!("no incident for {endpoint}"));
            let t = incident.timeline;
            assert!(t.onset() <= t.suspect, "{t:?}");
            assert!(t.suspect <= *at, "{t:?}");
            match t.shift {
                Some(shift) => assert!(*at <= shift, "{t:?}"),
                None => assert_eq!(t.restored, Some(*at), "only what is taken back at once: {t:?}"),
            }
            assert!(t.restored.is_none_or(|restored| restored >= *at), "{t:?}");
        }
        assert_eq!(incidents.len(), self.verdicts.len(), "no incident without a verdict");
    }
}
