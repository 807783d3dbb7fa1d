//! Every check of the configuration, each with the place that it names and the mend that it offers.

use gapless::config;

/// A good file; the tests spoil one thing at a time.
const GOOD: &str = r#"
[[listen]]
address = "127.0.0.1:18080"

[[route]]
pool = "web"

[pool.web]
probe = { http = "/healthz" }

[[pool.web.zone]]
name = "local/a"
endpoints = ["127.0.0.1:18081"]
"#;

/// `line:column message | mend` of all errors and warnings in `text`.
fn found(text: &str) -> Vec<String> {
    let report = match config::parse("test.toml", text) {
        Ok(loaded) => loaded.warnings,
        Err(report) => report,
    };
    let diagnostics = report.diagnostics.iter();
    diagnostics
        .map(|d| format!("{}:{} {} | {}", d.at.line, d.at.column, d.message, d.mend))
        .collect()
}

/// The good file with the first `from` replaced.
fn with(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "{from}");
    GOOD.replacen(from, to, 1)
}

/// Asserts that `text` has exactly one error or warning, and that it contains `expected`.
#[track_caller]
fn one(text: &str, expected: &str) {
    let found = found(text);
    assert!(
        found.len() == 1 && found[0].contains(expected),
        "{found:#?}\nnot: {expected}"
    );
}

/// Asserts that one line, put in front of `before`, is exactly one error.
#[track_caller]
fn line(before: &str, line: &str, expected: &str) {
    one(&with(before, &format!("{line}\n{before}")), expected);
}

#[track_caller]
fn route(keys: &str, expected: &str) {
    one(
        &with("pool = \"web\"", &format!("pool = \"web\"\n{keys}")),
        expected,
    );
}

#[track_caller]
fn pool(keys: &str, expected: &str) {
    one(
        &with("[pool.web]", &format!("[pool.web]\n{keys}")),
        expected,
    );
}

#[track_caller]
fn probe(probe: &str, expected: &str) {
    one(&with("{ http = \"/healthz\" }", probe), expected);
}

#[track_caller]
fn endpoints(endpoints: &str, expected: &str) {
    one(&with("[\"127.0.0.1:18081\"]", endpoints), expected);
}

#[test]
fn the_good_file_is_good() {
    assert_eq!(found(GOOD), [""; 0]);
}

#[test]
fn an_empty_file_lacks_a_listener_and_a_route() {
    let expected = [
        "1:1 there is no listener | add `[[listen]]` with `address = \"0.0.0.0:8080\"`",
        "1:1 there is no route | add `[[route]]` with `pool = \"…\"`",
    ];
    assert_eq!(found(""), expected);
}

#[test]
fn listeners() {
    let address = "\"127.0.0.1:18080\"";
    one(
        &with("address = ", "# "),
        "2:1 a listener needs an address | add `address",
    );
    one(
        &with(address, "\"localhost:1\""),
        "3:11 `localhost` is a host name",
    );
    let second = |address| format!("[[listen]]\naddress = \"{address}\"\n\n{GOOD}");
    one(
        &second("127.0.0.1:18080"),
        "6:11 127.0.0.1:18080 is already listened on",
    );
    one(
        &second("0.0.0.0:18080"),
        "6:11 127.0.0.1:18080 is already listened on, as 0.0.0.0:18080",
    );
    assert_eq!(found(&second("127.0.0.1:18089")), [""; 0]);
    let two_free = second("127.0.0.1:0").replace(address, "\"127.0.0.1:0\"");
    assert_eq!(
        found(&two_free),
        [""; 0],
        "port 0 is another port each time"
    );
}

#[test]
fn there_are_bounds_on_listeners() {
    let many: String = (1..=300)
        .map(|port| format!("[[listen]]\naddress = \"127.0.0.1:{port}\"\n"))
        .collect();
    one(
        &format!("{many}{GOOD}"),
        "513:1 there are more than 256 listeners",
    );
}

