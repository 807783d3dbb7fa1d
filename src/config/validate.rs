//! Checks of the parsed file, and its conversion to the model. All checks always run, so that one
//! run reports every error.

mod access_log;
mod admin;
mod balance;
mod dns;
mod endpoint_target;
mod evacuate;
mod health;
mod ledger;
mod listen;
mod otlp;
mod pool;
mod practice;
mod probe;
mod rate;
mod route;
mod server;
mod steer;
mod tls;
mod upstream_protocol;
mod validator;

use std::collections::HashSet;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::deserialize::{ROOT_SPAN, UnreadKeys};
use super::diagnostics::{Diagnostics, Problem};
use super::file::{ConfigFile, Entries, Located, LocatedTable};
use super::model::{self, Config};
use super::suggest;
use crate::logic::model::id::Locality;
use crate::logic::model::topology::{PoolSpec, Topology};
use crate::logic::overload::descriptor_pool::DescriptorDemand;
use crate::logic::routing::RouteSpec;
use crate::logic::steering::SteeringVariant;

use self::validator::Validator;

/// Checks `file`, whose relative paths start at `base_dir`; `None` if `diagnostics` has an error
/// afterwards, also an earlier one.
pub(super) fn validate(
    file: ConfigFile,
    unread: &UnreadKeys,
    base_dir: &Path,
    diagnostics: &mut Diagnostics,
) -> Option<Config> {
    let (dns_entries, own_listeners) = (Vec::new(), Vec::new());
    let mut validator = Validator { diagnostics, unread, base_dir, dns_entries, own_listeners };
    let workers = validator.workers(&file.workers);
    let state_dir = validator.state_dir(file.state_dir);
    let ledger = validator.ledger(file.ledger);
    let listeners = validator.listeners(&file.listen.unwrap_or_default());
    let admin = validator.admin(&file.admin, &listeners);
    let status = validator.status(file.status, &admin, &listeners);
    let connections = file.limits.as_ref().and_then(|limits| limits.value.connections.clone());
    let limits = validator.limits(file.limits);
    let shutdown = validator.shutdown(file.shutdown);
    let traceparent = file.headers.as_ref().and_then(|headers| headers.value.traceparent.clone());
    let mut headers = validator.headers(file.headers);
    let otlp = validator.otlp(file.otlp, traceparent, &mut headers);
    let access_log = validator.access_log(file.access_log);
    let paths = validator.paths(file.paths);
    let trusted_proxies = validator.trusted_proxies(&file.trusted_proxies.unwrap_or_default());
    let probes_per_second = validator.probes_per_second(file.probes);

    let clients = listeners.iter().map(|(listener, _)| (listener.address, "a listener"));
    let operators = admin.0.address.map(|address| (address, "the admin listener"));
    validator.own_listeners = clients.chain(operators).collect();
    let mut pools = validator.pools(file.pool);
    validator.evacuate(&file.evacuate.unwrap_or_default(), &mut pools);
    let dns = validator.dns(file.dns);
    let local_zone = file.here.and_then(|given| validator.local_zone(&given, &pools));
    let routes = validator.routes(file.route.unwrap_or_default(), &pools, &paths);
    let geo = validator.geo(file.geo, &pools);
    apply_route_policies(&routes, &mut pools);
    validator.warn_unused_pools(&pools, &routes);
    validator.warn_shared_cookies(&pools, &routes);
    let practice = validator.scheduled_drills(file.practice.unwrap_or_default(), &pools);
    let specs = pools.specs.iter().map(|(_, pool)| pool);
    let needs = DescriptorDemand {
        workers,
        listeners: listeners.len(),
        max_concurrent_probes: model::max_concurrent_probes(specs, &dns.entries),
        has_status: status.address.is_some(),
    };
    validator.descriptors(&needs, limits.connections, connections.map(|given| given.span));

    if validator.diagnostics.has_errors() {
        return None;
    }
    let pools = pools.specs.into_iter().map(|(_, pool)| Arc::new(pool)).collect();
    Some(Config {
        listeners: listeners.into_iter().map(|(listen, _)| listen).collect(),
        workers,
        state_dir,
        ledger,
        admin: admin.0,
        status,
        limits,
        shutdown,
        headers,
        access_log,
        otlp,
        paths,
        geo,
        trusted_proxies,
        routes,
        topology: Topology { local: local_zone, pools, probes_per_second },
        dns,
        practice,
    })
}

