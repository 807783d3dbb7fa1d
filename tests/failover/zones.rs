//! The promise itself: a zone of real servers dies under load, and no GET fails.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use gapless::logic::outcome::Class;
use gapless::logic::topology::Detect;
use gapless::logic::window;
use rustix::process::{Signal, kill_process};
use serde_json::Value;

use crate::alone;
use crate::support::config::Config;
use crate::support::instance::{Gapless, pid};
use crate::support::load::Load;
use crate::support::nginx::{Nginx, is_missing};
use crate::support::{SOON, eventually, until};

/// A frozen zone comes back after several probes, on a busy machine.
const RETURN: Duration = Duration::from_secs(20);

/// Six servers in two zones, and a proxy that prefers the first.
struct World {
    near: Vec<Nginx>,
    far: Vec<Nginx>,
    gapless: Gapless,
}

impl World {
    fn start() -> Self {
        let zone = || (0..3).map(|_| Nginx::start()).collect::<Vec<_>>();
        let (near, far) = (zone(), zone());
        let addresses = |zone: &[Nginx]| zone.iter().map(Nginx::address).collect::<Vec<_>>();
        let config = Config::default()
            .tables("[headers]\nexpose = true")
            .zone("us-south/us-south-1", &addresses(&near))
            .zone("us-south/us-south-2", &addresses(&far));
        let gapless = Gapless::start_ready(&config);
        Self { near, far, gapless }
    }

    fn is_near(&self, state: &str) -> bool {
        self.near.iter().all(|nginx| self.gapless.state(nginx.address()) == state)
    }

    /// Whether a request of now goes to the preferred zone.
    fn is_served_near(&self) -> bool {
        let answer = self.gapless.get("/");
        let endpoint = answer.field("x-gapless-endpoint").expect("exposed").to_owned();
        self.near.iter().any(|nginx| nginx.address().to_string() == endpoint)
    }

    /// The joined incident of the preferred zone, once all of it has come back.
    fn closed_incident(&self) -> Value {
        until("the incident is over", RETURN, || {
            let incident = self.gapless.incidents("zones").pop()?;
            incident["timeline"]["restored"].is_string().then_some(incident)
        })
    }
}

/// Asserts that an incident is of the whole preferred zone and tells its story in order.
#[track_caller]
fn assert_story(incident: &Value) {
    assert_eq!(incident["zone"], "us-south/us-south-1");
    assert_eq!(incident["pool"], "web");
    assert_eq!(incident["members"].as_array().map(Vec::len), Some(3), "{incident:#}");
    let timeline = &incident["timeline"];
    let steps = ["onset_earliest", "onset", "suspect", "verdict", "shift", "restored"];
    // All of one length and in UTC, so that the order of the texts is the order of the times.
    let times: Vec<&str> = steps
        .iter()
        .map(|step| timeline[step].as_str().unwrap_or_else(|| panic!("{step}")))
        .collect();
    assert!(times.is_sorted(), "{timeline:#}");
    assert!(timeline["last_failure"].is_null(), "{timeline:#}");
    assert_eq!(incident["gap_ms"], 0.0);
    assert_eq!(incident["requests"]["failed"], 0);
}

/// `wrk` on sixteen connections until told to stop; ended when dropped.
struct Wrk(Option<Child>);

impl Wrk {
    fn start(gapless: &Gapless) -> Self {
        let child = Command::new("wrk")
            .args(["-t1", "-c16", "-d60s", "--timeout", "10s"])
            .arg(format!("http://{}/", gapless.address))
            .stdout(Stdio::piped())
            .spawn()
            .expect("wrk starts");
        Self(Some(child))
    }

