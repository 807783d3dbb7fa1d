//! The report, as a table and as JSON.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;

use crate::evaluation::{SoakFindings, SoakRow};
use crate::table;

#[derive(Debug)]
pub(crate) struct SoakReport {
    /// The seed of the run.
    pub(crate) seed: u64,
    /// The number of POSTs to send.
    pub(crate) count: u64,
    /// The duration of the run.
    pub(crate) duration: Duration,
    /// The findings of the run.
    pub(crate) findings: SoakFindings,
}

const HEADINGS: [&str; 8] =
    ["client", "promise", "sent", "2xx", "executed", "executed, error", "twice", "lost"];

impl SoakReport {
    /// Whether all rules hold.
    pub(crate) fn is_good(&self) -> bool {
        self.findings.breaches(self.count).is_empty()
    }

    /// The report as one JSON object.
    pub(crate) fn as_json(&self) -> serde_json::Value {
        json!({
            "seed": self.seed,
            "count": self.count,
            "seconds": self.duration.as_secs_f64(),
            "findings": self.findings,
            "breaches": self.findings.breaches(self.count),
        })
    }

    pub(crate) fn as_text(&self) -> String {
        let SoakFindings { rows, failures, fault_counts, .. } = &self.findings;
        let cells = |names: [&str; 2], row: &dyn Fn(fn(&SoakRow) -> usize) -> usize| {
            let figures: [fn(&SoakRow) -> usize; 6] = [
                |row| row.sent,
                |row| row.good,
                |row| row.executed,
                |row| row.executed_with_error,
                |row| row.twice,
                |row| row.lost,
            ];
            let figures = figures.into_iter().map(|figure| row(figure).to_string());
            names.into_iter().map(str::to_owned).chain(figures).collect::<Vec<_>>()
        };
        let mut lines: Vec<Vec<String>> = rows
            .iter()
            .map(|row| cells([row.client.name(), row.promise.name()], &|figure| figure(row)))
            .collect();
        lines.push(cells(["all", ""], &|figure| self.findings.sum(figure)));
        let seconds = self.duration.as_secs_f64();
        let mut text = format!(
            "{}\n{:.0} s, {:.0} POSTs a second, seed {}\nerrors at clients: {}\nendpoints: {}\n{LEGEND}",
            table::render(&HEADINGS, &lines),
            seconds,
            self.findings.sum(|row| row.sent) as f64 / seconds,
            self.seed,
            format_counts(failures),
            format_counts(fault_counts),
        );
        for breach in self.findings.breaches(self.count) {
            text.push_str(&format!("BROKEN: {breach}\n"));
        }
        text
    }
}

const LEGEND: &str = "
executed: recorded by an endpoint that had read it whole, before it answered
executed, error: its client got an error and cannot know whether it was executed
twice: executed more than once, which only a trusted key permits
lost: its client got 2xx, and no endpoint executed it
";

fn format_counts(counts: &BTreeMap<impl std::fmt::Display, usize>) -> String {
    let entries = counts.iter().map(|(what, count)| format!("{count} {what}"));
    entries.collect::<Vec<_>>().join(", ")
}
