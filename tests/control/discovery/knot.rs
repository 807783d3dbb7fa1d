//! Debian's Knot DNS with one zone: `example.`

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Signal, kill_process};
use tempfile::TempDir;

use crate::support::instance::pid;
use crate::support::{DEFAULT_TIMEOUT, poll_until};

/// A Knot DNS server; killed when dropped.
pub(crate) struct Knot {
    child: Option<Child>,
    directory: TempDir,
    address: SocketAddr,
    serial: u32,
}

impl Knot {
    /// Starts a server with these records; the TTL is 0 unless a record states another. Without the
    /// program the test is reported as skipped, and fails in CI.
    #[track_caller]
    pub(crate) fn start(records: &[String]) -> Option<Self> {
        let command = || {
            let mut command = Command::new("/usr/sbin/knotd");
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            command
        };
        if command().arg("-V").status().is_err() {
            assert!(std::env::var_os("CI").is_none(), "Knot DNS (Debian: knot) is needed");
            eprintln!("SKIPPED: Knot DNS (Debian: knot) is not installed, nothing was tested");
            return None;
        }
        let directory = TempDir::new().expect("a directory");
        let mut knot = Self { child: None, directory, address: free_port(), serial: 0 };
        knot.write_zone_file(records);
        knot.start_process();
        Some(knot)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Runs the server and waits until it answers.
    #[track_caller]
    pub(crate) fn start_process(&mut self) {
        let root = self.directory.path();
        let (ip, port, root_display) = (self.address.ip(), self.address.port(), root.display());
        let text = format!(
            "server:\n    rundir: \"{root_display}\"\n    listen: {ip}@{port}\n    udp-workers: 1\n    \
             tcp-workers: 1\n    background-workers: 1\ndatabase:\n    storage: \"{root_display}\"\n\
             control:\n    listen: \"{root_display}/knot.sock\"\ntemplate:\n  - id: default\n    \
             storage: \"{root_display}\"\n    zonefile-sync: -1\n    zonefile-load: whole\n    \
             journal-content: none\nzone:\n  - domain: example\n    file: example.zone\n  \
             - domain: broken\n    file: nowhere.zone\n"
        );
        let file = root.join("knot.conf");
        std::fs::write(&file, text).expect("written");
        let child = Command::new("/usr/sbin/knotd")
            .arg("-c")
            .arg(file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("knotd starts");
        self.child = Some(child);
        self.wait_for_serial();
    }

    /// Writes records for the next start.
    pub(crate) fn set_records_while_stopped(&mut self, records: &[String]) {
        self.write_zone_file(records);
    }

    /// Replaces the records.
    #[track_caller]
    pub(crate) fn set_records(&mut self, records: &[String]) {
        self.write_zone_file(records);
        self.signal(Signal::HUP);
        self.wait_for_serial();
    }

    fn write_zone_file(&mut self, records: &[String]) {
        self.serial += 1;
        let head = format!(
            "$ORIGIN example.\n$TTL 0\n@ 60 SOA ns admin {} 3600 600 86400 60\n@ 60 NS ns\n\
             ns 60 A 127.0.0.1\n",
            self.serial
        );
        let text = head + &records.join("\n") + "\n";
        std::fs::write(self.directory.path().join("example.zone"), text).expect("written");
    }

    /// Waits until it serves the records that were written last.
    #[track_caller]
    fn wait_for_serial(&self) {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
        socket.connect(self.address).expect("an address");
        socket.set_read_timeout(Some(Duration::from_millis(100))).expect("set");
        let question = b"\0\x01\0\0\0\x01\0\0\0\0\0\0\x07example\0\0\x06\0\x01";
        poll_until("Knot serves what was written", DEFAULT_TIMEOUT, || {
            socket.send(question).ok()?;
            let mut answer = [0; 512];
            let length = socket.recv(&mut answer).ok()?;
            // The SOA ends with five numbers, the serial first; an authority section may follow.
            let serial = self.serial.to_be_bytes();
            answer[..length].windows(4).any(|four| four == serial).then_some(())
        });
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGSTOP: the kernel takes queries, and none is answered.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    pub(crate) fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("a running server");
        kill_process(pid(child), signal).expect("signalled");
    }
}

impl Drop for Knot {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port that is free for datagrams and for connections.
fn free_port() -> SocketAddr {
    loop {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("bound");
        if UdpSocket::bind(address).is_ok() {
            return address;
        }
    }
}
