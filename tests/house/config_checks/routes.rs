//! Checks of routes.

use super::{
    assert_line_diagnostic, assert_one_diagnostic, assert_route_diagnostic, diagnostics_of,
    valid_config_with,
};

#[test]
fn unknown_pools_and_duplicate_routes_are_reported() {
    assert_one_diagnostic(
        &valid_config_with("pool = \"web\"", "pool = \"wbe\""),
        "6:8 there is no pool `wbe` | did you mean `web`?",
    );
    assert_one_diagnostic(
        &valid_config_with("pool = \"web\"", "pool = \"x\""),
        "there is no pool `x` | the pools are `web`",
    );
    assert_one_diagnostic(
        &valid_config_with("pool = \"web\"", "path = \"/\""),
        "5:1 a route needs a pool",
    );
    assert_one_diagnostic(
        "[[listen]]\naddress = \"127.0.0.1:1\"\n[[route]]\npool = \"x\"",
        "| add `[pool.x]`",
    );
    let twice = valid_config_with("[[route]]", "[[route]]\npool = \"web\"\n[[route]]");
    assert_one_diagnostic(&twice, "7:1 an earlier route matches */ already");
    let cased =
        "host = \"A.b\"\npath = \"/x\"\n[[route]]\npool = \"web\"\nhost = \"a.B\"\npath = \"/x\"";
    assert_route_diagnostic(cased, "12:8 an earlier route matches a.b/x already");
    let names = "name = \"n\"\n[[route]]\npool = \"web\"\npath = \"/x\"\nname = \"n\"";
    assert_route_diagnostic(names, "11:8 there is already a route `n`");
    assert_route_diagnostic("name = \"a/b\"", "`a/b` cannot name a route");
}

#[test]
fn invalid_route_hosts_and_paths_are_reported() {
    assert_route_diagnostic(
        "host = \"a.b:80\"",
        "7:8 a route's host is matched without its port | write it as \"a.b\"",
    );
    assert_route_diagnostic("host = \"a*.b\"", "the `*` in `a*.b` does not stand for all labels");
    assert_route_diagnostic("host = \"*\"", "remove `host` to match all");
    assert_route_diagnostic("host = \"*.10.0.0.1\"", "an address has no subdomains: 10.0.0.1");
    assert_route_diagnostic("host = \"a b\"", "`a b` is not a host name");
    assert_route_diagnostic(
        "path = \"v1\"",
        "7:8 the path `v1` does not begin with `/` | write it as \"/v1\"",
    );
    assert_route_diagnostic("path = \"/v1?x\"", "without query or fragment | write it as \"/v1\"");
    assert_route_diagnostic("path = \"/v1#x\"", "without query or fragment | write it as \"/v1\"");
    for path in ["//", "/a//b", "/a/../b", "/./a", "/a/..", "/%2e%2e/a", "/a%2fb", "/%41", "/a%00"]
    {
        assert_route_diagnostic(&format!("path = \"{path}\""), "is not normalised");
    }
    assert_route_diagnostic("path = \"/a b\"", "cannot stand in a request line");
    for path in ["/", "/v1", "/v1/", "/a.b/..c", "/a%2Fb", "/%C3%A9"] {
        assert_eq!(
            diagnostics_of(&valid_config_with("pool =", &format!("path = \"{path}\"\npool ="))),
            [""; 0],
            "{path}"
        );
    }
}

#[test]
fn invalid_retries_timeouts_and_body_limits_are_reported() {
    assert_route_diagnostic(
        "retry = { attempts = 0 }",
        "7:22 `attempts` must be from 1 to 10, not 0",
    );
    assert_route_diagnostic("retry = { buffer = \"65MiB\" }", "`buffer` must be from 0B to 64MiB");
    assert_route_diagnostic(
        "retry = { budget_percent = 101 }",
        "`budget_percent` must be from 0 to 100, not 101",
    );
    assert_route_diagnostic(
        "retry = { budget_floor = -1 }",
        "`budget_floor` must be from 0 to 100000, not -1",
    );
    assert_route_diagnostic("timeouts = { idle = \"0s\" }", "7:21 `idle` cannot be zero");
    assert_route_diagnostic(
        "timeouts = { idle = \"-1s\" }",
        "a duration cannot be negative | write it as \"1s\"",
    );
    assert_route_diagnostic("timeouts = { idle = \"1us\" }", "`idle` must be from 1ms to 168h");
    assert_route_diagnostic(
        "timeouts = { connect = \"2s\", response = \"1s\" }",
        "7:24 `connect` (2s) is longer than `response` (1s) | set `connect` to \"1s\" or less",
    );
    assert_route_diagnostic(
        "timeouts = { response = \"500ms\" }",
        "7:25 `connect` (1s, the default) is longer than `response` (500ms)",
    );
    assert_route_diagnostic(
        "limits = { body = 0 }",
        "`body` cannot be zero | remove it for no limit",
    );
}

