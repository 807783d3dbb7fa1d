//! A full disk is reported, does not affect traffic, and loses nothing that was kept.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use super::{LedgerDirectory, fail_endpoint, read_incidents, wait_for_incident};
use crate::support::endpoint::TestEndpoint;
use crate::support::instance::Gapless;
use crate::support::{DEFAULT_TIMEOUT, eventually};

/// A mounted file system of a few MiB; unmounted when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None` without the permission to mount.
    fn mount(at: PathBuf) -> Option<Self> {
        fs::create_dir_all(&at).expect("made");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"]).arg(&at);
        mount.output().is_ok_and(|output| output.status.success()).then_some(Self(at))
    }

    /// Fills the file system.
    fn fill(&self) {
        let mut file = File::create(self.0.join("filler")).expect("created");
        while file.write_all(&[0; 4_096]).is_ok() {}
        while file.write_all(&[0]).is_ok() {}
    }

    fn remove_filler(&self) {
        fs::remove_file(self.0.join("filler")).expect("removed");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily, because a killed process may still have a file open.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn full_disk_loses_no_request_and_no_history() {
    let (ledger_dir, one, two) =
        (LedgerDirectory::new(), TestEndpoint::start("one"), TestEndpoint::start("two"));
    let Some(disk) = SmallDisk::mount(ledger_dir.state_dir()) else {
        eprintln!("skipped: nothing can be mounted here");
        return;
    };
    let gapless = Gapless::start_ready(&ledger_dir.config(&[&one, &two], &[]));
    fail_endpoint(&gapless, &one);
    one.listen();
    wait_for_incident(&gapless, "ended", "restored");
    eventually("it is kept", DEFAULT_TIMEOUT, || {
        read_incidents(&ledger_dir.state_dir())["endpoints"][0]["ended"] == "restored"
    });
    let (should_stop, failed_requests, total_requests) =
        (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !should_stop.load(Relaxed) {
                failed_requests.fetch_add(u64::from(gapless.get("/").status != 200), Relaxed);
                total_requests.fetch_add(1, Relaxed);
            }
        });
        disk.fill();
        fail_endpoint(&gapless, &one);
        eventually("it says so", DEFAULT_TIMEOUT, || gapless.log().contains("cannot be written"));
        assert_eq!(gapless.metric("gapless_ledger_durable"), 0.0);
        one.listen();
        wait_for_incident(&gapless, "ended", "restored");
        assert_eq!(gapless.incidents("endpoints").len(), 2, "in memory it goes on");
        let stored = read_incidents(&ledger_dir.state_dir());
        assert_eq!(stored["endpoints"][0]["ended"], "restored", "what was kept is there");
        disk.remove_filler();
        eventually("all of it is kept again", DEFAULT_TIMEOUT * 3, || {
            let stored = read_incidents(&ledger_dir.state_dir());
            let is_restored = |at: usize| stored["endpoints"][at]["ended"] == "restored";
            gapless.metric("gapless_ledger_durable") == 1.0 && is_restored(0) && is_restored(1)
        });
        should_stop.store(true, Relaxed);
    });
    assert_eq!(failed_requests.load(Relaxed), 0, "of {} requests", total_requests.load(Relaxed));
    assert!(total_requests.load(Relaxed) > 10);
}