#[test]
fn admin() {
    let admin = |address, expected| {
        line(
            "[[listen]]",
            &format!("[admin]\naddress = {address}"),
            expected,
        )
    };
    admin(
        "\"0.0.0.0:9900\"",
        "3:11 0.0.0.0 can be reached by others, and admin has neither TLS",
    );
    admin(
        "\"10.0.0.1:9900\"",
        "use a loopback address, such as \"127.0.0.1:9900\", or \"off\"",
    );
    admin(
        "\"127.0.0.1:18080\"",
        "clients are listened for on 127.0.0.1:18080",
    );
    admin("\"of\"", "`of` is a host name");
    one(
        &with("18080", "9900"),
        "3:11 127.0.0.1:9900 is the admin listener's, by default",
    );
    let off = with("[[listen]]", "[admin]\naddress = \"off\"\n[[listen]]").replace("18080", "9900");
    assert!(
        config::parse("test.toml", &off)
            .unwrap()
            .config
            .admin
            .address
            .is_none()
    );
}

#[test]
fn the_instance() {
    line(
        "[[listen]]",
        "workers = 0",
        "2:11 `workers` must be from 1 to 1024, not 0",
    );
    line(
        "[[listen]]",
        "workers = \"2\"",
        "`workers` is a number, without quotes | write it as 2",
    );
    line(
        "[[listen]]",
        "workers = \"two\"",
        "`two` is not a whole number",
    );
    line(
        "[[listen]]",
        "state_dir = \"\"",
        "`state_dir` is not a path",
    );
    line(
        "[[listen]]",
        "headers = { via = \"a b\" }",
        "`a b` cannot stand in a `Via` header",
    );
    line(
        "[[listen]]",
        "headers = { expose = 1 }",
        "`expose` cannot be the integer `1` | write a boolean",
    );
    line(
        "[[listen]]",
        "shutdown = { drain = \"8d\" }",
        "`8d` is not a duration",
    );
    line(
        "[[listen]]",
        "shutdown = { drain = \"200h\" }",
        "`drain` must be from 0s to 168h",
    );
}

#[test]
fn limits() {
    let limits =
        |keys: &str, expected| line("[[listen]]", &format!("limits = {{ {keys} }}"), expected);
    limits(
        "header = \"8191B\"",
        "2:21 `header` must be from 8KiB to 1MiB | write a size such as \"60KiB\"",
    );
    limits("header = \"60\"", "a size in quotes needs its unit");
    limits(
        "header = \"60k\"",
        "`k` is not a unit of size | write it as \"60KiB\"",
    );
    limits("header = -1", "`-1` is not a size");
    limits(
        "connections = 0",
        "`connections` must be from 1 to 10000000, not 0",
    );
    limits(
        "header_count = 0",
        "`header_count` must be from 1 to 10000, not 0",
    );
    limits(
        "header_timeout = \"0s\"",
        "`header_timeout` cannot be zero | write a duration such as \"1m\"",
    );
    limits(
        "header_size = 1",
        "`header_size` is not known here | did you mean `header`?",
    );
}

#[test]
fn the_place_of_this_instance() {
    line(
        "[[listen]]",
        "self = \"local\"",
        "2:8 `local` is not a region and a zone",
    );
    line(
        "[[listen]]",
        "self = \"remote/a\"",
        "2:8 no pool has an endpoint in the region remote",
    );
    line(
        "[[listen]]",
        "self = \"lcoal/a\"",
        "| did you mean `local/a`?",
    );
    line(
        "[[listen]]",
        "self = \"local/b\"",
        "no pool has an endpoint in the zone local/b",
    );
    let other_zone = with("[[listen]]", "self = \"local/b\"\n[[listen]]");
    assert!(
        config::parse("test.toml", &other_zone).is_ok(),
        "another zone is only a warning"
    );
}

