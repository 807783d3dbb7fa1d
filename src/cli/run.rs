//! `gapless run CONFIG`: the proxy.

use std::io::{self, IsTerminal};
use std::path::Path;
use std::time::Duration;

use crate::app::reload::Watched;
use crate::app::upgrade::{Executable, Predecessor};
use crate::app::{Instance, Options, Origin};
use crate::config::model::Config;
use crate::config::{self, LoadError};
use crate::logic::outcome::Class;
use crate::logic::window;
use crate::net::listener::Stock;

use rustix::process::{Resource, getrlimit, setrlimit};
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};

use super::{FAILED, OK, refuse};

/// What a round trip to an endpoint is taken to cost where nothing was measured yet.
const ROUND_TRIP: Duration = Duration::from_millis(1);

/// How lines of the log look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Runs until a signal says otherwise; the exit code.
#[must_use]
pub fn run(path: &Path, log: LogFormat) -> u8 {
    // What runs may be replaced on the disk later, and sockets are taken before there are threads.
    let executable = Executable::of_this_process();
    let (sockets, faults) = Stock::of_service_manager();
    let read = config::read(path).and_then(|bytes| {
        let loaded = config::parse_bytes(&path.display().to_string(), &bytes);
        Ok((loaded.map_err(LoadError::Invalid)?, bytes))
    });
    let (loaded, bytes) = match read {
        Ok(read) => read,
        Err(error) => return refuse(&error),
    };
    // Written out when dropped, at the very end.
    let _log = start_log(log);
    raise_descriptor_limit(&loaded.config);
    crate::app::observe::recorder();
    if !loaded.warnings.is_empty() {
        tracing::warn!("\n{}", loaded.warnings.render(false));
    }
    faults.iter().for_each(|fault| tracing::warn!("{fault}"));
    say_windows(&loaded.config);
    let origin = match origin(executable, sockets) {
        Ok(origin) => origin,
        Err(error) => {
            eprintln!("gapless: cannot take over: {error}");
            return FAILED;
        }
    };
    let files = loaded.warnings.files;
    let file = Some(Watched { path: path.to_owned(), bytes, files });
    let options = Options { config: loaded.config, file, signals: true, origin };
    match Instance::start(options) {
        Ok(instance) => {
            for address in &instance.addresses {
                tracing::info!(%address, "listening");
            }
            if let Some(address) = instance.admin {
                tracing::info!(%address, "admin");
            }
            if !instance.wait() {
                tracing::error!("a thread has panicked: this is a defect of gapless");
                return FAILED;
            }
            tracing::info!("stopped");
            OK
        }
        Err(error) => {
            eprintln!("gapless: {error}");
            FAILED
        }
    }
}

/// What comes from the processes before this one and around it.
fn origin(executable: io::Result<Executable>, mut sockets: Stock) -> io::Result<Origin> {
    let executable = match executable {
        Ok(executable) => Some(executable),
        Err(error) => {
            tracing::warn!(%error, "no upgrade in place: what was started cannot be found");
            None
        }
    };
    let predecessor = Predecessor::meet()?.map(|(predecessor, handed)| {
        sockets.merge(handed);
        predecessor
    });
    Ok(Origin { executable, sockets, predecessor })
}

/// Uses all descriptors that the system grants, and says so if they cannot suffice.
fn raise_descriptor_limit(config: &Config) {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
    let granted = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    // A connection to a client has one to an endpoint beside it.
    let wanted = 2 * (config.limits.connections * config.listen.len()) as u64;
    if granted < wanted {
        tracing::warn!(
            granted,
            wanted,
            "fewer descriptors than `limits.connections` may need: raise LimitNOFILE"
        );
    }
}

/// Logs to standard error; `GAPLESS_LOG` sets the filter (`info` by default). A reader that is slow
/// or gone costs lines, which are counted, and never holds up a verdict or a request.
fn start_log(format: LogFormat) -> WorkerGuard {
    let (lines, guard) = NonBlockingBuilder::default().lossy(true).finish(io::stderr());
    crate::app::observe::count_lost_lines(lines.error_counter());
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

/// Says at the start how long a failure can go unseen, so that nobody has to find out by hand.
fn say_windows(config: &Config) {
    for pool in &config.topology.pools {
        let worst = |class| window::bounds(class, &pool.detect, ROUND_TRIP).worst.as_millis();
        tracing::info!(
            pool = %pool.name,
            refused_ms = worst(Class::Refused),
            silent_ms = worst(Class::Silent),
            "worst detection window by probes alone"
        );
    }
}
