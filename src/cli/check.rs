//! `gapless check`: is this configuration good, and if not, where and why?

use std::collections::HashSet;
use std::io::{self, Write};
use std::path::Path;

use serde_json::{Value, json};

use crate::config::model::Config;
use crate::config::report::{Report, Severity};
use crate::config::suggest;
use crate::config::{self, LoadError, Loaded};
use crate::logic::discovery::STAND_INS;

use super::{BAD_CONFIGURATION, OK};

/// How the result is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text {
        /// With the colours of a terminal.
        color: bool,
    },
    /// One JSON object.
    Json,
}

/// What a configuration has, counted.
struct Counts {
    listeners: usize,
    routes: usize,
    pools: usize,
    endpoints: usize,
    zones: usize,
    /// What endpoints are found by.
    names: Vec<String>,
}

/// Checks the file at `path`, writes the result to `out`, and gives the exit code.
///
/// # Errors
/// When `out` cannot be written to.
pub fn check(path: &Path, format: Format, out: &mut impl Write) -> io::Result<u8> {
    let result = config::load(path);
    match format {
        Format::Text { color } => text(path, &result, color, out)?,
        Format::Json => writeln!(out, "{}", object(path, &result))?,
    }
    Ok(if result.is_ok() { OK } else { BAD_CONFIGURATION })
}

fn text(
    path: &Path,
    result: &Result<Loaded, LoadError>,
    color: bool,
    out: &mut impl Write,
) -> io::Result<()> {
    let file = path.display();
    match result {
        Ok(Loaded { config, warnings }) => {
            write!(out, "{}", warnings.render(color))?;
            let c = Counts::of(config);
            writeln!(
                out,
                "{file}: ok, {}, {}, {}, {} in {}{}",
                count(c.listeners, "listener"),
                count(c.routes, "route"),
                count(c.pools, "pool"),
                count(c.endpoints, "endpoint"),
                count(c.zones, "zone"),
                looked_up(&c.names),
            )
        }
        Err(LoadError::Invalid(report)) => {
            write!(out, "{}", report.render(color))?;
            let errors = report.of(Severity::Error).count() + report.omitted;
            writeln!(out, "{file}: {}", count(errors, "error"))
        }
        Err(error @ LoadError::Unreadable { .. }) => writeln!(out, "error: {error}"),
    }
}

fn object(path: &Path, result: &Result<Loaded, LoadError>) -> Value {
    let file = path.display().to_string();
    let of = |report: &Report, severity| report.of(severity).map(|d| json!(d)).collect::<Vec<_>>();
    match result {
        Ok(Loaded { config, warnings }) => {
            let c = Counts::of(config);
            json!({
                "file": file,
                "ok": true,
                "listeners": c.listeners,
                "routes": c.routes,
                "pools": c.pools,
                "endpoints": c.endpoints,
                "zones": c.zones,
                "names": c.names,
                "warnings": of(warnings, Severity::Warning),
            })
        }
        Err(LoadError::Invalid(report)) => json!({
            "file": file,
            "ok": false,
            "errors": of(report, Severity::Error),
            "warnings": of(report, Severity::Warning),
            "omitted": report.omitted,
        }),
        Err(error @ LoadError::Unreadable { .. }) => json!({
            "file": file,
            "ok": false,
            "errors": [{
                "severity": Severity::Error,
                "file": file,
                "message": error.to_string(),
                "mend": "name a file that can be read",
            }],
            "warnings": [],
            "omitted": 0,
        }),
    }
}

impl Counts {
    fn of(config: &Config) -> Self {
        let zones = || config.topology.pools.iter().flat_map(|pool| &pool.zones);
        let places: HashSet<_> = zones().map(|zone| &zone.place).collect();
        Self {
            listeners: config.listen.len(),
            routes: config.routes.len(),
            pools: config.topology.pools.len(),
            endpoints: zones().map(|zone| zone.endpoints.len()).sum(),
            zones: places.len(),
            names: config.dns.entries.iter().map(|entry| entry.wanted.to_string()).collect(),
        }
    }
}

/// That names are not looked up here.
fn looked_up(names: &[String]) -> String {
    if names.is_empty() {
        return String::new();
    }
    format!(
        ", and {} to be looked up: {}",
        count(names.len(), "name"),
        suggest::list(names.iter().map(String::as_str))
    )
}

/// Says, where it is so, that names are not looked up here.
///
/// # Errors
/// When `out` cannot be written to.
pub(super) fn stand_ins(config: &Config, out: &mut impl Write) -> io::Result<()> {
    match config.dns.entries.len() {
        0 => Ok(()),
        names => writeln!(
            out,
            "{} not looked up here: {STAND_INS} endpoints stand for each\n",
            if names == 1 { "1 name is".to_owned() } else { format!("{names} names are") },
        ),
    }
}

fn count(number: usize, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}
