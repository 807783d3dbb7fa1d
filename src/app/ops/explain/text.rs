//! Explanations as plain text: a title line with the verdict, then short labelled sections.

mod endpoint;

pub(super) use endpoint::failure_and_source;

use std::fmt::Write;
use std::time::{Duration, Instant};

use crate::app::ops::api::WallClock;
use crate::app::ops::explain::NameLookup;
use crate::logic::director::{
    Eligibility, Explanation, HealthCounts, PoolStatus, RegionFacts, ZoneFacts, ZoneMemberStatus,
    ZoneStatus, ZoneVerdict,
};
use crate::logic::health::endpoint_health::Health;
use crate::logic::health::recovery::FULL_SHARE_PERMILLE;

/// Width of the column of labels.
const LABEL_WIDTH: usize = 10;

/// All explanations as of `now`, one after the other.
pub fn render(
    explanations: &[Explanation],
    names: &NameLookup<'_>,
    clock: &WallClock,
    now: Instant,
) -> String {
    let page = |explanation: &Explanation| {
        let mut page = ExplainPage { text: String::new(), now };
        match explanation {
            Explanation::Endpoint(facts) => endpoint::render(facts, names, clock, &mut page),
            Explanation::Zone(facts) => push_zone(facts, clock, &mut page),
            Explanation::Region(facts) => push_region(facts, &mut page),
        }
        page.text
    };
    let pages: Vec<String> = explanations.iter().map(page).collect();
    pages.join("\n")
}

/// The page that is being written.
struct ExplainPage {
    text: String,
    now: Instant,
}

impl ExplainPage {
    /// Writes the title line.
    fn push_title(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push_str("\n\n");
    }

    /// Writes lines under one label; nothing without lines.
    fn push_section(&mut self, label: &str, lines: impl IntoIterator<Item = String>) {
        for (index, line) in lines.into_iter().enumerate() {
            let label = if index == 0 { label } else { "" };
            let _ = writeln!(self.text, "  {label:LABEL_WIDTH$}{line}");
        }
    }

    fn elapsed_text(&self, at: Instant) -> String {
        duration_text(self.now.saturating_duration_since(at))
    }

    fn remaining_text(&self, at: Instant) -> String {
        duration_text(at.saturating_duration_since(self.now))
    }

    fn push_pool(&mut self, pool: &PoolStatus) {
        let mut first = format!(
            "{}: {} of {} serve, {} down of at most {}",
            pool.name, pool.serving, pool.endpoints, pool.evict.used, pool.evict.allowed
        );
        if pool.is_in_panic {
            first.push_str("; PANIC: traffic goes to all of it");
        }
        if pool.is_diverging {
            first.push_str("; DIVERGENCE: probes fail while traffic succeeds, and are ignored");
        }
        let achieved = pool.achieved_period.map_or_else(
            || "fewer than two probes so far".to_owned(),
            |period| format!("probes achieved every {}", duration_text(period)),
        );
        let stretch = match pool.stretch {
            stretch if stretch > 1.0 => format!(", stretched {stretch:.1} times by the budget"),
            _ => String::new(),
        };
        let withheld = match pool.withheld {
            0 => String::new(),
            count => format!("; {count} verdicts withheld since the start"),
        };
        self.push_section("pool", [first, format!("{achieved}{stretch}{withheld}")]);
    }
}

