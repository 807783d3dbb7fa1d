//! Endpoints by name, with a real server (Knot DNS) that is changed, killed and slowed.

mod dns_failures;
mod host_lookup;
mod knot;
mod persistence;
mod srv_records;

use std::net::{Ipv4Addr, SocketAddr};

use serde_json::Value;

use crate::support::config::ConfigBuilder;
use crate::support::endpoint::TestEndpoint;
use crate::support::instance::Gapless;
use crate::support::{DEFAULT_TIMEOUT, eventually};
use knot::Knot;

/// Short TTLs, so that tests need not wait.
const FAST_DNS: &str =
    "min_ttl = \"100ms\"\nretry = \"100ms\"\nretry_max = \"200ms\"\ntimeout = \"500ms\"";

/// A configuration that uses this server, with these keys.
fn dns_config(knot: &Knot, keys: &str) -> ConfigBuilder {
    let allow = "allow = [\"127.0.0.0/8\", \"::1\"]";
    ConfigBuilder::new()
        .tables(&format!("[dns]\nservers = [\"{}\"]\n{allow}\n{keys}", knot.address()))
}

/// Endpoints with one port at several addresses.
fn endpoints_on_same_port<const N: usize>(names: [&str; N]) -> [TestEndpoint; N] {
    let mut port = 0;
    let mut host = 1;
    names.map(|name| {
        host += 1;
        let endpoint =
            TestEndpoint::start_at(name, SocketAddr::from((Ipv4Addr::new(127, 0, 0, host), port)));
        port = endpoint.address().port();
        endpoint
    })
}

/// An address record with this endpoint's address.
fn a_record(name: &str, endpoint: &TestEndpoint) -> String {
    format!("{name} A {}", endpoint.address().ip())
}

/// The discovery status of the only name.
#[track_caller]
fn first_name_status(gapless: &Gapless) -> Value {
    gapless.api_json("/api/v1/discovery")["names"][0].clone()
}

/// The status of one lookup.
#[track_caller]
fn lookup_status(gapless: &Gapless, name: &str, record: &str) -> Value {
    let discovery = gapless.api_json("/api/v1/discovery");
    let all = discovery["lookups"].as_array().expect("a list");
    let one = all.iter().find(|one| one["name"] == name && one["record"] == record);
    one.unwrap_or_else(|| panic!("no lookup of {name} {record} in {discovery:#}")).clone()
}

/// Waits until exactly these endpoints exist and are up.
#[track_caller]
fn wait_for_up_endpoints(gapless: &Gapless, expected: &[&TestEndpoint]) {
    let mut expected: Vec<String> = expected.iter().map(|one| one.address().to_string()).collect();
    expected.sort_unstable();
    eventually(&format!("{expected:?} are up"), DEFAULT_TIMEOUT, || {
        let all = gapless.endpoints();
        let text = |one: &Value| one["address"].as_str().expect("text").to_owned();
        let mut found: Vec<String> = all.iter().map(text).collect();
        found.sort_unstable();
        found == expected && all.iter().all(|one| one["state"] == "up")
    });
}
