//! Checks of routes.

mod action;
mod fields;
mod matching;
mod page;

use std::collections::HashMap;
use std::ops::{Range, RangeInclusive};
use std::sync::Arc;

use http::HeaderValue;

use super::Pools;
use super::check::{Check, Key};
use super::pool::NAME_MEND;
use crate::config::file::{self, Located, Retry, RouteLimits, Scalar, Table};
use crate::config::findings::Flaw;
use crate::config::read::ROOT;
use crate::config::{suggest, units};
use crate::logic::id::is_name;
use crate::logic::route::{
    Action, BadPath, Conditions, HostMatch, PathChange, PathMatch, PathRules, RetrySpec, RouteSpec,
    Timeouts, normalise,
};
use crate::logic::statuses::{SERVER_ERRORS, ServerErrors};

use self::fields::Message;

const ATTEMPTS: RangeInclusive<u32> = 1..=10;
const BUFFER_BYTES: RangeInclusive<usize> = 0..=64 * 1024 * 1024;
const BUDGET_PERCENT: RangeInclusive<u32> = 0..=100;
const BUDGET_FLOOR: RangeInclusive<u32> = 0..=100_000;

/// Routes with `path_regex` of one host: all of them are searched for at once.
const MAX_PATTERNS: usize = 1_000;

/// What a route may refer to.
#[derive(Clone, Copy)]
struct Known<'a> {
    pools: &'a Pools,
    paths: &'a PathRules,
}

/// The first place of every route's name and of what it matches.
#[derive(Default)]
struct Seen {
    names: HashMap<Arc<str>, Range<usize>>,
    matches: HashMap<(HostMatch, PathMatch, String), Range<usize>>,
    /// How many routes have been named by their host and path.
    made: HashMap<String, usize>,
    /// How many patterns each host has.
    patterns: HashMap<HostMatch, usize>,
}

