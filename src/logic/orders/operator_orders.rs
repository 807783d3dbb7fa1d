//! The set of orders in force: precedence, replacement and expiry.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::order::{
    DEFAULT_DRAIN_DEADLINE, OperatorOrder, OrderAction, OrderSource, OrderedEndpoint, scope_rank,
};
use crate::logic::health::recovery::FULL_SHARE_PERMILLE;
use crate::logic::model::selector::TopologySelector;

/// Orders that are in force at once, besides those of the file.
pub const MAX_ORDERS: usize = 1_000;

/// What the file orders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigDrain {
    pub scope: TopologySelector,
    pub pool: Arc<str>,
}

/// All orders that are in force.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OperatorOrders {
    /// In the order in which they were given.
    all: Vec<OperatorOrder>,
    last_id: u64,
}

/// An order that is about to be given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderDraft {
    /// What it is about.
    pub scope: TopologySelector,
    /// In this pool only.
    pub pool: Option<Arc<str>>,
    pub action: OrderAction,
    /// It is over then.
    pub expires_at: Option<Instant>,
    pub note: Option<Arc<str>>,
}

impl OperatorOrders {
    /// Those that were in force before, in another process.
    pub fn from_orders(mut all: Vec<OperatorOrder>) -> Self {
        all.sort_by_key(|order| order.id);
        all.dedup_by_key(|order| order.id);
        let last = all.last().map_or(0, |order| order.id);
        Self { all, last_id: last }
    }

    /// All of them, in the order in which they were given.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &OperatorOrder> {
        self.all.iter()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Whether no more may be given.
    pub fn is_full(&self) -> bool {
        self.all.iter().filter(|order| order.source == OrderSource::Operator).count() >= MAX_ORDERS
    }

    /// Orders to drain that hold for this endpoint.
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
            let upto = usize::from(scope_rank(&order.scope));
            matches!(order.action, OrderAction::Drain { .. })
                && order.has_effect_on(&endpoint)
                && restored_ids[..=upto].iter().all(|id| *id < order.id)
        })
    }

    /// The order that says how much it weighs, and the weight.
    pub fn weight_for(&self, endpoint: &OrderedEndpoint<'_>) -> Option<(&OperatorOrder, u32)> {
        self.all.iter().rev().find_map(|order| match order.action {
            OrderAction::Weight(weight) if order.has_effect_on(endpoint) => Some((order, weight)),
            _ => None,
        })
    }

    pub fn find(&self, id: u64) -> Option<&OperatorOrder> {
        self.all.iter().find(|order| order.id == id)
    }

    /// Gives an order. It takes the place of an earlier one about the same thing; a share that is going
    /// already goes on from where it is.
    pub fn issue(&mut self, draft: OrderDraft, now: Instant) -> &OperatorOrder {
        let OrderDraft { scope: what, pool, action: act, expires_at: until, note } = draft;
        let is_same = |order: &OperatorOrder| {
            order.source == OrderSource::Operator
                && order.scope == what
                && order.pool == pool
                && order.action.can_replace(act)
        };
        let remaining =
            self.all.iter().filter(|order| is_same(order)).map(|order| order.share_permille(now));
        let remaining = remaining.min().unwrap_or(FULL_SHARE_PERMILLE);
        self.all.retain(|order| !is_same(order));
        let since = match act {
            OrderAction::Drain { fade_duration: over, .. } => {
                let gone = over * (FULL_SHARE_PERMILLE - remaining) / FULL_SHARE_PERMILLE;
                now.checked_sub(gone).unwrap_or(now)
            }
            OrderAction::Weight(_) | OrderAction::Serve => now,
        };
        self.push(OperatorOrder {
            id: 0,
            scope: what,
            pool,
            action: act,
            effective_since: since,
            expires_at: until,
            source: OrderSource::Operator,
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

    /// Takes back what operators have said of this very thing, in this pool or in all.
    pub fn revoke_matching(
        &mut self,
        what: &TopologySelector,
        pool: Option<&str>,
    ) -> Vec<OperatorOrder> {
        let is_matching = |order: &mut OperatorOrder| {
            let is_in = pool.is_none_or(|pool| order.pool.as_deref() == Some(pool));
            order.source == OrderSource::Operator && order.scope == *what && is_in
        };
        self.all.extract_if(.., is_matching).collect()
    }

    /// Takes back those whose time is up.
    pub fn remove_expired(&mut self, now: Instant) -> Vec<OperatorOrder> {
        self.all.extract_if(.., |order| order.is_expired(now)).collect()
    }

    /// When the next one's time is up.
    pub fn next_expiry(&self) -> Option<Instant> {
        self.all.iter().filter_map(|order| order.expires_at).min()
    }

    /// The file says this from now on; gives what is new of it and what it says no more. What it has
    /// said all the time keeps its place among the other orders.
    pub fn sync_config_drains(
        &mut self,
        config_drains: &[ConfigDrain],
        now: Instant,
    ) -> (Vec<OperatorOrder>, Vec<OperatorOrder>) {
        let is_same_drain = |order: &OperatorOrder, one: &ConfigDrain| {
            order.scope == one.scope && order.pool.as_ref() == Some(&one.pool)
        };
        let is_removed = |order: &mut OperatorOrder| {
            order.source == OrderSource::Config
                && !config_drains.iter().any(|one| is_same_drain(order, one))
        };
        let lifted: Vec<OperatorOrder> = self.all.extract_if(.., is_removed).collect();
        let mut new = Vec::new();
        for one in config_drains {
            if self
                .all
                .iter()
                .any(|order| order.source == OrderSource::Config && is_same_drain(order, one))
            {
                continue;
            }
            let act = OrderAction::Drain {
                fade_duration: Duration::ZERO,
                deadline: DEFAULT_DRAIN_DEADLINE,
            };
            let (what, pool) = (one.scope.clone(), Some(Arc::clone(&one.pool)));
            let (by, note) = (OrderSource::Config, None);
            let order = OperatorOrder {
                id: 0,
                scope: what,
                pool,
                action: act,
                effective_since: now,
                expires_at: None,
                source: by,
                note,
            };
            new.push(self.push(order).clone());
        }
        (new, lifted)
    }

    /// How many there are of a word, from one side.
    pub fn count(&self, action_name: &str, by: OrderSource) -> usize {
        self.all
            .iter()
            .filter(|order| order.action.as_str() == action_name && order.source == by)
            .count()
    }
}

#[cfg(test)]
mod tests;
