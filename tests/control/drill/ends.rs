//! A drill ends by itself, whatever becomes of who asked for it and of what is real.

use std::time::{Duration, Instant};

use super::{World, number};
use crate::support::client::Client;
use crate::support::load::Load;
use crate::support::{SOON, eventually};

#[test]
fn it_ends_without_the_shell_that_began_it() {
    let world = World::new();
    let load = Load::start(world.gapless.address, 2, Duration::from_millis(5));
    let mut operator = world.spawn(&["--fault", "hang", "--share", "50%", "--for", "3s"]);
    world.reaches("failing");
    operator.kill().expect("SIGKILL");
    let _ = operator.wait();
    let killed = Instant::now();
    let drill = world.reaches("over");
    // The lane is closed in time; the judgement may wait for the prediction.
    assert!(number(&drill["measured"]["lasted_ms"]) < 3_500.0, "{drill:#}");
    assert!(killed.elapsed() < Duration::from_secs(100));
    let before = world.seen_near();
    eventually("the first zone serves again", SOON, || world.seen_near() > before + 20);
    assert_eq!(load.stop().failures, Vec::<String>::new());
    world.is_untouched();
}

#[test]
fn requests_that_hang_at_its_end_are_sent() {
    // Probes are far apart, and there is no other traffic: no verdict comes before the end.
    let world = World::with(2, 2, "detect = { interval = \"20s\", timeout = \"1s\" }");
    let arguments = ["--fault", "hang", "--share", "100%", "--for", "60s"];
    let mut operator = world.spawn(&arguments);
    world.reaches("failing");
    let mut client = Client::open(world.gapless.address);
    client
        .send("POST / HTTP/1.1\r\nhost: h\r\nx-id: one\r\ncontent-length: 4\r\n\r\nbody")
        .expect("sent");
    eventually("it hangs", SOON, || {
        world.last().is_some_and(|drill| drill["requests"]["met"] == 1)
            || world.seen_near() + world.far.iter().map(|one| one.seen().len()).sum::<usize>() > 0
    });
    assert!(world.drill(&["stop"]).status.success());
    let answer = client.answer("POST").expect("an answer");
    // Unless the verdict was faster than the operator: then it has failed, and has not run.
    let runs: usize = world.near.iter().chain(&world.far).map(|one| one.count("one")).sum();
    assert_eq!(runs, usize::from(answer.status == 200), "{:?}", answer.verdict());
    let _ = operator.wait();
}

#[test]
fn the_budget_aborts_it() {
    let world = World::new();
    let arguments = ["--fault", "reset", "--share", "100%", "--for", "60s", "--abort-budget", "0"];
    let mut operator = world.spawn(&arguments);
    world.reaches("failing");
    let mut failed = 0;
    let until = Instant::now() + SOON;
    while world.last().is_some_and(|drill| drill["stage"] == "failing") && Instant::now() < until {
        // A POST that was reset may have run: nobody sends it again.
        let answer = Client::open(world.gapless.address).exchange("POST", "/", &[], b"x");
        failed += usize::from(!answer.is_ok_and(|answer| answer.status == 200));
    }
    let drill = world.reaches("over");
    assert_eq!(drill["outcome"], "INTERRUPTED", "{failed}: {drill:#}");
    assert!(drill["why"].as_str().is_some_and(|why| why.contains("abort-budget")), "{drill:#}");
    assert_eq!(drill["allowed_failures"], 0);
    assert!(number(&drill["measured"]["lasted_ms"]) < 30_000.0);
    assert!(!operator.wait().expect("a child").success());
    world.is_untouched();
}

#[test]
fn a_real_failure_ends_it() {
    let world = World::new();
    let load = Load::start(world.gapless.address, 2, Duration::from_millis(5));
    let arguments = ["--fault", "refused", "--share", "25%", "--for", "60s"];
    let mut operator = world.spawn(&arguments);
    world.reaches("failing");
    world.far[0].die();
    let drill = world.reaches("over");
    assert_eq!(drill["outcome"], "INTERRUPTED", "{drill:#}");
    assert!(drill["why"].as_str().is_some_and(|why| why.contains("real incident")), "{drill:#}");
    assert!(!operator.wait().expect("a child").success());
    assert_eq!(load.stop().failures, Vec::<String>::new());
    // What the drill's requests found makes the others' look too; and none begins while that is so.
    eventually("down", SOON, || world.gapless.state(world.far[0].address()) == "down");
    let refused = world.drill(&["start", "--lose", "here/a", "--fault", "refused"]);
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && why.contains("real incident"), "{why}");
}

#[test]
fn nothing_happens_where_the_rest_could_not_carry_it() {
    let world = World::of(3, 1);
    let load = Load::start(world.gapless.address, 1, Duration::from_millis(5));
    let arguments =
        ["start", "--lose", "here/a", "--fault", "refused", "--share", "100%", "--format", "json"];
    let output = world.drill(&arguments);
    assert!(!output.status.success());
    let drill: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(drill["outcome"], "CAPACITY_CHECK_FAILED", "{drill:#}");
    assert_eq!(drill["timeline"]["onset"], serde_json::Value::Null);
    assert_eq!(drill["requests"]["taken"], 0);
    assert_eq!(load.stop().failures, Vec::<String>::new());
    assert_eq!(world.far[0].seen().len(), 0);
}

#[test]
fn a_new_configuration_ends_it() {
    let world = World::new();
    let mut operator = world.spawn(&["--fault", "refused", "--share", "25%", "--for", "60s"]);
    world.reaches("failing");
    let text = std::fs::read_to_string(world.gapless.file()).expect("read");
    world.gapless.write(&format!("{text}\n# another\n"));
    let drill = world.reaches("over");
    assert_eq!(drill["outcome"], "INTERRUPTED", "{drill:#}");
    let _ = operator.wait();
}
