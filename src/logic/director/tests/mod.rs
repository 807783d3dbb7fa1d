//! Tests of the director with hand-made inputs and time.

mod basics;
mod health_import;
mod orders;
mod peer_issues;
mod steering;
mod suspects;
mod traffic;
mod zones;

use std::net::SocketAddr;
use std::ops::DerefMut;
use std::time::Duration;

use super::*;
use crate::logic::health::endpoint_health::{Health, HealthTransition};
use crate::logic::model::id::Locality;
use crate::logic::model::outcome::{FailureReason, ProbeOutcome};
use crate::logic::model::snapshot::{EndpointStats, PoolView};
use crate::logic::model::topology::{CorrelationSpec, EndpointSpec, PoolSpec, ZoneSpec};
use crate::logic::probing::probe_schedule::ProbeTrigger;

pub(in crate::logic::director) const REFUSED: ProbeOutcome =
    ProbeOutcome::Fail(Failure::connect(FailureReason::Refused));
pub(in crate::logic::director) const PASS: ProbeOutcome =
    ProbeOutcome::Pass { latency: Duration::from_millis(1) };

pub(in crate::logic::director) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A director, its time, and the outputs of its last turn.
pub(in crate::logic::director) struct Rig {
    pub(in crate::logic::director) director: Director,
    pub(in crate::logic::director) now: Instant,
    outputs: Vec<Output>,
    /// Probes that are under way.
    pending_probes: Vec<(EndpointId, ProbeTicket, u16)>,
}

impl Rig {
    /// One pool; every endpoint has passed its first probe.
    pub(in crate::logic::director) fn new(zones: &[(&str, &[u16])]) -> Self {
        let mut rig = Self::new_unprobed(zones);
        rig.answer_all_probes(PASS);
        rig
    }

    pub(in crate::logic::director) fn new_unprobed(zones: &[(&str, &[u16])]) -> Self {
        let mut rig = Self::unconfigured();
        rig.configure(pool(zones));
        rig
    }

    /// The same for a pool with settings of its own.
    pub(in crate::logic::director) fn with_pool(pool: PoolSpec) -> Self {
        let mut rig = Self::unconfigured();
        rig.configure(pool);
        rig.answer_all_probes(PASS);
        rig
    }

    fn unconfigured() -> Self {
        let now = Instant::now();
        Self {
            director: Director::new(now, 7),
            now: now + ms(1),
            outputs: Vec::new(),
            pending_probes: Vec::new(),
        }
    }

    pub(in crate::logic::director) fn configure(&mut self, pool: PoolSpec) {
        let topology = Topology { local: None, pools: vec![Arc::new(pool)], ..Topology::default() };
        self.turn([Input::Configure { topology, routes: Arc::default() }]);
    }

    /// Hands in all inputs, then drives the director.
    pub(in crate::logic::director) fn turn(&mut self, inputs: impl IntoIterator<Item = Input>) {
        inputs.into_iter().for_each(|input| self.director.handle(input, self.now));
        self.outputs.clear();
        self.drive();
    }

    pub(in crate::logic::director) fn advance(&mut self, time: Duration) {
        self.now += time;
        self.turn([]);
    }

    fn ids(&self) -> Vec<EndpointId> {
        self.director.endpoints().iter().map(|status| status.subject.endpoint).collect()
    }

    pub(in crate::logic::director) fn id(&self, port: u16) -> EndpointId {
        let all = self.director.endpoints();
        let one = all.iter().find(|status| status.subject.address.port() == port);
        one.expect("known").subject.endpoint
    }

    pub(in crate::logic::director) fn status(&self, port: u16) -> EndpointStatus {
        let mut all = self.director.endpoints().into_iter();
        all.find(|status| status.subject.address.port() == port).expect("known")
    }

    pub(in crate::logic::director) fn probe_result(
        &self,
        endpoint: EndpointId,
        outcome: ProbeOutcome,
    ) -> Input {
        let ticket = ProbeTicket { probe: 0, trigger: ProbeTrigger::Regular, started: self.now };
        Input::ProbeFinished { endpoint, ticket, outcome }
    }

    pub(in crate::logic::director) fn traffic_failure(
        &self,
        endpoint: EndpointId,
        failure: Failure,
    ) -> Input {
        Input::TrafficFailed { endpoint, failure, attempt_started: self.now }
    }

    pub(in crate::logic::director) fn answer_all_probes(&mut self, outcome: ProbeOutcome) {
        let inputs: Vec<_> = self.ids().iter().map(|&id| self.probe_result(id, outcome)).collect();
        self.turn(inputs);
    }

    /// Two refusals: a verdict.
    pub(in crate::logic::director) fn take_down(&mut self, ports: &[u16]) {
        for _ in 0..2 {
            self.now += ms(1);
            let refused = |&port: &u16| self.probe_result(self.id(port), REFUSED);
            let inputs: Vec<_> = ports.iter().map(refused).collect();
            self.turn(inputs);
        }
    }

