//! A zone of real servers dies under load, and no GET fails.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use gapless::logic::model::outcome::FailureClass;
use gapless::logic::model::topology::DetectionSpec;
use gapless::logic::probing::detection_window;
use rustix::process::{Signal, kill_process};
use serde_json::Value;

use crate::serialize_tests;
use crate::support::config::ConfigBuilder;
use crate::support::instance::{Gapless, pid};
use crate::support::load::SteadyLoad;
use crate::support::nginx::{Nginx, is_program_missing};
use crate::support::{DEFAULT_TIMEOUT, eventually, poll_until};

/// Time for a stopped zone to return on a busy machine.
const RECOVERY_TIMEOUT: Duration = Duration::from_secs(20);

/// Six servers in two zones behind a proxy that prefers the first.
struct ZonesFixture {
    near: Vec<Nginx>,
    far: Vec<Nginx>,
    gapless: Gapless,
}

impl ZonesFixture {
    fn start() -> Self {
        let zone = || (0..3).map(|_| Nginx::start()).collect::<Vec<_>>();
        let (near, far) = (zone(), zone());
        let addresses = |zone: &[Nginx]| zone.iter().map(Nginx::address).collect::<Vec<_>>();
        let config = ConfigBuilder::default()
            .tables("[headers]\nexpose = true")
            .zone("us-south/us-south-1", &addresses(&near))
            .zone("us-south/us-south-2", &addresses(&far));
        let gapless = Gapless::start_ready(&config);
        Self { near, far, gapless }
    }

    fn is_near_zone_in_state(&self, state: &str) -> bool {
        self.near.iter().all(|nginx| self.gapless.endpoint_state(nginx.address()) == state)
    }

    /// Whether a request goes to the preferred zone.
    fn is_near_zone_serving(&self) -> bool {
        let answer = self.gapless.get("/");
        let endpoint = answer.field("x-gapless-endpoint").expect("exposed").to_owned();
        self.near.iter().any(|nginx| nginx.address().to_string() == endpoint)
    }

    /// The joined incident of the preferred zone after all of it has returned.
    fn restored_incident(&self) -> Value {
        poll_until("the incident is over", RECOVERY_TIMEOUT, || {
            let incident = self.gapless.incidents("zones").pop()?;
            incident["timeline"]["restored"].is_string().then_some(incident)
        })
    }
}

/// Asserts that an incident covers the whole preferred zone with times in order.
#[track_caller]
fn assert_incident_timeline(incident: &Value) {
    assert_eq!(incident["zone"], "us-south/us-south-1");
    assert_eq!(incident["pool"], "web");
    assert_eq!(incident["members"].as_array().map(Vec::len), Some(3), "{incident:#}");
    let timeline = &incident["timeline"];
    let steps = ["onset_earliest", "onset", "suspect", "verdict", "shift", "restored"];
    // The texts have one length and are in UTC, so their order is that of the times.
    let times: Vec<&str> = steps
        .iter()
        .map(|step| timeline[step].as_str().unwrap_or_else(|| panic!("{step}")))
        .collect();
    assert!(times.is_sorted(), "{timeline:#}");
    assert!(timeline["last_failure"].is_null(), "{timeline:#}");
    assert_eq!(incident["gap_ms"], 0.0);
    assert_eq!(incident["requests"]["failed"], 0);
}

/// `wrk` on sixteen connections; ended when dropped.
struct WrkLoad(Option<Child>);

impl WrkLoad {
    fn start(gapless: &Gapless) -> Self {
        let child = Command::new("wrk")
            .args(["-t1", "-c16", "-d60s", "--timeout", "10s"])
            .arg(format!("http://{}/", gapless.address))
            .stdout(Stdio::piped())
            .spawn()
            .expect("wrk starts");
        Self(Some(child))
    }