#[test]
fn invalid_retry_statuses_are_reported() {
    let assert_statuses_diagnostic = |statuses: &str, expected: &str| {
        assert_route_diagnostic(&format!("retry = {{ statuses = {statuses} }}"), expected);
    };
    let help = "write statuses from 500 to 599, such as \"500,502-504\", or \"none\"";
    assert_statuses_diagnostic("\"404\"", &format!("404 is not a server error | {help}"));
    assert_statuses_diagnostic("\"500-600\"", &format!("`600` is not an HTTP status | {help}"));
    assert_statuses_diagnostic("\"499-503\"", &format!("499 is not a server error | {help}"));
    assert_statuses_diagnostic("\"503-500\"", "the range 503-500 is empty");
    assert_statuses_diagnostic("\"off\"", &format!("`off` is not an HTTP status | {help}"));
    assert_statuses_diagnostic("[503]", "`statuses` cannot be a list");
}

#[test]
fn valid_retry_statuses_are_accepted() {
    for good in ["\"none\"", "\"\"", "503", "\"500, 502-504\""] {
        let keys = format!("pool = \"web\"\nretry = {{ statuses = {good} }}");
        assert_eq!(diagnostics_of(&valid_config_with("pool = \"web\"", &keys)), [""; 0], "{good}");
    }
}

#[test]
fn total_timeout_accepts_unlimited_but_not_zero() {
    for good in ["500ms", "unlimited"] {
        let keys = format!("pool = \"web\"\ntimeouts = {{ total = \"{good}\" }}");
        assert_eq!(diagnostics_of(&valid_config_with("pool = \"web\"", &keys)), [""; 0], "{good}");
    }
    assert_route_diagnostic(
        "timeouts = { total = \"0s\" }",
        "7:22 `total` cannot be zero | write a duration such as \"30s\"",
    );
}

const SPARE_POOL: &str = "[[pool.spare.zone]]\nname = \"local/a\"\nendpoints = [\"127.0.0.1:1\"]\n";

/// The valid file with these lines in place of the route's pool.
#[track_caller]
fn assert_action_diagnostic(keys: &str, expected: &str) {
    assert_one_diagnostic(&valid_config_with("pool = \"web\"", keys), expected);
}

/// Such a file, which must be valid.
#[track_caller]
fn assert_route_accepted(keys: &str) {
    let keys = format!("pool = \"web\"\n{keys}");
    assert_eq!(diagnostics_of(&valid_config_with("pool = \"web\"", &keys)), [""; 0], "{keys}");
}

