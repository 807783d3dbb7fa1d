//! The route table against a linear search.

use fastrand::Rng;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use proptest::prelude::*;

use super::matching::strip_path_prefix;
use super::*;

const HOSTS: [&str; 8] =
    ["a.example", "b.a.example", "c.b.a.example", "example", "xa.example", ".example", "other", ""];
const PATHS: [&str; 12] = [
    "/", "/v1", "/v1/", "/v1/x", "/v1x", "/v1/x/y", "/v1/x/", "/v2", "/v2/7", "/v2/77", "//",
    "/v1//x",
];
const PATTERNS: [&str; 5] = ["/v2/[0-9]", "/v2/[0-9]+", "/v[0-9]/.*", "/v1.*|/x", "/"];

/// Linear search over all routes by the order of precedence.
fn find_linear<'s>(specs: &'s [RouteSpec], request: &RouteRequest<'_>) -> Option<&'s RouteSpec> {
    let matching = specs.iter().filter(|spec| {
        host_matches(&spec.host, request.host)
            && path_matches(&spec.path, request.path)
            && spec.conditions.is_met_by(request)
    });
    let first_alike = |spec: &RouteSpec| {
        let alike = |other: &RouteSpec| other.host == spec.host && other.path == spec.path;
        specs.iter().position(alike)
    };
    // `min_by_key` returns the first of equal elements, so the order of the file decides.
    matching.min_by_key(|spec| {
        let host = match &spec.host {
            HostMatch::Exact(_) => (0, 0),
            HostMatch::Wildcard(name) => (1, usize::MAX - name.len()),
            HostMatch::Any => (2, 0),
        };
        let path = match &spec.path {
            PathMatch::Exact(_) => (0, 0),
            PathMatch::Prefix(prefix) if prefix == "/" => (3, 0),
            PathMatch::Prefix(prefix) => (1, usize::MAX - prefix.len()),
            PathMatch::Regex(_) => (2, first_alike(spec).unwrap_or(0)),
        };
        (host, path, usize::MAX - spec.conditions.count())
    })
}

fn host_matches(host: &HostMatch, host_name: &str) -> bool {
    match host {
        HostMatch::Any => true,
        HostMatch::Exact(name) => name == host_name,
        HostMatch::Wildcard(name) => host_name
            .strip_suffix(name.as_str())
            .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
    }
}

fn path_matches(path: &PathMatch, requested_path: &str) -> bool {
    match path {
        PathMatch::Prefix(prefix) => strip_path_prefix(requested_path, prefix).is_some(),
        PathMatch::Exact(path) => path == requested_path,
        PathMatch::Regex(pattern) => pattern.matches(requested_path.as_bytes()),
    }
}

fn random_item<'a>(rng: &mut Rng, list: &[&'a str]) -> &'a str {
    list[rng.usize(..list.len())]
}

fn random_spec(rng: &mut Rng, index: usize) -> RouteSpec {
    let name = random_item(rng, &HOSTS).trim_start_matches('.').to_owned();
    let host = match rng.u8(..3) {
        0 => HostMatch::Any,
        1 => HostMatch::Exact(name),
        _ => HostMatch::Wildcard(name),
    };
    let path = random_item(rng, &PATHS).to_owned();
    let path = match rng.u8(..3) {
        0 => PathMatch::Prefix(path),
        1 => PathMatch::Exact(path),
        _ => PathMatch::Regex(Pattern::parse(random_item(rng, &PATTERNS)).expect("a pattern")),
    };
    let mut spec = RouteSpec::new(index.to_string(), host, path, RouteAction::to_pool("web"));
    let conditions = &mut spec.conditions;
    conditions.is_cleartext_only = rng.u8(..8) == 0;
    if rng.u8(..4) == 0 {
        conditions.methods = vec![Method::POST];
    }
    let test = |rng: &mut Rng| match rng.u8(..5) {
        0 => ValueMatcher::Present,
        1 => ValueMatcher::Absent,
        2 => ValueMatcher::Exact(b"1"[..].into()),
        3 => ValueMatcher::Prefix(b"1"[..].into()),
        _ => ValueMatcher::Regex(Pattern::parse("[0-9]").expect("a pattern")),
    };
    if rng.u8(..4) == 0 {
        conditions.headers.push((HeaderName::from_static("x-a"), test(rng)));
    }
    if rng.u8(..4) == 0 {
        conditions.query.push(("q".into(), test(rng)));
    }
    spec
}

/// Compares random requests to a table of random routes.
fn compare_with_linear(seed: u64, routes: usize, requests: usize) {
    let mut rng = Rng::with_seed(seed);
    let specs: Vec<_> = (0..routes).map(|index| random_spec(&mut rng, index)).collect();
    let table = RouteTable::compile(&specs, ["web"].into_iter());
    for _ in 0..requests {
        let mut headers = HeaderMap::new();
        if rng.bool() {
            headers.insert(
                "x-a",
                HeaderValue::from_static(random_item(&mut rng, &["", "1", "12", "x"])),
            );
        }
        let request = RouteRequest {
            host: random_item(&mut rng, &HOSTS),
            path: random_item(&mut rng, &PATHS),
            method: if rng.bool() { &Method::GET } else { &Method::POST },
            headers: &headers,
            query: random_item(&mut rng, &["", "q=1", "q=12&x", "q", "%71=%31", "x=1"]),
            is_tls: rng.bool(),
        };
        let found = table.find(&request).map(|rule| &*rule.spec);
        let expected = find_linear(&specs, &request);
        let name = |spec: Option<&RouteSpec>| spec.map(|spec| spec.name.to_string());
        assert_eq!(name(found), name(expected), "seed {seed}: {request:?}\n{specs:#?}");
    }
}

