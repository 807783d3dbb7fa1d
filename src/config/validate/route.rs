//! Checks of routes.

use std::collections::HashMap;
use std::ops::{Range, RangeInclusive};
use std::sync::Arc;

use super::Pools;
use super::check::{Check, Key};
use super::pool::NAME_MEND;
use crate::config::address;
use crate::config::file::{self, Located, Retry, RouteLimits, Scalar, Table};
use crate::config::findings::Flaw;
use crate::config::read::ROOT;
use crate::config::{suggest, units};
use crate::logic::id::is_name;
use crate::logic::route::{RetrySpec, RouteSpec, Timeouts};
use crate::logic::statuses::{SERVER_ERRORS, ServerErrors};

const ATTEMPTS: RangeInclusive<u32> = 1..=10;
const BUFFER_BYTES: RangeInclusive<usize> = 0..=64 * 1024 * 1024;
const BUDGET_PERCENT: RangeInclusive<u32> = 0..=100;
const BUDGET_FLOOR: RangeInclusive<u32> = 0..=100_000;

/// The first place of every route's name and of what it matches.
#[derive(Default)]
struct Seen {
    names: HashMap<Arc<str>, Range<usize>>,
    matches: HashMap<(Option<String>, String), Range<usize>>,
}

impl Check<'_> {
    pub(super) fn routes(
        &mut self,
        given: Vec<Table<file::Route>>,
        pools: &Pools,
    ) -> Vec<RouteSpec> {
        if given.is_empty() {
            let mend = "add `[[route]]` with `pool = \"…\"`";
            self.missing(&ROOT, "route", Flaw::new("there is no route", mend));
        }
        let mut seen = Seen::default();
        given.into_iter().filter_map(|route| self.route(route, pools, &mut seen)).collect()
    }

    fn route(
        &mut self,
        route: Table<file::Route>,
        pools: &Pools,
        seen: &mut Seen,
    ) -> Option<RouteSpec> {
        let Table { value: given, span: table } = route;
        let pool = self.route_pool(&given.pool, &table, pools);
        let host = match &given.host {
            Some(text) => address::host(&text.value)
                .map(Some)
                .map_err(|flaw| self.findings.error(&text.span, flaw))
                .ok(),
            None => (!self.gaps.has(&table, "host")).then_some(None),
        };
        let path = match &given.path {
            Some(text) => match route_path(&text.value) {
                Ok(()) => Some(text.value.clone()),
                Err(flaw) => {
                    self.findings.error(&text.span, flaw);
                    None
                }
            },
            None => (!self.gaps.has(&table, "path")).then(|| "/".to_owned()),
        };
        let matched = host.zip(path).filter(|matched| {
            let (host, path) = matched;
            let flaw = Flaw::new(
                format!(
                    "an earlier route matches {}{path} already",
                    host.as_deref().unwrap_or("*")
                ),
                "give them different hosts or paths, or leave one away",
            );
            let first = given.path.as_ref().or(given.host.as_ref()).map_or(&table, |key| &key.span);
            self.unique(&mut seen.matches, matched.clone(), first, flaw)
        });
        let name = given.name.and_then(|name| self.route_name(name, seen));
        let retry = self.retry(given.retry);
        let timeouts = self.timeouts(given.timeouts);
        let websocket = self.upgrade(given.upgrade.as_deref());
        let rate = given.limits.as_ref().and_then(|limits| self.rate(&limits.value.rate));
        let body_bytes = self.body_limit(given.limits);
        let (host, path) = matched?;
        let made = || Arc::from(format!("{}{path}", host.as_deref().unwrap_or("*")));
        let name = name.unwrap_or_else(made);
        Some(RouteSpec {
            name,
            host,
            path,
            pool: pool?,
            retry,
            timeouts,
            body_bytes,
            rate,
            websocket,
        })
    }

    fn route_pool(
        &mut self,
        given: &Option<Located<String>>,
        table: &Range<usize>,
        pools: &Pools,
    ) -> Option<Arc<str>> {
        let Some(given) = given else {
            let flaw = Flaw::new("a route needs a pool", "add `pool = \"…\"`");
            self.missing(table, "pool", flaw);
            return None;
        };
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
        Some(Arc::from(given.value.as_str()))
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
        RetrySpec { attempts, buffer_bytes, budget_percent, budget_floor, statuses }
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
        Timeouts { connect: connect.value, response: response.value, idle, tunnel }
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

/// A route's path is compared with request paths as they come, so it must be in the one form that
/// they are brought to.
fn route_path(text: &str) -> Result<(), Flaw> {
    if let Some(at) = text.find(['?', '#']) {
        let message = "a route matches paths, without query or fragment";
        return Err(Flaw::new(message, format!("write it as \"{}\"", &text[..at])));
    }
    if !text.starts_with('/') {
        let message = format!("the path `{text}` does not begin with `/`");
        return Err(Flaw::new(message, format!("write it as \"/{text}\"")));
    }
    let lower = text.to_ascii_lowercase();
    let encoded = lower.contains("%2e") || lower.contains("%2f");
    let segments: Vec<&str> = text[1..].split('/').collect();
    let empty_inside = segments.split_last().is_some_and(|(_, rest)| rest.contains(&""));
    if encoded || empty_inside || segments.iter().any(|s| matches!(*s, "." | "..")) {
        let mend = "leave out `//`, `.`, `..` and what is encoded without need";
        return Err(Flaw::new(format!("the path `{text}` is not normalised"), mend));
    }
    if !text.bytes().all(|b| b.is_ascii_graphic()) {
        let mend = "percent-encode what is not a plain character, such as \"%20\" for a space";
        return Err(Flaw::new(format!("`{text}` cannot stand in a request line"), mend));
    }
    Ok(())
}
