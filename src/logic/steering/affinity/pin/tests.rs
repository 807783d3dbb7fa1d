//! Pins over failures, drains and returns of their endpoints.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::super::{AffinityZone, DEFAULT_DRAIN_TIMEOUT};
use super::*;
use crate::logic::model::id::EndpointId;
use crate::logic::steering::balance::hash::endpoint_hash;
use crate::logic::steering::target::Target;
use crate::logic::steering::zone_targets::ZoneTargets;

fn address(n: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 9_000 + n))
}

fn name(n: u16) -> u64 {
    endpoint_hash(address(n))
}

/// Four endpoints in one zone: those in `open` take any request, those in `suspects` are suspect.
fn pins(open: &[u32], suspects: &[u32]) -> AffinityIndex {
    let target = |n: u16| Target {
        id: EndpointId::new(u32::from(n), 0),
        address: address(n),
        zone: 0,
        weight: 1,
        stats: Arc::default(),
        zone_stats: Arc::default(),
    };
    let targets: Arc<[Target]> = (0..4).map(target).collect();
    let zone_targets = |positions: &[u32]| {
        let active: Vec<(u32, u32)> = positions.iter().map(|&position| (position, 1_000)).collect();
        ZoneTargets::new(&targets, &active)
    };
    let mut positions: Vec<_> = (0..4).map(|n| (name(n), 0, u32::from(n))).collect();
    positions.sort_unstable();
    let (clear, suspects) = (zone_targets(open), zone_targets(suspects));
    AffinityIndex::new(
        &positions.into(),
        vec![AffinityZone {
            repeatable_only: clear.clone(),
            any_request: clear,
            suspects,
            draining: Vec::new(),
        }],
    )
}

fn cookie(failback: FailbackPolicy) -> AffinityCookie {
    let ttl = Some(Duration::from_secs(100));
    AffinityCookie {
        name: "pin".into(),
        ttl,
        failback,
        drain_timeout: DEFAULT_DRAIN_TIMEOUT,
        secrets: None,
    }
}

fn served(endpoint: u64, has_pinned_failed: bool, now_us: u64, now_s: u32) -> ServedRequest {
    ServedRequest { endpoint, has_pinned_failed, now_us, now_s }
}

fn request_at(now_us: u64) -> AffinityRequest {
    AffinityRequest { retry_safety: RetrySafety::Repeatable, now_us }
}

fn resolved_slot(pin: &AffinityPin, pins: &AffinityIndex) -> Option<u32> {
    match pin.resolve(pins, request_at(0)) {
        PinnedEndpoint::Available(target) => Some(target.id.slot),
        _ => None,
    }
}

#[test]
fn restored_endpoint_gets_its_pins_per_failback_policy() {
    for failback in [FailbackPolicy::ReturnToPreferred, FailbackPolicy::StayOnCurrent] {
        let cookie = cookie(failback);
        let (all, without) = (pins(&[0, 1, 2, 3], &[]), pins(&[0, 2, 3], &[]));
        let pin = AffinityPin::new(name(1), 10);
        assert_eq!(resolved_slot(&pin, &all), Some(1));
        assert_eq!(pin.updated_after(&served(name(1), false, 0, 11), &all, &cookie), None);
        assert_eq!(resolved_slot(&pin, &without), None);
        let moved = pin
            .updated_after(&served(name(2), false, 0, 11), &without, &cookie)
            .expect("another pin");
        assert_eq!(resolved_slot(&moved, &without), Some(2), "the pin is stable meanwhile");
        let expected_slot = if failback == FailbackPolicy::ReturnToPreferred { 1 } else { 2 };
        assert_eq!(resolved_slot(&moved, &all), Some(expected_slot));
        let renewed =
            moved.updated_after(&served(name(expected_slot as u16), false, 0, 12), &all, &cookie);
        let expected = (expected_slot == 1).then(|| AffinityPin::new(name(1), 12));
        assert_eq!(renewed, expected);
    }
}

