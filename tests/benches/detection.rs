//! The pure parts of the detection bench: a bench that misjudges its runs is worse than none.

use serde_json::{Value, json};

use crate::calibration::{Calibration, Point};
use crate::class::{self, CLASSES, Class, Fault};
use crate::predicted::{Predicted, row_of};
use crate::{certificates, judge, layout};

fn class(name: &str) -> &'static Class {
    CLASSES.iter().find(|class| class.name == name).expect("a known class")
}

#[test]
fn a_quantile_is_the_nearest_rank() {
    let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
    assert_eq!(judge::quantile(&hundred, 0.5), Some(50.0));
    assert_eq!(judge::quantile(&hundred, 0.99), Some(99.0));
    assert_eq!(judge::quantile(&hundred, 1.0), Some(100.0));
    assert_eq!(judge::quantile(&[7.0], 0.0), Some(7.0));
    assert_eq!(judge::quantile(&[], 0.5), None);
}

#[test]
fn five_of_a_hundred_may_lie_outside_and_six_may_not() {
    let with_late = |late: usize| {
        let took = (0..100).map(|run| Some(if run < late { 11.0 } else { 10.0 }));
        took.collect::<Vec<_>>()
    };
    assert!(judge::holds(&with_late(5), Some(10.0)));
    assert!(!judge::holds(&with_late(6), Some(10.0)));
    assert_eq!(judge::inside(&with_late(6), Some(10.0)), 94);
}

#[test]
fn a_verdict_that_never_came_is_outside_and_of_what_is_unseen_every_verdict_is() {
    assert_eq!(judge::inside(&[None, Some(1.0)], Some(10.0)), 1);
    assert_eq!(judge::inside(&[None, Some(1.0)], None), 1);
    assert!(!judge::holds(&[None; 5], Some(10.0)));
    assert!(judge::holds(&[None; 5], None));
    assert!(!judge::holds(&[], None));
}

/// A window of a prediction that is uniform up to `most_ms`.
fn point(most_ms: f64, took_ms: Option<f64>) -> Point {
    let steps_ms = (0..=20).map(|step| f64::from(step) / 20.0 * most_ms).collect();
    Point { steps_ms, p99_ms: 0.99 * most_ms, took_ms }
}

#[test]
fn ranks_of_right_predictions_are_uniform_whatever_the_windows() {
    assert_eq!(point(10.0, Some(4.25)).rank(), 0.425);
    assert_eq!((point(10.0, Some(11.0)).rank(), point(10.0, None).rank()), (1.0, 1.0));
    assert!(!point(10.0, None).is_inside() && !point(10.0, Some(9.95)).is_inside());
    let drawn = |stretch: f64| {
        let of = |index: u32| {
            let most_ms = 10.0 * f64::from(1 + index % 7);
            point(most_ms, Some(stretch * most_ms * (f64::from(index) + 0.5) / 200.0))
        };
        Calibration::of(&(0..200).map(of).collect::<Vec<_>>()).expect("some")
    };
    let right = drawn(1.0);
    assert_eq!((right.points, right.inside), (200, 198));
    assert!((right.median_ratio - 1.0).abs() < 0.02 && right.distance < 0.01, "{right:?}");
    let late = drawn(1.5);
    assert!(late.inside < 140 && late.median_ratio > 1.4 && late.distance > 0.3, "{late:?}");
    assert_eq!(Calibration::of(&[]), None);
}

fn rows() -> Vec<Value> {
    let seen = |class: &str, traffic_rps: Option<f64>, p99_ms: f64| {
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
        seen("silent", None, 5.0),
        seen("silent", Some(60.0), 4.0),
        seen("hang", None, 3.0),
        unseen,
    ]
}

#[test]
fn a_class_is_looked_up_by_its_own_name_before_the_broader_one() {
    let rows = rows();
    let p99_of =
        |name: &str, with_traffic: bool| match row_of(&rows, class(name), "endpoint", with_traffic)
        {
            Predicted::Seen { p99_ms, .. } => p99_ms,
            other => panic!("{name}: {other:?}"),
        };
    assert_eq!(p99_of("hang", false), 3.0);
    assert_eq!(p99_of("hang", true), 4.0);
    assert_eq!(p99_of("black_hole", false), 5.0);
    let reset = row_of(&rows, class("reset"), "endpoint", false);
    assert_eq!(reset, Predicted::Missing);
    assert_eq!(row_of(&rows, class("hang"), "zone", false), Predicted::Missing);
    let cut = row_of(&rows, class("cut"), "endpoint", false);
    assert_eq!(cut, Predicted::Unseen("probe_passes".to_owned()));
}

#[test]
fn names_are_unique_and_every_order_has_its_word() {
    for (index, one) in CLASSES.iter().enumerate() {
        assert!(CLASSES[..index].iter().all(|other| other.name != one.name), "{}", one.name);
    }
    for (index, one) in Fault::ALL.iter().enumerate() {
        assert!(Fault::ALL[..index].iter().all(|other| other.word() != one.word()), "{one:?}");
    }
    let is_known = |name: &str| CLASSES.iter().any(|class| class.name == name);
    assert!(class::SMOKE.iter().all(|name| is_known(name)));
}

#[test]
fn the_configuration_of_every_class_is_taken() {
    for class in CLASSES {
        let mut shapes = vec![layout::Shape::plain(class.probe); 2];
        shapes[1].detect.push("interval = \"700ms\"".to_owned());
        let text = layout::config_of(&shapes, 8_080, 9_900);
        let directory = tempfile::tempdir().expect("a directory");
        certificates::write(directory.path()).expect("certificates");
        let file = directory.path().join("gapless.toml");
        std::fs::write(&file, &text).expect("written");
        let loaded = gapless::config::load(&file);
        let loaded = loaded.unwrap_or_else(|error| panic!("{}: {error}\n{text}", class.name));
        let pools = &loaded.config.topology.pools;
        assert_eq!(pools.len(), 2);
        assert_eq!(pools[1].detect.interval.as_millis(), 700);
        let endpoints = pools.iter().flat_map(|pool| &pool.zones).map(|zone| zone.endpoints.len());
        assert_eq!(endpoints.sum::<usize>(), 2 * layout::POOL_ENDPOINTS);
        assert_eq!(class.probe.contains(&layout::TLS_PORT.to_string()), class.is_over_tls());
        assert_eq!(pools[1].zones[0].place.to_string(), layout::FAILING_ZONE);
        assert_eq!(pools[1].zones[0].endpoints[0].address, layout::address(layout::POOL_ENDPOINTS));
    }
}
