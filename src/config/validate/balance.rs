//! Checks of how a pool's endpoints are chosen, and of what stays with one of them.

use std::ops::{Range, RangeInclusive};
use std::sync::Arc;
use std::time::Duration;

use http::header::HeaderName;

use super::Pools;
use super::check::{Check, Key};
use crate::config::file::{self, AgeText, Located, Scalar, Table, WordOr};
use crate::config::findings::Flaw;
use crate::config::suggest;
use crate::config::units;
use crate::logic::affinity::{Affinity, Cookie, DRAIN, OnReturn, Secrets};
use crate::logic::balance::{Balance, HashKey, Keyed, Kind, POINTS};
use crate::logic::route::{HostMatch, RouteSpec};
use crate::logic::topology::PoolSpec;

const METHODS: [&str; 6] =
    ["least_requests", "peak_ewma", "round_robin", "random", "ring_hash", "maglev"];
const MAX_LOAD_PERCENT: RangeInclusive<u32> = 101..=1_000;
const POINTS_BOUNDS: RangeInclusive<u32> = 1..=65_536;
/// Browsers keep nothing for longer.
const TTL: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(400 * 24);
const SECRET_MEND: &str = "write one secret a line, each of 64 hexadecimal digits, as \
                           `openssl rand -hex 32` makes them";

