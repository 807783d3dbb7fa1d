//! Checks of the action of a route: pools, redirect or response, and their options.

use std::ops::{Range, RangeInclusive};

use http::StatusCode;
use http::uri::PathAndQuery;

use super::{RouteContext, check_normalised_path};
use crate::config::address;
use crate::config::diagnostics::Problem;
use crate::config::file::{self, Located, LocatedTable};
use crate::config::validate::validator::{SettingKey, Validator, parse_integer};
use crate::logic::routing::{
    FallbackAction, MirrorPolicy, PathChange, PathMatch, RedirectAction, RequestRewrite,
    RouteAction, Substitution, SubstitutionError, WeightedPool,
};

const WEIGHT_RANGE: RangeInclusive<u32> = 0..=1_000;
const PERCENT_RANGE: RangeInclusive<u32> = 1..=100;

/// The most pools of one route.
const MAX_SHARES: usize = 64;

/// The keys for actions; a route has exactly one of them.
const ACTION_KEYS: [&str; 4] = ["pool", "pools", "redirect", "respond"];

/// The action of a route and its options; `action` is `None` if it is missing or invalid.
#[derive(Default)]
pub(super) struct RouteActions {
    pub(super) action: Option<RouteAction>,
    pub(super) rewrite: RequestRewrite,
    pub(super) mirror: Option<MirrorPolicy>,
    pub(super) fallback: Option<FallbackAction>,
}