#[test]
fn invalid_route_conditions_are_reported() {
    let both = "path = \"/a\"\npath_regex = \"/a\"";
    assert_route_diagnostic(
        both,
        "8:14 a route has either `path` or `path_regex`, not both | make two routes of it",
    );
    assert_route_diagnostic(
        "path_exact = \"a\"",
        "7:14 the path `a` does not begin with `/` | write it as \"/a\"",
    );
    assert_route_diagnostic("path_exact = \"/a/./b\"", "is not normalised | write it as \"/a/b\"");
    assert_route_diagnostic(
        "path_regex = \"/a(\"",
        "7:14 `/a(` is not a regular expression: unclosed group",
    );
    let long = format!("path_regex = \"/{}\"", "a".repeat(1_100));
    assert_route_diagnostic(&long, "is not a regular expression: it is longer than 1024 bytes");
    assert_route_diagnostic("path_regex = \"/(a{1000}){1000}\"", "is not a regular expression: ");
    assert_route_diagnostic("methods = []", "7:11 `methods` has from 1 to 64 of them");
    assert_route_diagnostic(
        "methods = [\"get\"]",
        "7:12 methods are in capitals | write it as \"GET\"",
    );
    assert_route_diagnostic("methods = [\"GET\", \"GET\"]", "7:19 the method GET is given twice");
    assert_route_diagnostic("methods = [\"CONNECT\"]", "CONNECT is never routed");
    assert_route_diagnostic("methods = [\"A B\"]", "`A B` is not a method");
    assert_route_diagnostic("headers = { \"a b\" = \"1\" }", "7:13 `a b` is not a header name");
    assert_route_diagnostic(
        "headers = { Host = \"a\" }",
        "`host` is no header here | use the route's `host` key",
    );
    assert_route_diagnostic(
        "headers = { x-a = \"1\", X-A = \"2\" }",
        "7:24 the header `x-a` is given twice",
    );
    assert_route_diagnostic(
        "headers = { x-a = { present = false } }",
        "7:31 `present = false` has no effect",
    );
    assert_route_diagnostic(
        "headers = { x-a = { present = true, prefix = \"a\" } }",
        "7:19 a value has one test",
    );
    assert_route_diagnostic("headers = { x-a = {} }", "7:19 the table has no test of the value");
    assert_route_diagnostic(
        "headers = { x-a = { regex = \"(\" } }",
        "7:29 `(` is not a regular expression",
    );
    assert_route_diagnostic(
        "headers = { x-a = { prefx = \"a\" } }",
        "`prefx` is not known here | did you mean",
    );
    assert_route_diagnostic(
        "headers = { x-a = 1 }",
        "`x-a` cannot be the integer `1` | write a text, or a table",
    );
    assert_route_diagnostic("query = { \"\" = \"1\" }", "7:11 a parameter without a name");
    assert_route_accepted(
        "methods = [\"PURGE\"]\nheaders = { x-a = { absent = true } }\nquery = { a = \"\" }",
    );
    assert_route_accepted("host = \"*.b.c\"\npath_regex = '/a/\\d+'");
}

#[test]
fn routes_with_equal_conditions_are_duplicates() {
    let with_second_route =
        |first: &str, second: &str| format!("{first}\n[[route]]\npool = \"web\"\n{second}");
    let same = with_second_route(
        "methods = [\"GET\", \"PUT\"]\nheaders = { x-a = \"1\", x-b = \"2\" }",
        "headers = { x-b = \"2\", X-A = \"1\" }\nmethods = [\"PUT\", \"GET\"]",
    );
    assert_route_diagnostic(
        &same,
        "9:1 an earlier route matches */ already, under the same conditions",
    );
    assert_route_accepted(&with_second_route("", "methods = [\"GET\"]"));
    assert_route_accepted(&with_second_route(
        "headers = { x-a = \"1\" }",
        "headers = { x-a = \"2\" }",
    ));
    assert_route_accepted(&with_second_route("path_exact = \"/a\"", "path = \"/a\""));
    assert_route_diagnostic(
        &with_second_route("path_regex = \"/a\"", "path_regex = \"/a\""),
        "matches *~/a already",
    );
}

#[test]
fn invalid_route_actions_are_reported() {
    assert_action_diagnostic(
        "path = \"/\"",
        "5:1 a route needs a pool, a redirect or a response | add `pool = \"…\"`",
    );
    let both = "pool = \"web\"\nrespond = {}";
    assert_action_diagnostic(both, "7:11 a route has either `pool` or `respond`, not both");
    assert_action_diagnostic("pools = []", "6:9 `pools` has from 1 to 64 of them, not 0");
    assert_action_diagnostic(
        "pools = [{ pool = \"wbe\" }]",
        "6:19 there is no pool `wbe` | did you mean `web`?",
    );
    assert_action_diagnostic("pools = [{ weight = 1 }]", "6:10 a share needs its pool");
    let twice = "pools = [{ pool = \"web\" }, { pool = \"web\" }]";
    assert_action_diagnostic(twice, "the pool `web` is given twice | add up its weights");
    assert_action_diagnostic(
        "pools = [{ pool = \"web\", weight = 0 }]",
        "6:9 no pool has a weight",
    );
    let heavy = "pools = [{ pool = \"web\", weight = 1001 }]";
    assert_action_diagnostic(heavy, "`weight` must be from 0 to 1000, not 1001");
    assert_action_diagnostic(
        "respond = { status = 199 }",
        "`status` must be from 200 to 599, not 199",
    );
    assert_action_diagnostic(
        "respond = { status = 204, body = \"x\" }",
        "a response with the status 204 has no body",
    );
    let long = format!("respond = {{ body = \"{}\" }}", "x".repeat(65_537));
    assert_action_diagnostic(&long, "`body` is longer than 64KiB");
    assert_action_diagnostic("respond = { content_type = \"html\" }", "`html` is not a media type");
    for key in ["rewrite = {}", "mirror = {}", "retry = {}", "timeouts = {}", "limits = {}"] {
        let name = key.split(' ').next().unwrap();
        let expected = format!("7:{} `{name}` has no meaning with `respond`", name.len() + 4);
        assert_action_diagnostic(&format!("respond = {{}}\n{key}"), &expected);
    }
}

