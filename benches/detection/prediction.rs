//! The prediction of `gapless predict` for the same configuration.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

use serde::Serialize;
use serde_json::Value;

use crate::fault_class::FaultClass;
use crate::layout::{self, PoolLayout};

/// The prediction for one cell.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ClassPrediction {
    Seen {
        /// The median window.
        median_ms: f64,
        /// The 99th percentile of windows.
        p99_ms: f64,
        /// The longest window of all trials.
        worst_ms: f64,
    },
    /// The failure is never detected, for this reason.
    Unseen(String),
    /// There is no prediction for this class.
    Missing,
}

/// Runs `program` to predict all rows of a configuration like the one under test. Its pools are
/// equal, so one is enough.
pub(crate) fn run_predict(
    program: &Path,
    layout: &PoolLayout,
    (rate_rps, rtt_ms): (f64, f64),
    dir: &Path,
) -> io::Result<Vec<Value>> {
    let config = dir.join("predict.toml");
    fs::write(&config, layout::pools_config(std::slice::from_ref(layout), 1, 2))?;
    let mut command = Command::new(program);
    command.arg("predict").arg(&config).args(["--format", "json"]);
    command.args(["--rate", &rate_rps.to_string(), "--rtt-ms", &rtt_ms.to_string()]);
    let output = command.output()?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        return Err(io::Error::other(format!("gapless predict: {}", stderr.trim())));
    }
    let report: Value = serde_json::from_slice(&output.stdout).map_err(io::Error::other)?;
    Ok(report["pools"].as_array().cloned().unwrap_or_default())
}

/// The row of one cell.
pub(crate) fn find_prediction(
    rows: &[Value],
    class: &FaultClass,
    scope: &str,
    with_traffic: bool,
) -> ClassPrediction {
    let find = |name: &str| {
        rows.iter().find(|row| {
            row["class"] == name
                && row["scope"] == scope
                && row["traffic_rps"].is_null() != with_traffic
        })
    };
    let Some(row) = find(class.name).or_else(|| find(class.broader?)) else {
        return ClassPrediction::Missing;
    };
    if let Some(reason) = row["unseen"].as_str() {
        return ClassPrediction::Unseen(reason.to_owned());
    }
    let figure = |name: &str| row[name].as_f64();
    match (figure("median_ms"), figure("p99_ms"), figure("worst_ms")) {
        (Some(median_ms), Some(p99_ms), Some(worst_ms)) => {
            ClassPrediction::Seen { median_ms, p99_ms, worst_ms }
        }
        _ => ClassPrediction::Missing,
    }
}
