//! Checks of a pool's balancing method and session affinity.

use std::ops::{Range, RangeInclusive};
use std::sync::Arc;
use std::time::Duration;

use http::header::HeaderName;

use super::ValidatedPools;
use super::validator::{SettingKey, Validator};
use crate::config::diagnostics::Problem;
use crate::config::file::{self, AgeText, Located, LocatedTable, Scalar, TextOrTable};
use crate::config::suggest;
use crate::config::units;
use crate::logic::model::topology::PoolSpec;
use crate::logic::routing::{HostMatch, RouteSpec};
use crate::logic::steering::affinity::{
    AffinityCookie, CookieSecrets, DEFAULT_DRAIN_TIMEOUT, FailbackPolicy, SessionAffinity,
};
use crate::logic::steering::balance::{
    BalancePolicy, ConsistentHashConfig, DEFAULT_RING_POINTS, HashKeySource, HashTableKind,
};

const BALANCE_METHODS: [&str; 6] =
    ["least_requests", "peak_ewma", "round_robin", "random", "ring_hash", "maglev"];
const MAX_LOAD_PERCENT_RANGE: RangeInclusive<u32> = 101..=1_000;
const POINTS_RANGE: RangeInclusive<u32> = 1..=65_536;
/// Browsers keep cookies for at most 400 days (RFC 6265bis).
const TTL_RANGE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(400 * 24);
const SECRET_HELP: &str = "write one secret a line, each of 64 hexadecimal digits, as \
                           `openssl rand -hex 32` makes them";

