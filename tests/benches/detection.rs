//! The pure parts of the detection bench.

use serde_json::{Value, json};

use crate::calibration::{Calibration, CalibrationPoint};
use crate::fault_class::{self, CLASSES, EndpointFault, FaultClass};
use crate::prediction::{ClassPrediction, find_prediction};
use crate::{endpoint_tls, evaluation, layout};

fn find_class(name: &str) -> &'static FaultClass {
    CLASSES.iter().find(|class| class.name == name).expect("a known class")
}

#[test]
fn quantile_is_the_nearest_rank() {
    let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
    assert_eq!(evaluation::quantile(&hundred, 0.5), Some(50.0));
    assert_eq!(evaluation::quantile(&hundred, 0.99), Some(99.0));
    assert_eq!(evaluation::quantile(&hundred, 1.0), Some(100.0));
    assert_eq!(evaluation::quantile(&[7.0], 0.0), Some(7.0));
    assert_eq!(evaluation::quantile(&[], 0.5), None);
}

#[test]
fn prediction_holds_with_five_of_hundred_outside_but_not_six() {
    let with_late = |late: usize| {
        let verdict_times = (0..100).map(|run| Some(if run < late { 11.0 } else { 10.0 }));
        verdict_times.collect::<Vec<_>>()
    };
    assert!(evaluation::is_prediction_met(&with_late(5), Some(10.0)));
    assert!(!evaluation::is_prediction_met(&with_late(6), Some(10.0)));
    assert_eq!(evaluation::count_inside(&with_late(6), Some(10.0)), 94);
}

#[test]
fn missing_or_unpredicted_verdict_is_outside_window() {
    assert_eq!(evaluation::count_inside(&[None, Some(1.0)], Some(10.0)), 1);
    assert_eq!(evaluation::count_inside(&[None, Some(1.0)], None), 1);
    assert!(!evaluation::is_prediction_met(&[None; 5], Some(10.0)));
    assert!(evaluation::is_prediction_met(&[None; 5], None));
    assert!(!evaluation::is_prediction_met(&[], None));
}

/// A window of a prediction that is uniform up to `most_ms`.
fn uniform_point(most_ms: f64, took_ms: Option<f64>) -> CalibrationPoint {
    let steps_ms = (0..=20).map(|step| f64::from(step) / 20.0 * most_ms).collect();
    CalibrationPoint { quantiles_ms: steps_ms, p99_ms: 0.99 * most_ms, took_ms }
}

#[test]
fn ranks_of_correct_predictions_are_uniform() {
    assert_eq!(uniform_point(10.0, Some(4.25)).rank(), 0.425);
    assert_eq!(
        (uniform_point(10.0, Some(11.0)).rank(), uniform_point(10.0, None).rank()),
        (1.0, 1.0)
    );
    assert!(
        !uniform_point(10.0, None).is_within_p99()
            && !uniform_point(10.0, Some(9.95)).is_within_p99()
    );
    let stretched_calibration = |stretch: f64| {
        let stretched_point = |index: u32| {
            let most_ms = 10.0 * f64::from(1 + index % 7);
            uniform_point(most_ms, Some(stretch * most_ms * (f64::from(index) + 0.5) / 200.0))
        };
        Calibration::from_points(&(0..200).map(stretched_point).collect::<Vec<_>>()).expect("some")
    };
    let correct = stretched_calibration(1.0);
    assert_eq!((correct.point_count, correct.within_p99), (200, 198));
    assert!(
        (correct.median_ratio - 1.0).abs() < 0.02 && correct.kolmogorov_distance < 0.01,
        "{correct:?}"
    );
    let late = stretched_calibration(1.5);
    assert!(
        late.within_p99 < 140 && late.median_ratio > 1.4 && late.kolmogorov_distance > 0.3,
        "{late:?}"
    );
    assert_eq!(Calibration::from_points(&[]), None);
}

