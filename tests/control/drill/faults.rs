//! Each fault, and the requests that meet it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::Duration;

use super::{DrillFixture, number};
use crate::support::DEFAULT_TIMEOUT;
use crate::support::client::TestClient;
use crate::support::eventually;
use crate::support::load::SteadyLoad;

#[test]
fn drill_affects_only_its_share_of_requests() {
    let fixture = DrillFixture::new();
    let load = SteadyLoad::start(fixture.gapless.address, 4, Duration::from_millis(2));
    eventually("traffic", DEFAULT_TIMEOUT, || load.sent() > 100);
    let arguments = ["--fault", "refused", "--share", "25%", "--for", "4s"];
    let mut cli = fixture.spawn_drill(&arguments);
    fixture.wait_for_stage("failing");
    fixture.assert_all_healthy();
    assert_eq!(fixture.gapless.metric("gapless_drill_active"), 1.0);
    let drill = fixture.wait_for_stage("over");
    assert!(cli.wait().expect("a child").success(), "{drill:#}");
    let tally = load.stop();
    assert_eq!(tally.failures, Vec::<String>::new(), "refused connections fail no request");
    fixture.assert_all_healthy();
    assert_eq!(drill["outcome"], "SUCCEEDED", "{drill:#}");
    let requests = &drill["requests"];
    let taken_percent = number(&requests["taken_percent"]);
    assert!((23.0..=27.0).contains(&taken_percent), "{drill:#}");
    assert!(number(&requests["concerned"]) > 400.0, "{drill:#}");
    // Drilled requests fail over to the other zone; no other request does.
    let far_requests: u64 = fixture
        .far
        .iter()
        .filter_map(|one| tally.by_endpoint.get(&one.address().to_string()))
        .sum();
    let drilled_requests = number(&requests["taken"]);
    assert!(
        (far_requests as f64 - drilled_requests).abs() <= 0.02 * drilled_requests + 5.0,
        "{far_requests} of {drilled_requests}: {drill:#}"
    );
    assert_eq!(number(&requests["failed"]), 0.0);
    assert!(number(&drill["measured"]["detection_ms"]) < 4_000.0);
    assert_eq!(number(&drill["measured"]["gap_ms"]), 0.0);
    // Predictions run at the lowest priority: a busy machine may have none.
    let worst_ms = &drill["predicted"]["worst_ms"];
    assert!(worst_ms.is_null() || number(worst_ms) > 0.0, "{drill:#}");
    let labels = "{zone=\"here/a\",outcome=\"SUCCEEDED\"}";
    assert_eq!(fixture.gapless.metric(&format!("gapless_drill_last_outcome{labels}")), 1.0);
    assert_eq!(fixture.gapless.metric("gapless_drill_active"), 0.0);
    let name = "gapless_drill_last_success_timestamp_seconds{zone=\"here/a\"}";
    assert!(fixture.gapless.metric(name) > 1e9);
}

#[test]
fn drill_affects_only_requests_with_matching_header() {
    let fixture = DrillFixture::new();
    let arguments =
        ["--fault", "status=503", "--share", "100%", "--for", "30s", "--match", "x-drill=me"];
    let mut cli = fixture.spawn_drill(&arguments);
    fixture.wait_for_stage("failing");
    let mut client = TestClient::open(fixture.gapless.address);
    for _ in 0..20 {
        let near = client.exchange("GET", "/", &[], b"").expect("an answer");
        assert!(near.text().starts_with("near"), "{}", near.text());
        let far = client.exchange("GET", "/", &[("x-drill", "me")], b"").expect("an answer");
        assert!(far.text().starts_with("far"), "{}", far.text());
    }
    assert!(fixture.run_drill(&["stop"]).status.success());
    let drill = fixture.wait_for_stage("over");
    assert_eq!(
        (&drill["outcome"], &drill["requests"]["taken"]),
        (&"INTERRUPTED".into(), &20.into())
    );
    assert!(!cli.wait().expect("a child").success(), "it has not succeeded");
    assert!(
        client
            .exchange("GET", "/", &[("x-drill", "me")], b"")
            .expect("one")
            .text()
            .starts_with("near")
    );
}

