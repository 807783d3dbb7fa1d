//! `gapless predict --false-verdicts`: predicts how often a healthy endpoint gets a verdict down.

use std::io::{self, Write};
use std::time::Instant;

use serde_json::{Value, json};

use crate::config::model::Config;
use crate::logic::model::topology::PoolSpec;
use crate::sim::latency::LatencyModel;
use crate::sim::predict;
use crate::sim::predict::false_positives;
use crate::sim::predict::false_positives::{FalsePositiveEstimate, FalsePositiveInput};

use super::{PredictOptions, thread_count};
use crate::cli::check::OutputFormat;

/// Lower rates per year are printed as this bound.
const NEGLIGIBLE_YEARLY: f64 = 1e-6;

/// Assumptions about losses while no endpoint fails.
#[derive(Clone, Debug)]
pub struct LossAssumptions {
    /// Simulated hours of each pool; `None` for as many as take a few seconds.
    pub hours: Option<f64>,
    /// The share of a probe's attempts, in 0..1, that get no answer.
    pub probe_loss: f64,
    /// The share of the requests' exchanges, in 0..1, that lose a packet.
    pub traffic_loss: f64,
}

/// Simulates every pool without failures, and writes the rate of verdicts down.
///
/// # Errors
/// When `out` cannot be written to.
pub fn predict_false_verdicts(
    config: &Config,
    options: &PredictOptions,
    assumptions: &LossAssumptions,
    out: &mut impl Write,
) -> io::Result<()> {
    let input = FalsePositiveInput {
        hours: assumptions.hours,
        seed: options.seed,
        round_trip: options.rtt,
        rate_rps: options.rate.filter(|rate| *rate > 0.0),
        probe_loss: assumptions.probe_loss,
        traffic_loss: assumptions.traffic_loss,
        latency: LatencyModel::Fixed(predict::DEFAULT_SERVICE_TIME),
        workers: config.workers,
        threads: thread_count(),
    };
    let pool_input = |pool: &PoolSpec| FalsePositiveInput {
        latency: options.pool_latency(pool),
        ..input.clone()
    };
    let here = config.topology.local.as_ref();
    let base = Instant::now();
    let pools = config.topology.pools.iter();
    let estimates = pools
        .map(|pool| false_positives::estimate_false_positives(pool, here, &pool_input(pool), base));
    match options.format {
        OutputFormat::Json => {
            let pools: Vec<Value> =
                estimates.map(|estimate| estimate_json(&estimate, &input)).collect();
            writeln!(out, "{}", json!({ "false_verdicts": pools }))
        }
        OutputFormat::Text { .. } => {
            let (probes, traffic) = (input.probe_loss * 1e2, input.traffic_loss * 1e2);
            write!(out, "nothing fails; {probes} % of a probe's attempts are lost")?;
            if input.rate_rps.is_some() {
                write!(out, ", and a packet of {traffic} % of the requests")?;
            }
            writeln!(out)?;
            for estimate in estimates {
                write_estimate(&estimate, &input, out)?;
            }
            Ok(())
        }
    }
}

fn estimate_json(estimate: &FalsePositiveEstimate, input: &FalsePositiveInput) -> Value {
    json!({
        "pool": *estimate.pool,
        "endpoints": estimate.endpoints,
        "virtual_hours": estimate.hours,
        "traffic_rps": input.rate_rps,
        "probe_loss": input.probe_loss,
        "traffic_loss": input.traffic_loss,
        "verdicts": estimate.verdicts,
        "per_endpoint_year": estimate.yearly.estimate,
        "at_least_per_endpoint_year": estimate.yearly.lower_bound,
        "at_most_per_endpoint_year": estimate.yearly.upper_bound,
        "confidence": 0.95,
        "probes_alone_per_endpoint_year": estimate.yearly_by_probes,
    })
}

fn write_estimate(
    estimate: &FalsePositiveEstimate,
    input: &FalsePositiveInput,
    out: &mut impl Write,
) -> io::Result<()> {
    let traffic_text = match input.rate_rps {
        None => "probes alone".to_owned(),
        Some(rate) => format!("with {rate} req/s"),
    };
    let FalsePositiveEstimate {
        pool,
        endpoints,
        hours,
        verdicts,
        yearly,
        yearly_by_probes: probes_alone,
    } = estimate;
    writeln!(out, "\npool {pool}, {traffic_text}")?;
    let seen = format!("{hours} virtual hours of {endpoints} endpoints: {verdicts} verdicts down");
    if *verdicts == 0 {
        let at_most = format_number(yearly.upper_bound);
        writeln!(out, "  {seen}, so fewer than {at_most} per endpoint and year (95 %)")?;
    } else {
        let [at_least, seen_yearly, at_most] =
            [yearly.lower_bound, yearly.estimate, yearly.upper_bound].map(format_number);
        writeln!(
            out,
            "  {seen}, {seen_yearly} per endpoint and year (95 %: {at_least} to {at_most})"
        )?;
    }
    let probes_alone_text = if *probes_alone == 0.0 {
        "none: no answer is ever that late".to_owned()
    } else if *probes_alone < NEGLIGIBLE_YEARLY {
        format!("fewer than {} per endpoint and year", format_number(NEGLIGIBLE_YEARLY))
    } else {
        format!("{} per endpoint and year", format_number(*probes_alone))
    };
    writeln!(
        out,
        "  by probes alone, multiplied from the chance that one attempt fails (all independent): \
         {probes_alone_text}"
    )
}

/// Formats with about three significant digits.
pub(in crate::cli) fn format_number(value: f64) -> String {
    match value {
        0.0 => "0".to_owned(),
        extreme if !(0.001..1e6).contains(&extreme) => format!("{extreme:.1e}"),
        large if large >= 100.0 => format!("{large:.0}"),
        middle if middle >= 10.0 => format!("{middle:.1}"),
        middle => format!("{middle:.3}"),
    }
}