impl Check<'_> {
    pub(super) fn routes(
        &mut self,
        given: Vec<Table<file::Route>>,
        pools: &Pools,
        paths: &PathRules,
    ) -> Vec<RouteSpec> {
        if given.is_empty() {
            let mend = "add `[[route]]` with `pool = \"…\"`";
            self.missing(&ROOT, "route", Flaw::new("there is no route", mend));
        }
        let mut seen = Seen::default();
        given.into_iter().filter_map(|route| self.route(route, pools, paths, &mut seen)).collect()
    }

    fn route(
        &mut self,
        route: Table<file::Route>,
        pools: &Pools,
        paths: &PathRules,
        seen: &mut Seen,
    ) -> Option<RouteSpec> {
        let Table { value: given, span: table } = route;
        let asked = self.matching(&given, &table, paths);
        let path = asked.path.as_ref();
        let answer = self.answer(&given, &table, path, Known { pools, paths });
        let mut conditions = asked.conditions;
        if let Some(Action::Redirect(redirect)) = &answer.action {
            // Who is there already is not sent there.
            let is_all = redirect.host.is_none() && redirect.path == PathChange::Keep;
            if let Some(conditions) = &mut conditions {
                conditions.cleartext = redirect.to_https && is_all;
            }
        }
        let matched = asked.host.zip(asked.path).zip(conditions);
        let matched = matched.filter(|matched| self.is_new_match(matched, &given, &table, seen));
        let request_headers = self.header_changes(&given.request_headers, Message::Request);
        let response_headers = self.header_changes(&given.response_headers, Message::Response);
        let key = Key::new(&table, "hsts", &given.hsts);
        let hsts = self.setting(&key, None, |text| hsts(text).map(Some)).value;
        let name = given.name.and_then(|name| self.route_name(name, seen));
        let retry = self.retry(given.retry);
        let timeouts = self.timeouts(given.timeouts);
        let websocket = self.upgrade(given.upgrade.as_deref());
        let rate = given.limits.as_ref().and_then(|limits| self.rate(&limits.value.rate));
        let steer = given.steer.map(|word| self.policy(&word));
        let slo = self.slo(given.slo);
        let body_bytes = self.body_limit(given.limits);
        let ((host, path), conditions) = matched?;
        let name = name.unwrap_or_else(|| seen.made_name(&host, &path));
        Some(RouteSpec {
            name,
            host,
            path,
            conditions,
            action: answer.action?,
            rewrite: answer.rewrite,
            request_headers,
            response_headers,
            hsts,
            mirror: answer.mirror,
            fallback: answer.fallback,
            retry,
            timeouts,
            body_bytes,
            rate,
            steer,
            slo,
            websocket,
        })
    }

    /// Reports a route that an earlier one leaves no request to, and too many patterns.
    fn is_new_match(
        &mut self,
        ((host, path), conditions): &((HostMatch, PathMatch), Conditions),
        given: &file::Route,
        table: &Range<usize>,
        seen: &mut Seen,
    ) -> bool {
        let keys = [&given.path, &given.path_exact, &given.path_regex, &given.host];
        let first = keys.into_iter().flatten().next().map_or(table, |key| &key.span);
        if let PathMatch::Matches(_) = path {
            let count = seen.patterns.entry(host.clone()).or_default();
            *count += 1;
            if *count == MAX_PATTERNS + 1 {
                let message = format!("there are more than {MAX_PATTERNS} patterns for {host}");
                self.findings.error(first, Flaw::new(message, "use `path` where that will do"));
            }
        }
        let conditioned = if conditions.count() > 0 { ", under the same conditions" } else { "" };
        let flaw = Flaw::new(
            format!("an earlier route matches {host}{path} already{conditioned}"),
            "give them different hosts, paths or conditions, or leave one away",
        );
        // Their order in the file says nothing.
        let mut conditions = conditions.clone();
        conditions.methods.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        conditions.headers.sort_by(|(a, _), (b, _)| a.as_str().cmp(b.as_str()));
        conditions.query.sort_by(|(a, _), (b, _)| a.cmp(b));
        let key = (host.clone(), path.clone(), format!("{conditions:?}"));
        self.unique(&mut seen.matches, key, first, flaw)
    }

    /// The pool that `given` names; reports it if there is none.
    fn known_pool(&mut self, given: &Located<String>, pools: &Pools) -> Arc<str> {
        if !pools.has(&given.value) {
            let mend = suggest::nearest(&given.value, pools.names()).map_or_else(
                || match suggest::list(pools.names()) {
                    names if names.is_empty() => format!("add `[pool.{}]`", given.value),
                    names => format!("the pools are {names}"),
                },
                |name| format!("did you mean `{name}`?"),
            );
            let message = format!("there is no pool `{}`", given.value);
            self.findings.error(&given.span, Flaw::new(message, mend));
        }
        Arc::from(given.value.as_str())
    }

    fn route_name(&mut self, name: Located<String>, seen: &mut Seen) -> Option<Arc<str>> {
        if !is_name(&name.value) {
            let message = format!("`{}` cannot name a route", name.value);
            self.findings.error(&name.span, Flaw::new(message, NAME_MEND));
            return None;
        }
        let given: Arc<str> = Arc::from(name.value);
        let message = format!("there is already a route `{given}`");
        let flaw = Flaw::new(message, "give each route a name of its own");
        self.unique(&mut seen.names, Arc::clone(&given), &name.span, flaw).then_some(given)
    }

    fn retry(&mut self, retry: Option<Table<Retry>>) -> RetrySpec {
        let Table { value: given, span: table } = retry.unwrap_or_default();
        let default = RetrySpec::default();
        let key = Key::new(&table, "attempts", &given.attempts);
        let attempts = self.whole(&key, &ATTEMPTS, default.attempts);
        let key = Key::new(&table, "buffer", &given.buffer);
        let buffer_bytes = self.size(&key, &BUFFER_BYTES, default.buffer_bytes);
        let key = Key::new(&table, "budget_percent", &given.budget_percent);
        let budget_percent = self.whole(&key, &BUDGET_PERCENT, default.budget_percent);
        let key = Key::new(&table, "budget_floor", &given.budget_floor);
        let budget_floor = self.whole(&key, &BUDGET_FLOOR, default.budget_floor);
        let key = Key::new(&table, "statuses", &given.statuses);
        let statuses = self.setting(&key, default.statuses, |text| server_errors(&text.0)).value;
        let hedge = self.switch(&given.hedge, default.hedge);
        let idempotency_key = self.switch(&given.idempotency_key, default.idempotency_key);
        RetrySpec {
            attempts,
            buffer_bytes,
            budget_percent,
            budget_floor,
            statuses,
            hedge,
            idempotency_key,
        }
    }

    fn timeouts(&mut self, timeouts: Option<Table<file::Timeouts>>) -> Timeouts {
        let Table { value: given, span: table } = timeouts.unwrap_or_default();
        let default = Timeouts::default();
        let connect = self.duration(&Key::new(&table, "connect", &given.connect), default.connect);
        let response =
            self.duration(&Key::new(&table, "response", &given.response), default.response);
        let idle = self.duration(&Key::new(&table, "idle", &given.idle), default.idle).value;
        let tunnel =
            self.duration(&Key::new(&table, "tunnel", &given.tunnel), default.tunnel).value;
        self.not_longer(("connect", &connect), ("response", &response));
        let total = self.duration_or_unlimited(&Key::new(&table, "total", &given.total));
        Timeouts { connect: connect.value, response: response.value, idle, total, tunnel }
    }

    fn body_limit(&mut self, limits: Option<Table<RouteLimits>>) -> Option<u64> {
        let Table { value: given, span: table } = limits.unwrap_or_default();
        let key = Key::new(&table, "body", &given.body);
        self.setting(&key, None, |text| match units::size(&text.0)? {
            0 => Err(Flaw::new(
                "`body` cannot be zero",
                "leave it away for no limit, or write a size such as \"10MiB\"",
            )),
            bytes => Ok(Some(bytes)),
        })
        .value
    }
}

