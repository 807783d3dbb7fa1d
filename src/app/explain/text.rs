//! Explanations for people: the first line says it all, short sections say the rest.

mod endpoint;

pub(super) use endpoint::reason;

use std::fmt::Write;
use std::time::{Duration, Instant};

use crate::app::api::Clock;
use crate::app::explain::Names;
use crate::logic::director::{
    Explanation, Member, PoolStatus, RegionFacts, Standing, StateCounts, ZoneFacts, ZoneStatus,
    ZoneVerdict,
};
use crate::logic::health::Health;
use crate::logic::recovery::FULL;

/// Width of the labels.
const LABEL: usize = 10;

/// All explanations, one after the other, as of `now`.
#[must_use]
pub fn render(
    explanations: &[Explanation],
    names: &Names<'_>,
    clock: &Clock,
    now: Instant,
) -> String {
    let page = |explanation: &Explanation| {
        let mut page = Page { text: String::new(), now };
        match explanation {
            Explanation::Endpoint(facts) => endpoint::render(facts, names, clock, &mut page),
            Explanation::Zone(facts) => zone(facts, clock, &mut page),
            Explanation::Region(facts) => region(facts, &mut page),
        }
        page.text
    };
    let pages: Vec<String> = explanations.iter().map(page).collect();
    pages.join("\n")
}

/// A text in the making.
struct Page {
    text: String,
    now: Instant,
}

impl Page {
    /// The line that says it all.
    fn title(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push_str("\n\n");
    }

    /// Lines under one label; nothing if there is none.
    fn section(&mut self, label: &str, lines: impl IntoIterator<Item = String>) {
        for (index, line) in lines.into_iter().enumerate() {
            let label = if index == 0 { label } else { "" };
            let _ = writeln!(self.text, "  {label:LABEL$}{line}");
        }
    }

    fn since(&self, at: Instant) -> String {
        span(self.now.saturating_duration_since(at))
    }

    fn until(&self, at: Instant) -> String {
        span(at.saturating_duration_since(self.now))
    }

    fn pool(&mut self, pool: &PoolStatus) {
        let mut first = format!(
            "{}: {} of {} serve, {} down of at most {}",
            pool.name, pool.serving, pool.endpoints, pool.evict.used, pool.evict.allowed
        );
        if pool.panic {
            first.push_str("; PANIC: traffic goes to all of it");
        }
        if pool.diverges {
            first.push_str("; DIVERGENCE: probes fail while traffic succeeds, and are not obeyed");
        }
        let achieved = pool.achieved_period.map_or_else(
            || "no two probes yet".to_owned(),
            |period| format!("probes every {} as it is", span(period)),
        );
        let stretch = match pool.stretch {
            stretch if stretch > 1.0 => format!(", {stretch:.1} times stretched by the budget"),
            _ => String::new(),
        };
        let withheld = match pool.withheld {
            0 => String::new(),
            count => format!("; {count} verdicts withheld since the start"),
        };
        self.section("pool", [first, format!("{achieved}{stretch}{withheld}")]);
    }
}

