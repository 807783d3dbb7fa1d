//! Checks of endpoints by name and of `[dns]`.

use gapless::config;
use gapless::logic::discovery::{AddressFamily, DiscoveryName, EmptyAnswerPolicy, LookupPolicy};

use super::{VALID_CONFIG, assert_one_diagnostic, valid_config_with};

/// Asserts that this endpoint is exactly one error.
#[track_caller]
fn assert_endpoint_diagnostic(text: &str, expected: &str) {
    assert_one_diagnostic(&valid_config_with("\"127.0.0.1:18081\"", text), expected);
}

/// Asserts that these keys of `[dns]` are exactly one error.
#[track_caller]
fn assert_dns_diagnostic(keys: &str, expected: &str) {
    assert_one_diagnostic(
        &valid_config_with("[[listen]]", &format!("[dns]\n{keys}\n[[listen]]")),
        expected,
    );
}

#[test]
fn invalid_dns_names_are_reported_with_help() {
    assert_endpoint_diagnostic(
        "\"web\"",
        "13:14 `web` has no port | write it as \"web:9000\"; a service",
    );
    assert_endpoint_diagnostic("\"web.example:\"", "13:14 `web.example:` has no port");
    assert_endpoint_diagnostic("\"web.example:0\"", "13:14 nothing can be reached at port 0");
    assert_endpoint_diagnostic(
        "\"web.example:65536\"",
        "`65536` is not a port | write a number from 1 to 65535",
    );
    assert_endpoint_diagnostic("\"web.example:http\"", "`http` is not a port");
    assert_endpoint_diagnostic("\"http://web.example:80\"", "is a URL, not an address");
    assert_endpoint_diagnostic("\"10.0.0.256:80\"", "`10.0.0.256:80` is not an ip:port");
    assert_endpoint_diagnostic("\"web..example:80\"", "`web..example` has an empty label");
    assert_endpoint_diagnostic("\".example:80\"", "`.example` has an empty label");
    assert_endpoint_diagnostic("\"-web.example:80\"", "`-web.example` has the label `-web`");
    assert_endpoint_diagnostic(
        "\"wéb.example:80\"",
        "has a `é` in it | names have letters, digits,",
    );
    let label = "a".repeat(64);
    assert_endpoint_diagnostic(&format!("\"{label}.example:80\""), "has a label of 64 characters");
    let long = ["a".repeat(63).as_str(); 4].join(".");
    assert_endpoint_diagnostic(
        &format!("\"{long}:80\""),
        "has 255 characters | a DNS name has at most 253 characters",
    );
    assert_endpoint_diagnostic(
        "{ srv = \"_http._tcp.web:80\" }",
        "a service has no port: its records say which",
    );
    assert_endpoint_diagnostic("{ srv = \"\" }", "13:22 `` is not a name");
    assert_endpoint_diagnostic(
        "{ srv = \"_http._tcp.web\", address = \"web:80\" }",
        "13:22 an endpoint has an `address` or is a `srv` | list them apart",
    );
    assert_endpoint_diagnostic("{ srw = \"_http._tcp.web\" }", "did you mean `srv`?");
    assert_endpoint_diagnostic("{ weight = 2 }", "13:14 an endpoint needs an address");
}

#[test]
fn duplicate_dns_name_in_pool_is_reported() {
    let twice = "13:32 this pool already has the name web.example:80 | list each once";
    assert_endpoint_diagnostic("\"web.example:80\", \"WEB.example:80\"", twice);
    assert_endpoint_diagnostic(
        "{ srv = \"a\" }, { srv = \"a\", weight = 2 }",
        "already has the name srv a",
    );
    let other_port =
        valid_config_with("\"127.0.0.1:18081\"", "\"web.example:80\", \"web.example:81\"");
    assert!(config::parse("test.toml", &other_port).is_ok());
}

