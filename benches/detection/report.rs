//! The report, as tables and as JSON.

use serde::Serialize;
use serde_json::json;

use crate::cell_outcome::CellOutcome;
use crate::measurement::DetectionMeasurement;
use crate::prediction::ClassPrediction;
use crate::{evaluation, table};

/// A cell with its prediction and outcome.
#[derive(Debug, Serialize)]
pub(crate) struct DetectionCell {
    pub(crate) class: &'static str,
    /// `endpoint` or `zone`.
    pub(crate) scope: &'static str,
    /// Requests per second to each pool.
    pub(crate) traffic_rps: Option<f64>,
    /// The prediction.
    pub(crate) predicted: ClassPrediction,
    /// The outcome of the measurement.
    pub(crate) outcome: CellOutcome<DetectionMeasurement>,
}

/// The summary of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CellStatus {
    Ok,
    NotPredicted,
    Skipped,
    Failed,
}

impl CellStatus {
    fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::NotPredicted => "not predicted",
            Self::Skipped => "not run",
            Self::Failed => "FAILED",
        }
    }
}

impl DetectionCell {
    fn status(&self) -> CellStatus {
        match (&self.outcome, &self.predicted) {
            (CellOutcome::Skipped(_), _) => CellStatus::Skipped,
            (CellOutcome::Broken(_), _) => CellStatus::Failed,
            (CellOutcome::Measured(_), ClassPrediction::Missing) => CellStatus::NotPredicted,
            (CellOutcome::Measured(measured), _)
                if evaluation::is_prediction_met(
                    &measured.detection_times_ms(),
                    self.bound_ms(),
                ) =>
            {
                CellStatus::Ok
            }
            (CellOutcome::Measured(_), _) => CellStatus::Failed,
        }
    }

    fn bound_ms(&self) -> Option<f64> {
        match self.predicted {
            ClassPrediction::Seen { p99_ms, .. } => Some(p99_ms),
            ClassPrediction::Unseen(_) | ClassPrediction::Missing => None,
        }
    }

    fn name(&self) -> String {
        let scope = if self.scope == "endpoint" { "" } else { "zone " };
        format!("{scope}{}", self.class)
    }

    fn traffic(&self) -> String {
        self.traffic_rps.map_or_else(|| "without".to_owned(), |_| "with".to_owned())
    }
}

impl DetectionMeasurement {
    fn detection_times_ms(&self) -> Vec<Option<f64>> {
        self.runs.iter().map(|run| run.took_ms).collect()
    }
}

/// Whether every cell is good.
pub(crate) fn is_good(cells: &[DetectionCell], allow_missing: bool) -> bool {
    cells.iter().all(|cell| match cell.status() {
        CellStatus::Ok | CellStatus::Skipped => true,
        CellStatus::NotPredicted => allow_missing,
        CellStatus::Failed => false,
    })
}

/// The report as one JSON object.
pub(crate) fn as_json(cells: &[DetectionCell]) -> serde_json::Value {
    let cell = |cell: &DetectionCell| {
        let mut value = json!(cell);
        value["standing"] = json!(cell.status().label());
        if let CellOutcome::Measured(measured) = &cell.outcome {
            value["inside"] =
                json!(evaluation::count_inside(&measured.detection_times_ms(), cell.bound_ms()));
        }
        value
    };
    json!({ "cells": cells.iter().map(cell).collect::<Vec<_>>() })
}

pub(crate) fn as_text(cells: &[DetectionCell]) -> String {
    let mut text = String::from("From failure to verdict, in ms\n\n");
    let rows: Vec<Vec<String>> = cells.iter().map(result_row).collect();
    text.push_str(&table::render(&RESULT_HEADINGS, &rows));
    text.push_str(
        "\nWhat it was measured with. An injection may have come into force that much later; a pause \
         kept everything waiting, and a cell with a long one was repeated\n\n",
    );
    let rows: Vec<Vec<String>> = cells.iter().filter_map(condition_row).collect();
    text.push_str(&table::render(&CONDITION_HEADINGS, &rows));
    for cell in cells {
        let reason = match &cell.outcome {
            CellOutcome::Measured(_) => continue,
            CellOutcome::Skipped(why) => why,
            CellOutcome::Broken(why) => why.as_str(),
        };
        text.push_str(&format!("\n{}, {} traffic: {reason}\n", cell.name(), cell.traffic()));
    }
    text
}

const RESULT_HEADINGS: [&str; 11] = [
    "class",
    "traffic",
    "runs",
    "median",
    "p99",
    "worst",
    "predicted median",
    "predicted p99",
    "inside",
    "back after",
    "prediction",
];

fn result_row(cell: &DetectionCell) -> Vec<String> {
    let (median, p99) = match &cell.predicted {
        ClassPrediction::Seen { median_ms, p99_ms, .. } => {
            (format_figure(Some(*median_ms)), format_figure(Some(*p99_ms)))
        }
        ClassPrediction::Unseen(_) => ("unseen".to_owned(), "unseen".to_owned()),
        ClassPrediction::Missing => (format_figure(None), format_figure(None)),
    };
    let mut row = vec![cell.name(), cell.traffic()];
    if let CellOutcome::Measured(measured) = &cell.outcome {
        let times_ms = measured.detection_times_ms();
        let detected_ms = sorted(times_ms.iter().copied().flatten());
        let returned_ms = sorted(measured.runs.iter().filter_map(|run| run.returned_ms));
        row.push(times_ms.len().to_string());
        row.extend(
            [0.5, 0.99, 1.0].map(|share| format_figure(evaluation::quantile(&detected_ms, share))),
        );
        row.extend([median, p99]);
        row.push(match cell.predicted {
            ClassPrediction::Missing => format_figure(None),
            _ => evaluation::count_inside(&times_ms, cell.bound_ms()).to_string(),
        });
        row.push(format_figure(evaluation::quantile(&returned_ms, 0.5)));
    } else {
        row.extend(std::iter::repeat_n(format_figure(None), 4));
        row.extend([median, p99, format_figure(None), format_figure(None)]);
    }
    row.push(cell.status().label().to_owned());
    row
}

const CONDITION_HEADINGS: [&str; 12] = [
    "class",
    "traffic",
    "busy %",
    "injection, worst",
    "probe, median",
    "pause, worst",
    "repeats",
    "sent",
    "failed GET",
    "failed POST",
    "stray verdicts",
    "clock drift",
];

fn condition_row(cell: &DetectionCell) -> Option<Vec<String>> {
    let CellOutcome::Measured(measured) = &cell.outcome else { return None };
    let injection = measured.runs.iter().map(|run| run.injection_ms).fold(0.0, f64::max);
    let load = measured.load.as_ref();
    let count =
        |count: Option<usize>| count.map_or_else(|| format_figure(None), |count| count.to_string());
    Some(vec![
        cell.name(),
        cell.traffic(),
        format!("{:.0}", measured.busy_percent),
        format!("{injection:.2}"),
        measured.probe_ms.map_or_else(|| format_figure(None), |probe_ms| format!("{probe_ms:.2}")),
        format!("{:.1}", measured.pause_ms),
        measured.repeats.to_string(),
        count(load.map(|load| load.sent)),
        count(load.map(|load| load.failed_get)),
        count(load.map(|load| load.failed_post)),
        measured.stray_verdicts.to_string(),
        format!("{:.2}", measured.clock_drift_ms),
    ])
}

fn format_figure(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.1}"))
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    sorted
}
