//! A drill's lane: a director that was given all that the real one knows, and hears only what the
//! lane's requests and probes meet.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::app::control::Control;
use crate::app::shared::Command;
use crate::logic::director::{Director, Event, Input, Output, Ticket};
use crate::logic::drill::{Counts, Fault, Lane, Mark, Plan, Tallies};
use crate::logic::health::Change;
use crate::logic::id::EndpointId;
use crate::logic::live::Live;
use crate::logic::operator::Order;
use crate::logic::outcome::{Failure, Layer, Outcome, Reason};
use crate::logic::probe::ProbeSpec;
use crate::logic::retry::Waiting;
use crate::logic::snapshot::Snapshot;
use crate::logic::topology::{PoolSpec, Topology, ZoneSpec};
use crate::net::prober::Kept;
use crate::sim::world::{Behavior, Finding, Meeting};

/// What a round trip of a probe is taken for that never leaves this process.
const ROUND_TRIP: Duration = Duration::from_millis(1);

/// Outputs of one turn, at most.
const TURN_OUTPUTS: usize = 4096;

/// A probe of the lane that has ended.
#[derive(Clone, Copy, Debug)]
pub(in crate::app::control) struct LaneProbed {
    drill: u64,
    endpoint: EndpointId,
    ticket: Ticket,
    outcome: Outcome,
}

/// A lane that is open.
pub(in crate::app::control) struct OpenLane {
    pub(super) id: u64,
    pub(super) director: Director,
    pub(super) tallies: Arc<Tallies>,
    /// The zone seems to fail now.
    pub(super) is_failing: bool,
    plan: Arc<Plan>,
    /// Where in the configuration the lane's pools are.
    pools: Vec<usize>,
    /// What the lane's director published last.
    snapshot: Option<Arc<Snapshot>>,
    kept: HashMap<(EndpointId, u8), Rc<Kept>>,
    /// Counters of what seems to fail.
    lives: Vec<Arc<Live>>,
    /// What seems to fail and has no verdict yet.
    left: HashSet<(Arc<str>, SocketAddr)>,
}

impl OpenLane {
    /// What workers see of it beside `all`.
    pub(super) fn view(&self, all: &Snapshot) -> Option<Arc<Lane>> {
        let own = self.snapshot.as_ref()?;
        let mut snapshot = Snapshot { drill: None, ..all.clone() };
        let mut is_in = vec![false; snapshot.pools.len()];
        for (&place, pool) in self.pools.iter().zip(&own.pools) {
            *snapshot.pools.get_mut(place)? = Arc::clone(pool);
            is_in[place] = true;
        }
        Some(Arc::new(Lane {
            id: self.id,
            plan: Arc::clone(&self.plan),
            is_failing: self.is_failing,
            pools: is_in,
            tallies: Arc::clone(&self.tallies),
            snapshot: Arc::new(snapshot),
        }))
    }

    /// Its requests so far.
    pub(super) fn counts(&self) -> Counts {
        let tallies = self.lives.iter().map(|live| live.tally());
        let (rescued, late) =
            tallies.fold((0, 0), |(r, l), tally| (r + tally.rescued, l + tally.late));
        Counts { rescued, late, ..self.tallies.counts() }
    }

    /// Takes note of whose counters are to be read, which only a snapshot tells.
    fn find_lives(&mut self) {
        let Some(own) = &self.snapshot else { return };
        let hit = own.pools.iter().flat_map(|pool| {
            let zones = &pool.spec.zones;
            pool.targets().filter(|target| {
                let zone = zones.get(target.zone);
                zone.is_some_and(|zone| self.plan.hits(&zone.place, target.address))
            })
        });
        let mut lives: Vec<Arc<Live>> = hit.map(|target| Arc::clone(&target.live)).collect();
        lives.retain(|live| !self.lives.iter().any(|known| Arc::ptr_eq(known, live)));
        self.lives.extend(lives);
    }

