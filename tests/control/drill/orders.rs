//! Orders outrank drills.

use std::process::Command;

use super::DrillFixture;
use crate::support::instance::BINARY;

impl DrillFixture {
    fn run_order(&self, arguments: &[&str]) {
        let mut command = Command::new(BINARY);
        command.args(arguments).args(["--admin", &self.gapless.admin.to_string()]);
        assert!(command.status().expect("the program runs").success(), "{arguments:?}");
    }
}

#[test]
fn drill_in_drained_zone_is_refused() {
    let fixture = DrillFixture::new();
    fixture.run_order(&["evacuate", "here/a"]);
    let refused = fixture.run_drill(&["start", "--lose", "here/a", "--fault", "refused"]);
    assert_eq!(refused.status.code(), Some(1));
    let reason = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(reason.contains("drain here/a (order 1)"), "{reason}");
}

#[test]
fn drain_order_interrupts_drill() {
    let fixture = DrillFixture::new();
    let arguments = ["--fault", "refused", "--share", "100%", "--for", "60s"];
    let mut cli = fixture.spawn_drill(&arguments);
    fixture.wait_for_stage("failing");
    fixture.run_order(&["drain", &fixture.near[0].address().to_string()]);
    let drill = fixture.wait_for_stage("over");
    assert_eq!(drill["outcome"], "INTERRUPTED");
    let reason = drill["why"].as_str().unwrap_or_default();
    assert!(reason.contains("an operator's order: drain"), "{drill:#}");
    assert!(!cli.wait().expect("its end").success());
}