fn sample_rows() -> Vec<Value> {
    let seen_row = |class: &str, traffic_rps: Option<f64>, p99_ms: f64| {
        json!({
            "class": class, "scope": "endpoint", "traffic_rps": traffic_rps, "unseen": null,
            "median_ms": 1.0, "p99_ms": p99_ms, "worst_ms": 9.0,
        })
    };
    let unseen = json!({
        "class": "cut", "scope": "endpoint", "traffic_rps": null, "unseen": "probe_passes",
        "median_ms": null, "p99_ms": null, "worst_ms": null,
    });
    vec![
        seen_row("silent", None, 5.0),
        seen_row("silent", Some(60.0), 4.0),
        seen_row("hang", None, 3.0),
        unseen,
    ]
}

#[test]
fn class_row_is_preferred_to_row_of_broader_class() {
    let rows = sample_rows();
    let p99_of = |name: &str, with_traffic: bool| match find_prediction(
        &rows,
        find_class(name),
        "endpoint",
        with_traffic,
    ) {
        ClassPrediction::Seen { p99_ms, .. } => p99_ms,
        other => panic!("{name}: {other:?}"),
    };
    assert_eq!(p99_of("hang", false), 3.0);
    assert_eq!(p99_of("hang", true), 4.0);
    assert_eq!(p99_of("black_hole", false), 5.0);
    let reset = find_prediction(&rows, find_class("reset"), "endpoint", false);
    assert_eq!(reset, ClassPrediction::Missing);
    assert_eq!(find_prediction(&rows, find_class("hang"), "zone", false), ClassPrediction::Missing);
    let cut = find_prediction(&rows, find_class("cut"), "endpoint", false);
    assert_eq!(cut, ClassPrediction::Unseen("probe_passes".to_owned()));
}

#[test]
fn class_names_and_fault_words_are_unique() {
    for (index, one) in CLASSES.iter().enumerate() {
        assert!(CLASSES[..index].iter().all(|other| other.name != one.name), "{}", one.name);
    }
    for (index, one) in EndpointFault::ALL.iter().enumerate() {
        assert!(
            EndpointFault::ALL[..index].iter().all(|other| other.command() != one.command()),
            "{one:?}"
        );
    }
    let is_known = |name: &str| CLASSES.iter().any(|class| class.name == name);
    assert!(fault_class::SMOKE_CLASSES.iter().all(|name| is_known(name)));
}

#[test]
fn config_of_every_class_is_valid() {
    for class in CLASSES {
        let mut shapes = vec![layout::PoolLayout::with_defaults(class.probe); 2];
        shapes[1].detect.push("interval = \"700ms\"".to_owned());
        let text = layout::pools_config(&shapes, 8_080, 9_900);
        let directory = tempfile::tempdir().expect("a directory");
        endpoint_tls::write_files(directory.path()).expect("certificates");
        let file = directory.path().join("gapless.toml");
        std::fs::write(&file, &text).expect("written");
        let loaded = gapless::config::load(&file);
        let loaded = loaded.unwrap_or_else(|error| panic!("{}: {error}\n{text}", class.name));
        let pools = &loaded.config.topology.pools;
        assert_eq!(pools.len(), 2);
        assert_eq!(pools[1].detect.interval.as_millis(), 700);
        let endpoints = pools.iter().flat_map(|pool| &pool.zones).map(|zone| zone.endpoints.len());
        assert_eq!(endpoints.sum::<usize>(), 2 * layout::POOL_ENDPOINTS);
        assert_eq!(class.probe.contains(&layout::TLS_PORT.to_string()), class.has_tls_probe());
        assert_eq!(pools[1].zones[0].locality.to_string(), layout::FAILING_ZONE);
        assert_eq!(
            pools[1].zones[0].endpoints[0].address,
            layout::endpoint_address(layout::POOL_ENDPOINTS)
        );
    }
}
