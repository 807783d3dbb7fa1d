//! Checks of pools: zones, endpoints, probes, the detection window.

use gapless::config;

use super::{
    VALID_CONFIG, assert_endpoints_diagnostic, assert_line_diagnostic, assert_one_diagnostic,
    assert_pool_diagnostic, assert_probe_diagnostic, diagnostics_of, valid_config_with,
};

#[test]
fn invalid_detection_window_is_reported() {
    let assert_detect_diagnostic =
        |keys: &str, expected| assert_pool_diagnostic(&format!("detect = {{ {keys} }}"), expected);
    assert_detect_diagnostic(
        "interval = 500",
        "a duration needs its unit | write it as \"500ms\" or \"500s\"",
    );
    assert_detect_diagnostic(
        "interval = \"0s\"",
        "`interval` cannot be zero | write a duration such as \"1s\"",
    );
    assert_detect_diagnostic(
        "intervall = \"1s\"",
        "`intervall` is not known here | did you mean `interval`?",
    );
    assert_detect_diagnostic("down_after = 0", "`down_after` must be from 1 to 1000, not 0");
    assert_detect_diagnostic("up_after = 0", "`up_after` must be from 1 to 1000, not 0");
    assert_detect_diagnostic(
        "interval = \"200ms\"",
        "`timeout` (500ms, the default) is longer than `interval` (200ms) | set `timeout` to \"200ms\"",
    );
    assert_detect_diagnostic(
        "interval = \"2s\", timeout = \"2s\"",
        "longer than `down_interval` (1s, the default)",
    );
    assert_detect_diagnostic(
        "fast_interval = \"2s\"",
        "`fast_interval` (2s) is longer than `interval` (1s, the default)",
    );
    assert_detect_diagnostic("interval = 1, timeout = \"1s\"", "a duration needs its unit");
    assert_pool_diagnostic("late_after = \"0ms\"", "`late_after` cannot be zero");
    assert_pool_diagnostic("optimistic = \"yes\"", "`optimistic` cannot be the string \"yes\"");
}

#[test]
fn invalid_pools_zones_and_endpoints_are_reported() {
    assert_one_diagnostic(
        &valid_config_with("[[pool.web.zone]]", "x = 1\n[[pool.web.zone]]"),
        "11:1 `x` is not known here | the keys here are `probe`,",
    );
    assert_one_diagnostic(
        VALID_CONFIG.split("[[pool").next().unwrap(),
        "8:1 the pool `web` has no zone | add `[[pool.web.zone]]`",
    );
    assert_one_diagnostic(
        &VALID_CONFIG.replace("pool.web", "pool.\"w b\"").replace("\"web\"", "\"w b\""),
        "8:7 `w b` cannot name a pool",
    );
    assert_one_diagnostic(&valid_config_with("name = \"local/a\"", ""), "11:1 a zone needs a name");
    assert_one_diagnostic(
        &valid_config_with("local/a", "local"),
        "12:8 `local` is not a region and a zone",
    );
    let twice = format!(
        "{VALID_CONFIG}[[pool.web.zone]]\nname = \"local/a\"\nendpoints = [\"127.0.0.1:1\"]"
    );
    assert_one_diagnostic(&twice, "15:8 this pool already has the zone local/a");
    assert_endpoints_diagnostic("[]", "11:1 the zone has no endpoint");
    assert_endpoints_diagnostic("[\"127.0.0.1:0\"]", "13:14 nothing can be reached at port 0");
    assert_endpoints_diagnostic("[\"0.0.0.0:80\"]", "0.0.0.0 stands for every address");
    assert_endpoints_diagnostic(
        "[80]",
        "13:14 `endpoints` cannot be the integer `80` | write an address",
    );
    assert_endpoints_diagnostic("\"1.2.3.4:5\"", "`endpoints` cannot be the string");
    assert_endpoints_diagnostic(
        "[{ address = \"1.2.3.4:5\", weight = 0 }]",
        "13:48 `weight` must be from 1 to 1000, not 0",
    );
    assert_endpoints_diagnostic("[{ address = \"1.2.3.4:5\", weight = 1001 }]", "not 1001");
    assert_endpoints_diagnostic("[{ weight = 1 }]", "13:14 an endpoint needs an address");
    assert_endpoints_diagnostic(
        "[{ adress = \"1.2.3.4:5\" }]",
        "13:16 `adress` is not known here | did you mean `address`?",
    );
    assert_pool_diagnostic(
        "limits = { idle_connections = -1 }",
        "`idle_connections` must be from 0 to 100000, not -1",
    );
    assert_pool_diagnostic(
        "limits = { response_head = 1024 }",
        "`response_head` must be from 8KiB to 1MiB",
    );
    assert_pool_diagnostic("limits = { idle_timeout = \"0s\" }", "`idle_timeout` cannot be zero");
}

