//! Orders survive a stop, a kill at any moment and an upgrade, and expire in time.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use super::{TwoZoneFixture, active_orders, run_order, wait_for_standing};
use crate::support::instance::{BINARY, Gapless};
use crate::support::{DEFAULT_TIMEOUT, eventually};

/// A state directory, and instances that use it.
struct DurableOrdersFixture {
    zones: TwoZoneFixture,
    directory: TempDir,
}

impl DurableOrdersFixture {
    fn new() -> Self {
        Self { zones: TwoZoneFixture::new(), directory: TempDir::new().expect("a directory") }
    }

    fn state_dir(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    fn orders_file(&self) -> PathBuf {
        self.state_dir().join("orders.json")
    }

    fn start(&self) -> Gapless {
        let keys = format!("state_dir = \"{}\"", self.state_dir().display());
        Gapless::start_ready(&self.zones.config().keys(&keys))
    }
}

fn kill_instance(mut gapless: Gapless) {
    gapless.signal(Signal::KILL);
    gapless.wait_for_exit(DEFAULT_TIMEOUT);
}

#[track_caller]
fn assert_drained(gapless: &Gapless, fixture: &DurableOrdersFixture) {
    let near_status = |index: usize| gapless.endpoint(fixture.zones.near[index].address());
    assert_eq!(near_status(0)["standing"], "drained");
    assert_eq!(near_status(1)["weight"], 7);
    for _ in 0..20 {
        assert!(gapless.get("/").text().starts_with("near1"));
    }
}

#[test]
fn orders_survive_kill_stop_reload_and_upgrade() {
    let fixture = DurableOrdersFixture::new();
    let gapless = fixture.start();
    let near_address = |index| fixture.zones.near_address(index);
    run_order(&gapless, &["drain", &near_address(0), "--for", "1h", "--note", "a new kernel"]);
    run_order(&gapless, &["weight", &near_address(1), "7"]);
    let before = active_orders(&gapless);
    kill_instance(gapless);

    let mut gapless = fixture.start();
    assert_drained(&gapless, &fixture);
    let after = active_orders(&gapless);
    assert_eq!(after.len(), 2);
    for (then, now) in before.iter().zip(&after) {
        for field in ["id", "order", "of", "weight", "since", "until", "source", "note"] {
            let text = |value: &serde_json::Value| value[field].to_string();
            // Two clocks are read at two times.
            let (then, now) = (text(then), text(now));
            let length = if matches!(field, "since" | "until") { 20 } else { then.len() };
            assert_eq!(then.get(..length), now.get(..length), "{field}");
        }
    }
    let generation = gapless.generation();
    let text = std::fs::read_to_string(gapless.config_file()).expect("readable");
    gapless.write_config(&format!("{text}\n# another\n"));
    eventually("the file is read", DEFAULT_TIMEOUT, || gapless.generation() > generation);
    assert_drained(&gapless, &fixture);
    gapless.signal(Signal::TERM);
    assert!(gapless.wait_for_exit(DEFAULT_TIMEOUT).success());

    let gapless = fixture.start();
    assert_drained(&gapless, &fixture);
    gapless.upgrade();
    assert_drained(&gapless, &fixture);
    gapless.wait_for_single_process(DEFAULT_TIMEOUT);
    run_order(&gapless, &["restore", &near_address(0)]);
    run_order(&gapless, &["restore", &near_address(1)]);
    assert!(active_orders(&gapless).is_empty());
    let file_text = std::fs::read_to_string(fixture.orders_file()).expect("readable");
    assert!(!file_text.contains("drain"), "{file_text}");
}

#[test]
fn orders_without_state_dir_survive_upgrade() {
    let fixture = TwoZoneFixture::new();
    let gapless = Gapless::start_ready(&fixture.config());
    run_order(&gapless, &["evacuate", "here/a"]);
    gapless.upgrade();
    assert_eq!(gapless.endpoint(fixture.near[0].address())["standing"], "drained");
    let near_requests = fixture.near_request_count();
    for _ in 0..20 {
        assert!(gapless.get("/").text().starts_with("far"));
    }
    assert_eq!(fixture.near_request_count(), near_requests);
}

#[test]
fn order_expires_even_while_no_process_runs() {
    let fixture = DurableOrdersFixture::new();
    let gapless = fixture.start();
    run_order(&gapless, &["evacuate", "here/a", "--for", "1s"]);
    wait_for_standing(&gapless, &fixture.zones.near[0], "drained");
    wait_for_standing(&gapless, &fixture.zones.near[0], "clear");
    assert!(active_orders(&gapless).is_empty());
    assert!(gapless.log().contains("order expired: drain here/a"));
    eventually("it is written", DEFAULT_TIMEOUT, || {
        std::fs::read_to_string(fixture.orders_file()).is_ok_and(|page| !page.contains("drain"))
    });
    run_order(&gapless, &["evacuate", "here/a", "--for", "1s"]);
    kill_instance(gapless);
    std::thread::sleep(Duration::from_millis(1_100));
    let gapless = fixture.start();
    assert_eq!(gapless.endpoint(fixture.zones.near[0].address())["standing"], "clear");
    assert!(gapless.get("/").text().starts_with("near"));
}

#[test]
fn unreadable_orders_file_is_reported_and_kept() {
    let fixture = DurableOrdersFixture::new();
    std::fs::create_dir_all(fixture.state_dir()).expect("made");
    std::fs::write(fixture.orders_file(), b"{ half of a").expect("written");
    let gapless = fixture.start();
    assert!(gapless.get("/").text().starts_with("near"));
    assert!(gapless.log().contains("saved orders are lost"), "{}", gapless.log());
    let quarantined = std::fs::read_dir(fixture.state_dir())
        .expect("readable")
        .flatten()
        .find(|entry| entry.file_name().to_string_lossy().starts_with("orders.json.broken-"));
    assert_eq!(std::fs::read(quarantined.expect("kept").path()).expect("readable"), b"{ half of a");
    assert!(run_order(&gapless, &["evacuate", "here/a"]).contains("given"));
    kill_instance(gapless);
    let gapless = fixture.start();
    assert_eq!(gapless.endpoint(fixture.zones.near[0].address())["standing"], "drained");
}

#[test]
fn order_that_cannot_be_written_applies_with_warning() {
    let fixture = DurableOrdersFixture::new();
    let gapless = fixture.start();
    // A directory cannot be replaced by a file.
    std::fs::create_dir_all(fixture.orders_file().join("in the way")).expect("made");
    let output = run_order(&gapless, &["evacuate", "here/a"]);
    assert!(output.contains("could NOT be written"), "{output}");
    wait_for_standing(&gapless, &fixture.zones.near[0], "drained");
    assert_eq!(gapless.metric("gapless_orders_durable"), 0.0);
    std::fs::remove_dir_all(fixture.orders_file()).expect("removed");
    run_order(&gapless, &["restore", "here/a"]);
    assert_eq!(gapless.metric("gapless_orders_durable"), 1.0);
}

/// Issues orders and restorations as fast as possible.
fn drain_and_restore_repeatedly(gapless: &Gapless, endpoint: &str) -> Child {
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
fn orders_file_is_intact_after_kill_at_any_moment() {
    let fixture = DurableOrdersFixture::new();
    for round in 0..6_u64 {
        let gapless = fixture.start();
        assert!(active_orders(&gapless).len() <= 1);
        run_order(&gapless, &["restore", &fixture.zones.near_address(0)]);
        let mut child = drain_and_restore_repeatedly(&gapless, &fixture.zones.near_address(0));
        std::thread::sleep(Duration::from_millis(150 + round * 37));
        kill_instance(gapless);
        child.wait().expect("its end");
        let file = std::fs::read(fixture.orders_file()).expect("there");
        serde_json::from_slice::<serde_json::Value>(&file).expect("whole");
    }
}
