//! How traffic is led.

use super::{GOOD, line, one, pool, route, with};

#[test]
fn policies_and_factors() {
    pool("steer = \"nearst\"", "`nearst` is no policy | did you mean \"nearest\"?");
    pool("steer = \"by-moon\"", "`by-moon` is no policy | write one of `nearest`, `failover`,");
    pool("steer = 1", "`steer` cannot be the integer `1` | write a policy such as \"nearest\"");
    pool("steer = { policy = \"x\" }", "`x` is no policy");
    pool("steer = { overprovisioning = 0.5 }", "`overprovisioning` must be from 1 to 100, not 0.5");
    pool("steer = { overprovisioning = \"1.4\" }", "is a number, without quotes | write it as 1.4");
    pool("steer = { overprovisioning = 1.234 }", "has two decimals at most, not 1.234");
    pool("steer = { polcy = \"spread\" }", "`polcy` is not known here | did you mean `policy`?");
    route("steer = \"spred\"", "`spred` is no policy | did you mean \"spread\"?");
}

#[test]
fn capacity_and_roles() {
    pool("capacity = { rate = 0 }", "`rate` must be from 1 to 100000000, not 0");
    pool("capacity = { requests = \"many\" }", "`many` is not a whole number");
    pool("region.locl.capacity = { rate = 5 }", "in the region `locl` | did you mean `local`?");
    let zone = |keys: &str, expected: &str| line("endpoints = [", keys, expected);
    zone("role = \"primary\"", "`primary` is no role | write \"active\" or \"standby\"");
    zone("weight = 1001", "`weight` must be from 0 to 1000, not 1001");
    zone("min_capacity = -1", "`min_capacity` must be from 0 to 1000000, not -1");
    zone(
        "capacity = 5",
        "`capacity` cannot be the integer `5` | write a table such as { rate = 500 }",
    );
}

#[test]
fn where_clients_are() {
    let geo = "[geo]\ncountry_header = \"x-country\"\n";
    let led = |keys: &str| format!("{geo}{}", with("[pool.web]", &format!("[pool.web]\n{keys}")));
    one(
        &led("steer = { countries = { DEU = [\"local\"] } }"),
        "`DEU` is no country | write its two",
    );
    one(&led("steer = { countries = { DE = [\"lokal\"] } }"), "did you mean `local`?");
    one(&led("region.local.location = [91, 0]"), "this is no place | write latitude and longitude");
    one(&led("region.local.location = [50.1]"), "this is no place");
    pool(
        "region.local.location = [50.1, 8.7]",
        "nothing tells where clients of the pool `web` are",
    );
    one(&format!("[geo]\n{GOOD}"), "nothing tells where clients are | add `database`");
    one(&format!("[geo]\ncountry_header = \"a b\"\n{GOOD}"), "`a b` is no name of a header");
    one(&format!("[geo]\ndatabase = \"nowhere.mmdb\"\n{GOOD}"), "cannot read `nowhere.mmdb`");
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    one(&format!("[geo]\ndatabase = \"{file}\"\n{GOOD}"), "is no database in MaxMind's format");
}
