//! `tune` from a shell.

use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

use gapless::config;

use crate::support::config::ConfigBuilder;
use crate::support::endpoint::TestEndpoint;
use crate::support::instance::{BINARY, Gapless};
use crate::support::{DEFAULT_TIMEOUT, poll_until};

const POOL_TOML: &str = "[[listen]]\naddress = \"127.0.0.1:1\"\n[[route]]\npool = \"web\"\n\
                    [pool.web]\nprobe = { http = \"/healthz\" }\n";

const ZONES_TOML: &str = "[[pool.web.zone]]\nname = \"here/a\"\nendpoints = [\"127.0.0.1:2\", \"127.0.0.1:3\"]\n\
                     [[pool.web.zone]]\nname = \"here/b\"\nendpoints = [\"127.0.0.1:4\"]\n";

/// A configuration in its own directory, and the output of `tune` for it.
struct TuneFixture {
    _directory: TempDir,
    path: String,
}

impl TuneFixture {
    fn new(text: &str) -> Self {
        let directory = TempDir::new().expect("a directory");
        let path = directory.path().join("gapless.toml");
        std::fs::write(&path, text).expect("written");
        let path = path.to_str().expect("a plain path").to_owned();
        Self { _directory: directory, path }
    }

    fn tune(&self, arguments: &str) -> Output {
        let mut command = Command::new(BINARY);
        command.args(["tune", &self.path, "--trials", "60"]);
        command.args(arguments.split_whitespace()).output().expect("the program runs")
    }

    fn tune_json(&self, arguments: &str) -> (i32, Value) {
        let output = self.tune(&format!("{arguments} --format json"));
        (exit_code(&output), serde_json::from_slice(&output.stdout).unwrap_or_default())
    }
}

