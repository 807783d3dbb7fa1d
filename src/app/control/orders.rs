//! Operators' orders hold over restarts and upgrades.

use std::time::Instant;

use crate::app::orders::keeper::{self, Kept};
use crate::logic::director::Input;

use super::Control;

impl Control {
    /// Has what operators have ordered hold over a restart.
    pub(super) fn keep_orders(&self) {
        if self.board.left.is_cancelled() {
            return;
        }
        let orders = keeper::kept(self.board.director.borrow().orders(), &self.board.clock);
        // Whoever has ordered something waits for the answer to that.
        let _ = self.board.keeper.keep(orders);
    }

    /// Orders of before hold again: those of a predecessor, or those in the state directory.
    pub(super) fn resume_orders(&self, left: Option<&[Kept]>) {
        let clock = &self.board.clock;
        let orders = match (left, &self.running.state_dir) {
            (Some(left), _) => {
                let (orders, lost) = keeper::read_kept(left, clock);
                if lost > 0 {
                    tracing::error!(lost, "orders of the other process are not understood");
                }
                orders
            }
            (None, Some(directory)) => keeper::load(directory, clock),
            (None, None) => return,
        };
        self.board.director.borrow_mut().handle(Input::Orders(orders), Instant::now());
    }
}
