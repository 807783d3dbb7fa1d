//! One cell of the table: rounds of failures, one in each pool, at independent phases of the
//! probes' period.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::cell_outcome::MeasuredPause;
use crate::endpoint::EndpointSettings;
use crate::fault_class::{CLASSES, FaultClass, FaultMechanism};
use crate::fleet::{BenchFleet, Injection};
use crate::gapless_process::{GaplessProcess, ReportedIncident};
use crate::layout::{self, POOL_ENDPOINTS, PoolLayout};
use crate::machine::{CpuSnapshot, PauseMonitor};
use crate::open_loop_load::{ArrivalPattern, LoadSettings, OpenLoopLoad};
use crate::prediction::ClassPrediction;
use crate::run_deadline::RunDeadline;
use crate::sample::SampleCounts;

/// The service time of an endpoint, equal to that of the simulator.
const SERVICE_TIME: Duration = Duration::from_millis(1);

/// The timeout of a client.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(10);

/// Traffic before the first failure: the prediction is for workers that have learnt the latency of
/// a pool, each from 64 requests.
pub(crate) const WARM_UP: Duration = Duration::from_secs(12);

/// Quiet time before a failure, in which every endpoint gets probes and requests.
const SETTLE_TIME: Duration = Duration::from_millis(1_500);

/// How long a failure that is predicted to stay undetected is observed.
const UNDETECTED_WAIT: Duration = Duration::from_secs(5);

/// The least time to wait for a verdict; at most three times the prediction is waited for.
pub(crate) const VERDICT_TIMEOUT: Duration = Duration::from_secs(5);

/// Time limit for all endpoints to be up again.
const RECOVERY_TIMEOUT: Duration = Duration::from_secs(30);

/// The parameters of a cell.
#[derive(Debug)]
pub(crate) struct DetectionPlan<'a> {
    pub(crate) layouts: &'a [PoolLayout],
    /// The failures of each pool, by round.
    pub(crate) rounds: Vec<Vec<PlannedFault>>,
    /// Whether endpoints serve probes over TLS too.
    pub(crate) is_over_tls: bool,
    /// Requests per second to each pool.
    pub(crate) rate_rps: Option<f64>,
    /// Duration of traffic before the first failure.
    pub(crate) warm_up: Duration,
    /// The program under test.
    pub(crate) program: &'a Path,
    /// The directory for its configuration and its log.
    pub(crate) dir: &'a Path,
}

/// A planned failure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PlannedFault {
    pub(crate) pool: usize,
    pub(crate) mechanism: FaultMechanism,
    /// The scope: `endpoint` or `zone`.
    pub(crate) scope: &'static str,
    /// The period of the pool's probes; the failure begins at a random phase of it.
    pub(crate) interval: Duration,
    /// The time to wait for the verdict; `None` if none is predicted.
    pub(crate) verdict_timeout: Option<Duration>,
}

