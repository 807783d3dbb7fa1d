//! The table of cases. A new case is a new row.

use crate::peer::Peer;

/// Connections that wrk holds open, in every case.
pub(crate) const CONNECTIONS: u32 = 64;

/// A body of this size or more is a matter of congestion control: see `namespace`.
const BULK_BYTES: u64 = 16 * 1024;

/// One kind of load, and the proxies that are measured under it.
#[derive(Debug)]
pub(crate) struct Case {
    /// The name for `--case`.
    pub(crate) name: &'static str,
    /// What is measured, for the reader of the table.
    pub(crate) about: &'static str,
    /// GET or POST.
    pub(crate) method: &'static str,
    /// A location of `endpoint-nginx.conf`.
    pub(crate) path: &'static str,
    /// Length of the request's body.
    pub(crate) request_bytes: u64,
    /// Least length of the response's body.
    pub(crate) response_bytes: u64,
    /// A new client connection for every request.
    pub(crate) reconnects: bool,
    /// Measured in this order in every round.
    pub(crate) arms: &'static [Arm],
    /// What the ratio is taken to.
    pub(crate) reference: Reference,
}

/// One proxy in one set-up.
#[derive(Debug)]
pub(crate) struct Arm {
    /// What the table calls it.
    pub(crate) label: &'static str,
    /// The program.
    pub(crate) peer: Peer,
    /// Its worker threads or processes.
    pub(crate) workers: u32,
    /// Held to the proxy's core; otherwise it may use every core, the load's too.
    pub(crate) pinned: bool,
}

/// What an arm's CPU per request is divided by.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reference {
    /// The cheapest arm that is not gapless.
    BestPeer,
    /// The first arm; `target` is the ratio that the last arm should not exceed.
    FirstArm {
        /// The largest ratio that is good.
        target: f64,
    },
}

/// Everybody, one worker each, on one core.
const EVERYBODY: &[Arm] = &[
    Arm { label: "gapless", peer: Peer::Gapless, workers: 1, pinned: true },
    Arm { label: "haproxy", peer: Peer::Haproxy, workers: 1, pinned: true },
    Arm { label: "nginx", peer: Peer::Nginx, workers: 1, pinned: true },
];

/// What a second worker costs.
const ONE_AND_TWO_WORKERS: &[Arm] = &[
    Arm { label: "gapless, 1 worker", peer: Peer::Gapless, workers: 1, pinned: false },
    Arm { label: "gapless, 2 workers", peer: Peer::Gapless, workers: 2, pinned: false },
];

/// All cases; the first is the one that `--smoke` runs.
pub(crate) const CASES: &[Case] = &[
    Case {
        name: "keep-alive",
        about: "1 KiB response, connections kept",
        method: "GET",
        path: "/1k",
        request_bytes: 0,
        response_bytes: 1024,
        reconnects: false,
        arms: EVERYBODY,
        reference: Reference::BestPeer,
    },
    Case {
        name: "reconnect",
        about: "1 KiB response, a new connection per request",
        method: "GET",
        path: "/1k",
        request_bytes: 0,
        response_bytes: 1024,
        reconnects: true,
        arms: EVERYBODY,
        reference: Reference::BestPeer,
    },
    Case {
        name: "scaling",
        about: "1 KiB response, one worker against two, no pinning",
        method: "GET",
        path: "/1k",
        request_bytes: 0,
        response_bytes: 1024,
        reconnects: false,
        arms: ONE_AND_TWO_WORKERS,
        reference: Reference::FirstArm { target: 1.1 },
    },
    Case {
        name: "response-64k",
        about: "64 KiB response, connections kept",
        method: "GET",
        path: "/64k",
        request_bytes: 0,
        response_bytes: 64 * 1024,
        reconnects: false,
        arms: EVERYBODY,
        reference: Reference::BestPeer,
    },
    Case {
        name: "request-64k",
        about: "64 KiB request body (POST), connections kept",
        method: "POST",
        path: "/upload",
        request_bytes: 64 * 1024,
        response_bytes: 1,
        reconnects: false,
        arms: EVERYBODY,
        reference: Reference::BestPeer,
    },
];

impl Case {
    /// Whether its bodies are large enough for congestion control to matter.
    pub(crate) fn is_bulk(&self) -> bool {
        self.request_bytes.max(self.response_bytes) >= BULK_BYTES
    }
}
