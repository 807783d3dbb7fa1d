//! `gapless run CONFIG`: the proxy.

use std::io::IsTerminal;
use std::path::Path;
use std::time::Duration;

use crate::app::{Instance, Options};
use crate::config;
use crate::config::model::Config;
use crate::logic::outcome::Class;
use crate::logic::window;

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
    let loaded = match config::load(path) {
        Ok(loaded) => loaded,
        Err(error) => return refuse(&error),
    };
    start_log(log);
    crate::app::observe::recorder();
    if !loaded.warnings.is_empty() {
        tracing::warn!("\n{}", loaded.warnings.render(false));
    }
    say_windows(&loaded.config);
    let options = Options { config: loaded.config, path: Some(path.to_owned()), signals: true };
    match Instance::start(options) {
        Ok(instance) => {
            for address in &instance.addresses {
                tracing::info!(%address, "listening");
            }
            if let Some(address) = instance.admin {
                tracing::info!(%address, "admin");
            }
            instance.wait();
            tracing::info!("stopped");
            OK
        }
        Err(error) => {
            eprintln!("gapless: {error}");
            FAILED
        }
    }
}

/// Logs to standard error; `GAPLESS_LOG` sets the filter (`info` by default).
fn start_log(format: LogFormat) {
    let filter = tracing_subscriber::EnvFilter::try_from_env("GAPLESS_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
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
