//! Formats on disk and between processes: files and a hand-over message that version 0.1.0 wrote in
//! November 2026 (`tests/data/formats`) are read, and mean what they meant.

use std::fs::{self, Permissions};
use std::io::{IoSlice, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::config::ConfigBuilder;
use crate::support::instance::{BINARY, Gapless};
use crate::support::{DEFAULT_TIMEOUT, poll_until};

/// Tells a process that its predecessor is at its standard input.
const TAKEOVER_ENV: &str = "GAPLESS_TAKE_OVER";

fn stored(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/formats").join(name)
}

/// A copy of the stored state directory.
fn copy_state(directory: &Path) -> PathBuf {
    let state = directory.join("state");
    fs::create_dir(&state).expect("made");
    for entry in fs::read_dir(stored("state")).expect("the stored files") {
        let from = entry.expect("an entry").path();
        let to = state.join(from.file_name().expect("a name"));
        fs::copy(&from, &to).expect("copied");
        fs::set_permissions(&to, Permissions::from_mode(0o600)).expect("permissions");
    }
    state
}

/// The pool that the stored files refer to. No name server answers, so names come from the files.
fn config() -> ConfigBuilder {
    ConfigBuilder::new()
        .tables("[dns]\nservers = [\"127.0.0.1:9\"]\nallow = [\"127.0.0.0/8\", \"::1/128\"]")
        .pool("probe = { http = \"/\" }\naffinity = { cookie = \"stay\" }")
        .zone_with_entries("east/a", "\"127.0.0.1:39101\", \"127.0.0.1:39102\"")
        .zone_with_entries("west/b", "\"localhost:39103\", \"127.0.0.1:39104\"")
}

#[track_caller]
fn assert_orders(gapless_orders: &Value) {
    let orders = gapless_orders["orders"].as_array().expect("orders");
    let field = |index: usize, name: &str| orders[index][name].clone();
    assert_eq!(orders.len(), 2, "{orders:?}");
    assert_eq!((field(0, "id"), field(0, "of")), (json!(1), json!("127.0.0.1:39102")));
    assert_eq!((field(1, "id"), field(1, "of")), (json!(2), json!("127.0.0.1:39104")));
    assert_eq!(field(1, "note"), "a new kernel");
}

#[test]
fn ledger_of_version_0_1_0_is_read() {
    let directory = TempDir::new().expect("a directory");
    let state = copy_state(directory.path());
    let mut command = Command::new(BINARY);
    command.args(["incidents", "--format", "json", "--state-dir"]).arg(&state);
    let output = command.output().expect("run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let incidents: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let zone = &incidents["zones"][0];
    assert_eq!(
        (&zone["id"], &zone["zone"], &zone["class"]),
        (&json!(1), &json!("east/a"), &json!("refused"))
    );
    assert_eq!(zone["timeline"]["onset"], "2026-12-01T04:25:33.197394Z");
    assert_eq!((&zone["detection_ms"], &zone["gap_ms"]), (&json!(15.842), &json!(1842.254)));
    assert_eq!(zone["requests"]["failed_by"]["connect"], 53);
    assert_eq!(zone["predicted"]["p99_ms"], 190.737);
    assert_eq!(incidents["zones"].as_array().map(Vec::len), Some(2));
    assert_eq!(incidents["zones"][1]["ended"], "restored");
}

#[test]
fn state_directory_of_version_0_1_0_is_taken_over() {
    let directory = TempDir::new().expect("a directory");
    let state = copy_state(directory.path());
    let key = fs::read(state.join("affinity.key")).expect("the key");
    let keys = format!("state_dir = \"{}\"", state.display());
    let gapless = Gapless::start(&config().keys(&keys).tables("[ledger]\nkeep = \"3650d\""));
    assert_orders(&gapless.api_json("/api/v1/orders"));
    for address in ["127.0.0.1:39103", "[::1]:39103"] {
        gapless.endpoint(address.parse().expect("an address"));
    }
    poll_until("the stored incidents are listed", DEFAULT_TIMEOUT, || {
        let zones = gapless.incidents("zones");
        zones.iter().any(|one| one["requests"]["failed_by"]["connect"] == 53).then_some(())
    });
    assert_eq!(fs::read(state.join("affinity.key")).expect("the key"), key);
}

/// Both ends of the protocol of an upgrade, seen from the process that leaves.
struct Predecessor(UnixStream);

impl Predecessor {
    fn send(&mut self, message: &[u8]) {
        let length = u32::try_from(message.len()).expect("short").to_be_bytes();
        self.0.write_all(&length).and_then(|()| self.0.write_all(message)).expect("sent");
    }

    fn receive(&mut self) -> Value {
        let mut length = [0; 4];
        self.0.read_exact(&mut length).expect("a length");
        let mut message = vec![0; u32::from_be_bytes(length) as usize];
        self.0.read_exact(&mut message).expect("a message");
        serde_json::from_slice(&message).expect("JSON")
    }

    fn send_descriptors(&self, descriptors: &[BorrowedFd<'_>]) {
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut buffer = SendAncillaryBuffer::new(&mut space);
        assert!(buffer.push(SendAncillaryMessage::ScmRights(descriptors)));
        sendmsg(&self.0, &[IoSlice::new(&[0])], &mut buffer, SendFlags::empty()).expect("sent");
    }
}

/// The stored message, with these addresses for those of its sockets.
fn stored_message(listen: SocketAddr, admin: SocketAddr) -> String {
    let text = fs::read_to_string(stored("handover.json")).expect("the stored message");
    text.replace("127.0.0.1:39080", &listen.to_string())
        .replace("127.0.0.1:39900", &admin.to_string())
}

#[test]
fn handover_message_of_version_0_1_0_is_taken_over() {
    let directory = TempDir::new().expect("a directory");
    let file = directory.path().join("gapless.toml");
    let bind = || TcpListener::bind("127.0.0.1:0").expect("bound");
    let (listener, admin) = (bind(), bind());
    let addresses = [&listener, &admin].map(|one| one.local_addr().expect("an address"));
    let text = config().text();
    let table = |name: &str, address: SocketAddr, text: &str| {
        let at = text.find(name).expect("the table");
        format!("{}{}", &text[..at], text[at..].replacen("127.0.0.1:0", &address.to_string(), 1))
    };
    let text = table("[[listen]]", addresses[0], &table("[admin]", addresses[1], &text));
    fs::write(&file, text).expect("written");

    let (ours, theirs) = UnixStream::pair().expect("a pair");
    let mut command = Command::new(BINARY);
    command.arg("run").arg(&file).env(TAKEOVER_ENV, "1").env("GAPLESS_LOG", "info");
    command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null()).stderr(Stdio::piped());
    let protocol = std::thread::spawn(move || {
        let mut predecessor = Predecessor(ours);
        assert_eq!(predecessor.receive()["hello"]["protocol"], 1);
        predecessor.send(stored_message(addresses[0], addresses[1]).as_bytes());
        predecessor.send_descriptors(&[listener.as_fd(), listener.as_fd(), admin.as_fd()]);
        assert_eq!(predecessor.receive(), "settled");
        predecessor.send(b"\"go\"");
        assert_eq!(predecessor.receive(), "accepting");
    });
    let gapless = Gapless::start_command(command, directory, file);
    protocol.join().expect("the protocol was kept");

    assert_eq!(gapless.admin, addresses[1]);
    assert_eq!(gapless.process()["upgrades"], 1);
    assert_orders(&gapless.api_json("/api/v1/orders"));
    let down = gapless.endpoint("127.0.0.1:39101".parse().expect("an address"));
    assert_eq!((&down["state"], &down["reason"]), (&json!("down"), &json!("connect refused")));
    assert_eq!(gapless.endpoint("127.0.0.1:39102".parse().expect("an address"))["weight"], 3);
    let drained = gapless.endpoint("127.0.0.1:39104".parse().expect("an address"));
    assert_eq!(drained["standing"], "drained");
}
