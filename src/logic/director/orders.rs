//! Obeying operators: who is drained, from when, and what is left of a share that is going.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use crate::logic::id::{EndpointId, Place};
use crate::logic::operator::{Act, By, Draft, Filed, Of, Order, Orders, falling};
use crate::logic::recovery::{FULL, Ramp, ramp_step};

use super::endpoint::{Endpoint, Seat};
use super::pools::PoolState;
use super::{Director, Event, Output, What};

/// What orders mean for one endpoint.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Bidden {
    drains: SmallVec<[Drain; 1]>,
    weight: Option<u32>,
    stage: Stage,
}

/// An order to drain it.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Drain {
    since: Instant,
    over: Duration,
    deadline: Duration,
    /// It is about the endpoint alone, and not about its zone.
    is_alone: bool,
}

/// How far a drain has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// Its share is going, if anything is.
    #[default]
    Going,
    /// It gets nothing new.
    Empty,
    /// And what lasted there has been ended.
    Over,
}

impl Bidden {
    fn of(orders: &Orders, of: Of<'_>, stage: Stage) -> Self {
        let drain = |order: &Order| match order.act {
            Act::Drain { over, deadline } => Some(Drain {
                since: order.since,
                over,
                deadline,
                is_alone: matches!(order.what, What::Endpoint(_)),
            }),
            Act::Weight(_) | Act::Serve => None,
        };
        let drains = orders.drains(of).filter_map(drain).collect();
        let weight = orders.weight(&of).map(|(_, weight)| weight);
        Self { drains, weight, stage }
    }

    fn says_nothing(&self) -> bool {
        self.drains.is_empty() && self.weight.is_none()
    }

    /// What is left of its share, in thousandths.
    fn share(&self, now: Instant) -> u32 {
        let left = self.drains.iter().map(|drain| falling(drain.since, drain.over, now));
        left.min().unwrap_or(FULL)
    }

    /// What is left of its capacity: what is drained with its zone is missed there.
    fn capacity(&self, now: Instant) -> u32 {
        let alone = self.drains.iter().filter(|drain| drain.is_alone);
        alone.map(|drain| falling(drain.since, drain.over, now)).min().unwrap_or(FULL)
    }

    /// When what lasts is ended.
    fn deadline(&self) -> Option<Instant> {
        let end = |drain: &Drain| drain.since + drain.over + drain.deadline;
        self.drains.iter().map(end).min()
    }

    /// When its share is to be computed again, or something of it is over.
    fn due(&self, now: Instant) -> Option<Instant> {
        match self.stage {
            Stage::Over => None,
            Stage::Empty => self.deadline(),
            Stage::Going => {
                let next = |drain: &Drain| {
                    let end = drain.since + drain.over;
                    end.min(now + ramp_step(drain.over)).max(now)
                };
                self.drains.iter().map(next).min()
            }
        }
    }
}

impl Endpoint {
    /// What orders leave of its share, and of its capacity, in thousandths.
    pub(super) fn bidden_share(&self, now: Instant) -> (u32, u32) {
        self.bidden().map_or((FULL, FULL), |bidden| (bidden.share(now), bidden.capacity(now)))
    }

    /// It gets nothing, because somebody has said so: whatever becomes of it is no failure.
    pub(super) fn is_drained(&self) -> bool {
        self.bidden().is_some_and(|bidden| bidden.stage != Stage::Going)
    }

    fn is_draining(&self) -> bool {
        self.bidden().is_some_and(|bidden| !bidden.drains.is_empty())
    }
}

/// What has become of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It was given.
    Given,
    /// It was taken back.
    Lifted,
    /// Its time was up.
    Expired,
}

impl Fate {
    /// The word used in output.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Given => "given",
            Self::Lifted => "lifted",
            Self::Expired => "expired",
        }
    }
}

