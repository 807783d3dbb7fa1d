//! The environment of the figures.

use std::fs;
use std::io;
use std::thread::available_parallelism;

use serde::Serialize;

use crate::peer::InstalledProxy;

/// The machine and the programs.
#[derive(Debug, Serialize)]
pub(crate) struct BenchEnvironment {
    /// Release of the kernel.
    pub(crate) kernel: String,
    pub(crate) cpu_model: String,
    /// The number of usable cores.
    pub(crate) cores: usize,
    /// The load averages at the start; other work on the machine distorts the figures.
    pub(crate) load_averages: String,
    pub(crate) congestion_control: String,
    /// The congestion control of cases with large bodies.
    pub(crate) congestion_control_of_bodies: String,
    /// The version of each program.
    pub(crate) versions: Vec<String>,
}

impl BenchEnvironment {
    pub(crate) fn collect(
        installed: &[InstalledProxy],
        other_versions: Vec<String>,
        congestion_control: String,
        has_namespace: bool,
    ) -> io::Result<Self> {
        let peer_versions =
            installed.iter().map(|found| format!("{}: {}", found.label, found.version));
        let averages = fs::read_to_string("/proc/loadavg")?;
        let bulk_congestion_control = if has_namespace { "cubic" } else { &congestion_control };
        Ok(Self {
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            cpu_model: cpu_model(&fs::read_to_string("/proc/cpuinfo")?),
            cores: available_parallelism()?.get(),
            load_averages: averages.split(' ').take(3).collect::<Vec<_>>().join(" "),
            congestion_control_of_bodies: bulk_congestion_control.to_owned(),
            congestion_control,
            versions: peer_versions.chain(other_versions).collect(),
        })
    }
}

fn cpu_model(cpuinfo: &str) -> String {
    cpuinfo
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.trim() == "model name")
        .map_or_else(|| "unknown".to_owned(), |(_, model)| model.trim().to_owned())
}
