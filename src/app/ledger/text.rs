//! Incidents for people: a table with one line for each, and the story of one.

use std::fmt::Write;
use std::time::Duration;

use crate::app::api::time_text;
use crate::app::explain::text::span;

use super::book::Told;
use super::entry::{Entry, Scope};
use super::record::{Predicted, Record};

/// Room between two columns.
const GAP: &str = "  ";

const HEAD: [&str; 10] = [
    "ID",
    "ONSET (UTC)",
    "WHERE",
    "REASON",
    "DETECTED",
    "PREDICTED P99/WORST",
    "GAP",
    "FAILED",
    "RESCUED/LATE",
    "RESTORED",
];

/// Columns that hold numbers stand to the right.
const TO_THE_RIGHT: [usize; 6] = [0, 4, 5, 6, 7, 8];

/// A table, the newest first; endpoints that failed together are one line.
#[must_use]
pub fn table(told: &Told) -> String {
    let outermost = told.outermost();
    if outermost.is_empty() {
        return "no incidents\n".to_owned();
    }
    let rows: Vec<[String; 10]> = outermost.iter().map(|entry| row(entry)).collect();
    let width = |column: usize| {
        let widest = rows.iter().map(|row| row[column].chars().count()).max();
        widest.unwrap_or(0).max(HEAD[column].len())
    };
    let widths: Vec<usize> = (0..HEAD.len()).map(width).collect();
    let mut out = String::new();
    line(&mut out, &HEAD, &widths);
    for row in &rows {
        line(&mut out, &row.each_ref().map(String::as_str), &widths);
    }
    if outermost.iter().any(|entry| entry.left_prediction() == Some(true)) {
        out.push_str("! took longer than anything that was predicted\n");
    }
    out
}

fn line(out: &mut String, cells: &[&str; 10], widths: &[usize]) {
    let mut line = String::new();
    for (column, (cell, width)) in cells.iter().zip(widths).enumerate() {
        if column > 0 {
            line.push_str(GAP);
        }
        let _ = if TO_THE_RIGHT.contains(&column) {
            write!(line, "{cell:>width$}")
        } else {
            write!(line, "{cell:<width$}")
        };
    }
    out.push_str(line.trim_end());
    out.push('\n');
}

fn row(entry: &Entry) -> [String; 10] {
    let record = &entry.record;
    let mark = if entry.left_prediction() == Some(true) { "!" } else { "" };
    let predicted = entry.predicted();
    let p99 = predicted.and_then(|predicted| predicted.simulated).map(|seen| seen.p99_us);
    let worst = predicted.and_then(Predicted::worst_us);
    let shown = |us: Option<u64>| us.map_or_else(|| "-".to_owned(), time);
    let gap = record.last_failure_us.map_or_else(|| "none".to_owned(), |_| time(record.gap_us()));
    [
        record.id.to_string(),
        short(record.onset_us()),
        place(entry),
        record.reason.clone(),
        format!("{mark}{}", time(record.detection_us())),
        format!("{} / {}", shown(p99), shown(worst)),
        gap,
        record.failed.to_string(),
        format!("{}/{}", record.rescued, record.late),
        restored(record),
    ]
}

fn place(entry: &Entry) -> String {
    let record = &entry.record;
    match (entry.scope, &record.endpoint) {
        (Scope::Endpoint, Some(endpoint)) => format!("{} {endpoint}", record.pool),
        (scope, _) => {
            let count = entry.members.len();
            format!("{} {} {} ({count} endpoints)", record.pool, scope.as_str(), record.place)
        }
    }
}

fn restored(record: &Record) -> String {
    match (record.restoration_us(), record.ended) {
        (Some(after), _) => format!("after {}", time(after)),
        (None, Some(fate)) => fate.as_str().to_owned(),
        (None, None) => "still down".to_owned(),
    }
}

/// The same inside of a sentence.
fn outcome(record: &Record) -> String {
    let how = restored(record);
    if record.restored_us.is_some() { format!("restored {how}") } else { how }
}

