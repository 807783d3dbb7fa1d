//! A service manager that passes sockets and expects notifications.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};

use rustix::process::Signal;
use tempfile::TempDir;

use super::config_for;
use crate::support::client::{self, TestClient};
use crate::support::config::ConfigBuilder;
use crate::support::endpoint::TestEndpoint;
use crate::support::instance::{BINARY, Gapless};
use crate::support::{DEFAULT_TIMEOUT, eventually};

/// A shell line that passes descriptors 3 and 4 to the program.
const PASS_LISTENERS_SCRIPT: &str = "exec 3<&0 4<&1 </dev/null >/dev/null
export LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=web:spare
exec \"$@\"";

fn bind_listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    (listener, address)
}

fn start_with_listeners(config: &ConfigBuilder, listeners: [TcpListener; 2]) -> Gapless {
    let directory = TempDir::new().expect("a directory");
    let file = directory.path().join("gapless.toml");
    std::fs::write(&file, config.text()).expect("written");
    let [web, spare] = listeners.map(|listener| Stdio::from(OwnedFd::from(listener)));
    let mut command = Command::new("sh");
    command
        .args(["-c", PASS_LISTENERS_SCRIPT, "sh", BINARY, "run"])
        .arg(&file)
        .stdin(web)
        .stdout(spare);
    let gapless = Gapless::start_command(command, directory, file);
    gapless.wait_all_up();
    gapless
}

#[test]
fn passed_sockets_are_used() {
    let one = TestEndpoint::start("one");
    let ((web, address), (spare, unused)) = (bind_listener(), bind_listener());
    // Connections before the start wait in the accept queue.
    let mut queued_client = TestClient::open(address);
    let listener_handles = [&web, &spare].map(|one| one.try_clone().expect("a handle"));
    let config = config_for(&one).listen(address);
    let gapless = start_with_listeners(&config, [web, spare]);
    assert_eq!(queued_client.get("/").text(), "one");
    assert_eq!(client::get(address, "/").text(), "one");
    assert_eq!(gapless.get("/").text(), "one", "the others are bound as always");
    let log = gapless.log();
    let warning = format!("no listener is configured on {unused} (spare)");
    assert!(log.contains(&warning), "{log}");
    // Sockets that are not used, or no longer, are kept for a later configuration.
    gapless.write_config(&config.clone().listen(unused).text());
    eventually("the spare one is used", DEFAULT_TIMEOUT, || gapless.generation() == 2);
    assert_eq!(client::get(unused, "/").text(), "one");
    gapless.write_config(&config_for(&one).listen(unused).text());
    eventually("the first one is not", DEFAULT_TIMEOUT, || gapless.generation() == 3);
    gapless.upgrade();
    assert_eq!(client::get(unused, "/").text(), "one");
    gapless.write_config(&config.text());
    eventually("it is again", DEFAULT_TIMEOUT, || gapless.generation() == 2);
    assert_eq!(client::get(address, "/").text(), "one");
    drop(listener_handles);
}

#[test]
fn service_manager_is_notified() {
    let one = TestEndpoint::start("one");
    let directory = TempDir::new().expect("a directory");
    let (file, socket) = (directory.path().join("gapless.toml"), directory.path().join("notify"));
    std::fs::write(&file, config_for(&one).text()).expect("written");
    let manager = UnixDatagram::bind(&socket).expect("a socket");
    manager.set_read_timeout(Some(DEFAULT_TIMEOUT)).expect("a timeout");
    let receive_message = || {
        let mut message = [0; 1_000];
        let length = manager.recv(&mut message).expect("a message");
        let text = String::from_utf8_lossy(&message[..length]).into_owned();
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let mut command = Command::new(BINARY);
    command.arg("run").arg(&file).env("NOTIFY_SOCKET", &socket).stdout(Stdio::null());
    let gapless = Gapless::start_command(command, directory, file);
    assert_eq!(receive_message(), ["READY=1", "STATUS=serving"]);
    gapless.wait_all_up();
    gapless.signal(Signal::HUP);
    let reloading = receive_message();
    assert_eq!(reloading[0], "RELOADING=1");
    let since = reloading[1].strip_prefix("MONOTONIC_USEC=").expect("a time");
    assert!(since.parse::<u64>().expect("a number") > 0);
    assert_eq!(receive_message(), ["READY=1", "STATUS=serving"]);
    let new = gapless.upgrade();
    let main_pid = format!("MAINPID={}", new.as_raw_nonzero());
    let mut both_messages = [receive_message(), receive_message()];
    both_messages.sort();
    let ready = [main_pid.clone(), "READY=1".to_owned(), "STATUS=serving".to_owned()];
    assert_eq!(both_messages, [vec![main_pid], ready.to_vec()]);
    gapless.wait_for_single_process(DEFAULT_TIMEOUT);
    rustix::process::kill_process(new, Signal::TERM).expect("signalled");
    assert_eq!(receive_message()[0], "STOPPING=1", "and nothing of the old one's end");
}
