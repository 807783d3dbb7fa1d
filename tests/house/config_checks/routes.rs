//! Routes.

use super::{found, line, one, route, with};

#[test]
fn routes_and_their_pools() {
    one(
        &with("pool = \"web\"", "pool = \"wbe\""),
        "6:8 there is no pool `wbe` | did you mean `web`?",
    );
    one(&with("pool = \"web\"", "pool = \"x\""), "there is no pool `x` | the pools are `web`");
    one(&with("pool = \"web\"", "path = \"/\""), "5:1 a route needs a pool");
    one("[[listen]]\naddress = \"127.0.0.1:1\"\n[[route]]\npool = \"x\"", "| add `[pool.x]`");
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
    route("host = \"a*.b\"", "the `*` in `a*.b` does not stand for all labels");
    route("host = \"*\"", "leave `host` away to match all");
    route("host = \"*.10.0.0.1\"", "nothing is below the address 10.0.0.1");
    route("host = \"a b\"", "`a b` is not a host name");
    route("path = \"v1\"", "7:8 the path `v1` does not begin with `/` | write it as \"/v1\"");
    route("path = \"/v1?x\"", "without query or fragment | write it as \"/v1\"");
    route("path = \"/v1#x\"", "without query or fragment | write it as \"/v1\"");
    for path in ["//", "/a//b", "/a/../b", "/./a", "/a/..", "/%2e%2e/a", "/a%2fb", "/%41", "/a%00"]
    {
        route(&format!("path = \"{path}\""), "is not normalised");
    }
    route("path = \"/a b\"", "cannot stand in a request line");
    for path in ["/", "/v1", "/v1/", "/a.b/..c", "/a%2Fb", "/%C3%A9"] {
        assert_eq!(
            found(&with("pool =", &format!("path = \"{path}\"\npool ="))),
            [""; 0],
            "{path}"
        );
    }
}

#[test]
fn retries_timeouts_and_bodies() {
    route("retry = { attempts = 0 }", "7:22 `attempts` must be from 1 to 10, not 0");
    route("retry = { buffer = \"65MiB\" }", "`buffer` must be from 0B to 64MiB");
    route("retry = { budget_percent = 101 }", "`budget_percent` must be from 0 to 100, not 101");
    route("retry = { budget_floor = -1 }", "`budget_floor` must be from 0 to 100000, not -1");
    route("timeouts = { idle = \"0s\" }", "7:21 `idle` cannot be zero");
    route("timeouts = { idle = \"-1s\" }", "a duration cannot be negative | write it as \"1s\"");
    route("timeouts = { idle = \"1us\" }", "`idle` must be from 1ms to 168h");
    route(
        "timeouts = { connect = \"2s\", response = \"1s\" }",
        "7:24 `connect` (2s) is longer than `response` (1s) | set `connect` to \"1s\" or less",
    );
    route(
        "timeouts = { response = \"500ms\" }",
        "7:25 `connect` (1s, the default) is longer than `response` (500ms)",
    );
    route("limits = { body = 0 }", "`body` cannot be zero | leave it away for no limit");
}

#[test]
fn statuses_to_send_again_for() {
    let retry = |statuses: &str, expected: &str| {
        route(&format!("retry = {{ statuses = {statuses} }}"), expected);
    };
    let mend = "write statuses from 500 to 599, such as \"500,502-504\", or \"none\"";
    retry("\"404\"", &format!("404 is not a server error | {mend}"));
    retry("\"500-600\"", &format!("`600` is not an HTTP status | {mend}"));
    retry("\"499-503\"", &format!("499 is not a server error | {mend}"));
    retry("\"503-500\"", "the range 503-500 is empty");
    retry("\"off\"", &format!("`off` is not an HTTP status | {mend}"));
    retry("[503]", "`statuses` cannot be a list");
}

