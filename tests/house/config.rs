//! The configuration from outside: examples, errors with their places, the schema, and
//! the commands `check` and `schema`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use gapless::cli::check::{OutputFormat, check};
use gapless::config::model::{
    HeaderPolicy, LedgerRetention, ServerLimits, ShutdownConfig, UnderscorePolicy,
};
use gapless::config::report::{ConfigReport, Severity};
use gapless::config::{self, LoadError, LoadedConfig};
use gapless::logic::discovery::LookupPolicy;
use gapless::logic::model::topology::{
    CorrelationSpec, DetectionSpec, EvictionSpec, PROBES_PER_SECOND, PoolLimitSpec, RecoverySpec,
    Topology,
};
use gapless::logic::probing::probe::{ProbeKind, ProbeSpec};
use gapless::logic::routing::{
    HostMatch, PathMatch, PathNormalisation, RetrySpec, RouteAction, RouteSpec, RouteTimeouts,
};
use gapless::logic::steering::affinity::{FailbackPolicy, SessionAffinity};
use gapless::logic::steering::balance::{BalancePolicy, HashTableKind};
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Value, json};

const EXAMPLES: [&str; 10] = [
    "minimal.toml",
    "two-zones.toml",
    "multi-region.toml",
    "probes.toml",
    "verdicts.toml",
    "balance.toml",
    "routes.toml",
    "steering.toml",
    "names.toml",
    "full.toml",
];

fn example_path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name)
}

fn example_text(name: &str) -> String {
    std::fs::read_to_string(example_path(name)).expect("the example is there")
}

fn parse(text: &str) -> Result<LoadedConfig, ConfigReport> {
    config::parse("test.toml", text)
}

/// `line:column message` of all diagnostics.
fn located_messages(report: &ConfigReport) -> Vec<String> {
    let format_located =
        |d: &config::report::Diagnostic| format!("{}:{} {}", d.at.line, d.at.column, d.message);
    report.diagnostics.iter().map(format_located).collect()
}

