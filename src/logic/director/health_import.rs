//! Taking over from another process: what it knew is known, and is looked at again at once.

use std::sync::Arc;
use std::time::Instant;

use crate::logic::health::endpoint_health::Health;
use crate::logic::health::failure_ratio::SUSPECT_SCORE;
use crate::logic::model::id::EndpointId;

use super::endpoint::{EndpointState, ZoneRecovery};
use super::endpoint_slab::AddressIndex;
use super::health_export::{
    EndpointHealthExport, HealthExport, OutlierExport, PoolHealthExport, ZoneHealthExport,
};
use super::outlier::{Ejection, EjectionStage, OutlierState};
use super::pools::{PoolState, ZoneState};
use super::{Director, Event};

impl Director {
    /// What a process that takes over should know.
    pub fn export_health(&self) -> HealthExport {
        let zone = |zone: &ZoneState| ZoneHealthExport {
            place: zone.place.clone(),
            verdict: zone.verdict,
            flaps: zone.flaps,
            ramp: zone.ramp,
            endpoints: zone
                .members
                .iter()
                .filter_map(|&id| self.endpoints.get(id))
                .filter(|endpoint| !endpoint.is_unknown())
                .map(|endpoint| export_endpoint(endpoint, self.epoch))
                .collect(),
        };
        let pool = |pool: &PoolState| PoolHealthExport {
            name: Arc::clone(&pool.spec.name),
            is_diverging: pool.is_diverging,
            zones: pool.zones.iter().map(zone).collect(),
        };
        HealthExport { pools: self.pools.iter().map(pool).collect() }
    }

    /// Whether every pool can serve, or all that there is to know of it is known: for a process that
    /// takes over, the time to take requests.
    pub fn is_ready_to_serve(&self) -> bool {
        self.pools
            .iter()
            .all(|pool| pool.counts.serving > 0 || pool.counts.known == pool.counts.all)
    }

    pub(super) fn import_health(&mut self, export: HealthExport, now: Instant) {
        let known = self.endpoints.addresses();
        for pool_export in export.pools {
            let index = self.pools.iter().position(|pool| pool.spec.name == pool_export.name);
            if let Some(index) = index {
                self.import_pool(index, pool_export, &known, now);
            }
        }
        self.should_publish = true;
    }

    fn import_pool(
        &mut self,
        index: usize,
        pool_export: PoolHealthExport,
        known: &AddressIndex,
        now: Instant,
    ) {
        let state = &mut self.pools[index];
        state.is_diverging = pool_export.is_diverging;
        for zone_export in pool_export.zones {
            let state = &mut self.pools[index];
            let index_of = |zone: &ZoneState| zone.place == zone_export.place;
            let zone_index = state.zones.iter().position(index_of);
            if let Some(zone) = zone_index.map(|place| &mut state.zones[place]) {
                (zone.verdict, zone.flaps, zone.ramp) =
                    (zone_export.verdict, zone_export.flaps, zone_export.ramp);
                zone.mark_dirty();
            }
            for endpoint_export in zone_export.endpoints {
                let id = known.get(&(Arc::clone(&pool_export.name), endpoint_export.address));
                if let Some(&id) = id {
                    self.import_endpoint(id, endpoint_export, zone_index, now);
                }
            }
        }
        self.dirty_pools.insert(index);
        self.end_resolved_divergence(index);
        self.schedule_ramp(index, now);
    }

    /// `zone` is where the endpoint was, if there is such a zone.
    fn import_endpoint(
        &mut self,
        id: EndpointId,
        export: EndpointHealthExport,
        zone: Option<usize>,
        now: Instant,
    ) {
        let Some(endpoint) = self.endpoints.get_mut(id) else { return };
        let is_unproven = export.health.can_serve(false) && export.last_success.is_none();
        if endpoint.health != Health::NEW || is_unproven {
            return;
        }
        let is_moved = zone != Some(endpoint.location.zone);
        let (outlier, is_growing) = (export.outlier, export.ramp.is_growing());
        endpoint.import_health(export, is_moved, now);
        let (seat, health, subject) = (endpoint.location, endpoint.verdict(), endpoint.subject());
        let state = &mut self.pools[seat.pool];
        state.contradicted += u32::from(endpoint.is_contradicted);
        if is_growing {
            state.ramping.push(id);
        }
        match outlier {
            OutlierExport::Normal => {}
            OutlierExport::Doubted { .. } => {
                self.schedule_outlier_check(id, self.next_outlier_check(now));
            }
            OutlierExport::Ejected { until, .. } => {
                self.schedule_outlier_check(id, until.max(self.next_outlier_check(now)));
            }
        }
        self.update_eligibility(id, now);
        self.schedule_probe(id);
        self.push_event(Event::HealthImported { subject, health });
    }
}

impl EndpointState {
    fn import_health(&mut self, export: EndpointHealthExport, is_moved: bool, now: Instant) {
        self.health = export.health;
        self.outlier = match export.outlier {
            OutlierExport::Normal => OutlierState::Normal,
            OutlierExport::Doubted { failure } => {
                self.ratio.restart(SUSPECT_SCORE);
                OutlierState::Doubted { failure }
            }
            OutlierExport::Ejected { failure, until } => {
                OutlierState::Ejected(Ejection { failure, stage: EjectionStage::Held { until } })
            }
        };
        self.since = export.since;
        self.last_pass = export.last_success;
        if self.can_serve() {
            self.up_since = Some(now);
        }
        self.ramp = export.ramp;
        self.zone_recovery = match export.unproven_since {
            Some(since) if !is_moved => ZoneRecovery::Unproven(since),
            _ => ZoneRecovery::Independent,
        };
        (self.is_degraded, self.is_contradicted) = (export.is_degraded, export.is_contradicted);
        (self.withheld, self.is_imported) = (export.withheld, true);
        let has_rare_state = export.held_until.is_some()
            || export.flaps.last_down.is_some()
            || export.cause.is_some()
            || !export.evidence.is_empty();
        if has_rare_state {
            let rare = self.rare_mut();
            (rare.held_until, rare.flaps) = (export.held_until, export.flaps);
            (rare.cause, rare.evidence) = (export.cause, export.evidence.into());
        }
    }
}

fn export_endpoint(endpoint: &EndpointState, epoch: Instant) -> EndpointHealthExport {
    EndpointHealthExport {
        address: endpoint.address,
        health: endpoint.health,
        outlier: match endpoint.outlier {
            OutlierState::Normal => OutlierExport::Normal,
            OutlierState::Doubted { failure } => OutlierExport::Doubted { failure },
            OutlierState::Ejected(Ejection { failure, stage: EjectionStage::Held { until } }) => {
                OutlierExport::Ejected { failure, until }
            }
            OutlierState::Ejected(Ejection {
                failure,
                stage: EjectionStage::OnTrial { waiting_since: waits_since, .. },
            }) => OutlierExport::Ejected { failure, until: waits_since },
        },
        since: endpoint.since,
        last_success: endpoint.last_success(epoch),
        held_until: endpoint.held_until(),
        flaps: endpoint.flaps(),
        ramp: endpoint.ramp,
        unproven_since: match endpoint.zone_recovery {
            ZoneRecovery::Independent => None,
            ZoneRecovery::Unproven(since) => Some(since),
        },
        is_degraded: endpoint.is_degraded,
        is_contradicted: endpoint.is_contradicted,
        withheld: endpoint.withheld,
        cause: endpoint.cause(),
        evidence: endpoint.evidence().copied().collect(),
    }
}
