//! The director by hand: what is handed in, and what it says.

mod asked;
mod basics;
mod inherit;
mod orders;
mod steering;
mod suspects;
mod traffic;
mod zones;

use super::*;
use crate::logic::id::Place;
use crate::logic::outcome::Reason;
use crate::logic::snapshot::{Live, PoolView};
use crate::logic::topology::{Correlate, EndpointSpec, ZoneSpec};

pub(in crate::logic::director) const REFUSED: Outcome =
    Outcome::Fail(Failure::connect(Reason::Refused));
pub(in crate::logic::director) const PASS: Outcome =
    Outcome::Pass { latency: Duration::from_millis(1) };

pub(in crate::logic::director) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A director, its time, and what it said in its last turn.
pub(in crate::logic::director) struct Rig {
    pub(in crate::logic::director) director: Director,
    pub(in crate::logic::director) now: Instant,
    said: Vec<Output>,
    /// Probes that are under way.
    asked: Vec<(EndpointId, Ticket, u16)>,
}

impl Rig {
    /// One pool; every endpoint has passed its first probe.
    pub(in crate::logic::director) fn new(zones: &[(&str, &[u16])]) -> Self {
        let mut rig = Self::cold(zones);
        rig.all_answer(PASS);
        rig
    }

    pub(in crate::logic::director) fn cold(zones: &[(&str, &[u16])]) -> Self {
        let mut rig = Self::blank();
        rig.configure(pool(zones));
        rig
    }

    /// The same with everything as the pool has it.
    pub(in crate::logic::director) fn with(pool: PoolSpec) -> Self {
        let mut rig = Self::blank();
        rig.configure(pool);
        rig.all_answer(PASS);
        rig
    }

    fn blank() -> Self {
        let now = Instant::now();
        Self {
            director: Director::new(now, 7),
            now: now + ms(1),
            said: Vec::new(),
            asked: Vec::new(),
        }
    }

    pub(in crate::logic::director) fn configure(&mut self, pool: PoolSpec) {
        let topology = Topology { here: None, pools: vec![Arc::new(pool)], ..Topology::default() };
        self.turn([Input::Configure { topology, routes: Arc::default() }]);
    }

    /// Hands in all inputs, then does what the director says.
    pub(in crate::logic::director) fn turn(&mut self, inputs: impl IntoIterator<Item = Input>) {
        inputs.into_iter().for_each(|input| self.director.handle(input, self.now));
        self.director.handle_timeout(self.now);
        self.said.clear();
        while let Some(output) = self.director.poll_output() {
            let publish = matches!(output, Output::Publish(_));
            if let Output::Probe { endpoint, ticket, address, .. } = &output {
                self.asked.push((*endpoint, *ticket, address.port()));
            }
            self.said.push(output);
            if publish {
                self.director.handle(Input::Published, self.now);
            }
        }
    }

