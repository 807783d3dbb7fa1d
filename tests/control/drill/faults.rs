//! Each fault, and who meets it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::Duration;

use super::{World, number};
use crate::support::SOON;
use crate::support::client::Client;
use crate::support::eventually;
use crate::support::load::Load;

#[test]
fn a_quarter_of_the_requests_and_nobody_else() {
    let world = World::new();
    let load = Load::start(world.gapless.address, 4, Duration::from_millis(2));
    eventually("traffic", SOON, || load.sent() > 100);
    let arguments = ["--fault", "refused", "--share", "25%", "--for", "4s"];
    let mut operator = world.spawn(&arguments);
    world.reaches("failing");
    world.is_untouched();
    assert_eq!(world.gapless.metric("gapless_drill_active"), 1.0);
    let drill = world.reaches("over");
    assert!(operator.wait().expect("a child").success(), "{drill:#}");
    let tally = load.stop();
    assert_eq!(tally.failures, Vec::<String>::new(), "refused connections cost nobody anything");
    world.is_untouched();
    assert_eq!(drill["outcome"], "SUCCEEDED", "{drill:#}");
    let requests = &drill["requests"];
    let taken = number(&requests["taken_percent"]);
    assert!((23.0..=27.0).contains(&taken), "{drill:#}");
    assert!(number(&requests["concerned"]) > 400.0, "{drill:#}");
    // Who is drilled fails over, and is then served by the other zone; nobody else ever is.
    let far: u64 =
        world.far.iter().filter_map(|one| tally.by_endpoint.get(&one.address().to_string())).sum();
    let drilled = number(&requests["taken"]);
    assert!((far as f64 - drilled).abs() <= 0.02 * drilled + 5.0, "{far} of {drilled}: {drill:#}");
    assert!(number(&requests["met"]) >= 1.0 && number(&requests["rescued"]) >= 1.0, "{drill:#}");
    assert_eq!(number(&requests["failed"]), 0.0);
    assert!(number(&drill["measured"]["detection_ms"]) < 4_000.0);
    assert_eq!(number(&drill["measured"]["gap_ms"]), 0.0);
    // It is made at the lowest priority there is: a machine with much to do has none.
    let worst = &drill["predicted"]["worst_ms"];
    assert!(worst.is_null() || number(worst) > 0.0, "{drill:#}");
    let labels = "{zone=\"here/a\",outcome=\"SUCCEEDED\"}";
    assert_eq!(world.gapless.metric(&format!("gapless_drill_last_outcome{labels}")), 1.0);
    assert_eq!(world.gapless.metric("gapless_drill_active"), 0.0);
    let name = "gapless_drill_last_success_timestamp_seconds{zone=\"here/a\"}";
    assert!(world.gapless.metric(name) > 1e9);
}

#[test]
fn only_what_has_the_header() {
    let world = World::new();
    let arguments =
        ["--fault", "status=503", "--share", "100%", "--for", "30s", "--match", "x-drill=me"];
    let mut operator = world.spawn(&arguments);
    world.reaches("failing");
    let mut client = Client::open(world.gapless.address);
    for _ in 0..20 {
        let near = client.exchange("GET", "/", &[], b"").expect("an answer");
        assert!(near.text().starts_with("near"), "{}", near.text());
        let far = client.exchange("GET", "/", &[("x-drill", "me")], b"").expect("an answer");
        assert!(far.text().starts_with("far"), "{}", far.text());
    }
    assert!(world.drill(&["stop"]).status.success());
    let drill = world.reaches("over");
    assert_eq!(
        (&drill["outcome"], &drill["requests"]["taken"]),
        (&"INTERRUPTED".into(), &20.into())
    );
    assert!(!operator.wait().expect("a child").success(), "it has not succeeded");
    assert!(
        client
            .exchange("GET", "/", &[("x-drill", "me")], b"")
            .expect("one")
            .text()
            .starts_with("near")
    );
}

#[test]
fn every_fault_is_met_and_no_endpoint_notices() {
    let world = World::new();
    let load = Load::start(world.gapless.address, 2, Duration::from_millis(5));
    for fault in ["reset", "hang", "slow=2s", "status=503", "error-rate=30%", "cut"] {
        let arguments =
            ["--fault", fault, "--share", "100%", "--for", "2s", "--abort-budget", "50"];
        let mut operator = world.spawn(&arguments);
        world.reaches("failing");
        std::thread::sleep(Duration::from_millis(300));
        let before = world.seen_near();
        std::thread::sleep(Duration::from_millis(500));
        let after = world.seen_near();
        let drill = world.reaches("over");
        let _ = operator.wait();
        let requests = &drill["requests"];
        assert!(number(&requests["met"]) >= 1.0, "{fault}: {drill:#}");
        assert_eq!(number(&requests["failed"]), 0.0, "{fault}: {drill:#}");
        if !fault.starts_with("slow") && !fault.starts_with("error") {
            // Trials are met by the fault too.
            assert_eq!(before, after, "{fault}: nothing was sent to what seemed to fail");
        }
        world.is_untouched();
    }
    let tally = load.stop();
    assert_eq!(tally.failures, Vec::<String>::new());
}

/// POSTs with numbers, one after the other; those that were not answered well.
struct Posts {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Vec<String>>>,
}

impl Posts {
    fn start(world: &World, clients: usize) -> Self {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let address = world.gapless.address;
        let client = |number: usize| {
            let (stop, sent) = (Arc::clone(&stop), Arc::clone(&sent));
            std::thread::spawn(move || {
                let (mut failed, mut client, mut count) = (Vec::new(), None, 0);
                while !stop.load(SeqCst) {
                    count += 1;
                    let id = format!("{number}-{count}");
                    let mut open = client.take().unwrap_or_else(|| Client::open(address));
                    sent.fetch_add(1, SeqCst);
                    match open.exchange("POST", "/", &[("x-id", &id)], b"body") {
                        Ok(answer) if answer.status == 200 => client = Some(open),
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
fn what_must_not_run_twice_never_runs_beside_a_failure() {
    for fault in ["reset", "hang", "slow=1s", "status=503", "error-rate=50%", "cut", "refused"] {
        let world = World::new();
        let posts = Posts::start(&world, 3);
        let arguments =
            ["--fault", fault, "--share", "50%", "--for", "2s", "--abort-budget", "100000"];
        let mut operator = world.spawn(&arguments);
        world.reaches("failing");
        let drill = world.reaches("over");
        let _ = operator.wait();
        let (sent, failed) = posts.stop();
        assert!(sent > 100, "{sent}");
        for id in &failed {
            let runs: usize = world.near.iter().chain(&world.far).map(|one| one.count(id)).sum();
            assert_eq!(runs, 0, "{fault}: {id} failed, and ran");
        }
        let mut ids: Vec<String> =
            world.near.iter().chain(&world.far).flat_map(Endpoints::ids).collect();
        let runs = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), runs, "{fault}: something ran twice");
        if fault == "slow=1s" || fault == "refused" {
            assert!(failed.is_empty(), "{fault}: {failed:?}");
        } else if fault != "hang" {
            assert!(!failed.is_empty(), "{fault}: {drill:#}");
        }
        world.is_untouched();
    }
}

trait Endpoints {
    fn ids(&self) -> Vec<String>;
}

impl Endpoints for super::Endpoint {
    fn ids(&self) -> Vec<String> {
        let id = |seen: &crate::support::endpoint::Seen| seen.head.field("x-id").map(str::to_owned);
        self.seen().iter().filter_map(id).collect()
    }
}