impl Validator<'_> {
    pub(super) fn route_actions(
        &mut self,
        given: &file::Route,
        table: &Range<usize>,
        path: Option<&PathMatch>,
        context: RouteContext<'_>,
    ) -> RouteActions {
        let spans = [
            given.pool.as_ref().map(|pool| &pool.span),
            given.pools.as_ref().map(|pools| &pools.span),
            given.redirect.as_ref().map(|redirect| &redirect.span),
            given.respond.as_ref().map(|respond| &respond.span),
        ];
        let mut actions =
            ACTION_KEYS.into_iter().zip(spans).filter_map(|(key, span)| Some((key, span?)));
        let first = actions.next();
        if let (Some((key, span)), Some((second, other))) = (first, actions.next()) {
            let message = format!("a route has either `{key}` or `{second}`, not both");
            let problem = Problem::new(message, "remove one, or make two routes of it");
            self.diagnostics.error(other, problem).add_related(span, "the other one");
        }
        let Some((key, _)) = first else {
            if !ACTION_KEYS.iter().any(|key| self.unread.has_key(table, key)) {
                let message = "a route needs a pool, a redirect or a response";
                let help = "add `pool = \"…\"`, or one of `pools`, `redirect` and `respond`";
                self.diagnostics.error(table, Problem::new(message, help));
            }
            return RouteActions::default();
        };
        if key == "redirect" || key == "respond" {
            self.reject_pool_only_keys(given, key);
            let redirect = given
                .redirect
                .as_ref()
                .map(|redirect| RouteAction::Redirect(self.redirect(redirect, path, context)));
            let respond = given.respond.as_ref();
            let respond =
                respond.map(|respond| RouteAction::Respond(self.fixed_response(respond, true)));
            return RouteActions { action: redirect.or(respond), ..RouteActions::default() };
        }
        let single = given.pool.as_ref().map(|pool| self.known_pool(pool, context.pools));
        let several = given.pools.as_ref().map(|pools| self.pool_shares(pools, context));
        let shares = single.map(|pool| vec![WeightedPool { pool, weight: 1 }]).or(several);
        let shares = shares.unwrap_or_default();
        let rewrite = given.rewrite.as_ref().map(|rewrite| self.rewrite(rewrite, path, context));
        let mirror = given.mirror.as_ref().and_then(|mirror| self.mirror(mirror, &shares, context));
        let fallback =
            given.fallback.as_ref().and_then(|fallback| self.fallback(fallback, &shares, context));
        RouteActions {
            action: (!shares.is_empty()).then_some(RouteAction::Pools(shares)),
            rewrite: rewrite.unwrap_or_default(),
            mirror,
            fallback,
        }
    }

    fn reject_pool_only_keys(&mut self, given: &file::Route, key: &str) {
        let spans = [
            ("rewrite", given.rewrite.as_ref().map(|table| &table.span)),
            ("request_headers", given.request_headers.as_ref().map(|table| &table.span)),
            ("mirror", given.mirror.as_ref().map(|table| &table.span)),
            ("fallback", given.fallback.as_ref().map(|table| &table.span)),
            ("retry", given.retry.as_ref().map(|table| &table.span)),
            ("timeouts", given.timeouts.as_ref().map(|table| &table.span)),
            ("limits", given.limits.as_ref().map(|table| &table.span)),
        ];
        for (name, span) in spans {
            let Some(span) = span else { continue };
            let message =
                format!("`{name}` has no meaning with `{key}`: no endpoint receives the request");
            let help = format!("remove `{name}`, or name a pool in place of `{key}`");
            self.diagnostics.error(span, Problem::new(message, help));
        }
    }

    fn pool_shares(
        &mut self,
        given: &Located<Vec<LocatedTable<file::Share>>>,
        context: RouteContext<'_>,
    ) -> Vec<WeightedPool> {
        let count = given.value.len();
        if count == 0 || count > MAX_SHARES {
            let message = format!("`pools` has from 1 to {MAX_SHARES} of them, not {count}");
            let help = "write a list such as [{ pool = \"web\", weight = 95 }, …]";
            self.diagnostics.error(&given.span, Problem::new(message, help));
            return Vec::new();
        }
        let mut shares: Vec<WeightedPool> = Vec::new();
        for LocatedTable { value: share, span } in &given.value {
            let key = SettingKey::new(span, "weight", &share.weight);
            let weight = self.integer(&key, &WEIGHT_RANGE, 1);
            let Some(name) = &share.pool else {
                let problem = Problem::new("a share needs its pool", "add `pool = \"…\"`");
                self.report_missing(span, "pool", problem);
                continue;
            };
            let pool = self.known_pool(name, context.pools);
            if shares.iter().any(|other| other.pool == pool) {
                let message = format!("the pool `{pool}` is given twice");
                self.diagnostics.error(&name.span, Problem::new(message, "add up its weights"));
                continue;
            }
            shares.push(WeightedPool { pool, weight });
        }
        if !shares.is_empty() && shares.iter().all(|share| share.weight == 0) {
            let problem = Problem::new("no pool has a weight", "give one of them a weight above 0");
            self.diagnostics.error(&given.span, problem);
        }
        shares
    }

    fn redirect(
        &mut self,
        given: &LocatedTable<file::Redirect>,
        route_path: Option<&PathMatch>,
        context: RouteContext<'_>,
    ) -> RedirectAction {
        let LocatedTable { value: given, span: table } = given;
        let to_https = self.bool_or(&given.to_https, false);
        let key = SettingKey::new(table, "host", &given.host);
        let host = self.setting(&key, None, |text| address::parse_authority(text).map(Some)).value;
        let key = SettingKey::new(table, "status", &given.status);
        let status = self.setting(&key, StatusCode::FOUND, parse_redirect_status).value;
        let whole = given.path.as_ref().map(|text| ("path", text));
        let strip = given.strip_prefix.as_ref().map(|text| ("strip_prefix", text));
        let replace = given.replace_prefix.as_ref().map(|text| ("replace_prefix", text));
        let mut changes = [whole, strip, replace].into_iter().flatten();
        let path = changes.next().map(|(key, text)| match key {
            "path" => {
                if let Err(problem) = check_redirect_target(&text.value) {
                    self.diagnostics.error(&text.span, problem);
                }
                PathChange::ReplaceFull(text.value.clone())
            }
            "strip_prefix" => {
                self.check_new_path(text, context);
                PathChange::ReplacePrefix { from: text.value.clone(), to: "/".to_owned() }
            }
            key => self.prefix_path_change(key, text, route_path, context),
        });
        if let Some((second, text)) = changes.next() {
            let message = format!("`{second}` beside another new path");
            let help = "write one of `path`, `strip_prefix` and `replace_prefix`";
            self.diagnostics.error(&text.span, Problem::new(message, help));
        }
        let path_keys = ["to_https", "host", "path", "strip_prefix", "replace_prefix"];
        let is_unread = path_keys.iter().any(|key| self.unread.has_key(table, key));
        if !to_https && host.is_none() && path.is_none() && given.host.is_none() && !is_unread {
            let help = "add one of `to_https`, `host`, `path`, `strip_prefix` and `replace_prefix`";
            let problem = Problem::new("the redirect leads to the same URL", help);
            self.diagnostics.error(table, problem);
        }
        RedirectAction { should_use_https: to_https, host, path: path.unwrap_or_default(), status }
    }

    fn rewrite(
        &mut self,
        given: &LocatedTable<file::Rewrite>,
        route_path: Option<&PathMatch>,
        context: RouteContext<'_>,
    ) -> RequestRewrite {
        let LocatedTable { value: given, span: table } = given;
        let key = SettingKey::new(table, "host", &given.host);
        let host = self.setting(&key, None, |text| address::parse_authority(text).map(Some)).value;
        let prefix = given
            .prefix
            .as_ref()
            .map(|text| self.prefix_path_change("prefix", text, route_path, context));
        let substitution = match (&given.regex, &given.to) {
            (Some(regex), Some(to)) => self.substitution(regex, to),
            (None, None) => None,
            (Some(only), None) if !self.unread.has_key(table, "to") => {
                let help = "add `to`, what its matches become";
                self.diagnostics.error(&only.span, Problem::new("`regex` needs its `to`", help));
                None
            }
            (None, Some(only)) if !self.unread.has_key(table, "regex") => {
                let help = "add `regex`, or use `prefix`";
                self.diagnostics.error(&only.span, Problem::new("`to` needs its `regex`", help));
                None
            }
            _ => None,
        };
        if let (Some(prefix), Some(regex)) = (&given.prefix, &given.regex) {
            let problem = Problem::new("`regex` beside `prefix`", "remove one of them");
            self.diagnostics.error(&regex.span, problem).add_related(&prefix.span, "the other one");
        }
        let path = prefix.or_else(|| substitution.map(PathChange::Substitute)).unwrap_or_default();
        RequestRewrite { host, path }
    }

    /// The replacement of the route's own path.
    fn prefix_path_change(
        &mut self,
        key: &str,
        to: &Located<String>,
        route_path: Option<&PathMatch>,
        context: RouteContext<'_>,
    ) -> PathChange {
        self.check_new_path(to, context);
        let to_text = to.value.clone();
        match route_path {
            Some(PathMatch::Prefix(from) | PathMatch::Exact(from)) => {
                PathChange::ReplacePrefix { from: from.clone(), to: to_text }
            }
            Some(PathMatch::Regex(_)) => {
                let message = format!("`{key}` takes the place of `path`, and the route has none");
                let help = "match by `path`, or change the path by `rewrite = { regex, to }`";
                self.diagnostics.error(&to.span, Problem::new(message, help));
                PathChange::Keep
            }
            // The invalid path is reported already.
            None => PathChange::Keep,
        }
    }

    fn check_new_path(&mut self, text: &Located<String>, context: RouteContext<'_>) {
        if let Err(problem) = check_normalised_path(&text.value, context.paths) {
            self.diagnostics.error(&text.span, problem);
        }
    }

    fn substitution(
        &mut self,
        regex: &Located<String>,
        to: &Located<String>,
    ) -> Option<Substitution> {
        let is_plain = to.value.bytes().all(|b| b.is_ascii_graphic() && b != b'?' && b != b'#');
        if !is_plain {
            let message = format!("`{}` cannot stand in a path", to.value);
            let help = "percent-encode what is not a plain character; a query cannot be changed";
            self.diagnostics.error(&to.span, Problem::new(message, help));
        }
        match Substitution::parse(&regex.value, &to.value) {
            Ok(substitution) => return Some(substitution),
            Err(SubstitutionError::Pattern(why)) => self.report_bad_pattern(regex, &why),
            Err(SubstitutionError::Group(group)) => {
                let message = format!("`{}` has no group `{group}`", regex.value);
                let help = "count its brackets; in \"${1}x\" the braces end the name";
                self.diagnostics.error(&to.span, Problem::new(message, help));
            }
        }
        None
    }

    fn mirror(
        &mut self,
        given: &LocatedTable<file::Mirror>,
        shares: &[WeightedPool],
        context: RouteContext<'_>,
    ) -> Option<MirrorPolicy> {
        let LocatedTable { value: given, span: table } = given;
        let key = SettingKey::new(table, "percent", &given.percent);
        let percent = self.integer(&key, &PERCENT_RANGE, 100);
        let Some(name) = &given.pool else {
            let problem = Problem::new("a mirror needs its pool", "add `pool = \"…\"`");
            self.report_missing(table, "pool", problem);
            return None;
        };
        let pool = self.known_pool(name, context.pools);
        self.reject_own_pool(name, shares, "it would execute each copied request twice");
        Some(MirrorPolicy { pool, percent })
    }

    fn fallback(
        &mut self,
        given: &LocatedTable<file::Fallback>,
        shares: &[WeightedPool],
        context: RouteContext<'_>,
    ) -> Option<FallbackAction> {
        let LocatedTable { value: given, span: table } = given;
        let spans = [
            ("pool", given.pool.as_ref().map(|pool| &pool.span)),
            ("respond", given.respond.as_ref().map(|respond| &respond.span)),
            ("file", given.file.as_ref().map(|file| &file.span)),
        ];
        let mut some = spans.iter().filter_map(|(key, span)| Some((key, (*span)?)));
        match (some.next(), some.next()) {
            (Some((first, span)), Some((second, other))) => {
                let message = format!("a fallback is either `{first}` or `{second}`, not both");
                let problem = Problem::new(message, "remove one of them");
                self.diagnostics.error(other, problem).add_related(span, "the other one");
            }
            (None, _) if !spans.iter().any(|(key, _)| self.unread.has_key(table, key)) => {
                let help = "add one of `pool`, `respond` and `file`";
                self.diagnostics.error(table, Problem::new("the fallback has no response", help));
            }
            _ => {}
        }
        if let Some(name) = &given.pool {
            let pool = self.known_pool(name, context.pools);
            self.reject_own_pool(name, shares, "it has failed already");
            return Some(FallbackAction::Pool(pool));
        }
        if let Some(respond) = &given.respond {
            return Some(FallbackAction::Respond(self.fixed_response(respond, false)));
        }
        let file = given.file.as_ref()?;
        self.file_response(file).map(FallbackAction::Respond)
    }

    /// Reports a mirror or fallback that is the only pool of the route.
    fn reject_own_pool(&mut self, name: &Located<String>, shares: &[WeightedPool], reason: &str) {
        if let [only] = shares
            && *only.pool == *name.value
        {
            let message = format!("`{}` is the route's own pool: {reason}", name.value);
            self.diagnostics.error(&name.span, Problem::new(message, "name another one"));
        }
    }
}

