//! Checks of the access log, headers and the ledger.

use std::path::PathBuf;
use std::time::Duration;

use gapless::config;
use gapless::config::model::{
    AccessLogConfig, AccessLogFormat, AccessLogTarget, ForwardedHeaders, LedgerRetention,
};
use gapless::logic::request::rate_limit::RateLimitKey;

use super::{assert_line_diagnostic, assert_route_diagnostic, diagnostics_of, valid_config_with};

#[track_caller]
fn assert_access_log_diagnostic(keys: &str, expected: &str) {
    assert_line_diagnostic(
        "[[listen]]",
        &format!("[access_log]\nto = \"stdout\"\n{keys}"),
        expected,
    );
}

fn parse_access_log(table: &str) -> AccessLogConfig {
    let text = valid_config_with("[[listen]]", &format!("{table}\n[[listen]]"));
    config::parse("dir/test.toml", &text).expect("good").config.access_log
}

#[test]
fn access_log_settings_are_parsed_or_reported() {
    assert_eq!(parse_access_log(""), AccessLogConfig::default());
    assert!(!AccessLogConfig::default().is_on());
    let to = |text: &str| parse_access_log(&format!("[access_log]\nto = \"{text}\"")).target;
    assert_eq!(to("off"), AccessLogTarget::Off);
    assert_eq!(to("stdout"), AccessLogTarget::Stdout);
    assert_eq!(to("/var/log/a.log"), AccessLogTarget::File(PathBuf::from("/var/log/a.log")));
    assert_eq!(to("./a.log"), AccessLogTarget::File(PathBuf::from("dir/./a.log")));
    let all = "[access_log]\nto = \"stdout\"\nformat = \"combined\"\nredact_query = false";
    let (lines, redact_query) =
        (parse_access_log(all).format, parse_access_log(all).should_redact_query);
    assert_eq!((lines, redact_query), (AccessLogFormat::Combined, false));
    for bad in ["stdoud", "", "logs/", "a.log"] {
        let text = format!("[access_log]\nto = \"{bad}\"");
        assert_line_diagnostic(
            "[[listen]]",
            &text,
            &format!("3:6 `{bad}` is not a destination of the access log | write"),
        );
    }
    assert_line_diagnostic(
        "[[listen]]",
        "[access_log]",
        "nothing is logged without `to` | add `to = ",
    );
    assert_access_log_diagnostic(
        "format = \"jsn\"",
        "4:10 `jsn` is not a format of the access log | did you mean \"json\"?",
    );
    assert_access_log_diagnostic("format = \"x\"", "| write \"json\" or \"combined\"");
}

#[test]
fn credential_headers_in_access_log_are_rejected() {
    for name in ["authorization", "Cookie", "SET-COOKIE", "proxy-authorization"] {
        let expected = format!("`{}` carries credentials", name.to_lowercase());
        assert_access_log_diagnostic(&format!("headers = [\"{name}\"]"), &expected);
    }
    assert_access_log_diagnostic("headers = [\"a b\"]", "4:12 `a b` cannot name a header");
    assert_access_log_diagnostic("headers = [\"x-a\", \"X-A\"]", "4:19 `x-a` is given twice");
    let headers = "format = \"combined\"\nheaders = [\"x-a\"]";
    assert_access_log_diagnostic(headers, "lines in the combined format have no other fields");
    let many: Vec<String> = (0..40).map(|n| format!("\"x-{n}\"")).collect();
    assert_access_log_diagnostic(
        &format!("headers = [{}]", many.join(", ")),
        "there are more than 32 fields",
    );
    let good = "[access_log]\nto = \"stdout\"\nheaders = [\"X-Tenant\", \"referer\"]\n[[listen]]";
    assert_eq!(diagnostics_of(&valid_config_with("[[listen]]", good)), [""; 0]);
}

#[test]
fn trusted_proxies_must_be_networks() {
    let assert_proxies_diagnostic = |text: &str, expected: &str| {
        assert_line_diagnostic("[[listen]]", &format!("trusted_proxies = [{text}]"), expected);
    };
    assert_proxies_diagnostic(
        "\"10.0.0.0/33\"",
        "2:20 the prefix of `10.0.0.0/33` is longer than its address",
    );
    assert_proxies_diagnostic(
        "\"10.1.2.3/8\"",
        "has bits set beyond its first 8 | write it as \"10.0.0.0/8\"",
    );
    assert_proxies_diagnostic(
        "\"lb.internal\"",
        "`lb.internal` is not a network | write a network such as",
    );
    assert_proxies_diagnostic(
        "\"::1\", \"0.0.0.0/0\"",
        "2:27 `0.0.0.0/0` lets every client choose",
    );
    let text =
        valid_config_with("[[listen]]", "trusted_proxies = [\"::1\", \"10.0.0.0/8\"]\n[[listen]]");
    let config = config::parse("test.toml", &text).unwrap().config;
    let shown: Vec<String> = config.trusted_proxies.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["::1/128", "10.0.0.0/8"]);
    let text = valid_config_with("[[listen]]", "[headers]\nforwarded = \"x\"\n[[listen]]");
    assert!(diagnostics_of(&text)[0].contains("3:13 `x` is not a kind of forwarding headers"));
}

#[test]
fn request_id_and_forwarded_headers_have_defaults() {
    let headers =
        config::parse("test.toml", &valid_config_with("[[listen]]", "[headers]\n[[listen]]"));
    let headers = headers.unwrap().config.headers;
    assert_eq!((headers.should_set_request_id, headers.should_set_traceparent), (true, false));
    assert_eq!(headers.forwarded, ForwardedHeaders::XForwarded);
}

