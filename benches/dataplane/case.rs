//! The table of cases. A new case is a new row.

/// Connections held open, in every case that does not say otherwise.
pub(crate) const CONNECTIONS: u32 = 64;

/// Connections of a case over HTTP/2.
pub(crate) const H2_CONNECTIONS: u32 = 8;

/// Requests in flight on each connection of a case over HTTP/2.
pub(crate) const H2_STREAMS: u32 = 32;

/// What part of the slowest proxy's throughput is asked of all of them at a fixed rate.
pub(crate) const SHARE_OF_CAPACITY: f64 = 0.4;

/// A body of this size or more is a matter of congestion control: see `namespace`.
const BULK_BYTES: u64 = 16 * 1024;

/// One kind of load, and the proxies that are measured under it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    /// The name for `--case`.
    pub(crate) name: &'static str,
    /// What is measured, for the reader of the table.
    pub(crate) about: &'static str,
    /// How requests come.
    pub(crate) load: Load,
    /// Clients come over TLS 1.3.
    pub(crate) tls: bool,
    /// What the proxy speaks to the endpoint.
    pub(crate) upstream: Upstream,
    /// GET or POST.
    pub(crate) method: &'static str,
    /// A location of `endpoint-nginx.conf`.
    pub(crate) path: &'static str,
    /// Length of the request's body.
    pub(crate) request_bytes: u64,
    /// Least length of the response's body.
    pub(crate) response_bytes: u64,
    /// Who is compared, and to whom.
    pub(crate) compare: Compare,
    /// Part of `--smoke`.
    pub(crate) smoke: bool,
}

/// How requests come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Load {
    /// From wrk over HTTP/1.1: the next one as soon as the last is answered.
    Wrk {
        /// A new client connection for every request.
        reconnects: bool,
    },
    /// From h2load over HTTP/2, the same way.
    H2load,
    /// A TCP connection, a full TLS handshake, a request, and the end.
    Handshakes,
    /// When they are due, whatever became of those before.
    FixedRate,
    /// One on each of many connections, which then stay open: what they cost is memory.
    Idle,
}

/// What the proxy speaks to the endpoint, in cleartext.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Upstream {
    /// HTTP/1.1, to nginx.
    Http1,
    /// HTTP/2 by prior knowledge, to a server of the bench's own.
    H2c,
}

/// Who is compared, and what the ratio is taken to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Compare {
    /// Everybody, one worker each, on one core; the ratio to the cheapest that is not gapless.
    Peers,
    /// gapless with one worker and with two, which may use every core, the load's too; the ratio
    /// to its one worker.
    Workers {
        /// The largest ratio that is good.
        target: f64,
    },
}

/// How a proxy is started.
#[derive(Debug)]
pub(crate) struct SetUp {
    /// What follows the proxy's name in the table.
    pub(crate) suffix: &'static str,
    /// Its worker threads or processes.
    pub(crate) workers: u32,
    /// Held to the proxy's core.
    pub(crate) pinned: bool,
}

const ONE_PINNED: &[SetUp] = &[SetUp { suffix: "", workers: 1, pinned: true }];

const ONE_AND_TWO_WORKERS: &[SetUp] = &[
    SetUp { suffix: ", 1 worker", workers: 1, pinned: false },
    SetUp { suffix: ", 2 workers", workers: 2, pinned: false },
];

/// The others are told by how they differ from this one.
const KEEP_ALIVE: Case = Case {
    name: "keep-alive",
    about: "1 KiB response, connections kept",
    load: Load::Wrk { reconnects: false },
    tls: false,
    upstream: Upstream::Http1,
    method: "GET",
    path: "/1k",
    request_bytes: 0,
    response_bytes: 1024,
    compare: Compare::Peers,
    smoke: false,
};

/// All cases.
pub(crate) const CASES: &[Case] = &[
    Case { smoke: true, ..KEEP_ALIVE },
    Case {
        name: "reconnect",
        about: "1 KiB response, a new connection per request",
        load: Load::Wrk { reconnects: true },
        ..KEEP_ALIVE
    },
    Case {
        name: "scaling",
        about: "1 KiB response, one worker against two, no pinning",
        compare: Compare::Workers { target: 1.1 },
        ..KEEP_ALIVE
    },
    Case {
        name: "response-64k",
        about: "64 KiB response, connections kept",
        path: "/64k",
        response_bytes: 64 * 1024,
        ..KEEP_ALIVE
    },
    Case {
        name: "response-1m",
        about: "1 MiB response, connections kept",
        path: "/1m",
        response_bytes: 1024 * 1024,
        ..KEEP_ALIVE
    },
    Case {
        name: "request-64k",
        about: "64 KiB request body (POST), connections kept",
        method: "POST",
        path: "/upload",
        request_bytes: 64 * 1024,
        response_bytes: 1,
        ..KEEP_ALIVE
    },
    Case {
        name: "tls",
        about: "TLS 1.3, 1 KiB response, connections kept",
        tls: true,
        ..KEEP_ALIVE
    },
    Case {
        name: "tls-handshake",
        about: "a new connection per request: full TLS 1.3 handshake (X25519, ECDSA P-256), 1 KiB response",
        load: Load::Handshakes,
        tls: true,
        smoke: true,
        ..KEEP_ALIVE
    },
    Case {
        name: "h2-h1",
        about: "HTTP/2 over TLS 1.3, 8 connections of 32 streams, 1 KiB response; HTTP/1.1 to the endpoint",
        load: Load::H2load,
        tls: true,
        smoke: true,
        ..KEEP_ALIVE
    },
    Case {
        name: "h2-h2",
        about: "the same with cleartext HTTP/2 to the endpoint, which nginx does not speak",
        load: Load::H2load,
        tls: true,
        upstream: Upstream::H2c,
        smoke: true,
        ..KEEP_ALIVE
    },
    Case {
        name: "fixed-rate",
        about: "1 KiB response, connections kept, open loop: latency from when a request was due",
        load: Load::FixedRate,
        smoke: true,
        ..KEEP_ALIVE
    },
    Case {
        name: "idle",
        about: "memory of connections that idle after one request",
        load: Load::Idle,
        ..KEEP_ALIVE
    },
    Case {
        name: "idle-tls",
        about: "memory of TLS 1.3 connections that idle after one request",
        load: Load::Idle,
        tls: true,
        smoke: true,
        ..KEEP_ALIVE
    },
];

impl Case {
    /// Whether its bodies are large enough for congestion control to matter.
    pub(crate) fn is_bulk(&self) -> bool {
        self.request_bytes.max(self.response_bytes) >= BULK_BYTES
    }

    /// How each proxy is started, in this order in every round.
    pub(crate) fn set_ups(&self) -> &'static [SetUp] {
        match self.compare {
            Compare::Peers => ONE_PINNED,
            Compare::Workers { .. } => ONE_AND_TWO_WORKERS,
        }
    }
}