/// What an operator wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// What it is about.
    pub what: What,
    /// In this pool only.
    pub pool: Option<Arc<str>>,
    /// What is to be done.
    pub verb: Verb,
    /// Until when.
    pub until: Option<Instant>,
    /// Why.
    pub note: Option<Arc<str>>,
    /// Whatever is left afterwards.
    pub is_forced: bool,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Order this.
    Give(Act),
    /// Take back what was said of it, and make an exception of it where more than that is drained.
    Restore,
}

/// Why a wish is not granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denied {
    /// There is no such thing.
    Unknown(String),
    /// It makes no sense.
    Senseless(String),
    /// Too little would be left: one reason for each pool.
    NoRoom(Vec<String>),
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(why) | Self::Senseless(why) => f.write_str(why),
            Self::NoRoom(reasons) => f.write_str(&reasons.join("\n")),
        }
    }
}

/// What came of a wish.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Granted {
    /// The order that was given, if one was.
    pub order: Option<Order>,
    /// Orders that were taken back.
    pub lifted: Vec<Order>,
    /// After a restoration: orders by which something of it is drained all the same.
    pub still: Vec<Order>,
}

/// One endpoint that may be ordered about.
struct Known {
    pool: Arc<str>,
    place: Place,
    address: SocketAddr,
}

impl Known {
    fn of(&self) -> Of<'_> {
        Of { pool: &self.pool, place: &self.place, address: self.address }
    }
}

impl Director {
    /// The orders that are in force.
    #[must_use]
    pub fn orders(&self) -> &Orders {
        &self.orders
    }

    /// Does what an operator wants, unless too little would be left.
    ///
    /// # Errors
    /// Why not; then nothing has changed.
    pub fn operate(&mut self, wish: Wish, now: Instant) -> Result<Granted, Denied> {
        self.now = now;
        let about = self.about(&wish.what, wish.pool.as_deref())?;
        let granted = match wish.verb {
            Verb::Give(act) => {
                if self.orders.is_full() {
                    let why = "there are too many orders already: restore something first";
                    return Err(Denied::Senseless(why.to_owned()));
                }
                if matches!(act, Act::Drain { .. }) && !wish.is_forced {
                    let short = self.shortages(&wish.what, wish.pool.as_deref());
                    if !short.is_empty() {
                        return Err(Denied::NoRoom(short));
                    }
                }
                let Wish { what, pool, until, note, .. } = wish;
                let order = self.orders.give(Draft { what, pool, act, until, note }, now).clone();
                Granted { order: Some(order), ..Granted::default() }
            }
            Verb::Restore => self.restore(wish, &about, now),
        };
        for order in granted.lifted.iter().cloned() {
            self.event(Event::Order { order, fate: Fate::Lifted });
        }
        if let Some(order) = granted.order.clone() {
            self.event(Event::Order { order, fate: Fate::Given });
        }
        self.obey_orders(now);
        Ok(granted)
    }

    fn restore(&mut self, wish: Wish, about: &[Known], now: Instant) -> Granted {
        let Wish { what, pool, until, note, .. } = wish;
        let lifted = self.orders.lift_all(&what, pool.as_deref());
        let is_drained = |orders: &Orders| {
            let drains = about.iter().flat_map(|one| orders.drains(one.of()));
            let mut still: Vec<Order> = drains.cloned().collect();
            still.sort_by_key(|order| order.id);
            still.dedup_by_key(|order| order.id);
            still
        };
        let before = is_drained(&self.orders);
        let draft = Draft { what, pool, act: Act::Serve, until, note };
        let mut trial = self.orders.clone();
        let order = trial.give(draft, now).clone();
        let still = is_drained(&trial);
        if still == before {
            return Granted { order: None, lifted, still };
        }
        self.orders = trial;
        Granted { order: Some(order), lifted, still }
    }