#[test]
fn duplicate_endpoint_is_reported_at_both_lines() {
    let text = format!(
        "{VALID_CONFIG}[[pool.web.zone]]\nname = \"local/b\"\nendpoints = [\"127.0.0.1:18081\"]"
    );
    assert_one_diagnostic(&text, "16:14 this pool already has the endpoint 127.0.0.1:18081");
    let report = config::parse("test.toml", &text).unwrap_err();
    let first = &report.diagnostics[0].also[0];
    assert_eq!((first.at.line, first.at.column, first.label.as_str()), (13, 14, "first here"));
    assert!(report.render(false).contains("test.toml:13:14"), "{report}");
}

#[test]
fn invalid_probes_are_reported() {
    assert_probe_diagnostic("{}", "9:9 the probe has no kind");
    assert_probe_diagnostic(
        "{ http = \"/\", tcp = true }",
        "9:29 a probe is either `http` or `tcp`, not both",
    );
    assert_probe_diagnostic("{ tcp = false }", "9:17 `tcp = false` has no effect");
    assert_probe_diagnostic(
        "\"tcp\"",
        "`probe` cannot be the string \"tcp\" | write a table such as { http =",
    );
    assert_probe_diagnostic(
        "{ tcp = true, host = \"a\" }",
        "9:30 `host` has no meaning with `tcp`",
    );
    assert_probe_diagnostic("{ tcp = true, port = 0 }", "`port` must be from 1 to 65535, not 0");
    assert_probe_diagnostic(
        "{ http = \"healthz\" }",
        "does not begin with `/` | write it as \"/healthz\"",
    );
    assert_probe_diagnostic("{ http = \"http://a/b\" }", "`http://a/b` is a URL, not a path");
    assert_probe_diagnostic("{ http = \"/a b\" }", "cannot stand in a request line");
    assert_probe_diagnostic("{ http = \"/a#b\" }", "a `#` is never sent");
    assert_probe_diagnostic(
        "{ http = \"/\", method = \"get\" }",
        "methods are in capitals | write it as \"GET\"",
    );
    assert_probe_diagnostic(
        "{ http = \"/\", method = \"CONNECT\" }",
        "`CONNECT` is not a method to probe with",
    );
    assert_probe_diagnostic("{ http = \"/\", host = \"a b\" }", "`a b` cannot be a Host header");
    assert_probe_diagnostic("{ http = \"/\", host = \"u@b\" }", "`u@b` cannot be a Host header");
    assert_probe_diagnostic(
        "{ http = \"/\", expect_status = \"2xx\" }",
        "9:39 `2xx` is not an HTTP status",
    );
    assert_probe_diagnostic("{ http = \"/\", expect_status = 99 }", "`99` is not an HTTP status");
    assert_probe_diagnostic(
        "{ http = \"/\", expect_status = \"299-200\" }",
        "the range 299-200 is empty",
    );
    assert_probe_diagnostic(
        "{ http = \"/\", expect_status = [200] }",
        "cannot be a list | write statuses such as",
    );
    assert_probe_diagnostic(
        "{ http = \"/\", expect_body = \"\" }",
        "every body contains the empty text",
    );
    assert_probe_diagnostic(
        "{ http = \"/\", method = \"HEAD\", expect_body = \"x\" }",
        "the response to HEAD has no body",
    );
}

#[test]
fn invalid_probe_headers_are_reported() {
    let assert_headers_diagnostic = |headers: &str, expected| {
        assert_probe_diagnostic(
            &format!("{{ http = \"/\", headers = {{ {headers} }} }}"),
            expected,
        );
    };
    assert_headers_diagnostic(
        "Host = \"a\"",
        "9:35 a probe sets `host` itself | use the probe's `host` key",
    );
    assert_headers_diagnostic("Content-Length = \"1\"", "a probe sets `content-length` itself");
    assert_headers_diagnostic(
        "transfer-encoding = \"chunked\"",
        "a probe sets `transfer-encoding` itself",
    );
    assert_headers_diagnostic("connection = \"close\"", "a probe sets `connection` itself");
    assert_headers_diagnostic("\"a b\" = \"x\"", "`a b` is not a header name");
    assert_headers_diagnostic("a = \"x\\ny\"", "9:39 the value of `a` cannot stand in a header");
    assert_headers_diagnostic("a = \"x\", A = \"y\"", "the header `a` is given twice");
    let many: Vec<String> = (0..65).map(|i| format!("h{i} = \"x\"")).collect();
    assert_headers_diagnostic(&many.join(", "), "a probe has at most 64 headers, not 65");
}

#[test]
fn list_in_place_of_table_is_reported() {
    assert_pool_diagnostic(
        "limits = [1, \"1s\", 9000]",
        "`limits` cannot be a list | write a table such as { idle",
    );
    assert_probe_diagnostic(
        "[\"/healthz\"]",
        "`probe` cannot be the string \"/healthz\" | write a table such as",
    );
    assert_endpoints_diagnostic(
        "[[\"1.2.3.4:5\"]]",
        "13:14 `endpoints` cannot be a list | write an address",
    );
    assert_endpoints_diagnostic("{ a = 1 }", "13:13 `endpoints` is a list, not a table");
    assert_one_diagnostic(
        &valid_config_with("[[route]]", "[route]"),
        "5:1 `route` is a list, not a table | write its header with two",
    );
    assert_one_diagnostic(
        &valid_config_with("[pool.web]", "[[pool.web]]"),
        "8:1 `web` cannot be a list | write a table",
    );
}

