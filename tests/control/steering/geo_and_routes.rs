//! Requests that are steered by their route, or by their client's location, instead of the pool's
//! policy.

use std::path::Path;

use super::{SteeringZone, config};
use crate::support::client::{TestClient, TestResponse};
use crate::support::instance::Gapless;

fn region(answer: &TestResponse) -> String {
    let text = answer.text();
    text.split('/').next().expect("a region").to_owned()
}

fn geo_database_path() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/GeoIP2-City-Test.mmdb");
    path.display().to_string()
}

const ZONE_NAMES: [&str; 3] = ["us/a", "eu/a", "jp/a"];

/// The regions of the pool with their locations, and a country's own order.
const GEO_STEERING_KEYS: &str = "steer = { countries = { CN = [\"jp\", \"eu\"] } }\n\
    region.us.location = [32.8, -96.8]\n\
    region.eu.location = [50.1, 8.7]\n\
    region.jp.location = [35.7, 139.7]";

#[test]
fn clients_are_steered_to_their_nearest_region() {
    let zones = ZONE_NAMES.map(SteeringZone::new);
    let geo = format!(
        "trusted_proxies = [\"127.0.0.0/8\"]\n\
         geo = {{ database = \"{}\", country_header = \"x-country\" }}",
        geo_database_path()
    );
    let gapless = Gapless::start_ready(&config(&zones, GEO_STEERING_KEYS).keys(&geo));
    let get_region = |fields: &[(&str, &str)]| {
        let mut client = TestClient::open(gapless.address);
        region(&client.exchange("GET", "/", fields, b"").expect("an answer"))
    };
    assert_eq!(get_region(&[]), "us", "nothing is known of loopback");
    assert_eq!(get_region(&[("x-forwarded-for", "81.2.69.160")]), "eu", "London");
    assert_eq!(
        get_region(&[("x-forwarded-for", "175.16.199.1")]),
        "jp",
        "Changchun, and China is named"
    );
    assert_eq!(get_region(&[("x-country", "CN")]), "jp");
    assert_eq!(get_region(&[("x-country", "de")]), "us", "no country of ours, and no place");
    // The near region is preferred, and the others remain as fallback.
    zones[1].refuse_connections();
    super::eventually("eu is left", super::DEFAULT_TIMEOUT, || {
        gapless.endpoint_state(zones[1].endpoints[0].address()) == "down"
            && gapless.endpoint_state(zones[1].endpoints[1].address()) == "down"
    });
    assert_eq!(
        get_region(&[("x-forwarded-for", "81.2.69.160")]),
        "us",
        "the next one from Frankfurt"
    );
}

#[test]
fn country_header_of_untrusted_client_is_ignored() {
    let zones = ZONE_NAMES.map(SteeringZone::new);
    let geo = "geo = { country_header = \"x-country\" }";
    let gapless = Gapless::start_ready(&config(&zones, GEO_STEERING_KEYS).keys(geo));
    let mut client = TestClient::open(gapless.address);
    let answer = client.exchange("GET", "/", &[("x-country", "CN")], b"").expect("an answer");
    assert_eq!(region(&answer), "us");
}

#[test]
fn route_policy_overrides_pool_policy() {
    let zones = ZONE_NAMES.map(SteeringZone::new);
    let route = "[[route]]\npath = \"/all/\"\npool = \"web\"\nsteer = \"spread\"";
    let gapless = Gapless::start_ready(&config(&zones, "").tables(route));
    let mut client = TestClient::open(gapless.address);
    let mut regions_for = |path: &str| {
        let mut regions: Vec<String> = (0..60).map(|_| region(&client.get(path))).collect();
        regions.sort();
        regions.dedup();
        regions
    };
    assert_eq!(regions_for("/"), ["us"]);
    assert_eq!(regions_for("/all/"), ["eu", "jp", "us"]);
}