impl PlannedFault {
    /// A planned failure in a pool with this prediction.
    pub(crate) fn new(
        pool: usize,
        (class, scope): (&FaultClass, &'static str),
        interval: Duration,
        predicted: &ClassPrediction,
    ) -> Self {
        let verdict_timeout = match predicted {
            ClassPrediction::Unseen(_) => None,
            ClassPrediction::Missing => Some(VERDICT_TIMEOUT),
            ClassPrediction::Seen { p99_ms, .. } => {
                Some(Duration::from_secs_f64(p99_ms * 3.0 / 1e3).max(VERDICT_TIMEOUT))
            }
        };
        Self { pool, mechanism: class.mechanism, scope, interval, verdict_timeout }
    }
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct DetectionRun {
    /// From just before the injection to the verdict; `None` without one.
    pub(crate) took_ms: Option<f64>,
    /// From the injection to the start of the exchange that became the first evidence.
    pub(crate) first_bad_ms: Option<f64>,
    /// From the injection to that evidence: the endpoint is suspect.
    pub(crate) suspect_ms: Option<f64>,
    /// The uncertainty of these times: until the fault was confirmed.
    pub(crate) injection_ms: f64,
    /// From the end of the failure to the return; `None` if the endpoint was not down.
    pub(crate) returned_ms: Option<f64>,
}

/// The result of a cell.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct DetectionMeasurement {
    /// The runs, by round and pool.
    pub(crate) runs: Vec<DetectionRun>,
    /// Verdicts on endpoints that had not failed.
    pub(crate) stray_verdicts: usize,
    /// The median duration of passing probes before the first failure.
    pub(crate) probe_ms: Option<f64>,
    /// The counts of the traffic.
    pub(crate) load: Option<SampleCounts>,
    /// The share of time that all cores were busy.
    pub(crate) busy_percent: f64,
    /// The longest scheduling delay on this machine.
    pub(crate) pause_ms: f64,
    /// The number of earlier measurements that were discarded because of a pause.
    pub(crate) repeats: u32,
    /// The adjustment of the wall clock meanwhile.
    pub(crate) clock_drift_ms: f64,
}

impl MeasuredPause for DetectionMeasurement {
    fn pause_ms(&self) -> f64 {
        self.pause_ms
    }
}

/// A failure in one pool.
struct ScheduledFault {
    mechanism: FaultMechanism,
    verdict_timeout: Option<Duration>,
    endpoints: Vec<usize>,
    due: Instant,
    injection: Option<Injection>,
    healed_at: Option<Instant>,
}

/// The injected failure of one endpoint.
struct FaultPeriod {
    endpoint: usize,
    from: Instant,
    to: Instant,
}

/// Measures one cell, with new endpoints and a new gapless.
pub(crate) fn measure_detection(
    plan: &DetectionPlan<'_>,
    run_deadline: &RunDeadline,
) -> io::Result<DetectionMeasurement> {
    let certificates = plan.is_over_tls.then(|| plan.dir.to_owned());
    let setting = EndpointSettings { service: SERVICE_TIME, certificates, posts: None };
    let pools = plan.layouts.len();
    let mut fleet =
        BenchFleet::start((0..pools * POOL_ENDPOINTS).map(layout::endpoint_address), setting)?;
    let config = |listen, admin| layout::pools_config(plan.layouts, listen, admin);
    let instance = GaplessProcess::start(plan.program, config, plan.dir, run_deadline)?;
    let (cores, pause_monitor) = (CpuSnapshot::read()?, PauseMonitor::start());
    let start_load = |rate_rps| {
        let (pace, client_timeout) = (ArrivalPattern::Exponential, CLIENT_TIMEOUT);
        OpenLoopLoad::start(
            instance.listen,
            LoadSettings { pools, rate_rps, arrivals: pace, client_timeout },
        )
    };
    let load = plan.rate_rps.map(start_load).transpose()?;
    if load.is_some() {
        run_deadline.sleep_until(Instant::now() + plan.warm_up)?;
    }
    let (mut runs, mut fault_periods, mut probe_ms) = (Vec::new(), Vec::new(), None);
    for planned in &plan.rounds {
        run_deadline.sleep_until(Instant::now() + SETTLE_TIME)?;
        if probe_ms.is_none() {
            probe_ms = instance.probe_ms()?;
        }
        let mut faults = schedule_faults(plan, planned);
        run_round(&mut faults, (&mut fleet, &instance, run_deadline))?;
        // Failures are injected in the order of their due times, and reported in the order of the
        // pools.
        faults.sort_by_key(|fault| fault.endpoints[0]);
        let incidents = instance.incidents()?;
        runs.extend(faults.iter().filter_map(|fault| evaluate_fault(fault, &incidents)));
        let to = Instant::now();
        for fault in &faults {
            let Some(injection) = fault.injection else { continue };
            let from = injection.at;
            fault_periods.extend(fault.endpoints.iter().map(|&endpoint| FaultPeriod {
                endpoint,
                from,
                to,
            }));
        }
    }
    Ok(DetectionMeasurement {
        runs,
        stray_verdicts: count_stray_verdicts(&instance.incidents()?, &fault_periods),
        probe_ms,
        busy_percent: cores.busy_percent()?,
        pause_ms: to_ms(pause_monitor.stop()),
        load: load.map(|load| SampleCounts::from_samples(&load.stop())),
        repeats: 0,
        clock_drift_ms: to_ms(instance.clock_drift()),
    })
}

/// The median duration of probes on this machine, over a few seconds without failures and traffic.
pub(crate) fn measure_round_trip_ms(
    program: &Path,
    dir: &Path,
    run_deadline: &RunDeadline,
) -> io::Result<f64> {
    let setting = EndpointSettings { service: SERVICE_TIME, certificates: None, posts: None };
    let _fleet = BenchFleet::start((0..POOL_ENDPOINTS).map(layout::endpoint_address), setting)?;
    let config = |listen, admin| layout::equal_pools_config(1, CLASSES[0].probe, listen, admin);
    let instance = GaplessProcess::start(program, config, dir, run_deadline)?;
    run_deadline.sleep_until(Instant::now() + 2 * SETTLE_TIME)?;
    instance.probe_ms()?.ok_or_else(|| io::Error::other("no probe has passed"))
}

/// Draws the failing endpoints of each pool, and the times.
fn schedule_faults(plan: &DetectionPlan<'_>, planned: &[PlannedFault]) -> Vec<ScheduledFault> {
    let begin = Instant::now();
    let schedule = |&PlannedFault {
                        pool,
                        mechanism: means,
                        scope,
                        interval,
                        verdict_timeout: within,
                    }: &PlannedFault| {
        let (first, count) = (pool * POOL_ENDPOINTS, plan.layouts[pool].zone_sizes[0]);
        let endpoints = if scope == "zone" {
            (first..first + count).collect()
        } else {
            vec![first + fastrand::usize(..count)]
        };
        let due = begin + interval.mul_f64(fastrand::f64());
        ScheduledFault {
            mechanism: means,
            verdict_timeout: within,
            endpoints,
            due,
            injection: None,
            healed_at: None,
        }
    };
    let mut faults: Vec<ScheduledFault> = planned.iter().map(schedule).collect();
    faults.sort_by_key(|fault| fault.due);
    faults
}

/// Injects the failures, waits for the verdicts, heals, and waits for the returns.
fn run_round(
    faults: &mut [ScheduledFault],
    (fleet, instance, run_deadline): (&mut BenchFleet, &GaplessProcess, &RunDeadline),
) -> io::Result<()> {
    for fault in faults.iter_mut() {
        run_deadline.sleep_until(fault.due)?;
        let mut combined: Option<Injection> = None;
        for &endpoint in &fault.endpoints {
            let single = fleet.fail(endpoint, fault.mechanism)?;
            let started = combined.map_or(single.at, |whole| whole.at);
            combined =
                Some(Injection { at: started, duration: single.at + single.duration - started });
        }
        fault.injection = combined;
    }
    if faults.iter().any(|fault| fault.verdict_timeout.is_none()) {
        run_deadline.sleep_until(Instant::now() + UNDETECTED_WAIT)?;
    }
    if let Some(verdict_timeout) = faults.iter().filter_map(|shot| shot.verdict_timeout).max() {
        run_deadline.poll_until(verdict_timeout, || {
            let incidents = instance.incidents()?;
            let has_verdict = |fault: &ScheduledFault| {
                fault.verdict_timeout.is_none() || last_verdict(fault, &incidents).is_some()
            };
            Ok(faults.iter().all(has_verdict).then_some(()))
        })?;
    }
    for fault in faults.iter_mut() {
        for &endpoint in &fault.endpoints {
            fault.healed_at = Some(fleet.heal(endpoint, fault.mechanism)?);
        }
    }
    let has_recovered =
        run_deadline.poll_until(RECOVERY_TIMEOUT, || Ok(instance.is_all_up()?.then_some(())))?;
    has_recovered.ok_or_else(|| io::Error::other("not every endpoint came back"))
}

/// The first verdict that covers an endpoint since its failure; of several endpoints, the last.
fn last_verdict<'a>(
    fault: &ScheduledFault,
    incidents: &'a [ReportedIncident],
) -> Option<&'a ReportedIncident> {
    let since = fault.injection?.at;
    let first_verdict = |&endpoint: &usize| {
        let matching = incidents.iter().filter(|incident| incident.has_endpoint(endpoint));
        matching
            .filter(|incident| incident.verdict >= since)
            .min_by_key(|incident| incident.verdict)
    };
    let all: Option<Vec<&ReportedIncident>> = fault.endpoints.iter().map(first_verdict).collect();
    all?.into_iter().max_by_key(|incident| incident.verdict)
}