#[test]
fn statuses_that_can_be_used() {
    for good in ["\"none\"", "\"\"", "503", "\"500, 502-504\""] {
        let keys = format!("pool = \"web\"\nretry = {{ statuses = {good} }}");
        assert_eq!(found(&with("pool = \"web\"", &keys)), [""; 0], "{good}");
    }
}

#[test]
fn how_long_all_tries_may_take() {
    for good in ["500ms", "unlimited"] {
        let keys = format!("pool = \"web\"\ntimeouts = {{ total = \"{good}\" }}");
        assert_eq!(found(&with("pool = \"web\"", &keys)), [""; 0], "{good}");
    }
    route(
        "timeouts = { total = \"0s\" }",
        "7:22 `total` cannot be zero | write a duration such as \"30s\"",
    );
}

/// One more pool.
const SPARE: &str = "[[pool.spare.zone]]\nname = \"local/a\"\nendpoints = [\"127.0.0.1:1\"]\n";

/// The good file with these lines in place of the route's pool.
#[track_caller]
fn answer(keys: &str, expected: &str) {
    one(&with("pool = \"web\"", keys), expected);
}

/// Such a file, which is good.
#[track_caller]
fn good(keys: &str) {
    let keys = format!("pool = \"web\"\n{keys}");
    assert_eq!(found(&with("pool = \"web\"", &keys)), [""; 0], "{keys}");
}

#[test]
fn what_a_route_is_for() {
    let both = "path = \"/a\"\npath_regex = \"/a\"";
    route(both, "8:14 a route has either `path` or `path_regex`, not both | make two routes of it");
    route("path_exact = \"a\"", "7:14 the path `a` does not begin with `/` | write it as \"/a\"");
    route("path_exact = \"/a/./b\"", "is not normalised | write it as \"/a/b\"");
    route("path_regex = \"/a(\"", "7:14 `/a(` is not a regular expression: unclosed group");
    let long = format!("path_regex = \"/{}\"", "a".repeat(1_100));
    route(&long, "is not a regular expression: it is longer than 1024 bytes");
    route("path_regex = \"/(a{1000}){1000}\"", "is not a regular expression: ");
    route("methods = []", "7:11 `methods` has from 1 to 64 of them");
    route("methods = [\"get\"]", "7:12 methods are in capitals | write it as \"GET\"");
    route("methods = [\"GET\", \"GET\"]", "7:19 the method GET is given twice");
    route("methods = [\"CONNECT\"]", "CONNECT is never routed");
    route("methods = [\"A B\"]", "`A B` is not a method");
    route("headers = { \"a b\" = \"1\" }", "7:13 `a b` is not a header name");
    route("headers = { Host = \"a\" }", "`host` is no header here | use the route's `host` key");
    route("headers = { x-a = \"1\", X-A = \"2\" }", "7:24 the header `x-a` is given twice");
    route("headers = { x-a = { present = false } }", "7:31 `present = false` asks for nothing");
    route("headers = { x-a = { present = true, prefix = \"a\" } }", "7:19 a value has one test");
    route("headers = { x-a = {} }", "7:19 the table does not say what the value must be");
    route("headers = { x-a = { regex = \"(\" } }", "7:29 `(` is not a regular expression");
    route("headers = { x-a = { prefx = \"a\" } }", "`prefx` is not known here | did you mean");
    route("headers = { x-a = 1 }", "`x-a` cannot be the integer `1` | write a text, or a table");
    route("query = { \"\" = \"1\" }", "7:11 a parameter without a name");
    good("methods = [\"PURGE\"]\nheaders = { x-a = { absent = true } }\nquery = { a = \"\" }");
    good("host = \"*.b.c\"\npath_regex = '/a/\\d+'");
}