#[test]
fn routes_and_their_pools() {
    one(
        &with("pool = \"web\"", "pool = \"wbe\""),
        "6:8 there is no pool `wbe` | did you mean `web`?",
    );
    one(
        &with("pool = \"web\"", "pool = \"x\""),
        "there is no pool `x` | the pools are `web`",
    );
    one(
        &with("pool = \"web\"", "path = \"/\""),
        "5:1 a route needs a pool",
    );
    one(
        "[[listen]]\naddress = \"127.0.0.1:1\"\n[[route]]\npool = \"x\"",
        "| add `[pool.x]`",
    );
    let twice = with("[[route]]", "[[route]]\npool = \"web\"\n[[route]]");
    one(&twice, "7:1 an earlier route matches */ already");
    let cased =
        "host = \"A.b\"\npath = \"/x\"\n[[route]]\npool = \"web\"\nhost = \"a.B\"\npath = \"/x\"";
    route(cased, "12:8 an earlier route matches a.b/x already");
    let names = "name = \"n\"\n[[route]]\npool = \"web\"\npath = \"/x\"\nname = \"n\"";
    route(names, "11:8 there is already a route `n`");
    route("name = \"a/b\"", "`a/b` cannot name a route");
}

#[test]
fn hosts_and_paths() {
    route(
        "host = \"a.b:80\"",
        "7:8 a route's host is matched without its port | write it as \"a.b\"",
    );
    route("host = \"*.b\"", "without wildcards");
    route("host = \"a b\"", "`a b` is not a host name");
    route(
        "path = \"v1\"",
        "7:8 the path `v1` does not begin with `/` | write it as \"/v1\"",
    );
    route(
        "path = \"/v1?x\"",
        "without query or fragment | write it as \"/v1\"",
    );
    route(
        "path = \"/v1#x\"",
        "without query or fragment | write it as \"/v1\"",
    );
    for path in [
        "//",
        "/a//b",
        "/a/../b",
        "/./a",
        "/a/..",
        "/%2e%2e/a",
        "/a%2Fb",
    ] {
        route(&format!("path = \"{path}\""), "is not normalised");
    }
    route("path = \"/a b\"", "cannot stand in a request line");
    for path in ["/", "/v1", "/v1/", "/a.b/..c"] {
        assert_eq!(
            found(&with("pool =", &format!("path = \"{path}\"\npool ="))),
            [""; 0],
            "{path}"
        );
    }
}

#[test]
fn retries_timeouts_and_bodies() {
    route(
        "retry = { attempts = 0 }",
        "7:22 `attempts` must be from 1 to 10, not 0",
    );
    route(
        "retry = { buffer = \"65MiB\" }",
        "`buffer` must be from 0B to 64MiB",
    );
    route(
        "retry = { budget_percent = 101 }",
        "`budget_percent` must be from 0 to 100, not 101",
    );
    route(
        "retry = { budget_floor = -1 }",
        "`budget_floor` must be from 0 to 100000, not -1",
    );
    route("timeouts = { idle = \"0s\" }", "7:21 `idle` cannot be zero");
    route(
        "timeouts = { idle = \"-1s\" }",
        "a duration cannot be negative | write it as \"1s\"",
    );
    route(
        "timeouts = { idle = \"1us\" }",
        "`idle` must be from 1ms to 168h",
    );
    route(
        "timeouts = { connect = \"2s\", response = \"1s\" }",
        "7:24 `connect` (2s) is longer than `response` (1s) | set `connect` to \"1s\" or less",
    );
    route(
        "timeouts = { response = \"500ms\" }",
        "7:25 `connect` (1s, the default) is longer than `response` (500ms)",
    );
    route(
        "limits = { body = 0 }",
        "`body` cannot be zero | leave it away for no limit",
    );
}