#[test]
fn every_example_config_loads_and_fits_the_schema() {
    let validator = jsonschema::validator_for(&config::schema()).unwrap();
    for name in EXAMPLES {
        let loaded = config::load(&example_path(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(loaded.warnings.is_empty(), "{name}: {}", loaded.warnings);
        let instance: Value = toml::from_str(&example_text(name)).unwrap();
        assert!(validator.is_valid(&instance), "{name}: {:?}", validator.validate(&instance));
    }
}

#[test]
fn minimal_example_takes_every_default() {
    let config = parse(&example_text("minimal.toml")).unwrap().config;
    assert_eq!(config.admin.address, Some("127.0.0.1:9900".parse().unwrap()));
    assert_eq!(
        (config.limits, config.shutdown),
        (ServerLimits::default(), ShutdownConfig::default())
    );
    assert!(config.workers >= 1);
    assert_eq!(config.headers.via_pseudonym, "gapless");

    let route = &config.routes[0];
    let expected =
        RouteSpec::new("*/", HostMatch::Any, PathMatch::default(), RouteAction::to_pool("web"));
    assert_eq!(*route, expected);
    assert_eq!(config.paths, PathNormalisation::default());
    assert_eq!(config.headers.underscores, UnderscorePolicy::Reject);
    assert_eq!((route.retry, route.timeouts), (RetrySpec::default(), RouteTimeouts::default()));
    assert_eq!(route.max_body_bytes, None);

    let pool = &config.topology.pools[0];
    assert_eq!(pool.probes, [ProbeSpec::tcp()]);
    assert_eq!((pool.detect, pool.limits), (DetectionSpec::default(), PoolLimitSpec::default()));
    assert_eq!((pool.is_optimistic, pool.late_after), (false, Duration::from_millis(250)));
    assert_eq!(pool.zones[0].endpoints[0].weight, 1);
    assert_eq!(
        (pool.correlation, pool.recovery),
        (CorrelationSpec::default(), RecoverySpec::default())
    );
    assert_eq!(pool.eviction, EvictionSpec::default());
    assert_eq!((&pool.balance, &pool.affinity), (&BalancePolicy::LeastRequests, &None));
    assert_eq!(config.topology.probes_per_second, Topology::default().probes_per_second);
}

#[test]
fn verdicts_example_is_parsed_as_written() {
    let config = parse(&example_text("verdicts.toml")).unwrap().config;
    assert_eq!(config.topology.probes_per_second, 2_000);
    let pool = &config.topology.pools[0];
    let secs = Duration::from_secs;
    assert_eq!(pool.detect, DetectionSpec { target: Some(secs(5)), ..DetectionSpec::default() });
    let correlate = CorrelationSpec { quorum_percent: 66, window: secs(1), return_percent: 50 };
    assert_eq!(pool.correlation, correlate);
    let recover = RecoverySpec { hold_down: secs(2), hold_down_max: secs(60), ramp: secs(30) };
    assert_eq!(pool.recovery, recover);
    let evict = EvictionSpec {
        max_down_endpoints: 4,
        max_down_percent: 70,
        max_zone_down_percent: 100,
        panic_percent: 20,
    };
    assert_eq!(pool.eviction, evict);
    let without_quorum =
        example_text("verdicts.toml").replace("quorum_percent = 66", "quorum_percent = \"off\"");
    let config = parse(&without_quorum).unwrap().config;
    assert_eq!(config.topology.pools[0].correlation.quorum_percent, CorrelationSpec::OFF_PERCENT);
}

/// The defaults that the full example states are the real ones.
#[test]
fn full_example_states_the_defaults() {
    let config = parse(&example_text("full.toml")).unwrap().config;
    assert_eq!(
        (config.limits, config.shutdown),
        (ServerLimits::default(), ShutdownConfig::default())
    );
    assert_eq!(config.ledger, LedgerRetention::default());
    assert_eq!((config.dns.policy, config.dns.entries.len()), (LookupPolicy::default(), 2));
    assert_eq!(
        (config.headers, config.paths),
        (HeaderPolicy::default(), PathNormalisation::default())
    );
    let route = &config.routes[0];
    assert_eq!((route.retry, route.timeouts), (RetrySpec::default(), RouteTimeouts::default()));
    assert_eq!(route.max_body_bytes, Some(10 << 20));
    assert_eq!(config.topology.probes_per_second, PROBES_PER_SECOND);
    let pool = &config.topology.pools[0];
    let target = Some(Duration::from_secs(5));
    assert_eq!(pool.detect, DetectionSpec { target, ..DetectionSpec::default() });
    assert_eq!(
        (pool.correlation, pool.recovery),
        (CorrelationSpec::default(), RecoverySpec::default())
    );
    assert_eq!(pool.eviction, EvictionSpec { max_down_endpoints: 100, ..EvictionSpec::default() });
    assert_eq!(pool.limits, PoolLimitSpec::default());
    let BalancePolicy::ConsistentHash(keyed) = &pool.balance else { panic!("{:?}", pool.balance) };
    assert_eq!((keyed.table, keyed.max_load_percent), (HashTableKind::default(), Some(125)));
    let Some(SessionAffinity::Cookie(cookie)) = pool.affinity.as_deref() else {
        panic!("no cookie")
    };
    assert_eq!((cookie.failback, &cookie.secrets), (FailbackPolicy::default(), &None));
    let ProbeKind::Http(probe) = &pool.primary_probe().kind else { panic!("{:?}", pool.probes) };
    assert_eq!(probe.expect_status, [200..=299]);
    assert_eq!(probe.headers["x-probe"], "gapless");
    assert_eq!(pool.primary_probe().port, Some(18310));
}

/// Every key of the schema appears in the full example.
#[test]
fn full_example_contains_every_schema_key() {
    let schema = config::schema();
    let text = example_text("full.toml");
    let tables = schema["$defs"].as_object().unwrap().values().chain([&schema]);
    let keys = tables.filter_map(|table| table["properties"].as_object()).flat_map(|p| p.keys());
    for key in keys {
        let spellings = ["{} = ", "[{}", ".{}]", ".{}."].map(|form| form.replace("{}", key));
        assert!(spellings.iter().any(|form| text.contains(form)), "full.toml has no `{key}`");
    }
}

#[test]
fn schema_describes_every_key_and_rejects_unknown_keys() {
    let schema = config::schema();
    for table in schema["$defs"].as_object().unwrap().values().chain([&schema]) {
        let Some(properties) = table["properties"].as_object() else {
            continue;
        };
        assert_eq!(table["additionalProperties"], false, "{table}");
        for (key, property) in properties {
            assert!(property["description"].is_string(), "`{key}` has no description");
        }
    }
    let validator = jsonschema::validator_for(&schema).unwrap();
    let good: Value = toml::from_str(&example_text("minimal.toml")).unwrap();
    for path in ["", "/route/0", "/pool/web", "/pool/web/zone/0", "/listen/0"] {
        let mut instance = good.clone();
        instance.pointer_mut(path).unwrap()["unknown"] = json!(1);
        assert!(!validator.is_valid(&instance), "an unknown key fits at `{path}`");
    }
}

#[test]
fn file_with_five_mistakes_reports_all_five() {
    let text = r#"
[[listen]]
adress = "127.0.0.1:18080"

[[route]]
pool = "wep"
timeouts = { connect = 500 }

[pool.web]
detect = { down_after = 0 }

[[pool.web.zone]]
name = "local/a" # ä
endpoints = ["127.0.0.1:18081", "db..internal:543"]
"#;
    let report = parse(text).unwrap_err();
    let expected = [
        "3:1 `adress` is not known here",
        "6:8 there is no pool `wep`",
        "7:24 a duration needs its unit",
        "10:25 `down_after` must be from 1 to 1000, not 0",
        "14:33 `db..internal` has an empty label",
    ];
    assert_eq!(located_messages(&report), expected);
    let helps: Vec<&str> = report.diagnostics.iter().map(|d| d.help.as_str()).collect();
    assert_eq!(helps[..2], ["did you mean `address`?", "did you mean `web`?"]);
    assert_eq!(helps[2], "write it as \"500ms\" or \"500s\"");

    let rendered = report.render(false);
    assert!(rendered.contains("--> test.toml:14:33"), "{rendered}");
    assert!(rendered.contains("^^^^^^^^^^^^^^^^^^"), "{rendered}");
    assert!(rendered.contains("help: did you mean `web`?"), "{rendered}");
    assert!(!rendered.contains('\x1b'));
    assert!(report.render(true).contains('\x1b'));
}

#[test]
fn unreadable_value_causes_no_follow_up_error() {
    let text = r#"
self = "local/a"
[[listen]]
address = 8080
[[route]]
pool = "web"
[pool.web]
probe = { htp = "/" }
[[pool.web.zone]]
name = "local/a"
endpoint = ["127.0.0.1:18081"]
[pool]
api = 5
[[route]]
path = "/api/"
pool = "api"
"#;
    let expected = [
        "4:11 `address` cannot be the integer `8080`",
        "8:11 `htp` is not known here",
        "11:1 `endpoint` is not known here",
        "13:7 `api` cannot be the integer `5`",
    ];
    assert_eq!(located_messages(&parse(text).unwrap_err()), expected);
}

#[test]
fn toml_syntax_errors_are_reported_together() {
    let text = "a = \nb = 1\nb = 2\n[[listen]\n";
    let expected = [
        "1:5 a value is missing",
        "3:1 `b` is given twice",
        "4:10 unclosed array table, expected `]`",
    ];
    assert_eq!(located_messages(&parse(text).unwrap_err()), expected);
}

#[test]
fn duplicate_key_does_not_hide_other_errors() {
    let text = example_text("minimal.toml")
        .replace("pool = \"web\"", "pool = \"web\"\npool = \"b\"\nx = 1");
    let expected = ["6:1 `pool` is given twice", "7:1 `x` is not known here"];
    assert_eq!(located_messages(&parse(&text).unwrap_err()), expected);
}

#[test]
fn pool_without_route_is_a_warning() {
    let text = format!(
        "{}[[pool.spare.zone]]\nname = \"local/a\"\nendpoints = [\"127.0.0.1:1\"]\n",
        example_text("minimal.toml")
    );
    let loaded = parse(&text).unwrap();
    assert_eq!(located_messages(&loaded.warnings), ["10:8 no route leads to the pool `spare`"]);
    assert_eq!(loaded.warnings.diagnostics[0].severity, Severity::Warning);
    let names: Vec<&str> = loaded.config.topology.pools.iter().map(|p| &*p.name).collect();
    assert_eq!(names, ["web", "spare"], "pools keep the order of the file");
}

#[test]
fn report_of_many_errors_is_bounded() {
    let unknown: String = (0..300).map(|i| format!("key-{i} = 1\n")).collect();
    let report = parse(&unknown).unwrap_err();
    assert!(report.diagnostics.len() <= ConfigReport::MAX_DIAGNOSTICS);
    let zones: String = "[[pool.web.zone]]\n".repeat(300);
    let report = parse(&format!("[[route]]\npool = \"web\"\n{zones}")).unwrap_err();
    assert_eq!(report.diagnostics.len(), ConfigReport::MAX_DIAGNOSTICS);
    assert_eq!(report.omitted, 501);
    assert!(report.render(false).contains("and 501 more"));
}

#[test]
fn control_characters_in_config_are_not_printed() {
    let text = "\"\\u001b[31m\" = 1\n[[route]]\npool = \"\\u001b]0;x\\u0007\"\n";
    let rendered = parse(text).unwrap_err().render(false);
    assert!(!rendered.contains(['\x1b', '\x07']), "{rendered:?}");
}

#[test]
fn check_of_valid_file_prints_counts() {
    let path = example_path("two-zones.toml");
    let file = path.display();
    let mut out = Vec::new();
    assert_eq!(check(&path, false, OutputFormat::Text { color: false }, &mut out).unwrap(), 0);
    let expected = format!("{file}: ok, 1 listener, 1 route, 1 pool, 4 endpoints in 2 zones\n");
    assert_eq!(String::from_utf8(out).unwrap(), expected);

    let mut out = Vec::new();
    assert_eq!(check(&path, false, OutputFormat::Json, &mut out).unwrap(), 0);
    let expected = json!({
        "file": file.to_string(), "ok": true, "listeners": 1, "routes": 1, "pools": 1,
        "endpoints": 4, "zones": 2, "names": [], "warnings": [],
    });
    assert_eq!(serde_json::from_slice::<Value>(&out).unwrap(), expected);
}

#[test]
fn check_of_invalid_file_prints_errors_and_returns_64() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bad.toml");
    std::fs::write(&path, example_text("minimal.toml").replace("endpoints", "endpoint")).unwrap();
    let mut out = Vec::new();
    assert_eq!(check(&path, false, OutputFormat::Json, &mut out).unwrap(), 64);
    let expected = json!({
        "file": path, "ok": false, "warnings": [], "omitted": 0,
        "errors": [{
            "severity": "error", "file": path, "line": 9, "column": 1,
            "message": "`endpoint` is not known here", "mend": "did you mean `endpoints`?",
        }],
    });
    assert_eq!(serde_json::from_slice::<Value>(&out).unwrap(), expected);

    let mut out = Vec::new();
    assert_eq!(check(&path, false, OutputFormat::Text { color: false }, &mut out).unwrap(), 64);
    let text = String::from_utf8(out).unwrap();
    assert!(text.ends_with("bad.toml: 1 error\n"), "{text}");
}

#[test]
fn unreadable_file_is_a_load_error() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing.toml");
    assert!(matches!(config::load(&missing), Err(LoadError::Unreadable { .. })));
    assert!(matches!(config::load(dir.path()), Err(LoadError::Unreadable { .. })));
    let mut out = Vec::new();
    assert_eq!(check(&missing, false, OutputFormat::Text { color: false }, &mut out).unwrap(), 64);
    assert!(String::from_utf8(out).unwrap().starts_with("error: cannot read"));

    let huge = dir.path().join("huge.toml");
    std::fs::File::create(&huge).unwrap().set_len(config::MAX_FILE_BYTES + 1).unwrap();
    let error = config::load(&huge).unwrap_err().to_string();
    assert!(error.contains("larger than 16MiB"), "{error}");

    let latin1 = dir.path().join("latin1.toml");
    std::fs::write(&latin1, b"a = 1\nb = \"\xe9\"\n").unwrap();
    let Err(LoadError::Invalid(report)) = config::load(&latin1) else { panic!("not refused") };
    assert_eq!(located_messages(&report), ["2:6 the file is not UTF-8 text from here on"]);
}