#[test]
fn invalid_redirects_and_rewrites_are_reported() {
    let assert_redirect_diagnostic = |keys: &str, expected: &str| {
        assert_action_diagnostic(&format!("redirect = {{ {keys} }}"), expected);
    };
    assert_redirect_diagnostic(
        "status = 301",
        "6:12 the redirect leads to the same URL | add one of",
    );
    assert_redirect_diagnostic(
        "to_https = true, status = 300",
        "`status` is not that of a redirect",
    );
    assert_redirect_diagnostic("host = \"a b\"", "`a b` cannot be a Host header");
    assert_redirect_diagnostic("path = \"https://x/\"", "`https://x/` is a URL, not a path");
    assert_redirect_diagnostic("path = \"//x\"", "`//x` cannot stand in a Location");
    assert_redirect_diagnostic("path = \"x\"", "the path `x` does not begin with `/`");
    assert_redirect_diagnostic(
        "path = \"/a\", strip_prefix = \"/b\"",
        "`strip_prefix` beside another new path",
    );
    assert_redirect_diagnostic(
        "strip_prefix = \"b\"",
        "the path `b` does not begin with `/` | write it as \"/b\"",
    );
    assert_route_diagnostic(
        "rewrite = { prefix = \"v2\" }",
        "7:22 the path `v2` does not begin with `/`",
    );
    let regex = "path_regex = \"/a\"\nrewrite = { prefix = \"/b\" }";
    assert_route_diagnostic(regex, "`prefix` takes the place of `path`, and the route has none");
    assert_route_diagnostic("rewrite = { regex = \"a\" }", "7:21 `regex` needs its `to`");
    assert_route_diagnostic("rewrite = { to = \"a\" }", "7:18 `to` needs its `regex`");
    assert_route_diagnostic(
        "rewrite = { regex = \"(\", to = \"a\" }",
        "`(` is not a regular expression",
    );
    assert_route_diagnostic(
        "rewrite = { regex = \"(a)\", to = \"$1b\" }",
        "`(a)` has no group `1b` | count its brackets",
    );
    assert_route_diagnostic(
        "rewrite = { regex = \"a\", to = \"/?\" }",
        "`/?` cannot stand in a path",
    );
    let both = "rewrite = { prefix = \"/\", regex = \"a\", to = \"b\" }";
    assert_route_diagnostic(both, "`regex` beside `prefix` | remove one of them");
    assert_route_accepted(
        "rewrite = { regex = \"(a)\", to = \"/${1}b\", host = \"web.internal:80\" }",
    );
}

