//! All endpoints, by identity.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::logic::id::EndpointId;

use super::endpoint::Endpoint;

/// Endpoints whose memory is waited for together; see [`Roster::warm`].
pub(super) const AT_ONCE: usize = 64;

/// Endpoints in slots: an identity is a place and a generation, so that looking one up costs no
/// hash and a late message about one that is gone finds nobody.
#[derive(Debug, Default)]
pub(super) struct Roster {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

/// Who is where: made for one change of the configuration, and not kept.
pub(super) type Addresses = HashMap<(Arc<str>, SocketAddr), EndpointId>;

#[derive(Debug, Default)]
#[repr(C)]
struct Slot {
    generation: u32,
    endpoint: Option<Endpoint>,
}

impl Roster {
    pub(super) fn get(&self, id: EndpointId) -> Option<&Endpoint> {
        let slot = self.slots.get(id.slot as usize).filter(|slot| slot.generation == id.generation);
        slot?.endpoint.as_ref()
    }

    pub(super) fn get_mut(&mut self, id: EndpointId) -> Option<&mut Endpoint> {
        let slots = self.slots.get_mut(id.slot as usize);
        slots.filter(|slot| slot.generation == id.generation)?.endpoint.as_mut()
    }

    /// Touches what is about to be needed of several: memory that each would wait for in its turn
    /// is waited for together.
    pub(super) fn warm(&self, some: impl Iterator<Item = EndpointId> + Clone) {
        let lines = some.clone().filter_map(|id| self.get(id)).map(Endpoint::glance);
        std::hint::black_box(lines.fold(0, u64::wrapping_add));
        let beyond = some.filter_map(|id| self.get(id)).map(Endpoint::glance_beyond);
        std::hint::black_box(beyond.fold(0, u64::wrapping_add));
    }

    /// Who is where.
    pub(super) fn addresses(&self) -> Addresses {
        let of = |endpoint: &Endpoint| {
            ((Arc::clone(&endpoint.pool.name), endpoint.address), endpoint.id)
        };
        self.iter().map(of).collect()
    }

    /// Makes room for one, and says under which identity.
    pub(super) fn add(&mut self, make: impl FnOnce(EndpointId) -> Endpoint) -> EndpointId {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            (self.slots.len() - 1) as u32
        });
        let entry = &mut self.slots[slot as usize];
        let id = EndpointId::new(slot, entry.generation);
        entry.endpoint = Some(make(id));
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
    pub(super) fn iter(&self) -> impl Iterator<Item = &Endpoint> {
        self.slots.iter().filter_map(|slot| slot.endpoint.as_ref())
    }
}
