//! What is told of requests.

use std::path::PathBuf;
use std::time::Duration;

use gapless::config;
use gapless::config::model::{AccessLog, Forwarded, LedgerBounds, LogLines, LogTarget};
use gapless::logic::rate::RateKey;

use super::{found, line, route, with};

#[track_caller]
fn log(keys: &str, expected: &str) {
    line("[[listen]]", &format!("[access_log]\nto = \"stdout\"\n{keys}"), expected);
}

fn log_of(table: &str) -> AccessLog {
    let text = with("[[listen]]", &format!("{table}\n[[listen]]"));
    config::parse("dir/test.toml", &text).expect("good").config.access_log
}

#[test]
fn the_access_log() {
    assert_eq!(log_of(""), AccessLog::default());
    assert!(!AccessLog::default().is_on());
    let to = |text: &str| log_of(&format!("[access_log]\nto = \"{text}\"")).to;
    assert_eq!(to("off"), LogTarget::Off);
    assert_eq!(to("stdout"), LogTarget::Stdout);
    assert_eq!(to("/var/log/a.log"), LogTarget::File(PathBuf::from("/var/log/a.log")));
    assert_eq!(to("./a.log"), LogTarget::File(PathBuf::from("dir/./a.log")));
    let all = "[access_log]\nto = \"stdout\"\nformat = \"combined\"\nredact_query = false";
    let (lines, redact_query) = (log_of(all).lines, log_of(all).redact_query);
    assert_eq!((lines, redact_query), (LogLines::Combined, false));
    for bad in ["stdoud", "", "logs/", "a.log"] {
        let text = format!("[access_log]\nto = \"{bad}\"");
        line("[[listen]]", &text, &format!("3:6 `{bad}` is no place for the access log | write"));
    }
    line("[[listen]]", "[access_log]", "nothing is logged without `to` | add `to = ");
    log("format = \"jsn\"", "4:10 `jsn` is no format of the access log | did you mean \"json\"?");
    log("format = \"x\"", "| write \"json\" or \"combined\"");
}

#[test]
fn credentials_are_never_logged() {
    for name in ["authorization", "Cookie", "SET-COOKIE", "proxy-authorization"] {
        let expected = format!("`{}` carries credentials", name.to_lowercase());
        log(&format!("headers = [\"{name}\"]"), &expected);
    }
    log("headers = [\"a b\"]", "4:12 `a b` cannot name a header");
    log("headers = [\"x-a\", \"X-A\"]", "4:19 `x-a` is given twice");
    let headers = "format = \"combined\"\nheaders = [\"x-a\"]";
    log(headers, "lines in the combined format have no other fields");
    let many: Vec<String> = (0..40).map(|n| format!("\"x-{n}\"")).collect();
    log(&format!("headers = [{}]", many.join(", ")), "there are more than 32 fields");
    let good = "[access_log]\nto = \"stdout\"\nheaders = [\"X-Tenant\", \"referer\"]\n[[listen]]";
    assert_eq!(found(&with("[[listen]]", good)), [""; 0]);
}

#[test]
fn trusted_proxies_are_networks() {
    let proxies = |text: &str, expected: &str| {
        line("[[listen]]", &format!("trusted_proxies = [{text}]"), expected);
    };
    proxies("\"10.0.0.0/33\"", "2:20 the prefix of `10.0.0.0/33` is longer than its address");
    proxies("\"10.1.2.3/8\"", "has bits set beyond its first 8 | write it as \"10.0.0.0/8\"");
    proxies("\"lb.internal\"", "`lb.internal` is not a network | write a network such as");
    proxies("\"::1\", \"0.0.0.0/0\"", "2:27 `0.0.0.0/0` believes every client");
    let text = with("[[listen]]", "trusted_proxies = [\"::1\", \"10.0.0.0/8\"]\n[[listen]]");
    let config = config::parse("test.toml", &text).unwrap().config;
    let shown: Vec<String> = config.trusted_proxies.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["::1/128", "10.0.0.0/8"]);
    let text = with("[[listen]]", "[headers]\nforwarded = \"x\"\n[[listen]]");
    assert!(found(&text)[0].contains("3:13 `x` is no way to tell for whom a proxy asks"));
}

#[test]
fn names_of_requests_have_their_defaults() {
    let headers = config::parse("test.toml", &with("[[listen]]", "[headers]\n[[listen]]"));
    let headers = headers.unwrap().config.headers;
    assert_eq!((headers.request_id, headers.traceparent), (true, false));
    assert_eq!(headers.forwarded, Forwarded::XForwarded);
}