#[test]
fn every_fault_takes_effect_without_changing_health() {
    let fixture = DrillFixture::new();
    let load = SteadyLoad::start(fixture.gapless.address, 2, Duration::from_millis(5));
    for fault in ["reset", "hang", "slow=2s", "status=503", "error-rate=30%", "cut"] {
        let arguments =
            ["--fault", fault, "--share", "100%", "--for", "2s", "--abort-budget", "50"];
        let mut cli = fixture.spawn_drill(&arguments);
        fixture.wait_for_stage("failing");
        std::thread::sleep(Duration::from_millis(300));
        let before = fixture.near_request_count();
        std::thread::sleep(Duration::from_millis(500));
        let after = fixture.near_request_count();
        let drill = fixture.wait_for_stage("over");
        let _ = cli.wait();
        let requests = &drill["requests"];
        assert!(number(&requests["met"]) >= 1.0, "{fault}: {drill:#}");
        assert_eq!(number(&requests["failed"]), 0.0, "{fault}: {drill:#}");
        if !fault.starts_with("slow") && !fault.starts_with("error") {
            // Trial requests meet the fault too.
            assert_eq!(before, after, "{fault}: nothing was sent to what seemed to fail");
        }
        fixture.assert_all_healthy();
    }
    let tally = load.stop();
    assert_eq!(tally.failures, Vec::<String>::new());
}

/// Sends numbered POSTs one after another and returns the failed ones.
struct PostLoad {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Vec<String>>>,
}

impl PostLoad {
    fn start(fixture: &DrillFixture, clients: usize) -> Self {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let address = fixture.gapless.address;
        let client = |number: usize| {
            let (stop, sent) = (Arc::clone(&stop), Arc::clone(&sent));
            std::thread::spawn(move || {
                let (mut failed, mut client, mut count) = (Vec::new(), None, 0);
                while !stop.load(SeqCst) {
                    count += 1;
                    let id = format!("{number}-{count}");
                    let mut connection = client.take().unwrap_or_else(|| TestClient::open(address));
                    sent.fetch_add(1, SeqCst);
                    match connection.exchange("POST", "/", &[("x-id", &id)], b"body") {
                        Ok(answer) if answer.status == 200 => client = Some(connection),
                        _ => failed.push(id),
                    }
                    std::thread::sleep(Duration::from_millis(3));
                }
                failed
            })
        };
        let clients = (0..clients).map(client).collect();
        Self { stop, sent, clients }
    }

    fn stop(self) -> (u64, Vec<String>) {
        self.stop.store(true, SeqCst);
        let failed = self.clients.into_iter().flat_map(|one| one.join().expect("no panic"));
        let failed = failed.collect();
        (self.sent.load(SeqCst), failed)
    }
}

#[test]
fn drill_never_executes_failed_or_duplicate_posts() {
    for fault in ["reset", "hang", "slow=1s", "status=503", "error-rate=50%", "cut", "refused"] {
        let fixture = DrillFixture::new();
        let posts = PostLoad::start(&fixture, 3);
        let arguments =
            ["--fault", fault, "--share", "50%", "--for", "2s", "--abort-budget", "100000"];
        let mut cli = fixture.spawn_drill(&arguments);
        fixture.wait_for_stage("failing");
        let drill = fixture.wait_for_stage("over");
        let _ = cli.wait();
        let (sent, failed) = posts.stop();
        assert!(sent > 100, "{sent}");
        for id in &failed {
            let executions: usize =
                fixture.near.iter().chain(&fixture.far).map(|one| one.count_with_id(id)).sum();
            assert_eq!(executions, 0, "{fault}: {id} failed, and ran");
        }
        let mut ids: Vec<String> =
            fixture.near.iter().chain(&fixture.far).flat_map(RequestIdsExt::request_ids).collect();
        let execution_count = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), execution_count, "{fault}: something ran twice");
        if fault == "slow=1s" || fault == "refused" {
            assert!(failed.is_empty(), "{fault}: {failed:?}");
        } else if fault != "hang" {
            assert!(!failed.is_empty(), "{fault}: {drill:#}");
        }
        fixture.assert_all_healthy();
    }
}

trait RequestIdsExt {
    fn request_ids(&self) -> Vec<String>;
}

impl RequestIdsExt for super::TestEndpoint {
    fn request_ids(&self) -> Vec<String> {
        let id = |seen: &crate::support::endpoint::ReceivedRequest| {
            seen.head.field("x-id").map(str::to_owned)
        };
        self.requests().iter().filter_map(id).collect()
    }
}