impl Check<'_> {
    pub(super) fn balance(&mut self, given: Option<Located<WordOr<file::Balance>>>) -> Balance {
        let Some(Located { value, span }) = given else { return Balance::default() };
        match value {
            WordOr::Word(word) => {
                let method = Some(Located { value: word, span: span.clone() });
                self.method(file::Balance { method, ..file::Balance::default() }, &span)
            }
            WordOr::Table(table) => self.method(table, &span),
        }
    }

    fn method(&mut self, given: file::Balance, table: &Range<usize>) -> Balance {
        let Some(method) = &given.method else {
            let flaw = Flaw::new("no method is named", "add `method = \"ring_hash\"`");
            self.missing(table, "method", flaw);
            return Balance::default();
        };
        let points = self.whole(&Key::new(table, "points", &given.points), &POINTS_BOUNDS, POINTS);
        let kind = match method.value.as_str() {
            "ring_hash" => Ok(Kind::Ring { points }),
            "maglev" => Ok(Kind::Maglev),
            "least_requests" => Err(Balance::LeastRequests),
            "peak_ewma" => Err(Balance::PeakEwma),
            "round_robin" => Err(Balance::RoundRobin),
            "random" => Err(Balance::Random),
            other => {
                let mend = match suggest::nearest(other, METHODS) {
                    Some(meant) => format!("did you mean \"{meant}\"?"),
                    None => {
                        format!("write one of {}", METHODS.map(|m| format!("\"{m}\"")).join(", "))
                    }
                };
                let message = format!("`{other}` is no method of balancing");
                self.findings.error(&method.span, Flaw::new(message, mend));
                return Balance::default();
            }
        };
        let word = &method.value;
        if !matches!(kind, Ok(Kind::Ring { .. })) {
            self.has_no_meaning(&given.points, "points", &format!("`{word}`"));
        }
        let kind = match kind {
            Ok(kind) => kind,
            Err(keyless) => {
                let key = given.key.map(|key| Located { value: (), span: key.span });
                self.has_no_meaning(&key, "key", &format!("`{word}`"));
                let bound = &given.max_load_percent;
                self.has_no_meaning(bound, "max_load_percent", &format!("`{word}`"));
                return keyless;
            }
        };
        let key = Key::new(table, "max_load_percent", &given.max_load_percent);
        let read = |text: &file::Whole| {
            super::check::whole_from(&text.0, "max_load_percent", &MAX_LOAD_PERCENT).map(Some)
        };
        let max_load_percent = self.setting(&key, None, read).value;
        let Some(key) = given.key else {
            let mend = "add `key = { header = \"x-user\" }`, or one of `cookie`, `path`, `source`";
            self.missing(table, "key", Flaw::new(format!("`{word}` needs a `key`"), mend));
            return Balance::default();
        };
        match self.hash_key(key) {
            Some(key) => Balance::Keyed(Keyed { table: kind, key, max_load_percent }),
            None => Balance::default(),
        }
    }

    fn hash_key(&mut self, key: Table<file::HashKey>) -> Option<HashKey> {
        let Table { value: given, span: table } = key;
        let header = given.header.and_then(|name| Some((self.field(&name)?, name.span)));
        let cookie = given.cookie.and_then(|name| Some((self.cookie_name(&name)?, name.span)));
        let path = given.path.filter(|path| path.value);
        let source = given.source.filter(|source| source.value);
        let keys = [
            header.map(|(name, span)| (HashKey::Header(name), span)),
            cookie.map(|(name, span)| (HashKey::Cookie(name), span)),
            path.map(|path| (HashKey::Path, path.span)),
            source.map(|source| (HashKey::Source, source.span)),
        ];
        self.one_of(keys, (&table, &["header", "cookie", "path", "source"]))
    }

    /// The only one of several that is given.
    fn one_of<T, const N: usize>(
        &mut self,
        given: [Option<(T, Range<usize>)>; N],
        (table, names): (&Range<usize>, &[&str]),
    ) -> Option<T> {
        let mut given = given.into_iter().flatten();
        let Some((first, span)) = given.next() else {
            let is_unread = names.iter().any(|name| self.gaps.has(table, name));
            if !is_unread && !self.findings.has_errors() {
                let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
                let mend = format!("give one of {}", names.join(", "));
                self.findings.error(table, Flaw::new("it is not said by what", mend));
            }
            return None;
        };
        for (_, second) in given {
            let flaw = Flaw::new("only one of them can decide", "leave one of them away");
            self.findings.error(&second, flaw).also(&span, "this is given too");
        }
        Some(first)
    }

    fn has_no_meaning<T>(&mut self, given: &Option<Located<T>>, name: &str, beside: &str) {
        if let Some(given) = given {
            let message = format!("`{name}` has no meaning with {beside}");
            self.findings.error(&given.span, Flaw::new(message, "leave it away"));
        }
    }

    fn field(&mut self, given: &Located<String>) -> Option<HeaderName> {
        let name = HeaderName::from_bytes(given.value.as_bytes());
        if name.is_err() {
            let message = format!("`{}` cannot be the name of a header field", given.value);
            self.findings.error(&given.span, Flaw::new(message, "write a name such as \"x-user\""));
        }
        name.ok()
    }

    fn cookie_name(&mut self, given: &Located<String>) -> Option<Arc<str>> {
        // A token (RFC 6265 4.1.1), as names of fields are.
        let is_token = HeaderName::from_bytes(given.value.as_bytes()).is_ok();
        if !is_token {
            let message = format!("`{}` cannot be the name of a cookie", given.value);
            self.findings
                .error(&given.span, Flaw::new(message, "write a name such as \"session\""));
        }
        is_token.then(|| given.value.as_str().into())
    }

    pub(super) fn affinity(
        &mut self,
        given: Option<Table<file::Affinity>>,
    ) -> Option<Arc<Affinity>> {
        let Table { value: given, span: table } = given?;
        let ttl = Key::new(&table, "ttl", &given.ttl);
        let ttl = self.setting(&ttl, None, |AgeText(text)| ttl_from(text).map(Some)).value;
        let on_return = Key::new(&table, "on_return", &given.on_return);
        let on_return = self.setting(&on_return, OnReturn::default(), |word| match word.as_str() {
            "first" => Ok(OnReturn::First),
            "stay" => Ok(OnReturn::Stay),
            other => Err(Flaw::new(
                format!("clients cannot return by `{other}`"),
                "write \"first\" or \"stay\"",
            )),
        });
        let drain = Key::new(&table, "drain", &given.drain);
        let drain = self.duration_or_zero(&drain, DRAIN);
        let secrets = given.secret_file.as_ref().and_then(|path| self.secrets(path));
        if given.cookie.is_none() {
            let beside = "affinity that has no `cookie`: what leads to an endpoint is not kept";
            self.has_no_meaning(&given.ttl, "ttl", beside);
            self.has_no_meaning(&given.on_return, "on_return", beside);
            self.has_no_meaning(&given.drain, "drain", beside);
            self.has_no_meaning(&given.secret_file, "secret_file", beside);
        }
        let cookie = given.cookie.and_then(|name| {
            let on_return = on_return.value;
            let cookie = Cookie { name: self.cookie_name(&name)?, ttl, on_return, drain, secrets };
            Some((Affinity::Cookie(cookie), name.span))
        });
        let header = given
            .header
            .and_then(|name| Some((Affinity::Key(HashKey::Header(self.field(&name)?)), name.span)));
        let source = given.source.filter(|source| source.value);
        let source = source.map(|source| (Affinity::Key(HashKey::Source), source.span));
        let names: &[&str] = &["cookie", "header", "source"];
        self.one_of([cookie, header, source], (&table, names)).map(Arc::new)
    }

    /// Warns of pools whose cookies take each other's place with a client that comes to both.
    pub(super) fn rival_cookies(&mut self, pools: &Pools, routes: &[RouteSpec]) {
        if self.findings.has_errors() {
            return;
        }
        let cookie = |pool: &PoolSpec| match pool.affinity.as_deref() {
            Some(Affinity::Cookie(cookie)) => Some(Arc::clone(&cookie.name)),
            _ => None,
        };
        let hosts = |pool: &PoolSpec| -> Vec<&HostMatch> {
            let is_led = |route: &&RouteSpec| route.pools().any(|name| *name == pool.name);
            routes.iter().filter(is_led).map(|route| &route.host).collect()
        };
        let share_a_client = |one: &PoolSpec, other: &PoolSpec| {
            hosts(one).iter().any(|host| hosts(other).iter().any(|another| host.meets(another)))
        };
        for (index, (span, pool)) in pools.read.iter().enumerate() {
            let Some(name) = cookie(pool) else { continue };
            let before = pools.read[..index].iter().map(|(_, other)| other);
            let mut rivals = before.filter(|other| cookie(other).as_ref() == Some(&name));
            if let Some(rival) = rivals.find(|other| share_a_client(pool, other)) {
                let flaw = Flaw::new(
                    format!(
                        "the pools `{}` and `{}` both set the cookie `{name}`: whoever uses both \
                         stays nowhere",
                        rival.name, pool.name
                    ),
                    "give each pool a cookie of its own name",
                );
                self.findings.warning(span, flaw);
            }
        }
    }

    /// The secrets of a file, the first of which seals.
    fn secrets(&mut self, path: &Located<String>) -> Option<Secrets> {
        let bytes = self.file_of(path)?;
        let text = str::from_utf8(&bytes).map_err(|_| "is no text".to_owned());
        match text.and_then(Secrets::read) {
            Ok(secrets) => Some(secrets),
            Err(what) => {
                // What is in the file is shown to nobody.
                let message = format!("`{}` {what}", path.value);
                self.findings.error(&path.span, Flaw::new(message, SECRET_MEND));
                None
            }
        }
    }
}

fn ttl_from(given: &Scalar) -> Result<Duration, Flaw> {
    let mend = "write it as \"8h\" or \"30d\"";
    let Scalar::Text(text) = given else {
        return Err(Flaw::new("a length of time needs its unit", mend));
    };
    let ttl = units::age(text.trim());
    let ttl = ttl.ok_or_else(|| Flaw::new(format!("`{text}` is not a length of time"), mend))?;
    if TTL.contains(&ttl) {
        return Ok(ttl);
    }
    Err(Flaw::new("`ttl` must be from 1s to 400d", mend))
}
