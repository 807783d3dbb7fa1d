//! The compiled routes. A lookup allocates nothing, and its cost depends on the request, not on the
//! number of routes.

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

/// A route with one pool, resolved to its index.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolRoute {
    pub spec: Arc<RouteSpec>,
    /// Index of the pool in the topology.
    pub pool: usize,
    pub pool_name: Arc<str>,
}

/// A compiled route with all its pools.
#[derive(Debug)]
pub struct CompiledRoute {
    pub spec: Arc<RouteSpec>,
    /// Pools with their weights; empty if the route answers by itself.
    pool_routes: Vec<(u32, PoolRoute)>,
    /// The pool of mirrored requests, and their percentage.
    pub mirror: Option<(PoolRoute, u32)>,
    /// The pool of the fallback action.
    pub fallback: Option<PoolRoute>,
}

impl CompiledRoute {
    /// Draws a pool by weight; `None` if the route answers by itself.
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
        drawn.map(|(_, pool_route)| pool_route)
    }
}

/// All routes, compiled.
///
/// Host precedence: exact, then the longest wildcard, then any. Path precedence inside a host:
/// exact, then the longest prefix, then patterns in the order of the file, and `/` last. Among
/// routes of the same host and path, more conditions come first, then the order of the file. If no
/// route of a host matches, the next host is tried.
#[derive(Debug, Default)]
pub struct RouteTable {
    routes: Vec<CompiledRoute>,
    pool_routes: Vec<PoolRoute>,
    exact_hosts: HashMap<Box<str>, HostRoutes>,
    wildcard_hosts: HashMap<Box<str>, HostRoutes>,
    /// Lengths of wildcard names, in descending order.
    wildcard_lengths: Vec<usize>,
    any_host: HostRoutes,
}

/// The routes of one host.
#[derive(Debug, Default)]
struct HostRoutes {
    exact_paths: HashMap<Box<str>, RouteIndices>,
    prefixes: PrefixTree,
    patterns: Vec<(Pattern, RouteIndices)>,
    /// Finds the first matching pattern; `None` without patterns, or if they exceed the size limit.
    matcher: Option<meta::Regex>,
    catch_all: RouteIndices,
}

