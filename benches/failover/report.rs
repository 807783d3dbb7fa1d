//! The report, as tables and as JSON.

use serde_json::json;

use crate::cell_outcome::CellOutcome;
use crate::evaluation::FailoverFigures;
use crate::measurement::FailoverMeasurement;
use crate::peer::InstalledPeer;
use crate::peer_program::Peer;
use crate::scenario::{FailoverScenario, FailoverScope};
use crate::{evaluation, table};

/// The result of a run.
#[derive(Debug)]
pub(crate) struct FailoverReport {
    pub(crate) rate: u32,
    pub(crate) installed: Vec<InstalledPeer>,
    /// Selected systems that are not installed.
    pub(crate) missing: Vec<&'static str>,
    /// The cells, in the order of the run.
    pub(crate) cells: Vec<FailoverCell>,
}

/// A system under a failure.
#[derive(Debug)]
pub(crate) struct FailoverCell {
    pub(crate) scope: FailoverScope,
    pub(crate) scenario: &'static FailoverScenario,
    pub(crate) peer: Peer,
    /// The outcome of the measurement.
    pub(crate) outcome: CellOutcome<FailoverMeasurement>,
}

impl FailoverCell {
    fn measurement(&self) -> Option<&FailoverMeasurement> {
        match &self.outcome {
            CellOutcome::Measured(measured) => Some(measured),
            CellOutcome::Skipped(_) | CellOutcome::Broken(_) => None,
        }
    }

    /// The bounds that gapless exceeded.
    fn breaches(&self, rate: u32) -> Vec<String> {
        match self.measurement() {
            Some(measured) if self.peer == Peer::Gapless => {
                evaluation::breaches(&measured.figures, &self.scenario.bound, f64::from(rate))
            }
            _ => Vec::new(),
        }
    }

    fn name_columns(&self) -> Vec<String> {
        vec![self.scenario.name.to_owned(), self.peer.name().to_owned()]
    }
}

impl FailoverReport {
    /// Whether all cells that can be measured were measured, and gapless met all bounds.
    pub(crate) fn is_good(&self) -> bool {
        self.cells.iter().all(|cell| {
            cell.breaches(self.rate).is_empty() && !matches!(cell.outcome, CellOutcome::Broken(_))
        })
    }

    /// The report as one JSON object.
    pub(crate) fn as_json(&self) -> serde_json::Value {
        let cell = |cell: &FailoverCell| {
            json!({
                "scope": cell.scope,
                "class": cell.scenario.name,
                "peer": cell.peer,
                "outcome": cell.outcome,
                "breaches": cell.breaches(self.rate),
            })
        };
        json!({
            "rate_rps": self.rate,
            "systems": self.installed,
            "missing": self.missing,
            "cells": self.cells.iter().map(cell).collect::<Vec<_>>(),
        })
    }

    pub(crate) fn as_text(&self) -> String {
        let mut text = format!("{} requests a second, one in five a POST\n", self.rate);
        for scope in FailoverScope::ALL {
            let rows = |row: fn(&FailoverCell) -> Option<Vec<String>>| -> Vec<Vec<String>> {
                self.cells.iter().filter(|cell| cell.scope == scope).filter_map(row).collect()
            };
            let results = rows(|cell| Some(result_row(cell)));
            if results.is_empty() {
                continue;
            }
            text.push_str(&format!(
                "\n{}\n\n{}",
                scope.description(),
                table::render(&RESULT_HEADINGS, &results)
            ));
            let settings = table::render(&CONDITION_HEADINGS, &rows(condition_row));
            text.push_str(&format!("\nWhat that was measured with\n\n{settings}"));
        }
        text.push_str(LEGEND);
        for installed in &self.installed {
            text.push_str(&format!("\n{}: {}", installed.peer.name(), installed.version));
        }
        for name in &self.missing {
            text.push_str(&format!("\n{name}: not installed"));
        }
        text.push_str("\n\n");
        for cell in &self.cells {
            let cell_name =
                format!("{:?} {}, {}", cell.scope, cell.scenario.name, cell.peer.name());
            match &cell.outcome {
                CellOutcome::Measured(_) => {}
                CellOutcome::Skipped(why) => {
                    text.push_str(&format!("{cell_name}: not run, {why}\n"));
                }
                CellOutcome::Broken(why) => text.push_str(&format!("{cell_name}: BROKEN, {why}\n")),
            }
            for breach in cell.breaches(self.rate) {
                text.push_str(&format!("{cell_name}: TOO MUCH, {breach}\n"));
            }
        }
        text
    }
}

const LEGEND: &str = "
gap: from the first request that failed or was late (more than 150 ms) to the last, by when they were due
failing: the same of those that failed; ≥ if there were still some when the failure ended
max: the latest good answer; left: the last good answer of what had failed, from the onset
return: the first answer of what had failed, from the heal
twice: POSTs that endpoints read twice; later: POSTs read after the client had seen them fail
verdict: from the onset to that on the last endpoint, as gapless itself has it on file
";

const RESULT_HEADINGS: [&str; 13] = [
    "class",
    "system",
    "gap s",
    "failing s",
    "failed GET",
    "failed POST",
    "late",
    "max ms",
    "left s",
    "return s",
    "twice",
    "later",
    "verdict ms",
];

fn result_row(cell: &FailoverCell) -> Vec<String> {
    let mut row = cell.name_columns();
    if let Some(measured) = cell.measurement() {
        let figures = &measured.figures;
        let still_failing_mark = if figures.is_still_failing { "≥" } else { "" };
        row.extend([
            format!("{:.2}", figures.gap_s),
            format!("{still_failing_mark}{:.2}", figures.failing_s),
            figures.failed_get.to_string(),
            figures.failed_post.to_string(),
            figures.late.to_string(),
            format!("{:.0}", figures.max_good_ms),
            format_figure(figures.left_s, 2),
            format_figure(figures.return_s, 2),
            figures.executed_twice.to_string(),
            figures.executed_later.to_string(),
            format_figure(measured.verdict_ms, 1),
        ]);
    }
    row.resize(RESULT_HEADINGS.len(), "-".to_owned());
    row
}

const CONDITION_HEADINGS: [&str; 9] = [
    "class",
    "system",
    "busy %",
    "pause, worst ms",
    "sent late, worst ms",
    "injection ms",
    "sent",
    "repeats",
    "failures",
];

fn condition_row(cell: &FailoverCell) -> Option<Vec<String>> {
    let measured = cell.measurement()?;
    let mut row = cell.name_columns();
    row.extend([
        format!("{:.0}", measured.busy_percent),
        format!("{:.1}", measured.pause_ms),
        format!("{:.1}", measured.sent_late_ms),
        format!("{:.2}", measured.injection_ms),
        measured.sent.to_string(),
        measured.repeats.to_string(),
        format_failures(&measured.figures),
    ]);
    Some(row)
}

fn format_failures(figures: &FailoverFigures) -> String {
    let counts = figures.failures.iter().map(|(how, count)| format!("{count} {how}"));
    counts.collect::<Vec<_>>().join(", ")
}

fn format_figure(value: Option<f64>, decimals: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.decimals$}"))
}