    /// Takes an order back by its number.
    ///
    /// # Errors
    /// If there is none, or it is the file's.
    pub fn lift(&mut self, id: u64, now: Instant) -> Result<Order, Denied> {
        self.now = now;
        match self.orders.find(id) {
            None => Err(Denied::Unknown(format!("there is no order {id}"))),
            Some(order) if order.by == By::File => Err(Denied::Senseless(format!(
                "order {id} is the file's: `restore {}` makes an exception of it",
                order.what
            ))),
            Some(order) => {
                let order = order.clone();
                self.orders.lift(id);
                self.event(Event::Order { order: order.clone(), fate: Fate::Lifted });
                self.obey_orders(now);
                Ok(order)
            }
        }
    }

    /// The endpoints that something is said of.
    fn about(&self, what: &What, pool: Option<&str>) -> Result<Vec<Known>, Denied> {
        let is_in = |state: &&PoolState| pool.is_none_or(|name| *state.spec.name == *name);
        let (mut found, mut any_pool) = (Vec::new(), false);
        for state in self.pools.iter().filter(is_in) {
            any_pool = true;
            for zone in &state.spec.zones {
                for endpoint in &zone.endpoints {
                    let is_meant = match what {
                        What::Endpoint(address) => *address == endpoint.address,
                        What::Zone(place) => *place == zone.place,
                        What::Region(region) => *region == zone.place.region,
                    };
                    if is_meant {
                        let (pool, place) = (Arc::clone(&state.spec.name), zone.place.clone());
                        found.push(Known { pool, place, address: endpoint.address });
                    }
                }
            }
        }
        match pool {
            Some(name) if !any_pool => Err(Denied::Unknown(format!("there is no pool `{name}`"))),
            _ if found.is_empty() => Err(Denied::Unknown(self.unknown(what, pool))),
            _ => Ok(found),
        }
    }

    fn unknown(&self, what: &What, pool: Option<&str>) -> String {
        let is_like = |one: &What| std::mem::discriminant(one) == std::mem::discriminant(what);
        let like: Vec<String> =
            self.names().iter().filter(|one| is_like(one)).take(20).map(What::to_string).collect();
        let kind = match what {
            What::Endpoint(_) => "endpoint",
            What::Zone(_) => "zone",
            What::Region(_) => "region",
        };
        let place =
            pool.map_or_else(|| "no pool has".to_owned(), |pool| format!("pool {pool} has no"));
        let a = if pool.is_some() { "" } else { "the " };
        format!("{place} {a}{kind} `{what}`; there is {}", like.join(", "))
    }

    /// Takes in what the configuration orders.
    pub(super) fn file_orders(&mut self, now: Instant) {
        let filed: Vec<Filed> = self
            .pools
            .iter()
            .flat_map(|pool| {
                let name = &pool.spec.name;
                pool.spec
                    .drained
                    .iter()
                    .map(|what| Filed { what: what.clone(), pool: Arc::clone(name) })
            })
            .collect();
        let (given, lifted) = self.orders.file(&filed, now);
        for order in lifted {
            self.event(Event::Order { order, fate: Fate::Lifted });
        }
        for order in given {
            self.event(Event::Order { order, fate: Fate::Given });
        }
    }

    /// Gives every endpoint what the orders mean for it.
    pub(super) fn obey_orders(&mut self, now: Instant) {
        self.bidden.clear();
        for pool in 0..self.pools.len() {
            for zone in 0..self.pools[pool].zones.len() {
                let members = self.pools[pool].zones[zone].members.clone();
                for id in members {
                    self.bid(id, now);
                }
            }
        }
        self.orders_on(now);
    }

    /// The orders that bear on an endpoint.
    pub(super) fn orders_of(&self, endpoint: &Endpoint) -> Vec<Order> {
        let place = &self.pools[endpoint.seat.pool].zones[endpoint.seat.zone].place;
        let of = Of { pool: &endpoint.pool.name, place, address: endpoint.address };
        let weight = self.orders.weight(&of).map(|(order, _)| order);
        self.orders.drains(of).chain(weight).cloned().collect()
    }

