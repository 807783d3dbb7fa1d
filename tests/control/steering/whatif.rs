//! `gapless whatif` from a shell.

use super::{SteeringZone, config, run_gapless};
use crate::support::DEFAULT_TIMEOUT;
use crate::support::eventually;
use crate::support::instance::Gapless;

fn run_gapless_text(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = run_gapless(arguments);
    let utf8 = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (output.status.code(), utf8(output.stdout), utf8(output.stderr))
}

#[test]
fn whatif_reads_file_without_instance() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/config/steering.toml");
    let (code, stdout, _) =
        run_gapless_text(&["whatif", file, "--lose", "us-south/us-south-1", "--rate", "300"]);
    assert_eq!(code, Some(0), "{stdout}");
    assert!(stdout.contains("pool api (nearest, 300 requests/s)"), "{stdout}");
    let (code, stdout, _) =
        run_gapless_text(&["whatif", file, "--lose", "us-south", "--rate", "500"]);
    assert_eq!(code, Some(1), "{stdout}");
    assert!(stdout.contains("us-east would get 500 requests/s and can take 300"), "{stdout}");
    let (code, _, stderr) = run_gapless_text(&["whatif", file, "--lose", "us-north"]);
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("has us-north"), "{stderr}");
    let (code, _, stderr) = run_gapless_text(&["whatif", file, "--lose", "a/b/c"]);
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("`a/b/c` is neither an address"), "{stderr}");
}

#[test]
fn whatif_uses_state_of_running_instance() {
    let zones = ["us/a", "us/b"].map(SteeringZone::new);
    let gapless = Gapless::start_ready(&config(&zones, ""));
    let admin = gapless.admin.to_string();
    let run_whatif = |lose: &str| run_gapless_text(&["whatif", "--lose", lose, "--admin", &admin]);
    let (code, stdout, _) = run_whatif("us/a");
    assert_eq!(code, Some(0), "{stdout}");
    zones[1].refuse_connections();
    eventually("it is down", DEFAULT_TIMEOUT, || {
        gapless.endpoint_state(zones[1].endpoints[0].address()) == "down"
    });
    eventually("so is the other", DEFAULT_TIMEOUT, || {
        gapless.endpoint_state(zones[1].endpoints[1].address()) == "down"
    });
    let (code, stdout, _) = run_whatif("us/a");
    assert_eq!(code, Some(1), "the other zone is down already: {stdout}");
    assert!(stdout.contains("nothing healthy would be left"), "{stdout}");
    let (code, _, stderr) = run_whatif("us/c");
    assert_eq!(code, Some(1));
    assert!(stderr.contains("no pool has us/c"), "{stderr}");
}
