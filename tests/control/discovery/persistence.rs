//! Answers survive reloads, upgrades and restarts.

use tempfile::TempDir;

use super::{
    FAST_DNS, Knot, a_record, dns_config, endpoints_on_same_port, first_name_status,
    wait_for_up_endpoints,
};
use crate::support::instance::Gapless;
use crate::support::{DEFAULT_TIMEOUT, eventually};

#[test]
fn reload_keeps_resolved_endpoints() {
    let [one, two] = endpoints_on_same_port(["one", "two"]);
    let Some(mut knot) = Knot::start(&[a_record("web", &one), a_record("more", &two)]) else {
        return;
    };
    let port = one.address().port();
    let web = format!("\"web.example:{port}\"");
    let gapless = Gapless::start(&dns_config(&knot, FAST_DNS).zone_with_entries("here/a", &web));
    wait_for_up_endpoints(&gapless, &[&one]);
    let since = gapless.endpoint(one.address())["since"].clone();
    // No server is queried any more, and nothing is lost.
    knot.kill();
    let more = format!("{web}, \"more.example:{port}\"");
    gapless.write_config(&dns_config(&knot, FAST_DNS).zone_with_entries("here/a", &more).text());
    eventually("the reload", DEFAULT_TIMEOUT, || gapless.generation() == 2);
    assert_eq!(gapless.get("/").text(), "one");
    assert_eq!(gapless.endpoint(one.address())["since"], since);
    knot.start_process();
    wait_for_up_endpoints(&gapless, &[&one, &two]);
    gapless.write_config(
        &dns_config(&knot, FAST_DNS)
            .zone_with_entries("here/a", &format!("\"more.example:{port}\""))
            .text(),
    );
    wait_for_up_endpoints(&gapless, &[&two]);
}

#[test]
fn upgrade_and_restart_begin_with_stored_endpoints() {
    let [one] = endpoints_on_same_port(["one"]);
    let Some(mut knot) = Knot::start(&[a_record("web", &one)]) else { return };
    let state = TempDir::new().expect("a directory");
    let endpoints = format!("\"web.example:{}\"", one.address().port());
    let config = dns_config(&knot, FAST_DNS).zone_with_entries("here/a", &endpoints);
    let config_with_state_dir =
        config.clone().keys(&format!("state_dir = \"{}\"", state.path().display()));

    let gapless = Gapless::start(&config);
    wait_for_up_endpoints(&gapless, &[&one]);
    let first = Gapless::start(&config_with_state_dir);
    wait_for_up_endpoints(&first, &[&one]);
    let file = state.path().join("names.json");
    eventually("it is written down", DEFAULT_TIMEOUT, || {
        std::fs::read_to_string(&file).is_ok_and(|text| text.contains("127.0.0.2"))
    });
    drop(first);
    knot.kill();

    gapless.upgrade();
    assert_eq!(gapless.get("/").text(), "one");
    assert_eq!(first_name_status(&gapless)["state"], "remembered");

    let second = Gapless::start(&config_with_state_dir);
    wait_for_up_endpoints(&second, &[&one]);
    assert_eq!(second.get("/").text(), "one");
    assert_eq!(first_name_status(&second)["state"], "remembered");
    knot.start_process();
    for gapless in [&gapless, &second] {
        eventually("DNS says so again", DEFAULT_TIMEOUT, || {
            first_name_status(gapless)["state"] == "found"
        });
    }

    // A missing file is no error.
    knot.kill();
    std::fs::write(&file, "{").expect("written");
    drop(second);
    let third = Gapless::start(&config_with_state_dir);
    assert_eq!(first_name_status(&third)["state"], "pending");
    knot.start_process();
    wait_for_up_endpoints(&third, &[&one]);
}
