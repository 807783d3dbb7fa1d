//! `gapless run CONFIG`: runs the proxy.

use std::io::{self, IsTerminal};
use std::path::Path;
use std::time::Duration;

use crate::app::control::reload::WatchedConfigFile;
use crate::app::runtime::upgrade::{Executable, Predecessor};
use crate::app::{Instance, InstanceOptions, ProcessOrigin};
use crate::config::model::Config;
use crate::config::{self, LoadError};
use crate::logic::model::outcome::FailureClass;
use crate::logic::overload::descriptor_pool;
use crate::logic::probing::detection_window;
use crate::net::listener::InheritedListeners;

use rustix::process::{Resource, getrlimit, setrlimit};
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};

use super::{EXIT_FAILED, EXIT_OK, report_load_error};

/// The assumed round trip to an endpoint before any is measured.
const ASSUMED_ROUND_TRIP: Duration = Duration::from_millis(1);

/// The format of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Text for a terminal.
    Text,
    /// One JSON object per line.
    Json,
}

/// Runs until a signal stops the instance; returns the exit code.
pub fn run(path: &Path, log: LogFormat) -> u8 {
    // The executable may be replaced on disk later, so its path is resolved now. Inherited sockets
    // must be taken before any thread starts.
    let executable = Executable::of_this_process();
    let (sockets, faults) = InheritedListeners::from_service_manager();
    let read = config::read(path).and_then(|bytes| {
        let loaded = config::parse_bytes(&path.display().to_string(), &bytes);
        Ok((loaded.map_err(LoadError::Invalid)?, bytes))
    });
    let (loaded, bytes) = match read {
        Ok(read) => read,
        Err(error) => return report_load_error(&error),
    };
    // Dropping the guard at the end of `run` flushes the log.
    let _log = start_log(log);
    raise_descriptor_limit(&loaded.config);
    crate::app::ops::metrics::install_recorder();
    if !loaded.warnings.is_empty() {
        tracing::warn!("\n{}", loaded.warnings.render(false));
    }
    faults.iter().for_each(|fault| tracing::warn!("{fault}"));
    log_detection_windows(&loaded.config);
    let origin = match start_origin(executable, sockets) {
        Ok(origin) => origin,
        Err(error) => {
            eprintln!("gapless: cannot take over: {error}");
            return EXIT_FAILED;
        }
    };
    let files = loaded.warnings.files;
    let file = Some(WatchedConfigFile { path: path.to_owned(), bytes, files });
    let options =
        InstanceOptions { config: loaded.config, file, should_handle_signals: true, origin };
    match Instance::start(options) {
        Ok(instance) => {
            for address in &instance.addresses {
                tracing::info!(%address, "listening");
            }
            if let Some(address) = instance.status {
                tracing::info!(%address, "status");
            }
            if let Some(address) = instance.admin {
                tracing::info!(%address, "admin");
            }
            if !instance.wait() {
                tracing::error!("a thread has panicked: this is a defect of gapless");
                return EXIT_FAILED;
            }
            tracing::info!("stopped");
            EXIT_OK
        }
        Err(error) => {
            eprintln!("gapless: {error}");
            EXIT_FAILED
        }
    }
}

/// Collects what is inherited from the predecessor and from the service manager.
fn start_origin(
    executable: io::Result<Executable>,
    mut sockets: InheritedListeners,
) -> io::Result<ProcessOrigin> {
    let executable = match executable {
        Ok(executable) => Some(executable),
        Err(error) => {
            tracing::warn!(%error, "no upgrade in place: the executable of this process cannot be found");
            None
        }
    };
    let predecessor = Predecessor::connect()?.map(|(predecessor, inherited)| {
        sockets.merge(inherited);
        predecessor
    });
    Ok(ProcessOrigin { executable, inherited_sockets: sockets, predecessor })
}

/// Raises the descriptor limit to the maximum, and warns if that is too low for
/// `limits.connections`.
fn raise_descriptor_limit(config: &Config) {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
    let granted = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let granted = usize::try_from(granted).unwrap_or(usize::MAX);
    let clients = descriptor_pool::max_clients(config.descriptor_needs().available(granted));
    let wanted = config.limits.connections.saturating_mul(config.listeners.len());
    if clients < wanted {
        tracing::warn!(
            granted,
            clients,
            needed = config.descriptor_needs().required_limit(wanted),
            "fewer clients than `limits.connections` can connect at once: raise LimitNOFILE"
        );
    }
}

/// Logs to standard error; `GAPLESS_LOG` sets the filter (`info` by default). If the reader is slow
/// or gone, lines are dropped and counted, so that logging never blocks a verdict or a request.
fn start_log(format: LogFormat) -> WorkerGuard {
    let (lines, guard) = NonBlockingBuilder::default().lossy(true).finish(io::stderr());
    crate::app::ops::event_log::set_dropped_line_counter(lines.error_counter());
    let filter = tracing_subscriber::EnvFilter::try_from_env("GAPLESS_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_writer(lines)
        .with_ansi(io::stderr().is_terminal());
    match format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
    guard
}

/// Logs the worst detection window of each pool at start.
fn log_detection_windows(config: &Config) {
    for pool in &config.topology.pools {
        let worst = |class| {
            detection_window::detection_bounds(class, &pool.detect, ASSUMED_ROUND_TRIP)
                .worst
                .as_millis()
        };
        tracing::info!(
            pool = %pool.name,
            refused_ms = worst(FailureClass::Refused),
            silent_ms = worst(FailureClass::Silent),
            "worst detection window by probes alone"
        );
    }
}
