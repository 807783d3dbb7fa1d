//! The endpoints of a zone, and the subsets of them that a snapshot is built from.
//!
//! Inputs are the targets of a configuration and the states of single members. Outputs are counts
//! and [`ZoneSubsets`], which are rebuilt only when a member has changed: unchanged ones are shared
//! with the previous snapshot.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::member::{EndpointCounts, MemberState};
use crate::logic::director::eligibility::Eligibility;
use crate::logic::model::id::{EndpointId, Locality};
use crate::logic::model::snapshot::{Target, ZoneTargets};
use crate::logic::steering::balance::hash::endpoint_hash;
use crate::logic::steering::balance::{HashTableKind, ZoneHashTable};
use crate::logic::steering::target::WEIGHT_ONE;

#[derive(Debug)]
pub(crate) struct ZoneRoster {
    place: Locality,
    ids: Vec<EndpointId>,
    states: Vec<MemberState>,
    counts: EndpointCounts,
    targets: Arc<[Target]>,
    /// Finds `targets` by hash, where the pool needs it.
    hash_table: Option<Arc<ZoneHashTable>>,
    /// When each drained endpoint was.
    drained_at: BTreeMap<EndpointId, Instant>,
    /// The zone serves only with this many endpoints, unless no other can.
    min_capacity: u32,
    subsets: ZoneSubsets,
    is_dirty: bool,
}

/// The parts of a zone from which a snapshot is built.
#[derive(Clone, Debug, Default)]
pub(crate) struct ZoneSubsets {
    eligible: Option<ZoneTargets>,
    clear: Option<ZoneTargets>,
    suspects: Option<ZoneTargets>,
    last_resort: Option<ZoneTargets>,
    trials: Vec<Target>,
    awaiting_first_request: Vec<Target>,
    /// Sum of the capacities of all endpoints that are not unknown.
    known_capacity: u64,
    has_doubted: bool,
}

impl ZoneSubsets {
    /// Clear and doubted endpoints.
    pub(crate) fn eligible(&self) -> Option<&ZoneTargets> {
        self.eligible.as_ref()
    }

    pub(crate) fn clear(&self) -> Option<&ZoneTargets> {
        self.clear.as_ref()
    }

    pub(crate) fn suspects(&self) -> Option<&ZoneTargets> {
        self.suspects.as_ref()
    }

    pub(crate) fn last_resort(&self) -> Option<&ZoneTargets> {
        self.last_resort.as_ref()
    }

    pub(crate) fn trials(&self) -> &[Target] {
        &self.trials
    }

    /// Endpoints that have returned and have had no request yet.
    pub(crate) fn awaiting_first_request(&self) -> &[Target] {
        &self.awaiting_first_request
    }

    pub(crate) fn known_capacity(&self) -> u64 {
        self.known_capacity
    }

    pub(crate) fn has_doubted(&self) -> bool {
        self.has_doubted
    }
}

impl ZoneRoster {
    /// An empty roster; hash table and times of drains are taken from `before`.
    pub(crate) fn new(place: &Locality, min_capacity: u32, before: Option<&mut Self>) -> Self {
        let (hash_table, drained_at) = before
            .map(|old| (old.hash_table.take(), std::mem::take(&mut old.drained_at)))
            .unwrap_or_default();
        Self {
            place: place.clone(),
            ids: Vec::new(),
            states: Vec::new(),
            counts: EndpointCounts::default(),
            targets: Arc::from(Vec::new()),
            hash_table,
            drained_at,
            min_capacity,
            subsets: ZoneSubsets::default(),
            is_dirty: true,
        }
    }

    /// Places the zone's endpoints, to be found by a hash table of `kind` if there is one.
    pub(crate) fn set_targets(&mut self, targets: Vec<Target>, kind: Option<HashTableKind>) {
        let before = self.hash_table.take();
        self.hash_table = kind
            .and_then(|kind| ZoneHashTable::build_or_reuse(kind, &self.place, &targets, before));
        self.ids = targets.iter().map(|target| target.id).collect();
        self.drained_at.retain(|id, _| self.ids.contains(id));
        self.states = vec![MemberState::UNKNOWN; targets.len()];
        self.counts = EndpointCounts::unknown(targets.len() as u32);
        self.targets = targets.into();
        self.is_dirty = true;
    }

    /// Changes the weight of one endpoint.
    pub(crate) fn set_weight(&mut self, position: u32, weight: u32) {
        let target = self.targets.get(position as usize);
        if target.is_none_or(|target| target.weight == weight) {
            return;
        }
        let mut targets = self.targets.to_vec();
        targets[position as usize].weight = weight;
        self.targets = targets.into();
        self.hash_table = self.hash_table.take().and_then(|table| {
            ZoneHashTable::build_or_reuse(table.kind(), &self.place, &self.targets, Some(table))
        });
        self.is_dirty = true;
    }

