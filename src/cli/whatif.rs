//! `gapless whatif`: where traffic would go, and whether it would fit, if something were lost.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::app::explain::query::Form;
use crate::app::whatif::query::{Query, loss};
use crate::app::whatif::{holds, told};
use crate::logic::director::What;
use crate::logic::steer::Flow;
use crate::logic::topology::Topology;
use crate::sim::whatif::{Flows, Question, all_well, is_known, whatif};

use super::check::Format;
use super::{FAILED, OK, USAGE, ask, refuse};

/// What is asked on the command line.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// The configuration file, all of whose endpoints are taken to be healthy; without one the
    /// running instance is asked, which knows better
    config: Option<PathBuf>,
    /// An address such as 10.0.1.11:9000, a zone such as us-south/us-south-1, or a region; as often as
    /// needed
    #[arg(long, value_name = "WHAT", required = true, value_parser = loss)]
    lose: Vec<What>,
    /// Requests a second over each pool
    #[arg(long, value_name = "RATE", requires = "config", value_parser = rate)]
    rate: Option<f64>,
    /// How long a request stays at an endpoint, in milliseconds, where capacity is in requests in flight
    #[arg(long, value_name = "MS", requires = "rate", default_value_t = 20.0)]
    stay_ms: f64,
    /// The instance's admin listener
    #[arg(long, default_value = "127.0.0.1:9900", value_parser = super::admin_address)]
    admin: SocketAddr,
}

fn rate(given: &str) -> Result<f64, String> {
    let rate = given.trim_end_matches("/s").parse().ok();
    rate.filter(|rate: &f64| (0.0..=1e9).contains(rate))
        .ok_or_else(|| "write requests a second, as 1000".to_owned())
}

/// Answers what the command line asks; the exit code says whether everything holds.
///
/// # Errors
/// When `out` cannot be written to.
pub fn run(arguments: &Arguments, format: Format, out: &mut impl Write) -> io::Result<u8> {
    let form = match format {
        Format::Text { .. } => Form::Text,
        Format::Json => Form::Json,
    };
    let Some(path) = &arguments.config else {
        return ask_instance(arguments, form, out);
    };
    let loaded = match crate::config::load(path) {
        Ok(loaded) => loaded,
        Err(error) => return Ok(refuse(&error)),
    };
    let config = loaded.config.with_stand_ins();
    let topology = &config.topology;
    if let Some(unknown) = arguments.lose.iter().find(|what| !is_known(what, topology)) {
        eprintln!("gapless: no pool of {} has {unknown}", path.display());
        return Ok(USAGE);
    }
    let now = Instant::now();
    let question = Question {
        topology,
        legacy: all_well(topology, now),
        orders: Vec::new(),
        flows: flows(topology, arguments),
        nearness: Vec::new(),
        lose: &arguments.lose,
    };
    let outlooks = whatif(&question, now);
    if form == Form::Text {
        super::check::stand_ins(&config, out)?;
    }
    out.write_all(told(&arguments.lose, &outlooks, form).as_bytes())?;
    Ok(if holds(&outlooks) { OK } else { FAILED })
}

/// All of a pool's requests, by its first zone: only their sum matters.
fn flows(topology: &Topology, arguments: &Arguments) -> Flows {
    let Some(rate_rps) = arguments.rate else { return Flows::new() };
    let stay = Duration::try_from_secs_f64(arguments.stay_ms / 1e3).unwrap_or_default();
    let first = topology.pools.iter().filter_map(|pool| Some((pool, pool.zones.first()?)));
    let flow = Flow::stated(rate_rps, stay);
    first.map(|(pool, zone)| (Arc::clone(&pool.name), zone.place.clone(), flow)).collect()
}

fn ask_instance(arguments: &Arguments, form: Form, out: &mut impl Write) -> io::Result<u8> {
    let target = Query { lose: arguments.lose.clone(), form }.target();
    match ask::get(arguments.admin, &target) {
        // What does not hold is an answer too.
        Ok(answer) if matches!(answer.status, 200 | 409) => {
            out.write_all(answer.body.as_bytes())?;
            Ok(if answer.status == 200 { OK } else { FAILED })
        }
        answer => {
            let _ = ask::heard(arguments.admin, answer);
            Ok(FAILED)
        }
    }
}
