//! Pools: zones, endpoints, probes, the detection window.

use gapless::config;

use super::{GOOD, endpoints, found, line, one, pool, probe, with};

#[test]
fn the_detection_window() {
    let detect = |keys: &str, expected| pool(&format!("detect = {{ {keys} }}"), expected);
    detect("interval = 500", "a duration needs its unit | write it as \"500ms\" or \"500s\"");
    detect("interval = \"0s\"", "`interval` cannot be zero | write a duration such as \"1s\"");
    detect("intervall = \"1s\"", "`intervall` is not known here | did you mean `interval`?");
    detect("down_after = 0", "`down_after` must be from 1 to 1000, not 0");
    detect("up_after = 0", "`up_after` must be from 1 to 1000, not 0");
    detect(
        "interval = \"200ms\"",
        "`timeout` (500ms, the default) is longer than `interval` (200ms) | set `timeout` to \"200ms\"",
    );
    detect("interval = \"2s\", timeout = \"2s\"", "longer than `down_interval` (1s, the default)");
    detect(
        "fast_interval = \"2s\"",
        "`fast_interval` (2s) is longer than `interval` (1s, the default)",
    );
    detect("interval = 1, timeout = \"1s\"", "a duration needs its unit");
    pool("late_after = \"0ms\"", "`late_after` cannot be zero");
    pool("optimistic = \"yes\"", "`optimistic` cannot be the string \"yes\"");
}

#[test]
fn pools_zones_and_endpoints() {
    one(
        &with("[[pool.web.zone]]", "x = 1\n[[pool.web.zone]]"),
        "11:1 `x` is not known here | the keys here are `probe`,",
    );
    one(
        GOOD.split("[[pool").next().unwrap(),
        "8:1 the pool `web` has no zone | add `[[pool.web.zone]]`",
    );
    one(
        &GOOD.replace("pool.web", "pool.\"w b\"").replace("\"web\"", "\"w b\""),
        "8:7 `w b` cannot name a pool",
    );
    one(&with("name = \"local/a\"", ""), "11:1 a zone needs a name");
    one(&with("local/a", "local"), "12:8 `local` is not a region and a zone");
    let twice =
        format!("{GOOD}[[pool.web.zone]]\nname = \"local/a\"\nendpoints = [\"127.0.0.1:1\"]");
    one(&twice, "15:8 this pool already has the zone local/a");
    endpoints("[]", "11:1 the zone has no endpoint");
    endpoints("[\"127.0.0.1:0\"]", "13:14 nothing can be reached at port 0");
    endpoints("[\"0.0.0.0:80\"]", "0.0.0.0 stands for every address");
    endpoints("[80]", "13:14 `endpoints` cannot be the integer `80` | write an address");
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
    pool("limits = { response_head = 1024 }", "`response_head` must be from 8KiB to 1MiB");
    pool("limits = { idle_timeout = \"0s\" }", "`idle_timeout` cannot be zero");
}

#[test]
fn an_endpoint_given_twice_is_shown_at_both_places() {
    let text =
        format!("{GOOD}[[pool.web.zone]]\nname = \"local/b\"\nendpoints = [\"127.0.0.1:18081\"]");
    one(&text, "16:14 this pool already has the endpoint 127.0.0.1:18081");
    let report = config::parse("test.toml", &text).unwrap_err();
    let first = &report.diagnostics[0].also[0];
    assert_eq!((first.at.line, first.at.column, first.label.as_str()), (13, 14, "first here"));
    assert!(report.render(false).contains("test.toml:13:14"), "{report}");
}

#[test]
fn probes() {
    probe("{}", "9:9 the probe does not say what to ask");
    probe("{ http = \"/\", tcp = true }", "9:29 a probe is either `http` or `tcp`, not both");
    probe("{ tcp = false }", "9:17 `tcp = false` asks for nothing");
    probe("\"tcp\"", "`probe` cannot be the string \"tcp\" | write a table such as { http =");
    probe("{ tcp = true, host = \"a\" }", "9:30 `host` has no meaning with `tcp`");
    probe("{ tcp = true, port = 0 }", "`port` must be from 1 to 65535, not 0");
    probe("{ http = \"healthz\" }", "does not begin with `/` | write it as \"/healthz\"");
    probe("{ http = \"http://a/b\" }", "`http://a/b` is a URL, not a path");
    probe("{ http = \"/a b\" }", "cannot stand in a request line");
    probe("{ http = \"/a#b\" }", "a `#` is never sent");
    probe("{ http = \"/\", method = \"get\" }", "methods are in capitals | write it as \"GET\"");
    probe("{ http = \"/\", method = \"CONNECT\" }", "`CONNECT` is not a method to probe with");
    probe("{ http = \"/\", host = \"a b\" }", "`a b` cannot be a Host header");
    probe("{ http = \"/\", host = \"u@b\" }", "`u@b` cannot be a Host header");
    probe("{ http = \"/\", expect_status = \"2xx\" }", "9:39 `2xx` is not an HTTP status");
    probe("{ http = \"/\", expect_status = 99 }", "`99` is not an HTTP status");
    probe("{ http = \"/\", expect_status = \"299-200\" }", "the range 299-200 is empty");
    probe("{ http = \"/\", expect_status = [200] }", "cannot be a list | write statuses such as");
    probe("{ http = \"/\", expect_body = \"\" }", "every body contains the empty text");
    probe(
        "{ http = \"/\", method = \"HEAD\", expect_body = \"x\" }",
        "the answer to a HEAD has no body",
    );
}

