//! How busy the machine was.

use std::fs;
use std::io;
use std::thread::available_parallelism;

use crate::parse::{CoreTicks, core_ticks};

/// What all cores have done since boot.
#[derive(Debug)]
pub(crate) struct Cores(Vec<CoreTicks>);

impl Cores {
    /// Reads `/proc/stat`.
    pub(crate) fn read() -> io::Result<Self> {
        let stat = fs::read_to_string("/proc/stat")?;
        let cores = u32::try_from(available_parallelism()?.get()).unwrap_or(u32::MAX);
        Ok(Self((0..cores).filter_map(|core| core_ticks(&stat, core)).collect()))
    }

    /// The share of all cores' time that somebody used since then.
    pub(crate) fn busy_percent(&self) -> io::Result<f64> {
        let now = Self::read()?.0;
        let busy = now.iter().zip(&self.0).map(|(now, then)| now.busy_percent_since(*then));
        Ok(busy.sum::<f64>() / self.0.len().max(1) as f64)
    }
}