impl Validator<'_> {
    pub(super) fn balance(
        &mut self,
        given: Option<Located<TextOrTable<file::Balance>>>,
    ) -> BalancePolicy {
        let Some(Located { value, span }) = given else { return BalancePolicy::default() };
        match value {
            TextOrTable::Text(word) => {
                let method = Some(Located { value: word, span: span.clone() });
                self.balance_method(file::Balance { method, ..file::Balance::default() }, &span)
            }
            TextOrTable::Table(table) => self.balance_method(table, &span),
        }
    }

    fn balance_method(&mut self, given: file::Balance, table: &Range<usize>) -> BalancePolicy {
        let Some(method) = &given.method else {
            let problem = Problem::new("no method is named", "add `method = \"ring_hash\"`");
            self.report_missing(table, "method", problem);
            return BalancePolicy::default();
        };
        let points = self.integer(
            &SettingKey::new(table, "points", &given.points),
            &POINTS_RANGE,
            DEFAULT_RING_POINTS,
        );
        let kind = match method.value.as_str() {
            "ring_hash" => Ok(HashTableKind::Ring { points }),
            "maglev" => Ok(HashTableKind::Maglev),
            "least_requests" => Err(BalancePolicy::LeastRequests),
            "peak_ewma" => Err(BalancePolicy::PeakEwma),
            "round_robin" => Err(BalancePolicy::RoundRobin),
            "random" => Err(BalancePolicy::Random),
            other => {
                let help = match suggest::nearest(other, BALANCE_METHODS) {
                    Some(suggestion) => format!("did you mean \"{suggestion}\"?"),
                    None => {
                        format!(
                            "write one of {}",
                            BALANCE_METHODS.map(|m| format!("\"{m}\"")).join(", ")
                        )
                    }
                };
                let message = format!("`{other}` is not a balancing method");
                self.diagnostics.error(&method.span, Problem::new(message, help));
                return BalancePolicy::default();
            }
        };
        let word = &method.value;
        if !matches!(kind, Ok(HashTableKind::Ring { .. })) {
            self.reject_unused_key(&given.points, "points", &format!("`{word}`"));
        }
        let kind = match kind {
            Ok(kind) => kind,
            Err(unkeyed) => {
                let key = given.key.map(|key| Located { value: (), span: key.span });
                self.reject_unused_key(&key, "key", &format!("`{word}`"));
                let bound = &given.max_load_percent;
                self.reject_unused_key(bound, "max_load_percent", &format!("`{word}`"));
                return unkeyed;
            }
        };
        let key = SettingKey::new(table, "max_load_percent", &given.max_load_percent);
        let read = |text: &file::WholeNumber| {
            super::validator::parse_integer(&text.0, "max_load_percent", &MAX_LOAD_PERCENT_RANGE)
                .map(Some)
        };
        let max_load_percent = self.setting(&key, None, read).value;
        let Some(key) = given.key else {
            let help = "add `key = { header = \"x-user\" }`, or one of `cookie`, `path`, `source`";
            self.report_missing(
                table,
                "key",
                Problem::new(format!("`{word}` needs a `key`"), help),
            );
            return BalancePolicy::default();
        };
        match self.hash_key(key) {
            Some(key) => BalancePolicy::ConsistentHash(ConsistentHashConfig {
                table: kind,
                key,
                max_load_percent,
            }),
            None => BalancePolicy::default(),
        }
    }

    fn hash_key(&mut self, key: LocatedTable<file::HashKey>) -> Option<HashKeySource> {
        let LocatedTable { value: given, span: table } = key;
        let header = given.header.and_then(|name| Some((self.header_field(&name)?, name.span)));
        let cookie = given.cookie.and_then(|name| Some((self.cookie_name(&name)?, name.span)));
        let path = given.path.filter(|path| path.value);
        let source = given.source.filter(|source| source.value);
        let keys = [
            header.map(|(name, span)| (HashKeySource::Header(name), span)),
            cookie.map(|(name, span)| (HashKeySource::Cookie(name), span)),
            path.map(|path| (HashKeySource::Path, path.span)),
            source.map(|source| (HashKeySource::Source, source.span)),
        ];
        self.exactly_one(keys, (&table, &["header", "cookie", "path", "source"]))
    }

    /// The value of the only key of `names` that is given; reports none or several.
    fn exactly_one<T, const N: usize>(
        &mut self,
        given: [Option<(T, Range<usize>)>; N],
        (table, names): (&Range<usize>, &[&str]),
    ) -> Option<T> {
        let mut given = given.into_iter().flatten();
        let Some((first, span)) = given.next() else {
            let is_unread = names.iter().any(|name| self.unread.has_key(table, name));
            if !is_unread && !self.diagnostics.has_errors() {
                let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
                let help = format!("give one of {}", names.join(", "));
                self.diagnostics.error(table, Problem::new("no key is given", help));
            }
            return None;
        };
        for (_, second) in given {
            let problem = Problem::new("only one of these keys is allowed", "remove one of them");
            self.diagnostics.error(&second, problem).add_related(&span, "this is given too");
        }
        Some(first)
    }

    fn reject_unused_key<T>(&mut self, given: &Option<Located<T>>, name: &str, beside: &str) {
        if let Some(given) = given {
            let message = format!("`{name}` has no meaning with {beside}");
            self.diagnostics.error(&given.span, Problem::new(message, "remove it"));
        }
    }

    fn header_field(&mut self, given: &Located<String>) -> Option<HeaderName> {
        let name = HeaderName::from_bytes(given.value.as_bytes());
        if name.is_err() {
            let message = format!("`{}` cannot be the name of a header field", given.value);
            self.diagnostics
                .error(&given.span, Problem::new(message, "write a name such as \"x-user\""));
        }
        name.ok()
    }

    fn cookie_name(&mut self, given: &Located<String>) -> Option<Arc<str>> {
        // The name of a cookie is a token, as the name of a field is (RFC 6265 4.1.1).
        let is_token = HeaderName::from_bytes(given.value.as_bytes()).is_ok();
        if !is_token {
            let message = format!("`{}` cannot be the name of a cookie", given.value);
            self.diagnostics
                .error(&given.span, Problem::new(message, "write a name such as \"session\""));
        }
        is_token.then(|| given.value.as_str().into())
    }

    pub(super) fn affinity(
        &mut self,
        given: Option<LocatedTable<file::Affinity>>,
    ) -> Option<Arc<SessionAffinity>> {
        let LocatedTable { value: given, span: table } = given?;
        let ttl = SettingKey::new(&table, "ttl", &given.ttl);
        let ttl = self.setting(&ttl, None, |AgeText(text)| parse_ttl(text).map(Some)).value;
        let on_return = SettingKey::new(&table, "on_return", &given.on_return);
        let on_return =
            self.setting(&on_return, FailbackPolicy::default(), |word| match word.as_str() {
                "first" => Ok(FailbackPolicy::ReturnToPreferred),
                "stay" => Ok(FailbackPolicy::StayOnCurrent),
                other => Err(Problem::new(
                    format!("`{other}` is not a value of `on_return`"),
                    "write \"first\" or \"stay\"",
                )),
            });
        let drain = SettingKey::new(&table, "drain", &given.drain);
        let drain = self.zeroable_duration(&drain, DEFAULT_DRAIN_TIMEOUT);
        let secrets = given.secret_file.as_ref().and_then(|path| self.affinity_secrets(path));
        if given.cookie.is_none() {
            let beside = "affinity without a `cookie`";
            self.reject_unused_key(&given.ttl, "ttl", beside);
            self.reject_unused_key(&given.on_return, "on_return", beside);
            self.reject_unused_key(&given.drain, "drain", beside);
            self.reject_unused_key(&given.secret_file, "secret_file", beside);
        }
        let cookie = given.cookie.and_then(|name| {
            let on_return = on_return.value;
            let cookie = AffinityCookie {
                name: self.cookie_name(&name)?,
                ttl,
                failback: on_return,
                drain_timeout: drain,
                secrets,
            };
            Some((SessionAffinity::Cookie(cookie), name.span))
        });
        let header = given.header.and_then(|name| {
            Some((
                SessionAffinity::Key(HashKeySource::Header(self.header_field(&name)?)),
                name.span,
            ))
        });
        let source = given.source.filter(|source| source.value);
        let source =
            source.map(|source| (SessionAffinity::Key(HashKeySource::Source), source.span));
        let names: &[&str] = &["cookie", "header", "source"];
        self.exactly_one([cookie, header, source], (&table, names)).map(Arc::new)
    }

    /// Warns of pools with the same cookie and a common host: they overwrite each other's cookie.
    pub(super) fn warn_shared_cookies(&mut self, pools: &ValidatedPools, routes: &[RouteSpec]) {
        if self.diagnostics.has_errors() {
            return;
        }
        let cookie = |pool: &PoolSpec| match pool.affinity.as_deref() {
            Some(SessionAffinity::Cookie(cookie)) => Some(Arc::clone(&cookie.name)),
            _ => None,
        };
        let hosts = |pool: &PoolSpec| -> Vec<&HostMatch> {
            let is_routed = |route: &&RouteSpec| route.pool_names().any(|name| *name == pool.name);
            routes.iter().filter(is_routed).map(|route| &route.host).collect()
        };
        let has_shared_host = |one: &PoolSpec, other: &PoolSpec| {
            hosts(one)
                .iter()
                .any(|host| hosts(other).iter().any(|another| host.has_overlap_with(another)))
        };
        for (index, (span, pool)) in pools.specs.iter().enumerate() {
            let Some(name) = cookie(pool) else { continue };
            let before = pools.specs[..index].iter().map(|(_, other)| other);
            let mut others = before.filter(|other| cookie(other).as_ref() == Some(&name));
            if let Some(other) = others.find(|other| has_shared_host(pool, other)) {
                let problem = Problem::new(
                    format!(
                        "the pools `{}` and `{}` both set the cookie `{name}`: a client of both \
                         loses its affinity",
                        other.name, pool.name
                    ),
                    "give each pool a cookie name of its own",
                );
                self.diagnostics.warning(span, problem);
            }
        }
    }

    /// The secrets in a file; the first one encrypts.
    fn affinity_secrets(&mut self, path: &Located<String>) -> Option<CookieSecrets> {
        let bytes = self.read_file(path)?;
        let text = str::from_utf8(&bytes).map_err(|_| "is not text".to_owned());
        match text.and_then(CookieSecrets::parse) {
            Ok(secrets) => Some(secrets),
            Err(reason) => {
                // The message must not contain the content of the file.
                let message = format!("`{}` {reason}", path.value);
                self.diagnostics.error(&path.span, Problem::new(message, SECRET_HELP));
                None
            }
        }
    }
}

fn parse_ttl(given: &Scalar) -> Result<Duration, Problem> {
    let help = "write it as \"8h\" or \"30d\"";
    let Scalar::Text(text) = given else {
        return Err(Problem::new("a duration needs its unit", help));
    };
    let ttl = units::parse_age(text.trim());
    let ttl = ttl.ok_or_else(|| Problem::new(format!("`{text}` is not a duration"), help))?;
    if TTL_RANGE.contains(&ttl) {
        return Ok(ttl);
    }
    Err(Problem::new("`ttl` must be from 1s to 400d", help))
}
