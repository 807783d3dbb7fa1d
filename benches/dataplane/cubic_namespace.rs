//! A network namespace whose loopback uses cubic.
//!
//! Where the default congestion control of the system is bbr, it paces bodies even on loopback, and
//! the bench would measure the pacing. Small messages are not affected.

use std::fs;
use std::io;

use rustix::process::geteuid;

use crate::namespace::NetworkNamespace;

/// Brings loopback up with cubic on its routes, reports that, and keeps the namespace alive.
const SETUP_SCRIPT: &str = "ip link set lo up \
    && ip route replace local 127.0.0.1 dev lo table local congctl cubic \
    && echo ready && exec sleep infinity";

/// The default congestion control of the system.
pub(crate) fn congestion_control() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control")?.trim().to_owned())
}

/// Makes a namespace with cubic for cases with large bodies. `None` if `congestion_control` does
/// not pace, or, with a line about it, if the user may not make namespaces.
pub(crate) fn for_bulk_cases(congestion_control: &str) -> io::Result<Option<NetworkNamespace>> {
    if matches!(congestion_control, "cubic" | "reno") {
        return Ok(None);
    }
    if !geteuid().is_root() {
        println!(
            "Congestion control is {congestion_control}, which may pace bodies: run as root for a \
             namespace with cubic, or distrust the figures for bodies."
        );
        return Ok(None);
    }
    let Some((namespace, _)) = NetworkNamespace::start(SETUP_SCRIPT)? else {
        return Err(io::Error::other("cannot set up a network namespace with cubic"));
    };
    Ok(Some(namespace))
}
