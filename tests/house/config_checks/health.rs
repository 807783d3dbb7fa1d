//! Checks of zone verdicts, recovery, eviction budget and probe budget.

use super::{assert_line_diagnostic, assert_pool_diagnostic};

#[test]
fn invalid_detection_target_is_reported() {
    let assert_detect_diagnostic =
        |keys: &str, expected| assert_pool_diagnostic(&format!("detect = {{ {keys} }}"), expected);
    assert_detect_diagnostic(
        "target = \"1s\"",
        "9:21 `target` (1s) is shorter than the worst case of this window (2s) | \
         set `target` to \"2s\" or more",
    );
    assert_detect_diagnostic(
        "interval = \"4s\", target = \"4s\", down_after = 3",
        "`target` (4s) is shorter than the worst case of this window (5s500ms)",
    );
    assert_detect_diagnostic(
        "target = 5",
        "a duration needs its unit | write it as \"5ms\" or \"5s\"",
    );
    assert_detect_diagnostic("target = \"0s\"", "`target` cannot be zero");
    assert_detect_diagnostic("interval = 1, target = \"1s\"", "9:23 a duration needs its unit");
}

#[test]
fn invalid_correlate_settings_are_reported() {
    let assert_correlate_diagnostic = |keys: &str, expected| {
        assert_pool_diagnostic(&format!("correlate = {{ {keys} }}"), expected);
    };
    assert_correlate_diagnostic(
        "quorum_percent = 0",
        "`quorum_percent` must be from 1 to 100, not 0 | write a whole",
    );
    assert_correlate_diagnostic(
        "quorum_percent = 101",
        "9:32 `quorum_percent` must be from 1 to 100, not 101",
    );
    assert_correlate_diagnostic(
        "quorum_percent = \"60%\"",
        "is a number, without quotes | write it as 60",
    );
    assert_correlate_diagnostic(
        "quorum_percent = \"of\"",
        "`of` is not a percentage | write a whole number from 1",
    );
    assert_correlate_diagnostic("quorum_percent = true", "`quorum_percent` cannot be the boolean");
    assert_correlate_diagnostic(
        "quorum = 60",
        "`quorum` is not known here | did you mean `quorum_percent`?",
    );
    assert_correlate_diagnostic("window = \"0s\"", "`window` cannot be zero");
    assert_correlate_diagnostic(
        "return_percent = 0",
        "`return_percent` must be from 1 to 100, not 0",
    );
    assert_pool_diagnostic(
        "correlate = \"off\"",
        "`correlate` cannot be the string \"off\" | write a table such as",
    );
}

#[test]
fn invalid_recover_settings_are_reported() {
    let assert_recover_diagnostic =
        |keys: &str, expected| assert_pool_diagnostic(&format!("recover = {{ {keys} }}"), expected);
    assert_recover_diagnostic(
        "hold_down = \"2m\"",
        "9:25 `hold_down` (2m) is longer than `hold_down_max` (1m, the default) | \
         set `hold_down` to \"1m\" or less, or `hold_down_max` to \"2m\" or more",
    );
    assert_recover_diagnostic(
        "hold_down_max = \"500ms\"",
        "`hold_down` (1s, the default) is longer than",
    );
    assert_recover_diagnostic(
        "hold_down = \"0s\", hold_down_max = \"0s\"",
        "`hold_down_max` cannot be zero",
    );
    assert_recover_diagnostic("ramp = 10", "a duration needs its unit");
    assert_recover_diagnostic("ramp = \"200h\"", "`ramp` must be from 0");
    assert_recover_diagnostic("rampe = \"1s\"", "`rampe` is not known here | did you mean `ramp`?");
}

#[test]
fn invalid_evict_settings_are_reported() {
    let assert_evict_diagnostic =
        |keys: &str, expected| assert_pool_diagnostic(&format!("evict = {{ {keys} }}"), expected);
    assert_evict_diagnostic("endpoints = -1", "`endpoints` must be from 0 to 1000000, not -1");
    assert_evict_diagnostic("percent = 101", "9:21 `percent` must be from 0 to 100, not 101");
    assert_evict_diagnostic(
        "zone_percent = \"50%\"",
        "`50%` is not a whole number | write a whole number from 0",
    );
    assert_evict_diagnostic(
        "panic_percent = 200",
        "`panic_percent` must be from 0 to 100, not 200",
    );
    assert_evict_diagnostic("percnt = 1", "`percnt` is not known here | did you mean `percent`?");
}

#[test]
fn invalid_probe_budget_is_reported() {
    let assert_per_second_diagnostic = |value: &str, expected| {
        assert_line_diagnostic("[[listen]]", &format!("[probes]\nper_second = {value}"), expected);
    };
    assert_per_second_diagnostic("0", "3:14 `per_second` must be from 1 to 1000000, not 0");
    assert_per_second_diagnostic(
        "\"1000\"",
        "`per_second` is a number, without quotes | write it as 1000",
    );
    assert_line_diagnostic(
        "[[listen]]",
        "probes = 5",
        "`probes` cannot be the integer `5` | write a table such as",
    );
}
