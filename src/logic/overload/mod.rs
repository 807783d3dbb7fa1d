//! Overload protection: budgets for file descriptors and memory.
//!
//! Inputs: the limits of the process and the current usage, measured by `app`. Outputs: permits for
//! connections, and the level of memory pressure. May use: std only.

pub mod descriptor_pool;
pub mod memory_pressure;
pub mod remaining_capacity;
