//! A ledger survives SIGKILL at any moment with all acknowledged writes.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use gapless::net::ledger_store::{LedgerChange, LedgerStore};
use tempfile::TempDir;

/// The directory of the child; set only for the child.
const STORE_DIR_VAR: &str = "GAPLESS_TEST_LEDGER";

/// Number of kills, each at another moment.
const KILL_ROUNDS: u32 = 40;

/// The value that the child writes under a key.
fn value_for_key(key: u64) -> Vec<u8> {
    (0..200 + key % 300).map(|index| (index * key) as u8).collect()
}

/// The child: writes one key after another and reports those on disk.
#[test]
fn child_writes_until_killed() {
    let Some(store_dir) = std::env::var_os(STORE_DIR_VAR) else { return };
    let opened = LedgerStore::open(Path::new(&store_dir)).expect("open");
    let first = opened.contents.incidents.last().map_or(1, |(key, _)| key + 1);
    let mut stdout = std::io::stdout();
    for key in first.. {
        // A key that changes, new keys, and removed keys.
        let incidents = vec![(0, value_for_key(key)), (key, value_for_key(key))];
        let forgotten = key.checked_sub(50).filter(|&old| old > 0).into_iter().collect();
        let budgets = Some(vec![("web".to_owned(), value_for_key(key))]);
        opened
            .store
            .write(&LedgerChange { incidents, removed_incidents: forgotten, budgets })
            .expect("written");
        writeln!(stdout, "kept {key}").and_then(|()| stdout.flush()).expect("said");
    }
}

#[test]
fn acknowledged_writes_survive_kill_at_any_moment() {
    let directory = TempDir::new().expect("a directory");
    let mut last_acknowledged = 0;
    for round in 0..KILL_ROUNDS {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "ledger::crash::child_writes_until_killed", "--nocapture"])
            .env(STORE_DIR_VAR, directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let lines = BufReader::new(child.stdout.take().expect("piped"));
        let reader = std::thread::spawn(move || {
            let numbers = lines.lines().map_while(Result::ok);
            numbers.filter_map(|line| line.rsplit_once("kept ")?.1.parse::<u64>().ok()).last()
        });
        std::thread::sleep(Duration::from_millis(30 + u64::from(round * 37 % 90)));
        child.kill().expect("killed");
        child.wait().expect("its end");
        last_acknowledged = reader.join().expect("read").unwrap_or(last_acknowledged);
        let opened = LedgerStore::open(directory.path()).expect("it opens");
        assert_eq!(opened.quarantined, None, "round {round}");
        let last = opened.contents.incidents.last().map_or(0, |(key, _)| *key);
        assert!(last >= last_acknowledged, "round {round}: {last} of {last_acknowledged}");
        // A write is complete or absent.
        for (key, bytes) in &opened.contents.incidents {
            assert_eq!(*bytes, value_for_key(if *key == 0 { last } else { *key }), "round {round}");
        }
        let keys = opened.contents.incidents.iter().map(|(key, _)| *key).filter(|key| *key > 0);
        assert!(keys.eq(last.saturating_sub(49).max(1)..=last), "round {round}");
        if last > 0 {
            assert_eq!(opened.contents.budgets, [("web".to_owned(), value_for_key(last))]);
        }
    }
    assert!(
        last_acknowledged > u64::from(KILL_ROUNDS),
        "it has hardly written: {last_acknowledged}"
    );
}