    pub(in crate::logic::director) fn stats(&self, port: u16) -> Arc<EndpointStats> {
        let endpoint = self.director.endpoints.get(self.id(port)).expect("known");
        Arc::clone(endpoint.stats())
    }

    /// Requests that end now: `good` of them well, and `bad` by `failure`.
    pub(in crate::logic::director) fn complete_requests(
        &mut self,
        port: u16,
        good: u32,
        bad: u32,
        failure: Failure,
    ) {
        let stats = self.stats(port);
        let now_us = self.now.saturating_duration_since(self.director.epoch).as_micros() as u64;
        (0..good).for_each(|_| {
            stats.record_good_response(now_us);
            stats.record_success();
        });
        let reported = (0..bad).filter(|_| stats.record_error()).count();
        let inputs: Vec<_> =
            (0..reported).map(|_| self.traffic_failure(self.id(port), failure)).collect();
        self.turn(inputs);
    }

    /// Time passes in small steps: every endpoint's probes are answered at once by `answer`.
    pub(in crate::logic::director) fn run_for(
        &mut self,
        time: Duration,
        answer: impl Fn(u16) -> ProbeOutcome,
    ) {
        let until = self.now + time;
        let mut outputs = Vec::new();
        while self.now < until {
            self.now += ms(10);
            self.turn([]);
            outputs.append(&mut self.outputs);
            let pending_probes = std::mem::take(&mut self.pending_probes);
            let answers = pending_probes.into_iter().map(|(endpoint, ticket, port)| {
                Input::ProbeFinished { endpoint, ticket, outcome: answer(port) }
            });
            self.turn(answers.collect::<Vec<_>>());
            outputs.append(&mut self.outputs);
        }
        self.outputs = outputs;
    }

    pub(in crate::logic::director) fn down_ports(&self) -> Vec<u16> {
        let all = self.director.endpoints();
        let down = all.iter().filter(|status| status.health.is_down());
        down.map(|status| status.subject.address.port()).collect()
    }

    pub(in crate::logic::director) fn view(&self) -> Arc<PoolView> {
        self.director.pools[0].view().cloned().expect("published")
    }

    pub(in crate::logic::director) fn published_snapshots(&self) -> Vec<Arc<Snapshot>> {
        let publish = |output: &Output| match output {
            Output::Publish(snapshot) => Some(Arc::clone(snapshot)),
            _ => None,
        };
        self.outputs.iter().filter_map(publish).collect()
    }

    fn events(&self) -> Vec<Event> {
        let event = |output: &Output| match output {
            Output::Event(event) => Some(event.clone()),
            _ => None,
        };
        self.outputs.iter().filter_map(event).collect()
    }

    fn panic_changes(&self) -> Vec<bool> {
        let is_active = |event: Event| match event {
            Event::Panic { is_active: on, .. } => Some(on),
            _ => None,
        };
        self.events().into_iter().filter_map(is_active).collect()
    }

    fn has_started_probe(&self, port: u16) -> bool {
        let id = self.id(port);
        let probes = |output: &Output| match output {
            Output::StartProbe { endpoint, .. } => *endpoint == id,
            _ => false,
        };
        self.outputs.iter().any(probes)
    }
}

impl DirectorDriver for Rig {
    fn director(&mut self) -> Option<impl DerefMut<Target = Director>> {
        Some(&mut self.director)
    }

    fn now(&self) -> Instant {
        self.now
    }

    fn apply_output(&mut self, output: Output) {
        if let Output::StartProbe { endpoint, ticket, address, .. } = &output {
            self.pending_probes.push((*endpoint, *ticket, address.port()));
        }
        self.outputs.push(output);
    }
}

pub(in crate::logic::director) fn pool(zones: &[(&str, &[u16])]) -> PoolSpec {
    let zone = |(name, ports): &(&str, &[u16])| {
        let endpoints = ports.iter().map(|&port| endpoint(port)).collect();
        ZoneSpec::new(Locality::parse(name).expect("a place"), endpoints)
    };
    // No correlation: zones have tests of their own.
    let correlate = CorrelationSpec { quorum_percent: 101, ..CorrelationSpec::default() };
    PoolSpec { correlation: correlate, ..PoolSpec::new("web", zones.iter().map(zone).collect()) }
}

fn endpoint(port: u16) -> EndpointSpec {
    EndpointSpec { address: SocketAddr::from(([127, 0, 0, 1], port)), weight: 1 }
}

pub(in crate::logic::director) fn serving_ports(snapshot: &Snapshot) -> Vec<u16> {
    let mut ports: Vec<u16> =
        snapshot.pools[0].targets().map(|target| target.address.port()).collect();
    ports.sort_unstable();
    ports
}