/// Rows with each column padded to its widest cell.
fn align_columns<const N: usize>(rows: &[[String; N]]) -> Vec<String> {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: [usize; N] = std::array::from_fn(|column| width(column).unwrap_or_default());
    let line = |row: &[String; N]| {
        let words = row.iter().zip(widths).map(|(word, width)| format!("{word:width$}"));
        words.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

/// A duration in at most two units.
pub(in crate::app) fn duration_text(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match duration.as_secs_f64() {
        short if short < 0.01 => format!("{:.1} ms", short * 1e3),
        short if short < 0.9995 => format!("{:.0} ms", short * 1e3),
        short if seconds < 60 => format!("{short:.1} s"),
        _ if seconds < 3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ if seconds < 86_400 => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

fn percent_text(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

fn thousandths_text(share: u32) -> String {
    percent_text(f64::from(share) / f64::from(FULL_SHARE_PERMILLE))
}

/// `3 up, 1 down of 4`
fn state_counts_text(counts: &HealthCounts) -> String {
    let all = [
        (counts.up, "up"),
        (counts.suspect, "suspect"),
        (counts.down, "down"),
        (counts.returning, "returning"),
        (counts.unknown, "unknown"),
    ];
    let words = all.iter().filter(|(count, _)| *count > 0);
    let words: Vec<String> = words.map(|(count, word)| format!("{count} {word}")).collect();
    format!("{} of {}", words.join(", "), counts.all)
}

/// `DOWN for 12.3 s — connect refused, by correlation`, or `UP`
fn zone_verdict_text(zone: &ZoneStatus, page: &ExplainPage) -> String {
    match zone.verdict {
        ZoneVerdict::Up => "UP".to_owned(),
        ZoneVerdict::Down { failure, source, since, .. } => {
            format!("DOWN for {} — {failure}, by {}", page.elapsed_text(since), source.as_str())
        }
    }
}

/// What would change the verdict on a zone.
fn zone_outlook_lines(zone: &ZoneStatus, page: &ExplainPage) -> Vec<String> {
    let mut lines = Vec::new();
    match zone.verdict {
        ZoneVerdict::Up => lines.push(match zone.quorum {
            Some(quorum) => format!(
                "{} of {} failed to connect within {}; {} take the zone down",
                quorum.struck_endpoints,
                zone.counts.all,
                duration_text(quorum.window),
                quorum.needed
            ),
            None => "never goes down as a whole: `correlate` is off".to_owned(),
        }),
        ZoneVerdict::Down { held_until, .. } => {
            let held = if held_until > page.now {
                format!("held down for {} more; then it", page.remaining_text(held_until))
            } else {
                "it".to_owned()
            };
            lines.push(format!(
                "{held} returns with {} endpoints that pass: {} do",
                zone.ready_needed, zone.ready
            ));
        }
    }
    if zone.ramp < FULL_SHARE_PERMILLE {
        lines.push(format!("its share grows back: {} of it so far", thousandths_text(zone.ramp)));
    }
    if zone.evict.allowed < zone.counts.all {
        lines.push(format!("{} down of at most {}", zone.evict.used, zone.evict.allowed));
    }
    lines
}

fn push_zone(facts: &ZoneFacts, clock: &WallClock, page: &mut ExplainPage) {
    let zone = &facts.zone;
    let verdict = zone_verdict_text(zone, page);
    page.push_title(&format!(
        "zone {}, pool {}: {verdict}; {}",
        zone.place,
        zone.pool,
        state_counts_text(&zone.counts)
    ));
    page.push_section("traffic", [format!("{} of the pool's", percent_text(zone.share))]);
    if let ZoneVerdict::Down { since, .. } = zone.verdict {
        let flaps = zone.flaps;
        page.push_section(
            "since",
            [format!("{}; {flaps:.1} verdicts of late", clock.to_rfc3339(since))],
        );
    }
    page.push_section("verdict", zone_outlook_lines(zone, page));
    let rows: Vec<[String; 5]> = facts.endpoints.iter().map(|one| member_row(one, page)).collect();
    let mut lines = align_columns(&rows);
    if facts.omitted > 0 {
        lines.push(format!("and {} more", facts.omitted));
    }
    page.push_section("endpoints", lines);
    page.push_pool(&facts.pool);
}

fn member_row(member: &ZoneMemberStatus, page: &ExplainPage) -> [String; 5] {
    let failure = match member.health {
        Health::Suspect { failure, .. }
        | Health::Down { failure }
        | Health::Returning { failure, .. } => Some(failure),
        Health::Unknown { .. } | Health::Up => None,
    };
    let mut why = failure.map(|failure| failure.to_string()).unwrap_or_default();
    if let Some(cause) = member.cause {
        let _ = write!(why, ", by {}", cause.source.as_str());
    } else if member.eligibility == Eligibility::Drained {
        why.push_str("drained by an operator");
    } else if member.eligibility == Eligibility::LastResort {
        why.push_str("unproven since its zone went down");
    }
    [
        member.address.to_string(),
        member.health.as_str().to_owned(),
        format!("for {}", page.elapsed_text(member.since)),
        percent_text(member.share),
        why,
    ]
}

fn push_region(facts: &RegionFacts, page: &mut ExplainPage) {
    let all = facts.zones.len();
    let word = if facts.down as usize == all { "DOWN" } else { "UP" };
    page.push_title(&format!(
        "region {}, pool {}: {word}; {} of {all} zones down",
        facts.region, facts.pool.name, facts.down
    ));
    let share: f64 = facts.zones.iter().map(|zone| zone.share).sum();
    page.push_section("traffic", [format!("{} of the pool's", percent_text(share))]);
    let verdict = match facts.needed {
        Some(needed) => format!("goes down as a whole with {needed} of its zones"),
        None => "never goes down as a whole: `correlate` is off".to_owned(),
    };
    page.push_section("verdict", [verdict]);
    let row = |zone: &ZoneStatus| {
        let name = zone.place.zone.to_string();
        [
            name,
            percent_text(zone.share),
            state_counts_text(&zone.counts),
            zone_verdict_text(zone, page),
        ]
    };
    let lines = align_columns(&facts.zones.iter().map(row).collect::<Vec<_>>());
    page.push_section("zones", lines);
    page.push_pool(&facts.pool);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duration_text_has_at_most_two_units() {
        let text = |ms| duration_text(Duration::from_millis(ms));
        assert_eq!(
            [text(0), text(9), text(10), text(999)],
            ["0.0 ms", "9.0 ms", "10 ms", "999 ms"]
        );
        assert_eq!([text(1_000), text(12_340), text(59_940)], ["1.0 s", "12.3 s", "59.9 s"]);
        assert_eq!([text(60_000), text(250_000)], ["1 min 0 s", "4 min 10 s"]);
        assert_eq!([text(3_600_000), text(90_000_000)], ["1 h 0 min", "1 d 1 h"]);
    }
}
