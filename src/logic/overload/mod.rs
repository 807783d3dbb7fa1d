//! Overload protection: budgets for file descriptors and memory, and the capacity that remains
//! after a loss.
//!
//! Inputs: the limits of the process, and usage as measured by `app`. Outputs: permits for
//! connections, the level of memory pressure, and the reason why a drill or an order would overload
//! a pool. May use: `model`.

pub mod descriptor_pool;
pub mod memory_pressure;
pub mod remaining_capacity;
