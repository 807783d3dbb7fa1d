//! All endpoints, by identity.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::logic::id::EndpointId;

use super::endpoint::Endpoint;

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
struct Slot {
    generation: u32,
    endpoint: Option<Box<Endpoint>>,
}

impl Roster {
    pub(super) fn get(&self, id: EndpointId) -> Option<&Endpoint> {
        let slot = self.slots.get(id.slot as usize).filter(|slot| slot.generation == id.generation);
        slot?.endpoint.as_deref()
    }

    pub(super) fn get_mut(&mut self, id: EndpointId) -> Option<&mut Endpoint> {
        let slots = self.slots.get_mut(id.slot as usize);
        slots.filter(|slot| slot.generation == id.generation)?.endpoint.as_deref_mut()
    }

    /// Who is where.
    pub(super) fn addresses(&self) -> Addresses {
        let of = |endpoint: &Endpoint| {
            let subject = &endpoint.subject;
            ((Arc::clone(&subject.pool), subject.address), subject.endpoint)
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
        entry.endpoint = Some(Box::new(make(id)));
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
        self.slots.iter().filter_map(|slot| slot.endpoint.as_deref())
    }
}
