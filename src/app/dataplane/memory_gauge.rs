//! The memory use of this process, shared between the thread that samples it and the workers.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

use crate::logic::overload::memory_pressure::MemoryPressureLevel;

/// The last sample. Control writes it; workers read the level.
#[derive(Debug, Default)]
pub struct MemoryGauge {
    level: AtomicU8,
    used_bytes: AtomicU64,
    limit_bytes: AtomicU64,
    refusals: AtomicU64,
}

impl MemoryGauge {
    pub fn level(&self) -> MemoryPressureLevel {
        MemoryPressureLevel::ALL[usize::from(self.level.load(Relaxed))]
    }

    /// Counts a request that was refused for lack of memory.
    pub fn record_refusal(&self) {
        self.refusals.fetch_add(1, Relaxed);
    }

    pub fn refusals(&self) -> u64 {
        self.refusals.load(Relaxed)
    }

    /// Resident memory in bytes.
    pub fn used_bytes(&self) -> u64 {
        self.used_bytes.load(Relaxed)
    }

    /// Memory limit in bytes, if there is one.
    pub fn limit_bytes(&self) -> Option<u64> {
        Some(self.limit_bytes.load(Relaxed)).filter(|&limit| limit > 0)
    }

    /// Stores a sample: the resident bytes, and the limit if there is one.
    pub fn set_usage(&self, used_bytes: u64, limit_bytes: Option<u64>) {
        self.used_bytes.store(used_bytes, Relaxed);
        self.limit_bytes.store(limit_bytes.unwrap_or_default(), Relaxed);
    }

    pub fn set_level(&self, level: MemoryPressureLevel) {
        self.level.store(level as u8, Relaxed);
    }
}