    /// What an event of the lane's director means for the drill; `Err` if it is of something real.
    fn hears(&mut self, event: &Event) -> Result<Option<Mark>, String> {
        match event {
            Event::Health { subject, change: Change::Suspected, .. }
                if self.plan.hits(&subject.place, subject.address) =>
            {
                Ok(Some(Mark::Suspect))
            }
            Event::Health { subject, change: Change::WentDown, .. }
                if self.plan.hits(&subject.place, subject.address) =>
            {
                self.left.remove(&(Arc::clone(&subject.pool), subject.address));
                Ok(self.left.is_empty().then_some(Mark::Verdict))
            }
            Event::Zone { pool, place, verdict: Some(_) } if *place == self.plan.lose => {
                self.left.retain(|(of, _)| of != pool);
                Ok(self.left.is_empty().then_some(Mark::Verdict))
            }
            Event::IncidentBegan(incident)
                if self.is_failing
                    && self.plan.hits(&incident.subject.place, incident.subject.address) =>
            {
                Ok(None)
            }
            other => super::real(other).map_or(Ok(None), Err),
        }
    }
}

impl Control {
    pub(super) fn open_lane(&mut self, now: Instant) {
        let (id, plan) = {
            let drills = self.board.drills.borrow();
            let Some(run) = drills.running() else { return };
            (run.id, Arc::clone(&run.plan))
        };
        let concerned = self.concerned(&plan);
        let epoch = self.board.shared.epoch;
        let mut director = Director::new(epoch, self.board.shared.micros(now) ^ id);
        let running = &self.running.topology;
        let topology = Topology {
            here: running.here.clone(),
            pools: concerned.iter().map(|(_, pool)| Arc::clone(pool)).collect(),
            probes_per_second: running.probes_per_second,
        };
        let real = self.board.director.borrow();
        let meant = |pool: &Arc<str>| concerned.iter().any(|(_, one)| one.name == *pool);
        let bears = |order: &&Order| order.pool.as_ref().is_none_or(meant);
        let orders = real.orders().iter().filter(bears).cloned().collect();
        director.handle(Input::Orders(orders), now);
        director.handle(Input::Configure { topology, routes: Arc::default() }, now);
        director.handle(Input::Inherit(real.legacy()), now);
        let left = real.endpoints().into_iter().filter(|one| {
            let subject = &one.subject;
            one.in_service && meant(&subject.pool) && plan.hits(&subject.place, subject.address)
        });
        let left = left.map(|one| (Arc::clone(&one.subject.pool), one.subject.address)).collect();
        drop(real);
        let pools = concerned.iter().map(|(place, _)| *place).collect();
        self.drill.lane = Some(OpenLane {
            id,
            director,
            tallies: Arc::default(),
            is_failing: false,
            plan,
            pools,
            snapshot: None,
            kept: HashMap::new(),
            lives: Vec::new(),
            left,
        });
        self.foretell(&concerned);
        self.lane_turn();
    }

    /// Does what the lane's director says.
    pub(super) fn lane_turn(&mut self) {
        let now = Instant::now();
        let Some(mut lane) = self.drill.lane.take() else { return };
        lane.director.handle_timeout(now);
        let (mut has_published, mut marks, mut why) = (false, Vec::new(), None);
        for _ in 0..TURN_OUTPUTS {
            let Some(output) = lane.director.poll_output() else { break };
            match output {
                Output::Probe { endpoint, ticket, address, pool, timeout } => {
                    self.probe_in_lane(&mut lane, (endpoint, ticket), (address, pool), timeout);
                }
                Output::Publish(snapshot) => {
                    lane.snapshot = Some(snapshot);
                    lane.find_lives();
                    has_published = true;
                    self.drill.lane = Some(lane);
                    self.publish(Arc::clone(&self.drill.published));
                    let Some(back) = self.drill.lane.take() else { return };
                    lane = back;
                    lane.director.handle(Input::Published, Instant::now());
                }
                Output::Cut { endpoint, failure } => {
                    let (drill, waiting) = (lane.id, Waiting::after(failure));
                    self.doors.tell(|| Command::CutLane { drill, endpoint, waiting });
                }
                // What is drained was so before; another order ends the drill.
                Output::Drained { .. } => {}
                Output::Event(event) => match lane.hears(&event) {
                    Ok(mark) => marks.extend(mark),
                    Err(real) => {
                        self.look_at(&event);
                        why = why.or(Some(real));
                    }
                },
            }
        }
        self.drill.lane = Some(lane);
        let mut drills = self.board.drills.borrow_mut();
        let Some(run) = drills.running_mut() else { return };
        let now = Instant::now();
        marks.into_iter().for_each(|mark| run.mark(mark, now));
        if has_published {
            run.mark(Mark::Published, now);
        }
        if let Some(why) = why {
            run.interrupt(why, now);
        }
    }

