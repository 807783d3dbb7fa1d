//! Routes: a compiled table finds what a look at each route would.

use gapless::logic::route::{
    Action, Ask, Conditions, HostMatch, PathMatch, Pattern, RouteSpec, RouteTable, Test,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

const HOSTS: [&str; 8] =
    ["", "example", "a.example", "b.a.example", "c.b.a.example", "ba.example", "other", ".example"];

const PATTERNS: [&str; 8] =
    ["/a/[ab]", "/a/.*", "/[ab]+/?", "/a|/b", "/", ".*", "/(a|b)(/.*)?", "/a\\.b"];

const METHODS: [Method; 3] = [Method::GET, Method::POST, Method::HEAD];

/// Routes of one table, at most.
const ROUTES: usize = 40;

/// Choices, made by bytes; those that are missing are zeros.
struct Dice<'a>(&'a [u8]);

impl Dice<'_> {
    fn next(&mut self) -> usize {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        usize::from(first)
    }

    fn one<T: Clone>(&mut self, list: &[T]) -> T {
        list[self.next() % list.len()].clone()
    }

    /// A path of a few segments, with all that is awkward in one.
    fn path(&mut self) -> String {
        let mut path = "/".to_owned();
        for _ in 0..self.next() % 6 {
            path.push_str(self.one(&["a", "b", "/", ".", "ab", "a/", "%2F", "é"]));
        }
        path
    }

    fn test(&mut self) -> Test {
        match self.next() % 5 {
            0 => Test::Present,
            1 => Test::Absent,
            2 => Test::Is(b"1"[..].into()),
            3 => Test::Prefix(b"1"[..].into()),
            _ => Test::Matches(Pattern::parse("[0-9]+").expect("a pattern")),
        }
    }

    fn spec(&mut self, name: usize) -> RouteSpec {
        let host = self.one(&HOSTS).trim_start_matches('.').to_owned();
        let host = match self.next() % 3 {
            // No file can say an empty name.
            0 => HostMatch::Any,
            _ if host.is_empty() => HostMatch::Any,
            1 => HostMatch::Exact(host),
            _ => HostMatch::Under(host),
        };
        let path = match self.next() % 3 {
            0 => PathMatch::Prefix(self.path()),
            1 => PathMatch::Exact(self.path()),
            _ => PathMatch::Matches(Pattern::parse(self.one(&PATTERNS)).expect("a pattern")),
        };
        let mut spec = RouteSpec::new(name.to_string(), host, path, Action::pool("web"));
        let has = self.next();
        let Conditions { cleartext, methods, headers, query } = &mut spec.conditions;
        *cleartext = has & 1 != 0;
        if has & 2 != 0 {
            methods.push(self.one(&METHODS));
        }
        if has & 4 != 0 {
            headers.push((HeaderName::from_static("x-a"), self.test()));
        }
        if has & 8 != 0 {
            query.push(("q".into(), self.test()));
        }
        spec
    }
}

/// Panics if `data` breaks it: choices for some routes, then for requests until there are no more.
pub fn holds(data: &[u8]) {
    let mut dice = Dice(data);
    let count = dice.next() % ROUTES;
    let specs: Vec<_> = (0..count).map(|name| dice.spec(name)).collect();
    let table = RouteTable::compile(&specs, ["web"].into_iter());
    loop {
        let mut headers = HeaderMap::new();
        if let value @ ("" | "1" | "12" | "x") = dice.one(&["", "1", "12", "x", "-"]) {
            headers.insert("x-a", HeaderValue::from_static(value));
        }
        let (path, method) = (dice.path(), dice.one(&METHODS));
        let ask = Ask {
            host: dice.one(&HOSTS),
            path: &path,
            method: &method,
            headers: &headers,
            query: dice.one(&["", "q=1", "q=12&x", "q", "%71=%31", "x=1&q=x"]),
            is_tls: dice.next() % 2 == 0,
        };
        let name = |spec: Option<&RouteSpec>| spec.map(|spec| spec.name.to_string());
        let found = name(table.find(&ask).map(|rule| &*rule.spec));
        assert_eq!(found, name(slowly(&specs, &ask)), "{ask:?}\n{specs:#?}");
        if dice.0.is_empty() {
            return;
        }
    }
}

/// Looks at every route; of those that take the request the first in the order of precedence wins.
fn slowly<'s>(specs: &'s [RouteSpec], ask: &Ask<'_>) -> Option<&'s RouteSpec> {
    let mut best: Option<(&RouteSpec, (Rank, Rank, usize))> = None;
    for spec in specs {
        let Some(host) = rank_host(&spec.host, ask.host) else { continue };
        let Some(path) = rank_path(specs, spec, ask.path) else { continue };
        if !spec.conditions.hold(ask) {
            continue;
        }
        let rank = (host, path, usize::MAX - spec.conditions.count());
        // Of two that are alike the earlier one stays.
        if best.is_none_or(|(_, known)| rank < known) {
            best = Some((spec, rank));
        }
    }
    best.map(|(spec, _)| spec)
}

/// A kind, then what orders inside it; less is better.
type Rank = (u8, usize);

fn rank_host(host: &HostMatch, asked: &str) -> Option<Rank> {
    match host {
        HostMatch::Exact(name) => (name == asked).then_some((0, 0)),
        HostMatch::Under(name) => {
            let is_under = asked.len() > name.len() + 1 && asked.ends_with(&format!(".{name}"));
            is_under.then_some((1, usize::MAX - name.len()))
        }
        HostMatch::Any => Some((2, 0)),
    }
}

fn rank_path(specs: &[RouteSpec], spec: &RouteSpec, asked: &str) -> Option<Rank> {
    match &spec.path {
        PathMatch::Exact(path) => (path == asked).then_some((0, 0)),
        PathMatch::Prefix(prefix) if prefix == "/" => Some((3, 0)),
        PathMatch::Prefix(prefix) => {
            let rest = asked.strip_prefix(prefix.as_str())?;
            let is_whole = rest.is_empty() || rest.starts_with('/') || prefix.ends_with('/');
            is_whole.then_some((1, usize::MAX - prefix.len()))
        }
        PathMatch::Matches(pattern) => {
            let alike = |other: &RouteSpec| other.host == spec.host && other.path == spec.path;
            let first = specs.iter().position(alike)?;
            pattern.matches(asked.as_bytes()).then_some((2, first))
        }
    }
}