fn evaluate_fault(fault: &ScheduledFault, incidents: &[ReportedIncident]) -> Option<DetectionRun> {
    let injection = fault.injection?;
    let verdict_incident = last_verdict(fault, incidents);
    // Evidence may come from an exchange that began before the failure.
    let since = |at: Instant| to_ms(at.saturating_duration_since(injection.at));
    let is_of_fault = |incident: &&ReportedIncident| {
        incident.verdict >= injection.at
            && incident.endpoint.is_some()
            && fault.endpoints.iter().any(|&endpoint| incident.has_endpoint(endpoint))
    };
    let restored_at =
        incidents.iter().filter(is_of_fault).filter_map(|incident| incident.restored).max();
    let returned = restored_at
        .zip(fault.healed_at)
        .and_then(|(back, healed)| back.checked_duration_since(healed));
    Some(DetectionRun {
        took_ms: verdict_incident.map(|incident| since(incident.verdict)),
        first_bad_ms: verdict_incident.map(|incident| since(incident.first_evidence)),
        suspect_ms: verdict_incident.map(|incident| since(incident.suspect)),
        injection_ms: to_ms(injection.duration),
        returned_ms: returned.map(to_ms),
    })
}

fn count_stray_verdicts(incidents: &[ReportedIncident], fault_periods: &[FaultPeriod]) -> usize {
    let is_stray = |incident: &&ReportedIncident| {
        incident.endpoint.is_some()
            && !fault_periods.iter().any(|period| {
                incident.has_endpoint(period.endpoint)
                    && (period.from..=period.to).contains(&incident.verdict)
            })
    };
    incidents.iter().filter(is_stray).count()
}

fn to_ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