#[test]
fn protected_header_changes_are_rejected() {
    let assert_request_headers_diagnostic = |keys: &str, expected: &str| {
        assert_route_diagnostic(&format!("request_headers = {{ {keys} }}"), expected);
    };
    assert_request_headers_diagnostic(
        "set = { Content-Length = \"1\" }",
        "7:29 a route cannot change `content-length`",
    );
    assert_request_headers_diagnostic(
        "add = { connection = \"x\" }",
        "remove it: it concerns one connection only",
    );
    assert_request_headers_diagnostic("remove = [\"te\"]", "7:31 a route cannot change `te`");
    assert_request_headers_diagnostic(
        "set = { host = \"a\" }",
        "| use `rewrite = { host = \"…\" }`",
    );
    assert_request_headers_diagnostic(
        "set = { x-forwarded-for = \"a\" }",
        "the proxy writes it for every endpoint",
    );
    assert_request_headers_diagnostic("set = { \"a b\" = \"a\" }", "`a b` is not a header name");
    assert_request_headers_diagnostic(
        "set = { x-a = \"a\\nb\" }",
        "the value of `x-a` cannot stand in a header",
    );
    assert_request_headers_diagnostic(
        "set = { x-a = \"1\", X-A = \"2\" }",
        "the header `x-a` is given twice",
    );
    let assert_response_headers_diagnostic = |keys: &str, expected: &str| {
        assert_route_diagnostic(&format!("response_headers = {{ {keys} }}"), expected);
    };
    assert_response_headers_diagnostic(
        "add = { transfer-encoding = \"x\" }",
        "it delimits the message",
    );
    assert_response_headers_diagnostic(
        "set = { x-gapless-reason = \"x\" }",
        "remove it: the proxy sets it",
    );
    assert_route_diagnostic(
        "hsts = \"includeSubDomains\"",
        "`includeSubDomains` has no `max-age` in seconds",
    );
    assert_route_accepted(
        "hsts = \"max-age=1; preload\"\nresponse_headers = { remove = [\"server\", \"host\"] }",
    );
}

#[test]
fn invalid_mirrors_and_fallbacks_are_reported() {
    assert_route_diagnostic("mirror = {}", "7:10 a mirror needs its pool | add `pool = \"…\"`");
    assert_route_diagnostic(
        "mirror = { pool = \"wbe\" }",
        "7:19 there is no pool `wbe` | did you mean `web`?",
    );
    assert_route_diagnostic(
        "mirror = { pool = \"web\" }",
        "`web` is the route's own pool: it would execute each copied request",
    );
    let zero_percent = "pool = \"web\"\nmirror = { pool = \"spare\", percent = 0 }";
    let zero_percent_config =
        format!("{}\n{SPARE_POOL}", valid_config_with("pool = \"web\"", zero_percent));
    assert_one_diagnostic(&zero_percent_config, "`percent` must be from 1 to 100, not 0");
    assert_route_diagnostic(
        "fallback = {}",
        "7:12 the fallback has no response | add one of `pool`",
    );
    assert_route_diagnostic(
        "fallback = { pool = \"web\" }",
        "`web` is the route's own pool: it has failed already",
    );
    let both = "fallback = { pool = \"web\", file = \"x\" }";
    assert!(
        diagnostics_of(&valid_config_with("pool = \"web\"", &format!("pool = \"web\"\n{both}")))
            .iter()
            .any(|found| found.contains("a fallback is either `pool` or `file`, not both"))
    );
    assert_route_diagnostic(
        "fallback = { file = \"no-such-file.html\" }",
        "7:21 cannot read `no-such-file.html`",
    );
    assert_route_accepted("fallback = { respond = { body = \"x\" } }");
}

#[test]
fn pool_of_mirror_fallback_or_split_counts_as_used() {
    for key in [
        "mirror = { pool = \"spare\" }",
        "fallback = { pool = \"spare\" }",
        "[[route]]\npath = \"/x\"\npools = [{ pool = \"spare\" }]",
    ] {
        let text = valid_config_with("pool = \"web\"", &format!("pool = \"web\"\n{key}"));
        assert_eq!(diagnostics_of(&format!("{text}\n{SPARE_POOL}")), [""; 0], "{key}");
    }
}

#[test]
fn invalid_path_and_underscore_policies_are_reported() {
    let slash = "paths = { encoded_slash = \"keeep\" }";
    assert_line_diagnostic("[[listen]]", slash, "| write \"keep\", \"reject\" or \"decode\"");
    let underscores = "headers = { underscores = \"no\" }";
    assert_line_diagnostic("[[listen]]", underscores, "| write \"reject\", \"drop\" or \"allow\"");
    let reject =
        valid_config_with("[[listen]]", "paths = { encoded_slash = \"reject\" }\n[[listen]]");
    let reject = reject.replacen("pool =", "path = \"/a%2Fb\"\npool =", 1);
    assert_one_diagnostic(
        &reject,
        "the path `/a%2Fb` is not normalised | no request has such a path",
    );
}
