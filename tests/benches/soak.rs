//! The judgement of the soak bench: one that overlooks a POST that was done twice is worse than none.

#[path = "../../benches/soak/judge.rs"]
mod judge;

use std::collections::BTreeMap;

use judge::Findings;

use crate::post::{Post, Promise};
use crate::posts::Executed;
use crate::sample::End;
use crate::sent::{Kind, Sent};

/// A run in which everything went well, and enough happened: the numbers from 0 on.
struct Run {
    sent: Vec<Sent>,
    executed: Vec<u64>,
}

const COUNT: u64 = 100;

impl Run {
    fn new() -> Self {
        let promise = |number| if number < 50 { Promise::Keyed } else { Promise::Unheard };
        let sent = |number| {
            let (kind, promise) = (Kind::ALL[number as usize % 3], promise(number));
            Sent { number, kind, promise, end: End::Answered(201) }
        };
        let mut run = Self { sent: (0..COUNT).map(sent).collect(), executed: Vec::new() };
        // A key is heeded, and a client is cut off.
        run.executed.extend((0..COUNT).chain([0]));
        run.end(99, End::Lost);
        run
    }

    fn end(&mut self, number: usize, end: End) -> &mut Self {
        self.sent[number].end = end;
        self
    }

    fn never_executed(&mut self, number: u64) -> &mut Self {
        self.executed.retain(|&executed| executed != number);
        self
    }

    fn executed_too(&mut self, number: u64) -> &mut Self {
        self.executed.push(number);
        self
    }

    fn findings(&self) -> Findings {
        let lines = self.executed.iter().map(|number| format!("{number:010} {:020}\n", 1_000));
        let executed = Executed::parse(&lines.collect::<String>()).expect("lines about POSTs");
        let havoc = BTreeMap::from([("killed", 3)]);
        Findings { havoc, has_recovered: true, ..Findings::of(&self.sent, &executed) }
    }

    fn breaches(&self) -> Vec<String> {
        self.findings().breaches(COUNT)
    }
}

#[track_caller]
fn only(breaches: &[String], words: &str) {
    assert!(matches!(breaches, [one] if one.contains(words)), "{breaches:?}");
}

#[test]
fn what_is_done_once_or_known_to_have_failed_is_well() {
    let mut run = Run::new();
    assert_eq!(run.breaches(), Vec::<String>::new());
    run.end(60, End::Answered(502)).end(61, End::TimedOut).never_executed(60).never_executed(61);
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
fn twice_is_once_too_often_whoever_heard_of_it() {
    only(&Run::new().executed_too(60).breaches(), "1 POSTs executed twice");
    let mut failed = Run::new();
    only(&failed.end(60, End::TimedOut).executed_too(60).breaches(), "1 POSTs executed twice");
    assert!(Run::new().executed_too(7).breaches().is_empty(), "its key is heeded");
}

#[test]
fn done_for_the_client_and_for_nobody_else_is_lost() {
    only(&Run::new().never_executed(60).breaches(), "1 POSTs lost");
    only(&Run::new().never_executed(7).breaches(), "1 POSTs lost");
    only(&Run::new().executed_too(COUNT).breaches(), "1 POSTs executed that nobody sent");
    let mut short = Run::new();
    short.sent.remove(60);
    short.never_executed(60);
    only(&short.breaches(), "1 POSTs not sent");
}

#[test]
fn errors_for_everybody_and_a_run_without_danger_prove_nothing() {
    let mut refusing = Run::new();
    for number in 10..30 {
        refusing.end(number, End::Answered(503)).never_executed(number as u64);
    }
    only(&refusing.breaches(), "only 79.0 %");
    only(&Run::new().end(99, End::Answered(200)).breaches(), "cut off");
    only(&Run::new().never_executed(0).executed_too(0).breaches(), "executed again");
    let calm = Findings { havoc: BTreeMap::from([("killed", 0)]), ..Run::new().findings() };
    only(&calm.breaches(COUNT), "nobody was killed");
    let dead = Findings { has_recovered: false, ..Run::new().findings() };
    only(&dead.breaches(COUNT), "serves again");
}

#[test]
fn a_number_and_a_seed_say_what_is_sent() {
    let kind = |seed, number| {
        let post = Post::of(seed, number);
        (post.promise, post.body.len())
    };
    let all = |seed| (0..1_000).map(|number| kind(seed, number)).collect::<Vec<_>>();
    assert_eq!(all(7), all(7));
    assert_ne!(all(7), all(8));
    for promise in Promise::ALL {
        for bytes in [0, 1024, 64 * 1024] {
            assert!(all(7).contains(&(promise, bytes)), "{promise:?} of {bytes} bytes");
        }
    }
    assert!(Post { promise: Promise::Keyed, ..Post::of(7, 3) }.path().starts_with("/keyed/3"));
}
