//! Checks of `[[practice]]`.

use std::time::Duration;

use gapless::config;
use gapless::logic::drill::{DrillFault, FailureBudget};

use super::{assert_line_diagnostic, diagnostics_of, valid_config_with};

const VALID_PRACTICE: &str = "[[practice]]\nzones = [\"local/a\"]\nevery = \"24h\"";

/// Asserts that one more line in a valid practice is exactly one error.
#[track_caller]
fn assert_practice_diagnostic(key: &str, expected: &str) {
    assert_line_diagnostic("[[listen]]", &format!("{VALID_PRACTICE}\n{key}"), expected);
}

#[test]
fn minimal_practice_takes_defaults() {
    let text = valid_config_with("[[listen]]", &format!("{VALID_PRACTICE}\n[[listen]]"));
    assert_eq!(diagnostics_of(&text), [""; 0]);
    let practice = config::parse("test.toml", &text).expect("good").config.practice;
    let plan = &practice[0].plans[0];
    assert_eq!((plan.fault, plan.share.percent()), (DrillFault::Refused, 10));
    assert_eq!(
        (plan.length, plan.failure_budget),
        (Duration::from_secs(30), FailureBudget::Fraction(0.01))
    );
    assert!(!plan.is_manual && plan.pool.is_none() && plan.header_match.is_none());
}

#[test]
fn invalid_practice_keys_are_reported_with_help() {
    assert_practice_diagnostic("fault = \"boom\"", "`boom` is not a fault: write `refused`");
    assert_practice_diagnostic(
        "share = \"25\"",
        "`25` is not a share | write it as \"1%\" to \"100%\"",
    );
    assert_practice_diagnostic("for = \"2h\"", "`for` must be from 1s to 1h");
    assert_practice_diagnostic(
        "match = \"x canary\"",
        "`x canary` is not a header | write it as \"name=value\"",
    );
    assert_practice_diagnostic("abort_budget = \"much\"", "`much` is not a budget");
    assert_practice_diagnostic("pool = \"wep\"", "there is no pool `wep` | did you mean `web`?");
    assert_practice_diagnostic(
        "allowed = [\"Mon-Fri 9-17\"]",
        "`Mon-Fri 9-17` is not a range of the week",
    );
    assert_practice_diagnostic(
        "blocked = [\"Mo 09:00-17:00\"]",
        "is not a range of the week | write it as",
    );
    assert_practice_diagnostic(
        "at = [\"Wed 10:30\"]",
        "practice is due by `every` or by `at`, not by both",
    );
    assert_practice_diagnostic("allowed = [\"00:00-00:00\"]", "is not a range of the week");
    let never_due = "allowed = [\"Mon 09:00-10:00\"]\nblocked = [\"Mon 08:00-11:00\"]";
    assert_practice_diagnostic(never_due, "this drill never runs");
}

#[test]
fn practice_without_zones_or_schedule_is_reported() {
    let assert_table_diagnostic = |keys: &str, expected: &str| {
        assert_line_diagnostic("[[listen]]", &format!("[[practice]]\n{keys}"), expected);
    };
    assert_table_diagnostic("every = \"24h\"", "practice needs zones");
    assert_table_diagnostic(
        "zones = [\"local/a\"]",
        "practice has no time: neither `every` nor `at`",
    );
    assert_table_diagnostic(
        "zones = [\"local/b\"]\nevery = \"24h\"",
        "no pool has the zone local/b",
    );
    assert_table_diagnostic(
        "zones = [\"local/a\"]\nevery = \"10s\"",
        "`every` must be from 1m to 7 days",
    );
    assert_table_diagnostic(
        "zones = [\"local/a\"]\nat = [\"Wed\"]",
        "`Wed` is not a time of the week",
    );
}
