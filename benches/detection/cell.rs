//! One cell of the table: rounds of failures, one in each pool, at independent phases of the
//! probes' period.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::class::{CLASSES, Class, Means};
use crate::endpoint::Setting;
use crate::fleet::{Fleet, Injection};
use crate::instance::{Incident, Instance};
use crate::layout::{self, POOL_ENDPOINTS, Shape};
use crate::load::{Load, Pace, Traffic};
use crate::machine::{Cores, Metronome};
use crate::outcome::Paused;
use crate::predicted::Predicted;
use crate::sample::Tally;
use crate::watch::Watch;

/// How long an endpoint takes for a request: what the simulator takes it for.
const SERVICE_TIME: Duration = Duration::from_millis(1);

/// A client that has waited this long goes away.
const PATIENCE: Duration = Duration::from_secs(10);

/// Traffic before the first failure: the prediction is for workers that have served for a while and
/// have learnt how long a pool's requests take (64 of them, each worker for itself).
pub(crate) const WARM_UP: Duration = Duration::from_secs(12);

/// Quiet before the phase of a failure is drawn: every endpoint is probed, and asked, meanwhile.
const SETTLE: Duration = Duration::from_millis(1_500);

/// What is predicted never to be seen is not seen for this long.
const UNSEEN_FOR: Duration = Duration::from_secs(5);

/// A verdict that has not come by then, or three times as late as predicted, does not come.
pub(crate) const VERDICT_WITHIN: Duration = Duration::from_secs(5);

/// All endpoints are up again by then.
const RETURN_WITHIN: Duration = Duration::from_secs(30);

/// What is to be measured.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    /// The pools.
    pub(crate) shapes: &'a [Shape],
    /// What is done in each pool, round by round.
    pub(crate) rounds: Vec<Vec<Aim>>,
    /// Whether endpoints answer over TLS too.
    pub(crate) is_over_tls: bool,
    /// Requests a second to each pool.
    pub(crate) rate_rps: Option<f64>,
    /// How long they come before the first failure.
    pub(crate) warm_up: Duration,
    /// The program under test.
    pub(crate) program: &'a Path,
    /// For its configuration and its log.
    pub(crate) dir: &'a Path,
}

/// A failure that is to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Aim {
    /// The pool.
    pub(crate) pool: usize,
    /// What is done.
    pub(crate) means: Means,
    /// To whom: `endpoint` or `zone`.
    pub(crate) scope: &'static str,
    /// The period of the pool's probes: the failure begins somewhere in it.
    pub(crate) interval: Duration,
    /// The verdict is waited for this long; `None` if none is to come.
    pub(crate) within: Option<Duration>,
}

impl Aim {
    /// At a pool where this is predicted.
    pub(crate) fn new(
        pool: usize,
        (class, scope): (&Class, &'static str),
        interval: Duration,
        predicted: &Predicted,
    ) -> Self {
        let within = match predicted {
            Predicted::Unseen(_) => None,
            Predicted::Missing => Some(VERDICT_WITHIN),
            Predicted::Seen { p99_ms, .. } => {
                Some(Duration::from_secs_f64(p99_ms * 3.0 / 1e3).max(VERDICT_WITHIN))
            }
        };
        Self { pool, means: class.means, scope, interval, within }
    }
}

/// One failure.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Run {
    /// From just before the injection to the verdict; `None` if there was none.
    pub(crate) took_ms: Option<f64>,
    /// From the injection to the begin of the exchange that became the first evidence.
    pub(crate) first_bad_ms: Option<f64>,
    /// From the injection to that evidence: the endpoint is suspect.
    pub(crate) suspect_ms: Option<f64>,
    /// By how much that may be too long: until the fault was known to be in force.
    pub(crate) injection_ms: f64,
    /// From the end of the failure to the return; `None` if the endpoint had not gone.
    pub(crate) returned_ms: Option<f64>,
}