#[test]
fn pin_to_suspect_endpoint_is_kept() {
    let (cookie, suspected) = (cookie(FailbackPolicy::StayOnCurrent), pins(&[0, 2, 3], &[1]));
    let pin = AffinityPin::new(name(1), 10);
    assert_eq!(resolved_slot(&pin, &suspected), None);
    assert_eq!(pin.updated_after(&served(name(2), false, 0, 11), &suspected, &cookie), None);
    let failed = pin.updated_after(&served(name(2), true, 0, 11), &suspected, &cookie);
    assert_eq!(
        failed,
        Some(AffinityPin::new(name(2), 11)),
        "unless the pinned endpoint failed the request"
    );
    assert_eq!(resolved_slot(&pin, &pins(&[], &[0, 1])), Some(1), "no other endpoint is left");
}

#[test]
fn pin_past_half_its_ttl_is_renewed() {
    let (cookie, pins) = (cookie(FailbackPolicy::ReturnToPreferred), pins(&[0, 1], &[]));
    let pin = AffinityPin::new(name(1), 1_000);
    assert!(!pin.is_expired(&cookie, 900), "the clock of another instance may be ahead");
    assert!(!pin.is_expired(&cookie, 1_099) && pin.is_expired(&cookie, 1_100));
    assert_eq!(pin.updated_after(&served(name(1), false, 0, 1_049), &pins, &cookie), None);
    let renewed = pin.updated_after(&served(name(1), false, 0, 1_050), &pins, &cookie);
    assert_eq!(renewed, Some(AffinityPin::new(name(1), 1_050)));
}

#[test]
fn pin_to_removed_endpoint_is_replaced() {
    let (cookie, pins) = (cookie(FailbackPolicy::ReturnToPreferred), pins(&[0, 1], &[]));
    let pin = AffinityPin::new(name(9), 10);
    assert!(matches!(pin.resolve(&pins, request_at(0)), PinnedEndpoint::Unknown));
    assert_eq!(
        pin.updated_after(&served(name(1), false, 0, 11), &pins, &cookie),
        Some(AffinityPin::new(name(1), 11))
    );
}

#[test]
fn nonrepeatable_request_avoids_stalled_pinned_endpoint() {
    let pins = pins(&[0, 1], &[]);
    let pin = AffinityPin::new(name(1), 10);
    let PinnedEndpoint::Available(target) = pin.resolve(&pins, request_at(0)) else {
        panic!("the endpoint is available")
    };
    target.stats.request_started(500);
    assert!(matches!(
        pin.resolve(
            &pins,
            AffinityRequest {
                retry_safety: RetrySafety::NotRepeatable { waiting_before_us: 1_000 },
                now_us: 0
            }
        ),
        PinnedEndpoint::TemporarilyUnavailable
    ));
    assert!(matches!(
        pin.resolve(
            &pins,
            AffinityRequest {
                retry_safety: RetrySafety::NotRepeatable { waiting_before_us: 500 },
                now_us: 0
            }
        ),
        PinnedEndpoint::Available(_)
    ));
}

#[test]
fn draining_endpoint_serves_pins_until_drain_timeout() {
    let cookie = cookie(FailbackPolicy::StayOnCurrent);
    let mut pins = pins(&[0, 2], &[]);
    let PinnedEndpoint::Available(target) = pins.lookup(name(0), request_at(0)) else {
        panic!("the endpoint is available")
    };
    let drained = Target { address: address(1), ..target.clone() };
    pins.zones[0].draining.push((drained, 5_000));
    let pin = AffinityPin::new(name(1), 10);
    let PinnedEndpoint::Available(target) = pin.resolve(&pins, request_at(4_999)) else {
        panic!("the endpoint is available")
    };
    assert_eq!(target.address, address(1));
    assert_eq!(pin.updated_after(&served(name(1), false, 4_999, 11), &pins, &cookie), None);
    assert!(matches!(pin.resolve(&pins, request_at(5_000)), PinnedEndpoint::Down));
    let after = pin.updated_after(&served(name(2), false, 5_000, 11), &pins, &cookie);
    assert_eq!(after, Some(AffinityPin::new(name(2), 11)));
}
