//! The mirror to the model: every check that needs more than the shape of the file, all of them
//! always made, so that one run finds everything.

mod balance;
mod check;
mod dns;
mod evacuate;
mod health;
mod ledger;
mod listen;
mod observe;
mod otlp;
mod pool;
mod practice;
mod probe;
mod rate;
mod route;
mod server;
mod speech;
mod steer;
mod tls;

use std::collections::HashSet;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::file::{Entries, File, Located, Table};
use super::findings::{Findings, Flaw};
use super::model::{self, Config};
use super::read::{Gaps, ROOT};
use super::suggest;
use crate::logic::id::Place;
use crate::logic::route::RouteSpec;
use crate::logic::steer::Way;
use crate::logic::topology::{PoolSpec, Topology};

use self::check::Check;

/// Checks `file`, whose relative paths begin at `base`; `None` when there is any error in `findings`
/// afterwards, before or new.
pub(super) fn validate(
    file: File,
    gaps: &Gaps,
    base: &Path,
    findings: &mut Findings,
) -> Option<Config> {
    let mut check = Check { findings, gaps, base, names: Vec::new() };
    let workers = check.workers(&file.workers);
    let state_dir = check.state_dir(file.state_dir);
    let ledger = check.ledger(file.ledger);
    let listeners = check.listen(&file.listen.unwrap_or_default());
    let admin = check.admin(&file.admin, &listeners);
    let connections = file.limits.as_ref().and_then(|limits| limits.value.connections.clone());
    let limits = check.limits(file.limits);
    let shutdown = check.shutdown(file.shutdown);
    let traceparent = file.headers.as_ref().and_then(|headers| headers.value.traceparent.clone());
    let mut headers = check.headers(file.headers);
    let otlp = check.otlp(file.otlp, traceparent, &mut headers);
    let access_log = check.access_log(file.access_log);
    let paths = check.paths(file.paths);
    let trusted_proxies = check.trusted_proxies(&file.trusted_proxies.unwrap_or_default());
    let probes_per_second = check.probes_per_second(file.probes);

    let mut pools = check.pools(file.pool);
    check.evacuate(&file.evacuate.unwrap_or_default(), &mut pools);
    let dns = check.dns(file.dns);
    let here = file.here.and_then(|given| check.here(&given, &pools));
    let routes = check.routes(file.route.unwrap_or_default(), &pools, &paths);
    let geo = check.geo(file.geo, &pools);
    lead(&routes, &mut pools);
    check.unused(&pools, &routes);
    check.rival_cookies(&pools, &routes);
    let practice = check.practice(file.practice.unwrap_or_default(), &pools);
    let specs = pools.read.iter().map(|(_, pool)| pool);
    let needs = model::needs(workers, listeners.len(), specs, &dns.entries);
    check.descriptors(&needs, limits.connections, connections.map(|given| given.span));

    if check.findings.has_errors() {
        return None;
    }
    let pools = pools.read.into_iter().map(|(_, pool)| Arc::new(pool)).collect();
    Some(Config {
        listen: listeners.into_iter().map(|(listen, _)| listen).collect(),
        workers,
        state_dir,
        ledger,
        admin,
        limits,
        shutdown,
        headers,
        access_log,
        otlp,
        paths,
        geo,
        trusted_proxies,
        routes,
        topology: Topology { here, pools, probes_per_second },
        dns,
        practice,
    })
}

/// Tells pools of the policies by which routes lead to them, besides their own.
fn lead(routes: &[RouteSpec], pools: &mut Pools) {
    for route in routes {
        let Some(policy) = route.steer else { continue };
        for (_, pool) in &mut pools.read {
            if route.pools().any(|name| *name == pool.name) {
                pool.steer.add(Way::By(policy));
            }
        }
    }
}

/// The pools of the file, with the place of each name.
struct Pools {
    read: Vec<(Range<usize>, PoolSpec)>,
    known: HashSet<Arc<str>>,
    unread: Unread,
}

/// Pools that the file has, but not readably.
enum Unread {
    /// None of them could be read, so any name may be one.
    Any,
    /// These names.
    Names(Vec<String>),
}

impl Pools {
    fn names(&self) -> impl Iterator<Item = &str> {
        self.read.iter().map(|(_, pool)| &*pool.name)
    }

    fn has(&self, name: &str) -> bool {
        self.known.contains(name)
            || match &self.unread {
                Unread::Any => true,
                Unread::Names(names) => names.iter().any(|unread| unread == name),
            }
    }

    fn places(&self) -> impl Iterator<Item = &Place> {
        self.read.iter().flat_map(|(_, pool)| &pool.zones).map(|zone| &zone.place)
    }
}

impl Check<'_> {
    fn pools(&mut self, pools: Option<Located<Entries<Table<super::file::Pool>>>>) -> Pools {
        let Some(Located { value: Entries(entries), span: table }) = pools else {
            let given = self.gaps.has(&ROOT, "pool");
            let unread = if given { Unread::Any } else { Unread::Names(Vec::new()) };
            return Pools { read: Vec::new(), known: HashSet::new(), unread };
        };
        let read = entries.into_iter().map(|(name, pool)| {
            let spec = self.pool(&name, pool);
            (name.span, spec)
        });
        let read: Vec<_> = read.collect();
        let known = read.iter().map(|(_, pool)| Arc::clone(&pool.name)).collect();
        Pools { read, known, unread: Unread::Names(self.gaps.keys_of(&table)) }
    }

    /// Where this instance stands, which must be a region that something else stands in too.
    fn here(&mut self, given: &Located<String>, pools: &Pools) -> Option<Place> {
        let here = self.place(given)?;
        if pools.places().any(|place| *place == here) {
            return Some(here);
        }
        let known: Vec<String> = pools.places().map(Place::to_string).collect();
        let known = known.iter().map(String::as_str);
        let meant = suggest::nearest(&given.value, known);
        let mend = meant.map(|place| format!("did you mean `{place}`?"));
        if pools.places().any(|place| place.region == here.region) {
            let flaw = Flaw::new(
                format!("no pool has an endpoint in the zone {here}"),
                mend.unwrap_or_else(|| {
                    "other zones of the region are preferred instead".to_owned()
                }),
            );
            self.findings.warning(&given.span, flaw);
        } else if pools.places().next().is_some() && self.gaps.is_empty() {
            let flaw = Flaw::new(
                format!("no pool has an endpoint in the region {}", here.region),
                mend.unwrap_or_else(|| "name a region that the zones of a pool are in".to_owned()),
            );
            self.findings.error(&given.span, flaw);
        }
        Some(here)
    }

    /// Warns of pools that no route leads to. With errors about, a route may be missing from
    /// `routes` only because something else in it is wrong.
    fn unused(&mut self, pools: &Pools, routes: &[RouteSpec]) {
        if self.findings.has_errors() {
            return;
        }
        let used: HashSet<&str> =
            routes.iter().flat_map(RouteSpec::pools).map(|pool| &**pool).collect();
        for (span, pool) in &pools.read {
            if !used.contains(&*pool.name) {
                let flaw = Flaw::new(
                    format!("no route leads to the pool `{}`", pool.name),
                    format!("add `[[route]]` with `pool = \"{}\"`, or leave it away", pool.name),
                );
                self.findings.warning(span, flaw);
            }
        }
    }
}
