//! Checks of evacuations and drains in the file.

use super::ValidatedPools;
use super::validator::Validator;
use crate::config::diagnostics::Problem;
use crate::config::file::Located;
use crate::config::suggest;
use crate::logic::model::id::Locality;
use crate::logic::model::selector::TopologySelector;
use crate::logic::model::topology::{PoolSpec, ZoneSpec};

impl Validator<'_> {
    /// Adds the evacuated zones and regions to every pool that has them.
    pub(super) fn evacuate(&mut self, given: &[Located<String>], pools: &mut ValidatedPools) {
        for one in given {
            let Some(target @ (TopologySelector::Zone(_) | TopologySelector::Region(_))) =
                TopologySelector::parse(&one.value)
            else {
                let help = "write it as \"region/zone\" or \"region\"; an endpoint is drained by \
                            `drain = true` beside its address";
                let message = format!("`{}` is neither a zone nor a region", one.value);
                self.diagnostics.error(&one.span, Problem::new(message, help));
                continue;
            };
            let mut is_known = false;
            for (_, pool) in &mut pools.specs {
                if pool.zones.iter().any(|zone| target.covers_zone(&zone.locality)) {
                    is_known = true;
                    if !pool.drained_scopes.contains(&target) {
                        pool.drained_scopes.push(target.clone());
                    }
                }
            }
            if !is_known && self.unread.is_empty() {
                self.report_unknown_target(one, &target, pools);
            }
        }
        self.warn_fully_drained_pools(pools);
    }

    fn report_unknown_target(
        &mut self,
        given: &Located<String>,
        target: &TopologySelector,
        pools: &ValidatedPools,
    ) {
        let known: Vec<String> = match target {
            TopologySelector::Region(_) => {
                pools.zone_names().map(|place| place.region.to_string()).collect()
            }
            _ => pools.zone_names().map(Locality::to_string).collect(),
        };
        let suggestion = suggest::nearest(&given.value, known.iter().map(String::as_str));
        let help = suggestion.map_or_else(
            || "name a zone or a region that the zones of a pool are in".to_owned(),
            |suggestion| format!("did you mean `{suggestion}`?"),
        );
        let message = format!("no pool has an endpoint in {target}");
        self.diagnostics.error(&given.span, Problem::new(message, help));
    }

    /// Warns of pools whose endpoints are all drained.
    fn warn_fully_drained_pools(&mut self, pools: &ValidatedPools) {
        for (span, pool) in &pools.specs {
            if !pool.drained_scopes.is_empty() && is_fully_drained(pool) {
                let problem = Problem::new(
                    format!("every endpoint of the pool `{}` is drained", pool.name),
                    "its requests receive a 503 until a part of it is restored",
                );
                self.diagnostics.warning(span, problem);
            }
        }
    }
}

fn is_fully_drained(pool: &PoolSpec) -> bool {
    let is_drained = |zone: &ZoneSpec, address| {
        pool.drained_scopes.iter().any(|scope| scope.covers(&zone.locality, address))
    };
    pool.zones.iter().all(|zone| {
        // Endpoints from names are not known here: such a zone counts only if it is drained as a
        // whole.
        let has_endpoints = !zone.endpoints.is_empty();
        pool.drained_scopes.iter().any(|scope| scope.covers_zone(&zone.locality))
            || has_endpoints && zone.endpoints.iter().all(|one| is_drained(zone, one.address))
    })
}
