//! What an operator orders outranks a drill.

use std::process::Command;

use super::World;
use crate::support::instance::BINARY;

impl World {
    fn orders(&self, arguments: &[&str]) {
        let mut command = Command::new(BINARY);
        command.args(arguments).args(["--admin", &self.gapless.admin.to_string()]);
        assert!(command.status().expect("the program runs").success(), "{arguments:?}");
    }
}

#[test]
fn a_drill_is_not_begun_where_something_is_drained() {
    let world = World::new();
    world.orders(&["evacuate", "here/a"]);
    let refused = world.drill(&["start", "--lose", "here/a", "--fault", "refused"]);
    assert_eq!(refused.status.code(), Some(1));
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(why.contains("drain here/a (order 1)"), "{why}");
}

#[test]
fn an_order_ends_a_drill() {
    let world = World::new();
    let arguments = ["--fault", "refused", "--share", "100%", "--for", "60s"];
    let mut shell = world.spawn(&arguments);
    world.reaches("failing");
    world.orders(&["drain", &world.near[0].address().to_string()]);
    let drill = world.reaches("over");
    assert_eq!(drill["outcome"], "INTERRUPTED");
    let why = drill["why"].as_str().unwrap_or_default();
    assert!(why.contains("an operator's order: drain"), "{drill:#}");
    assert!(!shell.wait().expect("its end").success());
}
