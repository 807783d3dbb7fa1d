//! Checks of routes: names, retries, timeouts and limits.

mod action;
mod fixed_response;
mod header_changes;
mod matching;

use std::collections::HashMap;
use std::ops::{Range, RangeInclusive};
use std::sync::Arc;

use http::HeaderValue;

use super::ValidatedPools;
use super::pool::NAME_HELP;
use super::validator::{SettingKey, Validator};
use crate::config::deserialize::ROOT_SPAN;
use crate::config::diagnostics::Problem;
use crate::config::file::{self, Located, LocatedTable, Retry, RouteLimits, Scalar};
use crate::config::{suggest, units};
use crate::logic::model::id::is_valid_name;
use crate::logic::request::server_errors::{SERVER_ERRORS, ServerErrors};
use crate::logic::routing::{
    Conditions, HostMatch, InvalidPath, PathChange, PathMatch, PathNormalisation, RetrySpec,
    RouteAction, RouteSpec, RouteTimeouts, normalise,
};

use self::header_changes::MessageKind;

const ATTEMPTS_RANGE: RangeInclusive<u32> = 1..=10;
const BUFFER_BYTES_RANGE: RangeInclusive<usize> = 0..=64 * 1024 * 1024;
const BUDGET_PERCENT_RANGE: RangeInclusive<u32> = 0..=100;
const BUDGET_FLOOR_RANGE: RangeInclusive<u32> = 0..=100_000;

/// The most routes with `path_regex` of one host: one automaton searches for all of them.
const MAX_PATTERNS: usize = 1_000;

/// The parts of the configuration that a route may refer to.
#[derive(Clone, Copy)]
struct RouteContext<'a> {
    pools: &'a ValidatedPools,
    paths: &'a PathNormalisation,
}

/// The first place of every route name and of every match, to report duplicates.
#[derive(Default)]
struct SeenRoutes {
    names: HashMap<Arc<str>, Range<usize>>,
    matches: HashMap<(HostMatch, PathMatch, String), Range<usize>>,
    /// The number of routes with the same generated name.
    generated_names: HashMap<String, usize>,
    /// The number of patterns of each host.
    patterns: HashMap<HostMatch, usize>,
}

