//! All endpoints, by identity.
//!
//! An identity is a slot and a generation: a look-up costs no hash, and a late message about an
//! endpoint that is gone finds nothing.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::logic::model::id::EndpointId;

use super::EndpointMachine;

#[derive(Debug, Default)]
pub(crate) struct EndpointSlab {
    slots: Vec<SlabSlot>,
    free: Vec<u32>,
}

/// Identities by pool and address: built for one change of the configuration, and not kept.
pub(crate) type AddressIndex = HashMap<(Arc<str>, SocketAddr), EndpointId>;

#[derive(Debug, Default)]
struct SlabSlot {
    generation: u32,
    endpoint: Option<EndpointMachine>,
}

impl EndpointSlab {
    pub(crate) fn get(&self, id: EndpointId) -> Option<&EndpointMachine> {
        let slot = self.slots.get(id.slot as usize).filter(|slot| slot.generation == id.generation);
        slot?.endpoint.as_ref()
    }

    pub(crate) fn get_mut(&mut self, id: EndpointId) -> Option<&mut EndpointMachine> {
        let slots = self.slots.get_mut(id.slot as usize);
        slots.filter(|slot| slot.generation == id.generation)?.endpoint.as_mut()
    }

    pub(crate) fn addresses(&self) -> AddressIndex {
        let of = |endpoint: &EndpointMachine| {
            ((Arc::clone(&endpoint.pool().name), endpoint.address()), endpoint.id())
        };
        self.iter().map(of).collect()
    }

    /// Adds the endpoint that `make` builds for a free identity.
    pub(crate) fn insert(
        &mut self,
        make: impl FnOnce(EndpointId) -> EndpointMachine,
    ) -> EndpointId {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(SlabSlot::default());
            (self.slots.len() - 1) as u32
        });
        let slab_slot = &mut self.slots[slot as usize];
        let id = EndpointId::new(slot, slab_slot.generation);
        slab_slot.endpoint = Some(make(id));
        id
    }

    /// Removes an endpoint; its identity is never used again.
    pub(crate) fn remove(&mut self, id: EndpointId) {
        let Some(slot) = self.slots.get_mut(id.slot as usize) else { return };
        if slot.generation != id.generation {
            return;
        }
        if slot.endpoint.take().is_some() {
            slot.generation += 1;
            self.free.push(id.slot);
        }
    }

    /// All endpoints, in the order of their slots.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &EndpointMachine> {
        self.slots.iter().filter_map(|slot| slot.endpoint.as_ref())
    }
}