fn spec(host: HostMatch, path: &str) -> RouteSpec {
    let name = format!("{host}{path}");
    RouteSpec::new(name, host, PathMatch::Prefix(path.to_owned()), RouteAction::to_pool("web"))
}

fn exact(host: &str) -> HostMatch {
    HostMatch::Exact(host.to_owned())
}

fn found(table: &RouteTable, host: &str, path: &str) -> Option<String> {
    let headers = HeaderMap::new();
    let request = RouteRequest {
        host,
        path,
        method: &Method::GET,
        headers: &headers,
        query: "",
        is_tls: false,
    };
    table.find(&request).map(|rule| rule.spec.name.to_string())
}

#[test]
fn exact_host_precedes_any_host_then_longest_prefix_wins() {
    let specs = [
        spec(HostMatch::Any, "/"),
        spec(HostMatch::Any, "/v1"),
        spec(exact("a.example"), "/"),
        spec(exact("a.example"), "/v1/"),
        spec(exact("b.example"), "/only"),
    ];
    let table = RouteTable::compile(&specs, ["web"].into_iter());
    let found = |host, path| found(&table, host, path);
    assert_eq!(found("x", "/").as_deref(), Some("*/"));
    assert_eq!(found("x", "/v1").as_deref(), Some("*/v1"));
    assert_eq!(found("x", "/v1/a").as_deref(), Some("*/v1"));
    assert_eq!(found("x", "/v1x").as_deref(), Some("*/"));
    assert_eq!(found("a.example", "/v1").as_deref(), Some("a.example/"));
    assert_eq!(found("a.example", "/v1/x").as_deref(), Some("a.example/v1/"));
    assert_eq!(found("b.example", "/only/x").as_deref(), Some("b.example/only"));
    assert_eq!(found("b.example", "/v1/x").as_deref(), Some("*/v1"));
}

#[test]
fn wildcard_host_needs_a_label_and_the_longest_wins() {
    let under = |name: &str| HostMatch::Wildcard(name.to_owned());
    let specs = [
        spec(under("example"), "/"),
        spec(under("a.example"), "/"),
        spec(exact("b.a.example"), "/"),
    ];
    let table = RouteTable::compile(&specs, ["web"].into_iter());
    let found = |host| found(&table, host, "/x");
    assert_eq!(found("b.a.example").as_deref(), Some("b.a.example/"));
    assert_eq!(found("c.a.example").as_deref(), Some("*.a.example/"));
    assert_eq!(found("d.c.a.example").as_deref(), Some("*.a.example/"));
    assert_eq!(found("a.example").as_deref(), Some("*.example/"));
    assert_eq!(found("ba.example").as_deref(), Some("*.example/"));
    assert_eq!((found("example"), found(".example")), (None, None));
}

#[test]
fn path_precedence_is_exact_prefix_pattern_catch_all() {
    let at = |path| RouteSpec { path, ..spec(HostMatch::Any, "/") };
    let named = |path: PathMatch| RouteSpec { name: path.to_string().into(), ..at(path) };
    let pattern = |text| PathMatch::Regex(Pattern::parse(text).expect("a pattern"));
    let specs = [
        named(pattern("/a/[a-z]+")),
        named(pattern("/a/.*")),
        named(PathMatch::Prefix("/".to_owned())),
        named(PathMatch::Prefix("/a/b".to_owned())),
        named(PathMatch::Exact("/a/b/c".to_owned())),
    ];
    let table = RouteTable::compile(&specs, ["web"].into_iter());
    let found = |path| found(&table, "x", path).expect("a route");
    assert_eq!(found("/a/b/c"), "=/a/b/c");
    assert_eq!(found("/a/b/c/d"), "/a/b");
    assert_eq!(found("/a/c"), "~/a/[a-z]+");
    assert_eq!(found("/a/1"), "~/a/.*");
    assert_eq!(found("/b"), "/");
}

