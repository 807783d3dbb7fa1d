//! Checks of the ledger's retention, and of service level objectives.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::validator::{SettingKey, Validator};
use crate::config::diagnostics::Problem;
use crate::config::file::{Ledger, Located, LocatedTable, Scalar, Slo, SloLatency};
use crate::config::model::LedgerRetention;
use crate::config::units;
use crate::logic::incident::slo;
use crate::logic::incident::slo::LatencyObjective;

const RETENTION_RANGE: RangeInclusive<Duration> =
    Duration::from_hours(1)..=Duration::from_hours(10 * 365 * 24);

/// All incidents are held in memory too, at about a kilobyte each.
const MAX_INCIDENTS_RANGE: RangeInclusive<usize> = 1..=1_000_000;

/// The example for `under`, which has no default.
const DEFAULT_LATENCY: Duration = Duration::from_millis(300);

impl Validator<'_> {
    pub(super) fn ledger(&mut self, given: Option<LocatedTable<Ledger>>) -> LedgerRetention {
        let LocatedTable { value: given, span: table } = given.unwrap_or_default();
        let default = LedgerRetention::default();
        let key = SettingKey::new(&table, "keep", &given.keep);
        let keep = self.setting(&key, default.retention, |text| parse_retention(&text.0)).value;
        let at_most = self.integer(
            &SettingKey::new(&table, "max", &given.max),
            &MAX_INCIDENTS_RANGE,
            default.max_incidents,
        );
        LedgerRetention { retention: keep, max_incidents: at_most }
    }

    pub(super) fn slo(&mut self, given: Option<LocatedTable<Slo>>) -> Option<slo::SloObjectives> {
        let LocatedTable { value: given, span: table } = given?;
        if given.availability.is_none()
            && given.latency.is_none()
            && !["availability", "latency"].iter().any(|key| self.unread.has_key(&table, key))
        {
            let help = "add `availability = \"99.9%\"`, `latency = { … }` or both";
            self.diagnostics.error(
                &table,
                Problem::new("this objective has neither `availability` nor `latency`", help),
            );
        }
        let availability = given.availability.and_then(|given| self.objective(&given));
        let latency = given.latency.and_then(|latency| self.latency_objective(latency));
        Some(slo::SloObjectives { availability, latency })
    }

    fn latency_objective(&mut self, given: LocatedTable<SloLatency>) -> Option<LatencyObjective> {
        let LocatedTable { value: given, span: table } = given;
        for (key, is_missing) in
            [("share", given.share.is_none()), ("under", given.under.is_none())]
        {
            if is_missing {
                let help = "write it as `{ share = \"99%\", under = \"300ms\" }`";
                let message = format!("a latency objective needs `{key}`");
                self.report_missing(&table, key, Problem::new(message, help));
            }
        }
        let share = given.share.and_then(|given| self.objective(&given));
        let under =
            self.duration(&SettingKey::new(&table, "under", &given.under), DEFAULT_LATENCY).value;
        Some(LatencyObjective { target_ratio: share?, threshold: under })
    }

    fn objective(&mut self, given: &Located<String>) -> Option<f64> {
        match parse_objective(&given.value) {
            Ok(share) => Some(share),
            Err(problem) => {
                self.diagnostics.error(&given.span, problem);
                None
            }
        }
    }
}

/// Parses `99.95%`; returns a ratio.
fn parse_objective(text: &str) -> Result<f64, Problem> {
    let example = "write a share such as \"99.9%\"";
    let Some(number) = text.trim().strip_suffix('%') else {
        let is_number = text.trim().parse::<f64>().is_ok();
        let help =
            if is_number { format!("write it as \"{}%\"", text.trim()) } else { example.into() };
        return Err(Problem::new(format!("`{text}` is not a share"), help));
    };
    let percent: f64 = number
        .trim()
        .parse()
        .map_err(|_| Problem::new(format!("`{text}` is not a share"), example))?;
    if percent == 100.0 {
        let message = "an objective of 100% leaves no budget: the first failure breaks it";
        return Err(Problem::new(message, "write one that can be kept, such as \"99.99%\""));
    }
    if (50.0..100.0).contains(&percent) {
        return Ok(percent / 100.0);
    }
    Err(Problem::new("an objective must be from 50% to below 100%", example))
}

fn parse_retention(given: &Scalar) -> Result<Duration, Problem> {
    let shown = match given {
        Scalar::Integer(number) => {
            let help = format!("write it as \"{}d\"", number.unsigned_abs());
            return Err(Problem::new("a duration needs its unit", help));
        }
        Scalar::Text(text) => text.trim(),
    };
    let help = "write it as \"90d\" or \"36h\"";
    let Some(keep) = units::parse_age(shown) else {
        return Err(Problem::new(format!("`{shown}` is not a duration"), help));
    };
    if RETENTION_RANGE.contains(&keep) {
        return Ok(keep);
    }
    Err(Problem::new("`keep` must be from 1h to 3650d", help))
}