    pub(in crate::logic::director) fn wait(&mut self, time: Duration) {
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

    pub(in crate::logic::director) fn regular(
        &self,
        endpoint: EndpointId,
        outcome: Outcome,
    ) -> Input {
        let ticket = Ticket { probe: 0, row: ProbeRow::Regular, started: self.now };
        Input::Probed { endpoint, ticket, outcome }
    }

    pub(in crate::logic::director) fn traffic(
        &self,
        endpoint: EndpointId,
        failure: Failure,
    ) -> Input {
        Input::Traffic { endpoint, failure, began: self.now }
    }

    pub(in crate::logic::director) fn all_answer(&mut self, outcome: Outcome) {
        let inputs: Vec<_> = self.ids().iter().map(|&id| self.regular(id, outcome)).collect();
        self.turn(inputs);
    }

    /// Two refusals: a verdict.
    pub(in crate::logic::director) fn fell(&mut self, ports: &[u16]) {
        for _ in 0..2 {
            self.now += ms(1);
            let refused = |&port: &u16| self.regular(self.id(port), REFUSED);
            let inputs: Vec<_> = ports.iter().map(refused).collect();
            self.turn(inputs);
        }
    }

    pub(in crate::logic::director) fn live(&self, port: u16) -> Arc<Live> {
        let endpoint = self.director.roster.get(self.id(port)).expect("known");
        Arc::clone(&endpoint.live)
    }

    /// Requests that end now: so many well, and so many by `failure`.
    pub(in crate::logic::director) fn requests(
        &mut self,
        port: u16,
        good: u32,
        bad: u32,
        failure: Failure,
    ) {
        let live = self.live(port);
        let now_us = self.now.saturating_duration_since(self.director.epoch).as_micros() as u64;
        (0..good).for_each(|_| {
            live.good(now_us);
            live.answered();
        });
        let told = (0..bad).filter(|_| live.erred()).count();
        let inputs: Vec<_> = (0..told).map(|_| self.traffic(self.id(port), failure)).collect();
        self.turn(inputs);
    }

    /// Time passes in small steps: every endpoint's probes are answered at once by `answer`.
    pub(in crate::logic::director) fn live_on(
        &mut self,
        time: Duration,
        answer: impl Fn(u16) -> Outcome,
    ) {
        let until = self.now + time;
        let mut said = Vec::new();
        while self.now < until {
            self.now += ms(10);
            self.turn([]);
            said.append(&mut self.said);
            let asked = std::mem::take(&mut self.asked);
            let answers = asked.into_iter().map(|(endpoint, ticket, port)| Input::Probed {
                endpoint,
                ticket,
                outcome: answer(port),
            });
            self.turn(answers.collect::<Vec<_>>());
            said.append(&mut self.said);
        }
        self.said = said;
    }

    pub(in crate::logic::director) fn down(&self) -> Vec<u16> {
        let all = self.director.endpoints();
        let down = all.iter().filter(|status| status.health.is_down());
        down.map(|status| status.subject.address.port()).collect()
    }

    pub(in crate::logic::director) fn view(&self) -> Arc<PoolView> {
        self.director.pools[0].view.clone().expect("published")
    }

    pub(in crate::logic::director) fn published(&self) -> Vec<Arc<Snapshot>> {
        let publish = |output: &Output| match output {
            Output::Publish(snapshot) => Some(Arc::clone(snapshot)),
            _ => None,
        };
        self.said.iter().filter_map(publish).collect()
    }

    fn events(&self) -> Vec<Event> {
        let event = |output: &Output| match output {
            Output::Event(event) => Some(event.clone()),
            _ => None,
        };
        self.said.iter().filter_map(event).collect()
    }

    fn panics(&self) -> Vec<bool> {
        let on = |event: Event| match event {
            Event::Panic { on, .. } => Some(on),
            _ => None,
        };
        self.events().into_iter().filter_map(on).collect()
    }

    fn probed(&self, port: u16) -> bool {
        let id = self.id(port);
        let probes = |output: &Output| match output {
            Output::Probe { endpoint, .. } => *endpoint == id,
            _ => false,
        };
        self.said.iter().any(probes)
    }
}

pub(in crate::logic::director) fn pool(zones: &[(&str, &[u16])]) -> PoolSpec {
    let zone = |(name, ports): &(&str, &[u16])| {
        let endpoints = ports.iter().map(|&port| endpoint(port)).collect();
        ZoneSpec::new(Place::parse(name).expect("a place"), endpoints)
    };
    // Each endpoint by its own deeds; zones have tests of their own.
    let correlate = Correlate { quorum_percent: 101, ..Correlate::default() };
    PoolSpec { correlate, ..PoolSpec::new("web", zones.iter().map(zone).collect()) }
}

fn endpoint(port: u16) -> EndpointSpec {
    EndpointSpec { address: SocketAddr::from(([127, 0, 0, 1], port)), weight: 1 }
}

pub(in crate::logic::director) fn serving(snapshot: &Snapshot) -> Vec<u16> {
    let mut ports: Vec<u16> =
        snapshot.pools[0].targets().map(|target| target.address.port()).collect();
    ports.sort_unstable();
    ports
}
