//! Requests to routes, compiled once per configuration. A look-up allocates nothing, and its cost
//! grows with the request and not with the number of routes.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use fastrand::Rng;
use regex_automata::meta;
use regex_automata::nfa::thompson::WhichCaptures;
use regex_automata::util::syntax;
use regex_automata::{Anchored, Input};

use super::action::{FallbackAction, RouteAction};
use super::condition::RouteRequest;
use super::matching::{HostMatch, PathMatch};
use super::pattern::Pattern;
use super::prefix_tree::{PrefixTree, RouteIndices};
use super::{RetrySpec, RouteSpec};
use crate::logic::request::server_errors::ServerErrors;

/// A way that a route leads: to one pool. What a request needs that is on it.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolRoute {
    pub spec: Arc<RouteSpec>,
    /// Index of the pool in the topology.
    pub pool: usize,
    pub pool_name: Arc<str>,
}

/// A compiled route, with all the ways that it leads.
#[derive(Debug)]
pub struct CompiledRoute {
    pub spec: Arc<RouteSpec>,
    /// Its pools, with their weights; none if it answers by itself.
    pool_routes: Vec<(u32, PoolRoute)>,
    /// Where copies go, and how many of a hundred.
    pub mirror: Option<(PoolRoute, u32)>,
    /// The pool that is left when the others have nothing left to try.
    pub fallback: Option<PoolRoute>,
}

impl CompiledRoute {
    /// The pool of one request, by weight; `None` if the route answers by itself.
    pub fn pick_pool(&self, rng: &mut Rng) -> Option<&PoolRoute> {
        if let [(_, only)] = &*self.pool_routes {
            return Some(only);
        }
        let total = self.pool_routes.iter().map(|(weight, _)| weight).sum::<u32>();
        let mut point = rng.u32(..total.max(1));
        let drawn = self.pool_routes.iter().find(|(weight, _)| match point.checked_sub(*weight) {
            Some(rest) => {
                point = rest;
                false
            }
            None => true,
        });
        drawn.map(|(_, way)| way)
    }
}

/// All routes, compiled.
///
/// The host comes first: exact, then the longest wildcard, then any. Inside a host an exact path wins
/// over the longest prefix, that over patterns in the order of the file; the prefix `/`, which says
/// nothing of the path, comes last. Of routes for the same host and path the one with more conditions
/// is asked first, then the earlier one. Where no route of a host takes the request, the next host is
/// asked.
#[derive(Debug, Default)]
pub struct RouteTable {
    routes: Vec<CompiledRoute>,
    pool_routes: Vec<PoolRoute>,
    exact_hosts: HashMap<Box<str>, HostRoutes>,
    wildcard_hosts: HashMap<Box<str>, HostRoutes>,
    /// The lengths of the wildcards' names, the longest first.
    wildcard_lengths: Vec<usize>,
    any_host: HostRoutes,
}

/// The routes of one host.
#[derive(Debug, Default)]
struct HostRoutes {
    exact_paths: HashMap<Box<str>, RouteIndices>,
    prefixes: PrefixTree,
    patterns: Vec<(Pattern, RouteIndices)>,
    /// Finds the first of `patterns` that matches; absent if there are none, or too many for one.
    matcher: Option<meta::Regex>,
    catch_all: RouteIndices,
}

impl RouteTable {
    /// Compiles `specs` against the pools' names. A route to a pool that does not exist is left
    /// out: validation has refused it before.
    pub fn compile<'a>(specs: &[RouteSpec], pools: impl Iterator<Item = &'a str>) -> Self {
        let pools: HashMap<&str, usize> = pools.enumerate().map(|(i, name)| (name, i)).collect();
        let mut table = Self::default();
        for spec in specs {
            let Some(rule) = compile_route(spec, &pools) else { continue };
            let position = table.routes.len() as u32;
            table.host_routes_mut(&spec.host).group_mut(&spec.path).push(position);
            table.pool_routes.extend(rule.pool_routes.iter().map(|(_, way)| way.clone()));
            table.pool_routes.extend(rule.mirror.iter().map(|(way, _)| way.clone()));
            table.pool_routes.extend(rule.fallback.clone());
            table.routes.push(rule);
        }
        table.wildcard_lengths = table.wildcard_hosts.keys().map(|name| name.len()).collect();
        table.wildcard_lengths.sort_unstable_by_key(|&length| Reverse(length));
        table.wildcard_lengths.dedup();
        let Self {
            routes: rules, exact_hosts: exact, wildcard_hosts: under, any_host: any, ..
        } = &mut table;
        for host in exact.values_mut().chain(under.values_mut()).chain([any]) {
            host.finish_compile(rules);
        }
        table
    }

    fn host_routes_mut(&mut self, host: &HostMatch) -> &mut HostRoutes {
        match host {
            HostMatch::Any => &mut self.any_host,
            HostMatch::Exact(name) => self.exact_hosts.entry(name.as_str().into()).or_default(),
            HostMatch::Wildcard(name) => {
                self.wildcard_hosts.entry(name.as_str().into()).or_default()
            }
        }
    }

    /// The route of a request.
    pub fn find(&self, request: &RouteRequest<'_>) -> Option<&CompiledRoute> {
        let exact =
            if self.exact_hosts.is_empty() { None } else { self.exact_hosts.get(request.host) };
        let mut hosts =
            exact.into_iter().chain(self.matching_wildcards(request.host)).chain([&self.any_host]);
        hosts.find_map(|host| host.find(request, &self.routes))
    }

    fn matching_wildcards<'t>(&'t self, host: &'t str) -> impl Iterator<Item = &'t HostRoutes> {
        self.wildcard_lengths.iter().filter_map(move |&length| {
            // A dot, and a label in front of it.
            let dot = host.len().checked_sub(length + 1).filter(|&dot| dot > 0)?;
            let name = host.get(dot..)?.strip_prefix('.')?;
            self.wildcard_hosts.get(name)
        })
    }

    /// Every route, in the order of the file.
    pub fn compiled_routes(&self) -> &[CompiledRoute] {
        &self.routes
    }

    /// Every way that a route leads, in the order of the file; those for copies and as a last resort
    /// included.
    pub fn pool_routes(&self) -> &[PoolRoute] {
        &self.pool_routes
    }
}

