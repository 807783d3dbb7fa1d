//! The instance as a whole: listeners, limits, its place.

use gapless::config;

use super::{GOOD, found, line, one, with};

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
    one(&with("address = ", "# "), "2:1 a listener needs an address | add `address");
    one(&with(address, "\"localhost:1\""), "3:11 `localhost` is a host name");
    let second = |address| format!("[[listen]]\naddress = \"{address}\"\n\n{GOOD}");
    one(&second("127.0.0.1:18080"), "6:11 127.0.0.1:18080 is already listened on");
    one(&second("0.0.0.0:18080"), "6:11 127.0.0.1:18080 is already listened on, as 0.0.0.0:18080");
    assert_eq!(found(&second("127.0.0.1:18089")), [""; 0]);
    let two_free = second("127.0.0.1:0").replace(address, "\"127.0.0.1:0\"");
    assert_eq!(found(&two_free), [""; 0], "port 0 is another port each time");
}

#[test]
fn there_are_bounds_on_listeners() {
    let many: String =
        (1..=300).map(|port| format!("[[listen]]\naddress = \"127.0.0.1:{port}\"\n")).collect();
    one(&format!("{many}{GOOD}"), "513:1 there are more than 256 listeners");
}

#[test]
fn admin() {
    let admin = |address, expected| {
        line("[[listen]]", &format!("[admin]\naddress = {address}"), expected);
    };
    admin("\"0.0.0.0:9900\"", "3:11 0.0.0.0 can be reached by others, and admin has neither TLS");
    admin("\"10.0.0.1:9900\"", "use a loopback address, such as \"127.0.0.1:9900\", or \"off\"");
    admin("\"127.0.0.1:18080\"", "clients are listened for on 127.0.0.1:18080");
    admin("\"of\"", "`of` is a host name");
    one(&with("18080", "9900"), "3:11 127.0.0.1:9900 is the admin listener's, by default");
    let off = with("[[listen]]", "[admin]\naddress = \"off\"\n[[listen]]").replace("18080", "9900");
    assert!(config::parse("test.toml", &off).unwrap().config.admin.address.is_none());
}

#[test]
fn the_instance() {
    line("[[listen]]", "workers = 0", "2:11 `workers` must be from 1 to 1024, not 0");
    line("[[listen]]", "workers = \"2\"", "`workers` is a number, without quotes | write it as 2");
    line("[[listen]]", "workers = \"two\"", "`two` is not a whole number");
    line("[[listen]]", "state_dir = \"\"", "`state_dir` is not a path");
    line("[[listen]]", "headers = { via = \"a b\" }", "`a b` cannot stand in a `Via` header");
    line(
        "[[listen]]",
        "headers = { expose = 1 }",
        "`expose` cannot be the integer `1` | write a boolean",
    );
    line("[[listen]]", "shutdown = { drain = \"8d\" }", "`8d` is not a duration");
    line("[[listen]]", "shutdown = { drain = \"200h\" }", "`drain` must be from 0s to 168h");
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
    limits("header = \"60k\"", "`k` is not a unit of size | write it as \"60KiB\"");
    limits("header = -1", "`-1` is not a size");
    limits("connections = 0", "`connections` must be from 1 to 10000000, not 0");
    limits("header_count = 0", "`header_count` must be from 1 to 10000, not 0");
    limits(
        "header_timeout = \"0s\"",
        "`header_timeout` cannot be zero | write a duration such as \"10s\"",
    );
    limits(
        "idle_timeout = \"0s\"",
        "`idle_timeout` cannot be zero | write a duration such as \"5m\"",
    );
    limits(
        "body_rate = \"2MiB\"",
        "`body_rate` must be from 0B to 1MiB | write a size such as \"500B\"",
    );
    limits(
        "memory = \"15MiB\"",
        "`memory` must be at least 16MiB | write a size such as \"512MiB\", or \"unlimited\"",
    );
    limits("header_size = 1", "`header_size` is not known here | did you mean `header`?");
}

#[test]
fn the_place_of_this_instance() {
    line("[[listen]]", "self = \"local\"", "2:8 `local` is not a region and a zone");
    line("[[listen]]", "self = \"remote/a\"", "2:8 no pool has an endpoint in the region remote");
    line("[[listen]]", "self = \"lcoal/a\"", "| did you mean `local/a`?");
    line("[[listen]]", "self = \"local/b\"", "no pool has an endpoint in the zone local/b");
    let other_zone = with("[[listen]]", "self = \"local/b\"\n[[listen]]");
    assert!(config::parse("test.toml", &other_zone).is_ok(), "another zone is only a warning");
}