#[test]
fn probe_headers() {
    let headers = |headers: &str, expected| {
        probe(&format!("{{ http = \"/\", headers = {{ {headers} }} }}"), expected);
    };
    headers("Host = \"a\"", "9:35 a probe sets `host` itself | use the probe's `host` key");
    headers("Content-Length = \"1\"", "a probe sets `content-length` itself");
    headers("transfer-encoding = \"chunked\"", "a probe sets `transfer-encoding` itself");
    headers("connection = \"close\"", "a probe sets `connection` itself");
    headers("\"a b\" = \"x\"", "`a b` is not a header name");
    headers("a = \"x\\ny\"", "9:39 the value of `a` cannot stand in a header");
    headers("a = \"x\", A = \"y\"", "the header `a` is given twice");
    let many: Vec<String> = (0..65).map(|i| format!("h{i} = \"x\"")).collect();
    headers(&many.join(", "), "a probe has at most 64 headers, not 65");
}

#[test]
fn lists_and_tables_are_not_taken_for_each_other() {
    pool("limits = [1, \"1s\", 9000]", "`limits` cannot be a list | write a table such as { idle");
    probe("[\"/healthz\"]", "`probe` cannot be the string \"/healthz\" | write a table such as");
    endpoints("[[\"1.2.3.4:5\"]]", "13:14 `endpoints` cannot be a list | write an address");
    endpoints("{ a = 1 }", "13:13 `endpoints` is a list, not a table");
    one(
        &with("[[route]]", "[route]"),
        "5:1 `route` is a list, not a table | write its header with two",
    );
    one(&with("[pool.web]", "[[pool.web]]"), "8:1 `web` cannot be a list | write a table");
}

#[test]
fn stall_bounds() {
    pool(
        "stall = { floor = \"6s\" }",
        "`floor` (6s) is longer than `ceiling` (5s, the default) | set `floor` to \"5s\" or less",
    );
    pool("stall = { ceiling = \"0s\" }", "`ceiling` cannot be zero");
    pool("stall = \"50ms\"", "write a table such as { floor = \"50ms\" }");
}

#[test]
fn limits_of_endpoints_and_pools() {
    let limits = |keys: &str, expected: &str| pool(&format!("limits = {{ {keys} }}"), expected);
    limits(
        "endpoint = { connections = 0 }",
        "`connections` must be from 1 to 10000000, not 0 | write a whole number from 1 to 10000000, \
         or \"unlimited\"",
    );
    limits("pool = { requests = \"many\" }", "`many` is not a whole number");
    limits("pool = { retries = -1 }", "`retries` must be from 0 to 10000000, not -1");
    limits("endpoint = { request = 1 }", "did you mean `requests`?");
    limits("endpoint = 100", "write a table such as { requests = 1000 }");
}

#[test]
fn what_the_file_drains() {
    let evacuate = |given: &str, expected| line("[[listen]]", given, expected);
    evacuate(
        "evacuate = [\"local/b\"]",
        "no pool has an endpoint in local/b | did you mean `local/a`?",
    );
    evacuate("evacuate = [\"locla\"]", "no pool has an endpoint in locla | did you mean `local`?");
    evacuate("evacuate = [\"a b\"]", "`a b` is neither a zone nor a region | write it as");
    evacuate("evacuate = [\"127.0.0.1:18081\"]", "is neither a zone nor a region");
    evacuate(
        "evacuate = [\"local\"]",
        "every endpoint of the pool `web` is drained | its requests",
    );
    endpoints(
        "[{ address = \"127.0.0.1:18081\", drain = true }]",
        "every endpoint of the pool `web` is drained",
    );
    endpoints(
        "[{ address = \"127.0.0.1:18081\", drain = 1 }]",
        "`drain` cannot be the integer `1` | write a boolean",
    );
    let two = "[\"127.0.0.1:18081\", { address = \"127.0.0.1:18082\", drain = true }]";
    let text = with("[\"127.0.0.1:18081\"]", two);
    assert_eq!(found(&text), [""; 0]);
    let other =
        "[[pool.web.zone]]\nname = \"local/b\"\nendpoints = [\"127.0.0.1:18083\"]\ndrain = true\n";
    let text = text + other;
    let text = text.replacen("[[listen]]", "evacuate = [\"local/b\"]\n[[listen]]", 1);
    let config = config::parse("test.toml", &text).expect("good").config;
    let drained: Vec<String> =
        config.topology.pools[0].drained.iter().map(ToString::to_string).collect();
    assert_eq!(drained, ["127.0.0.1:18082", "local/b"]);
}

/// Nobody knows yet what a name leads to.
#[test]
fn a_drained_endpoint_beside_a_name_is_not_all_of_its_pool() {
    let both = "[{ address = \"127.0.0.1:18081\", drain = true }]";
    let names = "[[pool.web.zone]]\nname = \"local/b\"\nendpoints = [\"web.example:80\"]\n";
    let text = with("[\"127.0.0.1:18081\"]", both) + names;
    assert_eq!(found(&text), [""; 0]);
}
