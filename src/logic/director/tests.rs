use super::*;
use crate::logic::id::Place;
use crate::logic::outcome::Reason;
use crate::logic::schedule::BURST_GAP;
use crate::logic::snapshot::Tally;
use crate::logic::steer::WHOLE;
use crate::logic::topology::{Correlate, EndpointSpec, ZoneSpec};

pub(super) const REFUSED: Outcome = Outcome::Fail(Failure::connect(Reason::Refused));
pub(super) const PASS: Outcome = Outcome::Pass { latency: Duration::from_millis(1) };

pub(super) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A director, its time, and what it said in its last turn.
pub(super) struct Rig {
    pub(super) director: Director,
    pub(super) now: Instant,
    said: Vec<Output>,
}

impl Rig {
    /// One pool; every endpoint has passed its first probe.
    pub(super) fn new(zones: &[(&str, &[u16])]) -> Self {
        let mut rig = Self::cold(zones);
        rig.all_answer(PASS);
        rig
    }

    pub(super) fn cold(zones: &[(&str, &[u16])]) -> Self {
        let now = Instant::now();
        let director = Director::new(now, 7);
        let mut rig = Self { director, now: now + ms(1), said: Vec::new() };
        rig.configure(pool(zones));
        rig
    }

    pub(super) fn configure(&mut self, pool: PoolSpec) {
        let topology = Topology { here: None, pools: vec![Arc::new(pool)], ..Topology::default() };
        self.turn([Input::Configure { topology, routes: Arc::default() }]);
    }

    /// Hands in all inputs, then does what the director says.
    pub(super) fn turn(&mut self, inputs: impl IntoIterator<Item = Input>) {
        inputs.into_iter().for_each(|input| self.director.handle(input, self.now));
        self.director.handle_timeout(self.now);
        self.said.clear();
        while let Some(output) = self.director.poll_output() {
            let publish = matches!(output, Output::Publish(_));
            self.said.push(output);
            if publish {
                self.director.handle(Input::Published, self.now);
            }
        }
    }

    pub(super) fn wait(&mut self, time: Duration) {
        self.now += time;
        self.turn([]);
    }

    fn ids(&self) -> Vec<EndpointId> {
        self.director.endpoints().iter().map(|status| status.subject.endpoint).collect()
    }

    pub(super) fn id(&self, port: u16) -> EndpointId {
        let all = self.director.endpoints();
        let one = all.iter().find(|status| status.subject.address.port() == port);
        one.expect("known").subject.endpoint
    }

    fn status(&self, port: u16) -> EndpointStatus {
        let mut all = self.director.endpoints().into_iter();
        all.find(|status| status.subject.address.port() == port).expect("known")
    }

    pub(super) fn regular(&self, endpoint: EndpointId, outcome: Outcome) -> Input {
        let ticket = Ticket { probe: 0, row: ProbeRow::Regular, started: self.now };
        Input::Probed { endpoint, ticket, outcome }
    }

    pub(super) fn traffic(&self, endpoint: EndpointId, failure: Failure) -> Input {
        Input::Traffic { endpoint, failure, began: self.now }
    }

    pub(super) fn all_answer(&mut self, outcome: Outcome) {
        let inputs: Vec<_> = self.ids().iter().map(|&id| self.regular(id, outcome)).collect();
        self.turn(inputs);
    }

    /// Two refusals: a verdict.
    pub(super) fn fell(&mut self, ports: &[u16]) {
        for _ in 0..2 {
            self.now += ms(1);
            let refused = |&port: &u16| self.regular(self.id(port), REFUSED);
            let inputs: Vec<_> = ports.iter().map(refused).collect();
            self.turn(inputs);
        }
    }

