//! Checks of what becomes of a route's requests.

use std::ops::{Range, RangeInclusive};

use http::StatusCode;
use http::uri::PathAndQuery;

use super::super::check::{Check, Key, whole_from};
use super::{Known, plain_path};
use crate::config::address;
use crate::config::file::{self, Located, Table};
use crate::config::findings::Flaw;
use crate::logic::route::{
    Action, Fallback, Mirror, PathChange, PathMatch, Redirect, Rewrite, Share, Substitution,
    SubstitutionError,
};

const WEIGHT: RangeInclusive<u32> = 0..=1_000;
const PERCENT: RangeInclusive<u32> = 1..=100;

/// Pools of one route.
const MAX_SHARES: usize = 64;

/// The ways to answer, of which a route has one.
const ANSWERS: [&str; 4] = ["pool", "pools", "redirect", "respond"];

/// What becomes of a route's requests; the action is absent if there is none, or no readable one.
#[derive(Default)]
pub(super) struct Answer {
    pub(super) action: Option<Action>,
    pub(super) rewrite: Rewrite,
    pub(super) mirror: Option<Mirror>,
    pub(super) fallback: Option<Fallback>,
}

impl Check<'_> {
    pub(super) fn answer(
        &mut self,
        given: &file::Route,
        table: &Range<usize>,
        path: Option<&PathMatch>,
        known: Known<'_>,
    ) -> Answer {
        let spans = [
            given.pool.as_ref().map(|pool| &pool.span),
            given.pools.as_ref().map(|pools| &pools.span),
            given.redirect.as_ref().map(|redirect| &redirect.span),
            given.respond.as_ref().map(|respond| &respond.span),
        ];
        let mut answers =
            ANSWERS.into_iter().zip(spans).filter_map(|(key, span)| Some((key, span?)));
        let first = answers.next();
        if let (Some((key, span)), Some((second, other))) = (first, answers.next()) {
            let message = format!("a route has either `{key}` or `{second}`, not both");
            let flaw = Flaw::new(message, "leave one away, or make two routes of it");
            self.findings.error(other, flaw).also(span, "the other one");
        }
        let Some((key, _)) = first else {
            if !ANSWERS.iter().any(|key| self.gaps.has(table, key)) {
                let message = "a route needs a pool, or an answer of its own";
                let mend = "add `pool = \"…\"`, or one of `pools`, `redirect` and `respond`";
                self.findings.error(table, Flaw::new(message, mend));
            }
            return Answer::default();
        };
        if key == "redirect" || key == "respond" {
            self.only_with_pools(given, key);
            let redirect = given
                .redirect
                .as_ref()
                .map(|redirect| Action::Redirect(self.redirect(redirect, path, known)));
            let respond = given.respond.as_ref();
            let respond = respond.map(|respond| Action::Respond(self.fixed(respond, true)));
            return Answer { action: redirect.or(respond), ..Answer::default() };
        }
        let single = given.pool.as_ref().map(|pool| self.known_pool(pool, known.pools));
        let several = given.pools.as_ref().map(|pools| self.shares(pools, known));
        let shares = single.map(|pool| vec![Share { pool, weight: 1 }]).or(several);
        let shares = shares.unwrap_or_default();
        let rewrite = given.rewrite.as_ref().map(|rewrite| self.rewrite(rewrite, path, known));
        let mirror = given.mirror.as_ref().and_then(|mirror| self.mirror(mirror, &shares, known));
        let fallback =
            given.fallback.as_ref().and_then(|fallback| self.fallback(fallback, &shares, known));
        Answer {
            action: (!shares.is_empty()).then_some(Action::Pools(shares)),
            rewrite: rewrite.unwrap_or_default(),
            mirror,
            fallback,
        }
    }

    fn only_with_pools(&mut self, given: &file::Route, key: &str) {
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
            let message = format!("`{name}` has no meaning with `{key}`: no endpoint is asked");
            let mend = format!("leave `{name}` away, or name a pool in place of `{key}`");
            self.findings.error(span, Flaw::new(message, mend));
        }
    }

    fn shares(&mut self, given: &Located<Vec<Table<file::Share>>>, known: Known<'_>) -> Vec<Share> {
        let count = given.value.len();
        if count == 0 || count > MAX_SHARES {
            let message = format!("`pools` has from 1 to {MAX_SHARES} of them, not {count}");
            let mend = "write a list such as [{ pool = \"web\", weight = 95 }, …]";
            self.findings.error(&given.span, Flaw::new(message, mend));
            return Vec::new();
        }
        let mut shares: Vec<Share> = Vec::new();
        for Table { value: share, span } in &given.value {
            let key = Key::new(span, "weight", &share.weight);
            let weight = self.whole(&key, &WEIGHT, 1);
            let Some(name) = &share.pool else {
                let flaw = Flaw::new("a share needs its pool", "add `pool = \"…\"`");
                self.missing(span, "pool", flaw);
                continue;
            };
            let pool = self.known_pool(name, known.pools);
            if shares.iter().any(|known| known.pool == pool) {
                let message = format!("the pool `{pool}` is given twice");
                self.findings.error(&name.span, Flaw::new(message, "add its weights up"));
                continue;
            }
            shares.push(Share { pool, weight });
        }
        if !shares.is_empty() && shares.iter().all(|share| share.weight == 0) {
            let flaw = Flaw::new("no pool has a weight", "give one of them a weight above 0");
            self.findings.error(&given.span, flaw);
        }
        shares
    }

    fn redirect(
        &mut self,
        given: &Table<file::Redirect>,
        own: Option<&PathMatch>,
        known: Known<'_>,
    ) -> Redirect {
        let Table { value: given, span: table } = given;
        let to_https = self.switch(&given.to_https, false);
        let key = Key::new(table, "host", &given.host);
        let host = self.setting(&key, None, |text| address::authority(text).map(Some)).value;
        let key = Key::new(table, "status", &given.status);
        let status = self.setting(&key, StatusCode::FOUND, redirection).value;
        let whole = given.path.as_ref().map(|text| ("path", text));
        let strip = given.strip_prefix.as_ref().map(|text| ("strip_prefix", text));
        let replace = given.replace_prefix.as_ref().map(|text| ("replace_prefix", text));
        let mut ways = [whole, strip, replace].into_iter().flatten();
        let path = ways.next().map(|(key, text)| match key {
            "path" => {
                if let Err(flaw) = target(&text.value) {
                    self.findings.error(&text.span, flaw);
                }
                PathChange::Whole(text.value.clone())
            }
            "strip_prefix" => {
                self.new_path(text, known);
                PathChange::Prefix { from: text.value.clone(), to: "/".to_owned() }
            }
            key => self.prefix_change(key, text, own, known),
        });
        if let Some((second, text)) = ways.next() {
            let message = format!("`{second}` beside another new path");
            let mend = "write one of `path`, `strip_prefix` and `replace_prefix`";
            self.findings.error(&text.span, Flaw::new(message, mend));
        }
        let unread = ["to_https", "host", "path", "strip_prefix", "replace_prefix"];
        let unread = unread.iter().any(|key| self.gaps.has(table, key));
        if !to_https && host.is_none() && path.is_none() && given.host.is_none() && !unread {
            let mend = "add one of `to_https`, `host`, `path`, `strip_prefix` and `replace_prefix`";
            let flaw = Flaw::new("the redirect leads back to where it came from", mend);
            self.findings.error(table, flaw);
        }
        Redirect { to_https, host, path: path.unwrap_or_default(), status }
    }

    fn rewrite(
        &mut self,
        given: &Table<file::Rewrite>,
        own: Option<&PathMatch>,
        known: Known<'_>,
    ) -> Rewrite {
        let Table { value: given, span: table } = given;
        let key = Key::new(table, "host", &given.host);
        let host = self.setting(&key, None, |text| address::authority(text).map(Some)).value;
        let prefix =
            given.prefix.as_ref().map(|text| self.prefix_change("prefix", text, own, known));
        let substitution = match (&given.regex, &given.to) {
            (Some(regex), Some(to)) => self.substitution(regex, to),
            (None, None) => None,
            (Some(only), None) if !self.gaps.has(table, "to") => {
                let mend = "add `to`, what its matches become";
                self.findings.error(&only.span, Flaw::new("`regex` needs its `to`", mend));
                None
            }
            (None, Some(only)) if !self.gaps.has(table, "regex") => {
                let mend = "add `regex`, or use `prefix`";
                self.findings.error(&only.span, Flaw::new("`to` needs its `regex`", mend));
                None
            }
            _ => None,
        };
        if let (Some(prefix), Some(regex)) = (&given.prefix, &given.regex) {
            let flaw = Flaw::new("`regex` beside `prefix`", "leave one of them away");
            self.findings.error(&regex.span, flaw).also(&prefix.span, "the other one");
        }
        let path = prefix.or_else(|| substitution.map(PathChange::Substitute)).unwrap_or_default();
        Rewrite { host, path }
    }

    /// What takes the place of the route's own path.
    fn prefix_change(
        &mut self,
        key: &str,
        to: &Located<String>,
        own: Option<&PathMatch>,
        known: Known<'_>,
    ) -> PathChange {
        self.new_path(to, known);
        let to_text = to.value.clone();
        match own {
            Some(PathMatch::Prefix(from) | PathMatch::Exact(from)) => {
                PathChange::Prefix { from: from.clone(), to: to_text }
            }
            Some(PathMatch::Matches(_)) => {
                let message = format!("`{key}` takes the place of `path`, and the route has none");
                let mend = "match by `path`, or change the path by `rewrite = { regex, to }`";
                self.findings.error(&to.span, Flaw::new(message, mend));
                PathChange::Keep
            }
            // That is reported already.
            None => PathChange::Keep,
        }
    }

    fn new_path(&mut self, text: &Located<String>, known: Known<'_>) {
        if let Err(flaw) = plain_path(&text.value, known.paths) {
            self.findings.error(&text.span, flaw);
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
            let mend = "percent-encode what is not a plain character; a query cannot be changed";
            self.findings.error(&to.span, Flaw::new(message, mend));
        }
        match Substitution::parse(&regex.value, &to.value) {
            Ok(substitution) => return Some(substitution),
            Err(SubstitutionError::Pattern(why)) => self.bad_pattern(regex, &why),
            Err(SubstitutionError::Group(group)) => {
                let message = format!("`{}` has no group `{group}`", regex.value);
                let mend = "count its brackets; in \"${1}x\" the braces end the name";
                self.findings.error(&to.span, Flaw::new(message, mend));
            }
        }
        None
    }

    fn mirror(
        &mut self,
        given: &Table<file::Mirror>,
        shares: &[Share],
        known: Known<'_>,
    ) -> Option<Mirror> {
        let Table { value: given, span: table } = given;
        let key = Key::new(table, "percent", &given.percent);
        let percent = self.whole(&key, &PERCENT, 100);
        let Some(name) = &given.pool else {
            let flaw = Flaw::new("a mirror needs its pool", "add `pool = \"…\"`");
            self.missing(table, "pool", flaw);
            return None;
        };
        let pool = self.known_pool(name, known.pools);
        self.not_its_own(name, shares, "what is copied there would be done twice");
        Some(Mirror { pool, percent })
    }

    fn fallback(
        &mut self,
        given: &Table<file::Fallback>,
        shares: &[Share],
        known: Known<'_>,
    ) -> Option<Fallback> {
        let Table { value: given, span: table } = given;
        let spans = [
            ("pool", given.pool.as_ref().map(|pool| &pool.span)),
            ("respond", given.respond.as_ref().map(|respond| &respond.span)),
            ("file", given.file.as_ref().map(|file| &file.span)),
        ];
        let mut some = spans.iter().filter_map(|(key, span)| Some((key, (*span)?)));
        match (some.next(), some.next()) {
            (Some((first, span)), Some((second, other))) => {
                let message = format!("a fallback is either `{first}` or `{second}`, not both");
                let flaw = Flaw::new(message, "leave one of them away");
                self.findings.error(other, flaw).also(span, "the other one");
            }
            (None, _) if !spans.iter().any(|(key, _)| self.gaps.has(table, key)) => {
                let mend = "add one of `pool`, `respond` and `file`";
                self.findings.error(table, Flaw::new("the fallback does not say what", mend));
            }
            _ => {}
        }
        if let Some(name) = &given.pool {
            let pool = self.known_pool(name, known.pools);
            self.not_its_own(name, shares, "it is what failed");
            return Some(Fallback::Pool(pool));
        }
        if let Some(respond) = &given.respond {
            return Some(Fallback::Respond(self.fixed(respond, false)));
        }
        let file = given.file.as_ref()?;
        self.page(file).map(Fallback::Respond)
    }

    /// Reports a pool that the route's own requests go to.
    fn not_its_own(&mut self, name: &Located<String>, shares: &[Share], why: &str) {
        if let [only] = shares
            && *only.pool == *name.value
        {
            let message = format!("`{}` is the route's own pool: {why}", name.value);
            self.findings.error(&name.span, Flaw::new(message, "name another one"));
        }
    }
}

