//! The table of cases. A new case is a new row.

/// The number of open connections, unless a case has another.
pub(crate) const CONNECTIONS: u32 = 64;

/// Connections of a case over HTTP/2.
pub(crate) const H2_CONNECTIONS: u32 = 8;

/// Requests in flight on each connection of a case over HTTP/2.
pub(crate) const H2_STREAMS: u32 = 32;

/// The fixed rate for all proxies, as a fraction of the slowest proxy's throughput.
pub(crate) const CAPACITY_FRACTION: f64 = 0.4;

/// Bodies of this size or more depend on congestion control: see `cubic_namespace`.
const MIN_BULK_BYTES: u64 = 16 * 1024;

/// One kind of load, and the proxies that are measured under it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BenchCase {
    /// The name for `--case`.
    pub(crate) name: &'static str,
    /// The description in the table.
    pub(crate) description: &'static str,
    pub(crate) load: LoadProfile,
    /// Whether clients use TLS 1.3.
    pub(crate) is_over_tls: bool,
    /// The protocol from the proxy to the endpoint.
    pub(crate) upstream: EndpointProtocol,
    pub(crate) method: &'static str,
    /// The path: a location of `endpoint-nginx.conf`.
    pub(crate) path: &'static str,
    /// The length of the request body.
    pub(crate) request_bytes: u64,
    /// The least length of the response body.
    pub(crate) response_bytes: u64,
    /// The compared set-ups, and the reference.
    pub(crate) compare: Comparison,
    /// Whether the case is part of `--smoke`.
    pub(crate) is_in_smoke: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LoadProfile {
    /// wrk over HTTP/1.1 in a closed loop.
    Wrk {
        /// Whether every request has a new connection.
        should_reconnect: bool,
    },
    /// h2load over HTTP/2 in a closed loop.
    H2load,
    /// A new TCP connection with a full TLS handshake for every request.
    Handshakes,
    /// An open loop at a fixed rate.
    FixedRate,
    /// One request on each of many connections, which then stay open: the cost is memory.
    Idle,
}

/// The protocol from the proxy to the endpoint, in cleartext.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EndpointProtocol {
    Http1,
    /// HTTP/2 with prior knowledge, to a server of the bench.
    H2c,
}

/// The compared set-ups, and the reference of the ratio.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Comparison {
    /// All proxies with one worker on one core; the reference is the cheapest that is not gapless.
    Peers,
    /// gapless with one worker and with two, on all cores including that of the load; the reference
    /// is one worker.
    Workers {
        /// The largest accepted ratio.
        target_ratio: f64,
    },
}

/// The set-up of a proxy.
#[derive(Debug)]
pub(crate) struct ProxySetup {
    /// The suffix of the proxy's name in the table.
    pub(crate) label_suffix: &'static str,
    /// The number of worker threads or processes.
    pub(crate) workers: u32,
    /// Whether it is pinned to the proxy's core.
    pub(crate) is_pinned: bool,
}

const ONE_PINNED_WORKER: &[ProxySetup] =
    &[ProxySetup { label_suffix: "", workers: 1, is_pinned: true }];

const ONE_AND_TWO_WORKERS: &[ProxySetup] = &[
    ProxySetup { label_suffix: ", 1 worker", workers: 1, is_pinned: false },
    ProxySetup { label_suffix: ", 2 workers", workers: 2, is_pinned: false },
];

/// The base of all cases, which override single fields.
const KEEP_ALIVE_CASE: BenchCase = BenchCase {
    name: "keep-alive",
    description: "1 KiB response, connections kept",
    load: LoadProfile::Wrk { should_reconnect: false },
    is_over_tls: false,
    upstream: EndpointProtocol::Http1,
    method: "GET",
    path: "/1k",
    request_bytes: 0,
    response_bytes: 1024,
    compare: Comparison::Peers,
    is_in_smoke: false,
};

pub(crate) const CASES: &[BenchCase] = &[
    BenchCase { is_in_smoke: true, ..KEEP_ALIVE_CASE },
    BenchCase {
        name: "reconnect",
        description: "1 KiB response, a new connection per request",
        load: LoadProfile::Wrk { should_reconnect: true },
        ..KEEP_ALIVE_CASE
    },
    BenchCase {
        name: "scaling",
        description: "1 KiB response, one worker against two, no pinning",
        compare: Comparison::Workers { target_ratio: 1.1 },
        ..KEEP_ALIVE_CASE
    },
    BenchCase {
        name: "response-64k",
        description: "64 KiB response, connections kept",
        path: "/64k",
        response_bytes: 64 * 1024,
        ..KEEP_ALIVE_CASE
    },
    BenchCase {
        name: "response-1m",
        description: "1 MiB response, connections kept",
        path: "/1m",
        response_bytes: 1024 * 1024,
        ..KEEP_ALIVE_CASE
    },
    BenchCase {
        name: "request-64k",
        description: "64 KiB request body (POST), connections kept",
        method: "POST",
        path: "/upload",
        request_bytes: 64 * 1024,
        response_bytes: 1,
        ..KEEP_ALIVE_CASE
    },
    BenchCase {
        name: "tls",
        description: "TLS 1.3, 1 KiB response, connections kept",
        is_over_tls: true,
        ..KEEP_ALIVE_CASE
    },
    BenchCase {
        name: "tls-handshake",
        description: "a new connection per request: full TLS 1.3 handshake (X25519, ECDSA P-256), 1 KiB response",
        load: LoadProfile::Handshakes,
        is_over_tls: true,
        is_in_smoke: true,
        ..KEEP_ALIVE_CASE
    },
    BenchCase {
        name: "h2-h1",
        description: "HTTP/2 over TLS 1.3, 8 connections of 32 streams, 1 KiB response; HTTP/1.1 to the endpoint",
        load: LoadProfile::H2load,
        is_over_tls: true,
        is_in_smoke: true,
        ..KEEP_ALIVE_CASE
    },
    BenchCase {
        name: "h2-h2",
        description: "the same with cleartext HTTP/2 to the endpoint, which nginx does not speak",
        load: LoadProfile::H2load,
        is_over_tls: true,
        upstream: EndpointProtocol::H2c,
        is_in_smoke: true,
        ..KEEP_ALIVE_CASE
    },
    BenchCase {
        name: "fixed-rate",
        description: "1 KiB response, connections kept, open loop: latency from when a request was due",
        load: LoadProfile::FixedRate,
        is_in_smoke: true,
        ..KEEP_ALIVE_CASE
    },
    BenchCase {
        name: "idle",
        description: "memory of connections that idle after one request",
        load: LoadProfile::Idle,
        ..KEEP_ALIVE_CASE
    },
    BenchCase {
        name: "idle-tls",
        description: "memory of TLS 1.3 connections that idle after one request",
        load: LoadProfile::Idle,
        is_over_tls: true,
        is_in_smoke: true,
        ..KEEP_ALIVE_CASE
    },
];

impl BenchCase {
    /// Whether its bodies are large enough to depend on congestion control.
    pub(crate) fn is_bulk(&self) -> bool {
        self.request_bytes.max(self.response_bytes) >= MIN_BULK_BYTES
    }

    /// The set-ups of each proxy, in the order of every round.
    pub(crate) fn set_ups(&self) -> &'static [ProxySetup] {
        match self.compare {
            Comparison::Peers => ONE_PINNED_WORKER,
            Comparison::Workers { .. } => ONE_AND_TWO_WORKERS,
        }
    }
}