#[test]
fn the_detection_window() {
    let detect = |keys: &str, expected| pool(&format!("detect = {{ {keys} }}"), expected);
    detect(
        "interval = 500",
        "a duration needs its unit | write it as \"500ms\" or \"500s\"",
    );
    detect(
        "interval = \"0s\"",
        "`interval` cannot be zero | write a duration such as \"1s\"",
    );
    detect(
        "intervall = \"1s\"",
        "`intervall` is not known here | did you mean `interval`?",
    );
    detect(
        "down_after = 0",
        "`down_after` must be from 1 to 1000, not 0",
    );
    detect("up_after = 0", "`up_after` must be from 1 to 1000, not 0");
    detect(
        "interval = \"200ms\"",
        "`timeout` (500ms, the default) is longer than `interval` (200ms) | set `timeout` to \"200ms\"",
    );
    detect(
        "interval = \"2s\", timeout = \"2s\"",
        "longer than `down_interval` (1s, the default)",
    );
    detect(
        "fast_interval = \"2s\"",
        "`fast_interval` (2s) is longer than `interval` (1s, the default)",
    );
    detect(
        "interval = 1, timeout = \"1s\"",
        "a duration needs its unit",
    );
    pool("late_after = \"0ms\"", "`late_after` cannot be zero");
    pool(
        "optimistic = \"yes\"",
        "`optimistic` cannot be the string \"yes\"",
    );
}

#[test]
fn pools_zones_and_endpoints() {
    one(
        &with("[[pool.web.zone]]\nname = \"local/a\"\nendpoints =", "x ="),
        "10:1 `x` is not known",
    );
    one(
        GOOD.split("[[pool").next().unwrap(),
        "8:1 the pool `web` has no zone | add `[[pool.web.zone]]`",
    );
    one(
        &GOOD
            .replace("web", "\\\"w b\\\"")
            .replace("\"\\\"w b\\\"\"", "\"w b\"")
            .replace("\\", ""),
        "8:7 `w b` cannot name a pool",
    );
    one(&with("name = \"local/a\"", ""), "11:1 a zone needs a name");
    one(
        &with("local/a", "local"),
        "12:8 `local` is not a region and a zone",
    );
    let twice =
        format!("{GOOD}[[pool.web.zone]]\nname = \"local/a\"\nendpoints = [\"127.0.0.1:1\"]");
    one(&twice, "15:8 this pool already has the zone local/a");
    endpoints("[]", "11:1 the zone has no endpoint");
    endpoints(
        "[\"127.0.0.1:0\"]",
        "13:14 nothing can be reached at port 0",
    );
    endpoints("[\"0.0.0.0:80\"]", "0.0.0.0 stands for every address");
    endpoints(
        "[\"db:80\"]",
        "`db` is a host name, and an ip:port is needed",
    );
    endpoints(
        "[80]",
        "13:14 `endpoints` cannot be the integer `80` | write an address",
    );
    endpoints("\"1.2.3.4:5\"", "`endpoints` cannot be the string");
    endpoints(
        "[{ address = \"1.2.3.4:5\", weight = 0 }]",
        "13:48 `weight` must be from 1 to 1000, not 0",
    );
    endpoints("[{ address = \"1.2.3.4:5\", weight = 1001 }]", "not 1001");
    endpoints("[{ weight = 1 }]", "13:14 an endpoint needs an address");
    endpoints(
        "[{ adress = \"1.2.3.4:5\" }]",
        "13:16 `adress` is not known here | did you mean `address`?",
    );
    pool(
        "limits = { idle_connections = -1 }",
        "`idle_connections` must be from 0 to 100000, not -1",
    );
    pool(
        "limits = { response_head = 1024 }",
        "`response_head` must be from 8KiB to 1MiB",
    );
    pool(
        "limits = { idle_timeout = \"0s\" }",
        "`idle_timeout` cannot be zero",
    );
}

#[test]
fn an_endpoint_given_twice_is_shown_at_both_places() {
    let text =
        format!("{GOOD}[[pool.web.zone]]\nname = \"local/b\"\nendpoints = [\"127.0.0.1:18081\"]");
    one(
        &text,
        "16:14 this pool already has the endpoint 127.0.0.1:18081",
    );
    let report = config::parse("test.toml", &text).unwrap_err();
    let first = &report.diagnostics[0].also[0];
    assert_eq!(
        (first.at.line, first.at.column, first.label.as_str()),
        (13, 14, "first here")
    );
    assert!(report.render(false).contains("test.toml:13:14"), "{report}");
}

