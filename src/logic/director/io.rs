//! The inputs and outputs of the director.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::event::Event;
use super::health_export::HealthExport;
use crate::logic::model::id::EndpointId;
use crate::logic::model::outcome::{Failure, ProbeOutcome};
use crate::logic::model::snapshot::Snapshot;
use crate::logic::model::topology::{PoolSpec, Topology};
use crate::logic::orders::OperatorOrder;
use crate::logic::probing::probe_schedule::ProbeTrigger;
use crate::logic::routing::RouteTable;

/// Something that has happened.
#[derive(Debug)]
pub enum Input {
    /// A validated configuration takes effect.
    Configure {
        /// Pools, zones and endpoints.
        topology: Topology,
        /// Routes compiled against the same topology.
        routes: Arc<RouteTable>,
    },
    /// Endpoints have been added or removed; everything else is as configured.
    UpdateEndpoints(Topology),
    /// Health states of another process. Comes right after the first configuration, and before the
    /// first probe: an endpoint with evidence of its own takes over nothing.
    ImportHealth(HealthExport),
    /// Orders that were in force before. Comes before the first configuration.
    LoadOrders(Vec<OperatorOrder>),
    ProbeFinished {
        endpoint: EndpointId,
        /// As handed out with the probe.
        ticket: ProbeTicket,
        outcome: ProbeOutcome,
    },
    /// A request met a failure.
    TrafficFailed {
        endpoint: EndpointId,
        failure: Failure,
        /// When that attempt began.
        attempt_started: Instant,
    },
    /// The endpoint closed an idle connection. That is no evidence, but starts a burst of probes.
    IdleClosed { endpoint: EndpointId },
    /// The last snapshot is now what workers read.
    Published,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeTicket {
    /// The index of the probe in its pool.
    pub probe: u8,
    /// What the probe was started for.
    pub trigger: ProbeTrigger,
    pub started: Instant,
}

/// An effect that the driver applies.
#[derive(Debug)]
pub enum Output {
    StartProbe {
        endpoint: EndpointId,
        /// To be handed back with the outcome.
        ticket: ProbeTicket,
        address: SocketAddr,
        pool: Arc<PoolSpec>,
        timeout: Duration,
    },
    /// Store this snapshot; then hand in [`Input::Published`].
    Publish(Arc<Snapshot>),
    /// The verdict on the endpoint or its zone is down: close the endpoint's idle connections, and
    /// send waiting requests again if the failure is one of the connection. Comes after the
    /// snapshot that no longer holds the endpoint; never in panic, when no endpoint is better.
    AbortRequests {
        endpoint: EndpointId,
        /// The failure that made the verdict.
        failure: Failure,
    },
    /// An order leaves the endpoint no new requests: close its idle connections. Comes after the
    /// snapshot that no longer holds the endpoint.
    Drained {
        endpoint: EndpointId,
        /// The deadline of the drain has passed: end tunnels and running responses, and send
        /// waiting requests again if they are repeatable.
        is_deadline_passed: bool,
    },
    Event(Event),
}
