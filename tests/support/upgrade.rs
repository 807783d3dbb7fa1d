//! Upgrades: processes that took over from the one that a test started.

use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::instance::Gapless;
use super::{DEFAULT_TIMEOUT, eventually, poll_until};

impl Gapless {
    /// `/api/v1/process` of the process that answers.
    #[track_caller]
    pub(crate) fn process(&self) -> Value {
        self.api_json("/api/v1/process")
    }

    /// The id of the process that answers.
    #[track_caller]
    pub(crate) fn pid(&self) -> Pid {
        let pid = self.process()["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
        pid.and_then(Pid::from_raw).expect("a process")
    }

    /// Upgrades the process, waits until its successor answers, and returns its id.
    #[track_caller]
    pub(crate) fn upgrade(&self) -> Pid {
        let before = self.process();
        let old = self.pid();
        kill_process(old, Signal::USR2).expect("signalled");
        let upgrades = before["upgrades"].as_u64().expect("a number") + 1;
        poll_until("another process answers", 3 * DEFAULT_TIMEOUT, || {
            let now = self.process();
            (now["upgrades"] == upgrades).then(|| self.pid())
        })
    }

    /// Starts an upgrade that must fail, and returns the reason.
    #[track_caller]
    pub(crate) fn upgrade_expecting_failure(&self) -> String {
        let (pid, before) = (self.pid(), self.process()["failed_upgrade"].clone());
        kill_process(pid, Signal::USR2).expect("signalled");
        let failed = poll_until("it has failed", 3 * DEFAULT_TIMEOUT, || {
            Some(self.process()["failed_upgrade"].clone()).filter(|failed| *failed != before)
        });
        assert_eq!(self.pid(), pid, "the old one stays");
        failed["why"].as_str().expect("text").to_owned()
    }

    /// Waits until one process is left.
    #[track_caller]
    pub(crate) fn wait_for_single_process(&self, timeout: std::time::Duration) {
        let pid = self.pid();
        eventually("the others have ended", timeout, || running_pids(self.config_file()) == [pid]);
    }
}

/// The ids of the processes that were started with this file.
pub(crate) fn running_pids(file: &Path) -> Vec<Pid> {
    let file = file.as_os_str().as_encoded_bytes();
    let processes = std::fs::read_dir("/proc").expect("processes").flatten();
    let pid_if_matching = |entry: std::fs::DirEntry| {
        let pid = entry.file_name().to_str()?.parse().ok().and_then(Pid::from_raw)?;
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        line.split(|byte| *byte == 0).any(|word| word == file).then_some(pid)
    };
    processes.filter_map(pid_if_matching).collect()
}
