//! `gapless drill`: has a zone of a running instance seem to fail, and tells what came of it.
//!
//! The instance ends the drill, not this process: it may be killed at any time.

mod watch;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::Value;

use super::ask::{self, Answer};
use super::check::Format;
use super::{FAILED, OK, USAGE};
use crate::app::drill::Asked;

const ROOT: &str = "/api/v1/drills";

/// What is to be done with drills.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Begin one, and watch it to its end
    Start {
        /// Which
        #[command(flatten)]
        start: Start,
        /// Write the report as a page of HTML too
        #[arg(long, value_name = "FILE")]
        html: Option<PathBuf>,
    },
    /// What the one that is under way has come to
    Status,
    /// Stop the one that is under way
    Stop,
    /// What came of one
    Report {
        /// Which; the last one by default
        id: Option<u64>,
        /// Write it as a page of HTML too
        #[arg(long, value_name = "FILE")]
        html: Option<PathBuf>,
    },
    /// Those that the instance remembers
    List,
}

/// A drill.
#[derive(Debug, Args)]
#[group(skip)]
pub struct Start {
    /// The zone that is to seem to fail, as region/zone
    #[arg(long, value_name = "ZONE")]
    lose: String,
    /// How: refused, reset, hang, slow=2s, status=503, error-rate=30% or cut
    #[arg(long)]
    fault: String,
    /// Of how many requests
    #[arg(long, default_value = "25%")]
    share: String,
    /// For how long
    #[arg(long = "for", value_name = "TIME", default_value = "20s")]
    length: String,
    /// Of those only that have this header
    #[arg(long = "match", value_name = "HEADER=VALUE")]
    matching: Option<String>,
    /// In this pool only
    #[arg(long, value_name = "NAME")]
    pool: Option<String>,
    /// Only this endpoint of the zone
    #[arg(long, value_name = "ADDRESS")]
    endpoint: Option<String>,
    /// Give up when more than this fails: a share of the drill's requests, or a number [default: 1%]
    #[arg(long, value_name = "BUDGET")]
    abort_budget: Option<String>,
}

impl From<Start> for Asked {
    fn from(start: Start) -> Self {
        let Start { lose, fault, share, length, matching, pool, endpoint, abort_budget } = start;
        Self { lose, fault, share, length, pool, endpoint, matching, abort_budget }
    }
}

/// Does it at `admin`; the exit code: of a drill, whether it succeeded.
///
/// # Errors
/// When `out` or a file cannot be written to.
pub fn drill(
    admin: SocketAddr,
    action: Action,
    format: Format,
    out: &mut impl Write,
) -> io::Result<u8> {
    match action {
        Action::Start { start, html } => {
            let asked = Asked::from(start);
            if let Err(why) = asked.plan() {
                eprintln!("gapless: {why}");
                return Ok(USAGE);
            }
            let body = serde_json::to_string(&asked)?;
            let Some(begun) = ask::heard(admin, ask::send(admin, "POST", ROOT, &body)) else {
                return Ok(FAILED);
            };
            let id = value(&begun)["id"].as_u64().unwrap_or_default();
            let Some(is_good) = watch::watch(admin, id, format, out)? else { return Ok(FAILED) };
            report(admin, id, format, html, out)?;
            Ok(if is_good { OK } else { FAILED })
        }
        Action::Report { id, html } => match id.or_else(|| last(admin)) {
            Some(id) => report(admin, id, format, html, out),
            None => {
                eprintln!("gapless: no drill is remembered at {admin}");
                Ok(FAILED)
            }
        },
        Action::Status => match running(admin) {
            Ok(Some(id)) => report(admin, id, format, None, out),
            Ok(None) if format == Format::Json => writeln!(out, "null").map(|()| OK),
            Ok(None) => writeln!(out, "no drill is under way").map(|()| OK),
            Err(()) => Ok(FAILED),
        },
        Action::Stop => match running(admin) {
            Ok(Some(id)) => {
                let stopped = ask::send(admin, "DELETE", &format!("{ROOT}/{id}"), "");
                if ask::heard(admin, stopped).is_none() {
                    return Ok(FAILED);
                }
                report(admin, id, format, None, out)
            }
            Ok(None) => {
                eprintln!("gapless: no drill is under way");
                Ok(FAILED)
            }
            Err(()) => Ok(FAILED),
        },
        Action::List => show(admin, ROOT, format, out),
    }
}

/// A good answer; what else came is said on standard error.
fn value(answer: &Answer) -> Value {
    serde_json::from_str(&answer.body).unwrap_or_default()
}

fn all(admin: SocketAddr) -> Result<Vec<Value>, ()> {
    let answer = ask::heard(admin, ask::get(admin, ROOT)).ok_or(())?;
    Ok(value(&answer)["drills"].as_array().cloned().unwrap_or_default())
}

fn running(admin: SocketAddr) -> Result<Option<u64>, ()> {
    let all = all(admin)?;
    let running = all.iter().find(|drill| drill["outcome"].is_null());
    Ok(running.and_then(|drill| drill["id"].as_u64()))
}

fn last(admin: SocketAddr) -> Option<u64> {
    all(admin).ok()?.last()?["id"].as_u64()
}

fn show(admin: SocketAddr, path: &str, format: Format, out: &mut impl Write) -> io::Result<u8> {
    let query = if format == Format::Json { "" } else { "?format=text" };
    match ask::heard(admin, ask::get(admin, &format!("{path}{query}"))) {
        Some(answer) => out.write_all(answer.body.as_bytes()).map(|()| OK),
        None => Ok(FAILED),
    }
}

fn report(
    admin: SocketAddr,
    id: u64,
    format: Format,
    html: Option<PathBuf>,
    out: &mut impl Write,
) -> io::Result<u8> {
    let path = format!("{ROOT}/{id}");
    if let Some(file) = html {
        let Some(page) = ask::heard(admin, ask::get(admin, &format!("{path}.html"))) else {
            return Ok(FAILED);
        };
        std::fs::write(file, page.body)?;
    }
    show(admin, &path, format, out)
}
