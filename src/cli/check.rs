//! `gapless check`: reports the errors of a configuration, or counts what it has.

use std::collections::HashSet;
use std::io::{self, Write};
use std::path::Path;

use serde_json::{Value, json};

use crate::config::model::Config;
use crate::config::report::{ConfigReport, Severity};
use crate::config::suggest;
use crate::config::{self, LoadError, LoadedConfig};
use crate::logic::discovery::PLACEHOLDERS_PER_NAME;

use super::{EXIT_BAD_CONFIGURATION, EXIT_OK};

/// The format of a command's output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputFormat {
    Text {
        /// With the colours of a terminal.
        color: bool,
    },
    Json,
}

/// The number of parts of a configuration, by kind.
struct ConfigCounts {
    listeners: usize,
    routes: usize,
    pools: usize,
    endpoints: usize,
    zones: usize,
    /// The names that endpoints are resolved from.
    names: Vec<String>,
}

/// Checks the file at `path`, writes the result to `out`, and gives the exit code. With `strict`,
/// warnings count as errors.
///
/// # Errors
/// When `out` cannot be written to.
pub fn check(
    path: &Path,
    strict: bool,
    format: OutputFormat,
    out: &mut impl Write,
) -> io::Result<u8> {
    let result = match config::load(path) {
        Ok(LoadedConfig { warnings, .. }) if strict && !warnings.diagnostics.is_empty() => {
            Err(LoadError::Invalid(warnings))
        }
        result => result,
    };
    match format {
        OutputFormat::Text { color } => write_text(path, &result, color, out)?,
        OutputFormat::Json => writeln!(out, "{}", json_report(path, &result))?,
    }
    Ok(if result.is_ok() { EXIT_OK } else { EXIT_BAD_CONFIGURATION })
}

fn write_text(
    path: &Path,
    result: &Result<LoadedConfig, LoadError>,
    color: bool,
    out: &mut impl Write,
) -> io::Result<()> {
    let file = path.display();
    match result {
        Ok(LoadedConfig { config, warnings }) => {
            write!(out, "{}", warnings.render(color))?;
            let c = ConfigCounts::from_config(config);
            writeln!(
                out,
                "{file}: ok, {}, {}, {}, {} in {}{}",
                plural(c.listeners, "listener"),
                plural(c.routes, "route"),
                plural(c.pools, "pool"),
                plural(c.endpoints, "endpoint"),
                plural(c.zones, "zone"),
                dns_names_text(&c.names),
            )
        }
        Err(LoadError::Invalid(report)) => {
            write!(out, "{}", report.render(color))?;
            let errors = report.with_severity(Severity::Error).count() + report.omitted;
            match report.with_severity(Severity::Warning).count() {
                warnings if errors == 0 => {
                    writeln!(out, "{file}: {}, with --strict", plural(warnings, "warning"))
                }
                _ => writeln!(out, "{file}: {}", plural(errors, "error")),
            }
        }
        Err(error @ LoadError::Unreadable { .. }) => writeln!(out, "error: {error}"),
    }
}

fn json_report(path: &Path, result: &Result<LoadedConfig, LoadError>) -> Value {
    let file = path.display().to_string();
    let of = |report: &ConfigReport, severity| {
        report.with_severity(severity).map(|d| json!(d)).collect::<Vec<_>>()
    };
    match result {
        Ok(LoadedConfig { config, warnings }) => {
            let c = ConfigCounts::from_config(config);
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

impl ConfigCounts {
    fn from_config(config: &Config) -> Self {
        let zones = || config.topology.pools.iter().flat_map(|pool| &pool.zones);
        let places: HashSet<_> = zones().map(|zone| &zone.locality).collect();
        Self {
            listeners: config.listeners.len(),
            routes: config.routes.len(),
            pools: config.topology.pools.len(),
            endpoints: zones().map(|zone| zone.endpoints.len()).sum(),
            zones: places.len(),
            names: config
                .dns
                .entries
                .iter()
                .map(|entry| entry.discovery_name.to_string())
                .collect(),
        }
    }
}

/// The part of the summary about names, which `check` does not resolve.
fn dns_names_text(names: &[String]) -> String {
    if names.is_empty() {
        return String::new();
    }
    format!(
        ", and {} to be looked up: {}",
        plural(names.len(), "name"),
        suggest::quoted_list(names.iter().map(String::as_str))
    )
}

/// Writes a note if the configuration has names, which predictions replace by placeholders.
///
/// # Errors
/// When `out` cannot be written to.
pub(super) fn write_placeholder_note(config: &Config, out: &mut impl Write) -> io::Result<()> {
    match config.dns.entries.len() {
        0 => Ok(()),
        names => writeln!(
            out,
            "{} not looked up here: {PLACEHOLDERS_PER_NAME} endpoints stand for each\n",
            if names == 1 { "1 name is".to_owned() } else { format!("{names} names are") },
        ),
    }
}

fn plural(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}