    /// Replaces the state of one member; returns the old one.
    pub(crate) fn replace(
        &mut self,
        position: u32,
        state: MemberState,
        now: Instant,
    ) -> MemberState {
        let position = position as usize;
        let old = std::mem::replace(&mut self.states[position], state);
        if old == state {
            return old;
        }
        self.counts.replace(old, state);
        let id = self.ids[position];
        match state.eligibility() {
            Eligibility::Drained => {
                self.drained_at.entry(id).or_insert(now);
            }
            Eligibility::Unknown => {}
            _ => {
                self.drained_at.remove(&id);
            }
        }
        self.is_dirty |= state.is_published_differently(old);
        old
    }

    pub(crate) fn mark_dirty(&mut self) {
        self.is_dirty = true;
    }

    pub(crate) fn ids(&self) -> &[EndpointId] {
        &self.ids
    }

    pub(crate) fn state(&self, position: u32) -> MemberState {
        self.states[position as usize]
    }

    pub(crate) fn members(&self) -> impl Iterator<Item = (EndpointId, MemberState)> {
        self.ids.iter().copied().zip(self.states.iter().copied())
    }

    pub(crate) fn counts(&self) -> EndpointCounts {
        self.counts
    }

    /// The subsets, rebuilt if a member has changed.
    pub(crate) fn subsets(&mut self) -> &ZoneSubsets {
        if std::mem::take(&mut self.is_dirty) {
            self.subsets = self.build_subsets(&self.states);
        }
        &self.subsets
    }

    /// Keys by which pins find the endpoints of the zone, whose index in its pool is `zone`.
    pub(crate) fn pins(&self, zone: usize) -> impl Iterator<Item = (u64, u32, u32)> {
        let numbered = self.targets.iter().zip(0..);
        numbered
            .map(move |(target, position)| (endpoint_hash(target.address), zone as u32, position))
    }

    /// Every endpoint that is not drained, in whatever state it is.
    pub(crate) fn undrained(&self) -> Option<ZoneTargets> {
        if self.counts.drained() == 0 {
            return ZoneTargets::all_targets(&self.targets, self.hash_table.as_ref());
        }
        let members = self.states.iter().zip(self.targets.iter()).zip(0u32..);
        let members = members.filter(|((state, _), _)| state.eligibility() != Eligibility::Drained);
        let active: Vec<(u32, u32)> =
            members.map(|((_, target), position)| (position, target.weight * WEIGHT_ONE)).collect();
        ZoneTargets::with_hash_table(&self.targets, self.hash_table.as_ref(), &active)
    }

    /// Drained endpoints that could serve, each with the time at which it was drained.
    pub(crate) fn drained_targets(&self) -> impl Iterator<Item = (&Target, Instant)> {
        let members = self.targets.iter().zip(&self.states);
        members.filter_map(|(target, state)| {
            let is_healthy = state.eligibility() == Eligibility::Drained && !state.is_down();
            let since = self.drained_at.get(&target.id).filter(|_| is_healthy)?;
            Some((target, *since))
        })
    }

    /// The subsets once all ramps have ended, without the endpoints that `is_out` selects.
    pub(crate) fn steady_subsets(&self, is_out: impl Fn(EndpointId) -> bool) -> ZoneSubsets {
        let members = self.states.iter().zip(self.targets.iter());
        let states: Vec<MemberState> = members
            .map(|(state, target)| state.in_steady_state(target.weight, is_out(target.id)))
            .collect();
        self.build_subsets(&states)
    }

    /// `states` are those of the members, in their order.
    fn build_subsets(&self, states: &[MemberState]) -> ZoneSubsets {
        let mut subsets = ZoneSubsets::default();
        let mut eligible = Vec::with_capacity(states.len());
        let (mut suspects, mut last_resort) = (Vec::new(), Vec::new());
        for (state, position) in states.iter().zip(0u32..) {
            let (weighted, target) = ((position, state.weight()), &self.targets[position as usize]);
            match state.eligibility() {
                Eligibility::Out | Eligibility::Drained => {}
                Eligibility::Unknown => continue,
                Eligibility::Clear => eligible.push(weighted),
                Eligibility::Doubted => {
                    subsets.has_doubted = true;
                    eligible.push(weighted);
                }
                Eligibility::Suspect => suspects.push(weighted),
                Eligibility::LastResort => last_resort.push(weighted),
                Eligibility::Trial => subsets.trials.push(target.clone()),
            }
            subsets.known_capacity += u64::from(state.capacity());
            if state.is_awaiting_first_request() {
                subsets.awaiting_first_request.push(target.clone());
            }
        }
        if eligible.len() + suspects.len() < self.min_capacity as usize {
            // Too small to serve alone, but better than none.
            last_resort.append(&mut eligible);
            last_resort.append(&mut suspects);
            last_resort.sort_unstable();
        }
        let subset = |active: &[(u32, u32)]| {
            ZoneTargets::with_hash_table(&self.targets, self.hash_table.as_ref(), active)
        };
        subsets.eligible = subset(&eligible);
        subsets.clear = if subsets.has_doubted {
            eligible.retain(|&(position, _)| {
                states[position as usize].eligibility() == Eligibility::Clear
            });
            subset(&eligible)
        } else {
            subsets.eligible.clone()
        };
        (subsets.suspects, subsets.last_resort) = (subset(&suspects), subset(&last_resort));
        subsets
    }
}