/// The stories of all, each with its timeline; those of members are left out.
#[must_use]
pub fn stories(told: &Told) -> String {
    let outermost = told.outermost();
    if outermost.is_empty() {
        return "no such incident\n".to_owned();
    }
    let stories: Vec<String> = outermost.iter().map(|entry| story(entry, told)).collect();
    stories.join("\n")
}

fn story(entry: &Entry, told: &Told) -> String {
    let record = &entry.record;
    let mut out = format!("incident {}: {}, {}\n\n", record.id, place(entry), outcome(record));
    let mut say = |label: &str, text: &str| {
        let _ = writeln!(out, "  {label:<16}{text}");
    };
    say("reason", &format!("{} ({})", record.reason, record.class));
    say("verdict by", if record.by_traffic { "traffic" } else { "probes" });
    say("where", &format!("{} in pool {}", record.place, record.pool));
    let onset = record.onset_us();
    let mut at = |label: &str, us: Option<u64>, note: &str| {
        let Some(us) = us else { return };
        let offset = if us >= onset {
            format!("+{}", time(us - onset))
        } else {
            format!("-{}", time(onset - us))
        };
        let line = format!("  {label:<16}{}  {offset:>10}  {note}", time_text(us));
        let _ = writeln!(out, "{}", line.trim_end());
    };
    at("last good", Some(record.last_good_us), "the failure began after this");
    at("onset", Some(onset), "estimated: the middle");
    at("first evidence", Some(record.first_bad_us), "the exchange that failed first began");
    at("suspect", Some(record.suspect_us), "");
    at("verdict", Some(record.verdict_us), "");
    at("shift", record.shift_us, "traffic has moved");
    at("last failure", record.last_failure_us, "the last that a client saw");
    at("restored", record.restored_us, "");
    at("ramp full", record.ramp_full_us, "all of its share");
    if record.restored_us.is_none() {
        at("ended", record.ended_us, record.ended.map_or("", |fate| fate.as_str()));
    }
    measures(entry, &mut out);
    if !entry.members.is_empty() {
        let _ = writeln!(out, "\n  endpoints");
        let is_in = |one: &&Entry| entry.members.contains(&one.record.id);
        for member in told.endpoints.iter().filter(is_in) {
            let record = &member.record;
            let endpoint = record.endpoint.as_deref().unwrap_or_default();
            let (detected, back) = (time(record.detection_us()), outcome(record));
            let _ = writeln!(
                out,
                "    {:>6}  {endpoint}  {}, detected after {detected}, {back}",
                record.id, record.reason
            );
        }
    }
    out
}

fn measures(entry: &Entry, out: &mut String) {
    let record = &entry.record;
    let (detected, at_most) = (time(record.detection_us()), time(record.detection_at_most_us()));
    let _ = writeln!(out, "\n  {:<16}{detected}, at most {at_most}", "detection");
    if let Some(predicted) = entry.predicted() {
        let traffic = predicted.rate_rps.map_or_else(
            || "by probes alone".to_owned(),
            |rate| format!("with {rate} requests a second"),
        );
        let simulated = predicted.simulated.map_or_else(
            || "no simulation".to_owned(),
            |seen| {
                let (median, p99) = (time(seen.median_us), time(seen.p99_us));
                format!("median {median}, p99 {p99}, worst {}", time(seen.worst_us))
            },
        );
        let _ = writeln!(out, "  {:<16}{}: {simulated}, {traffic}", "predicted", predicted.fault);
        if let Some((best, worst)) = predicted.closed_form_us {
            let (best, worst) = (time(best), time(worst));
            let _ = writeln!(out, "  {:<16}{best} to {worst}, by probes alone", "closed form");
        }
        if entry.left_prediction() == Some(true) {
            let _ = writeln!(out, "  {:<16}longer than anything that was predicted", "!");
        }
    }
    let gap = record.last_failure_us.map(|_| time(record.gap_us()));
    let gap = gap.unwrap_or_else(|| "none: no client saw a failure".to_owned());
    let _ = writeln!(out, "  {:<16}{gap}", "failover gap");
    let mut failed = format!("{} failed", record.failed);
    if record.failed > 0 {
        let by: Vec<String> =
            record.failed_by.iter().map(|(sight, count)| format!("{count} {sight}")).collect();
        let repeatable = record.failed_repeatable;
        let _ = write!(failed, " ({}; {repeatable} could be sent again)", by.join(", "));
    }
    if let Some(share) = entry.budget_share {
        let _ = writeln!(out, "  {:<16}{:.1} % of thirty days'", "error budget", share * 100.0);
    }
    let (rescued, late) = (record.rescued, record.late);
    let _ = writeln!(out, "  {:<16}{failed}, {rescued} rescued, {late} of them late", "requests");
}

