//! `gapless whatif`: computes where traffic would go after a loss, and whether the capacity
//! suffices.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::app::ops::explain::query::ExplainFormat;
use crate::app::ops::whatif::query::{WhatIfQuery, parse_loss};
use crate::app::ops::whatif::{can_serve_all, render_answer};
use crate::logic::model::selector::TopologySelector;
use crate::logic::model::topology::Topology;
use crate::logic::steering::ZoneLoad;
use crate::sim::whatif::{WhatIfInput, ZoneLoads, all_healthy, has_target_in_topology, whatif};

use super::admin_client::AdminClientArguments;
use super::check::OutputFormat;
use super::{EXIT_FAILED, EXIT_OK, EXIT_USAGE, load_for_simulation};

/// The arguments of `gapless whatif`.
#[derive(Clone, Debug, clap::Args)]
pub struct WhatifArguments {
    /// The configuration file; all of its endpoints count as healthy. Without a file the running
    /// instance answers, with its real state
    config: Option<PathBuf>,
    /// The loss: an address such as 10.0.1.11:9000, a zone such as us-south/us-south-1, or a
    /// region; may be repeated
    #[arg(long, value_name = "WHAT", required = true, value_parser = parse_loss)]
    lose: Vec<TopologySelector>,
    /// Requests per second to each pool
    #[arg(long, value_name = "RATE", requires = "config", value_parser = parse_rate)]
    rate: Option<f64>,
    /// Time of a request at an endpoint, in milliseconds, where capacity is in requests in flight
    #[arg(long, value_name = "MS", requires = "rate", default_value_t = 20.0)]
    stay_ms: f64,
    #[command(flatten)]
    admin: AdminClientArguments,
}

fn parse_rate(given: &str) -> Result<f64, String> {
    let rate = given.trim_end_matches("/s").parse().ok();
    rate.filter(|rate: &f64| (0.0..=1e9).contains(rate))
        .ok_or_else(|| "write requests a second, as 1000".to_owned())
}

/// Computes the outlook and writes it to `out`; returns [`EXIT_FAILED`] if some traffic could not
/// be served.
///
/// # Errors
/// When `out` cannot be written to.
pub fn run(
    arguments: &WhatifArguments,
    format: OutputFormat,
    out: &mut impl Write,
) -> io::Result<u8> {
    let format = match format {
        OutputFormat::Text { .. } => ExplainFormat::Text,
        OutputFormat::Json => ExplainFormat::Json,
    };
    let Some(path) = &arguments.config else {
        return query_instance(arguments, format, out);
    };
    let config = match load_for_simulation(path) {
        Ok(config) => config,
        Err(exit_code) => return Ok(exit_code),
    };
    let topology = &config.topology;
    if let Some(unknown) =
        arguments.lose.iter().find(|target| !has_target_in_topology(target, topology))
    {
        eprintln!("gapless: no pool of {} has {unknown}", path.display());
        return Ok(EXIT_USAGE);
    }
    let now = Instant::now();
    let input = WhatIfInput {
        topology,
        health: all_healthy(topology, now),
        orders: Vec::new(),
        zone_loads: assumed_loads(topology, arguments),
        latency_orders: Vec::new(),
        lost_targets: &arguments.lose,
    };
    let outlooks = whatif(&input, now);
    if format == ExplainFormat::Text {
        super::check::write_placeholder_note(&config, out)?;
    }
    out.write_all(render_answer(&arguments.lose, &outlooks, format).as_bytes())?;
    Ok(if can_serve_all(&outlooks) { EXIT_OK } else { EXIT_FAILED })
}

/// Assigns all requests of a pool to its first zone, because only their sum matters.
fn assumed_loads(topology: &Topology, arguments: &WhatifArguments) -> ZoneLoads {
    let Some(rate_rps) = arguments.rate else { return ZoneLoads::new() };
    let duration = Duration::try_from_secs_f64(arguments.stay_ms / 1e3).unwrap_or_default();
    let first = topology.pools.iter().filter_map(|pool| Some((pool, pool.zones.first()?)));
    let load = ZoneLoad::declared(rate_rps, duration);
    first.map(|(pool, zone)| (Arc::clone(&pool.name), zone.locality.clone(), load)).collect()
}

fn query_instance(
    arguments: &WhatifArguments,
    format: ExplainFormat,
    out: &mut impl Write,
) -> io::Result<u8> {
    let path = WhatIfQuery { lose: arguments.lose.clone(), format }.to_request_target();
    let admin = arguments.admin.client()?;
    match admin.get(&path) {
        // The instance answers 409 if some traffic could not be served.
        Ok(answer) if matches!(answer.status, 200 | 409) => {
            out.write_all(answer.body.as_bytes())?;
            Ok(if answer.status == 200 { EXIT_OK } else { EXIT_FAILED })
        }
        answer => {
            let _ = admin.success_or_report(answer);
            Ok(EXIT_FAILED)
        }
    }
}
