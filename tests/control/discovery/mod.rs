//! Endpoints that are found by name, asked of a real server (Knot DNS) that is changed, killed and slowed.

mod faulty;
mod found;
mod knot;
mod remembered;
mod services;

use std::net::{Ipv4Addr, SocketAddr};

use serde_json::Value;

use crate::support::config::Config;
use crate::support::endpoint::Endpoint;
use crate::support::instance::Gapless;
use crate::support::{SOON, eventually};
use knot::Knot;

/// Names are looked up often, so that tests need not wait.
const QUICK: &str =
    "min_ttl = \"100ms\"\nretry = \"100ms\"\nretry_max = \"200ms\"\ntimeout = \"500ms\"";

/// Asks this server, with these keys.
fn config(knot: &Knot, keys: &str) -> Config {
    let allow = "allow = [\"127.0.0.0/8\", \"::1\"]";
    Config::new().tables(&format!("[dns]\nservers = [\"{}\"]\n{allow}\n{keys}", knot.address()))
}

/// Endpoints with one port, which a host has at several addresses.
fn alike<const N: usize>(names: [&str; N]) -> [Endpoint; N] {
    let mut port = 0;
    let mut host = 1;
    names.map(|name| {
        host += 1;
        let endpoint =
            Endpoint::start_at(name, SocketAddr::from((Ipv4Addr::new(127, 0, 0, host), port)));
        port = endpoint.address().port();
        endpoint
    })
}

/// The record of a host with this endpoint's address.
fn a(name: &str, endpoint: &Endpoint) -> String {
    format!("{name} A {}", endpoint.address().ip())
}

/// What is known of the only name.
#[track_caller]
fn name(gapless: &Gapless) -> Value {
    gapless.api("/api/v1/discovery")["names"][0].clone()
}

/// How it stands with one lookup.
#[track_caller]
fn lookup(gapless: &Gapless, name: &str, record: &str) -> Value {
    let told = gapless.api("/api/v1/discovery");
    let all = told["lookups"].as_array().expect("a list");
    let one = all.iter().find(|one| one["name"] == name && one["record"] == record);
    one.unwrap_or_else(|| panic!("no lookup of {name} {record} in {told:#}")).clone()
}

/// Waits until these endpoints are there, all of them up, and no others.
#[track_caller]
fn wait_for(gapless: &Gapless, wanted: &[&Endpoint]) {
    let mut wanted: Vec<String> = wanted.iter().map(|one| one.address().to_string()).collect();
    wanted.sort_unstable();
    eventually(&format!("{wanted:?} are up"), SOON, || {
        let all = gapless.endpoints();
        let text = |one: &Value| one["address"].as_str().expect("text").to_owned();
        let mut found: Vec<String> = all.iter().map(text).collect();
        found.sort_unstable();
        found == wanted && all.iter().all(|one| one["state"] == "up")
    });
}