/// All that was seen.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Measured {
    /// By round and pool.
    pub(crate) runs: Vec<Run>,
    /// Verdicts on endpoints that had not failed.
    pub(crate) stray_verdicts: usize,
    /// The median of the probes that passed, before the first failure.
    pub(crate) probe_ms: Option<f64>,
    /// What became of the traffic.
    pub(crate) load: Option<Tally>,
    /// The share of all cores' time that somebody used.
    pub(crate) busy_percent: f64,
    /// The longest that the machine let somebody wait who wanted to run.
    pub(crate) pause_ms: f64,
    /// How often it was measured in vain before, because that was too long.
    pub(crate) repeats: u32,
    /// By how much the wall clock was adjusted meanwhile.
    pub(crate) clock_drift_ms: f64,
}

impl Paused for Measured {
    fn pause_ms(&self) -> f64 {
        self.pause_ms
    }
}

/// A failure in one pool.
struct Shot {
    means: Means,
    within: Option<Duration>,
    endpoints: Vec<usize>,
    due: Instant,
    injection: Option<Injection>,
    healed: Option<Instant>,
}

/// An endpoint's time out, by order of the bench.
struct Outing {
    endpoint: usize,
    from: Instant,
    to: Instant,
}

/// Measures one cell, with endpoints and a gapless of its own.
pub(crate) fn measure(plan: &Plan<'_>, watch: &Watch) -> io::Result<Measured> {
    let certificates = plan.is_over_tls.then(|| plan.dir.to_owned());
    let setting = Setting { service: SERVICE_TIME, certificates, posts: None };
    let pools = plan.shapes.len();
    let mut fleet = Fleet::start((0..pools * POOL_ENDPOINTS).map(layout::address), setting)?;
    let config = |listen, admin| layout::config_of(plan.shapes, listen, admin);
    let instance = Instance::start(plan.program, config, plan.dir, watch)?;
    let (cores, metronome) = (Cores::read()?, Metronome::start());
    let start_load = |rate_rps| {
        let (pace, patience) = (Pace::Random, PATIENCE);
        Load::start(instance.listen, Traffic { pools, rate_rps, pace, patience })
    };
    let load = plan.rate_rps.map(start_load).transpose()?;
    if load.is_some() {
        watch.sleep_until(Instant::now() + plan.warm_up)?;
    }
    let (mut runs, mut outings, mut probe_ms) = (Vec::new(), Vec::new(), None);
    for aims in &plan.rounds {
        watch.sleep_until(Instant::now() + SETTLE)?;
        if probe_ms.is_none() {
            probe_ms = instance.probe_ms()?;
        }
        let mut shots = draw(plan, aims);
        round(&mut shots, (&mut fleet, &instance, watch))?;
        // They were shot at as they were due; they are told as they were asked for.
        shots.sort_by_key(|shot| shot.endpoints[0]);
        let incidents = instance.incidents()?;
        runs.extend(shots.iter().filter_map(|shot| judge(shot, &incidents)));
        let to = Instant::now();
        for shot in &shots {
            let Some(injection) = shot.injection else { continue };
            let from = injection.at;
            outings.extend(shot.endpoints.iter().map(|&endpoint| Outing { endpoint, from, to }));
        }
    }
    Ok(Measured {
        runs,
        stray_verdicts: strays(&instance.incidents()?, &outings),
        probe_ms,
        busy_percent: cores.busy_percent()?,
        pause_ms: ms(metronome.stop()),
        load: load.map(|load| Tally::of(&load.stop())),
        repeats: 0,
        clock_drift_ms: ms(instance.clock_drift()),
    })
}

/// What a probe takes on this machine while nothing fails and nobody asks: the median of a few
/// seconds of them.
pub(crate) fn round_trip_ms(program: &Path, dir: &Path, watch: &Watch) -> io::Result<f64> {
    let setting = Setting { service: SERVICE_TIME, certificates: None, posts: None };
    let _fleet = Fleet::start((0..POOL_ENDPOINTS).map(layout::address), setting)?;
    let config = |listen, admin| layout::config(1, CLASSES[0].probe, listen, admin);
    let instance = Instance::start(program, config, dir, watch)?;
    watch.sleep_until(Instant::now() + 2 * SETTLE)?;
    instance.probe_ms()?.ok_or_else(|| io::Error::other("no probe has passed"))
}

