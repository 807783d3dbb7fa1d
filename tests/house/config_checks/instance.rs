//! Checks of the instance: listeners, limits, its zone.

use gapless::config;

use super::{
    VALID_CONFIG, assert_line_diagnostic, assert_one_diagnostic, diagnostics_of, valid_config_with,
};

#[test]
fn valid_config_has_no_diagnostics() {
    assert_eq!(diagnostics_of(VALID_CONFIG), [""; 0]);
}

#[test]
fn empty_config_lacks_listener_and_route() {
    let expected = [
        "1:1 there is no listener | add `[[listen]]` with `address = \"0.0.0.0:8080\"`",
        "1:1 there is no route | add `[[route]]` with `pool = \"…\"`",
    ];
    assert_eq!(diagnostics_of(""), expected);
}

#[test]
fn invalid_listener_addresses_are_reported() {
    let address = "\"127.0.0.1:18080\"";
    assert_one_diagnostic(
        &valid_config_with("address = ", "# "),
        "2:1 a listener needs an address | add `address",
    );
    assert_one_diagnostic(
        &valid_config_with(address, "\"localhost:1\""),
        "3:11 `localhost` is a host name",
    );
    let with_second_listener =
        |address| format!("[[listen]]\naddress = \"{address}\"\n\n{VALID_CONFIG}");
    assert_one_diagnostic(
        &with_second_listener("127.0.0.1:18080"),
        "6:11 127.0.0.1:18080 is already in use",
    );
    assert_one_diagnostic(
        &with_second_listener("0.0.0.0:18080"),
        "6:11 127.0.0.1:18080 is already in use, as 0.0.0.0:18080",
    );
    assert_eq!(diagnostics_of(&with_second_listener("127.0.0.1:18089")), [""; 0]);
    let two_free = with_second_listener("127.0.0.1:0").replace(address, "\"127.0.0.1:0\"");
    assert_eq!(diagnostics_of(&two_free), [""; 0], "port 0 is another port each time");
}

#[test]
fn more_than_256_listeners_are_rejected() {
    let many: String =
        (1..=300).map(|port| format!("[[listen]]\naddress = \"127.0.0.1:{port}\"\n")).collect();
    assert_one_diagnostic(
        &format!("{many}{VALID_CONFIG}"),
        "513:1 there are more than 256 listeners",
    );
}

#[test]
fn invalid_admin_addresses_are_reported() {
    let assert_admin_diagnostic = |address, expected| {
        assert_line_diagnostic("[[listen]]", &format!("[admin]\naddress = {address}"), expected);
    };
    assert_admin_diagnostic(
        "\"0.0.0.0:9900\"",
        "3:11 0.0.0.0 is not loopback, and the admin listener has neither TLS nor a token",
    );
    assert_admin_diagnostic(
        "\"10.0.0.1:9900\"",
        "[status] address = \"10.0.0.1:9900\"` and leave admin on loopback (\"127.0.0.1:9900\"",
    );
    assert_admin_diagnostic(
        "\"127.0.0.1:18080\"",
        "127.0.0.1:18080 is the address of a listener for clients",
    );
    assert_admin_diagnostic("\"of\"", "`of` is a host name");
    assert_one_diagnostic(
        &valid_config_with("18080", "9900"),
        "3:11 127.0.0.1:9900 is the default address of the admin listener",
    );
    let without_admin = valid_config_with("[[listen]]", "[admin]\naddress = \"off\"\n[[listen]]")
        .replace("18080", "9900");
    assert!(config::parse("test.toml", &without_admin).unwrap().config.admin.address.is_none());
}

#[test]
fn reachable_admin_listener_needs_tls_and_a_token() {
    let directory = tempfile::tempdir().expect("a directory");
    let write = |name: &str, text: &str| {
        let file = directory.path().join(name);
        std::fs::write(&file, text).expect("written");
        file.display().to_string()
    };
    let token = write("token", "0123456789abcdef\n");
    let short = write("short", "0123456789");
    let assert_admin = |keys: String, expected| {
        let lines = format!("[admin]\naddress = \"10.0.0.1:9900\"\n{keys}");
        assert_line_diagnostic("[[listen]]", &lines, expected);
    };
    let token_line = format!("token_file = \"{token}\"");
    assert_admin(token_line, "3:11 10.0.0.1 is not loopback, and the admin listener has no TLS");
    let local = |file: &str| format!("[admin]\ntoken_file = \"{file}\"\n[[listen]]");
    assert_eq!(diagnostics_of(&valid_config_with("[[listen]]", &local(&token))), [""; 0]);
    assert_one_diagnostic(
        &valid_config_with("[[listen]]", &local(&short)),
        &format!("3:14 the token in `{short}` has 10 characters, and needs 16 or more | write a"),
    );
    assert_one_diagnostic(
        &valid_config_with("[[listen]]", &local("/nonexistent")),
        "3:14 cannot read `/nonexistent`",
    );
}

