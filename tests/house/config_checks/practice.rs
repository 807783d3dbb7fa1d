//! Drills that are run by themselves: what is wrong with them, and how to mend it.

use std::time::Duration;

use gapless::config;
use gapless::logic::drill::{Allowance, Fault};

use super::{found, line, with};

const GOOD: &str = "[[practice]]\nzones = [\"local/a\"]\nevery = \"24h\"";

/// Asserts that one more line in a good practice is exactly one error.
#[track_caller]
fn practice(key: &str, expected: &str) {
    line("[[listen]]", &format!("{GOOD}\n{key}"), expected);
}

#[test]
fn a_little_is_enough() {
    let text = with("[[listen]]", &format!("{GOOD}\n[[listen]]"));
    assert_eq!(found(&text), [""; 0]);
    let practice = config::parse("test.toml", &text).expect("good").config.practice;
    let plan = &practice[0].plans[0];
    assert_eq!((plan.fault, plan.share.percent()), (Fault::Refused, 10));
    assert_eq!((plan.length, plan.allowance), (Duration::from_secs(30), Allowance::Part(0.01)));
    assert!(!plan.by_hand && plan.pool.is_none() && plan.matching.is_none());
}

#[test]
fn each_key_says_how_it_is_written() {
    practice("fault = \"boom\"", "`boom` is no fault: write `refused`");
    practice("share = \"25\"", "`25` is no share | write it as \"1%\" to \"100%\"");
    practice("for = \"2h\"", "`for` must be from 1s to 1h");
    practice("match = \"x canary\"", "`x canary` is no header | write it as \"name=value\"");
    practice("abort_budget = \"much\"", "`much` is no budget");
    practice("pool = \"wep\"", "there is no pool `wep` | did you mean `web`?");
    practice("allowed = [\"Mon-Fri 9-17\"]", "`Mon-Fri 9-17` is no part of a week");
    practice("blocked = [\"Mo 09:00-17:00\"]", "is no part of a week | write it as");
    practice("at = [\"Wed 10:30\"]", "practice is due by `every` or by `at`, not by both");
    practice("allowed = [\"00:00-00:00\"]", "is no part of a week");
    let closed = "allowed = [\"Mon 09:00-10:00\"]\nblocked = [\"Mon 08:00-11:00\"]";
    practice(closed, "this never comes");
}

#[test]
fn zones_and_times_are_needed() {
    let table = |keys: &str, expected: &str| {
        line("[[listen]]", &format!("[[practice]]\n{keys}"), expected);
    };
    table("every = \"24h\"", "practice needs zones to lose");
    table("zones = [\"local/a\"]", "nothing says when practice is due");
    table("zones = [\"local/b\"]\nevery = \"24h\"", "no pool has the zone local/b");
    table("zones = [\"local/a\"]\nevery = \"10s\"", "`every` must be from 1m to 7 days");
    table("zones = [\"local/a\"]\nat = [\"Wed\"]", "`Wed` is no moment of the week");
}
