//! The set of orders in force: precedence, replacement and expiry.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::order::{
    DEFAULT_DRAIN_DEADLINE, OperatorOrder, OrderAction, OrderSource, OrderedEndpoint, scope_rank,
};
use crate::logic::health::recovery::FULL_SHARE_PERMILLE;
use crate::logic::model::selector::TopologySelector;

/// Upper bound on orders from the API; drains of the file do not count.
pub const MAX_ORDERS: usize = 1_000;

/// A drain in the configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigDrain {
    pub scope: TopologySelector,
    pub pool: Arc<str>,
}

/// All orders in force. An order of the file keeps the id that it received when it first appeared.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OperatorOrders {
    /// In ascending order of their ids.
    all: Vec<OperatorOrder>,
    last_id: u64,
}

/// A new order without an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderDraft {
    pub scope: TopologySelector,
    /// Restricts the order to this pool.
    pub pool: Option<Arc<str>>,
    pub action: OrderAction,
    pub expires_at: Option<Instant>,
    pub author: Option<Arc<str>>,
    /// `None` keeps the note of the order that it replaces, if both do the same.
    pub note: Option<Arc<str>>,
}

impl OperatorOrders {
    /// Restores the orders of an earlier process.
    pub fn from_orders(mut all: Vec<OperatorOrder>) -> Self {
        all.sort_by_key(|order| order.id);
        all.dedup_by_key(|order| order.id);
        let last_id = all.last().map_or(0, |order| order.id);
        Self { all, last_id }
    }

    /// All orders in ascending order of their ids.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &OperatorOrder> {
        self.all.iter()
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Whether no further API order fits.
    pub fn is_full(&self) -> bool {
        self.all.iter().filter(|order| order.source == OrderSource::Operator).count() >= MAX_ORDERS
    }