fn redirection(given: &file::Whole) -> Result<StatusCode, Flaw> {
    let status = whole_from(&given.0, "status", &(100..=599_u16))?;
    let status = StatusCode::from_u16(status).ok();
    let status = status.filter(|status| matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308));
    status.ok_or_else(|| {
        let mend = "write 301, 302, 303, 307 or 308";
        Flaw::new("`status` is not one that sends a client elsewhere", mend)
    })
}

/// A path, with a query or without.
fn target(text: &str) -> Result<(), Flaw> {
    if text.contains("://") {
        let mend = "write the path alone, such as \"/new\"; `host` is a key of its own";
        return Err(Flaw::new(format!("`{text}` is a URL, not a path"), mend));
    }
    if !text.starts_with('/') {
        let message = format!("the path `{text}` does not begin with `/`");
        return Err(Flaw::new(message, format!("write it as \"/{text}\"")));
    }
    let is_plain = text.bytes().all(|b| b.is_ascii_graphic() && b != b'#' && b != b'\\');
    if !is_plain || text.starts_with("//") || text.parse::<PathAndQuery>().is_err() {
        let mend = "begin with one slash, and percent-encode what is not a plain character";
        return Err(Flaw::new(format!("`{text}` cannot stand in a Location"), mend));
    }
    Ok(())
}
