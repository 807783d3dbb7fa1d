//! How much memory this process uses of what it may, and what is done about it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rustix::param::page_size;
use tokio::time::{MissedTickBehavior, interval};

use crate::config::model::Memory;
use crate::logic::pressure::{Level, Watch};

use super::shared::Shared;

/// How often it is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Where nothing else bounds it, this share of the machine's memory does, in percent.
const SHARE_OF_MACHINE: u64 = 80;

/// A group without a bound has one of nearly this, in version 1.
const NO_BOUND: u64 = 1 << 60;

/// The memory of this process, as control last saw it; workers go by the level.
#[derive(Debug, Default)]
pub struct Pressure {
    level: AtomicU8,
    used: AtomicU64,
    /// Zero is none.
    bound: AtomicU64,
    refused: AtomicU64,
}

impl Pressure {
    /// What is to be done.
    #[must_use]
    pub fn level(&self) -> Level {
        Level::ALL[usize::from(self.level.load(Relaxed))]
    }

    /// A request was refused for it.
    pub fn refused(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    /// Requests that were.
    #[must_use]
    pub fn refusals(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    /// Bytes that are used.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used.load(Relaxed)
    }

    /// Bytes that may be, if there is a bound.
    #[must_use]
    pub fn bound(&self) -> Option<u64> {
        Some(self.bound.load(Relaxed)).filter(|&bound| bound > 0)
    }
}

/// Looks at it for as long as control runs.
pub async fn watch(shared: Arc<Shared>) {
    let statm = match File::open("/proc/self/statm") {
        Ok(statm) => statm,
        Err(error) => {
            tracing::warn!(%error, "memory is not bounded: it cannot be seen");
            return;
        }
    };
    let system = of_system();
    let mut watch = Watch::new(Instant::now());
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let bound = match shared.manners.load().limits.memory {
            Memory::System => system,
            Memory::Bytes(bytes) => Some(bytes),
            Memory::Unlimited => None,
        };
        let Ok(used) = resident(&statm) else { continue };
        let pressure = &shared.pressure;
        pressure.used.store(used, Relaxed);
        pressure.bound.store(bound.unwrap_or_default(), Relaxed);
        let open = shared.descriptors.open();
        let look = |bound| watch.look((used, bound), open, Instant::now());
        let level = bound.map_or(Level::Calm, look);
        let before = pressure.level();
        if level != before {
            pressure.level.store(level as u8, Relaxed);
            let (level, before) = (level.as_str(), before.as_str());
            tracing::warn!(used, bound, before, level, "memory: what is done about it has changed");
        }
    }
}

/// Resident memory, in bytes.
fn resident(statm: &File) -> io::Result<u64> {
    let mut text = [0; 128];
    let read = statm.read_at(&mut text, 0)?;
    let text = str::from_utf8(&text[..read]).unwrap_or_default();
    let pages = text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.map(|pages| pages * page_size() as u64).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The bound that the system has set: that of the control group, or a share of the machine.
fn of_system() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let files = group_files(&groups);
    let bounds = files.iter().filter_map(|file| fs::read_to_string(file).ok()?.trim().parse().ok());
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|info| total(&info));
    let machine = machine.map(|bytes| bytes / 100 * SHARE_OF_MACHINE);
    bounds.filter(|&bytes: &u64| bytes < NO_BOUND).chain(machine).min()
}

/// The files that may bound the memory of a process in these control groups: of version 2, and of
/// version 1. Each group is bounded by those above it, too.
fn group_files(groups: &str) -> Vec<PathBuf> {
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

/// The machine's memory in bytes, as `/proc/meminfo` says it.
fn total(info: &str) -> Option<u64> {
    let line = info.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_is_seen() {
        let statm = File::open("/proc/self/statm").expect("this process");
        let used = resident(&statm).expect("a number");
        assert!(used > 1024 * 1024, "{used}");
        assert!(of_system().is_some_and(|bound| bound > used));
    }

    #[test]
    fn a_group_is_bounded_by_all_above_it() {
        let shown = |groups: &str| -> Vec<String> {
            group_files(groups).iter().map(|file| file.display().to_string()).collect()
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
    fn the_machine_says_what_it_has() {
        assert_eq!(total("MemTotal:       16384 kB\nMemFree: 1 kB\n"), Some(16 * 1024 * 1024));
        assert_eq!(total("MemFree: 1 kB\n"), None);
    }
}