    /// The drains that hold for the endpoint, after exemptions.
    pub fn drains_for<'a>(
        &'a self,
        endpoint: OrderedEndpoint<'a>,
    ) -> impl Iterator<Item = &'a OperatorOrder> {
        let mut restored_ids = [0; 3];
        for order in self
            .all
            .iter()
            .filter(|order| order.action == OrderAction::Serve && order.has_effect_on(&endpoint))
        {
            restored_ids[usize::from(scope_rank(&order.scope))] = order.id;
        }
        self.all.iter().filter(move |order| {
            let rank = usize::from(scope_rank(&order.scope));
            matches!(order.action, OrderAction::Drain { .. })
                && order.has_effect_on(&endpoint)
                && restored_ids[..=rank].iter().all(|id| *id < order.id)
        })
    }

    /// The latest weight order for the endpoint, with its weight.
    pub fn weight_for(&self, endpoint: &OrderedEndpoint<'_>) -> Option<(&OperatorOrder, u32)> {
        self.all.iter().rev().find_map(|order| match order.action {
            OrderAction::Weight(weight) if order.has_effect_on(endpoint) => Some((order, weight)),
            _ => None,
        })
    }

    pub fn find(&self, id: u64) -> Option<&OperatorOrder> {
        self.all.iter().find(|order| order.id == id)
    }

    /// Adds an order. It replaces an earlier order for the same scope; a share that is already
    /// fading continues from its current value.
    pub fn issue(&mut self, draft: OrderDraft, now: Instant) -> &OperatorOrder {
        let OrderDraft { scope, pool, action, expires_at, author, note } = draft;
        let is_same = |order: &OperatorOrder| {
            order.source == OrderSource::Operator
                && order.scope == scope
                && order.pool == pool
                && order.action.can_replace(action)
        };
        let remaining =
            self.all.iter().filter(|order| is_same(order)).map(|order| order.share_permille(now));
        let remaining = remaining.min().unwrap_or(FULL_SHARE_PERMILLE);
        let is_same_action = |order: &&OperatorOrder| {
            std::mem::discriminant(&order.action) == std::mem::discriminant(&action)
        };
        let replaced = self.all.iter().rev().filter(|order| is_same(order)).find(is_same_action);
        let note = note.or_else(|| replaced.and_then(|order| order.note.clone()));
        self.all.retain(|order| !is_same(order));
        let effective_since = match action {
            OrderAction::Drain { fade_duration, .. } => {
                let elapsed =
                    fade_duration * (FULL_SHARE_PERMILLE - remaining) / FULL_SHARE_PERMILLE;
                now.checked_sub(elapsed).unwrap_or(now)
            }
            OrderAction::Weight(_) | OrderAction::Serve => now,
        };
        self.push(OperatorOrder {
            id: 0,
            scope,
            pool,
            action,
            effective_since,
            expires_at,
            source: OrderSource::Operator,
            author,
            note,
        })
    }

    fn push(&mut self, order: OperatorOrder) -> &OperatorOrder {
        self.last_id += 1;
        let index = self.all.len();
        self.all.push(OperatorOrder { id: self.last_id, ..order });
        &self.all[index]
    }

    pub fn revoke(&mut self, id: u64) -> Option<OperatorOrder> {
        let index = self.all.iter().position(|order| order.id == id)?;
        Some(self.all.remove(index))
    }

    /// Revokes the API orders for exactly this scope; with `pool`, only those restricted to that
    /// pool.
    pub fn revoke_matching(
        &mut self,
        scope: &TopologySelector,
        pool: Option<&str>,
    ) -> Vec<OperatorOrder> {
        let is_matching = |order: &mut OperatorOrder| {
            let is_in_pool = pool.is_none_or(|pool| order.pool.as_deref() == Some(pool));
            order.source == OrderSource::Operator && order.scope == *scope && is_in_pool
        };
        self.all.extract_if(.., is_matching).collect()
    }

    /// Removes and returns the expired orders.
    pub fn remove_expired(&mut self, now: Instant) -> Vec<OperatorOrder> {
        self.all.extract_if(.., |order| order.is_expired(now)).collect()
    }

    /// The earliest expiry of all orders.
    pub fn next_expiry(&self) -> Option<Instant> {
        self.all.iter().filter_map(|order| order.expires_at).min()
    }

    /// Replaces the drains of the file; returns the added and the removed ones. A drain that stays
    /// keeps its id, and with it its precedence.
    pub fn sync_config_drains(
        &mut self,
        config_drains: &[ConfigDrain],
        now: Instant,
    ) -> (Vec<OperatorOrder>, Vec<OperatorOrder>) {
        let is_same_drain = |order: &OperatorOrder, drain: &ConfigDrain| {
            order.scope == drain.scope && order.pool.as_ref() == Some(&drain.pool)
        };
        let is_removed = |order: &mut OperatorOrder| {
            order.source == OrderSource::Config
                && !config_drains.iter().any(|drain| is_same_drain(order, drain))
        };
        let removed: Vec<OperatorOrder> = self.all.extract_if(.., is_removed).collect();
        let mut added = Vec::new();
        for drain in config_drains {
            if self
                .all
                .iter()
                .any(|order| order.source == OrderSource::Config && is_same_drain(order, drain))
            {
                continue;
            }
            let action = OrderAction::Drain {
                fade_duration: Duration::ZERO,
                deadline: DEFAULT_DRAIN_DEADLINE,
            };
            let order = OperatorOrder {
                id: 0,
                scope: drain.scope.clone(),
                pool: Some(Arc::clone(&drain.pool)),
                action,
                effective_since: now,
                expires_at: None,
                source: OrderSource::Config,
                author: None,
                note: None,
            };
            added.push(self.push(order).clone());
        }
        (added, removed)
    }

    /// The number of orders with this action word from this source.
    pub fn count(&self, action_name: &str, source: OrderSource) -> usize {
        self.all
            .iter()
            .filter(|order| order.action.as_str() == action_name && order.source == source)
            .count()
    }
}

#[cfg(test)]
mod tests;