impl Seen {
    /// A name made of host and path; of those that are alike, the later ones are counted.
    fn made_name(&mut self, host: &HostMatch, path: &PathMatch) -> Arc<str> {
        let name = format!("{host}{path}");
        let count = self.made.entry(name.clone()).or_default();
        *count += 1;
        if *count == 1 { name.into() } else { format!("{name}#{count}").into() }
    }
}

/// Server errors; an empty text or `none` stands for none.
fn server_errors(given: &Scalar) -> Result<ServerErrors, Flaw> {
    if let Scalar::Text(text) = given
        && matches!(text.trim(), "" | "none")
    {
        return Ok(ServerErrors::NONE);
    }
    let mend = "write statuses from 500 to 599, such as \"500,502-504\", or \"none\"";
    let ranges = units::statuses(given).map_err(|flaw| Flaw { mend: mend.to_owned(), ..flaw })?;
    let other = ranges.iter().flat_map(|range| [range.start(), range.end()]);
    if let Some(other) = other.into_iter().find(|status| !SERVER_ERRORS.contains(status)) {
        let message = format!("{other} is not a server error");
        return Err(Flaw::new(message, mend));
    }
    Ok(ServerErrors::of(ranges))
}

/// Strict-Transport-Security begins with its one directive that is required (RFC 6797 6.1).
fn hsts(text: &str) -> Result<HeaderValue, Flaw> {
    let mut directives = text.split(';').map(str::trim);
    let has_age = directives.any(|directive| {
        let age = directive.strip_prefix("max-age=");
        age.is_some_and(|age| !age.is_empty() && age.bytes().all(|b| b.is_ascii_digit()))
    });
    match HeaderValue::from_str(text) {
        Ok(value) if has_age => Ok(value),
        _ => {
            let mend = "write it as \"max-age=31536000; includeSubDomains\"";
            Err(Flaw::new(format!("`{text}` does not say for how many seconds"), mend))
        }
    }
}

/// A path that is compared with those of requests, or takes the place of one: in the one form that
/// they are brought to.
fn plain_path(text: &str, rules: &PathRules) -> Result<(), Flaw> {
    if let Some(at) = text.find(['?', '#']) {
        let message = "a route matches paths, without query or fragment";
        return Err(Flaw::new(message, format!("write it as \"{}\"", &text[..at])));
    }
    if !text.starts_with('/') {
        let message = format!("the path `{text}` does not begin with `/`");
        return Err(Flaw::new(message, format!("write it as \"/{text}\"")));
    }
    let not_normalised = format!("the path `{text}` is not normalised");
    match normalise(text, rules) {
        Ok(one) if one == text => Ok(()),
        Ok(one) => Err(Flaw::new(not_normalised, format!("write it as \"{one}\""))),
        Err(BadPath) if text.bytes().all(|b| b.is_ascii_graphic()) => {
            Err(Flaw::new(not_normalised, "no request has such a path: leave it away"))
        }
        Err(BadPath) => {
            let mend = "percent-encode what is not a plain character, such as \"%20\" for a space";
            Err(Flaw::new(format!("`{text}` cannot stand in a request line"), mend))
        }
    }
}
