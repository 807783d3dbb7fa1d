//! One cell: a system, a failure, and the clients that see it.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::cell_outcome::MeasuredPause;
use crate::endpoint::EndpointSettings;
use crate::evaluation::{self, FailoverFigures, FaultInterval};
use crate::executed_posts::ExecutedPosts;
use crate::fault_class::FaultClass;
use crate::fleet::BenchFleet;
use crate::gapless_process::ReportedIncident;
use crate::layout::{self, POOL_ENDPOINTS};
use crate::machine::{CpuSnapshot, PauseMonitor};
use crate::open_loop_load::{ArrivalPattern, LoadSettings, OpenLoopLoad};
use crate::peer::InstalledPeer;
use crate::run_deadline::RunDeadline;
use crate::sample::SampleCounts;
use crate::scenario::{CLIENT_TIMEOUT, FailoverScenario, FailoverScope, FaultExtent};

/// The service time of an endpoint.
const SERVICE_TIME: Duration = Duration::from_millis(3);

/// The failure begins at a random phase of this period, which most probes have.
const PROBE_PERIOD: Duration = Duration::from_secs(1);

/// The parameters of a cell.
#[derive(Debug)]
pub(crate) struct FailoverPlan<'a> {
    pub(crate) installed: &'a InstalledPeer,
    pub(crate) scenario: &'a FailoverScenario,
    pub(crate) class: &'a FaultClass,
    /// The part of the preferred zone that fails.
    pub(crate) scope: FailoverScope,
    pub(crate) rate: u32,
    /// Traffic before the failure, while it lasts, and after it.
    pub(crate) phase_durations: [Duration; 3],
    /// The directory for configurations and logs.
    pub(crate) dir: &'a Path,
}

/// The result of a cell.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct FailoverMeasurement {
    #[serde(flatten)]
    pub(crate) figures: FailoverFigures,
    /// From the onset to the verdict on the last endpoint that failed, where it is known.
    pub(crate) verdict_ms: Option<f64>,
    pub(crate) sent: usize,
    /// The largest delay of a request behind its due time.
    pub(crate) sent_late_ms: f64,
    /// Time from the onset until the last endpoint had failed.
    pub(crate) injection_ms: f64,
    /// The longest scheduling delay on this machine since the onset.
    pub(crate) pause_ms: f64,
    /// The share of time that all cores were busy.
    pub(crate) busy_percent: f64,
    /// The number of earlier measurements that were discarded because of a pause.
    pub(crate) repeats: u32,
}

impl MeasuredPause for FailoverMeasurement {
    fn pause_ms(&self) -> f64 {
        self.pause_ms
    }
}

/// Measures one cell, with new endpoints and a new proxy.
pub(crate) fn measure_failover(
    plan: &FailoverPlan<'_>,
    run_deadline: &RunDeadline,
) -> io::Result<FailoverMeasurement> {
    let dir = tempfile::tempdir_in(plan.dir)?;
    crate::make_world_accessible(dir.path())?;
    let posts = dir.path().join("posts");
    let setting =
        EndpointSettings { service: SERVICE_TIME, certificates: None, posts: Some(posts.clone()) };
    let mut fleet = BenchFleet::start((0..POOL_ENDPOINTS).map(layout::endpoint_address), setting)?;
    let proxy = plan.installed.start(plan.class.probe, dir.path(), run_deadline)?;
    let [warm_up, requested_duration, recovery_duration] = plan.phase_durations;
    let traffic = LoadSettings {
        pools: 1,
        rate_rps: f64::from(plan.rate),
        arrivals: ArrivalPattern::Uniform,
        client_timeout: CLIENT_TIMEOUT,
    };
    let cores = CpuSnapshot::read()?;
    let load = OpenLoopLoad::start(proxy.client_address(), traffic)?;
    run_deadline.sleep_until(Instant::now() + warm_up + PROBE_PERIOD.mul_f64(fastrand::f64()))?;

    let pause_monitor = PauseMonitor::start();
    let failing_endpoints = plan.scenario.failing_endpoints(plan.scope);
    let onset = Instant::now();
    for endpoint in failing_endpoints.clone() {
        fleet.fail(endpoint, plan.class.mechanism)?;
    }
    let injection = onset.elapsed();
    let fault_duration = match plan.scenario.extent {
        FaultExtent::PreferredZone => requested_duration,
        FaultExtent::AllEndpoints(duration) => duration,
    };
    run_deadline.sleep_until(onset + fault_duration)?;
    let mut healed = None;
    for endpoint in failing_endpoints.clone() {
        let healed_at = fleet.heal(endpoint, plan.class.mechanism)?;
        healed.get_or_insert(healed_at);
    }
    let healed = healed.unwrap_or(onset);
    run_deadline.sleep_until(healed + recovery_duration)?;

    let samples = load.stop();
    let pause = pause_monitor.stop();
    let busy_percent = cores.busy_percent()?;
    let incidents = proxy.incidents()?;
    let is_failing_address = |address: SocketAddr| {
        failing_endpoints.clone().any(|endpoint| layout::endpoint_address(endpoint) == address)
    };
    let executed_posts = ExecutedPosts::read(&posts)?;
    let figures = evaluation::compute_figures(
        &samples,
        FaultInterval { onset, healed },
        is_failing_address,
        &executed_posts,
    );
    let counts = SampleCounts::from_samples(&samples);
    Ok(FailoverMeasurement {
        figures,
        verdict_ms: last_verdict(&incidents, failing_endpoints, onset..healed)
            .map(|at| to_ms(at - onset)),
        sent: counts.sent,
        sent_late_ms: counts.late_ms,
        injection_ms: to_ms(injection),
        pause_ms: to_ms(pause),
        busy_percent,
        repeats: 0,
    })
}

/// The time of the verdict on the last endpoint that failed.
fn last_verdict(
    incidents: &[ReportedIncident],
    mut failing_endpoints: std::ops::Range<usize>,
    fault_interval: std::ops::Range<Instant>,
) -> Option<Instant> {
    let first_verdict = |endpoint: usize| {
        let matching = incidents.iter().filter(|incident| incident.has_endpoint(endpoint));
        matching.map(|incident| incident.verdict).filter(|at| fault_interval.contains(at)).min()
    };
    let start = fault_interval.start;
    failing_endpoints.try_fold(start, |last, endpoint| Some(last.max(first_verdict(endpoint)?)))
}

fn to_ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
