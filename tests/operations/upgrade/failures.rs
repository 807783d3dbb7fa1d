//! A failed upgrade affects no client.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::{Signal, kill_process};

use super::{InstalledProgram, config_for, copy_program};
use crate::support::client::TestClient;
use crate::support::endpoint::TestEndpoint;
use crate::support::instance::Gapless;
use crate::support::load::SteadyLoad;
use crate::support::upgrade::running_pids;
use crate::support::{DEFAULT_TIMEOUT, eventually};

/// Makes an executable script of these lines, written by a separate process.
fn write_script(lines: &str) -> impl FnOnce(&Path) {
    let text = format!("#!/bin/sh\n{lines}\n");
    move |path| {
        let write = "printf %s \"$1\" >\"$2\" && chmod 755 \"$2\"";
        let status = Command::new("sh").args(["-c", write, "sh", &text]).arg(path).status();
        assert!(status.expect("a process").success());
    }
}

#[test]
fn invalid_config_keeps_old_process() {
    let one = TestEndpoint::start("one");
    let gapless = Gapless::start_ready(&config_for(&one));
    let good = std::fs::read_to_string(gapless.config_file()).expect("text");
    let mut connection = TestClient::open(gapless.address);
    gapless.write_config("nonsense = 1\n");
    assert!(gapless.upgrade_expecting_failure().contains("exit status: 64"));
    assert!(gapless.log().contains("upgrade failed, this process continues"));
    assert_eq!(gapless.metric("gapless_upgrades_total{result=\"failed\"}"), 1.0);
    assert_eq!(gapless.metric("gapless_last_upgrade_ok"), 0.0);
    assert_eq!(connection.get("/").status, 200);
    assert_eq!(gapless.admin_get("/readyz").status, 200);
    gapless.write_config(&good);
    gapless.upgrade();
    assert_eq!(gapless.get("/").text(), "one");
}

#[test]
fn unavailable_listen_address_keeps_old_process() {
    let one = TestEndpoint::start("one");
    let gapless = Gapless::start_ready(&config_for(&one));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = taken.local_addr().map(|address| (taken, address)).expect("bound");
    gapless.write_config(&config_for(&one).listen(taken.1).text());
    assert!(gapless.upgrade_expecting_failure().contains("exit status: 1"));
    assert_eq!(gapless.get("/").text(), "one");
}

#[test]
fn bad_executable_keeps_old_process_until_a_good_one() {
    let one = TestEndpoint::start("one");
    let installed =
        InstalledProgram::start(&config_for(&one).tables("[shutdown]\nupgrade_timeout = \"2s\""));
    let gapless = &installed.gapless;
    let load = SteadyLoad::start(gapless.address, 2, Duration::from_millis(2));
    installed.replace(write_script("exit 7"));
    assert!(gapless.upgrade_expecting_failure().contains("exit status: 7"));
    installed.replace(write_script("read line"));
    assert!(gapless.upgrade_expecting_failure().contains("not ready after 2s"));
    installed.replace(write_script("echo this is no letter >&0; read line"));
    let _ = gapless.upgrade_expecting_failure();
    installed.replace(|path| std::fs::write(path, "not a program").expect("written"));
    assert!(gapless.upgrade_expecting_failure().contains("cannot be started"));
    std::fs::remove_file(&installed.program).expect("removed");
    assert!(gapless.upgrade_expecting_failure().contains("cannot be started"));
    assert_eq!(running_pids(gapless.config_file()), [gapless.pid()], "nothing is left over");
    let tally = load.stop();
    assert!(tally.sent > 100 && tally.failures.is_empty(), "{:?}", tally.failures);
    copy_program(&installed.program);
    gapless.upgrade();
    gapless.wait_for_single_process(DEFAULT_TIMEOUT);
    assert_eq!(gapless.get("/").text(), "one");
}

/// A stop during an upgrade ends both processes.
#[test]
fn sigterm_ends_upgrade_in_progress() {
    let one = TestEndpoint::start("one");
    let mut installed = InstalledProgram::start(&config_for(&one));
    installed.replace(write_script("read line"));
    let pid = installed.gapless.pid();
    kill_process(pid, Signal::USR2).expect("signalled");
    eventually("it has begun", DEFAULT_TIMEOUT, || {
        installed.gapless.log().contains("upgrade executable")
    });
    kill_process(pid, Signal::USR2).expect("signalled");
    eventually("once only", DEFAULT_TIMEOUT, || {
        installed.gapless.log().contains("under way already")
    });
    installed.gapless.signal(Signal::TERM);
    assert!(installed.gapless.wait_for_exit(DEFAULT_TIMEOUT).success());
    assert!(running_pids(installed.gapless.config_file()).is_empty());
}