#[test]
fn invalid_dns_settings_are_reported() {
    assert_dns_diagnostic("servers = []", "2:1 `servers` has no server");
    assert_dns_diagnostic("servers = [\"::1:53x\"]", "3:12 `::1:53x` is not an ip:port");
    assert_dns_diagnostic(
        "servers = [\"ns.example:53\"]",
        "`ns.example` is a host name, and an ip:port is needed",
    );
    assert_dns_diagnostic("servers = [\"10.0.0.53:0\"]", "nothing can be reached at port 0");
    assert_dns_diagnostic(
        "servers = [\"10.0.0.53\", \"10.0.0.53:53\"]",
        "3:25 10.0.0.53:53 is named twice",
    );
    assert_dns_diagnostic(
        "min_ttl = \"10m\"",
        "`min_ttl` (10m) is longer than `max_ttl` (5m, the default)",
    );
    assert_dns_diagnostic(
        "retry = \"1m\"",
        "`retry` (1m) is longer than `retry_max` (30s, the default)",
    );
    assert_dns_diagnostic("timeout = \"0s\"", "`timeout` cannot be zero");
    assert_dns_diagnostic(
        "family = \"ipv5\"",
        "`ipv5` is not an address family | write \"both\", \"ipv4\" or",
    );
    assert_dns_diagnostic("empty = \"drop\"", "`drop` is not a value of `empty`");
    assert_dns_diagnostic(
        "allow = [\"127.0.0.1/8\"]",
        "`127.0.0.1/8` has bits set beyond its first 8",
    );
    assert_dns_diagnostic("allow = [\"loopback\"]", "`loopback` is not a network");
    assert_dns_diagnostic("max_answers = 0", "`max_answers` must be from 1 to 10000, not 0");
    assert_dns_diagnostic("min = \"1s\"", "`min` is not known here");
}

#[test]
fn valid_dns_names_and_settings_are_parsed() {
    let text = valid_config_with(
        "\"127.0.0.1:18081\"",
        "\"127.0.0.1:18081\", \"Web.Example.:80\", { srv = \"_http._tcp.web\", weight = 5 }",
    );
    let keys = "[dns]\nservers = [\"10.0.0.53\", \"[fd00::53]:5353\"]\ntimeout = \"1s\"\n\
                min_ttl = \"5s\"\nmax_ttl = \"1m\"\nfamily = \"ipv4\"\nempty = \"obey\"\n";
    let loaded = config::parse("test.toml", &format!("{keys}{text}")).expect("a good file");
    let dns = &loaded.config.dns;
    let servers: Vec<String> = dns.servers.iter().flatten().map(ToString::to_string).collect();
    assert_eq!(servers, ["10.0.0.53:53", "[fd00::53]:5353"]);
    let LookupPolicy { family, on_empty: empty, min_ttl, max_ttl, .. } = dns.policy;
    assert_eq!((family, empty), (AddressFamily::Ipv4, EmptyAnswerPolicy::Remove));
    assert_eq!((min_ttl.as_secs(), max_ttl.as_secs()), (5, 60));
    let entries: Vec<(String, u32)> =
        dns.entries.iter().map(|entry| (entry.discovery_name.to_string(), entry.weight)).collect();
    let expected = [("web.example.:80", 1), ("srv _http._tcp.web", 5)];
    assert_eq!(entries, expected.map(|(name, weight)| (name.to_owned(), weight)));
    assert!(matches!(dns.entries[0].discovery_name, DiscoveryName::Host { port: 80, .. }));
    assert_eq!(loaded.config.topology.pools[0].zones[0].endpoints.len(), 1);
    let plain = config::parse("test.toml", VALID_CONFIG).expect("a good file").config;
    assert_eq!((plain.dns.servers, plain.dns.policy), (None, LookupPolicy::default()));
    let needs = loaded.config.descriptor_needs();
    assert_eq!(
        needs.max_concurrent_probes, 8,
        "2 endpoints for each name, and 2 lookups of it at once"
    );
}
