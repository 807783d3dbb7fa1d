//! The order of zones: which zones form a tier, and which tier serves first.

use crate::logic::model::id::Locality;
use crate::logic::model::topology::{PoolSpec, ZoneSpec};

use super::{SteeringPolicy, SteeringVariant, ZoneRole};

/// Groups the zones of a pool (as indices into it) into tiers, in the order of preference.
///
/// `regions` orders the regions by latency, the fastest first, for [`SteeringPolicy::Latency`].
/// Regions that it does not contain follow in the order of the file.
pub fn group_into_tiers(
    pool: &PoolSpec,
    variant: &SteeringVariant,
    local_zone: Option<&Locality>,
    regions: &[&str],
) -> Vec<Vec<usize>> {
    let is_standby = |zone: &ZoneSpec| zone.settings.role == ZoneRole::Standby;
    let (standby, rest): (Vec<usize>, Vec<usize>) =
        (0..pool.zones.len()).partition(|&zone| is_standby(&pool.zones[zone]));
    let mut tiers = match variant {
        SteeringVariant::Policy(SteeringPolicy::Nearest) => nearest_tiers(pool, &rest, local_zone),
        SteeringVariant::Policy(SteeringPolicy::Failover) => failover_tiers(pool, &rest),
        SteeringVariant::Policy(SteeringPolicy::Weighted | SteeringPolicy::Spread) => vec![rest],
        SteeringVariant::Policy(SteeringPolicy::Latency) => {
            latency_tiers(pool, &rest, local_zone, regions)
        }
        SteeringVariant::RegionOrder(first) => {
            let first: Vec<&str> = first.iter().map(|region| &**region).collect();
            latency_tiers(pool, &rest, local_zone, &first)
        }
    };
    tiers.extend(standby.into_iter().map(|zone| vec![zone]));
    tiers.retain(|zones| !zones.is_empty());
    tiers
}

/// The own zone, the other zones of the own region, then each further region in the order of the
/// file. Without an own locality, every zone is a tier.
fn nearest_tiers(
    pool: &PoolSpec,
    zones: &[usize],
    local_zone: Option<&Locality>,
) -> Vec<Vec<usize>> {
    let Some(local_zone) = local_zone else { return single_zone_tiers(zones) };
    let mut tiers = own_region_tiers(pool, zones, local_zone);
    let is_in_other_region = |&zone: &usize| pool.zones[zone].locality.region != local_zone.region;
    tiers.extend(group_by_region(pool, zones.iter().copied().filter(is_in_other_region)));
    tiers
}

fn single_zone_tiers(zones: &[usize]) -> Vec<Vec<usize>> {
    zones.iter().map(|&zone| vec![zone]).collect()
}

/// The own zone, then the rest of the own region.
fn own_region_tiers(pool: &PoolSpec, zones: &[usize], local_zone: &Locality) -> Vec<Vec<usize>> {
    let own =
        zones.iter().copied().filter(|&zone| pool.zones[zone].locality.region == local_zone.region);
    let (zone, region) = own.partition(|&zone| pool.zones[zone].locality == *local_zone);
    vec![zone, region]
}

/// One tier per region, in the order of the file.
fn group_by_region(pool: &PoolSpec, zones: impl Iterator<Item = usize>) -> Vec<Vec<usize>> {
    let mut regions: Vec<(&str, Vec<usize>)> = Vec::new();
    for zone in zones {
        let region = &*pool.zones[zone].locality.region;
        match regions.iter_mut().find(|(name, _)| *name == region) {
            Some((_, zones)) => zones.push(zone),
            None => regions.push((region, vec![zone])),
        }
    }
    regions.into_iter().map(|(_, zones)| zones).collect()
}

/// One tier of the active zones, then one tier per zone.
fn failover_tiers(pool: &PoolSpec, zones: &[usize]) -> Vec<Vec<usize>> {
    let is_active = |&zone: &usize| pool.zones[zone].settings.role == ZoneRole::Active;
    let (active, rest): (Vec<usize>, Vec<usize>) = zones.iter().partition(|&zone| is_active(zone));
    let mut tiers = vec![active];
    tiers.extend(single_zone_tiers(&rest));
    tiers
}