#[test]
fn conditions_part_routes_that_are_alike_otherwise() {
    let second =
        |first: &str, second: &str| format!("{first}\n[[route]]\npool = \"web\"\n{second}");
    let same = second(
        "methods = [\"GET\", \"PUT\"]\nheaders = { x-a = \"1\", x-b = \"2\" }",
        "headers = { x-b = \"2\", X-A = \"1\" }\nmethods = [\"PUT\", \"GET\"]",
    );
    route(&same, "9:1 an earlier route matches */ already, under the same conditions");
    good(&second("", "methods = [\"GET\"]"));
    good(&second("headers = { x-a = \"1\" }", "headers = { x-a = \"2\" }"));
    good(&second("path_exact = \"/a\"", "path = \"/a\""));
    route(&second("path_regex = \"/a\"", "path_regex = \"/a\""), "matches *~/a already");
}

#[test]
fn one_answer_for_each_route() {
    answer(
        "path = \"/\"",
        "5:1 a route needs a pool, or an answer of its own | add `pool = \"…\"`",
    );
    let both = "pool = \"web\"\nrespond = {}";
    answer(both, "7:11 a route has either `pool` or `respond`, not both");
    answer("pools = []", "6:9 `pools` has from 1 to 64 of them, not 0");
    answer("pools = [{ pool = \"wbe\" }]", "6:19 there is no pool `wbe` | did you mean `web`?");
    answer("pools = [{ weight = 1 }]", "6:10 a share needs its pool");
    let twice = "pools = [{ pool = \"web\" }, { pool = \"web\" }]";
    answer(twice, "the pool `web` is given twice | add its weights up");
    answer("pools = [{ pool = \"web\", weight = 0 }]", "6:9 no pool has a weight");
    let heavy = "pools = [{ pool = \"web\", weight = 1001 }]";
    answer(heavy, "`weight` must be from 0 to 1000, not 1001");
    answer("respond = { status = 199 }", "`status` must be from 200 to 599, not 199");
    answer("respond = { status = 204, body = \"x\" }", "an answer with the status 204 has no body");
    let long = format!("respond = {{ body = \"{}\" }}", "x".repeat(65_537));
    answer(&long, "`body` is longer than 64KiB");
    answer("respond = { content_type = \"html\" }", "`html` is not the type of a body");
    for key in ["rewrite = {}", "mirror = {}", "retry = {}", "timeouts = {}", "limits = {}"] {
        let name = key.split(' ').next().unwrap();
        let expected = format!("7:{} `{name}` has no meaning with `respond`", name.len() + 4);
        answer(&format!("respond = {{}}\n{key}"), &expected);
    }
}

#[test]
fn redirects_and_rewrites() {
    let to = |keys: &str, expected: &str| answer(&format!("redirect = {{ {keys} }}"), expected);
    to("status = 301", "6:12 the redirect leads back to where it came from | add one of");
    to("to_https = true, status = 300", "`status` is not one that sends a client elsewhere");
    to("host = \"a b\"", "`a b` cannot be a Host header");
    to("path = \"https://x/\"", "`https://x/` is a URL, not a path");
    to("path = \"//x\"", "`//x` cannot stand in a Location");
    to("path = \"x\"", "the path `x` does not begin with `/`");
    to("path = \"/a\", strip_prefix = \"/b\"", "`strip_prefix` beside another new path");
    to("strip_prefix = \"b\"", "the path `b` does not begin with `/` | write it as \"/b\"");
    route("rewrite = { prefix = \"v2\" }", "7:22 the path `v2` does not begin with `/`");
    let regex = "path_regex = \"/a\"\nrewrite = { prefix = \"/b\" }";
    route(regex, "`prefix` takes the place of `path`, and the route has none");
    route("rewrite = { regex = \"a\" }", "7:21 `regex` needs its `to`");
    route("rewrite = { to = \"a\" }", "7:18 `to` needs its `regex`");
    route("rewrite = { regex = \"(\", to = \"a\" }", "`(` is not a regular expression");
    route(
        "rewrite = { regex = \"(a)\", to = \"$1b\" }",
        "`(a)` has no group `1b` | count its brackets",
    );
    route("rewrite = { regex = \"a\", to = \"/?\" }", "`/?` cannot stand in a path");
    let both = "rewrite = { prefix = \"/\", regex = \"a\", to = \"b\" }";
    route(both, "`regex` beside `prefix` | leave one of them away");
    good("rewrite = { regex = \"(a)\", to = \"/${1}b\", host = \"web.internal:80\" }");
}

