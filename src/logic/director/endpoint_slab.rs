//! All endpoints, by identity.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::logic::model::id::EndpointId;

use super::endpoint::EndpointState;

/// Endpoints in slots: an identity is a place and a generation, so that looking one up costs no
/// hash and a late message about one that is gone finds nobody.
#[derive(Debug, Default)]
pub(super) struct EndpointSlab {
    slots: Vec<SlabSlot>,
    free: Vec<u32>,
}

/// Who is where: made for one change of the configuration, and not kept.
pub(super) type AddressIndex = HashMap<(Arc<str>, SocketAddr), EndpointId>;

#[derive(Debug, Default)]
struct SlabSlot {
    generation: u32,
    endpoint: Option<EndpointState>,
}

impl EndpointSlab {
    pub(super) fn get(&self, id: EndpointId) -> Option<&EndpointState> {
        let slot = self.slots.get(id.slot as usize).filter(|slot| slot.generation == id.generation);
        slot?.endpoint.as_ref()
    }

    pub(super) fn get_mut(&mut self, id: EndpointId) -> Option<&mut EndpointState> {
        let slots = self.slots.get_mut(id.slot as usize);
        slots.filter(|slot| slot.generation == id.generation)?.endpoint.as_mut()
    }

    pub(super) fn addresses(&self) -> AddressIndex {
        let of = |endpoint: &EndpointState| {
            ((Arc::clone(&endpoint.pool.name), endpoint.address), endpoint.id)
        };
        self.iter().map(of).collect()
    }

    /// Makes room for one, and says under which identity.
    pub(super) fn insert(&mut self, make: impl FnOnce(EndpointId) -> EndpointState) -> EndpointId {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(SlabSlot::default());
            (self.slots.len() - 1) as u32
        });
        let slab_slot = &mut self.slots[slot as usize];
        let id = EndpointId::new(slot, slab_slot.generation);
        slab_slot.endpoint = Some(make(id));
        id
    }

    /// Takes one out for good.
    pub(super) fn remove(&mut self, id: EndpointId) {
        let Some(slot) = self.slots.get_mut(id.slot as usize) else { return };
        if slot.generation != id.generation {
            return;
        }
        if slot.endpoint.take().is_some() {
            slot.generation += 1;
            self.free.push(id.slot);
        }
    }

    /// All of them, in the order of their identities.
    pub(super) fn iter(&self) -> impl Iterator<Item = &EndpointState> {
        self.slots.iter().filter_map(|slot| slot.endpoint.as_ref())
    }
}