    /// The lane found something real before anybody else did: the real director is to look at once.
    fn look_at(&self, event: &Event) {
        let Event::IncidentBegan(incident) = event else { return };
        let mut director = self.board.director.borrow_mut();
        let real = director.endpoints().into_iter().find(|one| {
            let subject = &one.subject;
            subject.pool == incident.subject.pool && subject.address == incident.subject.address
        });
        if let Some(real) = real {
            let endpoint = real.subject.endpoint;
            director.handle(Input::IdleClosed { endpoint }, Instant::now());
        }
    }

    /// A probe for the lane's director: what seems to fail is not asked, the rest is.
    fn probe_in_lane(
        &self,
        lane: &mut OpenLane,
        (endpoint, ticket): (EndpointId, Ticket),
        (address, pool): (SocketAddr, Arc<PoolSpec>),
        timeout: Duration,
    ) {
        let stands_there = |zone: &ZoneSpec| zone.endpoints.iter().any(|e| e.address == address);
        let zone = pool.zones.iter().find(|zone| stands_there(zone));
        let is_hit = zone.is_some_and(|zone| lane.plan.hits(&zone.place, address));
        let fault = (is_hit && lane.is_failing).then_some(lane.plan.fault);
        let kept = Rc::clone(lane.kept.entry((endpoint, ticket.probe)).or_default());
        let (prober, done, drill) = (Rc::clone(&self.prober), self.drill.probes.0.clone(), lane.id);
        tokio::task::spawn_local(async move {
            let probe = &pool.probes[usize::from(ticket.probe)];
            let (wait, staged) = fault.map_or((Duration::ZERO, None), |f| meets(f, probe, timeout));
            if !wait.is_zero() {
                tokio::time::sleep(wait).await;
            }
            let outcome = match staged {
                Some(failure) => Outcome::Fail(failure),
                None => prober.probe(address, probe, timeout, &kept).await,
            };
            let _ = done.send(LaneProbed { drill, endpoint, ticket, outcome });
        });
    }

    pub(super) fn lane_probed(&mut self, probed: LaneProbed) {
        let LaneProbed { drill, endpoint, ticket, outcome } = probed;
        self.lane_reported(drill, Input::Probed { endpoint, ticket, outcome });
    }
}

/// What a probe of an endpoint that seems to fail meets, by the same table as in the simulated world:
/// how long it waits, and what it ends with, unless it then finds all well.
fn meets(fault: Fault, probe: &ProbeSpec, timeout: Duration) -> (Duration, Option<Failure>) {
    let late = |layer| (timeout, Some(Failure { layer, reason: Reason::Timeout }));
    match behavior(fault).meets_probe(probe, Duration::ZERO) {
        Meeting::Silence(layer) => late(layer),
        Meeting::Answer { service, .. } if service >= timeout => late(Layer::Http),
        Meeting::Answer { round_trips, service, finding: Finding::Fail(failure) } => {
            (ROUND_TRIP * round_trips + service, Some(failure))
        }
        Meeting::Answer { service, .. } => (service, None),
    }
}

fn behavior(fault: Fault) -> Behavior {
    match fault {
        Fault::Refused => Behavior::Refused,
        Fault::Reset => Behavior::Reset,
        Fault::Hang => Behavior::Hang,
        Fault::Slow { delay } => Behavior::Slow { latency: delay },
        Fault::Status { status } => Behavior::BadStatus { status },
        Fault::Errors { percent } => {
            Behavior::Errors { share: f64::from(percent) / 100.0, status: 500 }
        }
        Fault::Cut => Behavior::Cut,
    }
}
