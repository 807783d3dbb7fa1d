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

use super::action::{Action, Fallback};
use super::condition::Ask;
use super::matching::{HostMatch, PathMatch};
use super::pattern::Pattern;
use super::tree::{Group, Tree};
use super::{RetrySpec, RouteSpec};
use crate::logic::statuses::ServerErrors;

/// A way that a route leads: to one pool. What a request needs that is on it.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// As declared.
    pub spec: Arc<RouteSpec>,
    /// Index of the pool in the topology.
    pub pool: usize,
    /// The pool's name.
    pub pool_name: Arc<str>,
}

/// A compiled route, with all the ways that it leads.
#[derive(Debug)]
pub struct Rule {
    /// As declared.
    pub spec: Arc<RouteSpec>,
    /// Its pools, with their weights; none if it answers by itself.
    ways: Vec<(u32, Route)>,
    /// Where copies go, and how many of a hundred.
    pub mirror: Option<(Route, u32)>,
    /// The pool that is left when the others have nothing left to try.
    pub fallback: Option<Route>,
}

impl Rule {
    /// The pool of one request, by weight; `None` if the route answers by itself.
    #[must_use]
    pub fn draw(&self, rng: &mut Rng) -> Option<&Route> {
        if let [(_, only)] = &*self.ways {
            return Some(only);
        }
        let total = self.ways.iter().map(|(weight, _)| weight).sum::<u32>();
        let mut point = rng.u32(..total.max(1));
        let drawn = self.ways.iter().find(|(weight, _)| match point.checked_sub(*weight) {
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
    rules: Vec<Rule>,
    ways: Vec<Route>,
    exact: HashMap<Box<str>, Host>,
    under: HashMap<Box<str>, Host>,
    /// The lengths of the wildcards' names, the longest first.
    under_lengths: Vec<usize>,
    any: Host,
}

/// The routes of one host.
#[derive(Debug, Default)]
struct Host {
    exact: HashMap<Box<str>, Group>,
    prefixes: Tree,
    patterns: Vec<(Pattern, Group)>,
    /// Finds the first of `patterns` that matches; absent if there are none, or too many for one.
    matcher: Option<meta::Regex>,
    rest: Group,
}

impl RouteTable {
    /// Compiles `specs` against the pools' names. A route to a pool that does not exist is left
    /// out: validation has refused it before.
    #[must_use]
    pub fn compile<'a>(specs: &[RouteSpec], pools: impl Iterator<Item = &'a str>) -> Self {
        let pools: HashMap<&str, usize> = pools.enumerate().map(|(i, name)| (name, i)).collect();
        let mut table = Self::default();
        for spec in specs {
            let Some(rule) = rule(spec, &pools) else { continue };
            let position = table.rules.len() as u32;
            table.host(&spec.host).group(&spec.path).push(position);
            table.ways.extend(rule.ways.iter().map(|(_, way)| way.clone()));
            table.ways.extend(rule.mirror.iter().map(|(way, _)| way.clone()));
            table.ways.extend(rule.fallback.clone());
            table.rules.push(rule);
        }
        table.under_lengths = table.under.keys().map(|name| name.len()).collect();
        table.under_lengths.sort_unstable_by_key(|&length| Reverse(length));
        table.under_lengths.dedup();
        let Self { rules, exact, under, any, .. } = &mut table;
        for host in exact.values_mut().chain(under.values_mut()).chain([any]) {
            host.finish(rules);
        }
        table
    }

    fn host(&mut self, host: &HostMatch) -> &mut Host {
        match host {
            HostMatch::Any => &mut self.any,
            HostMatch::Exact(name) => self.exact.entry(name.as_str().into()).or_default(),
            HostMatch::Under(name) => self.under.entry(name.as_str().into()).or_default(),
        }
    }

    /// The route of a request.
    #[must_use]
    pub fn find(&self, ask: &Ask<'_>) -> Option<&Rule> {
        let exact = if self.exact.is_empty() { None } else { self.exact.get(ask.host) };
        let mut hosts = exact.into_iter().chain(self.wildcards(ask.host)).chain([&self.any]);
        hosts.find_map(|host| host.find(ask, &self.rules))
    }

    fn wildcards<'t>(&'t self, host: &'t str) -> impl Iterator<Item = &'t Host> {
        self.under_lengths.iter().filter_map(move |&length| {
            // A dot, and a label in front of it.
            let dot = host.len().checked_sub(length + 1).filter(|&dot| dot > 0)?;
            let name = host.get(dot..)?.strip_prefix('.')?;
            self.under.get(name)
        })
    }

    /// Every route, in the order of the file.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Every way that a route leads, in the order of the file; those for copies and as a last resort
    /// included.
    #[must_use]
    pub fn routes(&self) -> &[Route] {
        &self.ways
    }
}

/// `None` if it leads nowhere.
fn rule(spec: &RouteSpec, pools: &HashMap<&str, usize>) -> Option<Rule> {
    let shared = Arc::new(spec.clone());
    let way = |spec: &Arc<RouteSpec>, name: &Arc<str>| {
        let pool = *pools.get(&**name)?;
        Some(Route { spec: Arc::clone(spec), pool, pool_name: Arc::clone(name) })
    };
    let ways = match &spec.action {
        Action::Pools(shares) => {
            let ways = shares.iter().filter(|share| share.weight > 0 || shares.len() == 1);
            let ways = ways.filter_map(|share| Some((share.weight, way(&shared, &share.pool)?)));
            let ways: Vec<_> = ways.collect();
            if ways.is_empty() {
                return None;
            }
            ways
        }
        Action::Redirect(_) | Action::Respond(_) => Vec::new(),
    };
    let mirror = spec.mirror.as_ref().and_then(|mirror| {
        // A copy is sent once, and nobody waits for what it gets.
        let retry = RetrySpec { attempts: 1, statuses: ServerErrors::NONE, ..spec.retry };
        let spec = Arc::new(RouteSpec { retry, ..spec.clone() });
        Some((way(&spec, &mirror.pool)?, mirror.percent))
    });
    let fallback = match &spec.fallback {
        Some(Fallback::Pool(name)) => way(&shared, name),
        _ => None,
    };
    Some(Rule { spec: shared, ways, mirror, fallback })
}

impl Host {
    fn group(&mut self, path: &PathMatch) -> &mut Group {
        match path {
            PathMatch::Prefix(prefix) if prefix == "/" => &mut self.rest,
            PathMatch::Prefix(prefix) => self.prefixes.group(prefix),
            PathMatch::Exact(path) => self.exact.entry(path.as_str().into()).or_default(),
            PathMatch::Matches(pattern) => {
                let known = self.patterns.iter().position(|(known, _)| known == pattern);
                let at = known.unwrap_or_else(|| {
                    self.patterns.push((pattern.clone(), Group::new()));
                    self.patterns.len() - 1
                });
                &mut self.patterns[at].1
            }
        }
    }

    /// All routes are there.
    fn finish(&mut self, rules: &[Rule]) {
        let groups = self.exact.values_mut().chain(self.prefixes.groups());
        let groups = groups.chain(self.patterns.iter_mut().map(|(_, group)| group));
        for group in groups.chain([&mut self.rest]) {
            group.sort_by_key(|&at| Reverse(rules[at as usize].spec.conditions.count()));
        }
        self.matcher = matcher(&self.patterns);
    }

    fn find<'r>(&self, ask: &Ask<'_>, rules: &'r [Rule]) -> Option<&'r Rule> {
        let pick = |group: &Group| {
            let mut group = group.iter().map(|&at| &rules[at as usize]);
            group.find(|rule| rule.spec.conditions.hold(ask))
        };
        let exact = if self.exact.is_empty() { None } else { self.exact.get(ask.path) };
        exact
            .and_then(pick)
            .or_else(|| self.prefixes.find(ask.path, pick))
            .or_else(|| self.matching(ask.path, pick))
            .or_else(|| pick(&self.rest))
    }

    /// One search for all patterns finds the first that matches. Only where its conditions refuse the
    /// request are the later ones tried, one by one.
    fn matching<T>(&self, path: &str, pick: impl Fn(&Group) -> Option<T>) -> Option<T> {
        let first = match &self.matcher {
            Some(matcher) => {
                let input = Input::new(path).anchored(Anchored::Yes);
                matcher.search_half(&input)?.pattern().as_usize()
            }
            None => 0,
        };
        let is_sure = self.matcher.is_some();
        let mut later = self.patterns.iter().skip(first).enumerate();
        later.find_map(|(n, (pattern, group))| {
            (n == 0 && is_sure || pattern.matches(path.as_bytes())).then(|| pick(group)).flatten()
        })
    }
}

/// Of patterns that match at the same place the first is preferred, and all of these match the whole
/// path or not at all.
fn matcher(patterns: &[(Pattern, Group)]) -> Option<meta::Regex> {
    if patterns.is_empty() {
        return None;
    }
    let texts: Vec<String> = patterns.iter().map(|(pattern, _)| pattern.anchored()).collect();
    // Each of them has its bound.
    let size_bytes = patterns.len().saturating_mul(Pattern::SIZE_BYTES);
    let config = meta::Config::new()
        .nfa_size_limit(Some(size_bytes))
        .which_captures(WhichCaptures::Implicit)
        .utf8_empty(false);
    let syntax = syntax::Config::new().unicode(false).utf8(false);
    meta::Regex::builder().configure(config).syntax(syntax).build_many(&texts).ok()
}