    fn bid(&mut self, id: EndpointId, now: Instant) {
        let Some(endpoint) = self.roster.get(id) else { return };
        if endpoint.bidden().is_none() && self.orders.is_empty() {
            return;
        }
        let Seat { pool, zone, position, weight } = endpoint.seat;
        let spec = &self.pools[pool].spec.zones[zone];
        let of = Of { pool: &endpoint.pool.name, place: &spec.place, address: endpoint.address };
        let stage = endpoint.bidden().map_or(Stage::Going, |bidden| bidden.stage);
        let mut bidden = Bidden::of(&self.orders, of, stage);
        if bidden.share(now) > 0 {
            bidden.stage = Stage::Going;
        }
        let declared = spec.endpoints.get(position as usize).map_or(weight, |one| one.weight);
        let weighs = bidden.weight.unwrap_or(declared);
        let before = endpoint.bidden_share(now);
        let share = bidden.share(now);
        if bidden.drains.iter().any(|_| bidden.stage != Stage::Over) {
            self.bidden.push(id);
        }
        let Some(endpoint) = self.roster.get_mut(id) else { return };
        if endpoint.bidden().is_some() || !bidden.says_nothing() {
            endpoint.trouble_mut().bidden = (!bidden.says_nothing()).then(|| Box::new(bidden));
        }
        endpoint.seat.weight = weighs;
        self.pools[pool].zones[zone].reweigh(position, weighs);
        if share > before.0 {
            self.grow_back(id, before, share, now);
        }
        self.restand(id, now);
    }

    /// A share that was taken grows back from where it is.
    fn grow_back(&mut self, id: EndpointId, before: (u32, u32), share: u32, now: Instant) {
        let Some(endpoint) = self.roster.get_mut(id) else { return };
        let pool = endpoint.seat.pool;
        let length = endpoint.pool.recover.ramp;
        if length.is_zero() || self.pools[pool].in_panic() || !endpoint.serves() {
            return;
        }
        let had = endpoint.ramp.share(length, now) * before.0 / FULL;
        endpoint.ramp = Ramp::from_share(had * FULL / share, length, now);
        // What its zone did without is no capacity that is missed while it comes back.
        endpoint.is_late_comer |= before.1 < FULL;
        let ramping = &mut self.pools[pool].ramping;
        if endpoint.ramp.is_growing() && !ramping.contains(&id) {
            ramping.push(id);
        }
        self.ramps(pool, now);
    }

    /// Lets shares go on their way, ends what lasts too long, and orders whose time is up.
    pub(super) fn orders_on(&mut self, now: Instant) {
        let over = self.orders.expire(now);
        if !over.is_empty() {
            for order in over {
                self.event(Event::Order { order, fate: Fate::Expired });
            }
            // It comes back here.
            return self.obey_orders(now);
        }
        let mut due = self.orders.next_end();
        let mut left = Vec::with_capacity(self.bidden.len());
        for id in std::mem::take(&mut self.bidden) {
            let Some(endpoint) = self.roster.get_mut(id).filter(|one| one.is_draining()) else {
                continue;
            };
            let Some(bidden) = &mut endpoint.trouble_mut().bidden else { continue };
            if bidden.stage == Stage::Going && bidden.share(now) == 0 {
                bidden.stage = Stage::Empty;
                self.outputs.push_back(Output::Drained { endpoint: id, is_over: false });
            }
            if bidden.stage == Stage::Empty && bidden.deadline().is_some_and(|end| now >= end) {
                bidden.stage = Stage::Over;
                self.outputs.push_back(Output::Drained { endpoint: id, is_over: true });
            }
            if let Some(next) = bidden.due(now) {
                due = Some(due.map_or(next, |due: Instant| due.min(next)));
                left.push(id);
            }
            self.restand(id, now);
        }
        self.bidden = left;
        self.order_due = due;
    }
}
