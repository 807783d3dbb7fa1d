//! One cell: a system, a failure, and the clients that see it.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::class::Class;
use crate::endpoint::Setting;
use crate::fleet::Fleet;
use crate::instance::Incident;
use crate::judge::{self, Figures, Moments};
use crate::layout::{self, POOL_ENDPOINTS};
use crate::load::{Load, Pace, Traffic};
use crate::machine::{Cores, Metronome};
use crate::outcome::Paused;
use crate::peer::Installed;
use crate::posts::Executed;
use crate::sample::Tally;
use crate::scenario::{Hits, PATIENCE, Scenario, Scope};
use crate::watch::Watch;

/// How long an endpoint takes for a request.
const SERVICE_TIME: Duration = Duration::from_millis(3);

/// The failure comes at any phase of a period this long: of most probes.
const PHASES: Duration = Duration::from_secs(1);

/// What is to be measured.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    /// The system.
    pub(crate) installed: &'a Installed,
    /// What fails.
    pub(crate) scenario: &'a Scenario,
    /// How.
    pub(crate) class: &'a Class,
    /// How much of it.
    pub(crate) scope: Scope,
    /// Requests a second.
    pub(crate) rate: u32,
    /// Traffic before the failure, while it lasts, and after it.
    pub(crate) times: [Duration; 3],
    /// For configurations and logs.
    pub(crate) dir: &'a Path,
}

/// All that was seen.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Measured {
    /// What clients saw.
    #[serde(flatten)]
    pub(crate) figures: Figures,
    /// From the onset to the verdict on the last endpoint that failed, where it is known.
    pub(crate) verdict_ms: Option<f64>,
    /// Requests in all.
    pub(crate) sent: usize,
    /// The most by which one was sent later than it was due.
    pub(crate) sent_late_ms: f64,
    /// How long it took until the last endpoint had failed.
    pub(crate) injection_ms: f64,
    /// The longest that the machine let somebody wait who wanted to run, since the onset.
    pub(crate) pause_ms: f64,
    /// The share of all cores' time that somebody used.
    pub(crate) busy_percent: f64,
    /// How often it was measured in vain before, because of a pause.
    pub(crate) repeats: u32,
}

impl Paused for Measured {
    fn pause_ms(&self) -> f64 {
        self.pause_ms
    }
}

/// Measures one cell, with endpoints and a proxy of its own.
pub(crate) fn measure(plan: &Plan<'_>, watch: &Watch) -> io::Result<Measured> {
    let dir = tempfile::tempdir_in(plan.dir)?;
    crate::open_to_all(dir.path())?;
    let posts = dir.path().join("posts");
    let setting = Setting { service: SERVICE_TIME, certificates: None, posts: Some(posts.clone()) };
    let mut fleet = Fleet::start((0..POOL_ENDPOINTS).map(layout::address), setting)?;
    let proxy = plan.installed.start(plan.class.probe, dir.path(), watch)?;
    let [warm_up, lasts, after] = plan.times;
    let traffic =
        Traffic { pools: 1, rate_rps: f64::from(plan.rate), pace: Pace::Even, patience: PATIENCE };
    let cores = Cores::read()?;
    let load = Load::start(proxy.address(), traffic)?;
    watch.sleep_until(Instant::now() + warm_up + PHASES.mul_f64(fastrand::f64()))?;

    let metronome = Metronome::start();
    let failing = plan.scenario.failing(plan.scope);
    let onset = Instant::now();
    for endpoint in failing.clone() {
        fleet.fail(endpoint, plan.class.means)?;
    }
    let injection = onset.elapsed();
    let lasts = match plan.scenario.hits {
        Hits::First => lasts,
        Hits::Everybody(lasts) => lasts,
    };
    watch.sleep_until(onset + lasts)?;
    let mut healed = None;
    for endpoint in failing.clone() {
        let at = fleet.heal(endpoint, plan.class.means)?;
        healed.get_or_insert(at);
    }
    let healed = healed.unwrap_or(onset);
    watch.sleep_until(healed + after)?;

    let samples = load.stop();
    let pause = metronome.stop();
    let busy_percent = cores.busy_percent()?;
    let incidents = proxy.incidents()?;
    let is_failing =
        |by: SocketAddr| failing.clone().any(|endpoint| layout::address(endpoint) == by);
    let executed = Executed::read(&posts)?;
    let figures = judge::figures(&samples, Moments { onset, healed }, is_failing, &executed);
    let tally = Tally::of(&samples);
    Ok(Measured {
        figures,
        verdict_ms: verdict(&incidents, failing, onset..healed).map(|at| ms(at - onset)),
        sent: tally.sent,
        sent_late_ms: tally.late_ms,
        injection_ms: ms(injection),
        pause_ms: ms(pause),
        busy_percent,
        repeats: 0,
    })
}

/// When the last of the endpoints that failed was put down.
fn verdict(
    incidents: &[Incident],
    mut failing: std::ops::Range<usize>,
    while_failing: std::ops::Range<Instant>,
) -> Option<Instant> {
    let first = |endpoint: usize| {
        let made = incidents.iter().filter(|incident| incident.covers(endpoint));
        made.map(|incident| incident.verdict).filter(|at| while_failing.contains(at)).min()
    };
    let start = while_failing.start;
    failing.try_fold(start, |last, endpoint| Some(last.max(first(endpoint)?)))
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
