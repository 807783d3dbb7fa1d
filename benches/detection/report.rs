//! The tables, and the same as JSON.

use serde::Serialize;
use serde_json::json;

use crate::cell::Measured;
use crate::outcome::Outcome;
use crate::predicted::Predicted;
use crate::{judge, table};

/// A cell with all that is known of it.
#[derive(Debug, Serialize)]
pub(crate) struct Cell {
    /// The class's name.
    pub(crate) class: &'static str,
    /// `endpoint` or `zone`.
    pub(crate) scope: &'static str,
    /// Requests a second to each pool.
    pub(crate) traffic_rps: Option<f64>,
    /// What was to be expected.
    pub(crate) predicted: Predicted,
    /// What came of it.
    pub(crate) outcome: Outcome<Measured>,
}

/// What a cell comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Ok,
    NotPredicted,
    Skipped,
    Failed,
}

impl Standing {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::NotPredicted => "not predicted",
            Self::Skipped => "not run",
            Self::Failed => "FAILED",
        }
    }
}

impl Cell {
    fn standing(&self) -> Standing {
        match (&self.outcome, &self.predicted) {
            (Outcome::Skipped(_), _) => Standing::Skipped,
            (Outcome::Broken(_), _) => Standing::Failed,
            (Outcome::Measured(_), Predicted::Missing) => Standing::NotPredicted,
            (Outcome::Measured(measured), _) if judge::holds(&measured.took(), self.bound_ms()) => {
                Standing::Ok
            }
            (Outcome::Measured(_), _) => Standing::Failed,
        }
    }

    fn bound_ms(&self) -> Option<f64> {
        match self.predicted {
            Predicted::Seen { p99_ms, .. } => Some(p99_ms),
            Predicted::Unseen(_) | Predicted::Missing => None,
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

impl Measured {
    fn took(&self) -> Vec<Option<f64>> {
        self.runs.iter().map(|run| run.took_ms).collect()
    }
}

/// Whether every cell is good.
pub(crate) fn is_good(cells: &[Cell], allow_missing: bool) -> bool {
    cells.iter().all(|cell| match cell.standing() {
        Standing::Ok | Standing::Skipped => true,
        Standing::NotPredicted => allow_missing,
        Standing::Failed => false,
    })
}

/// As one JSON object.
pub(crate) fn as_json(cells: &[Cell]) -> serde_json::Value {
    let cell = |cell: &Cell| {
        let mut value = json!(cell);
        value["standing"] = json!(cell.standing().word());
        if let Outcome::Measured(measured) = &cell.outcome {
            value["inside"] = json!(judge::inside(&measured.took(), cell.bound_ms()));
        }
        value
    };
    json!({ "cells": cells.iter().map(cell).collect::<Vec<_>>() })
}

/// As tables.
pub(crate) fn as_text(cells: &[Cell]) -> String {
    let mut text = String::from("From failure to verdict, in ms\n\n");
    let rows: Vec<Vec<String>> = cells.iter().map(result_row).collect();
    text.push_str(&table::render(&RESULT, &rows));
    text.push_str(
        "\nWhat it was measured with. An injection may have come into force that much later; a pause \
         kept everything waiting, and a cell with a long one was repeated\n\n",
    );
    let rows: Vec<Vec<String>> = cells.iter().filter_map(setting_row).collect();
    text.push_str(&table::render(&SETTING, &rows));
    for cell in cells {
        let why = match &cell.outcome {
            Outcome::Measured(_) => continue,
            Outcome::Skipped(why) => why,
            Outcome::Broken(why) => why.as_str(),
        };
        text.push_str(&format!("\n{}, {} traffic: {why}\n", cell.name(), cell.traffic()));
    }
    text
}

const RESULT: [&str; 11] = [
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

fn result_row(cell: &Cell) -> Vec<String> {
    let (median, p99) = match &cell.predicted {
        Predicted::Seen { median_ms, p99_ms, .. } => {
            (figure(Some(*median_ms)), figure(Some(*p99_ms)))
        }
        Predicted::Unseen(_) => ("unseen".to_owned(), "unseen".to_owned()),
        Predicted::Missing => (figure(None), figure(None)),
    };
    let mut row = vec![cell.name(), cell.traffic()];
    if let Outcome::Measured(measured) = &cell.outcome {
        let took = measured.took();
        let seen = sorted(took.iter().copied().flatten());
        let back = sorted(measured.runs.iter().filter_map(|run| run.returned_ms));
        row.push(took.len().to_string());
        row.extend([0.5, 0.99, 1.0].map(|share| figure(judge::quantile(&seen, share))));
        row.extend([median, p99]);
        row.push(match cell.predicted {
            Predicted::Missing => figure(None),
            _ => judge::inside(&took, cell.bound_ms()).to_string(),
        });
        row.push(figure(judge::quantile(&back, 0.5)));
    } else {
        row.extend(std::iter::repeat_n(figure(None), 4));
        row.extend([median, p99, figure(None), figure(None)]);
    }
    row.push(cell.standing().word().to_owned());
    row
}

const SETTING: [&str; 12] = [
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

fn setting_row(cell: &Cell) -> Option<Vec<String>> {
    let Outcome::Measured(measured) = &cell.outcome else { return None };
    let injection = measured.runs.iter().map(|run| run.injection_ms).fold(0.0, f64::max);
    let load = measured.load.as_ref();
    let count =
        |count: Option<usize>| count.map_or_else(|| figure(None), |count| count.to_string());
    Some(vec![
        cell.name(),
        cell.traffic(),
        format!("{:.0}", measured.busy_percent),
        format!("{injection:.2}"),
        measured.probe_ms.map_or_else(|| figure(None), |probe_ms| format!("{probe_ms:.2}")),
        format!("{:.1}", measured.pause_ms),
        measured.repeats.to_string(),
        count(load.map(|load| load.sent)),
        count(load.map(|load| load.failed_get)),
        count(load.map(|load| load.failed_post)),
        measured.stray_verdicts.to_string(),
        format!("{:.2}", measured.clock_drift_ms),
    ])
}

fn figure(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.1}"))
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    sorted
}