    /// Interrupts it; its report.
    fn stop(mut self) -> String {
        let child = self.0.take().expect("a running wrk");
        kill_process(pid(&child), Signal::INT).expect("signalled");
        let output = child.wait_with_output().expect("its end");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Wrk {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn requests_so_far(gapless: &Gapless) -> f64 {
    gapless.metric("gapless_requests_total{pool=\"web\",code=\"2xx\"}")
}

#[test]
fn a_zone_is_killed_under_load_and_no_get_fails() {
    let _alone = alone();
    if is_missing("nginx") || is_missing("wrk") {
        return;
    }
    let mut world = World::start();
    let wrk = Wrk::start(&world.gapless);
    eventually("load", SOON, || requests_so_far(&world.gapless) > 1_000.0);
    world.near.iter_mut().for_each(Nginx::kill);
    eventually("verdicts", SOON, || world.is_near("down"));
    assert!(!world.is_served_near());
    let shifted = requests_so_far(&world.gapless);
    eventually("load", SOON, || requests_so_far(&world.gapless) > shifted + 1_000.0);
    world.near.iter_mut().for_each(Nginx::restart);
    eventually("the return", RETURN, || world.is_near("up"));
    eventually("traffic is back", SOON, || world.is_served_near());
    let report = wrk.stop();
    assert!(report.contains("Requests/sec"), "{report}");
    assert!(!report.contains("Socket errors"), "{report}");
    assert!(!report.contains("Non-2xx"), "{report}");
    let incident = world.closed_incident();
    assert_story(&incident);
    assert_eq!(world.gapless.metric("gapless_requests_total{pool=\"web\",code=\"5xx\"}"), 0.0);
    assert!(world.far.iter().all(|nginx| world.gapless.state(nginx.address()) == "up"));
}

#[test]
fn a_zone_falls_silent_under_load_and_every_get_is_rescued() {
    let _alone = alone();
    if is_missing("nginx") {
        return;
    }
    let world = World::start();
    let load = Load::start(world.gapless.address, 6, Duration::from_millis(5));
    eventually("load", SOON, || load.sent() > 600);
    world.near.iter().for_each(Nginx::freeze);
    eventually("verdicts", SOON, || world.is_near("down"));
    assert!(!world.is_served_near());
    world.near.iter().for_each(Nginx::thaw);
    eventually("the return", RETURN, || world.is_near("up"));
    eventually("traffic is back", SOON, || world.is_served_near());
    let tally = load.stop();
    assert!(tally.failures.is_empty(), "{} of {}: {:?}", tally.failures.len(), tally.sent, tally);
    let incident = world.closed_incident();
    assert_story(&incident);
    assert_eq!(incident["class"], "silent", "{incident:#}");
    assert!(incident["requests"]["rescued"].as_u64() > Some(0), "{incident:#}");
    let worst = window::bounds(Class::Silent, &Detect::default(), Duration::from_millis(1)).worst;
    let detection_ms = incident["detection_ms"].as_f64().expect("a number");
    assert!(detection_ms <= worst.as_secs_f64() * 1e3, "{detection_ms} ms, {worst:?} at worst");
}

/// Without any traffic the probes alone must keep the promise of the closed form.
#[test]
fn a_zone_falls_silent_without_load_and_is_found_within_the_window() {
    let _alone = alone();
    if is_missing("nginx") {
        return;
    }
    let world = World::start();
    world.near.iter().for_each(Nginx::freeze);
    eventually("verdicts", SOON, || world.is_near("down"));
    let incidents = world.gapless.incidents("endpoints");
    assert_eq!(incidents.len(), 3);
    let worst = window::bounds(Class::Silent, &Detect::default(), Duration::from_millis(1)).worst;
    for incident in incidents {
        assert_eq!(incident["class"], "silent");
        let detection_ms = incident["detection_ms"].as_f64().expect("a number");
        assert!(detection_ms <= worst.as_secs_f64() * 1e3, "{incident:#}, {worst:?} at worst");
    }
    assert_eq!(world.gapless.get("/").status, 200);
    world.near.iter().for_each(Nginx::thaw);
    eventually("the return", RETURN, || world.is_near("up"));
}