/// `2026-01-31 12:00:00`.
fn short(us: u64) -> String {
    let text = time_text(us);
    text.get(..19).map_or_else(String::new, |text| text.replace('T', " "))
}

fn time(us: u64) -> String {
    span(Duration::from_micros(us))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::ledger::record::{Fate, Quantiles};

    fn told() -> Told {
        let record = |id: u64, place: &str| Record {
            id,
            pool: "web".into(),
            place: place.into(),
            endpoint: Some(format!("10.0.0.{id}:80")),
            class: "refused".into(),
            reason: "connect refused".into(),
            last_good_us: 1_700_000_000_000_000,
            first_bad_us: 1_700_000_000_100_000,
            suspect_us: 1_700_000_000_101_000,
            verdict_us: 1_700_000_000_150_000,
            predicted_zone: Some(Predicted {
                fault: "refused".into(),
                closed_form_us: Some((1_000, 90_000)),
                simulated: Some(Quantiles { median_us: 10_000, p99_us: 80_000, worst_us: 85_000 }),
                ..Predicted::default()
            }),
            failed: 2,
            failed_by: [("reset".to_owned(), 2)].into(),
            last_failure_us: Some(1_700_000_000_140_000),
            ..Record::default()
        };
        let mut records = [record(1, "r/a"), record(2, "r/a"), record(3, "q/b")];
        records[2].end(Fate::Restored, Some(1_700_000_001_050_000));
        Told::of(records.iter(), Duration::from_secs(1))
    }

    #[test]
    fn the_table_has_one_line_for_what_failed_together() {
        let table = table(&told());
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 4, "{table}");
        assert!(lines[0].starts_with("ID  ONSET (UTC)"), "{table}");
        assert!(lines[1].contains("web zone r/a (2 endpoints)"), "{table}");
        assert!(lines[1].contains("!100 ms") && lines[1].contains("80 ms / 90 ms"), "{table}");
        assert!(lines[1].ends_with("still down"), "{table}");
        assert!(lines[2].contains("2023-11-14 22:13:20") && lines[2].ends_with("after 1.0 s"));
        assert!(lines[3].starts_with('!'), "{table}");
        let column = lines[0].find("REASON").expect("a column");
        assert!(lines[1..3].iter().all(|line| line[column..].starts_with("connect refused")));
    }

    #[test]
    fn the_story_of_one_is_in_its_order() {
        let mut told = told();
        told.endpoints.retain(|one| one.record.id != 3);
        let story = stories(&told);
        let labels =
            ["last good", "onset", "first evidence", "suspect", "verdict  ", "last failure", "gap"];
        let places: Vec<usize> = labels
            .iter()
            .map(|label| story.find(label).unwrap_or_else(|| panic!("{label} in\n{story}")))
            .collect();
        assert!(places.is_sorted(), "{story}");
        assert!(story.contains("longer than anything"), "{story}");
        assert!(story.contains("4 failed (4 reset; 0 could be sent again)"), "{story}");
        assert!(story.contains("10.0.0.2:80"), "{story}");
        assert_eq!(stories(&Told::default()), "no such incident\n");
    }
}
