//! Checks of steering keys.

use super::{
    VALID_CONFIG, assert_line_diagnostic, assert_one_diagnostic, assert_pool_diagnostic,
    assert_route_diagnostic, valid_config_with,
};

#[test]
fn invalid_steering_policies_are_reported() {
    assert_pool_diagnostic(
        "steer = \"nearst\"",
        "`nearst` is not a policy | did you mean \"nearest\"?",
    );
    assert_pool_diagnostic(
        "steer = \"by-moon\"",
        "`by-moon` is not a policy | write one of `nearest`, `failover`,",
    );
    assert_pool_diagnostic(
        "steer = 1",
        "`steer` cannot be the integer `1` | write a policy such as \"nearest\"",
    );
    assert_pool_diagnostic("steer = { policy = \"x\" }", "`x` is not a policy");
    assert_pool_diagnostic(
        "steer = { overprovisioning = 0.5 }",
        "`overprovisioning` must be from 1 to 100, not 0.5",
    );
    assert_pool_diagnostic(
        "steer = { overprovisioning = \"1.4\" }",
        "is a number, without quotes | write it as 1.4",
    );
    assert_pool_diagnostic(
        "steer = { overprovisioning = 1.234 }",
        "has two decimals at most, not 1.234",
    );
    assert_pool_diagnostic(
        "steer = { polcy = \"spread\" }",
        "`polcy` is not known here | did you mean `policy`?",
    );
    assert_route_diagnostic(
        "steer = \"spred\"",
        "`spred` is not a policy | did you mean \"spread\"?",
    );
}

#[test]
fn invalid_capacity_and_zone_roles_are_reported() {
    assert_pool_diagnostic("capacity = { rate = 0 }", "`rate` must be from 1 to 100000000, not 0");
    assert_pool_diagnostic("capacity = { requests = \"many\" }", "`many` is not a whole number");
    assert_pool_diagnostic(
        "region.locl.capacity = { rate = 5 }",
        "in the region `locl` | did you mean `local`?",
    );
    let assert_zone_diagnostic =
        |keys: &str, expected: &str| assert_line_diagnostic("endpoints = [", keys, expected);
    assert_zone_diagnostic(
        "role = \"primary\"",
        "`primary` is not a role | write \"active\" or \"standby\"",
    );
    assert_zone_diagnostic("weight = 1001", "`weight` must be from 0 to 1000, not 1001");
    assert_zone_diagnostic("min_capacity = -1", "`min_capacity` must be from 0 to 1000000, not -1");
    assert_zone_diagnostic(
        "capacity = 5",
        "`capacity` cannot be the integer `5` | write a table such as { rate = 500 }",
    );
}

#[test]
fn invalid_geo_settings_are_reported() {
    let geo = "[geo]\ncountry_header = \"x-country\"\n";
    let geo_config_with = |keys: &str| {
        format!("{geo}{}", valid_config_with("[pool.web]", &format!("[pool.web]\n{keys}")))
    };
    assert_one_diagnostic(
        &geo_config_with("steer = { countries = { DEU = [\"local\"] } }"),
        "`DEU` is not a country code | write its two",
    );
    assert_one_diagnostic(
        &geo_config_with("steer = { countries = { DE = [\"lokal\"] } }"),
        "did you mean `local`?",
    );
    assert_one_diagnostic(
        &geo_config_with("region.local.location = [91, 0]"),
        "this is not a location | write latitude and longitude",
    );
    assert_one_diagnostic(
        &geo_config_with("region.local.location = [50.1]"),
        "this is not a location",
    );
    assert_pool_diagnostic(
        "region.local.location = [50.1, 8.7]",
        "there is no source for the location of clients of the pool `web`",
    );
    assert_one_diagnostic(
        &format!("[geo]\n{VALID_CONFIG}"),
        "there is no source for the location of clients | add `database`",
    );
    assert_one_diagnostic(
        &format!("[geo]\ncountry_header = \"a b\"\n{VALID_CONFIG}"),
        "`a b` is not a header name",
    );
    assert_one_diagnostic(
        &format!("[geo]\ndatabase = \"nowhere.mmdb\"\n{VALID_CONFIG}"),
        "cannot read `nowhere.mmdb`",
    );
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    assert_one_diagnostic(
        &format!("[geo]\ndatabase = \"{file}\"\n{VALID_CONFIG}"),
        "is not a database in MaxMind's format",
    );
}
