//! A network namespace in which packets to and from an address can be dropped: all of them (a black
//! hole), or a fifth.
//!
//! A rule of iptables drops the packets of every address on a list of `xt_recent`. One write adds
//! an address to the list and takes effect before it returns. Adding a rule instead would start a
//! process, which takes milliseconds.

use std::fs;
use std::io;
use std::net::IpAddr;

use rustix::process::geteuid;

use crate::namespace::NetworkNamespace;

/// The lists of the current thread's namespace; `/proc/net` would be that of the main thread.
const DROP_LIST_PATH: &str = "/proc/thread-self/net/xt_recent/gapless";
const LOSS_LIST_PATH: &str = "/proc/thread-self/net/xt_recent/gapless-loss";

/// Brings loopback up, adds the rules, reports how far it came, and keeps the namespace alive. The
/// rules drop incoming packets: a sender would notice a drop on the way out and behave differently.
const SETUP_SCRIPT: &str = "ip link set lo up || exit 1
    iptables -A INPUT -m recent --name gapless --rcheck --rsource -j DROP \
    && iptables -A INPUT -m recent --name gapless --rcheck --rdest -j DROP \
    && iptables -N LOSS \
    && iptables -A LOSS -m statistic --mode random --probability 0.2 -j DROP \
    && iptables -A INPUT -m recent --name gapless-loss --rcheck --rsource -j LOSS \
    && iptables -A INPUT -m recent --name gapless-loss --rcheck --rdest -j LOSS \
    && echo drops || echo plain
    exec sleep infinity";

/// A namespace for the processes of a bench.
#[derive(Debug)]
pub(crate) struct BenchNamespace {
    pub(crate) network: NetworkNamespace,
    pub(crate) can_drop_packets: bool,
}

impl BenchNamespace {
    /// Makes a namespace; `None`, with a line about it, where that is not permitted.
    pub(crate) fn new() -> io::Result<Option<Self>> {
        if !geteuid().is_root() {
            eprintln!("Not root: no network namespace, and no black hole.");
            return Ok(None);
        }
        let Some((network, line)) = NetworkNamespace::start(SETUP_SCRIPT)? else {
            eprintln!("No network namespace can be made here, and no black hole.");
            return Ok(None);
        };
        let can_drop_packets = line == "drops";
        if !can_drop_packets {
            eprintln!("No packets can be dropped here (iptables, xt_recent): no black hole.");
        }
        Ok(Some(Self { network, can_drop_packets }))
    }
}

/// Drops all packets to and from `address`.
pub(crate) fn drop_packets(address: IpAddr) -> io::Result<()> {
    fs::write(DROP_LIST_PATH, format!("+{address}\n"))
}

/// Ends the drop of packets to and from `address`.
pub(crate) fn allow_packets(address: IpAddr) -> io::Result<()> {
    fs::write(DROP_LIST_PATH, format!("-{address}\n"))
}

/// Drops a fifth of the packets to and from `address`, at random.
pub(crate) fn lose_packets(address: IpAddr) -> io::Result<()> {
    fs::write(LOSS_LIST_PATH, format!("+{address}\n"))
}

/// Ends the loss of packets to and from `address`.
pub(crate) fn keep_packets(address: IpAddr) -> io::Result<()> {
    fs::write(LOSS_LIST_PATH, format!("-{address}\n"))
}
