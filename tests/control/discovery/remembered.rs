//! What names led to outlives reloads, upgrades and restarts.

use tempfile::TempDir;

use super::{Knot, QUICK, a, alike, config, name, wait_for};
use crate::support::instance::Gapless;
use crate::support::{SOON, eventually};

#[test]
fn a_reload_keeps_what_names_lead_to() {
    let [one, two] = alike(["one", "two"]);
    let Some(mut knot) = Knot::start(&[a("web", &one), a("more", &two)]) else { return };
    let port = one.address().port();
    let web = format!("\"web.example:{port}\"");
    let gapless = Gapless::start(&config(&knot, QUICK).zone_of("here/a", &web));
    wait_for(&gapless, &[&one]);
    let since = gapless.endpoint(one.address())["since"].clone();
    // Nobody is asked any more, and still nothing is lost.
    knot.kill();
    let more = format!("{web}, \"more.example:{port}\"");
    gapless.write(&config(&knot, QUICK).zone_of("here/a", &more).text());
    eventually("the reload", SOON, || gapless.generation() == 2);
    assert_eq!(gapless.get("/").text(), "one");
    assert_eq!(gapless.endpoint(one.address())["since"], since);
    knot.run();
    wait_for(&gapless, &[&one, &two]);
    gapless
        .write(&config(&knot, QUICK).zone_of("here/a", &format!("\"more.example:{port}\"")).text());
    wait_for(&gapless, &[&two]);
}

#[test]
fn an_upgrade_and_a_restart_begin_with_what_was_found_last() {
    let [one] = alike(["one"]);
    let Some(mut knot) = Knot::start(&[a("web", &one)]) else { return };
    let state = TempDir::new().expect("a directory");
    let endpoints = format!("\"web.example:{}\"", one.address().port());
    let config = config(&knot, QUICK).zone_of("here/a", &endpoints);
    let kept = config.clone().keys(&format!("state_dir = \"{}\"", state.path().display()));

    let gapless = Gapless::start(&config);
    wait_for(&gapless, &[&one]);
    let first = Gapless::start(&kept);
    wait_for(&first, &[&one]);
    let file = state.path().join("names.json");
    eventually("it is written down", SOON, || {
        std::fs::read_to_string(&file).is_ok_and(|text| text.contains("127.0.0.2"))
    });
    drop(first);
    knot.kill();

    gapless.upgrade();
    assert_eq!(gapless.get("/").text(), "one");
    assert_eq!(name(&gapless)["state"], "remembered");

    let second = Gapless::start(&kept);
    wait_for(&second, &[&one]);
    assert_eq!(second.get("/").text(), "one");
    assert_eq!(name(&second)["state"], "remembered");
    knot.run();
    for gapless in [&gapless, &second] {
        eventually("DNS says so again", SOON, || name(gapless)["state"] == "found");
    }

    // Without a file there is nothing to begin with, and that is no error.
    knot.kill();
    std::fs::write(&file, "{").expect("written");
    drop(second);
    let third = Gapless::start(&kept);
    assert_eq!(name(&third)["state"], "pending");
    knot.run();
    wait_for(&third, &[&one]);
}