/// Draws who fails in each pool, and when.
fn draw(plan: &Plan<'_>, aims: &[Aim]) -> Vec<Shot> {
    let begin = Instant::now();
    let shot = |&Aim { pool, means, scope, interval, within }: &Aim| {
        let (first, count) = (pool * POOL_ENDPOINTS, plan.shapes[pool].zones[0]);
        let endpoints = if scope == "zone" {
            (first..first + count).collect()
        } else {
            vec![first + fastrand::usize(..count)]
        };
        let due = begin + interval.mul_f64(fastrand::f64());
        Shot { means, within, endpoints, due, injection: None, healed: None }
    };
    let mut shots: Vec<Shot> = aims.iter().map(shot).collect();
    shots.sort_by_key(|shot| shot.due);
    shots
}

/// Fails, waits for the verdicts, heals, and waits until all are back.
fn round(
    shots: &mut [Shot],
    (fleet, instance, watch): (&mut Fleet, &Instance, &Watch),
) -> io::Result<()> {
    for shot in shots.iter_mut() {
        watch.sleep_until(shot.due)?;
        let mut whole: Option<Injection> = None;
        for &endpoint in &shot.endpoints {
            let one = fleet.fail(endpoint, shot.means)?;
            let at = whole.map_or(one.at, |whole| whole.at);
            whole = Some(Injection { at, took: one.at + one.took - at });
        }
        shot.injection = whole;
    }
    if shots.iter().any(|shot| shot.within.is_none()) {
        watch.sleep_until(Instant::now() + UNSEEN_FOR)?;
    }
    if let Some(within) = shots.iter().filter_map(|shot| shot.within).max() {
        watch.until(within, || {
            let incidents = instance.incidents()?;
            let is_seen =
                |shot: &Shot| shot.within.is_none() || verdict(shot, &incidents).is_some();
            Ok(shots.iter().all(is_seen).then_some(()))
        })?;
    }
    for shot in shots.iter_mut() {
        for &endpoint in &shot.endpoints {
            shot.healed = Some(fleet.heal(endpoint, shot.means)?);
        }
    }
    let are_back = watch.until(RETURN_WITHIN, || Ok(instance.are_all_up()?.then_some(())))?;
    are_back.ok_or_else(|| io::Error::other("not every endpoint came back"))
}

/// The first verdict that covers an endpoint since its failure; of several endpoints, the last.
fn verdict<'a>(shot: &Shot, incidents: &'a [Incident]) -> Option<&'a Incident> {
    let since = shot.injection?.at;
    let first = |&endpoint: &usize| {
        let made = incidents.iter().filter(|incident| incident.covers(endpoint));
        made.filter(|incident| incident.verdict >= since).min_by_key(|incident| incident.verdict)
    };
    let all: Option<Vec<&Incident>> = shot.endpoints.iter().map(first).collect();
    all?.into_iter().max_by_key(|incident| incident.verdict)
}

fn judge(shot: &Shot, incidents: &[Incident]) -> Option<Run> {
    let injection = shot.injection?;
    let ended = verdict(shot, incidents);
    // Evidence may be of an exchange that began before the failure.
    let since = |at: Instant| ms(at.saturating_duration_since(injection.at));
    let of_shot = |incident: &&Incident| {
        incident.verdict >= injection.at
            && incident.endpoint.is_some()
            && shot.endpoints.iter().any(|&endpoint| incident.covers(endpoint))
    };
    let back = incidents.iter().filter(of_shot).filter_map(|incident| incident.restored).max();
    let returned =
        back.zip(shot.healed).and_then(|(back, healed)| back.checked_duration_since(healed));
    Some(Run {
        took_ms: ended.map(|incident| since(incident.verdict)),
        first_bad_ms: ended.map(|incident| since(incident.first_bad)),
        suspect_ms: ended.map(|incident| since(incident.suspect)),
        injection_ms: ms(injection.took),
        returned_ms: returned.map(ms),
    })
}

fn strays(incidents: &[Incident], outings: &[Outing]) -> usize {
    let is_stray = |incident: &&Incident| {
        incident.endpoint.is_some()
            && !outings.iter().any(|outing| {
                incident.covers(outing.endpoint)
                    && (outing.from..=outing.to).contains(&incident.verdict)
            })
    };
    incidents.iter().filter(is_stray).count()
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