#[test]
fn header_fields_that_are_not_for_a_route_to_change() {
    let request = |keys: &str, expected: &str| {
        route(&format!("request_headers = {{ {keys} }}"), expected);
    };
    request(
        "set = { Content-Length = \"1\" }",
        "7:29 `content-length` is not for a route to change",
    );
    request("add = { connection = \"x\" }", "leave it away: it is about one connection only");
    request("remove = [\"te\"]", "7:31 `te` is not for a route to change");
    request("set = { host = \"a\" }", "| use `rewrite = { host = \"…\" }`");
    request("set = { x-forwarded-for = \"a\" }", "it is written anew for every endpoint");
    request("set = { \"a b\" = \"a\" }", "`a b` is not a header name");
    request("set = { x-a = \"a\\nb\" }", "the value of `x-a` cannot stand in a header");
    request("set = { x-a = \"1\", X-A = \"2\" }", "the header `x-a` is given twice");
    let response = |keys: &str, expected: &str| {
        route(&format!("response_headers = {{ {keys} }}"), expected);
    };
    response("add = { transfer-encoding = \"x\" }", "it says where the message ends");
    response("set = { x-gapless-reason = \"x\" }", "by it the proxy speaks of itself");
    route("hsts = \"includeSubDomains\"", "`includeSubDomains` does not say for how many seconds");
    good("hsts = \"max-age=1; preload\"\nresponse_headers = { remove = [\"server\", \"host\"] }");
}

#[test]
fn mirrors_and_fallbacks() {
    route("mirror = {}", "7:10 a mirror needs its pool | add `pool = \"…\"`");
    route("mirror = { pool = \"wbe\" }", "7:19 there is no pool `wbe` | did you mean `web`?");
    route("mirror = { pool = \"web\" }", "`web` is the route's own pool: what is copied there");
    let none = "pool = \"web\"\nmirror = { pool = \"spare\", percent = 0 }";
    let none = format!("{}\n{SPARE}", with("pool = \"web\"", none));
    one(&none, "`percent` must be from 1 to 100, not 0");
    route("fallback = {}", "7:12 the fallback does not say what | add one of `pool`");
    route("fallback = { pool = \"web\" }", "`web` is the route's own pool: it is what failed");
    let both = "fallback = { pool = \"web\", file = \"x\" }";
    assert!(
        found(&with("pool = \"web\"", &format!("pool = \"web\"\n{both}")))
            .iter()
            .any(|found| found.contains("a fallback is either `pool` or `file`, not both"))
    );
    route("fallback = { file = \"no-such-file.html\" }", "7:21 cannot read `no-such-file.html`");
    good("fallback = { respond = { body = \"x\" } }");
}

#[test]
fn pools_of_every_kind_are_used() {
    for key in [
        "mirror = { pool = \"spare\" }",
        "fallback = { pool = \"spare\" }",
        "[[route]]\npath = \"/x\"\npools = [{ pool = \"spare\" }]",
    ] {
        let text = with("pool = \"web\"", &format!("pool = \"web\"\n{key}"));
        assert_eq!(found(&format!("{text}\n{SPARE}")), [""; 0], "{key}");
    }
}

#[test]
fn paths_and_underscores() {
    let slash = "paths = { encoded_slash = \"keeep\" }";
    line("[[listen]]", slash, "| write \"keep\", \"reject\" or \"decode\"");
    let underscores = "headers = { underscores = \"no\" }";
    line("[[listen]]", underscores, "| write \"reject\", \"drop\" or \"allow\"");
    let reject = with("[[listen]]", "paths = { encoded_slash = \"reject\" }\n[[listen]]");
    let reject = reject.replacen("pool =", "path = \"/a%2Fb\"\npool =", 1);
    one(&reject, "the path `/a%2Fb` is not normalised | no request has such a path");
}