#[test]
fn rates() {
    let rate = |keys: &str, expected: &str| route(&format!("limits.rate = {{ {keys} }}"), expected);
    rate("", "7:15 a rate needs a number of requests | add `requests = 100`");
    rate("requests = 0", "`requests` must be from 1 to");
    rate("requests = 1, per = \"25h\"", "`per` must be from 1ms to 24h");
    rate("requests = 1, burst = 0", "`burst` must be from 1 to");
    rate("requests = 1, by = \"cookie\"", "requests cannot be counted by `cookie` | write");
    rate("requests = 100001", "a rate of more than 100000 a second cannot be kept");
    rate(
        "requests = 1, per = \"1h\", burst = 25",
        "the burst is more than the rate gives in a day",
    );
    let rate_of = |keys: &str| {
        let text = with("[pool.web]", &format!("limits.rate = {{ {keys} }}\n[pool.web]"));
        config::parse("test.toml", &text).unwrap().config.routes[0].rate.unwrap()
    };
    let rate = rate_of("requests = 7");
    assert_eq!((rate.requests.get(), rate.burst.get()), (7, 7));
    assert_eq!((rate.per, rate.by), (Duration::from_secs(1), RateKey::Client));
    let rate = rate_of("requests = 7, per = \"1m\", burst = 70, by = \"route\"");
    assert_eq!((rate.burst.get(), rate.per), (70, Duration::from_secs(60)));
    assert_eq!(rate.by, RateKey::Route);
}

#[test]
fn only_websocket_is_passed_on() {
    route("upgrade = [\"h2c\"]", "7:12 `h2c` is never passed on");
    route("upgrade = [\"tls\"]", "`tls` is no protocol that is passed on | write \"websocket\"");
    let passes = |keys: &str| {
        let text = with("[pool.web]", &format!("{keys}\n[pool.web]"));
        config::parse("test.toml", &text).expect("good").config.routes[0].websocket
    };
    assert!(passes("") && passes("upgrade = [\"WebSocket\"]") && !passes("upgrade = []"));
}

#[test]
fn the_ledger() {
    let bounds = |keys: &str| {
        let text = with("[[listen]]", &format!("[ledger]\n{keys}\n[[listen]]"));
        config::parse("test.toml", &text).expect("good").config.ledger
    };
    assert_eq!(bounds(""), LedgerBounds::default());
    let keep = Duration::from_hours(36);
    assert_eq!(bounds("keep = \"36h\"\nmax = 7"), LedgerBounds { keep, at_most: 7 });
    let flaw = |keys: &str, expected: &str| {
        line("[[listen]]", &format!("[ledger]\n{keys}"), expected);
    };
    flaw("keep = 90", "a length of time needs its unit | write it as \"90d\"");
    flaw("keep = \"5m\"", "`keep` must be from 1h to 3650d");
    flaw("keep = \"for ever\"", "`for ever` is not a length of time | write it as \"90d\"");
    flaw("max = 0", "`max` must be from 1 to 1000000");
}

#[test]
fn objectives() {
    let slo = |keys: &str| {
        let text = with("pool = \"web\"", &format!("pool = \"web\"\nslo = {{ {keys} }}"));
        config::parse("test.toml", &text).expect("good").config.routes[0].slo.expect("given")
    };
    let only = slo("availability = \"99.95%\"");
    assert!((only.availability.expect("given") - 0.9995).abs() < 1e-12 && only.latency.is_none());
    let latency = slo("latency = { share = \"90 %\", under = \"300ms\" }").latency.expect("given");
    assert_eq!((latency.share, latency.under), (0.9, Duration::from_millis(300)));
    let flaw = |keys: &str, expected: &str| route(&format!("slo = {{ {keys} }}"), expected);
    flaw("availability = \"99.9\"", "`99.9` is not a share | write it as \"99.9%\"");
    flaw("availability = \"100%\"", "an objective of 100% leaves no budget");
    flaw("availability = \"12%\"", "an objective must be from 50% to below 100%");
    flaw("", "an objective without a promise | add `availability = \"99.9%\"`");
    flaw("latency = { under = \"1s\" }", "a promise of latency needs `share`");
}

#[test]
#[cfg(not(feature = "otlp"))]
fn spans_need_a_program_that_can_export_them() {
    let table = "[otlp]\nendpoint = \"http://127.0.0.1:4318\"";
    let expected = "2:1 this program was built without `otlp` | build it with `cargo build --release \
                    --features otlp`";
    line("[[listen]]", table, expected);
}
