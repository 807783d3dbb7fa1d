//! Routes.

use super::{found, one, route, with};

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
    route("host = \"*.b\"", "without wildcards");
    route("host = \"a b\"", "`a b` is not a host name");
    route("path = \"v1\"", "7:8 the path `v1` does not begin with `/` | write it as \"/v1\"");
    route("path = \"/v1?x\"", "without query or fragment | write it as \"/v1\"");
    route("path = \"/v1#x\"", "without query or fragment | write it as \"/v1\"");
    for path in ["//", "/a//b", "/a/../b", "/./a", "/a/..", "/%2e%2e/a", "/a%2Fb"] {
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
