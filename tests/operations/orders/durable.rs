//! Orders outlive the process: a stop, a kill at any moment, an upgrade; and end when they should.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use super::{World, in_force, orders, wait_standing};
use crate::support::instance::{BINARY, Gapless};
use crate::support::{SOON, eventually};

/// Where a world's state is, and how instances are started on it.
struct Home {
    world: World,
    directory: TempDir,
}

impl Home {
    fn new() -> Self {
        Self { world: World::new(), directory: TempDir::new().expect("a directory") }
    }

    fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    fn file(&self) -> PathBuf {
        self.state().join("orders.json")
    }

    fn start(&self) -> Gapless {
        let keys = format!("state_dir = \"{}\"", self.state().display());
        Gapless::start_ready(&self.world.config().keys(&keys))
    }
}

fn kill(mut gapless: Gapless) {
    gapless.signal(Signal::KILL);
    gapless.wait(SOON);
}

#[track_caller]
fn is_drained(gapless: &Gapless, home: &Home) {
    let of = |index: usize| gapless.endpoint(home.world.near[index].address());
    assert_eq!(of(0)["standing"], "drained");
    assert_eq!(of(1)["weight"], 7);
    for _ in 0..20 {
        assert!(gapless.get("/").text().starts_with("near1"));
    }
}

#[test]
fn orders_hold_over_a_kill_a_stop_a_reload_and_an_upgrade() {
    let home = Home::new();
    let gapless = home.start();
    let near = |index| home.world.near(index);
    orders(&gapless, &["drain", &near(0), "--for", "1h", "--note", "a new kernel"]);
    orders(&gapless, &["weight", &near(1), "7"]);
    let before = in_force(&gapless);
    kill(gapless);

    let mut gapless = home.start();
    is_drained(&gapless, &home);
    let after = in_force(&gapless);
    assert_eq!(after.len(), 2);
    for (then, now) in before.iter().zip(&after) {
        for field in ["id", "order", "of", "weight", "since", "until", "source", "note"] {
            let text = |value: &serde_json::Value| value[field].to_string();
            // Two readings of two clocks.
            let (then, now) = (text(then), text(now));
            let length = if matches!(field, "since" | "until") { 20 } else { then.len() };
            assert_eq!(then.get(..length), now.get(..length), "{field}");
        }
    }
    let generation = gapless.generation();
    let text = std::fs::read_to_string(gapless.file()).expect("readable");
    gapless.write(&format!("{text}\n# another\n"));
    eventually("the file is read", SOON, || gapless.generation() > generation);
    is_drained(&gapless, &home);
    gapless.signal(Signal::TERM);
    assert!(gapless.wait(SOON).success());

    let gapless = home.start();
    is_drained(&gapless, &home);
    gapless.upgrade();
    is_drained(&gapless, &home);
    gapless.wait_alone(SOON);
    orders(&gapless, &["restore", &near(0)]);
    orders(&gapless, &["restore", &near(1)]);
    assert!(in_force(&gapless).is_empty());
    let page = std::fs::read_to_string(home.file()).expect("readable");
    assert!(!page.contains("drain"), "{page}");
}

#[test]
fn without_a_state_directory_orders_hold_over_an_upgrade() {
    let world = World::new();
    let gapless = Gapless::start_ready(&world.config());
    orders(&gapless, &["evacuate", "here/a"]);
    gapless.upgrade();
    assert_eq!(gapless.endpoint(world.near[0].address())["standing"], "drained");
    let seen = world.seen_near();
    for _ in 0..20 {
        assert!(gapless.get("/").text().starts_with("far"));
    }
    assert_eq!(world.seen_near(), seen);
}

#[test]
fn an_order_ends_when_its_time_is_up_also_while_nothing_runs() {
    let home = Home::new();
    let gapless = home.start();
    orders(&gapless, &["evacuate", "here/a", "--for", "1s"]);
    wait_standing(&gapless, &home.world.near[0], "drained");
    wait_standing(&gapless, &home.world.near[0], "clear");
    assert!(in_force(&gapless).is_empty());
    assert!(gapless.log().contains("order expired: drain here/a"));
    eventually("it is written", SOON, || {
        std::fs::read_to_string(home.file()).is_ok_and(|page| !page.contains("drain"))
    });
    orders(&gapless, &["evacuate", "here/a", "--for", "1s"]);
    kill(gapless);
    std::thread::sleep(Duration::from_millis(1_100));
    let gapless = home.start();
    assert_eq!(gapless.endpoint(home.world.near[0].address())["standing"], "clear");
    assert!(gapless.get("/").text().starts_with("near"));
}

#[test]
fn a_file_that_cannot_be_read_is_said_and_kept() {
    let home = Home::new();
    std::fs::create_dir_all(home.state()).expect("made");
    std::fs::write(home.file(), b"{ half of a").expect("written");
    let gapless = home.start();
    assert!(gapless.get("/").text().starts_with("near"));
    assert!(gapless.log().contains("orders of before are lost"), "{}", gapless.log());
    let aside = std::fs::read_dir(home.state())
        .expect("readable")
        .flatten()
        .find(|entry| entry.file_name().to_string_lossy().starts_with("orders.json.broken-"));
    assert_eq!(std::fs::read(aside.expect("kept").path()).expect("readable"), b"{ half of a");
    assert!(orders(&gapless, &["evacuate", "here/a"]).contains("given"));
    kill(gapless);
    let gapless = home.start();
    assert_eq!(gapless.endpoint(home.world.near[0].address())["standing"], "drained");
}

#[test]
fn an_order_that_cannot_be_written_holds_and_says_so() {
    let home = Home::new();
    let gapless = home.start();
    // What is no file cannot be replaced by one.
    std::fs::create_dir_all(home.file().join("in the way")).expect("made");
    let said = orders(&gapless, &["evacuate", "here/a"]);
    assert!(said.contains("could NOT be written"), "{said}");
    wait_standing(&gapless, &home.world.near[0], "drained");
    assert_eq!(gapless.metric("gapless_orders_durable"), 0.0);
    std::fs::remove_dir_all(home.file()).expect("removed");
    orders(&gapless, &["restore", "here/a"]);
    assert_eq!(gapless.metric("gapless_orders_durable"), 1.0);
}

/// Orders and restores as fast as it can.
fn hammer(gapless: &Gapless, endpoint: &str) -> Child {
    let admin = gapless.admin;
    let script = format!(
        "while \"$0\" drain {endpoint} --admin {admin} && \"$0\" restore {endpoint} --admin {admin}; \
         do :; done"
    );
    let mut shell = Command::new("sh");
    shell.args(["-c", &script]).arg(BINARY).stdout(Stdio::null()).stderr(Stdio::null());
    shell.spawn().expect("a shell")
}

#[test]
fn what_is_found_after_a_kill_at_any_moment_is_whole() {
    let home = Home::new();
    for round in 0..6_u64 {
        let gapless = home.start();
        assert!(in_force(&gapless).len() <= 1);
        orders(&gapless, &["restore", &home.world.near(0)]);
        let mut child = hammer(&gapless, &home.world.near(0));
        std::thread::sleep(Duration::from_millis(150 + round * 37));
        kill(gapless);
        child.wait().expect("its end");
        let file = std::fs::read(home.file()).expect("there");
        serde_json::from_slice::<serde_json::Value>(&file).expect("whole");
    }
}