/// An example with one piece cut out, doubled, or replaced.
fn mutated_example() -> impl Strategy<Value = String> {
    let insert = prop_oneof![
        Just(String::new()),
        Just("\"".to_owned()),
        Just("[[".to_owned()),
        Just(" = ".to_owned()),
        Just("-1".to_owned()),
        Just("[pool.web.zone.x]\n".to_owned()),
        ".{0,4}",
    ];
    let cut = (any::<Index>(), 0_usize..40);
    (0..EXAMPLES.len(), proptest::collection::vec((cut, insert), 1..6)).prop_map(
        |(which, edits)| {
            let mut chars: Vec<char> = example_text(EXAMPLES[which]).chars().collect();
            for ((at, length), insert) in edits {
                let at = at.index(chars.len() + 1);
                let end = (at + length).min(chars.len());
                chars.splice(at..end, insert.chars());
            }
            chars.into_iter().collect()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_text_is_parsed_or_rejected(text in "(?s).{0,200}") {
        if let Err(report) = parse(&text) {
            prop_assert!(report.with_severity(Severity::Error).next().is_some());
            prop_assert!(!report.render(true).is_empty());
        }
    }

    #[test]
    fn mutated_example_is_parsed_or_rejected(text in mutated_example()) {
        match parse(&text) {
            Ok(loaded) => prop_assert!(loaded.warnings.with_severity(Severity::Error).next().is_none()),
            Err(report) => {
                prop_assert!(report.with_severity(Severity::Error).next().is_some());
                for diagnostic in &report.diagnostics {
                    prop_assert!(diagnostic.at.line <= text.split('\n').count());
                    prop_assert!(!diagnostic.help.is_empty() && !diagnostic.message.is_empty());
                }
                prop_assert!(!report.render(false).is_empty());
            }
        }
    }
}
