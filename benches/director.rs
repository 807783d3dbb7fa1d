//! The director at scale: the cost of 100,000 endpoints, and the time of a large zone's shift.
//!
//! `cargo bench --bench director` prints its figures and fails if one exceeds its bound: the memory
//! of an endpoint; the CPU time for 100,000 endpoints with one probe per second; the time from the
//! last evidence to the publication when a zone of 33,000 endpoints fails; and the time to
//! recompute the shares of a thousand zones when one endpoint fails. `-- --smoke` does the same
//! with a tenth of the endpoints, without bounds.

use std::net::SocketAddr;
use std::ops::DerefMut;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gapless::logic::director::{Director, DirectorDriver, Input, Output, ProbeTicket};
use gapless::logic::model::id::{EndpointId, Locality};
use gapless::logic::model::outcome::{Failure, FailureReason, ProbeOutcome};
use gapless::logic::model::snapshot::Snapshot;
use gapless::logic::model::topology::{EndpointSpec, PoolSpec, Topology, ZoneSpec};
use gapless::logic::routing::RouteTable;
use gapless::logic::steering::SteeringPolicy;

const PASS: ProbeOutcome = ProbeOutcome::Pass { latency: Duration::from_millis(1) };
const REFUSED: ProbeOutcome = ProbeOutcome::Fail(Failure::connect(FailureReason::Refused));

/// The time between two turns of the control thread.
const TICK_INTERVAL: Duration = Duration::from_millis(1);

const ZONES: usize = 3;
const MAX_ENDPOINT_BYTES: f64 = 1024.0;
const MAX_CORE_FRACTION: f64 = 0.05;
const MAX_ZONE_FAILURE_TIME: Duration = Duration::from_millis(10);
const MAX_SHARE_UPDATE_TIME: Duration = Duration::from_millis(1);

/// The number of zones whose shares are recomputed.
const SHARE_UPDATE_ZONES: usize = 1_000;

/// A director and its virtual time; measures the CPU time of the director.
struct DirectorHarness {
    director: Director,
    now: Instant,
    pending_probes: Vec<(EndpointId, ProbeTicket)>,
    publications: u32,
    /// The CPU time when the last snapshot was published.
    last_publish_cpu_time: Duration,
    last_snapshot: Option<Arc<Snapshot>>,
}

impl DirectorDriver for DirectorHarness {
    fn director(&mut self) -> Option<impl DerefMut<Target = Director>> {
        Some(&mut self.director)
    }

    fn now(&self) -> Instant {
        self.now
    }

    fn apply_output(&mut self, output: Output) {
        match output {
            Output::StartProbe { endpoint, ticket, .. } => {
                self.pending_probes.push((endpoint, ticket));
            }
            Output::Publish(snapshot) => {
                self.publications += 1;
                self.last_publish_cpu_time = cpu_time();
                self.last_snapshot = Some(snapshot);
            }
            Output::AbortRequests { .. } | Output::Drained { .. } | Output::Event(_) => {}
        }
    }
}

impl DirectorHarness {
    fn new(
        zones: usize,
        endpoints_per_zone: usize,
        configure_pool: impl FnOnce(&mut PoolSpec),
    ) -> Self {
        let now = Instant::now();
        let zone = |zone: usize| {
            let locality = Locality::parse(&format!("region/zone-{zone}")).expect("a place");
            let hosts = (0..endpoints_per_zone).map(|host| endpoint(zone, host));
            ZoneSpec::new(locality, hosts.collect())
        };
        let mut pool = PoolSpec::new("web", (0..zones).map(zone).collect());
        configure_pool(&mut pool);
        let pools = vec![Arc::new(pool)];
        let topology = Topology { pools, probes_per_second: 1_000_000, ..Topology::default() };
        let mut harness = Self {
            director: Director::new(now, 1),
            now: now + TICK_INTERVAL,
            pending_probes: Vec::new(),
            publications: 0,
            last_publish_cpu_time: Duration::ZERO,
            last_snapshot: None,
        };
        let routes = Arc::<RouteTable>::default();
        harness.director.handle(Input::Configure { topology, routes }, harness.now);
        harness.apply_outputs();
        harness
    }

    /// Applies the outputs of the director; returns the last snapshot that it published.
    fn apply_outputs(&mut self) -> Option<Arc<Snapshot>> {
        self.last_snapshot = None;
        self.drain_outputs();
        self.last_snapshot.take()
    }

    fn tick(&mut self) {
        self.now += TICK_INTERVAL;
        self.drive();
    }

    /// Advances virtual time; every probe is answered one step later.
    fn run_for(&mut self, duration: Duration, outcome: impl Fn(EndpointId) -> ProbeOutcome) -> u64 {
        let until = self.now + duration;
        let mut probes = 0;
        while self.now < until {
            self.tick();
            probes += self.pending_probes.len() as u64;
            for (endpoint, ticket) in std::mem::take(&mut self.pending_probes) {
                let outcome = outcome(endpoint);
                self.director.handle(Input::ProbeFinished { endpoint, ticket, outcome }, self.now);
            }
            self.apply_outputs();
        }
        probes
    }