/// `None` if it leads nowhere.
fn compile_route(spec: &RouteSpec, pools: &HashMap<&str, usize>) -> Option<CompiledRoute> {
    let shared = Arc::new(spec.clone());
    let pool_route = |spec: &Arc<RouteSpec>, name: &Arc<str>| {
        let pool = *pools.get(&**name)?;
        Some(PoolRoute { spec: Arc::clone(spec), pool, pool_name: Arc::clone(name) })
    };
    let pool_routes = match &spec.action {
        RouteAction::Pools(shares) => {
            let ways = shares.iter().filter(|share| share.weight > 0 || shares.len() == 1);
            let ways =
                ways.filter_map(|share| Some((share.weight, pool_route(&shared, &share.pool)?)));
            let ways: Vec<_> = ways.collect();
            if ways.is_empty() {
                return None;
            }
            ways
        }
        RouteAction::Redirect(_) | RouteAction::Respond(_) => Vec::new(),
    };
    let mirror = spec.mirror.as_ref().and_then(|mirror| {
        // A copy is sent once, and nobody waits for what it gets.
        let retry = RetrySpec { attempts: 1, statuses: ServerErrors::NONE, ..spec.retry };
        let spec = Arc::new(RouteSpec { retry, ..spec.clone() });
        Some((pool_route(&spec, &mirror.pool)?, mirror.percent))
    });
    let fallback = match &spec.fallback {
        Some(FallbackAction::Pool(name)) => pool_route(&shared, name),
        _ => None,
    };
    Some(CompiledRoute { spec: shared, pool_routes, mirror, fallback })
}

impl HostRoutes {
    fn group_mut(&mut self, path: &PathMatch) -> &mut RouteIndices {
        match path {
            PathMatch::Prefix(prefix) if prefix == "/" => &mut self.catch_all,
            PathMatch::Prefix(prefix) => self.prefixes.group_mut(prefix),
            PathMatch::Exact(path) => self.exact_paths.entry(path.as_str().into()).or_default(),
            PathMatch::Regex(pattern) => {
                let known = self.patterns.iter().position(|(known, _)| known == pattern);
                let at = known.unwrap_or_else(|| {
                    self.patterns.push((pattern.clone(), RouteIndices::new()));
                    self.patterns.len() - 1
                });
                &mut self.patterns[at].1
            }
        }
    }

    /// All routes are there.
    fn finish_compile(&mut self, rules: &[CompiledRoute]) {
        let groups = self.exact_paths.values_mut().chain(self.prefixes.groups_mut());
        let groups = groups.chain(self.patterns.iter_mut().map(|(_, group)| group));
        for group in groups.chain([&mut self.catch_all]) {
            group.sort_by_key(|&at| Reverse(rules[at as usize].spec.conditions.count()));
        }
        self.matcher = build_matcher(&self.patterns);
    }

    fn find<'r>(
        &self,
        request: &RouteRequest<'_>,
        rules: &'r [CompiledRoute],
    ) -> Option<&'r CompiledRoute> {
        let pick = |group: &RouteIndices| {
            let mut group = group.iter().map(|&at| &rules[at as usize]);
            group.find(|rule| rule.spec.conditions.is_met_by(request))
        };
        let exact =
            if self.exact_paths.is_empty() { None } else { self.exact_paths.get(request.path) };
        exact
            .and_then(pick)
            .or_else(|| self.prefixes.find(request.path, pick))
            .or_else(|| self.find_by_pattern(request.path, pick))
            .or_else(|| pick(&self.catch_all))
    }

    /// One search for all patterns finds the first that matches. Only where its conditions refuse the
    /// request are the later ones tried, one by one.
    fn find_by_pattern<T>(
        &self,
        path: &str,
        pick: impl Fn(&RouteIndices) -> Option<T>,
    ) -> Option<T> {
        let first = match &self.matcher {
            Some(matcher) => {
                let input = Input::new(path).anchored(Anchored::Yes);
                matcher.search_half(&input)?.pattern().as_usize()
            }
            None => 0,
        };
        let has_first_match = self.matcher.is_some();
        let mut later = self.patterns.iter().skip(first).enumerate();
        later.find_map(|(n, (pattern, group))| {
            (n == 0 && has_first_match || pattern.matches(path.as_bytes()))
                .then(|| pick(group))
                .flatten()
        })
    }
}

/// Of patterns that match at the same place the first is preferred, and all of these match the whole
/// path or not at all.
fn build_matcher(patterns: &[(Pattern, RouteIndices)]) -> Option<meta::Regex> {
    if patterns.is_empty() {
        return None;
    }
    let texts: Vec<String> = patterns.iter().map(|(pattern, _)| pattern.anchored()).collect();
    // Each of them has its bound.
    let size_bytes = patterns.len().saturating_mul(Pattern::MAX_COMPILED_BYTES);
    let config = meta::Config::new()
        .nfa_size_limit(Some(size_bytes))
        .which_captures(WhichCaptures::Implicit)
        .utf8_empty(false);
    let syntax = syntax::Config::new().unicode(false).utf8(false);
    meta::Regex::builder().configure(config).syntax(syntax).build_many(&texts).ok()
}
