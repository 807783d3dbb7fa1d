//! Overload protection: budgets for file descriptors and memory, and the capacity that remains
//! after a loss.
//!
//! Inputs: the limits of the process, and usage as measured by `app`. Outputs: permits for
//! connections, the level of memory pressure, and the reason why a drill, an order or a loss would
//! overload a pool. May use: `model`, `steering`.

pub mod descriptor_pool;
pub mod memory_pressure;
pub mod pool_loss;
pub mod remaining_capacity;