/// Rows with each column as wide as its widest word.
fn columns<const N: usize>(rows: &[[String; N]]) -> Vec<String> {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: [usize; N] = std::array::from_fn(|column| width(column).unwrap_or_default());
    let line = |row: &[String; N]| {
        let words = row.iter().zip(widths).map(|(word, width)| format!("{word:width$}"));
        words.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

/// A length of time in two units at most.
pub(in crate::app) fn span(duration: Duration) -> String {
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

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

fn thousandths(share: u32) -> String {
    percent(f64::from(share) / f64::from(FULL))
}

/// `3 up, 1 down of 4`
fn counted(counts: &StateCounts) -> String {
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
fn zone_verdict(zone: &ZoneStatus, page: &Page) -> String {
    match zone.verdict {
        ZoneVerdict::Up => "UP".to_owned(),
        ZoneVerdict::Down { failure, source, since, .. } => {
            format!("DOWN for {} — {failure}, by {}", page.since(since), source.as_str())
        }
    }
}

/// What would change the verdict on a zone.
fn zone_outlook(zone: &ZoneStatus, page: &Page) -> Vec<String> {
    let mut lines = Vec::new();
    match zone.verdict {
        ZoneVerdict::Up => lines.push(match zone.quorum {
            Some(quorum) => format!(
                "{} of {} failed to connect within {}; {} take the zone down",
                quorum.struck,
                zone.counts.all,
                span(quorum.window),
                quorum.needed
            ),
            None => "never goes down as a whole: `correlate` is off".to_owned(),
        }),
        ZoneVerdict::Down { held_until, .. } => {
            let held = if held_until > page.now {
                format!("held down for {} more; then it", page.until(held_until))
            } else {
                "it".to_owned()
            };
            lines.push(format!(
                "{held} returns with {} endpoints that pass: {} do",
                zone.ready_needed, zone.ready
            ));
        }
    }
    if zone.ramp < FULL {
        lines.push(format!("its share grows back: {} of it so far", thousandths(zone.ramp)));
    }
    if zone.evict.allowed < zone.counts.all {
        lines.push(format!("{} down of at most {}", zone.evict.used, zone.evict.allowed));
    }
    lines
}

fn zone(facts: &ZoneFacts, clock: &Clock, page: &mut Page) {
    let zone = &facts.zone;
    let verdict = zone_verdict(zone, page);
    page.title(&format!(
        "zone {}, pool {}: {verdict}; {}",
        zone.place,
        zone.pool,
        counted(&zone.counts)
    ));
    page.section("traffic", [format!("{} of the pool's", percent(zone.share))]);
    if let ZoneVerdict::Down { since, .. } = zone.verdict {
        let flaps = zone.flaps;
        page.section("since", [format!("{}; {flaps:.1} verdicts of late", clock.text(since))]);
    }
    page.section("verdict", zone_outlook(zone, page));
    let rows: Vec<[String; 5]> = facts.endpoints.iter().map(|one| member(one, page)).collect();
    let mut lines = columns(&rows);
    if facts.more > 0 {
        lines.push(format!("and {} more", facts.more));
    }
    page.section("endpoints", lines);
    page.pool(&facts.pool);
}

fn member(member: &Member, page: &Page) -> [String; 5] {
    let failure = match member.health {
        Health::Suspect { failure, .. }
        | Health::Down { failure }
        | Health::Returning { failure, .. } => Some(failure),
        Health::Unknown { .. } | Health::Up => None,
    };
    let mut why = failure.map(|failure| failure.to_string()).unwrap_or_default();
    if let Some(cause) = member.cause {
        let _ = write!(why, ", by {}", cause.source.as_str());
    } else if member.standing == Standing::Drained {
        why.push_str("drained by an operator");
    } else if member.standing == Standing::Resort {
        why.push_str("unproven since its zone went down");
    }
    [
        member.address.to_string(),
        member.health.as_str().to_owned(),
        format!("for {}", page.since(member.since)),
        percent(member.share),
        why,
    ]
}

fn region(facts: &RegionFacts, page: &mut Page) {
    let all = facts.zones.len();
    let word = if facts.down as usize == all { "DOWN" } else { "UP" };
    page.title(&format!(
        "region {}, pool {}: {word}; {} of {all} zones down",
        facts.region, facts.pool.name, facts.down
    ));
    let share: f64 = facts.zones.iter().map(|zone| zone.share).sum();
    page.section("traffic", [format!("{} of the pool's", percent(share))]);
    let verdict = match facts.needed {
        Some(needed) => format!("goes down as a whole with {needed} of its zones"),
        None => "never goes down as a whole: `correlate` is off".to_owned(),
    };
    page.section("verdict", [verdict]);
    let row = |zone: &ZoneStatus| {
        let name = zone.place.zone.to_string();
        [name, percent(zone.share), counted(&zone.counts), zone_verdict(zone, page)]
    };
    let lines = columns(&facts.zones.iter().map(row).collect::<Vec<_>>());
    page.section("zones", lines);
    page.pool(&facts.pool);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_has_two_units_at_most() {
        let text = |ms| span(Duration::from_millis(ms));
        assert_eq!(
            [text(0), text(9), text(10), text(999)],
            ["0.0 ms", "9.0 ms", "10 ms", "999 ms"]
        );
        assert_eq!([text(1_000), text(12_340), text(59_940)], ["1.0 s", "12.3 s", "59.9 s"]);
        assert_eq!([text(60_000), text(250_000)], ["1 min 0 s", "4 min 10 s"]);
        assert_eq!([text(3_600_000), text(90_000_000)], ["1 h 0 min", "1 d 1 h"]);
    }
}
