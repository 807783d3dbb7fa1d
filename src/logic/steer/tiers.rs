//! Which zones are equally near.

use crate::logic::id::Place;
use crate::logic::topology::{PoolSpec, ZoneSpec};

use super::{Policy, Role, Way};

/// Groups the zones of a pool (as indices into it) into tiers, the first to serve first.
///
/// `regions` is the order in which regions answer, soonest first, for [`Policy::Latency`]; those that
/// it does not name follow in the order of the file.
#[must_use]
pub fn tiers(
    pool: &PoolSpec,
    way: &Way,
    here: Option<&Place>,
    regions: &[&str],
) -> Vec<Vec<usize>> {
    let is_standby = |zone: &ZoneSpec| zone.terms.role == Role::Standby;
    let (standby, rest): (Vec<usize>, Vec<usize>) =
        (0..pool.zones.len()).partition(|&zone| is_standby(&pool.zones[zone]));
    let mut tiers = match way {
        Way::By(Policy::Nearest) => nearest(pool, &rest, here),
        Way::By(Policy::Failover) => in_order(pool, &rest),
        Way::By(Policy::Weighted | Policy::Spread) => vec![rest],
        Way::By(Policy::Latency) => soonest(pool, &rest, here, regions),
        Way::Regions(first) => {
            let first: Vec<&str> = first.iter().map(|region| &**region).collect();
            soonest(pool, &rest, here, &first)
        }
    };
    tiers.extend(standby.into_iter().map(|zone| vec![zone]));
    tiers.retain(|zones| !zones.is_empty());
    tiers
}

/// Own zone, the other zones of its region, then each further region in the order of the file.
/// Without a place of our own: every zone is a tier of its own.
fn nearest(pool: &PoolSpec, zones: &[usize], here: Option<&Place>) -> Vec<Vec<usize>> {
    let Some(here) = here else { return alone(zones) };
    let mut tiers = own(pool, zones, here);
    let foreign = |&zone: &usize| pool.zones[zone].place.region != here.region;
    tiers.extend(by_region(pool, zones.iter().copied().filter(foreign)));
    tiers
}

fn alone(zones: &[usize]) -> Vec<Vec<usize>> {
    zones.iter().map(|&zone| vec![zone]).collect()
}

/// Own zone, then the rest of our region.
fn own(pool: &PoolSpec, zones: &[usize], here: &Place) -> Vec<Vec<usize>> {
    let mine = zones.iter().copied().filter(|&zone| pool.zones[zone].place.region == here.region);
    let (zone, region) = mine.partition(|&zone| pool.zones[zone].place == *here);
    vec![zone, region]
}

/// Region by region, in the order of the file.
fn by_region(pool: &PoolSpec, zones: impl Iterator<Item = usize>) -> Vec<Vec<usize>> {
    let mut regions: Vec<(&str, Vec<usize>)> = Vec::new();
    for zone in zones {
        let region = &*pool.zones[zone].place.region;
        match regions.iter_mut().find(|(name, _)| *name == region) {
            Some((_, zones)) => zones.push(zone),
            None => regions.push((region, vec![zone])),
        }
    }
    regions.into_iter().map(|(_, zones)| zones).collect()
}

/// The active zones at once, then zone by zone.
fn in_order(pool: &PoolSpec, zones: &[usize]) -> Vec<Vec<usize>> {
    let is_active = |&zone: &usize| pool.zones[zone].terms.role == Role::Active;
    let (active, rest): (Vec<usize>, Vec<usize>) = zones.iter().partition(|&zone| is_active(zone));
    let mut tiers = vec![active];
    tiers.extend(alone(&rest));
    tiers
}

/// Region by region, as they answer; in our own region our zone comes first.
fn soonest(
    pool: &PoolSpec,
    zones: &[usize],
    here: Option<&Place>,
    regions: &[&str],
) -> Vec<Vec<usize>> {
    let rank = |zones: &Vec<usize>| {
        let region = zones.first().map(|&zone| &*pool.zones[zone].place.region);
        regions.iter().position(|name| Some(*name) == region).unwrap_or(regions.len())
    };
    let mut ordered = by_region(pool, zones.iter().copied());
    ordered.sort_by_key(rank);
    let Some(here) = here else { return ordered };
    let is_own = |zones: &Vec<usize>| {
        zones.first().is_some_and(|&zone| pool.zones[zone].place.region == here.region)
    };
    let split =
        |zones: Vec<usize>| if is_own(&zones) { own(pool, &zones, here) } else { vec![zones] };
    ordered.into_iter().flat_map(split).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(policy: Policy, zones: &[(&str, Role)]) -> PoolSpec {
        let zone = |&(name, role): &(&str, Role)| {
            let mut zone = ZoneSpec::new(Place::parse(name).expect("a place"), Vec::new());
            zone.terms.role = role;
            zone
        };
        let mut pool = PoolSpec::new("web", zones.iter().map(zone).collect());
        pool.steer.policy = policy;
        pool
    }

    fn listed(policy: Policy) -> PoolSpec {
        let names = ["b/1", "a/1", "a/2", "c/1", "b/2"];
        pool(policy, &names.map(|name| (name, Role::Listed)))
    }

    #[test]
    fn nearest_goes_outwards() {
        let here = Place::parse("a/2");
        let way = Way::By(Policy::Nearest);
        let tiers_of = |here: Option<&Place>| tiers(&listed(Policy::Nearest), &way, here, &[]);
        assert_eq!(tiers_of(here.as_ref()), [vec![2], vec![1], vec![0, 4], vec![3]]);
        assert_eq!(tiers_of(None), [[0], [1], [2], [3], [4]]);
    }

    #[test]
    fn failover_follows_the_file_and_the_roles() {
        let here = Place::parse("a/2");
        let way = |pool: &PoolSpec| Way::By(pool.steer.policy);
        let tiers_of = |pool: &PoolSpec| tiers(pool, &way(pool), here.as_ref(), &[]);
        assert_eq!(tiers_of(&listed(Policy::Failover)), [[0], [1], [2], [3], [4]]);
        let roles = [
            ("a/1", Role::Standby),
            ("a/2", Role::Active),
            ("b/1", Role::Listed),
            ("b/2", Role::Active),
            ("c/1", Role::Standby),
        ];
        assert_eq!(
            tiers_of(&pool(Policy::Failover, &roles)),
            [vec![1, 3], vec![2], vec![0], vec![4]]
        );
        let spread = pool(Policy::Spread, &roles);
        assert_eq!(tiers_of(&spread), [vec![1, 2, 3], vec![0], vec![4]], "standbys come last");
    }

    #[test]
    fn latency_orders_regions_and_keeps_our_zone_first_in_ours() {
        let here = Place::parse("b/2");
        let pool = listed(Policy::Latency);
        let way = Way::By(Policy::Latency);
        let tiers_of = |regions: &[&str]| tiers(&pool, &way, here.as_ref(), regions);
        assert_eq!(tiers_of(&[]), [vec![4], vec![0], vec![1, 2], vec![3]]);
        assert_eq!(tiers_of(&["c", "a"]), [vec![3], vec![1, 2], vec![4], vec![0]]);
        assert_eq!(tiers(&pool, &way, None, &["c"]), [vec![3], vec![0, 4], vec![1, 2]]);
        let way = Way::Regions(vec!["c".into()]);
        let of_clients = tiers(&pool, &way, here.as_ref(), &["a"]);
        assert_eq!(
            of_clients,
            [vec![3], vec![4], vec![0], vec![1, 2]],
            "what they name, then the file"
        );
    }
}