#[test]
fn probes() {
    probe("{}", "9:9 the probe does not say what to ask");
    probe(
        "{ http = \"/\", tcp = true }",
        "9:29 a probe is either `http` or `tcp`, not both",
    );
    probe("{ tcp = false }", "9:17 `tcp = false` asks for nothing");
    probe(
        "\"tcp\"",
        "`probe` cannot be the string \"tcp\" | write a table such as { http =",
    );
    probe(
        "{ tcp = true, host = \"a\" }",
        "9:30 `host` has no meaning with `tcp`",
    );
    probe(
        "{ tcp = true, port = 0 }",
        "`port` must be from 1 to 65535, not 0",
    );
    probe(
        "{ http = \"healthz\" }",
        "does not begin with `/` | write it as \"/healthz\"",
    );
    probe(
        "{ http = \"http://a/b\" }",
        "`http://a/b` is a URL, not a path",
    );
    probe("{ http = \"/a b\" }", "cannot stand in a request line");
    probe("{ http = \"/a#b\" }", "a `#` is never sent");
    probe(
        "{ http = \"/\", method = \"get\" }",
        "methods are in capitals | write it as \"GET\"",
    );
    probe(
        "{ http = \"/\", method = \"CONNECT\" }",
        "`CONNECT` is not a method to probe with",
    );
    probe(
        "{ http = \"/\", host = \"a b\" }",
        "`a b` cannot be a Host header",
    );
    probe(
        "{ http = \"/\", host = \"u@b\" }",
        "`u@b` cannot be a Host header",
    );
    probe(
        "{ http = \"/\", expect_status = \"2xx\" }",
        "9:39 `2xx` is not an HTTP status",
    );
    probe(
        "{ http = \"/\", expect_status = 99 }",
        "`99` is not an HTTP status",
    );
    probe(
        "{ http = \"/\", expect_status = \"299-200\" }",
        "the range 299-200 is empty",
    );
    probe(
        "{ http = \"/\", expect_status = [200] }",
        "cannot be a list | write statuses such as",
    );
    probe(
        "{ http = \"/\", expect_body = \"\" }",
        "every body contains the empty text",
    );
    probe(
        "{ http = \"/\", method = \"HEAD\", expect_body = \"x\" }",
        "the answer to a HEAD has no body",
    );
}

#[test]
fn probe_headers() {
    let headers = |headers: &str, expected| {
        probe(
            &format!("{{ http = \"/\", headers = {{ {headers} }} }}"),
            expected,
        );
    };
    headers(
        "Host = \"a\"",
        "9:37 a probe sets `host` itself | use the probe's `host` key",
    );
    headers(
        "Content-Length = \"1\"",
        "a probe sets `content-length` itself",
    );
    headers(
        "transfer-encoding = \"chunked\"",
        "a probe sets `transfer-encoding` itself",
    );
    headers("connection = \"close\"", "a probe sets `connection` itself");
    headers("\"a b\" = \"x\"", "`a b` is not a header name");
    headers(
        "a = \"x\\ny\"",
        "9:41 the value of `a` cannot stand in a header",
    );
    headers("a = \"x\", A = \"y\"", "the header `a` is given twice");
    let many: Vec<String> = (0..65).map(|i| format!("h{i} = \"x\"")).collect();
    headers(&many.join(", "), "a probe has at most 64 headers, not 65");
}

#[test]
fn brackets_that_are_too_few_or_too_many() {
    one(
        &with("[[route]]", "[route]"),
        "5:1 `route` is a list, not a table | write its header with two",
    );
    one(
        &with("[pool.web]", "[[pool.web]]"),
        "8:1 `web` cannot be a list | write a table",
    );
}
