//! Checks of what the file drains.

use super::Pools;
use super::check::Check;
use crate::config::file::Located;
use crate::config::findings::Flaw;
use crate::config::suggest;
use crate::logic::director::What;
use crate::logic::id::Place;
use crate::logic::topology::PoolSpec;

impl Check<'_> {
    /// Has every pool know which of its zones and regions are evacuated.
    pub(super) fn evacuate(&mut self, given: &[Located<String>], pools: &mut Pools) {
        for one in given {
            let Some(what @ (What::Zone(_) | What::Region(_))) = What::parse(&one.value) else {
                let mend = "write it as \"region/zone\" or \"region\"; an endpoint is drained by \
                            `drain = true` beside its address";
                let message = format!("`{}` is neither a zone nor a region", one.value);
                self.findings.error(&one.span, Flaw::new(message, mend));
                continue;
            };
            let mut is_known = false;
            for (_, pool) in &mut pools.read {
                if pool.zones.iter().any(|zone| is_in(&zone.place, &what)) {
                    is_known = true;
                    if !pool.drained.contains(&what) {
                        pool.drained.push(what.clone());
                    }
                }
            }
            if !is_known && self.gaps.is_empty() {
                self.nowhere(one, &what, pools);
            }
        }
        self.emptied(pools);
    }

    fn nowhere(&mut self, given: &Located<String>, what: &What, pools: &Pools) {
        let known: Vec<String> = match what {
            What::Region(_) => pools.places().map(|place| place.region.to_string()).collect(),
            _ => pools.places().map(Place::to_string).collect(),
        };
        let near = suggest::nearest(&given.value, known.iter().map(String::as_str));
        let mend = near.map_or_else(
            || "name a zone or a region that the zones of a pool are in".to_owned(),
            |near| format!("did you mean `{near}`?"),
        );
        let message = format!("no pool has an endpoint in {what}");
        self.findings.error(&given.span, Flaw::new(message, mend));
    }

    /// Warns of pools of which nothing is left.
    fn emptied(&mut self, pools: &Pools) {
        for (span, pool) in &pools.read {
            if !pool.drained.is_empty() && is_all_drained(pool) {
                let flaw = Flaw::new(
                    format!("every endpoint of the pool `{}` is drained", pool.name),
                    "its requests are answered 503 until something of it is restored",
                );
                self.findings.warning(span, flaw);
            }
        }
    }
}

fn is_in(place: &Place, what: &What) -> bool {
    match what {
        What::Endpoint(_) => false,
        What::Zone(zone) => zone == place,
        What::Region(region) => *region == place.region,
    }
}

fn is_all_drained(pool: &PoolSpec) -> bool {
    let is_out = |place: &Place| pool.drained.iter().any(|what| is_in(place, what));
    pool.zones.iter().filter(|zone| !is_out(&zone.place)).all(|zone| {
        let mut endpoints = zone.endpoints.iter();
        endpoints.all(|one| pool.drained.contains(&What::Endpoint(one.address)))
    })
}