impl RouteTable {
    /// Compiles `specs` against the names of the pools. Routes to unknown pools are skipped, since
    /// validation has rejected them.
    pub fn compile<'a>(specs: &[RouteSpec], pools: impl Iterator<Item = &'a str>) -> Self {
        let pools: HashMap<&str, usize> = pools.enumerate().map(|(i, name)| (name, i)).collect();
        let mut table = Self::default();
        for spec in specs {
            let Some(rule) = compile_route(spec, &pools) else { continue };
            let position = table.routes.len() as u32;
            table.host_routes_mut(&spec.host).group_mut(&spec.path).push(position);
            table
                .pool_routes
                .extend(rule.pool_routes.iter().map(|(_, pool_route)| pool_route.clone()));
            table.pool_routes.extend(rule.mirror.iter().map(|(pool_route, _)| pool_route.clone()));
            table.pool_routes.extend(rule.fallback.clone());
            table.routes.push(rule);
        }
        table.wildcard_lengths = table.wildcard_hosts.keys().map(|name| name.len()).collect();
        table.wildcard_lengths.sort_unstable_by_key(|&length| Reverse(length));
        table.wildcard_lengths.dedup();
        let Self {
            routes: rules, exact_hosts: exact, wildcard_hosts: wildcard, any_host: any, ..
        } = &mut table;
        for host in exact.values_mut().chain(wildcard.values_mut()).chain([any]) {
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

    pub fn find(&self, request: &RouteRequest<'_>) -> Option<&CompiledRoute> {
        let exact =
            if self.exact_hosts.is_empty() { None } else { self.exact_hosts.get(request.host) };
        let mut hosts =
            exact.into_iter().chain(self.matching_wildcards(request.host)).chain([&self.any_host]);
        hosts.find_map(|host| host.find(request, &self.routes))
    }

    fn matching_wildcards<'t>(&'t self, host: &'t str) -> impl Iterator<Item = &'t HostRoutes> {
        self.wildcard_lengths.iter().filter_map(move |&length| {
            // A wildcard requires a dot and at least one label before it.
            let dot = host.len().checked_sub(length + 1).filter(|&dot| dot > 0)?;
            let name = host.get(dot..)?.strip_prefix('.')?;
            self.wildcard_hosts.get(name)
        })
    }

    /// All routes, in the order of the file.
    pub fn compiled_routes(&self) -> &[CompiledRoute] {
        &self.routes
    }

    /// Whether every route answers by itself, with a redirect or a fixed response.
    pub fn needs_no_pool(&self) -> bool {
        !self.routes.is_empty() && self.pool_routes.is_empty()
    }

    /// All routes with their pools, in the order of the file, mirrors and fallbacks included.
    pub fn pool_routes(&self) -> &[PoolRoute] {
        &self.pool_routes
    }
}

/// `None` if a pool is unknown.
fn compile_route(spec: &RouteSpec, pools: &HashMap<&str, usize>) -> Option<CompiledRoute> {
    let shared = Arc::new(spec.clone());
    let pool_route = |spec: &Arc<RouteSpec>, name: &Arc<str>| {
        let pool = *pools.get(&**name)?;
        Some(PoolRoute { spec: Arc::clone(spec), pool, pool_name: Arc::clone(name) })
    };
    let pool_routes = match &spec.action {
        RouteAction::Pools(shares) => {
            let pool_routes = shares.iter().filter(|share| share.weight > 0 || shares.len() == 1);
            let pool_routes = pool_routes
                .filter_map(|share| Some((share.weight, pool_route(&shared, &share.pool)?)));
            let pool_routes: Vec<_> = pool_routes.collect();
            if pool_routes.is_empty() {
                return None;
            }
            pool_routes
        }
        RouteAction::Redirect(_) | RouteAction::Respond(_) => Vec::new(),
    };
    let mirror = spec.mirror.as_ref().and_then(|mirror| {
        // A mirrored request is sent once, and its response is discarded.
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
                let existing = self.patterns.iter().position(|(existing, _)| existing == pattern);
                let index = existing.unwrap_or_else(|| {
                    self.patterns.push((pattern.clone(), RouteIndices::new()));
                    self.patterns.len() - 1
                });
                &mut self.patterns[index].1
            }
        }
    }

    /// Sorts and indexes the added routes.
    fn finish_compile(&mut self, rules: &[CompiledRoute]) {
        let groups = self.exact_paths.values_mut().chain(self.prefixes.groups_mut());
        let groups = groups.chain(self.patterns.iter_mut().map(|(_, group)| group));
        for group in groups.chain([&mut self.catch_all]) {
            group.sort_by_key(|&index| Reverse(rules[index as usize].spec.conditions.count()));
        }
        self.matcher = build_matcher(&self.patterns);
    }

    fn find<'r>(
        &self,
        request: &RouteRequest<'_>,
        rules: &'r [CompiledRoute],
    ) -> Option<&'r CompiledRoute> {
        let pick = |group: &RouteIndices| {
            let mut group = group.iter().map(|&index| &rules[index as usize]);
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

    /// One search over all patterns finds the first match. Later patterns are tried one by one only
    /// if the first match's conditions fail.
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

/// Alternatives of a regex prefer the first one. Each is anchored on both sides, so the first
/// matching alternative is the first matching pattern.
fn build_matcher(patterns: &[(Pattern, RouteIndices)]) -> Option<meta::Regex> {
    if patterns.is_empty() {
        return None;
    }
    let texts: Vec<String> = patterns.iter().map(|(pattern, _)| pattern.anchored()).collect();
    // Each pattern has its own size limit.
    let size_bytes = patterns.len().saturating_mul(Pattern::MAX_COMPILED_BYTES);
    let config = meta::Config::new()
        .nfa_size_limit(Some(size_bytes))
        .which_captures(WhichCaptures::Implicit)
        .utf8_empty(false);
    let syntax = syntax::Config::new().unicode(false).utf8(false);
    meta::Regex::builder().configure(config).syntax(syntax).build_many(&texts).ok()
}
