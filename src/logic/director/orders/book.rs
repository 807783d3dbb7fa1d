//! The orders in force, the endpoints that they drain, and the next time at which an order changes.

use std::time::Instant;

use crate::logic::model::id::EndpointId;
use crate::logic::orders::OperatorOrders;

#[derive(Debug, Default)]
pub(crate) struct OrderBook {
    orders: OperatorOrders,
    /// Endpoints whose drain has stages to come.
    draining: Vec<EndpointId>,
    timer: Option<Instant>,
}

impl OrderBook {
    /// Starts with orders that were in force before; no endpoint drains yet.
    pub(crate) fn new(orders: OperatorOrders) -> Self {
        Self { orders, ..Self::default() }
    }

    pub(crate) fn orders(&self) -> &OperatorOrders {
        &self.orders
    }

    pub(crate) fn orders_mut(&mut self) -> &mut OperatorOrders {
        &mut self.orders
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.timer
    }

    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.timer.is_some_and(|due| due <= now)
    }

    pub(crate) fn clear_draining(&mut self) {
        self.draining.clear();
    }

    pub(crate) fn add_draining(&mut self, id: EndpointId) {
        self.draining.push(id);
    }

    pub(crate) fn take_draining(&mut self) -> Vec<EndpointId> {
        std::mem::take(&mut self.draining)
    }

    /// The endpoints that still drain, and the earliest update that one of them needs.
    pub(crate) fn set_draining(&mut self, draining: Vec<EndpointId>, next: Option<Instant>) {
        self.draining = draining;
        self.timer = [self.orders.next_expiry(), next].into_iter().flatten().min();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn book_is_due_at_the_next_update_of_a_drain() {
        let (mut book, now) = (OrderBook::default(), Instant::now());
        let id = EndpointId::new(1, 0);
        book.set_draining(vec![id], Some(now));
        assert!(book.is_due(now));
        assert_eq!(book.take_draining(), [id]);
        book.set_draining(Vec::new(), None);
        assert_eq!(book.next_timeout(), None);
    }
}
