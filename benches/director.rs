//! The director at scale: what a hundred thousand endpoints cost, and how fast a large zone goes.
//!
//! `cargo bench --bench director` prints its figures and fails if one of them leaves its bound:
//! the memory of an endpoint, the CPU time of the pure part for 100,000 endpoints that are probed
//! once a second, and the time from the last piece of evidence to the one publication when a zone
//! of 33,000 endpoints dies; and the time in which the shares of a thousand zones are computed anew
//! when one endpoint goes. `-- --smoke` does the same with a tenth of the endpoints, unbounded.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gapless::logic::director::{Director, Input, Output, Ticket};
use gapless::logic::id::{EndpointId, Place};
use gapless::logic::outcome::{Failure, Outcome, Reason};
use gapless::logic::route::RouteTable;
use gapless::logic::snapshot::Snapshot;
use gapless::logic::steer::Policy;
use gapless::logic::topology::{EndpointSpec, PoolSpec, Topology, ZoneSpec};

const PASS: Outcome = Outcome::Pass { latency: Duration::from_millis(1) };
const REFUSED: Outcome = Outcome::Fail(Failure::connect(Reason::Refused));

/// How often the control thread would wake.
const STEP: Duration = Duration::from_millis(1);

const ZONES: usize = 3;
const ENDPOINT_BYTES_AT_MOST: f64 = 1024.0;
const CORE_SHARE_AT_MOST: f64 = 0.05;
const ZONE_AT_MOST: Duration = Duration::from_millis(10);
const SHARES_AT_MOST: Duration = Duration::from_millis(1);

/// Zones whose shares are computed anew.
const MANY_ZONES: usize = 1_000;

/// A director and its virtual time; counts what the director itself takes.
struct Rig {
    director: Director,
    now: Instant,
    asked: Vec<(EndpointId, Ticket)>,
    publications: u32,
    /// The CPU time when the last snapshot was handed out.
    published_at: Duration,
}

impl Rig {
    fn new(zones: usize, endpoints_per_zone: usize, change: impl FnOnce(&mut PoolSpec)) -> Self {
        let now = Instant::now();
        let zone = |zone: usize| {
            let place = Place::parse(&format!("region/zone-{zone}")).expect("a place");
            let hosts = (0..endpoints_per_zone).map(|host| endpoint(zone, host));
            ZoneSpec::new(place, hosts.collect())
        };
        let mut pool = PoolSpec::new("web", (0..zones).map(zone).collect());
        change(&mut pool);
        let pools = vec![Arc::new(pool)];
        let topology = Topology { pools, probes_per_second: 1_000_000, ..Topology::default() };
        let mut rig = Self {
            director: Director::new(now, 1),
            now: now + STEP,
            asked: Vec::new(),
            publications: 0,
            published_at: Duration::ZERO,
        };
        let routes = Arc::<RouteTable>::default();
        rig.director.handle(Input::Configure { topology, routes }, rig.now);
        rig.obey();
        rig
    }

    /// Does what the director says, and gives the last snapshot that it published.
    fn obey(&mut self) -> Option<Arc<Snapshot>> {
        let mut published = None;
        loop {
            match self.director.poll_output() {
                Some(Output::Probe { endpoint, ticket, .. }) => self.asked.push((endpoint, ticket)),
                Some(Output::Publish(snapshot)) => {
                    self.publications += 1;
                    self.published_at = cpu_time();
                    published = Some(snapshot);
                    self.director.handle(Input::Published, self.now);
                }
                Some(_) => {}
                None => return published,
            }
        }
    }

    fn step(&mut self) {
        self.now += STEP;
        self.director.handle_timeout(self.now);
        self.obey();
    }

    /// Lets virtual time pass; every probe is answered one step later.
    fn pass(&mut self, time: Duration, outcome: impl Fn(EndpointId) -> Outcome) -> u64 {
        let until = self.now + time;
        let mut probes = 0;
        while self.now < until {
            self.step();
            probes += self.asked.len() as u64;
            for (endpoint, ticket) in std::mem::take(&mut self.asked) {
                let outcome = outcome(endpoint);
                self.director.handle(Input::Probed { endpoint, ticket, outcome }, self.now);
            }
            self.obey();
        }
        probes
    }

