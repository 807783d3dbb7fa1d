//! Consistent hashing over the zones of a tier.
//!
//! Two steps lead from a key to an endpoint. The zone is found by weighted rendezvous among those of the
//! tier that take traffic, the endpoint in it by the zone's table. Tables hold all that is declared, so
//! a verdict rebuilds nothing: whoever meets an endpoint that takes no traffic (or no more, or that is
//! to be avoided) hashes again, and again, until one fits ("random jumps", Chen, Coleman and
//! Shrivastava, 2021: the keys of one that is lost are spread over all others). So an endpoint or a zone
//! that goes moves its own keys and no others, and when it is back exactly these come back; while it
//! ramps, a growing part of them.

use std::sync::Arc;

use super::hash::{distance, identity, mix, xxh64};
use super::{Kind, Table};
use crate::logic::id::Place;
use crate::logic::tier::{Cell, Target, Tier, WEIGHT_ONE};

/// Hashes before all endpoints of a tier are gone through.
const HASHES: u64 = 64;

/// The salts of what must not depend on each other.
const SALT_ZONE: u64 = 1 << 32;
const SALT_PART: u64 = 2 << 32;
const SALT_TIER: u64 = 3 << 32;
const SALT_LAST: u64 = 4 << 32;

/// All of what is declared for an endpoint.
const WHOLE_PART: u16 = u16::MAX;

/// By what keys find the endpoints of a zone: the same for as long as nothing is declared anew.
#[derive(Debug)]
pub struct Seating {
    kind: Kind,
    members: Box<[(u64, u32)]>,
    table: Table,
    /// Tells the zone from others.
    zone: u64,
    /// Sum of the declared weights, in parts of [`WEIGHT_ONE`].
    weight: u64,
}

impl Seating {
    /// What `before` was, if nothing is declared anew, or a new one; `None` if there is no endpoint.
    #[must_use]
    pub fn of(
        kind: Kind,
        place: &Place,
        targets: &[Target],
        before: Option<Arc<Self>>,
    ) -> Option<Arc<Self>> {
        let members = targets.iter().map(|target| (identity(target.address), target.weight));
        let members: Box<[(u64, u32)]> = members.collect();
        if members.is_empty() {
            return None;
        }
        if let Some(same) = before.filter(|old| old.kind == kind && old.members == members) {
            return Some(same);
        }
        let weights = members.iter().map(|&(_, weight)| u64::from(weight * WEIGHT_ONE));
        Some(Arc::new(Self {
            kind,
            table: Table::new(kind, &members),
            zone: xxh64(place.to_string().as_bytes()),
            weight: weights.sum(),
            members,
        }))
    }

    /// Which table it has.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// For each member which part of its keys it takes, where these positions take traffic with their
    /// weights.
    pub(in crate::logic) fn parts(&self, active: &[(u32, u32)]) -> Box<[u16]> {
        let mut parts = vec![0; self.members.len()];
        for &(position, weight) in active {
            let whole = u64::from(self.members[position as usize].1 * WEIGHT_ONE);
            let part = u64::from(weight) * u64::from(WHOLE_PART) / whole;
            parts[position as usize] = part.clamp(1, u64::from(WHOLE_PART)) as u16;
        }
        parts.into()
    }
}

/// How a tier finds a key's zone.
#[derive(Debug)]
pub(in crate::logic) struct Home {
    zone: u64,
    weight: f64,
}

impl Home {
    /// Of a cell that has `weight` in its tier: its own, or what a ramp of its zone leaves of it.
    pub(in crate::logic) fn of(cell: &Cell, weight: u64) -> Option<Self> {
        let seating = cell.seating()?;
        let part = weight.max(1) as f64 / cell.weight().max(1) as f64;
        Some(Self { zone: seating.zone, weight: seating.weight as f64 * part })
    }
}

/// How much an endpoint may have in flight so that a key goes there.
#[derive(Clone, Copy, Debug)]
pub(in crate::logic) struct Bound {
    per_weight: f64,
}

impl Bound {
    /// `percent` of the mean, where `in_flight` requests are spread over `share` of a whole of 1.
    pub(in crate::logic) fn new(
        percent: u32,
        in_flight: u32,
        share: f64,
        tier: &Tier,
    ) -> Option<Self> {
        let expected = (f64::from(in_flight) + 1.0) * share * f64::from(percent) / 100.0;
        let per_weight = expected * f64::from(WEIGHT_ONE) / tier.own_weight().max(1) as f64;
        (share > 0.0).then_some(Self { per_weight })
    }

    fn has_room(self, target: &Target) -> bool {
        f64::from(target.live.in_flight()) < (self.per_weight * f64::from(target.weight)).ceil()
    }
}

/// Where a key stands in the whole of a pool's traffic, in parts of [`crate::logic::steer::WHOLE`]: it
/// stays in its tier for as long as shares do not change, and when they do only those keys move that
/// must.
pub(in crate::logic) fn point(key: u64) -> u64 {
    mix(key, SALT_TIER) >> 32
}

impl Tier {
    /// The endpoint of a key among those that fit; `None` if none does. One that has no room by `bound`
    /// is passed by, unless nobody has any.
    pub(in crate::logic) fn seek(
        &self,
        key: u64,
        bound: Option<Bound>,
        fits: impl Fn(&Target) -> bool,
    ) -> Option<&Target> {
        let has_room = |target: &Target| bound.is_none_or(|bound| bound.has_room(target));
        for n in 0..HASHES {
            let hash = mix(key, n);
            let Some(target) = self.takes(hash) else { continue };
            if has_room(target) && fits(target) {
                return Some(target);
            }
        }
        let last = |fits: &dyn Fn(&Target) -> bool| {
            let near = |target: &Target| {
                let hash = mix(key ^ identity(target.address), SALT_LAST);
                distance(hash, f64::from(target.weight))
            };
            let some = self.targets().filter(|target| fits(target));
            some.map(|target| (near(target), target)).min_by(|a, b| a.0.total_cmp(&b.0))
        };
        let found = last(&|target| fits(target) && has_room(target)).or_else(|| last(&fits));
        found.map(|(_, target)| target)
    }

    /// Whose the hash is, if that one takes it.
    fn takes(&self, hash: u64) -> Option<&Target> {
        let cell = match self.cells.as_slice() {
            [only] => only,
            cells => &cells[self.home(hash)?],
        };
        let position = cell.seating()?.table.owner(hash);
        let part = cell.part(position)?;
        let is_taken = part == WHOLE_PART || (mix(hash, SALT_PART) as u16) < part;
        is_taken.then(|| cell.target(position))
    }

    fn home(&self, hash: u64) -> Option<usize> {
        let first = self.homes.first()?.weight;
        let drawn = |home: &Home| mix(hash ^ home.zone, SALT_ZONE);
        if self.homes.iter().all(|home| home.weight == first) {
            // The same as below, for a tenth of the time.
            let nearest = self.homes.iter().enumerate().max_by_key(|(_, home)| drawn(home));
            return nearest.map(|(index, _)| index);
        }
        let near = |home: &Home| distance(drawn(home), home.weight);
        let homes = self.homes.iter().map(near).enumerate();
        homes.min_by(|a, b| a.1.total_cmp(&b.1)).map(|(index, _)| index)
    }
}