fn exit_code(output: &Output) -> i32 {
    output.status.code().expect("an exit code")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn text_output_is_valid_config_with_cost_estimate() {
    let fixture = TuneFixture::new(&format!("{POOL_TOML}{ZONES_TOML}"));
    let output = fixture.tune("--target 300ms");
    let text = stdout(&output);
    assert_eq!((exit_code(&output), stderr(&output).as_str()), (0, ""), "{text}");
    for part in [
        "target 300ms: the 99th percentile of every class that probes notice, without any traffic",
        "interval 1s → ",
        "times the probes",
        "a probe of a healthy endpoint fails once in",
        "not noticed by its probes: ",
        "whole configuration: 3.158 → ",
    ] {
        assert!(text.contains(part), "{part:?} in {text}");
    }
    let table = &text[text.find("[pool.web.detect]").expect("a table")..];
    let pasted_fixture = TuneFixture::new(&format!("{POOL_TOML}{ZONES_TOML}\n{table}"));
    let loaded = config::load(pasted_fixture.path.as_ref()).expect("a good configuration");
    let detect = loaded.config.topology.pools[0].detect;
    assert!(detect.interval.as_millis() < 300 && detect.down_after >= 2, "{detect:?}");
    // It meets the target already.
    let (code, rerun) = pasted_fixture.tune_json("--target 300ms");
    let pool = &rerun["pools"][0];
    assert_eq!((code, &pool["before"]["detect"]), (0, &pool["after"]["detect"]));
}

#[test]
fn json_has_both_windows_and_equal_seeds_give_equal_output() {
    let fixture = TuneFixture::new(&format!("{POOL_TOML}{ZONES_TOML}"));
    let (code, report) = fixture.tune_json("--target 500ms --rate 50 --false-verdicts 0.1/year");
    assert_eq!((code, &report["met"], &report["with_traffic"]), (0, &true.into(), &false.into()));
    let number = |value: &Value| value.as_f64().unwrap_or_else(|| panic!("{value} in {report}"));
    let pool = &report["pools"][0];
    for (name, window) in [("before", &pool["before"]), ("after", &pool["after"])] {
        let rows = window["rows"].as_array().expect("rows");
        assert!(rows.iter().any(|row| row["traffic_rps"] == 50.0), "{name}");
        assert_eq!(
            number(&window["probes_per_second"]),
            number(&report["probes_per_second"][name])
        );
    }
    let after = &pool["after"];
    assert!(number(&after["slowest"]["p99_ms"]) <= 500.0);
    assert!(number(&report["false_verdicts_per_year"]["after"]) < 0.1);
    assert!(pool["toml"].as_str().is_some_and(|text| text.starts_with("[pool.web.detect]\n")));
    let rerun = fixture.tune_json("--target 500ms --rate 50 --false-verdicts 0.1/year");
    assert_eq!(rerun, (code, report.clone()));
}

#[test]
fn unreachable_target_exits_with_1_and_names_constraint() {
    let fixture = TuneFixture::new(&format!("{POOL_TOML}{ZONES_TOML}"));
    for (arguments, constraint, word) in [
        ("--target 300ms --observed 50ms", "timeout", "timeout: a probe must wait 624ms"),
        ("--target 300ms --loss 30%", "false_verdicts", "false verdicts: "),
        ("--target 300ms --class wrong_body", "probe", "wrong_body is not noticed by any probe"),
    ] {
        let output = fixture.tune(arguments);
        let text = stdout(&output);
        assert_eq!(exit_code(&output), 1, "{text}");
        assert!(text.contains("The target of 300ms cannot be met:"), "{text}");
        assert!(text.contains(word), "{word:?} in {text}");
        let (_, report) = fixture.tune_json(arguments);
        assert_eq!(report["pools"][0]["binding"][0]["constraint"], constraint);
        let has_alternative = constraint != "probe";
        assert_eq!(report["reachable_ms"].as_f64().is_some_and(|ms| ms > 300.0), has_alternative);
        assert_eq!(text.contains("The best reachable target is "), has_alternative);
        assert_eq!(text.contains("[pool.web.detect]"), has_alternative);
    }
    let (code, report) = fixture.tune_json("--target 300ms --probe-budget 6/s");
    assert_eq!((code, &report["probes_per_second"]["budget"]), (1, &6.0.into()));
    assert!(report["probes_per_second"]["needed"].as_f64().is_some_and(|needed| needed > 6.0));
    assert!(report["probes_per_second"]["after"].as_f64().is_some_and(|after| after <= 6.0));
}

#[test]
fn single_pool_tuning_counts_probes_of_other_pools() {
    let other_zones = ZONES_TOML.replace("pool.web", "pool.\"a.b\"");
    let fixture = TuneFixture::new(&format!(
        "{POOL_TOML}{ZONES_TOML}[pool.\"a.b\"]\nprobe = {{ tcp = true }}\n{other_zones}"
    ));
    let (code, report) = fixture.tune_json("--target 400ms --pool a.b");
    let pools = report["pools"].as_array().expect("pools");
    assert_eq!((code, pools.len(), &pools[0]["pool"]), (0, 1, &"a.b".into()));
    assert!(
        pools[0]["toml"].as_str().is_some_and(|text| text.starts_with("[pool.\"a.b\".detect]"))
    );
    let before = report["probes_per_second"]["before"].as_f64().expect("a rate");
    assert!((before - 6.0 / 0.95).abs() < 1e-6, "{before}");
}

#[test]
fn invalid_arguments_exit_with_2_and_invalid_config_with_64() {
    let fixture = TuneFixture::new(&format!("{POOL_TOML}{ZONES_TOML}"));
    for (arguments, word) in [
        ("", "--target"),
        ("--target 300", "300ms or 1s"),
        ("--target 300ms --pool wbe", "there is no pool `wbe`; there is web"),
        ("--target 300ms --class hangs", "black_hole"),
        ("--target 300ms --false-verdicts never", "1/year"),
        ("--target 300ms --observed http://127.0.0.1:1", "no answer from"),
    ] {
        let output = fixture.tune(arguments);
        assert_eq!(exit_code(&output), 2, "{arguments}");
        assert!(stderr(&output).contains(word), "{arguments}: {}", stderr(&output));
    }
    assert_eq!(exit_code(&TuneFixture::new("[[listen]]\n").tune("--target 300ms")), 64);
}

#[test]
fn observed_values_are_read_from_running_instance() {
    let endpoint = TestEndpoint::start("one");
    let config = ConfigBuilder::new().zone("here/a", &[endpoint.address()]);
    let gapless = Gapless::start_ready(&config);
    let fixture = TuneFixture::new(&config.text());
    let admin = gapless.admin;
    let report = poll_until("probes were observed", DEFAULT_TIMEOUT, || {
        let (_, report) = fixture.tune_json(&format!("--target 2s --observed http://{admin}"));
        (report != Value::Null).then_some(report)
    });
    let pool = &report["pools"][0];
    assert_eq!(report["not_observed"], Value::Array(Vec::new()), "{report}");
    assert!(pool["rtt_ms"].as_f64().is_some_and(|rtt_ms| rtt_ms > 0.0 && rtt_ms != 1.0), "{pool}");
    // A saved page gives the same result as the instance.
    let metrics_text = gapless.admin_get("/metrics").body;
    let file = fixture.path.replace("gapless.toml", "metrics");
    std::fs::write(&file, metrics_text).expect("written");
    let (code, report) = fixture.tune_json(&format!("--target 2s --observed {file} --loss 0.1%"));
    assert_eq!((code, &report["met"]), (0, &true.into()), "{report}");
    assert_eq!(report["pools"][0]["probe_loss"], 0.001);
}
