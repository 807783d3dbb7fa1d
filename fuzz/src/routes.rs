//! Routes: the compiled table finds the same route as a linear search.

use gapless::logic::routing::{
    Conditions, HostMatch, PathMatch, Pattern, RouteAction, RouteRequest, RouteSpec, RouteTable,
    ValueMatcher,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

const HOSTS: [&str; 8] =
    ["", "example", "a.example", "b.a.example", "c.b.a.example", "ba.example", "other", ".example"];

const PATTERNS: [&str; 8] =
    ["/a/[ab]", "/a/.*", "/[ab]+/?", "/a|/b", "/", ".*", "/(a|b)(/.*)?", "/a\\.b"];

const METHODS: [Method; 3] = [Method::GET, Method::POST, Method::HEAD];

/// The most routes of one table.
const MAX_ROUTES: usize = 40;

/// Choices from bytes; missing bytes are zeros.
struct ByteChoices<'a>(&'a [u8]);

impl ByteChoices<'_> {
    fn next_choice(&mut self) -> usize {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        usize::from(first)
    }

    fn choose<T: Clone>(&mut self, list: &[T]) -> T {
        list[self.next_choice() % list.len()].clone()
    }

    /// A path of a few segments, including awkward ones.
    fn path(&mut self) -> String {
        let mut path = "/".to_owned();
        for _ in 0..self.next_choice() % 6 {
            path.push_str(self.choose(&["a", "b", "/", ".", "ab", "a/", "%2F", "é"]));
        }
        path
    }

    fn value_matcher(&mut self) -> ValueMatcher {
        match self.next_choice() % 5 {
            0 => ValueMatcher::Present,
            1 => ValueMatcher::Absent,
            2 => ValueMatcher::Exact(b"1"[..].into()),
            3 => ValueMatcher::Prefix(b"1"[..].into()),
            _ => ValueMatcher::Regex(Pattern::parse("[0-9]+").expect("a pattern")),
        }
    }

    fn route_spec(&mut self, name: usize) -> RouteSpec {
        let host = self.choose(&HOSTS).trim_start_matches('.').to_owned();
        let host = match self.next_choice() % 3 {
            // A file cannot contain an empty name.
            0 => HostMatch::Any,
            _ if host.is_empty() => HostMatch::Any,
            1 => HostMatch::Exact(host),
            _ => HostMatch::Wildcard(host),
        };
        let path = match self.next_choice() % 3 {
            0 => PathMatch::Prefix(self.path()),
            1 => PathMatch::Exact(self.path()),
            _ => PathMatch::Regex(Pattern::parse(self.choose(&PATTERNS)).expect("a pattern")),
        };
        let mut spec = RouteSpec::new(name.to_string(), host, path, RouteAction::to_pool("web"));
        let flags = self.next_choice();
        let Conditions { is_cleartext_only, methods, headers, query } = &mut spec.conditions;
        *is_cleartext_only = flags & 1 != 0;
        if flags & 2 != 0 {
            methods.push(self.choose(&METHODS));
        }
        if flags & 4 != 0 {
            headers.push((HeaderName::from_static("x-a"), self.value_matcher()));
        }
        if flags & 8 != 0 {
            query.push(("q".into(), self.value_matcher()));
        }
        spec
    }
}

/// Panics if `data` violates the property. Bytes are choices for some routes, then for requests.
pub fn check(data: &[u8]) {
    let mut choices = ByteChoices(data);
    let count = choices.next_choice() % MAX_ROUTES;
    let specs: Vec<_> = (0..count).map(|name| choices.route_spec(name)).collect();
    let table = RouteTable::compile(&specs, ["web"].into_iter());
    loop {
        let mut headers = HeaderMap::new();
        if let value @ ("" | "1" | "12" | "x") = choices.choose(&["", "1", "12", "x", "-"]) {
            headers.insert("x-a", HeaderValue::from_static(value));
        }
        let (path, method) = (choices.path(), choices.choose(&METHODS));
        let request = RouteRequest {
            host: choices.choose(&HOSTS),
            path: &path,
            method: &method,
            headers: &headers,
            query: choices.choose(&["", "q=1", "q=12&x", "q", "%71=%31", "x=1&q=x"]),
            is_tls: choices.next_choice() % 2 == 0,
        };
        let name = |spec: Option<&RouteSpec>| spec.map(|spec| spec.name.to_string());
        let found = name(table.find(&request).map(|rule| &*rule.spec));
        assert_eq!(found, name(find_linearly(&specs, &request)), "{request:?}\n{specs:#?}");
        if choices.0.is_empty() {
            return;
        }
    }
}

/// Linear search: of the matching routes the first in the order of precedence wins.
fn find_linearly<'s>(specs: &'s [RouteSpec], request: &RouteRequest<'_>) -> Option<&'s RouteSpec> {
    let mut best: Option<(&RouteSpec, (MatchRank, MatchRank, usize))> = None;
    for spec in specs {
        let Some(host) = rank_host(&spec.host, request.host) else { continue };
        let Some(path) = rank_path(specs, spec, request.path) else { continue };
        if !spec.conditions.is_met_by(request) {
            continue;
        }
        let rank = (host, path, usize::MAX - spec.conditions.count());
        // Of two equal routes the earlier one wins.
        if best.is_none_or(|(_, best_rank)| rank < best_rank) {
            best = Some((spec, rank));
        }
    }
    best.map(|(spec, _)| spec)
}

/// The kind, then the order inside the kind; lower is better.
type MatchRank = (u8, usize);

fn rank_host(host: &HostMatch, requested: &str) -> Option<MatchRank> {
    match host {
        HostMatch::Exact(name) => (name == requested).then_some((0, 0)),
        HostMatch::Wildcard(name) => {
            let is_under =
                requested.len() > name.len() + 1 && requested.ends_with(&format!(".{name}"));
            is_under.then_some((1, usize::MAX - name.len()))
        }
        HostMatch::Any => Some((2, 0)),
    }
}

fn rank_path(specs: &[RouteSpec], spec: &RouteSpec, requested: &str) -> Option<MatchRank> {
    match &spec.path {
        PathMatch::Exact(path) => (path == requested).then_some((0, 0)),
        PathMatch::Prefix(prefix) if prefix == "/" => Some((3, 0)),
        PathMatch::Prefix(prefix) => {
            let rest = requested.strip_prefix(prefix.as_str())?;
            let is_whole = rest.is_empty() || rest.starts_with('/') || prefix.ends_with('/');
            is_whole.then_some((1, usize::MAX - prefix.len()))
        }
        PathMatch::Regex(pattern) => {
            let alike = |other: &RouteSpec| other.host == spec.host && other.path == spec.path;
            let first = specs.iter().position(alike)?;
            pattern.matches(requested.as_bytes()).then_some((2, first))
        }
    }
}