    /// Refuses connections to the endpoints of the first zone one after the other, each in its own
    /// turn. Returns the time from the decisive evidence to the snapshot without the zone, and to
    /// the end of that turn.
    fn measure_zone_failure(
        &mut self,
        is_in_zone: impl Fn(EndpointId) -> bool,
    ) -> (Duration, Duration) {
        for _ in 0..3_000 {
            self.tick();
            for (endpoint, ticket) in std::mem::take(&mut self.pending_probes) {
                let outcome = if is_in_zone(endpoint) { REFUSED } else { PASS };
                let before = cpu_time();
                self.director.handle(Input::ProbeFinished { endpoint, ticket, outcome }, self.now);
                if self.apply_outputs().is_some_and(|snapshot| is_zone_empty(&snapshot)) {
                    return (self.last_publish_cpu_time - before, cpu_time() - before);
                }
            }
        }
        panic!("the zone did not fall within three seconds");
    }
}

fn endpoint(zone: usize, host: usize) -> EndpointSpec {
    let ip = [10, zone as u8, (host >> 8) as u8, host as u8];
    EndpointSpec { address: SocketAddr::from((ip, 9_000 + (zone >> 8) as u16)), weight: 1 }
}

/// Whether the first zone takes no traffic.
fn is_zone_empty(snapshot: &Snapshot) -> bool {
    let tiers = snapshot.pools[0].primary.tiers.iter().filter(|tier| tier.share > 0);
    tiers.flat_map(|tier| tier.targets().next()).all(|target| target.zone != 0)
}

/// The CPU time of this thread, the only one.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn resident_bytes() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0.0);
    pages * 4096.0
}

/// The median time from the evidence that takes an endpoint of one of many zones down to the
/// snapshot with new shares.
fn measure_share_update(configure_pool: impl FnOnce(&mut PoolSpec)) -> Duration {
    let mut harness = DirectorHarness::new(SHARE_UPDATE_ZONES, 2, configure_pool);
    harness.run_for(Duration::from_secs(3), |_| PASS);
    let mut times = Vec::new();
    while times.len() < 21 {
        harness.tick();
        let mut pending = std::mem::take(&mut harness.pending_probes).into_iter();
        let Some((endpoint, first_ticket)) = pending.next() else { continue };
        for (endpoint, ticket) in pending {
            let outcome = PASS;
            harness
                .director
                .handle(Input::ProbeFinished { endpoint, ticket, outcome }, harness.now);
        }
        let (ticket, outcome) = (first_ticket, REFUSED);
        harness.director.handle(Input::ProbeFinished { endpoint, ticket, outcome }, harness.now);
        harness.apply_outputs();
        let ticket = ProbeTicket { started: harness.now, ..first_ticket };
        let before = cpu_time();
        harness.director.handle(Input::ProbeFinished { endpoint, ticket, outcome }, harness.now);
        if harness.apply_outputs().is_some() {
            times.push(harness.last_publish_cpu_time - before);
        }
    }
    times.sort();
    times[times.len() / 2]
}

fn main() -> ExitCode {
    let is_smoke = std::env::args().any(|argument| argument == "--smoke");
    let endpoints_per_zone = if is_smoke { 3_334 } else { 33_334 };
    let endpoints = ZONES * endpoints_per_zone;
    let is_in_zone = |id: EndpointId| (id.slot as usize) < endpoints_per_zone;

    let before = resident_bytes();
    let mut harness = DirectorHarness::new(ZONES, endpoints_per_zone, |_| {});
    harness.run_for(Duration::from_secs(12), |_| PASS);
    harness.pending_probes.shrink_to_fit();
    let bytes_per_endpoint = (resident_bytes() - before) / endpoints as f64;
    println!(
        "{endpoints} endpoints, with what is remembered of their probes: {bytes_per_endpoint:.0} bytes each"
    );

    let (before, publications) = (cpu_time(), harness.publications);
    let probe_count = harness.run_for(Duration::from_secs(5), |_| PASS);
    let cpu_spent = cpu_time() - before;
    let core_fraction = cpu_spent.as_secs_f64() / 5.0;
    println!(
        "{:.0} probes a second: {:.2} % of a core, {:.0} ns each, {} publications",
        probe_count as f64 / 5.0,
        100.0 * core_fraction,
        cpu_spent.as_nanos() as f64 / probe_count.max(1) as f64,
        harness.publications - publications
    );

    let (publication_time, turn_time) = harness.measure_zone_failure(is_in_zone);
    println!(
        "a zone of {endpoints_per_zone} dies: {publication_time:?} from the last evidence to the publication"
    );
    println!("and {turn_time:?} until the end of the turn");
    let (cpu_before, before) = (cpu_time(), harness.publications);
    harness.run_for(Duration::from_secs(3), |id| if is_in_zone(id) { REFUSED } else { PASS });
    println!(
        "the verdicts on the rest of it: {:?} of CPU in three seconds, {} more publications",
        cpu_time() - cpu_before,
        harness.publications - before
    );

    let ordered_time = measure_share_update(|_| {});
    let weighted_time = measure_share_update(|pool| pool.steer.policy = SteeringPolicy::Weighted);
    println!(
        "{SHARE_UPDATE_ZONES} zones: {ordered_time:?} from the evidence against an endpoint to the shares without it, zone by \
         zone; {weighted_time:?} by weight"
    );

    let is_within_bounds = bytes_per_endpoint <= MAX_ENDPOINT_BYTES
        && core_fraction <= MAX_CORE_FRACTION
        && publication_time <= MAX_ZONE_FAILURE_TIME
        && ordered_time.max(weighted_time) <= MAX_SHARE_UPDATE_TIME;
    if is_smoke || is_within_bounds { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
