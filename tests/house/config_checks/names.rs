//! Endpoints that are found by name, and how names are looked up.

use gapless::config;
use gapless::logic::discovery::{Empty, Family, Policy, Wanted};

use super::{GOOD, one, with};

/// Asserts that this endpoint is exactly one error.
#[track_caller]
fn endpoint(text: &str, expected: &str) {
    one(&with("\"127.0.0.1:18081\"", text), expected);
}

/// Asserts that these keys of `[dns]` are exactly one error.
#[track_caller]
fn dns(keys: &str, expected: &str) {
    one(&with("[[listen]]", &format!("[dns]\n{keys}\n[[listen]]")), expected);
}

#[test]
fn what_can_be_no_name_says_how_it_is_written() {
    endpoint("\"web\"", "13:14 `web` has no port | write it as \"web:9000\"; a service");
    endpoint("\"web.example:\"", "13:14 `web.example:` has no port");
    endpoint("\"web.example:0\"", "13:14 nothing can be reached at port 0");
    endpoint("\"web.example:65536\"", "`65536` is no port | write a number from 1 to 65535");
    endpoint("\"web.example:http\"", "`http` is no port");
    endpoint("\"http://web.example:80\"", "is a URL, not an address");
    endpoint("\"10.0.0.256:80\"", "`10.0.0.256:80` is not an ip:port");
    endpoint("\"web..example:80\"", "`web..example` has nothing between two dots");
    endpoint("\".example:80\"", "`.example` has nothing between two dots");
    endpoint("\"-web.example:80\"", "`-web.example` has the part `-web`");
    endpoint("\"wéb.example:80\"", "has a `é` in it | names have letters, digits,");
    let label = "a".repeat(64);
    endpoint(&format!("\"{label}.example:80\""), "has a part of 64 characters");
    let long = ["a".repeat(63).as_str(); 4].join(".");
    endpoint(&format!("\"{long}:80\""), "has 255 characters | names in DNS have 253 at most");
    endpoint("{ srv = \"_http._tcp.web:80\" }", "a service has no port: its records say which");
    endpoint("{ srv = \"\" }", "13:22 `` is not a name");
    endpoint(
        "{ srv = \"_http._tcp.web\", address = \"web:80\" }",
        "13:22 an endpoint has an `address` or is a `srv` | list them apart",
    );
    endpoint("{ srw = \"_http._tcp.web\" }", "did you mean `srv`?");
    endpoint("{ weight = 2 }", "13:14 an endpoint needs an address");
}

#[test]
fn a_name_is_listed_once_in_a_pool() {
    let twice = "13:32 this pool already has the name web.example:80 | list each once";
    endpoint("\"web.example:80\", \"WEB.example:80\"", twice);
    endpoint("{ srv = \"a\" }, { srv = \"a\", weight = 2 }", "already has the name srv a");
    let other_port = with("\"127.0.0.1:18081\"", "\"web.example:80\", \"web.example:81\"");
    assert!(config::parse("test.toml", &other_port).is_ok());
}

#[test]
fn how_names_are_looked_up() {
    dns("servers = []", "2:1 `servers` has no server");
    dns("servers = [\"::1:53x\"]", "3:12 `::1:53x` is not an ip:port");
    dns("servers = [\"ns.example:53\"]", "`ns.example` is a host name, and an ip:port is needed");
    dns("servers = [\"10.0.0.53:0\"]", "nothing can be reached at port 0");
    dns("servers = [\"10.0.0.53\", \"10.0.0.53:53\"]", "3:25 10.0.0.53:53 is named twice");
    dns("min_ttl = \"10m\"", "`min_ttl` (10m) is longer than `max_ttl` (5m, the default)");
    dns("retry = \"1m\"", "`retry` (1m) is longer than `retry_max` (30s, the default)");
    dns("timeout = \"0s\"", "`timeout` cannot be zero");
    dns("family = \"ipv5\"", "`ipv5` is no family of addresses | write \"both\", \"ipv4\" or");
    dns("empty = \"drop\"", "`drop` is not what can be done when a name has no endpoints");
    dns("allow = [\"127.0.0.1/8\"]", "`127.0.0.1/8` has bits set beyond its first 8");
    dns("allow = [\"loopback\"]", "`loopback` is not a network");
    dns("max_answers = 0", "`max_answers` must be from 1 to 10000, not 0");
    dns("min = \"1s\"", "`min` is not known here");
}

#[test]
fn what_is_right_is_read() {
    let text = with(
        "\"127.0.0.1:18081\"",
        "\"127.0.0.1:18081\", \"Web.Example.:80\", { srv = \"_http._tcp.web\", weight = 5 }",
    );
    let keys = "[dns]\nservers = [\"10.0.0.53\", \"[fd00::53]:5353\"]\ntimeout = \"1s\"\n\
                min_ttl = \"5s\"\nmax_ttl = \"1m\"\nfamily = \"ipv4\"\nempty = \"obey\"\n";
    let loaded = config::parse("test.toml", &format!("{keys}{text}")).expect("a good file");
    let dns = &loaded.config.dns;
    let servers: Vec<String> = dns.servers.iter().flatten().map(ToString::to_string).collect();
    assert_eq!(servers, ["10.0.0.53:53", "[fd00::53]:5353"]);
    let Policy { family, empty, min_ttl, max_ttl, .. } = dns.policy;
    assert_eq!((family, empty), (Family::Ipv4, Empty::Obey));
    assert_eq!((min_ttl.as_secs(), max_ttl.as_secs()), (5, 60));
    let entries: Vec<(String, u32)> =
        dns.entries.iter().map(|entry| (entry.wanted.to_string(), entry.weight)).collect();
    let expected = [("web.example.:80", 1), ("srv _http._tcp.web", 5)];
    assert_eq!(entries, expected.map(|(name, weight)| (name.to_owned(), weight)));
    assert!(matches!(dns.entries[0].wanted, Wanted::Host { port: 80, .. }));
    assert_eq!(loaded.config.topology.pools[0].zones[0].endpoints.len(), 1);
    let plain = config::parse("test.toml", GOOD).expect("a good file").config;
    assert_eq!((plain.dns.servers, plain.dns.policy), (None, Policy::default()));
    let needs = loaded.config.needs();
    assert_eq!(needs.probes, 8, "2 endpoints for each name, and 2 lookups of it at once");
}
