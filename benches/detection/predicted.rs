//! What `gapless predict` says of the same configuration.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

use serde::Serialize;
use serde_json::Value;

use crate::class::Class;
use crate::layout::{self, Shape};

/// The prediction for one cell.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Predicted {
    /// A detection window.
    Seen {
        /// Half of the failures are detected by then.
        median_ms: f64,
        /// All but a hundredth.
        p99_ms: f64,
        /// All that were tried.
        worst_ms: f64,
    },
    /// It is never noticed, for this reason.
    Unseen(String),
    /// Nothing is said of this class.
    Missing,
}

/// Asks `program` for all rows of a configuration like the one under test; its pools are equal, so
/// one of them is enough.
pub(crate) fn predict(
    program: &Path,
    shape: &Shape,
    (rate_rps, rtt_ms): (f64, f64),
    dir: &Path,
) -> io::Result<Vec<Value>> {
    let config = dir.join("predict.toml");
    fs::write(&config, layout::config_of(std::slice::from_ref(shape), 1, 2))?;
    let mut command = Command::new(program);
    command.arg("predict").arg(&config).args(["--format", "json"]);
    command.args(["--rate", &rate_rps.to_string(), "--rtt-ms", &rtt_ms.to_string()]);
    let output = command.output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(io::Error::other(format!("gapless predict: {}", said.trim())));
    }
    let said: Value = serde_json::from_slice(&output.stdout).map_err(io::Error::other)?;
    Ok(said["pools"].as_array().cloned().unwrap_or_default())
}

/// The row of one cell.
pub(crate) fn row_of(rows: &[Value], class: &Class, scope: &str, with_traffic: bool) -> Predicted {
    let find = |name: &str| {
        rows.iter().find(|row| {
            row["class"] == name
                && row["scope"] == scope
                && row["traffic_rps"].is_null() != with_traffic
        })
    };
    let Some(row) = find(class.name).or_else(|| find(class.broader?)) else {
        return Predicted::Missing;
    };
    if let Some(why) = row["unseen"].as_str() {
        return Predicted::Unseen(why.to_owned());
    }
    let figure = |name: &str| row[name].as_f64();
    match (figure("median_ms"), figure("p99_ms"), figure("worst_ms")) {
        (Some(median_ms), Some(p99_ms), Some(worst_ms)) => {
            Predicted::Seen { median_ms, p99_ms, worst_ms }
        }
        _ => Predicted::Missing,
    }
}
