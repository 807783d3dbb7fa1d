//! Keeps operators' orders over restarts and upgrades.

use std::time::Instant;

use crate::app::control::orders::order_store;
use crate::app::control::orders::order_store::StoredOrder;
use crate::logic::director::Input;

use super::ControlLoop;

impl ControlLoop {
    /// Writes the orders to the state directory, unless another process has taken over.
    pub(super) fn save_orders(&self) {
        if self.admin_state.handed_over.is_cancelled() {
            return;
        }
        let orders = order_store::to_stored_orders(
            self.admin_state.director().orders(),
            &self.admin_state.clock,
        );
        // The admin request that gave an order waits for its own write.
        let _ = self.admin_state.order_store.save(orders);
    }

    /// Restores the orders of the predecessor, or else those in the state directory.
    pub(super) fn restore_orders(&self, inherited: Option<&[StoredOrder]>) {
        let clock = &self.admin_state.clock;
        let orders = match (inherited, &self.running_config.state_dir) {
            (Some(stored), _) => {
                let (orders, lost) = order_store::from_stored_orders(stored, clock);
                if lost > 0 {
                    tracing::error!(lost, "orders of the predecessor cannot be parsed");
                }
                orders
            }
            (None, Some(directory)) => order_store::load_orders(directory, clock),
            (None, None) => return,
        };
        self.admin_state.director_mut().handle(Input::LoadOrders(orders), Instant::now());
    }
}