#[test]
fn rate_limits_are_parsed_or_reported() {
    let assert_rate_diagnostic = |keys: &str, expected: &str| {
        assert_route_diagnostic(&format!("limits.rate = {{ {keys} }}"), expected);
    };
    assert_rate_diagnostic("", "7:15 a rate needs a number of requests | add `requests = 100`");
    assert_rate_diagnostic("requests = 0", "`requests` must be from 1 to");
    assert_rate_diagnostic("requests = 1, per = \"25h\"", "`per` must be from 1ms to 24h");
    assert_rate_diagnostic("requests = 1, burst = 0", "`burst` must be from 1 to");
    assert_rate_diagnostic(
        "requests = 1, by = \"cookie\"",
        "requests are not counted by `cookie` | write",
    );
    assert_rate_diagnostic(
        "requests = 100001",
        "a rate of more than 100000 a second cannot be kept",
    );
    assert_rate_diagnostic(
        "requests = 1, per = \"1h\", burst = 25",
        "the burst is more than the rate gives in a day",
    );
    let parse_rate = |keys: &str| {
        let text =
            valid_config_with("[pool.web]", &format!("limits.rate = {{ {keys} }}\n[pool.web]"));
        config::parse("test.toml", &text).unwrap().config.routes[0].rate_limit.unwrap()
    };
    let rate = parse_rate("requests = 7");
    assert_eq!((rate.requests.get(), rate.burst.get()), (7, 7));
    assert_eq!((rate.per, rate.key), (Duration::from_secs(1), RateLimitKey::Client));
    let rate = parse_rate("requests = 7, per = \"1m\", burst = 70, by = \"route\"");
    assert_eq!((rate.burst.get(), rate.per), (70, Duration::from_secs(60)));
    assert_eq!(rate.key, RateLimitKey::Route);
}

#[test]
fn upgrade_to_other_than_websocket_is_rejected() {
    assert_route_diagnostic("upgrade = [\"h2c\"]", "7:12 `h2c` is never forwarded");
    assert_route_diagnostic(
        "upgrade = [\"tls\"]",
        "`tls` is not a supported upgrade | write \"websocket\"",
    );
    let allows_websocket = |keys: &str| {
        let text = valid_config_with("[pool.web]", &format!("{keys}\n[pool.web]"));
        config::parse("test.toml", &text).expect("good").config.routes[0].is_websocket_allowed
    };
    assert!(
        allows_websocket("")
            && allows_websocket("upgrade = [\"WebSocket\"]")
            && !allows_websocket("upgrade = []")
    );
}

#[test]
fn ledger_bounds_are_parsed_or_reported() {
    let bounds = |keys: &str| {
        let text = valid_config_with("[[listen]]", &format!("[ledger]\n{keys}\n[[listen]]"));
        config::parse("test.toml", &text).expect("good").config.ledger
    };
    assert_eq!(bounds(""), LedgerRetention::default());
    let keep = Duration::from_hours(36);
    assert_eq!(
        bounds("keep = \"36h\"\nmax = 7"),
        LedgerRetention { retention: keep, max_incidents: 7 }
    );
    let assert_ledger_diagnostic = |keys: &str, expected: &str| {
        assert_line_diagnostic("[[listen]]", &format!("[ledger]\n{keys}"), expected);
    };
    assert_ledger_diagnostic("keep = 90", "a duration needs its unit | write it as \"90d\"");
    assert_ledger_diagnostic("keep = \"5m\"", "`keep` must be from 1h to 3650d");
    assert_ledger_diagnostic(
        "keep = \"for ever\"",
        "`for ever` is not a duration | write it as \"90d\"",
    );
    assert_ledger_diagnostic("max = 0", "`max` must be from 1 to 1000000");
}

#[test]
fn slo_objectives_are_parsed_or_reported() {
    let slo = |keys: &str| {
        let text =
            valid_config_with("pool = \"web\"", &format!("pool = \"web\"\nslo = {{ {keys} }}"));
        config::parse("test.toml", &text).expect("good").config.routes[0].slo.expect("given")
    };
    let availability_only = slo("availability = \"99.95%\"");
    assert!(
        (availability_only.availability.expect("given") - 0.9995).abs() < 1e-12
            && availability_only.latency.is_none()
    );
    let latency = slo("latency = { share = \"90 %\", under = \"300ms\" }").latency.expect("given");
    assert_eq!((latency.target_ratio, latency.threshold), (0.9, Duration::from_millis(300)));
    let assert_slo_diagnostic = |keys: &str, expected: &str| {
        assert_route_diagnostic(&format!("slo = {{ {keys} }}"), expected);
    };
    assert_slo_diagnostic(
        "availability = \"99.9\"",
        "`99.9` is not a share | write it as \"99.9%\"",
    );
    assert_slo_diagnostic("availability = \"100%\"", "an objective of 100% leaves no budget");
    assert_slo_diagnostic("availability = \"12%\"", "an objective must be from 50% to below 100%");
    assert_slo_diagnostic(
        "",
        "this objective has neither `availability` nor `latency` | add `availability = \"99.9%\"`",
    );
    assert_slo_diagnostic("latency = { under = \"1s\" }", "a latency objective needs `share`");
}

#[test]
#[cfg(not(feature = "otlp"))]
fn spans_need_a_program_that_can_export_them() {
    let table = "[otlp]\nendpoint = \"http://127.0.0.1:4318\"";
    let expected = "2:1 this program was built without `otlp` | build it with `cargo build --release \
                    --features otlp`";
    assert_line_diagnostic("[[listen]]", table, expected);
}
