//! Checks of what the file drains.

use super::Pools;
use super::check::Check;
use crate::config::file::Located;
use crate::config::findings::Flaw;
use crate::config::suggest;
use crate::logic::director::What;
use crate::logic::id::Place;
use crate::logic::topology::{PoolSpec, ZoneSpec};

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
                if pool.zones.iter().any(|zone| what.covers_zone(&zone.place)) {
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

fn is_all_drained(pool: &PoolSpec) -> bool {
    let is_out = |zone: &ZoneSpec, address| {
        pool.drained.iter().any(|what| what.covers(&zone.place, address))
    };
    pool.zones.iter().all(|zone| {
        // What names lead to is not known here: such a zone is out as a whole, or not.
        let has_endpoints = !zone.endpoints.is_empty();
        pool.drained.iter().any(|what| what.covers_zone(&zone.place))
            || has_endpoints && zone.endpoints.iter().all(|one| is_out(zone, one.address))
    })
}
