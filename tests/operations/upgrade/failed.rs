//! When the new process cannot take over, nobody notices.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::{Signal, kill_process};

use super::{Installed, copy, to};
use crate::support::client::Client;
use crate::support::endpoint::Endpoint;
use crate::support::instance::Gapless;
use crate::support::load::Load;
use crate::support::successors::running;
use crate::support::{SOON, eventually};

/// Makes a program of these lines; see [`copy`] for who writes it.
fn script(lines: &str) -> impl FnOnce(&Path) {
    let text = format!("#!/bin/sh\n{lines}\n");
    move |path| {
        let write = "printf %s \"$1\" >\"$2\" && chmod 755 \"$2\"";
        let status = Command::new("sh").args(["-c", write, "sh", &text]).arg(path).status();
        assert!(status.expect("a process").success());
    }
}

#[test]
fn a_bad_configuration_keeps_the_old_process() {
    let one = Endpoint::start("one");
    let gapless = Gapless::start_ready(&to(&one));
    let good = std::fs::read_to_string(gapless.file()).expect("text");
    let mut kept = Client::open(gapless.address);
    gapless.write("nonsense = 1\n");
    assert!(gapless.upgrade_in_vain().contains("exit status: 64"));
    assert!(gapless.log().contains("upgrade failed, this process goes on"));
    assert_eq!(gapless.metric("gapless_upgrades_total{result=\"failed\"}"), 1.0);
    assert_eq!(gapless.metric("gapless_last_upgrade_ok"), 0.0);
    assert_eq!(kept.get("/").status, 200);
    assert_eq!(gapless.ask("/readyz").status, 200);
    gapless.write(&good);
    gapless.upgrade();
    assert_eq!(gapless.get("/").text(), "one");
}

#[test]
fn an_address_that_cannot_be_had_keeps_the_old_process() {
    let one = Endpoint::start("one");
    let gapless = Gapless::start_ready(&to(&one));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = taken.local_addr().map(|address| (taken, address)).expect("bound");
    gapless.write(&to(&one).listen(taken.1).text());
    assert!(gapless.upgrade_in_vain().contains("exit status: 1"));
    assert_eq!(gapless.get("/").text(), "one");
}

#[test]
fn a_bad_program_keeps_the_old_process_and_a_good_one_can_follow() {
    let one = Endpoint::start("one");
    let installed = Installed::start(&to(&one).tables("[shutdown]\nupgrade_timeout = \"2s\""));
    let gapless = &installed.gapless;
    let load = Load::start(gapless.address, 2, Duration::from_millis(2));
    installed.replace(script("exit 7"));
    assert!(gapless.upgrade_in_vain().contains("exit status: 7"));
    installed.replace(script("read line"));
    assert!(gapless.upgrade_in_vain().contains("not ready after 2s"));
    installed.replace(script("echo this is no letter >&0; read line"));
    let _ = gapless.upgrade_in_vain();
    installed.replace(|path| std::fs::write(path, "not a program").expect("written"));
    assert!(gapless.upgrade_in_vain().contains("cannot be started"));
    std::fs::remove_file(&installed.program).expect("removed");
    assert!(gapless.upgrade_in_vain().contains("cannot be started"));
    assert_eq!(running(gapless.file()), [gapless.pid()], "nothing is left over");
    let tally = load.stop();
    assert!(tally.sent > 100 && tally.failures.is_empty(), "{:?}", tally.failures);
    copy(&installed.program);
    gapless.upgrade();
    gapless.wait_alone(SOON);
    assert_eq!(gapless.get("/").text(), "one");
}

/// The old process is not replaced while it stops, and takes along what was to replace it.
#[test]
fn a_stop_ends_an_upgrade_too() {
    let one = Endpoint::start("one");
    let mut installed = Installed::start(&to(&one));
    installed.replace(script("read line"));
    let pid = installed.gapless.pid();
    kill_process(pid, Signal::USR2).expect("signalled");
    eventually("it has begun", SOON, || installed.gapless.log().contains("upgrade executable"));
    kill_process(pid, Signal::USR2).expect("signalled");
    eventually("once only", SOON, || installed.gapless.log().contains("under way already"));
    installed.gapless.signal(Signal::TERM);
    assert!(installed.gapless.wait(SOON).success());
    assert!(running(installed.gapless.file()).is_empty());
}
