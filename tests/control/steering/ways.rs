//! Requests that are led otherwise than by the policy of their pool: by their route, or by where their
//! client is.

use std::path::Path;

use super::{Zone, config};
use crate::support::client::{Answer, Client};
use crate::support::instance::Gapless;

/// What answered.
fn region(answer: &Answer) -> String {
    let text = answer.text();
    text.split('/').next().expect("a region").to_owned()
}

fn database() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/GeoIP2-City-Test.mmdb");
    path.display().to_string()
}

const ZONES: [&str; 3] = ["us/a", "eu/a", "jp/a"];

/// The regions of the pool, with their places, and what a country has of its own.
const PLACES: &str = "steer = { countries = { CN = [\"jp\", \"eu\"] } }\n\
    region.us.location = [32.8, -96.8]\n\
    region.eu.location = [50.1, 8.7]\n\
    region.jp.location = [35.7, 139.7]";

#[test]
fn clients_are_led_to_the_region_that_is_near_them() {
    let zones = ZONES.map(Zone::new);
    let geo = format!(
        "trusted_proxies = [\"127.0.0.0/8\"]\n\
         geo = {{ database = \"{}\", country_header = \"x-country\" }}",
        database()
    );
    let gapless = Gapless::start_ready(&config(&zones, PLACES).keys(&geo));
    let ask = |fields: &[(&str, &str)]| {
        let mut client = Client::open(gapless.address);
        region(&client.exchange("GET", "/", fields, b"").expect("an answer"))
    };
    assert_eq!(ask(&[]), "us", "nothing is known of loopback");
    assert_eq!(ask(&[("x-forwarded-for", "81.2.69.160")]), "eu", "London");
    assert_eq!(ask(&[("x-forwarded-for", "175.16.199.1")]), "jp", "Changchun, and China is named");
    assert_eq!(ask(&[("x-country", "CN")]), "jp");
    assert_eq!(ask(&[("x-country", "de")]), "us", "no country of ours, and no place");
    // Whoever is near is asked first, and the others are there.
    zones[1].refuse();
    super::eventually("eu is left", super::SOON, || {
        gapless.state(zones[1].endpoints[0].address()) == "down"
            && gapless.state(zones[1].endpoints[1].address()) == "down"
    });
    assert_eq!(ask(&[("x-forwarded-for", "81.2.69.160")]), "us", "the next one from Frankfurt");
}

#[test]
fn a_header_of_just_anybody_tells_nothing() {
    let zones = ZONES.map(Zone::new);
    let geo = "geo = { country_header = \"x-country\" }";
    let gapless = Gapless::start_ready(&config(&zones, PLACES).keys(geo));
    let mut client = Client::open(gapless.address);
    let answer = client.exchange("GET", "/", &[("x-country", "CN")], b"").expect("an answer");
    assert_eq!(region(&answer), "us");
}

#[test]
fn a_route_may_have_a_policy_of_its_own() {
    let zones = ZONES.map(Zone::new);
    let route = "[[route]]\npath = \"/all/\"\npool = \"web\"\nsteer = \"spread\"";
    let gapless = Gapless::start_ready(&config(&zones, "").tables(route));
    let mut client = Client::open(gapless.address);
    let mut asked = |path: &str| {
        let mut regions: Vec<String> = (0..60).map(|_| region(&client.get(path))).collect();
        regions.sort();
        regions.dedup();
        regions
    };
    assert_eq!(asked("/"), ["us"]);
    assert_eq!(asked("/all/"), ["eu", "jp", "us"]);
}