impl Validator<'_> {
    pub(super) fn routes(
        &mut self,
        given: Vec<LocatedTable<file::Route>>,
        pools: &ValidatedPools,
        paths: &PathNormalisation,
    ) -> Vec<RouteSpec> {
        if given.is_empty() {
            let help = "add `[[route]]` with `pool = \"…\"`";
            self.report_missing(&ROOT_SPAN, "route", Problem::new("there is no route", help));
        }
        let mut seen = SeenRoutes::default();
        given.into_iter().filter_map(|route| self.route(route, pools, paths, &mut seen)).collect()
    }

    fn route(
        &mut self,
        route: LocatedTable<file::Route>,
        pools: &ValidatedPools,
        paths: &PathNormalisation,
        seen: &mut SeenRoutes,
    ) -> Option<RouteSpec> {
        let LocatedTable { value: given, span: table } = route;
        let matching = self.matching(&given, &table, paths);
        let path = matching.path.as_ref();
        let actions = self.route_actions(&given, &table, path, RouteContext { pools, paths });
        let mut conditions = matching.conditions;
        if let Some(RouteAction::Redirect(redirect)) = &actions.action {
            // A redirect to https alone must not match requests that arrive over TLS: it would
            // loop.
            let is_https_upgrade = redirect.host.is_none() && redirect.path == PathChange::Keep;
            if let Some(conditions) = &mut conditions {
                conditions.is_cleartext_only = redirect.should_use_https && is_https_upgrade;
            }
        }
        let matched = matching.host.zip(matching.path).zip(conditions);
        let matched = matched.filter(|matched| self.is_unique_match(matched, &given, &table, seen));
        let request_headers = self.header_changes(&given.request_headers, MessageKind::Request);
        let response_headers = self.header_changes(&given.response_headers, MessageKind::Response);
        let key = SettingKey::new(&table, "hsts", &given.hsts);
        let hsts = self.setting(&key, None, |text| parse_hsts(text).map(Some)).value;
        let name = given.name.and_then(|name| self.route_name(name, seen));
        let retry = self.retry(given.retry);
        let timeouts = self.timeouts(given.timeouts);
        let websocket = self.is_websocket_allowed(given.upgrade.as_deref());
        let rate = given.limits.as_ref().and_then(|limits| self.rate(&limits.value.rate));
        let steer = given.steer.map(|word| self.policy(&word));
        let slo = self.slo(given.slo);
        let body_bytes = self.body_limit(given.limits);
        let ((host, path), conditions) = matched?;
        let name = name.unwrap_or_else(|| seen.generated_name(&host, &path));
        Some(RouteSpec {
            name,
            host,
            path,
            conditions,
            action: actions.action?,
            rewrite: actions.rewrite,
            request_headers,
            response_headers,
            hsts,
            mirror: actions.mirror,
            fallback: actions.fallback,
            retry,
            timeouts,
            max_body_bytes: body_bytes,
            rate_limit: rate,
            steer,
            slo,
            is_websocket_allowed: websocket,
        })
    }

    /// Reports a route that never matches because of an earlier one, and too many patterns.
    fn is_unique_match(
        &mut self,
        ((host, path), conditions): &((HostMatch, PathMatch), Conditions),
        given: &file::Route,
        table: &Range<usize>,
        seen: &mut SeenRoutes,
    ) -> bool {
        let keys = [&given.path, &given.path_exact, &given.path_regex, &given.host];
        let first = keys.into_iter().flatten().next().map_or(table, |key| &key.span);
        if let PathMatch::Regex(_) = path {
            let count = seen.patterns.entry(host.clone()).or_default();
            *count += 1;
            if *count == MAX_PATTERNS + 1 {
                let message = format!("there are more than {MAX_PATTERNS} patterns for {host}");
                self.diagnostics
                    .error(first, Problem::new(message, "use `path` where it suffices"));
            }
        }
        let condition_suffix =
            if conditions.count() > 0 { ", under the same conditions" } else { "" };
        let problem = Problem::new(
            format!("an earlier route matches {host}{path} already{condition_suffix}"),
            "give them different hosts, paths or conditions, or remove one",
        );
        // The order of conditions in the file is irrelevant.
        let mut conditions = conditions.clone();
        conditions.methods.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        conditions.headers.sort_by(|(a, _), (b, _)| a.as_str().cmp(b.as_str()));
        conditions.query.sort_by(|(a, _), (b, _)| a.cmp(b));
        let key = (host.clone(), path.clone(), format!("{conditions:?}"));
        self.is_unique(&mut seen.matches, key, first, problem)
    }

    /// The pool with the name `given`; reports an unknown name.
    fn known_pool(&mut self, given: &Located<String>, pools: &ValidatedPools) -> Arc<str> {
        if !pools.has_pool(&given.value) {
            let help = suggest::nearest(&given.value, pools.names()).map_or_else(
                || match suggest::quoted_list(pools.names()) {
                    names if names.is_empty() => format!("add `[pool.{}]`", given.value),
                    names => format!("the pools are {names}"),
                },
                |name| format!("did you mean `{name}`?"),
            );
            let message = format!("there is no pool `{}`", given.value);
            self.diagnostics.error(&given.span, Problem::new(message, help));
        }
        Arc::from(given.value.as_str())
    }

    fn route_name(&mut self, name: Located<String>, seen: &mut SeenRoutes) -> Option<Arc<str>> {
        if !is_valid_name(&name.value) {
            let message = format!("`{}` cannot name a route", name.value);
            self.diagnostics.error(&name.span, Problem::new(message, NAME_HELP));
            return None;
        }
        let given: Arc<str> = Arc::from(name.value);
        let message = format!("there is already a route `{given}`");
        let problem = Problem::new(message, "give each route a name of its own");
        self.is_unique(&mut seen.names, Arc::clone(&given), &name.span, problem).then_some(given)
    }

    fn retry(&mut self, retry: Option<LocatedTable<Retry>>) -> RetrySpec {
        let LocatedTable { value: given, span: table } = retry.unwrap_or_default();
        let default = RetrySpec::default();
        let key = SettingKey::new(&table, "attempts", &given.attempts);
        let attempts = self.integer(&key, &ATTEMPTS_RANGE, default.attempts);
        let key = SettingKey::new(&table, "buffer", &given.buffer);
        let buffer_bytes = self.size(&key, &BUFFER_BYTES_RANGE, default.max_buffer_bytes);
        let key = SettingKey::new(&table, "budget_percent", &given.budget_percent);
        let budget_percent = self.integer(&key, &BUDGET_PERCENT_RANGE, default.budget_percent);
        let key = SettingKey::new(&table, "budget_floor", &given.budget_floor);
        let budget_floor = self.integer(&key, &BUDGET_FLOOR_RANGE, default.budget_floor_per_second);
        let key = SettingKey::new(&table, "statuses", &given.statuses);
        let statuses =
            self.setting(&key, default.statuses, |text| parse_server_errors(&text.0)).value;
        let hedge = self.bool_or(&given.hedge, default.is_hedged);
        let key = SettingKey::new(&table, "hedge_percent", &given.hedge_percent);
        let hedge_percent = self.integer(&key, &BUDGET_PERCENT_RANGE, default.hedge_percent);
        let idempotency_key =
            self.bool_or(&given.idempotency_key, default.is_idempotency_key_trusted);
        RetrySpec {
            attempts,
            max_buffer_bytes: buffer_bytes,
            budget_percent,
            hedge_percent,
            budget_floor_per_second: budget_floor,
            statuses,
            is_hedged: hedge,
            is_idempotency_key_trusted: idempotency_key,
        }
    }

    fn timeouts(&mut self, timeouts: Option<LocatedTable<file::Timeouts>>) -> RouteTimeouts {
        let LocatedTable { value: given, span: table } = timeouts.unwrap_or_default();
        let default = RouteTimeouts::default();
        let connect =
            self.duration(&SettingKey::new(&table, "connect", &given.connect), default.connect);
        let response =
            self.duration(&SettingKey::new(&table, "response", &given.response), default.response);
        let idle = self.duration(&SettingKey::new(&table, "idle", &given.idle), default.idle).value;
        let tunnel =
            self.duration(&SettingKey::new(&table, "tunnel", &given.tunnel), default.tunnel).value;
        self.check_not_longer(("connect", &connect), ("response", &response));
        let total = self.duration_or_unlimited(&SettingKey::new(&table, "total", &given.total));
        RouteTimeouts { connect: connect.value, response: response.value, idle, total, tunnel }
    }

    fn body_limit(&mut self, limits: Option<LocatedTable<RouteLimits>>) -> Option<u64> {
        let LocatedTable { value: given, span: table } = limits.unwrap_or_default();
        let key = SettingKey::new(&table, "body", &given.body);
        self.setting(&key, None, |text| match units::parse_size(&text.0)? {
            0 => Err(Problem::new(
                "`body` cannot be zero",
                "remove it for no limit, or write a size such as \"10MiB\"",
            )),
            bytes => Ok(Some(bytes)),
        })
        .value
    }
}