#[test]
fn route_with_more_conditions_precedes_then_file_order() {
    let with = |name: &str, change: &dyn Fn(&mut Conditions)| {
        let mut spec = RouteSpec { name: name.into(), ..spec(HostMatch::Any, "/") };
        change(&mut spec.conditions);
        spec
    };
    let header = |name| (HeaderName::from_static(name), ValueMatcher::Present);
    let specs = [
        with("plain", &|_| {}),
        with("to https", &|conditions| conditions.is_cleartext_only = true),
        with("a", &|conditions| conditions.headers = vec![header("x-a")]),
        with("a and b", &|conditions| conditions.headers = vec![header("x-b"), header("x-a")]),
    ];
    let table = RouteTable::compile(&specs, ["web"].into_iter());
    let found = |names: &[&'static str], is_tls| {
        let present = |name: &&'static str| (HeaderName::from_static(name), HeaderValue::from(1));
        let headers: HeaderMap = names.iter().map(present).collect();
        let method = &Method::GET;
        let request =
            RouteRequest { host: "x", path: "/", method, headers: &headers, query: "", is_tls };
        table.find(&request).map(|rule| rule.spec.name.to_string())
    };
    assert_eq!(found(&[], true).as_deref(), Some("plain"), "the redirect does not loop");
    assert_eq!(found(&[], false).as_deref(), Some("to https"));
    assert_eq!(found(&["x-a"], true).as_deref(), Some("a"));
    assert_eq!(found(&["x-a"], false).as_deref(), Some("to https"), "the earlier of two alike");
    assert_eq!(found(&["x-a", "x-b"], false).as_deref(), Some("a and b"));
}

#[test]
fn request_without_matching_route_finds_none() {
    let table = RouteTable::compile(&[spec(exact("a.example"), "/")], ["web"].into_iter());
    assert_eq!(found(&table, "b.example", "/"), None);
    assert_eq!(found(&RouteTable::compile(&[], ["web"].into_iter()), "a", "/"), None);
    let nowhere = RouteTable::compile(&[spec(HostMatch::Any, "/")], ["other"].into_iter());
    assert_eq!(found(&nowhere, "a", "/"), None);
}

#[test]
fn pools_are_picked_by_weight() {
    let share = |pool: &str, weight| WeightedPool { pool: pool.into(), weight };
    let action = RouteAction::Pools(vec![share("a", 95), share("b", 5), share("c", 0)]);
    let specs = [RouteSpec { action, ..spec(HostMatch::Any, "/") }];
    let table = RouteTable::compile(&specs, ["c", "b", "a"].into_iter());
    let rule = &table.compiled_routes()[0];
    let mut rng = Rng::with_seed(7);
    let mut counts = [0; 3];
    for _ in 0..10_000 {
        counts[rule.pick_pool(&mut rng).expect("a pool").pool] += 1;
    }
    assert_eq!(counts[0], 0, "it has no weight");
    assert!((400..600).contains(&counts[1]), "{counts:?}");
}

#[test]
fn pool_routes_include_mirror_and_fallback() {
    let mirror = Some(MirrorPolicy { pool: "shadow".into(), percent: 1 });
    let fallback = Some(FallbackAction::Pool("spare".into()));
    let specs = [RouteSpec { mirror, fallback, ..spec(HostMatch::Any, "/") }];
    let table = RouteTable::compile(&specs, ["web", "shadow", "spare"].into_iter());
    let pools: Vec<_> =
        table.pool_routes().iter().map(|route| (&*route.pool_name, route.pool)).collect();
    assert_eq!(pools, [("web", 0), ("shadow", 1), ("spare", 2)]);
    assert_eq!(table.pool_routes()[1].spec.retry.attempts, 1, "a copy is sent once");
}

#[test]
fn seeded_route_tables_agree_with_linear_search() {
    for seed in 0..80 {
        compare_with_linear(seed, 1 + seed as usize % 40, 100);
    }
}

fn any_path() -> impl Strategy<Value = PathMatch> {
    prop_oneof![
        "(/[ab./]{0,4}){0,3}".prop_map(|path| PathMatch::Prefix(format!("/{path}"))),
        "(/[ab./]{0,4}){0,3}".prop_map(|path| PathMatch::Exact(format!("/{path}"))),
        "[ab/.*+|()?]{0,8}".prop_filter_map("a pattern", |text| {
            Pattern::parse(&text).ok().map(PathMatch::Regex)
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(64)
    })]

    #[test]
    fn random_route_table_agrees_with_linear_search(seed: u64, routes in 0..60_usize) {
        compare_with_linear(seed, routes, 50);
    }

    #[test]
    fn random_paths_compile_and_agree_with_linear_search(
        rules in proptest::collection::vec(any_path(), 0..20),
        paths in proptest::collection::vec("/[ab./]{0,8}", 1..20),
    ) {
        let specs: Vec<RouteSpec> = rules
            .into_iter()
            .enumerate()
            .map(|(index, path)| {
                let action = RouteAction::to_pool("web");
                RouteSpec::new(index.to_string(), HostMatch::Any, path, action)
            })
            .collect();
        let table = RouteTable::compile(&specs, ["web"].into_iter());
        let headers = HeaderMap::new();
        for path in &paths {
            let method = &Method::GET;
            let headers = &headers;
            let request =
                RouteRequest { host: "", path, method, headers, query: "", is_tls: true };
            let expected = find_linear(&specs, &request).map(|spec| spec.name.to_string());
            prop_assert_eq!(found(&table, "", path), expected);
        }
    }

    #[test]
    fn pattern_parse_of_any_text_does_not_panic(text in ".{0,40}", path in ".{0,20}") {
        if let Ok(pattern) = Pattern::parse(&text) {
            let _ = pattern.matches(path.as_bytes());
        }
    }
}
