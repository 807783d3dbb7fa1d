//! `gapless demo`: fails a zone under load, and compares the measured gap with the prediction.
//!
//! Endpoint processes, sockets, the proxy with its configuration file and an open-loop client are
//! real; all of them run on loopback.

mod endpoint;
mod fleet;
mod load_generator;
mod report;
mod screen;

pub use endpoint::run_endpoint;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};

use crate::app::control::reload::WatchedConfigFile;
use crate::app::runtime::scheduling_delay::DelayRecorder;
use crate::app::{Instance, InstanceOptions, ProcessOrigin};
use crate::config::{self, LoadedConfig};
use crate::sim::predict;

use super::admin_client::AdminClient;
use super::{EXIT_FAILED, EXIT_OK};
use fleet::{EndpointFleet, StartLock};
use load_generator::LoadGenerator;
use report::{DemoReport, FaultTimes};
use screen::DemoScreen;

/// The configuration of the demo; also an example in `config/`.
const DEMO_CONFIGURATION: &str = include_str!("../../../config/demo.toml");

/// The name of the configuration file in the directory of the demo.
const CONFIGURATION_FILE: &str = "demo.toml";

/// The zone that fails: the proxy's own zone, which gets all traffic while it is healthy.
const FAILED_ZONE: &str = "us-south/us-south-1";

/// Time for all endpoints to become up before the demo fails.
const READY_TIMEOUT: Duration = Duration::from_secs(10);

/// Interval at which the scheduling delay of this process is sampled.
const DELAY_INTERVAL: Duration = Duration::from_millis(20);

/// The fault of the zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum DemoFault {
    /// The processes are killed: connections are refused.
    Refused,
    /// The processes are stopped: connections are accepted, and no response arrives.
    Hang,
    /// Every connection is reset as soon as it is opened.
    Reset,
    /// Every response is 503.
    BadStatus,
}

impl DemoFault {
    /// The simulated fault with the same detection window.
    fn simulated_fault(self) -> predict::FaultKind {
        match self {
            Self::Refused => predict::FaultKind::Refused,
            Self::Hang => predict::FaultKind::Hang,
            Self::Reset => predict::FaultKind::Reset,
            Self::BadStatus => predict::FaultKind::StatusAll,
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

/// The options of the demo.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct DemoOptions {
    /// The fault of the zone
    #[arg(long, value_enum, default_value = "refused")]
    pub fault: DemoFault,
    /// Total length of the demo, in seconds
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(6..=600))]
    pub seconds: u32,
    /// Requests per second; every fifth is a POST
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=5000))]
    pub rate: u32,
    /// Keep everything running afterwards, for experiments
    #[arg(long)]
    pub keep: bool,
}

/// Runs the demo; returns the exit code.
///
/// # Errors
/// If a process cannot be started, or the output cannot be written.
pub fn demo(options: DemoOptions, json: bool, color: bool) -> io::Result<u8> {
    // With JSON the last line of standard output is the result; progress goes to standard error.
    let mut screen = DemoScreen::new(json, color);
    let created = CreatedDirectory::default();
    let is_finished = Arc::new(AtomicBool::new(false));
    end_on_interrupt(Arc::clone(&created), Arc::clone(&is_finished))?;
    let start_lock = StartLock::acquire()?;
    let text = fleet::with_free_ports(DEMO_CONFIGURATION)?;
    let directory = TempDirectory::with_configuration(&text, &created)?;
    let path = directory.0.join(CONFIGURATION_FILE);
    let loaded = config::load(&path).map_err(|error| io::Error::other(error.to_string()))?;
    screen.configuration(&path, &text)?;
    let mut fleet = EndpointFleet::start(endpoint_addresses(&loaded))?;
    let config = loaded.config.clone();
    let instance = start_instance(loaded, &path, text)?;
    let (Some(&proxy), Some(admin)) = (instance.addresses.first(), instance.admin) else {
        return Err(io::Error::other("the demo's configuration has no listener"));
    };
    drop(start_lock);
    await_ready(admin)?;
    screen.write_start(proxy, admin, options)?;
    let mut load = LoadGenerator::start(proxy, options.rate)?;
    let (fault_times, before) = run_scenario(options, &mut fleet, &load, admin, &mut screen)?;
    load.stop();
    let prediction = report::predict(&config, options, &before)?;
    let incidents = AdminClient::from(admin).get("/api/v1/incidents")?.body;
    let report =
        DemoReport::new(options, prediction, &fault_times, &load.samples(0), &fleet, &incidents);
    screen.write_report(&report)?;
    is_finished.store(true, Relaxed);
    if options.keep {
        screen.write_keep_running(proxy, admin, &path)?;
        wait_for_interrupt()?;
    }
    if json {
        let mut out = io::stdout().lock();
        writeln!(out, "{}", report.json())?;
    }
    Ok(if report.is_detected() { EXIT_OK } else { EXIT_FAILED })
}

