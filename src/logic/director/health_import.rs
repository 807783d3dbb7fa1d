//! Taking over from another process: its health states are applied, and confirmed by probes at
//! once.

use std::sync::Arc;
use std::time::Instant;

use super::Director;
use super::endpoint::slab::AddressIndex;
use super::event::Event;
use super::health_export::{
    EndpointHealthExport, HealthExport, OutlierExport, PoolHealthExport, ZoneHealthExport,
};
use super::pools::PoolState;
use super::pools::zone::ZoneState;
use crate::logic::health::endpoint_health::Health;
use crate::logic::model::id::EndpointId;

impl Director {
    /// The state for a process that takes over.
    pub fn export_health(&self) -> HealthExport {
        let zone = |zone: &ZoneState| ZoneHealthExport {
            place: zone.place().clone(),
            verdict: zone.correlation().verdict(),
            flaps: zone.correlation().flaps(),
            ramp: zone.ramp(),
            latency_p999: zone.stats().latency().p999(),
            endpoints: zone
                .roster()
                .ids()
                .iter()
                .filter_map(|&id| self.endpoints.get(id))
                .filter(|endpoint| !endpoint.is_unknown())
                .map(|endpoint| endpoint.export(self.epoch))
                .collect(),
        };
        let pool = |pool: &PoolState| PoolHealthExport {
            name: Arc::clone(&pool.spec().name),
            is_diverging: pool.divergence().is_active(),
            zones: pool.zones().iter().map(zone).collect(),
        };
        HealthExport { pools: self.pools.iter().map(pool).collect() }
    }

    /// Whether every pool can serve, or all of its endpoints are known. Then a process that takes
    /// over accepts requests.
    pub fn is_ready_to_serve(&self) -> bool {
        let mut counts = self.pools.iter().map(PoolState::counts);
        counts.all(|counts| counts.serving() > 0 || counts.known() == counts.all())
    }

    pub(super) fn import_health(&mut self, export: HealthExport, now: Instant) {
        let known = self.endpoints.addresses();
        for pool_export in export.pools {
            let name = &pool_export.name;
            let index = self.pools.iter().position(|pool| pool.spec().name == *name);
            if let Some(index) = index {
                self.import_pool(index, pool_export, &known, now);
            }
        }
        self.publisher.request(0);
    }

    fn import_pool(
        &mut self,
        index: usize,
        pool_export: PoolHealthExport,
        known: &AddressIndex,
        now: Instant,
    ) {
        self.pools[index].divergence_mut().set_active(pool_export.is_diverging);
        for zone_export in pool_export.zones {
            let pool = &mut self.pools[index];
            let zone_index =
                pool.zones().iter().position(|zone| *zone.place() == zone_export.place);
            if let Some(zone) = zone_index.map(|zone| pool.zone_mut(zone)) {
                zone.correlation_mut().import(zone_export.verdict, zone_export.flaps);
                zone.set_ramp(zone_export.ramp);
                if let Some(p999) = zone_export.latency_p999 {
                    zone.stats().latency().import(p999);
                }
                zone.roster_mut().mark_dirty();
            }
            for endpoint_export in zone_export.endpoints {
                let id = known.get(&(Arc::clone(&pool_export.name), endpoint_export.address));
                if let Some(&id) = id {
                    self.import_endpoint(id, endpoint_export, zone_index, now);
                }
            }
        }
        self.publisher.mark_dirty(index);
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
        if endpoint.state().probe_verdict() != Health::NEW || is_unproven {
            return;
        }
        let location = endpoint.location();
        let is_moved = zone != Some(location.zone());
        let (outlier, is_growing) = (export.outlier, export.ramp.is_growing());
        endpoint.import(export, is_moved, now);
        let (health, subject) = (endpoint.verdict(), endpoint.subject());
        let pool = &mut self.pools[location.pool()];
        if endpoint.is_contradicted() {
            pool.divergence_mut().add_contradicted();
        }
        if is_growing {
            pool.ramping_mut().push(id);
        }
        match outlier {
            OutlierExport::Normal => {}
            OutlierExport::Doubted { .. } => self.schedule_outlier_check(id, now, now),
            OutlierExport::Ejected { until, .. } => self.schedule_outlier_check(id, until, now),
        }
        self.update_eligibility(id, now);
        self.schedule_probe(id);
        self.push_event(Event::HealthImported { subject, health });
    }
}
