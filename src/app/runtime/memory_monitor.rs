//! Samples the resident memory of this process and derives the memory pressure level from its
//! limit.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::param::page_size;
use tokio::time::{MissedTickBehavior, interval};

use crate::config::model::MemoryLimit;
use crate::logic::overload::memory_pressure::{
    MemoryPressureLevel, MemoryPressureTracker, MemoryUsage,
};

use crate::app::dataplane::shared::InstanceShared;

/// Interval between two samples.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(100);

/// Limit where no control group sets one, in percent of the machine's memory.
const MACHINE_MEMORY_PERCENT: u64 = 80;

/// A version 1 control group without a limit reports a value above this.
const UNLIMITED_BYTES: u64 = 1 << 60;

/// Samples memory until the control thread ends.
pub async fn watch(shared: Arc<InstanceShared>) {
    let statm = match File::open("/proc/self/statm") {
        Ok(statm) => statm,
        Err(error) => {
            tracing::warn!(%error, "memory is not limited: /proc/self/statm cannot be read");
            return;
        }
    };
    let system = system_limit_bytes();
    let mut tracker = MemoryPressureTracker::new(Instant::now());
    let mut ticks = interval(SAMPLE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let limit = match shared.http_policy.load().limits.memory {
            MemoryLimit::System => system,
            MemoryLimit::Bytes(bytes) => Some(bytes),
            MemoryLimit::Unlimited => None,
        };
        let Ok(used) = resident_bytes(&statm) else { continue };
        let pressure = &shared.pressure;
        pressure.set_usage(used, limit);
        let open = shared.descriptors.open_count();
        let level = limit.map_or(MemoryPressureLevel::Calm, |limit| {
            let usage = MemoryUsage { used_bytes: used, limit_bytes: limit };
            tracker.update(usage, open, Instant::now())
        });
        let before = pressure.level();
        if level != before {
            pressure.set_level(level);
            let (level, before) = (level.as_str(), before.as_str());
            tracing::warn!(used, limit, before, level, "memory pressure level changed");
        }
    }
}

/// Resident memory in bytes.
fn resident_bytes(statm: &File) -> io::Result<u64> {
    let mut text = [0; 128];
    let read = statm.read_at(&mut text, 0)?;
    let text = str::from_utf8(&text[..read]).unwrap_or_default();
    let pages = text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.map(|pages| pages * page_size() as u64).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The lowest limit of the control groups, or a share of the machine's memory.
fn system_limit_bytes() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let files = cgroup_files(&groups);
    let limits = files.iter().filter_map(|file| fs::read_to_string(file).ok()?.trim().parse().ok());
    let machine =
        fs::read_to_string("/proc/meminfo").ok().and_then(|info| machine_memory_bytes(&info));
    let machine = machine.map(|bytes| bytes / 100 * MACHINE_MEMORY_PERCENT);
    limits.filter(|&bytes: &u64| bytes < UNLIMITED_BYTES).chain(machine).min()
}

/// Files with the memory limits of these control groups (`/proc/self/cgroup`, versions 1 and 2).
/// The limits of ancestor groups apply too.
fn cgroup_files(groups: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        let (root, file) = if controllers.is_empty() {
            ("/sys/fs/cgroup", "memory.max")
        } else if controllers.split(',').any(|controller| controller == "memory") {
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
        } else {
            continue;
        };
        let group = Path::new(root).join(path.trim_start_matches('/'));
        let above = group.ancestors().take_while(|above| above.starts_with(root));
        files.extend(above.map(|above| above.join(file)));
    }
    files
}

/// The machine's memory in bytes, parsed from `/proc/meminfo`.
fn machine_memory_bytes(info: &str) -> Option<u64> {
    let line = info.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_of_process_is_read() {
        let statm = File::open("/proc/self/statm").expect("this process");
        let used = resident_bytes(&statm).expect("a number");
        assert!(used > 1024 * 1024, "{used}");
        assert!(system_limit_bytes().is_some_and(|limit| limit > used));
    }

    #[test]
    fn cgroup_is_limited_by_its_ancestors() {
        let shown = |groups: &str| -> Vec<String> {
            cgroup_files(groups).iter().map(|file| file.display().to_string()).collect()
        };
        assert_eq!(
            shown("0::/a/b\n"),
            ["/a/b", "/a", ""].map(|group| format!("/sys/fs/cgroup{group}/memory.max"))
        );
        assert_eq!(shown("0::/\n"), ["/sys/fs/cgroup/memory.max"]);
        assert_eq!(
            shown("5:cpu,cpuacct:/x\n4:memory:/x\n"),
            ["/x", ""].map(|group| format!("/sys/fs/cgroup/memory{group}/memory.limit_in_bytes"))
        );
        assert!(shown("nonsense").is_empty());
    }

    #[test]
    fn machine_memory_is_parsed_from_meminfo() {
        assert_eq!(
            machine_memory_bytes("MemTotal:       16384 kB\nMemFree: 1 kB\n"),
            Some(16 * 1024 * 1024)
        );
        assert_eq!(machine_memory_bytes("MemFree: 1 kB\n"), None);
    }
}
