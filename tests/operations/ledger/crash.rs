//! A process that is killed at any moment has kept what it has said that it has kept.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use gapless::net::store::{Change, Store};
use tempfile::TempDir;

/// Where the child writes; only the child has it.
const PLACE: &str = "GAPLESS_TEST_LEDGER";

/// Kills, each at another moment.
const ROUNDS: u32 = 40;

/// What the child writes under a key.
fn value(key: u64) -> Vec<u8> {
    (0..200 + key % 300).map(|index| (index * key) as u8).collect()
}

/// The child: writes one key after the other, and says which are on the disk.
#[test]
fn writes_until_it_is_killed() {
    let Some(place) = std::env::var_os(PLACE) else { return };
    let opened = Store::open(Path::new(&place)).expect("open");
    let first = opened.contents.incidents.last().map_or(1, |(key, _)| key + 1);
    let mut out = std::io::stdout();
    for key in first.. {
        // What is changed again and again, what is new, and what goes.
        let incidents = vec![(0, value(key)), (key, value(key))];
        let forgotten = key.checked_sub(50).filter(|&old| old > 0).into_iter().collect();
        let budgets = Some(vec![("web".to_owned(), value(key))]);
        opened.store.write(&Change { incidents, forgotten, budgets }).expect("written");
        writeln!(out, "kept {key}").and_then(|()| out.flush()).expect("said");
    }
}

#[test]
fn what_was_said_to_be_kept_is_there_after_a_kill_at_any_moment() {
    let directory = TempDir::new().expect("a directory");
    let mut kept = 0;
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "ledger::crash::writes_until_it_is_killed", "--nocapture"])
            .env(PLACE, directory.path())
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
        kept = reader.join().expect("read").unwrap_or(kept);
        let opened = Store::open(directory.path()).expect("it opens");
        assert_eq!(opened.aside, None, "round {round}");
        let last = opened.contents.incidents.last().map_or(0, |(key, _)| *key);
        assert!(last >= kept, "round {round}: {last} of {kept}");
        // All of a write or nothing of it.
        for (key, bytes) in &opened.contents.incidents {
            assert_eq!(*bytes, value(if *key == 0 { last } else { *key }), "round {round}");
        }
        let keys = opened.contents.incidents.iter().map(|(key, _)| *key).filter(|key| *key > 0);
        assert!(keys.eq(last.saturating_sub(49).max(1)..=last), "round {round}");
        if last > 0 {
            assert_eq!(opened.contents.budgets, [("web".to_owned(), value(last))]);
        }
    }
    assert!(kept > u64::from(ROUNDS), "it has hardly written: {kept}");
}