fn parse_redirect_status(given: &file::WholeNumber) -> Result<StatusCode, Problem> {
    let status = parse_integer(&given.0, "status", &(100..=599_u16))?;
    let status = StatusCode::from_u16(status).ok();
    let status = status.filter(|status| matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308));
    status.ok_or_else(|| {
        let help = "write 301, 302, 303, 307 or 308";
        Problem::new("`status` is not that of a redirect", help)
    })
}

/// Checks a path with or without a query.
fn check_redirect_target(text: &str) -> Result<(), Problem> {
    if text.contains("://") {
        let help = "write the path alone, such as \"/new\"; `host` is a key of its own";
        return Err(Problem::new(format!("`{text}` is a URL, not a path"), help));
    }
    if !text.starts_with('/') {
        let message = format!("the path `{text}` does not begin with `/`");
        return Err(Problem::new(message, format!("write it as \"/{text}\"")));
    }
    let is_plain = text.bytes().all(|b| b.is_ascii_graphic() && b != b'#' && b != b'\\');
    if !is_plain || text.starts_with("//") || text.parse::<PathAndQuery>().is_err() {
        let help = "begin with one slash, and percent-encode what is not a plain character";
        return Err(Problem::new(format!("`{text}` cannot stand in a Location"), help));
    }
    Ok(())
}