/// One tier per region in the given order; the own region begins with the own zone.
fn latency_tiers(
    pool: &PoolSpec,
    zones: &[usize],
    local_zone: Option<&Locality>,
    regions: &[&str],
) -> Vec<Vec<usize>> {
    let rank = |zones: &Vec<usize>| {
        let region = zones.first().map(|&zone| &*pool.zones[zone].locality.region);
        regions.iter().position(|name| Some(*name) == region).unwrap_or(regions.len())
    };
    let mut ordered = group_by_region(pool, zones.iter().copied());
    ordered.sort_by_key(rank);
    let Some(local_zone) = local_zone else { return ordered };
    let is_own = |zones: &Vec<usize>| {
        zones.first().is_some_and(|&zone| pool.zones[zone].locality.region == local_zone.region)
    };
    let split = |zones: Vec<usize>| {
        if is_own(&zones) { own_region_tiers(pool, &zones, local_zone) } else { vec![zones] }
    };
    ordered.into_iter().flat_map(split).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(policy: SteeringPolicy, zones: &[(&str, ZoneRole)]) -> PoolSpec {
        let zone = |&(name, role): &(&str, ZoneRole)| {
            let mut zone = ZoneSpec::new(Locality::parse(name).expect("a place"), Vec::new());
            zone.settings.role = role;
            zone
        };
        let mut pool = PoolSpec::new("web", zones.iter().map(zone).collect());
        pool.steer.policy = policy;
        pool
    }

    fn listed(policy: SteeringPolicy) -> PoolSpec {
        let names = ["b/1", "a/1", "a/2", "c/1", "b/2"];
        pool(policy, &names.map(|name| (name, ZoneRole::Ordered)))
    }

    #[test]
    fn nearest_orders_own_zone_then_region_then_others() {
        let here = Locality::parse("a/2");
        let variant = SteeringVariant::Policy(SteeringPolicy::Nearest);
        let tiers_of = |here: Option<&Locality>| {
            group_into_tiers(&listed(SteeringPolicy::Nearest), &variant, here, &[])
        };
        assert_eq!(tiers_of(here.as_ref()), [vec![2], vec![1], vec![0, 4], vec![3]]);
        assert_eq!(tiers_of(None), [[0], [1], [2], [3], [4]]);
    }

    #[test]
    fn failover_orders_zones_by_file_and_role() {
        let here = Locality::parse("a/2");
        let variant = |pool: &PoolSpec| SteeringVariant::Policy(pool.steer.policy);
        let tiers_of = |pool: &PoolSpec| group_into_tiers(pool, &variant(pool), here.as_ref(), &[]);
        assert_eq!(tiers_of(&listed(SteeringPolicy::Failover)), [[0], [1], [2], [3], [4]]);
        let roles = [
            ("a/1", ZoneRole::Standby),
            ("a/2", ZoneRole::Active),
            ("b/1", ZoneRole::Ordered),
            ("b/2", ZoneRole::Active),
            ("c/1", ZoneRole::Standby),
        ];
        assert_eq!(
            tiers_of(&pool(SteeringPolicy::Failover, &roles)),
            [vec![1, 3], vec![2], vec![0], vec![4]]
        );
        let spread = pool(SteeringPolicy::Spread, &roles);
        assert_eq!(tiers_of(&spread), [vec![1, 2, 3], vec![0], vec![4]], "standbys come last");
    }

    #[test]
    fn latency_orders_regions_with_own_zone_first_in_its_region() {
        let here = Locality::parse("b/2");
        let pool = listed(SteeringPolicy::Latency);
        let variant = SteeringVariant::Policy(SteeringPolicy::Latency);
        let tiers_of = |regions: &[&str]| group_into_tiers(&pool, &variant, here.as_ref(), regions);
        assert_eq!(tiers_of(&[]), [vec![4], vec![0], vec![1, 2], vec![3]]);
        assert_eq!(tiers_of(&["c", "a"]), [vec![3], vec![1, 2], vec![4], vec![0]]);
        assert_eq!(
            group_into_tiers(&pool, &variant, None, &["c"]),
            [vec![3], vec![0, 4], vec![1, 2]]
        );
        let variant = SteeringVariant::RegionOrder(vec!["c".into()]);
        let tiers = group_into_tiers(&pool, &variant, here.as_ref(), &["a"]);
        assert_eq!(
            tiers,
            [vec![3], vec![4], vec![0], vec![1, 2]],
            "the named regions, then the order of the file"
        );
    }
}