#[test]
fn invalid_stall_bounds_are_reported() {
    assert_pool_diagnostic(
        "stall = { floor = \"6s\" }",
        "`floor` (6s) is longer than `ceiling` (5s, the default) | set `floor` to \"5s\" or less",
    );
    assert_pool_diagnostic("stall = { ceiling = \"0s\" }", "`ceiling` cannot be zero");
    assert_pool_diagnostic("stall = \"50ms\"", "write a table such as { floor = \"50ms\" }");
}

#[test]
fn invalid_endpoint_and_pool_limits_are_reported() {
    let assert_limits_diagnostic = |keys: &str, expected: &str| {
        assert_pool_diagnostic(&format!("limits = {{ {keys} }}"), expected);
    };
    assert_limits_diagnostic(
        "endpoint = { connections = 0 }",
        "`connections` must be from 1 to 10000000, not 0 | write a whole number from 1 to 10000000, \
         or \"unlimited\"",
    );
    assert_limits_diagnostic("pool = { requests = \"many\" }", "`many` is not a whole number");
    assert_limits_diagnostic(
        "pool = { retries = -1 }",
        "`retries` must be from 0 to 10000000, not -1",
    );
    assert_limits_diagnostic("endpoint = { request = 1 }", "did you mean `requests`?");
    assert_limits_diagnostic("endpoint = 100", "write a table such as { requests = 1000 }");
}

#[test]
fn configured_drains_are_parsed_or_reported() {
    let assert_evacuate_diagnostic =
        |given: &str, expected| assert_line_diagnostic("[[listen]]", given, expected);
    assert_evacuate_diagnostic(
        "evacuate = [\"local/b\"]",
        "no pool has an endpoint in local/b | did you mean `local/a`?",
    );
    assert_evacuate_diagnostic(
        "evacuate = [\"locla\"]",
        "no pool has an endpoint in locla | did you mean `local`?",
    );
    assert_evacuate_diagnostic(
        "evacuate = [\"a b\"]",
        "`a b` is neither a zone nor a region | write it as",
    );
    assert_evacuate_diagnostic(
        "evacuate = [\"127.0.0.1:18081\"]",
        "is neither a zone nor a region",
    );
    assert_evacuate_diagnostic(
        "evacuate = [\"local\"]",
        "every endpoint of the pool `web` is drained | its requests",
    );
    assert_endpoints_diagnostic(
        "[{ address = \"127.0.0.1:18081\", drain = true }]",
        "every endpoint of the pool `web` is drained",
    );
    assert_endpoints_diagnostic(
        "[{ address = \"127.0.0.1:18081\", drain = 1 }]",
        "`drain` cannot be the integer `1` | write a boolean",
    );
    let one_drained_of_two =
        "[\"127.0.0.1:18081\", { address = \"127.0.0.1:18082\", drain = true }]";
    let text = valid_config_with("[\"127.0.0.1:18081\"]", one_drained_of_two);
    assert_eq!(diagnostics_of(&text), [""; 0]);
    let drained_zone =
        "[[pool.web.zone]]\nname = \"local/b\"\nendpoints = [\"127.0.0.1:18083\"]\ndrain = true\n";
    let text = text + drained_zone;
    let text = text.replacen("[[listen]]", "evacuate = [\"local/b\"]\n[[listen]]", 1);
    let config = config::parse("test.toml", &text).expect("good").config;
    let drained: Vec<String> =
        config.topology.pools[0].drained_scopes.iter().map(ToString::to_string).collect();
    assert_eq!(drained, ["127.0.0.1:18082", "local/b"]);
}

/// The addresses of a name are not known yet.
#[test]
fn drained_endpoint_beside_dns_name_is_accepted() {
    let drained_endpoint = "[{ address = \"127.0.0.1:18081\", drain = true }]";
    let dns_zone = "[[pool.web.zone]]\nname = \"local/b\"\nendpoints = [\"web.example:80\"]\n";
    let text = valid_config_with("[\"127.0.0.1:18081\"]", drained_endpoint) + dns_zone;
    assert_eq!(diagnostics_of(&text), [""; 0]);
}

#[test]
fn endpoint_that_is_an_own_listener_is_reported() {
    assert_endpoints_diagnostic(
        "[\"127.0.0.1:18080\"]",
        "127.0.0.1:18080 is a listener of this instance (127.0.0.1:18080)",
    );
    assert_endpoints_diagnostic(
        "[{ address = \"127.0.0.1:9900\" }]",
        "127.0.0.1:9900 is the admin listener of this instance",
    );
    let on_all = valid_config_with("127.0.0.1:18080", "0.0.0.0:18081");
    assert_one_diagnostic(
        &on_all,
        "127.0.0.1:18081 is a listener of this instance (0.0.0.0:18081)",
    );
    let elsewhere = on_all.replace("[\"127.0.0.1:18081\"]", "[\"10.0.0.1:18081\"]");
    assert_eq!(diagnostics_of(&elsewhere), [""; 0], "another machine");
}
