//! The tables, and the same as JSON.

use serde_json::json;

use crate::cell::Measured;
use crate::find::Peer;
use crate::judge::Figures;
use crate::outcome::Outcome;
use crate::peer::Installed;
use crate::scenario::{Scenario, Scope};
use crate::{judge, table};

/// Everything that a run found.
#[derive(Debug)]
pub(crate) struct Report {
    /// Requests a second.
    pub(crate) rate: u32,
    /// Who was measured.
    pub(crate) installed: Vec<Installed>,
    /// Who was to be, and is not there.
    pub(crate) missing: Vec<&'static str>,
    /// In the order in which they ran.
    pub(crate) cells: Vec<Cell>,
}

/// A system under a failure.
#[derive(Debug)]
pub(crate) struct Cell {
    /// How much failed.
    pub(crate) scope: Scope,
    /// What failed.
    pub(crate) scenario: &'static Scenario,
    /// The system.
    pub(crate) peer: Peer,
    /// What came of it.
    pub(crate) outcome: Outcome<Measured>,
}

impl Cell {
    fn measured(&self) -> Option<&Measured> {
        match &self.outcome {
            Outcome::Measured(measured) => Some(measured),
            Outcome::Skipped(_) | Outcome::Broken(_) => None,
        }
    }

    /// What gapless promises and did not keep.
    fn breaches(&self, rate: u32) -> Vec<String> {
        match self.measured() {
            Some(measured) if self.peer == Peer::Gapless => {
                judge::breaches(&measured.figures, &self.scenario.bound, f64::from(rate))
            }
            _ => Vec::new(),
        }
    }

    fn name(&self) -> Vec<String> {
        vec![self.scenario.name.to_owned(), self.peer.name().to_owned()]
    }
}

impl Report {
    /// Whether all cells were measured, but for those that cannot be, and gapless kept its promises.
    pub(crate) fn is_good(&self) -> bool {
        self.cells.iter().all(|cell| {
            cell.breaches(self.rate).is_empty() && !matches!(cell.outcome, Outcome::Broken(_))
        })
    }

    /// As one JSON object.
    pub(crate) fn as_json(&self) -> serde_json::Value {
        let cell = |cell: &Cell| {
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

    /// As tables.
    pub(crate) fn as_text(&self) -> String {
        let mut text = format!("{} requests a second, one in five a POST\n", self.rate);
        for scope in Scope::ALL {
            let rows = |row: fn(&Cell) -> Option<Vec<String>>| -> Vec<Vec<String>> {
                self.cells.iter().filter(|cell| cell.scope == scope).filter_map(row).collect()
            };
            let results = rows(|cell| Some(result_row(cell)));
            if results.is_empty() {
                continue;
            }
            text.push_str(&format!("\n{}\n\n{}", scope.about(), table::render(&RESULT, &results)));
            let settings = table::render(&SETTING, &rows(setting_row));
            text.push_str(&format!("\nWhat that was measured with\n\n{settings}"));
        }
        text.push_str(NOTES);
        for installed in &self.installed {
            text.push_str(&format!("\n{}: {}", installed.peer.name(), installed.version));
        }
        for name in &self.missing {
            text.push_str(&format!("\n{name}: not installed"));
        }
        text.push_str("\n\n");
        for cell in &self.cells {
            let of = format!("{:?} {}, {}", cell.scope, cell.scenario.name, cell.peer.name());
            match &cell.outcome {
                Outcome::Measured(_) => {}
                Outcome::Skipped(why) => text.push_str(&format!("{of}: not run, {why}\n")),
                Outcome::Broken(why) => text.push_str(&format!("{of}: BROKEN, {why}\n")),
            }
            for breach in cell.breaches(self.rate) {
                text.push_str(&format!("{of}: TOO MUCH, {breach}\n"));
            }
        }
        text
    }
}

const NOTES: &str = "
gap: from the first request that failed or was late (more than 150 ms) to the last, by when they were due
failing: the same of those that failed; ≥ if there were still some when the failure ended
max: the latest good answer; left: the last good answer of what had failed, from the onset
return: the first answer of what had failed, from the heal
twice: POSTs that endpoints read twice; later: POSTs read after the client had seen them fail
verdict: from the onset to that on the last endpoint, as gapless itself has it on file
";

const RESULT: [&str; 13] = [
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

fn result_row(cell: &Cell) -> Vec<String> {
    let mut row = cell.name();
    if let Some(measured) = cell.measured() {
        let figures = &measured.figures;
        let still = if figures.is_still_failing { "≥" } else { "" };
        row.extend([
            format!("{:.2}", figures.gap_s),
            format!("{still}{:.2}", figures.failing_s),
            figures.failed_get.to_string(),
            figures.failed_post.to_string(),
            figures.late.to_string(),
            format!("{:.0}", figures.max_good_ms),
            figure(figures.left_s, 2),
            figure(figures.return_s, 2),
            figures.executed_twice.to_string(),
            figures.executed_later.to_string(),
            figure(measured.verdict_ms, 1),
        ]);
    }
    row.resize(RESULT.len(), "-".to_owned());
    row
}

const SETTING: [&str; 9] = [
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

fn setting_row(cell: &Cell) -> Option<Vec<String>> {
    let measured = cell.measured()?;
    let mut row = cell.name();
    row.extend([
        format!("{:.0}", measured.busy_percent),
        format!("{:.1}", measured.pause_ms),
        format!("{:.1}", measured.sent_late_ms),
        format!("{:.2}", measured.injection_ms),
        measured.sent.to_string(),
        measured.repeats.to_string(),
        failures(&measured.figures),
    ]);
    Some(row)
}

fn failures(figures: &Figures) -> String {
    let each = figures.failures.iter().map(|(how, count)| format!("{count} {how}"));
    each.collect::<Vec<_>>().join(", ")
}

fn figure(value: Option<f64>, decimals: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.decimals$}"))
}
