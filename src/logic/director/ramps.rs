//! Ramps: the updates of growing shares, and the end of each ramp.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use super::event::Event;
use super::{Director, EndpointMachine};
use crate::logic::model::id::{EndpointId, Locality};

impl Director {
    /// Plans updates of the growing shares of a pool, until none grows.
    pub(super) fn schedule_ramp(&mut self, pool: usize, now: Instant) {
        let state = &mut self.pools[pool];
        let length = state.spec().recovery.ramp;
        if let Some(due) = state.ramping_mut().schedule(length, now) {
            self.ramp_timers.insert((due, pool));
        }
    }

    /// Computes the growing shares of the pools that are due.
    pub(super) fn advance_ramps(&mut self, now: Instant) {
        while let Some(&(due, pool)) = self.ramp_timers.first() {
            if due > now {
                break;
            }
            self.ramp_timers.pop_first();
            if pool < self.pools.len() {
                self.advance_pool_ramps(pool, now);
            }
        }
    }

    fn advance_pool_ramps(&mut self, pool: usize, now: Instant) {
        let state = &mut self.pools[pool];
        let spec = Arc::clone(state.spec());
        let length = spec.recovery.ramp;
        let (mut has_growing, mut completed) = (false, Vec::new());
        for zone in state.zones_mut() {
            if zone.finish_ramp(length, now) {
                completed.push((zone.place().clone(), None));
            }
            has_growing |= zone.ramp().is_growing();
        }
        let ramping = state.ramping_mut().take();
        self.publisher.mark_dirty(pool);
        for id in ramping {
            let Some(endpoint) = self.endpoints.get_mut(id) else { continue };
            let is_growing = endpoint.advance_ramp(length, self.epoch, now);
            self.update_eligibility(id, now);
            if is_growing {
                has_growing = true;
                self.pools[pool].ramping_mut().push(id);
            } else if let Some((place, address)) = self.serving_place(id) {
                completed.push((place, Some(address)));
            }
        }
        for (place, address) in completed {
            let pool = Arc::clone(&spec.name);
            self.push_event(Event::RampEnded { pool, place, address });
        }
        if has_growing {
            self.schedule_ramp(pool, now);
        }
    }

    /// The place of an endpoint that its probes allow to serve.
    fn serving_place(&self, id: EndpointId) -> Option<(Locality, SocketAddr)> {
        let serves =
            |endpoint: &&EndpointMachine| endpoint.state().probe_verdict().can_serve(false);
        let endpoint = self.endpoints.get(id).filter(serves)?;
        let zone = &endpoint.pool().zones[endpoint.location().zone()];
        Some((zone.locality.clone(), endpoint.address()))
    }
}