impl SeenRoutes {
    /// A name made of host and path; a number distinguishes equal names.
    fn generated_name(&mut self, host: &HostMatch, path: &PathMatch) -> Arc<str> {
        let name = format!("{host}{path}");
        let count = self.generated_names.entry(name.clone()).or_default();
        *count += 1;
        if *count == 1 { name.into() } else { format!("{name}#{count}").into() }
    }
}

/// Parses server errors; an empty text or `none` stands for none.
fn parse_server_errors(given: &Scalar) -> Result<ServerErrors, Problem> {
    if let Scalar::Text(text) = given
        && matches!(text.trim(), "" | "none")
    {
        return Ok(ServerErrors::NONE);
    }
    let help = "write statuses from 500 to 599, such as \"500,502-504\", or \"none\"";
    let ranges = units::parse_statuses(given)
        .map_err(|problem| Problem { help: help.to_owned(), ..problem })?;
    let out_of_range = ranges.iter().flat_map(|range| [range.start(), range.end()]);
    if let Some(other) = out_of_range.into_iter().find(|status| !SERVER_ERRORS.contains(status)) {
        let message = format!("{other} is not a server error");
        return Err(Problem::new(message, help));
    }
    Ok(ServerErrors::from_ranges(ranges))
}

/// The directive `max-age` of Strict-Transport-Security is required (RFC 6797 6.1).
fn parse_hsts(text: &str) -> Result<HeaderValue, Problem> {
    let mut directives = text.split(';').map(str::trim);
    let has_age = directives.any(|directive| {
        let age = directive.strip_prefix("max-age=");
        age.is_some_and(|age| !age.is_empty() && age.bytes().all(|b| b.is_ascii_digit()))
    });
    match HeaderValue::from_str(text) {
        Ok(value) if has_age => Ok(value),
        _ => {
            let help = "write it as \"max-age=31536000; includeSubDomains\"";
            Err(Problem::new(format!("`{text}` has no `max-age` in seconds"), help))
        }
    }
}

/// Checks a path that is compared with paths of requests or replaces one: it must be normalised.
fn check_normalised_path(text: &str, rules: &PathNormalisation) -> Result<(), Problem> {
    if let Some(at) = text.find(['?', '#']) {
        let message = "a route matches paths, without query or fragment";
        return Err(Problem::new(message, format!("write it as \"{}\"", &text[..at])));
    }
    if !text.starts_with('/') {
        let message = format!("the path `{text}` does not begin with `/`");
        return Err(Problem::new(message, format!("write it as \"/{text}\"")));
    }
    let not_normalised = format!("the path `{text}` is not normalised");
    match normalise(text, rules) {
        Ok(one) if one == text => Ok(()),
        Ok(one) => Err(Problem::new(not_normalised, format!("write it as \"{one}\""))),
        Err(InvalidPath) if text.bytes().all(|b| b.is_ascii_graphic()) => {
            Err(Problem::new(not_normalised, "no request has such a path: remove it"))
        }
        Err(InvalidPath) => {
            let help = "percent-encode what is not a plain character, such as \"%20\" for a space";
            Err(Problem::new(format!("`{text}` cannot stand in a request line"), help))
        }
    }
}
