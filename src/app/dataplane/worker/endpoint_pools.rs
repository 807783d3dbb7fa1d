//! The connection pools of one worker, one for each endpoint.

use std::rc::Rc;

use crate::logic::model::id::EndpointId;
use crate::net::upstream::ConnectionPool;

/// Connection pools by the slot of their endpoint's id.
#[derive(Default)]
pub(super) struct EndpointPools(Vec<Option<Rc<ConnectionPool>>>);

impl EndpointPools {
    pub(super) fn get(&self, id: EndpointId) -> Option<&Rc<ConnectionPool>> {
        let connections = self.0.get(id.slot as usize)?.as_ref()?;
        (connections.target.id == id).then_some(connections)
    }

    /// Inserts a pool; replaces that of a removed endpoint in the same slot.
    pub(super) fn insert(&mut self, connections: Rc<ConnectionPool>) {
        let index = connections.target.id.slot as usize;
        if self.0.len() <= index {
            self.0.resize(index + 1, None);
        }
        self.0[index] = Some(connections);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Rc<ConnectionPool>> {
        self.0.iter().flatten()
    }

    pub(super) fn retain(&mut self, should_keep: impl Fn(&Rc<ConnectionPool>) -> bool) {
        self.0.iter_mut().for_each(|slot| {
            slot.take_if(|pool| !should_keep(pool));
        });
    }
}