    /// Interrupts it and returns its report.
    fn stop(mut self) -> String {
        let child = self.0.take().expect("a running wrk");
        kill_process(pid(&child), Signal::INT).expect("signalled");
        let output = child.wait_with_output().expect("its end");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for WrkLoad {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn successful_requests(gapless: &Gapless) -> f64 {
    gapless.metric("gapless_requests_total{pool=\"web\",code=\"2xx\"}")
}

#[test]
fn killed_zone_under_load_fails_no_get() {
    let _serial_guard = serialize_tests();
    if is_program_missing("nginx") || is_program_missing("wrk") {
        return;
    }
    let mut fixture = ZonesFixture::start();
    let wrk = WrkLoad::start(&fixture.gapless);
    eventually("load", DEFAULT_TIMEOUT, || successful_requests(&fixture.gapless) > 1_000.0);
    fixture.near.iter_mut().for_each(Nginx::kill);
    eventually("verdicts", DEFAULT_TIMEOUT, || fixture.is_near_zone_in_state("down"));
    assert!(!fixture.is_near_zone_serving());
    let requests_at_shift = successful_requests(&fixture.gapless);
    eventually("load", DEFAULT_TIMEOUT, || {
        successful_requests(&fixture.gapless) > requests_at_shift + 1_000.0
    });
    fixture.near.iter_mut().for_each(Nginx::restart);
    eventually("the return", RECOVERY_TIMEOUT, || fixture.is_near_zone_in_state("up"));
    eventually("traffic is back", DEFAULT_TIMEOUT, || fixture.is_near_zone_serving());
    let report = wrk.stop();
    assert!(report.contains("Requests/sec"), "{report}");
    assert!(!report.contains("Socket errors"), "{report}");
    assert!(!report.contains("Non-2xx"), "{report}");
    let incident = fixture.restored_incident();
    assert_incident_timeline(&incident);
    assert_eq!(fixture.gapless.metric("gapless_requests_total{pool=\"web\",code=\"5xx\"}"), 0.0);
    assert!(
        fixture.far.iter().all(|nginx| fixture.gapless.endpoint_state(nginx.address()) == "up")
    );
}

#[test]
fn silent_zone_under_load_has_every_get_rescued() {
    let _serial_guard = serialize_tests();
    if is_program_missing("nginx") {
        return;
    }
    let fixture = ZonesFixture::start();
    let load = SteadyLoad::start(fixture.gapless.address, 6, Duration::from_millis(5));
    eventually("load", DEFAULT_TIMEOUT, || load.sent() > 600);
    fixture.near.iter().for_each(Nginx::freeze);
    eventually("verdicts", DEFAULT_TIMEOUT, || fixture.is_near_zone_in_state("down"));
    assert!(!fixture.is_near_zone_serving());
    fixture.near.iter().for_each(Nginx::thaw);
    eventually("the return", RECOVERY_TIMEOUT, || fixture.is_near_zone_in_state("up"));
    eventually("traffic is back", DEFAULT_TIMEOUT, || fixture.is_near_zone_serving());
    let tally = load.stop();
    assert!(tally.failures.is_empty(), "{} of {}: {:?}", tally.failures.len(), tally.sent, tally);
    let incident = fixture.restored_incident();
    assert_incident_timeline(&incident);
    assert_eq!(incident["class"], "silent", "{incident:#}");
    assert!(incident["requests"]["rescued"].as_u64() > Some(0), "{incident:#}");
    let worst = detection_window::detection_bounds(
        FailureClass::Silent,
        &DetectionSpec::default(),
        Duration::from_millis(1),
    )
    .worst;
    let detection_ms = incident["detection_ms"].as_f64().expect("a number");
    assert!(detection_ms <= worst.as_secs_f64() * 1e3, "{detection_ms} ms, {worst:?} at worst");
}

/// Without traffic, probes alone must stay within the closed form.
#[test]
fn silent_zone_without_load_is_detected_within_window() {
    let _serial_guard = serialize_tests();
    if is_program_missing("nginx") {
        return;
    }
    let fixture = ZonesFixture::start();
    fixture.near.iter().for_each(Nginx::freeze);
    eventually("verdicts", DEFAULT_TIMEOUT, || fixture.is_near_zone_in_state("down"));
    let incidents = fixture.gapless.incidents("endpoints");
    assert_eq!(incidents.len(), 3);
    let worst = detection_window::detection_bounds(
        FailureClass::Silent,
        &DetectionSpec::default(),
        Duration::from_millis(1),
    )
    .worst;
    for incident in incidents {
        assert_eq!(incident["class"], "silent");
        let detection_ms = incident["detection_ms"].as_f64().expect("a number");
        assert!(detection_ms <= worst.as_secs_f64() * 1e3, "{incident:#}, {worst:?} at worst");
    }
    assert_eq!(fixture.gapless.get("/").status, 200);
    fixture.near.iter().for_each(Nginx::thaw);
    eventually("the return", RECOVERY_TIMEOUT, || fixture.is_near_zone_in_state("up"));
}
