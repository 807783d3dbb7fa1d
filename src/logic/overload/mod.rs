//! TODO-ROOM logic/overload

pub mod descriptor_pool;
pub mod memory_pressure;
pub mod remaining_capacity;
