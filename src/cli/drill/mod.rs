//! `gapless drill`: starts a drill in a running instance, and prints its report.
//!
//! The instance ends the drill, so this process may be killed at any time.

mod watch;

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::Value;

use super::admin_client::{AdminClient, ApiResponse};
use super::check::OutputFormat;
use super::{EXIT_FAILED, EXIT_OK, EXIT_USAGE};
use crate::app::ops::drill::DrillRequest;

const DRILLS_PATH: &str = "/api/v1/drills";

/// The subcommands of `gapless drill`.
#[derive(Debug, Subcommand)]
pub enum DrillCommand {
    /// Start a drill and watch it until it ends
    Start {
        /// The drill to start
        #[command(flatten)]
        start: DrillStartArguments,
        /// Also write the report to this file as HTML
        #[arg(long, value_name = "FILE")]
        html: Option<PathBuf>,
    },
    /// Show the running drill
    Status,
    /// Stop the running drill
    Stop,
    /// Show the report of a drill
    Report {
        /// Number of the drill [default: the last one]
        id: Option<u64>,
        /// Also write the report to this file as HTML
        #[arg(long, value_name = "FILE")]
        html: Option<PathBuf>,
    },
    /// List the drills that the instance has kept
    List,
}

/// The plan of a drill.
#[derive(Debug, Args)]
#[group(skip)]
pub struct DrillStartArguments {
    /// The zone to fail, as region/zone
    #[arg(long, value_name = "ZONE")]
    lose: String,
    /// The fault: refused, reset, hang, slow=2s, status=503, error-rate=30% or cut
    #[arg(long)]
    fault: String,
    /// The share of requests
    #[arg(long, default_value = "25%")]
    share: String,
    /// The length of the drill
    #[arg(long = "for", value_name = "TIME", default_value = "20s")]
    length: String,
    /// Only requests with this header
    #[arg(long = "match", value_name = "HEADER=VALUE")]
    matching: Option<String>,
    /// Only in this pool
    #[arg(long, value_name = "NAME")]
    pool: Option<String>,
    /// Only this endpoint of the zone
    #[arg(long, value_name = "ADDRESS")]
    endpoint: Option<String>,
    /// Abort when more than this fails: a share of the drill's requests, or a number [default: 1%]
    #[arg(long, value_name = "BUDGET")]
    abort_budget: Option<String>,
}

impl From<DrillStartArguments> for DrillRequest {
    fn from(start: DrillStartArguments) -> Self {
        let DrillStartArguments {
            lose,
            fault,
            share,
            length,
            matching,
            pool,
            endpoint,
            abort_budget,
        } = start;
        Self { lose, fault, share, length, pool, endpoint, matching, abort_budget }
    }
}

/// Runs the subcommand at `admin`; returns the exit code, [`EXIT_FAILED`] for a drill that did not
/// succeed.
///
/// # Errors
/// When `out` or a file cannot be written to.
pub fn drill(
    admin: &AdminClient,
    action: DrillCommand,
    format: OutputFormat,
    out: &mut impl Write,
) -> io::Result<u8> {
    match action {
        DrillCommand::Start { start, html } => {
            let request = DrillRequest::from(start);
            if let Err(error) = request.to_plan() {
                eprintln!("gapless: {error}");
                return Ok(EXIT_USAGE);
            }
            let body = serde_json::to_string(&request)?;
            let Some(started) = admin.success_or_report(admin.send("POST", DRILLS_PATH, &body))
            else {
                return Ok(EXIT_FAILED);
            };
            let id = parse_json(&started)["id"].as_u64().unwrap_or_default();
            let Some(is_good) = watch::watch_drill(admin, id, format, out)? else {
                return Ok(EXIT_FAILED);
            };
            print_report(admin, id, format, html, out)?;
            Ok(if is_good { EXIT_OK } else { EXIT_FAILED })
        }
        DrillCommand::Report { id, html } => match id.or_else(|| last_drill(admin)) {
            Some(id) => print_report(admin, id, format, html, out),
            None => {
                eprintln!("gapless: no drill is recorded at {admin}");
                Ok(EXIT_FAILED)
            }
        },
        DrillCommand::Status => match running_drill(admin) {
            Ok(Some(id)) => print_report(admin, id, format, None, out),
            Ok(None) if format == OutputFormat::Json => writeln!(out, "null").map(|()| EXIT_OK),
            Ok(None) => writeln!(out, "no drill is under way").map(|()| EXIT_OK),
            Err(()) => Ok(EXIT_FAILED),
        },
        DrillCommand::Stop => match running_drill(admin) {
            Ok(Some(id)) => {
                let stopped = admin.send("DELETE", &format!("{DRILLS_PATH}/{id}"), "");
                if admin.success_or_report(stopped).is_none() {
                    return Ok(EXIT_FAILED);
                }
                print_report(admin, id, format, None, out)
            }
            Ok(None) => {
                eprintln!("gapless: no drill is under way");
                Ok(EXIT_FAILED)
            }
            Err(()) => Ok(EXIT_FAILED),
        },
        DrillCommand::List => print_path(admin, DRILLS_PATH, format, out),
    }
}

/// The body as JSON; `null` if it is not.
fn parse_json(answer: &ApiResponse) -> Value {
    serde_json::from_str(&answer.body).unwrap_or_default()
}

fn list_drills(admin: &AdminClient) -> Result<Vec<Value>, ()> {
    let answer = admin.success_or_report(admin.get(DRILLS_PATH)).ok_or(())?;
    Ok(parse_json(&answer)["drills"].as_array().cloned().unwrap_or_default())
}

fn running_drill(admin: &AdminClient) -> Result<Option<u64>, ()> {
    let all = list_drills(admin)?;
    let running = all.iter().find(|drill| drill["outcome"].is_null());
    Ok(running.and_then(|drill| drill["id"].as_u64()))
}

fn last_drill(admin: &AdminClient) -> Option<u64> {
    list_drills(admin).ok()?.last()?["id"].as_u64()
}

fn print_path(
    admin: &AdminClient,
    path: &str,
    format: OutputFormat,
    out: &mut impl Write,
) -> io::Result<u8> {
    let query = if format == OutputFormat::Json { "" } else { "?format=text" };
    match admin.success_or_report(admin.get(&format!("{path}{query}"))) {
        Some(answer) => out.write_all(answer.body.as_bytes()).map(|()| EXIT_OK),
        None => Ok(EXIT_FAILED),
    }
}

fn print_report(
    admin: &AdminClient,
    id: u64,
    format: OutputFormat,
    html: Option<PathBuf>,
    out: &mut impl Write,
) -> io::Result<u8> {
    let path = format!("{DRILLS_PATH}/{id}");
    if let Some(file) = html {
        let Some(page) = admin.success_or_report(admin.get(&format!("{path}.html"))) else {
            return Ok(EXIT_FAILED);
        };
        std::fs::write(file, page.body)?;
    }
    print_path(admin, &path, format, out)
}