#[test]
fn invalid_status_addresses_are_reported() {
    let assert_status_diagnostic = |line: &str, expected| {
        assert_line_diagnostic("[[listen]]", &format!("[status]\n{line}"), expected);
    };
    assert_status_diagnostic("", "2:1 the status listener needs an address | add `address = ");
    assert_status_diagnostic("address = \"lb:1\"", "3:11 `lb` is a host name");
    assert_status_diagnostic(
        "address = \"0.0.0.0:18080\"",
        "3:11 0.0.0.0:18080 is the address of a listener for clients",
    );
    assert_status_diagnostic(
        "address = \"0.0.0.0:9900\"",
        "3:11 0.0.0.0:9900 is the address of the admin listener, 127.0.0.1:9900",
    );
    let anywhere = "[status]\naddress = \"0.0.0.0:9901\"\n[[listen]]";
    assert_eq!(diagnostics_of(&valid_config_with("[[listen]]", anywhere)), [""; 0]);
}

#[test]
fn invalid_instance_settings_are_reported() {
    assert_line_diagnostic(
        "[[listen]]",
        "workers = 0",
        "2:11 `workers` must be from 1 to 1024, not 0",
    );
    assert_line_diagnostic(
        "[[listen]]",
        "workers = \"2\"",
        "`workers` is a number, without quotes | write it as 2",
    );
    assert_line_diagnostic("[[listen]]", "workers = \"two\"", "`two` is not a whole number");
    assert_line_diagnostic("[[listen]]", "state_dir = \"\"", "`state_dir` is not a path");
    assert_line_diagnostic(
        "[[listen]]",
        "headers = { via = \"a b\" }",
        "`a b` cannot stand in a `Via` header",
    );
    assert_line_diagnostic(
        "[[listen]]",
        "headers = { expose = 1 }",
        "`expose` cannot be the integer `1` | write a boolean",
    );
    assert_line_diagnostic("[[listen]]", "shutdown = { drain = \"8d\" }", "`8d` is not a duration");
    assert_line_diagnostic(
        "[[listen]]",
        "shutdown = { drain = \"200h\" }",
        "`drain` must be from 0s to 168h",
    );
}

#[test]
fn invalid_limits_are_reported() {
    let assert_limits_diagnostic = |keys: &str, expected| {
        assert_line_diagnostic("[[listen]]", &format!("limits = {{ {keys} }}"), expected);
    };
    assert_limits_diagnostic(
        "header = \"8191B\"",
        "2:21 `header` must be from 8KiB to 1MiB | write a size such as \"60KiB\"",
    );
    assert_limits_diagnostic("header = \"60\"", "a size in quotes needs its unit");
    assert_limits_diagnostic(
        "header = \"60k\"",
        "`k` is not a unit of size | write it as \"60KiB\"",
    );
    assert_limits_diagnostic("header = -1", "`-1` is not a size");
    assert_limits_diagnostic("connections = 0", "`connections` must be from 1 to 10000000, not 0");
    assert_limits_diagnostic("header_count = 0", "`header_count` must be from 1 to 10000, not 0");
    assert_limits_diagnostic(
        "header_timeout = \"0s\"",
        "`header_timeout` cannot be zero | write a duration such as \"10s\"",
    );
    assert_limits_diagnostic(
        "idle_timeout = \"0s\"",
        "`idle_timeout` cannot be zero | write a duration such as \"5m\"",
    );
    assert_limits_diagnostic(
        "body_rate = \"2MiB\"",
        "`body_rate` must be from 0B to 1MiB | write a size such as \"500B\"",
    );
    assert_limits_diagnostic(
        "memory = \"15MiB\"",
        "`memory` must be at least 16MiB | write a size such as \"512MiB\", or \"unlimited\"",
    );
    assert_limits_diagnostic(
        "header_size = 1",
        "`header_size` is not known here | did you mean `header`?",
    );
}

#[test]
fn unknown_self_zone_is_reported() {
    assert_line_diagnostic(
        "[[listen]]",
        "self = \"local\"",
        "2:8 `local` is not a region and a zone",
    );
    assert_line_diagnostic(
        "[[listen]]",
        "self = \"remote/a\"",
        "2:8 no pool has an endpoint in the region remote",
    );
    assert_line_diagnostic("[[listen]]", "self = \"lcoal/a\"", "| did you mean `local/a`?");
    assert_line_diagnostic(
        "[[listen]]",
        "self = \"local/b\"",
        "no pool has an endpoint in the zone local/b",
    );
    let other_zone = valid_config_with("[[listen]]", "self = \"local/b\"\n[[listen]]");
    assert!(config::parse("test.toml", &other_zone).is_ok(), "another zone is only a warning");
}
