//! `gapless predict --false-verdicts`: how often is a healthy endpoint put down?

use std::io::{self, Write};
use std::time::Instant;

use serde_json::{Value, json};

use crate::config::model::Config;
use crate::logic::topology::PoolSpec;
use crate::sim::latency::Latency;
use crate::sim::predict;
use crate::sim::predict::falsely::{self, Estimate, Question};

use super::{Options, threads};
use crate::cli::check::Format;

/// Below this many a year nobody will ever see one.
const NEVER_YEARLY: f64 = 1e-6;

/// The world in which nothing fails.
#[derive(Clone, Debug)]
pub struct World {
    /// Virtual hours of each pool; `None`: as many as take some seconds.
    pub hours: Option<f64>,
    /// The share of a probe's attempts, in 0..1, that get no answer.
    pub probe_loss: f64,
    /// The share of the requests' exchanges, in 0..1, that lose a packet.
    pub traffic_loss: f64,
}

/// Simulates every pool while nothing fails, and writes the verdicts down that fell all the same.
///
/// # Errors
/// When `out` cannot be written to.
pub fn false_verdicts(
    config: &Config,
    options: &Options,
    world: &World,
    out: &mut impl Write,
) -> io::Result<()> {
    let question = Question {
        hours: world.hours,
        seed: options.seed,
        round_trip: options.rtt,
        rate_rps: options.rate.filter(|rate| *rate > 0.0),
        probe_loss: world.probe_loss,
        traffic_loss: world.traffic_loss,
        latency: Latency::Fixed(predict::SERVICE),
        threads: threads(),
    };
    let question_of =
        |pool: &PoolSpec| Question { latency: options.latency_of(pool), ..question.clone() };
    let here = config.topology.here.as_ref();
    let base = Instant::now();
    let pools = config.topology.pools.iter();
    let estimates = pools.map(|pool| falsely::estimate(pool, here, &question_of(pool), base));
    match options.format {
        Format::Json => {
            let pools: Vec<Value> = estimates.map(|of| object(&of, &question)).collect();
            writeln!(out, "{}", json!({ "false_verdicts": pools }))
        }
        Format::Text { .. } => {
            let (probes, traffic) = (question.probe_loss * 1e2, question.traffic_loss * 1e2);
            write!(out, "nothing fails; {probes} % of a probe's attempts are lost")?;
            if question.rate_rps.is_some() {
                write!(out, ", and a packet of {traffic} % of the requests")?;
            }
            writeln!(out)?;
            for estimate in estimates {
                text(&estimate, &question, out)?;
            }
            Ok(())
        }
    }
}

fn object(of: &Estimate, question: &Question) -> Value {
    json!({
        "pool": *of.pool,
        "endpoints": of.endpoints,
        "virtual_hours": of.hours,
        "traffic_rps": question.rate_rps,
        "probe_loss": question.probe_loss,
        "traffic_loss": question.traffic_loss,
        "verdicts": of.verdicts,
        "per_endpoint_year": of.yearly.seen,
        "at_least_per_endpoint_year": of.yearly.at_least,
        "at_most_per_endpoint_year": of.yearly.at_most,
        "confidence": 0.95,
        "probes_alone_per_endpoint_year": of.probes_alone,
    })
}

fn text(of: &Estimate, question: &Question, out: &mut impl Write) -> io::Result<()> {
    let with = match question.rate_rps {
        None => "probes alone".to_owned(),
        Some(rate) => format!("with {rate} req/s"),
    };
    let Estimate { pool, endpoints, hours, verdicts, yearly, probes_alone } = of;
    writeln!(out, "\npool {pool}, {with}")?;
    let seen = format!("{hours} virtual hours of {endpoints} endpoints: {verdicts} verdicts down");
    if *verdicts == 0 {
        let at_most = number(yearly.at_most);
        writeln!(out, "  {seen}, so fewer than {at_most} per endpoint and year (95 %)")?;
    } else {
        let [at_least, seen_yearly, at_most] =
            [yearly.at_least, yearly.seen, yearly.at_most].map(number);
        writeln!(
            out,
            "  {seen}, {seen_yearly} per endpoint and year (95 %: {at_least} to {at_most})"
        )?;
    }
    let followed = if *probes_alone == 0.0 {
        "none: no answer is ever that late".to_owned()
    } else if *probes_alone < NEVER_YEARLY {
        format!("fewer than {} per endpoint and year", number(NEVER_YEARLY))
    } else {
        format!("{} per endpoint and year", number(*probes_alone))
    };
    writeln!(
        out,
        "  by probes alone, multiplied from the chance that one attempt fails (all independent): \
         {followed}"
    )
}

/// Three digits are all that there is to it.
pub(in crate::cli) fn number(value: f64) -> String {
    match value {
        0.0 => "0".to_owned(),
        extreme if !(0.001..1e6).contains(&extreme) => format!("{extreme:.1e}"),
        large if large >= 100.0 => format!("{large:.0}"),
        middle if middle >= 10.0 => format!("{middle:.1}"),
        middle => format!("{middle:.3}"),
    }
}