/// The directory of the demo once it exists. The lock is held while it is created and filled, so
/// that an interrupt removes all of it or finds none.
type CreatedDirectory = Arc<Mutex<Option<PathBuf>>>;

fn lock(created: &CreatedDirectory) -> MutexGuard<'_, Option<PathBuf>> {
    created.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A temporary directory with the configuration, removed when dropped.
struct TempDirectory(PathBuf);

impl TempDirectory {
    fn with_configuration(text: &str, created: &CreatedDirectory) -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("gapless-demo-{}", std::process::id()));
        let mut created = lock(created);
        std::fs::create_dir_all(&path)?;
        let directory = Self(path);
        std::fs::write(directory.0.join(CONFIGURATION_FILE), text)?;
        *created = Some(directory.0.clone());
        Ok(directory)
    }
}

impl Drop for TempDirectory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn endpoint_addresses(loaded: &LoadedConfig) -> Vec<(String, SocketAddr)> {
    let zones = loaded.config.topology.pools.iter().flat_map(|pool| &pool.zones);
    let endpoints = |zone: &crate::logic::model::topology::ZoneSpec| {
        let name = zone.locality.to_string();
        zone.endpoints.iter().map(move |one| (name.clone(), one.address)).collect::<Vec<_>>()
    };
    zones.flat_map(endpoints).collect()
}

fn start_instance(loaded: LoadedConfig, path: &Path, text: String) -> io::Result<Instance> {
    crate::app::ops::metrics::install_recorder();
    let file = Some(WatchedConfigFile {
        path: path.to_owned(),
        bytes: text.into_bytes(),
        files: Vec::new(),
    });
    let options = InstanceOptions {
        config: loaded.config,
        file,
        should_handle_signals: false,
        origin: ProcessOrigin::default(),
    };
    Instance::start(options).map_err(|error| io::Error::other(error.to_string()))
}

/// Waits until every endpoint serves, so that no start-up failure counts.
fn await_ready(admin: SocketAddr) -> io::Result<()> {
    let deadline = Instant::now() + READY_TIMEOUT;
    while Instant::now() < deadline {
        if let Ok(answer) = AdminClient::from(admin).get("/api/v1/endpoints")
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

/// Runs traffic, the fault and the recovery; returns their times, and the state of the endpoints
/// before the fault.
fn run_scenario(
    options: DemoOptions,
    fleet: &mut EndpointFleet,
    load: &LoadGenerator,
    admin: SocketAddr,
    screen: &mut DemoScreen,
) -> io::Result<(FaultTimes, String)> {
    let part = |share: f64| Duration::from_secs(u64::from(options.seconds)).mul_f64(share);
    screen.show_for(part(0.25), load, fleet, admin)?;
    let endpoints_before = AdminClient::from(admin).get("/api/v1/endpoints")?.body;
    let recorder = DelayRecorder::start(DELAY_INTERVAL);
    let onset = fleet.fail(FAILED_ZONE, options.fault)?;
    screen.write_event(&format!("{FAILED_ZONE} fails: {}", options.fault.as_str()))?;
    screen.show_for(part(0.40), load, fleet, admin)?;
    let delays = recorder.stop();
    let restored_at = fleet.restore(FAILED_ZONE, options.fault)?;
    screen.write_event(&format!("{FAILED_ZONE} is healed"))?;
    screen.show_for(part(0.35), load, fleet, admin)?;
    Ok((FaultTimes { onset, restored_at, delays }, endpoints_before))
}

/// Ends the process on SIGINT until the demo is finished, and removes its directory first. The
/// endpoint processes end with this one.
///
/// # Errors
/// If the signal cannot be registered.
fn end_on_interrupt(created: CreatedDirectory, is_finished: Arc<AtomicBool>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut interrupts = {
        let _context = runtime.enter();
        signal(SignalKind::interrupt())?
    };
    std::thread::spawn(move || {
        if runtime.block_on(interrupts.recv()).is_some() && !is_finished.load(Relaxed) {
            // Held until the end: no directory is created after this.
            let created = lock(&created);
            if let Some(directory) = created.as_deref() {
                let _ = std::fs::remove_dir_all(directory);
            }
            std::process::exit(i32::from(EXIT_FAILED));
        }
    });
    Ok(())
}

fn wait_for_interrupt() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(tokio::signal::ctrl_c())
}