    /// The first zone's endpoints are refused one after the other, each in a turn of its own; the
    /// time from handing in the evidence that decides to having the snapshot without the zone, and
    /// to the end of the turn, when everything has been told.
    fn zone_dies(&mut self, in_zone: impl Fn(EndpointId) -> bool) -> (Duration, Duration) {
        for _ in 0..3_000 {
            self.step();
            for (endpoint, ticket) in std::mem::take(&mut self.asked) {
                let outcome = if in_zone(endpoint) { REFUSED } else { PASS };
                let before = cpu_time();
                self.director.handle(Input::Probed { endpoint, ticket, outcome }, self.now);
                if self.obey().is_some_and(|snapshot| is_gone(&snapshot)) {
                    return (self.published_at - before, cpu_time() - before);
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
fn is_gone(snapshot: &Snapshot) -> bool {
    let tiers = snapshot.pools[0].led.tiers.iter().filter(|tier| tier.share > 0);
    tiers.flat_map(|tier| tier.targets().next()).all(|target| target.zone != 0)
}

/// What this thread, the only one, has had of a processor.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn resident_bytes() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0.0);
    pages * 4096.0
}

/// The median time from the evidence that puts an endpoint of one of many zones down to the snapshot
/// with the new shares.
fn shares_take(change: impl FnOnce(&mut PoolSpec)) -> Duration {
    let mut rig = Rig::new(MANY_ZONES, 2, change);
    rig.pass(Duration::from_secs(3), |_| PASS);
    let mut times = Vec::new();
    while times.len() < 21 {
        rig.step();
        let mut asked = std::mem::take(&mut rig.asked).into_iter();
        let Some((endpoint, first)) = asked.next() else { continue };
        for (endpoint, ticket) in asked {
            let outcome = PASS;
            rig.director.handle(Input::Probed { endpoint, ticket, outcome }, rig.now);
        }
        let (ticket, outcome) = (first, REFUSED);
        rig.director.handle(Input::Probed { endpoint, ticket, outcome }, rig.now);
        rig.obey();
        let ticket = Ticket { started: rig.now, ..first };
        let before = cpu_time();
        rig.director.handle(Input::Probed { endpoint, ticket, outcome }, rig.now);
        if rig.obey().is_some() {
            times.push(rig.published_at - before);
        }
    }
    times.sort();
    times[times.len() / 2]
}

fn main() -> ExitCode {
    let is_smoke = std::env::args().any(|argument| argument == "--smoke");
    let per_zone = if is_smoke { 3_334 } else { 33_334 };
    let endpoints = ZONES * per_zone;
    let in_zone = |id: EndpointId| (id.slot as usize) < per_zone;

    let before = resident_bytes();
    let mut rig = Rig::new(ZONES, per_zone, |_| {});
    rig.pass(Duration::from_secs(12), |_| PASS);
    rig.asked.shrink_to_fit();
    let each_bytes = (resident_bytes() - before) / endpoints as f64;
    println!(
        "{endpoints} endpoints, with what is remembered of their probes: {each_bytes:.0} bytes each"
    );

    let (before, publications) = (cpu_time(), rig.publications);
    let probes = rig.pass(Duration::from_secs(5), |_| PASS);
    let spent = cpu_time() - before;
    let core_share = spent.as_secs_f64() / 5.0;
    println!(
        "{:.0} probes a second: {:.2} % of a core, {:.0} ns each, {} publications",
        probes as f64 / 5.0,
        100.0 * core_share,
        spent.as_nanos() as f64 / probes.max(1) as f64,
        rig.publications - publications
    );

    let (died, told) = rig.zone_dies(in_zone);
    println!("a zone of {per_zone} dies: {died:?} from the last evidence to the publication");
    println!("and {told:?} until everybody has been told");
    let (began, before) = (cpu_time(), rig.publications);
    rig.pass(Duration::from_secs(3), |id| if in_zone(id) { REFUSED } else { PASS });
    println!(
        "the verdicts on the rest of it: {:?} of CPU in three seconds, {} more publications",
        cpu_time() - began,
        rig.publications - before
    );

    let zone_by_zone = shares_take(|_| {});
    let by_weight = shares_take(|pool| pool.steer.policy = Policy::Weighted);
    println!(
        "{MANY_ZONES} zones: {zone_by_zone:?} from the evidence against an endpoint to the shares without it, zone by \
         zone; {by_weight:?} by weight"
    );

    let holds = each_bytes <= ENDPOINT_BYTES_AT_MOST
        && core_share <= CORE_SHARE_AT_MOST
        && died <= ZONE_AT_MOST
        && zone_by_zone.max(by_weight) <= SHARES_AT_MOST;
    if is_smoke || holds { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