/// Adds the steering policies of routes as variants to the pools of those routes.
fn apply_route_policies(routes: &[RouteSpec], pools: &mut ValidatedPools) {
    for route in routes {
        let Some(policy) = route.steer else { continue };
        for (_, pool) in &mut pools.specs {
            if route.pool_names().any(|name| *name == pool.name) {
                pool.steer.add_variant(SteeringVariant::Policy(policy));
            }
        }
    }
}

/// The pools of the file, each with the place of its name.
struct ValidatedPools {
    specs: Vec<(Range<usize>, PoolSpec)>,
    known_names: HashSet<Arc<str>>,
    unread: UnreadPools,
}

/// Pools in the file that could not be read.
enum UnreadPools {
    /// No pool could be read, so any name may be the name of one.
    Any,
    Names(Vec<String>),
}

impl ValidatedPools {
    fn names(&self) -> impl Iterator<Item = &str> {
        self.specs.iter().map(|(_, pool)| &*pool.name)
    }

    fn has_pool(&self, name: &str) -> bool {
        self.known_names.contains(name)
            || match &self.unread {
                UnreadPools::Any => true,
                UnreadPools::Names(names) => names.iter().any(|unread| unread == name),
            }
    }

    fn zone_names(&self) -> impl Iterator<Item = &Locality> {
        self.specs.iter().flat_map(|(_, pool)| &pool.zones).map(|zone| &zone.locality)
    }
}

impl Validator<'_> {
    fn pools(
        &mut self,
        pools: Option<Located<Entries<LocatedTable<super::file::Pool>>>>,
    ) -> ValidatedPools {
        let Some(Located { value: Entries(entries), span: table }) = pools else {
            let is_given = self.unread.has_key(&ROOT_SPAN, "pool");
            let unread = if is_given { UnreadPools::Any } else { UnreadPools::Names(Vec::new()) };
            return ValidatedPools { specs: Vec::new(), known_names: HashSet::new(), unread };
        };
        let specs = entries.into_iter().map(|(name, pool)| {
            let spec = self.pool(&name, pool);
            (name.span, spec)
        });
        let specs: Vec<_> = specs.collect();
        let known = specs.iter().map(|(_, pool)| Arc::clone(&pool.name)).collect();
        ValidatedPools {
            specs,
            known_names: known,
            unread: UnreadPools::Names(self.unread.keys_in(&table)),
        }
    }

    /// The zone of this instance; a pool must have an endpoint in its region.
    fn local_zone(&mut self, given: &Located<String>, pools: &ValidatedPools) -> Option<Locality> {
        let zone = self.zone_name(given)?;
        if pools.zone_names().any(|place| *place == zone) {
            return Some(zone);
        }
        let known: Vec<String> = pools.zone_names().map(Locality::to_string).collect();
        let known = known.iter().map(String::as_str);
        let suggestion = suggest::nearest(&given.value, known);
        let help = suggestion.map(|place| format!("did you mean `{place}`?"));
        if pools.zone_names().any(|place| place.region == zone.region) {
            let problem = Problem::new(
                format!("no pool has an endpoint in the zone {zone}"),
                help.unwrap_or_else(|| {
                    "other zones of the region are preferred instead".to_owned()
                }),
            );
            self.diagnostics.warning(&given.span, problem);
        } else if pools.zone_names().next().is_some() && self.unread.is_empty() {
            let problem = Problem::new(
                format!("no pool has an endpoint in the region {}", zone.region),
                help.unwrap_or_else(|| "name a region that the zones of a pool are in".to_owned()),
            );
            self.diagnostics.error(&given.span, problem);
        }
        Some(zone)
    }

    /// Warns of pools without a route. After an error the check is skipped, because `routes` lacks
    /// the routes with errors.
    fn warn_unused_pools(&mut self, pools: &ValidatedPools, routes: &[RouteSpec]) {
        if self.diagnostics.has_errors() {
            return;
        }
        let used_names: HashSet<&str> =
            routes.iter().flat_map(RouteSpec::pool_names).map(|pool| &**pool).collect();
        for (span, pool) in &pools.specs {
            if !used_names.contains(&*pool.name) {
                let problem = Problem::new(
                    format!("no route leads to the pool `{}`", pool.name),
                    format!("add `[[route]]` with `pool = \"{}\"`, or remove it", pool.name),
                );
                self.diagnostics.warning(span, problem);
            }
        }
    }
}
