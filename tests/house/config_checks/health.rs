//! Verdicts on zones, the way back, the eviction budget, the budget of probes.

use super::{line, pool};

#[test]
fn the_target_of_a_window() {
    let detect = |keys: &str, expected| pool(&format!("detect = {{ {keys} }}"), expected);
    detect(
        "target = \"1s\"",
        "9:21 `target` (1s) is shorter than the worst case of this window (2s) | \
         set `target` to \"2s\" or more",
    );
    detect(
        "interval = \"4s\", target = \"4s\", down_after = 3",
        "`target` (4s) is shorter than the worst case of this window (5s500ms)",
    );
    detect("target = 5", "a duration needs its unit | write it as \"5ms\" or \"5s\"");
    detect("target = \"0s\"", "`target` cannot be zero");
    detect("interval = 1, target = \"1s\"", "9:23 a duration needs its unit");
}

#[test]
fn verdicts_on_zones() {
    let correlate = |keys: &str, expected| pool(&format!("correlate = {{ {keys} }}"), expected);
    correlate(
        "quorum_percent = 0",
        "`quorum_percent` must be from 1 to 100, not 0 | write a whole",
    );
    correlate("quorum_percent = 101", "9:32 `quorum_percent` must be from 1 to 100, not 101");
    correlate("quorum_percent = \"60%\"", "is a number, without quotes | write it as 60");
    correlate("quorum_percent = \"of\"", "`of` is not a percentage | write a whole number from 1");
    correlate("quorum_percent = true", "`quorum_percent` cannot be the boolean");
    correlate("quorum = 60", "`quorum` is not known here | did you mean `quorum_percent`?");
    correlate("window = \"0s\"", "`window` cannot be zero");
    correlate("return_percent = 0", "`return_percent` must be from 1 to 100, not 0");
    pool("correlate = \"off\"", "`correlate` cannot be the string \"off\" | write a table such as");
}

#[test]
fn the_way_back() {
    let recover = |keys: &str, expected| pool(&format!("recover = {{ {keys} }}"), expected);
    recover(
        "hold_down = \"2m\"",
        "9:25 `hold_down` (2m) is longer than `hold_down_max` (1m, the default) | \
         set `hold_down` to \"1m\" or less, or `hold_down_max` to \"2m\" or more",
    );
    recover("hold_down_max = \"500ms\"", "`hold_down` (1s, the default) is longer than");
    recover("hold_down = \"0s\", hold_down_max = \"0s\"", "`hold_down_max` cannot be zero");
    recover("ramp = 10", "a duration needs its unit");
    recover("ramp = \"200h\"", "`ramp` must be from 0");
    recover("rampe = \"1s\"", "`rampe` is not known here | did you mean `ramp`?");
}

#[test]
fn the_eviction_budget() {
    let evict = |keys: &str, expected| pool(&format!("evict = {{ {keys} }}"), expected);
    evict("endpoints = -1", "`endpoints` must be from 0 to 1000000, not -1");
    evict("percent = 101", "9:21 `percent` must be from 0 to 100, not 101");
    evict("zone_percent = \"50%\"", "`50%` is not a whole number | write a whole number from 0");
    evict("panic_percent = 200", "`panic_percent` must be from 0 to 100, not 200");
    evict("percnt = 1", "`percnt` is not known here | did you mean `percent`?");
}

#[test]
fn the_budget_of_probes() {
    let per_second = |value: &str, expected| {
        line("[[listen]]", &format!("[probes]\nper_second = {value}"), expected);
    };
    per_second("0", "3:14 `per_second` must be from 1 to 1000000, not 0");
    per_second("\"1000\"", "`per_second` is a number, without quotes | write it as 1000");
    line("[[listen]]", "probes = 5", "`probes` cannot be the integer `5` | write a table such as");
}
