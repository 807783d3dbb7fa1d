//! `gapless whatif`: where traffic would go, and whether it would fit, if something were lost.

use std::io::{self, Write};
use std::net::SocketAddr;
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

use super::check::OutputFormat;
use super::{EXIT_FAILED, EXIT_OK, EXIT_USAGE, admin_client, report_load_error};

/// What is asked on the command line.
#[derive(Clone, Debug, clap::Args)]
pub struct WhatifArguments {
    /// The configuration file, all of whose endpoints are taken to be healthy; without one the
    /// running instance is asked, which knows better
    config: Option<PathBuf>,
    /// An address such as 10.0.1.11:9000, a zone such as us-south/us-south-1, or a region; as often as
    /// needed
    #[arg(long, value_name = "WHAT", required = true, value_parser = parse_loss)]
    lose: Vec<TopologySelector>,
    /// Requests a second over each pool
    #[arg(long, value_name = "RATE", requires = "config", value_parser = parse_rate)]
    rate: Option<f64>,
    /// How long a request stays at an endpoint, in milliseconds, where capacity is in requests in flight
    #[arg(long, value_name = "MS", requires = "rate", default_value_t = 20.0)]
    stay_ms: f64,
    /// The instance's admin listener
    #[arg(long, default_value = "127.0.0.1:9900", value_parser = super::parse_admin_address)]
    admin: SocketAddr,
}

fn parse_rate(given: &str) -> Result<f64, String> {
    let rate = given.trim_end_matches("/s").parse().ok();
    rate.filter(|rate: &f64| (0.0..=1e9).contains(rate))
        .ok_or_else(|| "write requests a second, as 1000".to_owned())
}

/// Answers what the command line asks; the exit code says whether everything holds.
///
/// # Errors
/// When `out` cannot be written to.
pub fn run(
    arguments: &WhatifArguments,
    format: OutputFormat,
    out: &mut impl Write,
) -> io::Result<u8> {
    let form = match format {
        OutputFormat::Text { .. } => ExplainFormat::Text,
        OutputFormat::Json => ExplainFormat::Json,
    };
    let Some(path) = &arguments.config else {
        return query_instance(arguments, form, out);
    };
    let loaded = match crate::config::load(path) {
        Ok(loaded) => loaded,
        Err(error) => return Ok(report_load_error(&error)),
    };
    let config = loaded.config.with_placeholder_endpoints();
    let topology = &config.topology;
    if let Some(unknown) =
        arguments.lose.iter().find(|what| !has_target_in_topology(what, topology))
    {
        eprintln!("gapless: no pool of {} has {unknown}", path.display());
        return Ok(EXIT_USAGE);
    }
    let now = Instant::now();
    let question = WhatIfInput {
        topology,
        health: all_healthy(topology, now),
        orders: Vec::new(),
        zone_loads: assumed_loads(topology, arguments),
        latency_orders: Vec::new(),
        lost_targets: &arguments.lose,
    };
    let outlooks = whatif(&question, now);
    if form == ExplainFormat::Text {
        super::check::write_placeholder_note(&config, out)?;
    }
    out.write_all(render_answer(&arguments.lose, &outlooks, form).as_bytes())?;
    Ok(if can_serve_all(&outlooks) { EXIT_OK } else { EXIT_FAILED })
}

/// All of a pool's requests, by its first zone: only their sum matters.
fn assumed_loads(topology: &Topology, arguments: &WhatifArguments) -> ZoneLoads {
    let Some(rate_rps) = arguments.rate else { return ZoneLoads::new() };
    let duration = Duration::try_from_secs_f64(arguments.stay_ms / 1e3).unwrap_or_default();
    let first = topology.pools.iter().filter_map(|pool| Some((pool, pool.zones.first()?)));
    let load = ZoneLoad::declared(rate_rps, duration);
    first.map(|(pool, zone)| (Arc::clone(&pool.name), zone.locality.clone(), load)).collect()
}

fn query_instance(
    arguments: &WhatifArguments,
    form: ExplainFormat,
    out: &mut impl Write,
) -> io::Result<u8> {
    let path = WhatIfQuery { lose: arguments.lose.clone(), format: form }.to_request_target();
    match admin_client::get(arguments.admin, &path) {
        // What does not hold is an answer too.
        Ok(answer) if matches!(answer.status, 200 | 409) => {
            out.write_all(answer.body.as_bytes())?;
            Ok(if answer.status == 200 { EXIT_OK } else { EXIT_FAILED })
        }
        answer => {
            let _ = admin_client::success_or_report(arguments.admin, answer);
            Ok(EXIT_FAILED)
        }
    }
}
