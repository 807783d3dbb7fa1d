//! A disk without room: it is said, traffic is not touched, and what was kept stays.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use super::{Home, fall, read, wait_for};
use crate::support::endpoint::Endpoint;
use crate::support::instance::Gapless;
use crate::support::{SOON, eventually};

/// A file system of its own, of a few MiB, for as long as this lives.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None` where nothing may be mounted.
    fn mount(at: PathBuf) -> Option<Self> {
        fs::create_dir_all(&at).expect("made");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"]).arg(&at);
        mount.output().is_ok_and(|output| output.status.success()).then_some(Self(at))
    }

    /// Takes all the room that is left.
    fn fill(&self) {
        let mut file = File::create(self.0.join("filler")).expect("created");
        while file.write_all(&[0; 4_096]).is_ok() {}
        while file.write_all(&[0]).is_ok() {}
    }

    fn empty(&self) {
        fs::remove_file(self.0.join("filler")).expect("removed");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a process that is being killed may still have a file open.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_costs_no_request_and_no_history() {
    let (home, one, two) = (Home::new(), Endpoint::start("one"), Endpoint::start("two"));
    let Some(disk) = SmallDisk::mount(home.state()) else {
        eprintln!("skipped: nothing can be mounted here");
        return;
    };
    let gapless = Gapless::start_ready(&home.config(&[&one, &two], &[]));
    fall(&gapless, &one);
    one.listen();
    wait_for(&gapless, "ended", "restored");
    eventually("it is kept", SOON, || read(&home.state())["endpoints"][0]["ended"] == "restored");
    let (is_over, bad, all) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Relaxed) {
                bad.fetch_add(u64::from(gapless.get("/").status != 200), Relaxed);
                all.fetch_add(1, Relaxed);
            }
        });
        disk.fill();
        fall(&gapless, &one);
        eventually("it says so", SOON, || gapless.log().contains("cannot be written"));
        assert_eq!(gapless.metric("gapless_ledger_durable"), 0.0);
        one.listen();
        wait_for(&gapless, "ended", "restored");
        assert_eq!(gapless.incidents("endpoints").len(), 2, "in memory it goes on");
        let kept = read(&home.state());
        assert_eq!(kept["endpoints"][0]["ended"], "restored", "what was kept is there");
        disk.empty();
        eventually("all of it is kept again", SOON * 3, || {
            let kept = read(&home.state());
            let ended = |at: usize| kept["endpoints"][at]["ended"] == "restored";
            gapless.metric("gapless_ledger_durable") == 1.0 && ended(0) && ended(1)
        });
        is_over.store(true, Relaxed);
    });
    assert_eq!(bad.load(Relaxed), 0, "of {} requests", all.load(Relaxed));
    assert!(all.load(Relaxed) > 10);
}