    pub(super) fn published(&self) -> Vec<Arc<Snapshot>> {
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

pub(super) fn pool(zones: &[(&str, &[u16])]) -> PoolSpec {
    let zone = |(name, ports): &(&str, &[u16])| ZoneSpec {
        place: Place::parse(name).expect("a place"),
        endpoints: ports.iter().map(|&port| endpoint(port)).collect(),
    };
    // Each endpoint by its own deeds; zones have tests of their own.
    let correlate = Correlate { quorum_percent: 101, ..Correlate::default() };
    PoolSpec { correlate, ..PoolSpec::new("web", zones.iter().map(zone).collect()) }
}

fn endpoint(port: u16) -> EndpointSpec {
    EndpointSpec { address: SocketAddr::from(([127, 0, 0, 1], port)), weight: 1 }
}

pub(super) fn serving(snapshot: &Snapshot) -> Vec<u16> {
    let mut ports: Vec<u16> =
        snapshot.pools[0].targets().map(|target| target.address.port()).collect();
    ports.sort_unstable();
    ports
}

#[test]
fn a_reload_keeps_health_by_identity() {
    let mut rig = Rig::new(&[("r/a", &[1, 2]), ("r/b", &[3, 4])]);
    rig.fell(&[2]);
    let before = rig.director.endpoints();
    let mut other = pool(&[("r/b", &[4, 3, 2]), ("r/a", &[1])]);
    other.zones[0].endpoints[2].weight = 5;
    rig.configure(other);
    let snapshot = rig.published().pop().expect("a snapshot");
    assert_eq!(serving(&snapshot), [1, 3, 4]);
    for old in before {
        let new = rig.status(old.subject.address.port());
        assert_eq!(new.subject.endpoint, old.subject.endpoint);
        assert_eq!((new.health, new.since), (old.health, old.since));
        assert_eq!(new.probes.len(), old.probes.len());
    }
    let moved = rig.status(2);
    assert_eq!((moved.subject.place.to_string().as_str(), moved.weight), ("r/b", 5));
    let incidents = rig.director.incidents();
    assert_eq!(incidents.len(), 1);
    assert!(!incidents[0].is_over());
}

#[test]
fn a_new_endpoint_is_unknown_until_its_first_pass() {
    let mut rig = Rig::new(&[("r/a", &[1])]);
    rig.configure(pool(&[("r/a", &[1, 2])]));
    assert_eq!(rig.status(2).health, Health::NEW);
    assert_eq!(serving(&rig.published()[0]), [1]);
    assert!(rig.probed(2) && !rig.probed(1), "it is probed at once");
    let pass = rig.regular(rig.id(2), PASS);
    rig.turn([pass]);
    assert_eq!(serving(&rig.published()[0]), [1, 2]);
}

#[test]
fn a_removed_endpoint_takes_its_incident_along_and_late_results_hit_nobody() {
    let mut rig = Rig::new(&[("r/a", &[1, 2])]);
    rig.fell(&[2]);
    let late = rig.regular(rig.id(2), PASS);
    rig.configure(pool(&[("r/a", &[1])]));
    let ended = |event: &Event| matches!(event, Event::IncidentEnded(_));
    assert_eq!(rig.events().iter().filter(|event| ended(event)).count(), 1);
    assert!(rig.director.incidents()[0].is_over());
    rig.turn([late]);
    assert!(rig.said.is_empty());
    rig.configure(pool(&[("r/a", &[1, 2])]));
    assert_eq!(rig.status(2).health, Health::NEW, "what comes again is new");
}

#[test]
fn panic_begins_and_ends_once() {
    let mut rig = Rig::new(&[("r/a", &[1]), ("r/b", &[2])]);
    rig.fell(&[1]);
    assert!(rig.panics().is_empty());
    rig.fell(&[2]);
    assert_eq!(rig.panics(), [true]);
    assert_eq!(serving(&rig.published()[0]), [1, 2], "requests go everywhere");
    let cut = |output: &Output| matches!(output, Output::Cut { .. });
    assert!(!rig.said.iter().any(cut), "there is nowhere better to go");
    rig.fell(&[1, 2]);
    assert!(rig.panics().is_empty() && rig.published().is_empty());
    for expected in [&[][..], &[false][..]] {
        rig.now += ms(1);
        let pass = rig.regular(rig.id(2), PASS);
        rig.turn([pass]);
        assert_eq!(rig.panics(), expected);
    }
    assert_eq!(serving(&rig.published()[0]), [2]);
    let left = |output: &Output| match output {
        Output::Cut { endpoint, .. } => Some(*endpoint),
        _ => None,
    };
    let left: Vec<_> = rig.said.iter().filter_map(left).collect();
    assert_eq!(left, [rig.id(1)], "whoever waits there has somewhere to go now");
}

#[test]
fn a_pool_that_is_down_from_the_start_panics() {
    let mut rig = Rig::cold(&[("r/a", &[1, 2])]);
    assert!(serving(&rig.published()[0]).is_empty());
    rig.fell(&[1]);
    assert_eq!(serving(&rig.published()[0]), [1, 2]);
}

#[test]
fn verdicts_of_one_turn_are_one_snapshot_and_cuts_come_after_it() {
    let mut rig = Rig::new(&[("r/a", &[1, 2, 3]), ("r/b", &[4])]);
    rig.fell(&[1, 2, 3]);
    assert_eq!(rig.published().len(), 1);
    assert_eq!(serving(&rig.published()[0]), [4]);
    let publish = rig.said.iter().position(|output| matches!(output, Output::Publish(_)));
    let cuts = rig.said.iter().enumerate().filter_map(|(index, output)| match output {
        Output::Cut { endpoint, failure } => Some((index, *endpoint, failure.class())),
        _ => None,
    });
    let cuts: Vec<_> = cuts.collect();
    assert_eq!(cuts.len(), 3);
    assert!(cuts.iter().all(|(index, ..)| Some(*index) > publish));
    for incident in rig.director.incidents() {
        assert_eq!(incident.timeline.shift, Some(rig.now));
    }
}

#[test]
fn a_pass_of_before_the_last_strike_clears_nothing() {
    let mut rig = Rig::new(&[("r/a", &[1, 2])]);
    let id = rig.id(1);
    rig.now += ms(10);
    let asked_before = rig.regular(id, PASS);
    rig.now += ms(1);
    let strike = rig.traffic(id, Failure::connect(Reason::Refused));
    rig.turn([strike]);
    rig.now += ms(1);
    rig.turn([asked_before]);
    assert!(matches!(rig.status(1).health, Health::Suspect { .. }));
    let asked_after = rig.regular(id, PASS);
    rig.turn([asked_after]);
    assert_eq!(rig.status(1).health, Health::Up);
}

#[test]
fn a_strike_from_traffic_begins_a_burst_but_not_one_after_another() {
    let mut rig = Rig::new(&[("r/a", &[1, 2])]);
    let id = rig.id(1);
    let stall = Failure::http(Reason::Stall);
    let strike = rig.traffic(id, stall);
    rig.turn([strike]);
    let mut rows = Vec::new();
    for _ in 0..12 {
        rows.extend(rig.said.iter().filter_map(|output| match output {
            Output::Probe { endpoint, ticket, .. } if *endpoint == id => Some(ticket.row),
            _ => None,
        }));
        rig.now += BURST_GAP / 4;
        let strike = rig.traffic(id, stall);
        rig.turn([strike]);
    }
    let bursts: Vec<_> = rows.iter().filter(|row| matches!(row, ProbeRow::Burst(_))).collect();
    assert_eq!(bursts, [&ProbeRow::Burst(1); 3], "three probes, however many strikes");
}

#[test]
fn soft_evidence_alone_makes_no_verdict() {
    let mut rig = Rig::new(&[("r/a", &[1, 2])]);
    let id = rig.id(1);
    for _ in 0..20 {
        rig.now += ms(1);
        let strikes = [Reason::Reset, Reason::Closed, Reason::Stall, Reason::Timeout]
            .map(|reason| rig.traffic(id, Failure::http(reason)));
        rig.turn(strikes);
    }
    assert!(matches!(rig.status(1).health, Health::Suspect { strikes: 1, .. }));
    assert!(rig.status(1).in_service && rig.director.incidents().is_empty());
}

#[test]
fn a_try_that_began_before_the_return_tells_of_what_is_over() {
    let mut rig = Rig::new(&[("r/a", &[1, 2])]);
    let id = rig.id(1);
    let old = rig.traffic(id, Failure::connect(Reason::Refused));
    rig.fell(&[1]);
    for _ in 0..2 {
        rig.now += ms(1);
        let pass = rig.regular(id, PASS);
        rig.turn([pass]);
    }
    rig.turn([old]);
    assert_eq!(rig.status(1).health, Health::Up);
}

#[test]
fn a_changed_probe_is_sent_at_once_and_a_changed_period_repaces() {
    let mut rig = Rig::new(&[("r/a", &[1])]);
    rig.wait(ms(2_000));
    let pass = rig.regular(rig.id(1), PASS);
    rig.turn([pass]);
    let last = rig.now;
    rig.wait(ms(10));
    let mut sooner = pool(&[("r/a", &[1])]);
    sooner.detect.interval = ms(300);
    rig.configure(sooner.clone());
    assert_eq!(rig.status(1).next_probe, Some(last + ms(300)));
    sooner.probes[0].port = Some(99);
    rig.configure(sooner);
    assert!(rig.probed(1));
}

#[test]
fn an_incident_counts_what_requests_met_and_keeps_it() {
    let mut rig = Rig::new(&[("r/a", &[1, 2])]);
    let id = rig.id(1);
    let live = {
        let view = rig.director.pools[0].view.as_ref().expect("published");
        let target = view.targets().find(|target| target.id == id).expect("serves");
        Arc::clone(&target.live)
    };
    live.rescued(false);
    live.rescued(true);
    rig.fell(&[1]);
    live.failed(2_000);
    let counts = Tally { failed: 1, rescued: 2, late: 1 };
    assert_eq!(rig.director.incidents()[0].counts, counts);
    for _ in 0..2 {
        rig.now += ms(1);
        let pass = rig.regular(id, PASS);
        rig.turn([pass]);
    }
    let incident = rig.director.incidents().remove(0);
    assert!(incident.is_over());
    assert_eq!(incident.counts, counts);
    rig.fell(&[1]);
    assert_eq!(rig.director.incidents()[1].counts, Tally::default(), "the next begins at zero");
}

#[test]
fn new_addresses_for_all_endpoints_leave_the_old_ones_serving_until_one_is_known() {
    let mut rig = Rig::new(&[("r/a", &[1, 2]), ("r/b", &[3])]);
    rig.configure(pool(&[("r/a", &[4, 5]), ("r/b", &[6])]));
    assert_eq!(rig.status(4).health, Health::NEW);
    assert_eq!(serving(rig.published().last().expect("a snapshot")), [1, 2, 3]);
    assert!(rig.panics().is_empty());
    rig.now += ms(1);
    let strike = rig.regular(rig.id(4), REFUSED);
    rig.turn([strike]);
    assert!(rig.published().iter().all(|snapshot| serving(snapshot) == [1, 2, 3]));
    let pass = rig.regular(rig.id(5), PASS);
    rig.turn([pass]);
    assert_eq!(serving(rig.published().last().expect("a snapshot")), [5]);
    assert!(rig.panics().is_empty());
}

#[test]
fn additions_to_the_preferred_zone_spill_nothing() {
    let shares = |snapshot: &Snapshot| -> Vec<u64> {
        snapshot.pools[0].tiers.iter().map(|tier| tier.share).collect()
    };
    let mut rig = Rig::new(&[("r/a", &[1, 2]), ("r/b", &[9])]);
    rig.configure(pool(&[("r/a", &[1, 2, 3, 4, 5, 6]), ("r/b", &[9])]));
    assert_eq!(shares(rig.published().last().expect("a snapshot")), [WHOLE, 0]);
    for port in 3..=6 {
        rig.now += ms(1);
        let pass = rig.regular(rig.id(port), PASS);
        rig.turn([pass]);
        assert_eq!(shares(rig.published().last().expect("a snapshot")), [WHOLE, 0]);
    }
    rig.fell(&[1, 2, 3]);
    assert!(shares(rig.published().last().expect("a snapshot"))[1] > 0, "real losses spill");
}
