//! Every end of a drill: its time, its operator, its budget, real incidents.

use std::time::{Duration, Instant};

use super::{DrillFixture, number};
use crate::support::client::TestClient;
use crate::support::load::SteadyLoad;
use crate::support::{DEFAULT_TIMEOUT, eventually};

#[test]
fn drill_ends_after_its_cli_is_killed() {
    let fixture = DrillFixture::new();
    let load = SteadyLoad::start(fixture.gapless.address, 2, Duration::from_millis(5));
    let mut cli = fixture.spawn_drill(&["--fault", "hang", "--share", "50%", "--for", "3s"]);
    fixture.wait_for_stage("failing");
    cli.kill().expect("SIGKILL");
    let _ = cli.wait();
    let killed_at = Instant::now();
    let drill = fixture.wait_for_stage("over");
    // Injection ends in time; the evaluation may wait for the prediction.
    assert!(number(&drill["measured"]["lasted_ms"]) < 3_500.0, "{drill:#}");
    assert!(killed_at.elapsed() < Duration::from_secs(100));
    let before = fixture.near_request_count();
    eventually("the first zone serves again", DEFAULT_TIMEOUT, || {
        fixture.near_request_count() > before + 20
    });
    assert_eq!(load.stop().failures, Vec::<String>::new());
    fixture.assert_all_healthy();
}

#[test]
fn hanging_requests_are_sent_when_drill_stops() {
    // Probes are rare and there is no other traffic: no verdict comes before the end.
    let fixture =
        DrillFixture::with_pool(2, 2, "detect = { interval = \"20s\", timeout = \"1s\" }");
    let arguments = ["--fault", "hang", "--share", "100%", "--for", "60s"];
    let mut cli = fixture.spawn_drill(&arguments);
    fixture.wait_for_stage("failing");
    let mut client = TestClient::open(fixture.gapless.address);
    client
        .send("POST / HTTP/1.1\r\nhost: h\r\nx-id: one\r\ncontent-length: 4\r\n\r\nbody")
        .expect("sent");
    eventually("it hangs", DEFAULT_TIMEOUT, || {
        fixture.last_drill().is_some_and(|drill| drill["requests"]["met"] == 1)
            || fixture.near_request_count()
                + fixture.far.iter().map(|one| one.requests().len()).sum::<usize>()
                > 0
    });
    assert!(fixture.run_drill(&["stop"]).status.success());
    let answer = client.read_response("POST").expect("an answer");
    // A verdict that was faster than the operator makes it failed.
    let runs: usize =
        fixture.near.iter().chain(&fixture.far).map(|one| one.count_with_id("one")).sum();
    assert_eq!(runs, usize::from(answer.status == 200), "{:?}", answer.status_and_reason());
    let _ = cli.wait();
}

#[test]
fn exceeded_abort_budget_interrupts_drill() {
    let fixture = DrillFixture::new();
    let arguments = ["--fault", "reset", "--share", "100%", "--for", "60s", "--abort-budget", "0"];
    let mut cli = fixture.spawn_drill(&arguments);
    fixture.wait_for_stage("failing");
    let mut failed = 0;
    let deadline = Instant::now() + DEFAULT_TIMEOUT;
    while fixture.last_drill().is_some_and(|drill| drill["stage"] == "failing")
        && Instant::now() < deadline
    {
        // A POST that was reset may have run and is not sent again.
        let answer = TestClient::open(fixture.gapless.address).exchange("POST", "/", &[], b"x");
        failed += usize::from(!answer.is_ok_and(|answer| answer.status == 200));
    }
    let drill = fixture.wait_for_stage("over");
    assert_eq!(drill["outcome"], "INTERRUPTED", "{failed}: {drill:#}");
    assert!(drill["why"].as_str().is_some_and(|why| why.contains("abort-budget")), "{drill:#}");
    assert_eq!(drill["allowed_failures"], 0);
    assert!(number(&drill["measured"]["lasted_ms"]) < 30_000.0);
    assert!(!cli.wait().expect("a child").success());
    fixture.assert_all_healthy();
}

#[test]
fn real_incident_interrupts_drill() {
    let fixture = DrillFixture::new();
    let load = SteadyLoad::start(fixture.gapless.address, 2, Duration::from_millis(5));
    let arguments = ["--fault", "refused", "--share", "25%", "--for", "60s"];
    let mut cli = fixture.spawn_drill(&arguments);
    fixture.wait_for_stage("failing");
    fixture.far[0].kill();
    let drill = fixture.wait_for_stage("over");
    assert_eq!(drill["outcome"], "INTERRUPTED", "{drill:#}");
    assert!(drill["why"].as_str().is_some_and(|why| why.contains("real incident")), "{drill:#}");
    assert!(!cli.wait().expect("a child").success());
    assert_eq!(load.stop().failures, Vec::<String>::new());
    // A real failure that drilled requests meet starts real probes, and no drill starts meanwhile.
    eventually("down", DEFAULT_TIMEOUT, || {
        fixture.gapless.endpoint_state(fixture.far[0].address()) == "down"
    });
    let refused = fixture.run_drill(&["start", "--lose", "here/a", "--fault", "refused"]);
    let reason = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && reason.contains("real incident"), "{reason}");
}

#[test]
fn insufficient_capacity_prevents_drill() {
    let fixture = DrillFixture::with_endpoint_counts(3, 1);
    let load = SteadyLoad::start(fixture.gapless.address, 1, Duration::from_millis(5));
    let arguments =
        ["start", "--lose", "here/a", "--fault", "refused", "--share", "100%", "--format", "json"];
    let output = fixture.run_drill(&arguments);
    assert!(!output.status.success());
    let drill: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(drill["outcome"], "CAPACITY_CHECK_FAILED", "{drill:#}");
    assert_eq!(drill["timeline"]["onset"], serde_json::Value::Null);
    assert_eq!(drill["requests"]["taken"], 0);
    assert_eq!(load.stop().failures, Vec::<String>::new());
    assert_eq!(fixture.far[0].requests().len(), 0);
}

#[test]
fn config_reload_interrupts_drill() {
    let fixture = DrillFixture::new();
    let mut cli = fixture.spawn_drill(&["--fault", "refused", "--share", "25%", "--for", "60s"]);
    fixture.wait_for_stage("failing");
    let text = std::fs::read_to_string(fixture.gapless.config_file()).expect("read");
    fixture.gapless.write_config(&format!("{text}\n# another\n"));
    let drill = fixture.wait_for_stage("over");
    assert_eq!(drill["outcome"], "INTERRUPTED", "{drill:#}");
    let _ = cli.wait();
}
