//! `gapless demo`: a zone dies under load, and the gap is measured against what was predicted.
//!
//! Everything is real: endpoint processes, sockets, the proxy with its configuration file, an
//! open-loop client. Only the place is small: all of it runs on loopback.

mod endpoint;
mod fleet;
mod load;
mod report;
mod screen;

pub use endpoint::endpoint;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::app::reload::Watched;
use crate::app::{Instance, Options as InstanceOptions, Origin};
use crate::config::{self, Loaded};
use crate::sim::predict;

use super::{FAILED, OK, ask};
use fleet::Fleet;
use load::Load;
use report::{Moments, Report};
use screen::Screen;

/// The configuration that is run; also an example under `config/`.
const CONFIGURATION: &str = include_str!("../../../config/demo.toml");

/// The zone that fails: the proxy's own, which takes all traffic while it is well.
const ZONE: &str = "us-south/us-south-1";

/// Everything is up by then, or the demo gives up.
const READY_WITHIN: Duration = Duration::from_secs(10);

/// What happens to the zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Fault {
    /// Its processes are killed: connections are refused.
    Refused,
    /// Its processes are stopped: connections are taken, and nothing comes back.
    Hang,
    /// Every connection is reset as soon as it is opened.
    Reset,
    /// Every answer is 503.
    BadStatus,
}

impl Fault {
    /// The fault whose detection window applies.
    fn predicted(self) -> predict::Fault {
        match self {
            Self::Refused => predict::Fault::Refused,
            Self::Hang => predict::Fault::Hang,
            Self::Reset => predict::Fault::Reset,
            Self::BadStatus => predict::Fault::StatusAll,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Hang => "hang",
            Self::Reset => "reset",
            Self::BadStatus => "bad-status",
        }
    }
}

/// How the demo goes.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Options {
    /// What happens to the zone
    #[arg(long, value_enum, default_value = "refused")]
    pub fault: Fault,
    /// How long the demo runs in all, in seconds
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(6..=600))]
    pub seconds: u32,
    /// Requests per second; one in five is a POST
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=5000))]
    pub rate: u32,
    /// Leave everything running afterwards, to play with
    #[arg(long)]
    pub keep: bool,
}

/// Runs the demo; the exit code.
///
/// # Errors
/// If something cannot be started, or the output cannot be written to.
pub fn demo(options: Options, json: bool, color: bool) -> io::Result<u8> {
    // In JSON the last line of standard output is the result; what happens meanwhile goes beside.
    let mut screen = Screen::new(json, color);
    let directory = Directory::new()?;
    let path = directory.0.join("demo.toml");
    let text = fleet::with_free_ports(CONFIGURATION)?;
    std::fs::write(&path, &text)?;
    let loaded = config::load(&path).map_err(|error| io::Error::other(error.to_string()))?;
    screen.configuration(&path, &text)?;
    let mut fleet = Fleet::start(places(&loaded))?;
    let config = loaded.config.clone();
    let instance = start(loaded, &path, text)?;
    let (Some(&proxy), Some(admin)) = (instance.addresses.first(), instance.admin) else {
        return Err(io::Error::other("the demo's configuration has no listener"));
    };
    await_ready(admin)?;
    screen.begins(proxy, admin, options)?;
    let mut load = Load::start(proxy, options.rate)?;
    let (moments, before) = play(options, &mut fleet, &load, admin, &mut screen)?;
    load.stop();
    let prediction = report::predict(&config, options, &before)?;
    let incidents = ask::get(admin, "/api/v1/incidents")?.body;
    let report = Report::new(options, prediction, moments, &load.samples(0), &fleet, &incidents);
    screen.table(&report)?;
    if options.keep {
        screen.keeps(proxy, admin, &path)?;
        wait_for_interrupt()?;
    }
    if json {
        let mut out = io::stdout().lock();
        writeln!(out, "{}", report.json())?;
    }
    Ok(if report.was_detected() { OK } else { FAILED })
}

/// A directory of its own, removed at the end.
struct Directory(PathBuf);

impl Directory {
    fn new() -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("gapless-demo-{}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn places(loaded: &Loaded) -> Vec<(String, SocketAddr)> {
    let zones = loaded.config.topology.pools.iter().flat_map(|pool| &pool.zones);
    let endpoints = |zone: &crate::logic::topology::ZoneSpec| {
        let name = zone.place.to_string();
        zone.endpoints.iter().map(move |one| (name.clone(), one.address)).collect::<Vec<_>>()
    };
    zones.flat_map(endpoints).collect()
}

fn start(loaded: Loaded, path: &Path, text: String) -> io::Result<Instance> {
    crate::app::observe::recorder();
    let file = Some(Watched { path: path.to_owned(), bytes: text.into_bytes(), files: Vec::new() });
    let options =
        InstanceOptions { config: loaded.config, file, signals: false, origin: Origin::default() };
    Instance::start(options).map_err(|error| io::Error::other(error.to_string()))
}

/// Waits until every endpoint serves: a failure before that would not be the demo's.
fn await_ready(admin: SocketAddr) -> io::Result<()> {
    let deadline = Instant::now() + READY_WITHIN;
    while Instant::now() < deadline {
        if let Ok(answer) = ask::get(admin, "/api/v1/endpoints")
            && let Ok(status) = serde_json::from_str::<serde_json::Value>(&answer.body)
            && let Some(endpoints) = status["endpoints"].as_array()
            && endpoints.iter().all(|endpoint| endpoint["state"] == "up")
        {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Err(io::Error::other("the demo's endpoints do not come up"))
}

/// Traffic, then the fault, then its end; the moments, and the endpoints' state before them.
fn play(
    options: Options,
    fleet: &mut Fleet,
    load: &Load,
    admin: SocketAddr,
    screen: &mut Screen,
) -> io::Result<(Moments, String)> {
    let part = |share: f64| Duration::from_secs(u64::from(options.seconds)).mul_f64(share);
    screen.watch(part(0.25), load, fleet, admin)?;
    let before = ask::get(admin, "/api/v1/endpoints")?.body;
    let failed = fleet.fail(ZONE, options.fault)?;
    screen.moment(&format!("{ZONE} fails: {}", options.fault.as_str()))?;
    screen.watch(part(0.40), load, fleet, admin)?;
    let healed = fleet.heal(ZONE, options.fault)?;
    screen.moment(&format!("{ZONE} is healed"))?;
    screen.watch(part(0.35), load, fleet, admin)?;
    Ok((Moments { failed, healed }, before))
}

fn wait_for_interrupt() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(tokio::signal::ctrl_c())
}
