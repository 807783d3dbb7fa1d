//! The evaluation of the soak bench.

#[path = "../../benches/soak/evaluation.rs"]
mod evaluation;

use std::collections::BTreeMap;

use evaluation::SoakFindings;

use crate::executed_posts::ExecutedPosts;
use crate::post::{IdempotencyPromise, Post};
use crate::sample::ClientResult;
use crate::sent_posts::{ClientKind, SentPost};

/// A run without findings and with enough chaos: the numbers from 0 on.
struct SoakRun {
    sent: Vec<SentPost>,
    executed: Vec<u64>,
}

const POST_COUNT: u64 = 100;

impl SoakRun {
    fn new() -> Self {
        let promise = |number| {
            if number < 50 { IdempotencyPromise::Keyed } else { IdempotencyPromise::Unheard }
        };
        let sent = |number| {
            let (kind, promise) = (ClientKind::ALL[number as usize % 3], promise(number));
            SentPost { number, kind, promise, result: ClientResult::Answered(201) }
        };
        let mut run = Self { sent: (0..POST_COUNT).map(sent).collect(), executed: Vec::new() };
        // One key is honoured, and one client loses its response.
        run.executed.extend((0..POST_COUNT).chain([0]));
        run.set_end(99, ClientResult::Lost);
        run
    }

    fn set_end(&mut self, number: usize, end: ClientResult) -> &mut Self {
        self.sent[number].result = end;
        self
    }

    fn remove_execution(&mut self, number: u64) -> &mut Self {
        self.executed.retain(|&executed| executed != number);
        self
    }

    fn add_execution(&mut self, number: u64) -> &mut Self {
        self.executed.push(number);
        self
    }

    fn findings(&self) -> SoakFindings {
        let lines = self.executed.iter().map(|number| format!("{number:010} {:020}\n", 1_000));
        let executed = ExecutedPosts::parse(&lines.collect::<String>()).expect("lines about POSTs");
        let fault_counts = BTreeMap::from([("killed", 3)]);
        SoakFindings {
            fault_counts,
            has_recovered: true,
            ..SoakFindings::from_posts(&self.sent, &executed)
        }
    }

    fn breaches(&self) -> Vec<String> {
        self.findings().breaches(POST_COUNT)
    }
}

#[track_caller]
fn assert_only_breach(breaches: &[String], words: &str) {
    assert!(matches!(breaches, [one] if one.contains(words)), "{breaches:?}");
}

#[test]
fn post_executed_once_or_reported_failed_is_no_breach() {
    let mut run = SoakRun::new();
    assert_eq!(run.breaches(), Vec::<String>::new());
    run.set_end(60, ClientResult::Answered(502))
        .set_end(61, ClientResult::TimedOut)
        .remove_execution(60)
        .remove_execution(61);
    assert_eq!(run.breaches(), Vec::<String>::new());
    let findings = run.findings();
    assert_eq!(findings.failures.values().sum::<usize>(), 3);
    let sums = [
        findings.sum(|row| row.sent),
        findings.sum(|row| row.good),
        findings.sum(|row| row.executed),
        findings.sum(|row| row.executed_with_error),
        findings.sum(|row| row.twice),
        findings.sum(|row| row.lost),
    ];
    assert_eq!(sums, [100, 97, 98, 1, 1, 0]);
}

#[test]
fn post_executed_twice_without_key_is_a_breach() {
    assert_only_breach(&SoakRun::new().add_execution(60).breaches(), "1 POSTs executed twice");
    let mut failed = SoakRun::new();
    assert_only_breach(
        &failed.set_end(60, ClientResult::TimedOut).add_execution(60).breaches(),
        "1 POSTs executed twice",
    );
    assert!(SoakRun::new().add_execution(7).breaches().is_empty(), "its key is trusted");
}

#[test]
fn post_answered_but_not_executed_is_lost() {
    assert_only_breach(&SoakRun::new().remove_execution(60).breaches(), "1 POSTs lost");
    assert_only_breach(&SoakRun::new().remove_execution(7).breaches(), "1 POSTs lost");
    assert_only_breach(
        &SoakRun::new().add_execution(POST_COUNT).breaches(),
        "1 POSTs executed but never sent",
    );
    let mut short = SoakRun::new();
    short.sent.remove(60);
    short.remove_execution(60);
    assert_only_breach(&short.breaches(), "1 POSTs not sent");
}

#[test]
fn run_of_mostly_errors_or_without_faults_is_a_breach() {
    let mut refusing = SoakRun::new();
    for number in 10..30 {
        refusing.set_end(number, ClientResult::Answered(503)).remove_execution(number as u64);
    }
    assert_only_breach(&refusing.breaches(), "only 79.0 %");
    assert_only_breach(
        &SoakRun::new().set_end(99, ClientResult::Answered(200)).breaches(),
        "lost its response",
    );
    assert_only_breach(
        &SoakRun::new().remove_execution(0).add_execution(0).breaches(),
        "executed again",
    );
    let without_kills =
        SoakFindings { fault_counts: BTreeMap::from([("killed", 0)]), ..SoakRun::new().findings() };
    assert_only_breach(&without_kills.breaches(POST_COUNT), "no endpoint was killed");
    let not_recovered = SoakFindings { has_recovered: false, ..SoakRun::new().findings() };
    assert_only_breach(&not_recovered.breaches(POST_COUNT), "serves again");
}

#[test]
fn post_is_determined_by_seed_and_number() {
    let promise_and_size = |seed, number| {
        let post = Post::generate(seed, number);
        (post.promise, post.body.len())
    };
    let all = |seed| (0..1_000).map(|number| promise_and_size(seed, number)).collect::<Vec<_>>();
    assert_eq!(all(7), all(7));
    assert_ne!(all(7), all(8));
    for promise in IdempotencyPromise::ALL {
        for bytes in [0, 1024, 64 * 1024] {
            assert!(all(7).contains(&(promise, bytes)), "{promise:?} of {bytes} bytes");
        }
    }
    assert!(
        Post { promise: IdempotencyPromise::Keyed, ..Post::generate(7, 3) }
            .path()
            .starts_with("/keyed/3")
    );
}
