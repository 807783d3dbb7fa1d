//! The turn of a director, as every driver runs it.
//!
//! A driver owns the clock and the side effects: the control thread, a drill, the simulated world,
//! a benchmark and the tests differ in these alone. One loop for all of them keeps the order of
//! outputs, and the confirmation of each publication, the same everywhere.

use std::ops::DerefMut;
use std::time::Instant;

use super::{Director, Input, Output};

/// Runs a [`Director`] and applies its outputs.
pub trait DirectorDriver {
    /// Outputs of one turn at most; the rest is left for the next turn.
    const MAX_TURN_OUTPUTS: usize = usize::MAX;

    /// The director; `None` if an output has ended it, as that of a drill may be. The guard is
    /// released before an output is applied, so that [`DirectorDriver::apply_output`] may borrow
    /// the director again.
    fn director(&mut self) -> Option<impl DerefMut<Target = Director>>;

    /// The driver's clock: real or simulated.
    fn now(&self) -> Instant;

    /// Applies one output. A snapshot is stored before this returns, because
    /// [`Input::Published`] follows.
    fn apply_output(&mut self, output: Output);

    /// Runs one turn: what is due by now, then all outputs.
    fn drive(&mut self) {
        let now = self.now();
        if let Some(mut director) = self.director() {
            director.handle_timeout(now);
        }
        self.drain_outputs();
    }

    /// Applies the outputs of inputs that were handed in; timers are left alone.
    fn drain_outputs(&mut self) {
        for _ in 0..Self::MAX_TURN_OUTPUTS {
            let Some(output) = self.director().and_then(|mut one| one.poll_output()) else {
                return;
            };
            let is_publication = matches!(output, Output::Publish(_));
            self.apply_output(output);
            if is_publication {
                let now = self.now();
                if let Some(mut director) = self.director() {
                    director.handle(Input::Published, now);
                }
            }
        }
    }
}
