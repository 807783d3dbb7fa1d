//! `gapless whatif`, as an operator meets it.

use super::{Zone, config, gapless};
use crate::support::SOON;
use crate::support::eventually;
use crate::support::instance::Gapless;

fn text(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = gapless(arguments);
    let said = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (output.status.code(), said(output.stdout), said(output.stderr))
}

#[test]
fn a_file_is_asked_without_an_instance() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/config/steering.toml");
    let (code, said, _) = text(&["whatif", file, "--lose", "us-south/us-south-1", "--rate", "300"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("pool api (nearest, 300 requests/s)"), "{said}");
    let (code, said, _) = text(&["whatif", file, "--lose", "us-south", "--rate", "500"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("us-east would get 500 requests/s and can take 300"), "{said}");
    let (code, _, said) = text(&["whatif", file, "--lose", "us-north"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("has us-north"), "{said}");
    let (code, _, said) = text(&["whatif", file, "--lose", "a/b/c"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("`a/b/c` is no address"), "{said}");
}

#[test]
fn an_instance_answers_from_what_it_knows() {
    let zones = ["us/a", "us/b"].map(Zone::new);
    let gapless = Gapless::start_ready(&config(&zones, ""));
    let admin = gapless.admin.to_string();
    let ask = |lose: &str| text(&["whatif", "--lose", lose, "--admin", &admin]);
    let (code, said, _) = ask("us/a");
    assert_eq!(code, Some(0), "{said}");
    zones[1].refuse();
    eventually("it is down", SOON, || gapless.state(zones[1].endpoints[0].address()) == "down");
    eventually("so is the other", SOON, || {
        gapless.state(zones[1].endpoints[1].address()) == "down"
    });
    let (code, said, _) = ask("us/a");
    assert_eq!(code, Some(1), "the other zone is down already: {said}");
    assert!(said.contains("nothing is left"), "{said}");
    let (code, _, said) = ask("us/c");
    assert_eq!(code, Some(1));
    assert!(said.contains("no pool has us/c"), "{said}");
}
