//! Checks of what is kept of the past, and of what is promised of the future.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::check::{Check, Key};
use crate::config::file::{Ledger, Located, Scalar, Slo, SloLatency, Table};
use crate::config::findings::Flaw;
use crate::config::model::LedgerBounds;
use crate::config::units;
use crate::logic::slo::{self, LatencyObjective};

const KEEP: RangeInclusive<Duration> =
    Duration::from_hours(1)..=Duration::from_hours(10 * 365 * 24);

/// All of them are held in memory too: about a kilobyte each.
const MAX: RangeInclusive<usize> = 1..=1_000_000;

/// What is shown of `under`, which has no default.
const UNDER: Duration = Duration::from_millis(300);

impl Check<'_> {
    pub(super) fn ledger(&mut self, given: Option<Table<Ledger>>) -> LedgerBounds {
        let Table { value: given, span: table } = given.unwrap_or_default();
        let default = LedgerBounds::default();
        let key = Key::new(&table, "keep", &given.keep);
        let keep = self.setting(&key, default.keep, |text| keep(&text.0)).value;
        let at_most = self.whole(&Key::new(&table, "max", &given.max), &MAX, default.at_most);
        LedgerBounds { keep, at_most }
    }

    pub(super) fn slo(&mut self, given: Option<Table<Slo>>) -> Option<slo::Slo> {
        let Table { value: given, span: table } = given?;
        if given.availability.is_none()
            && given.latency.is_none()
            && !["availability", "latency"].iter().any(|key| self.gaps.has(&table, key))
        {
            let mend = "add `availability = \"99.9%\"`, `latency = { … }` or both";
            self.findings.error(&table, Flaw::new("an objective without a promise", mend));
        }
        let availability = given.availability.and_then(|given| self.objective(&given));
        let latency = given.latency.and_then(|latency| self.latency(latency));
        Some(slo::Slo { availability, latency })
    }

    fn latency(&mut self, given: Table<SloLatency>) -> Option<LatencyObjective> {
        let Table { value: given, span: table } = given;
        for (key, is_missing) in
            [("share", given.share.is_none()), ("under", given.under.is_none())]
        {
            if is_missing {
                let mend = "write it as `{ share = \"99%\", under = \"300ms\" }`";
                let message = format!("a promise of latency needs `{key}`");
                self.missing(&table, key, Flaw::new(message, mend));
            }
        }
        let share = given.share.and_then(|given| self.objective(&given));
        let under = self.duration(&Key::new(&table, "under", &given.under), UNDER).value;
        Some(LatencyObjective { share: share?, under })
    }

    fn objective(&mut self, given: &Located<String>) -> Option<f64> {
        match objective(&given.value) {
            Ok(share) => Some(share),
            Err(flaw) => {
                self.findings.error(&given.span, flaw);
                None
            }
        }
    }
}

/// Reads `99.95%`.
fn objective(text: &str) -> Result<f64, Flaw> {
    let such_as = "write a share such as \"99.9%\"";
    let Some(number) = text.trim().strip_suffix('%') else {
        let is_number = text.trim().parse::<f64>().is_ok();
        let mend =
            if is_number { format!("write it as \"{}%\"", text.trim()) } else { such_as.into() };
        return Err(Flaw::new(format!("`{text}` is not a share"), mend));
    };
    let percent: f64 = number
        .trim()
        .parse()
        .map_err(|_| Flaw::new(format!("`{text}` is not a share"), such_as))?;
    if percent == 100.0 {
        let message = "an objective of 100% leaves no budget: the first failure breaks it";
        return Err(Flaw::new(message, "write one that can be kept, such as \"99.99%\""));
    }
    if (50.0..100.0).contains(&percent) {
        return Ok(percent / 100.0);
    }
    Err(Flaw::new("an objective must be from 50% to below 100%", such_as))
}

fn keep(given: &Scalar) -> Result<Duration, Flaw> {
    let shown = match given {
        Scalar::Whole(number) => {
            let mend = format!("write it as \"{}d\"", number.unsigned_abs());
            return Err(Flaw::new("a length of time needs its unit", mend));
        }
        Scalar::Text(text) => text.trim(),
    };
    let mend = "write it as \"90d\" or \"36h\"";
    let Some(keep) = units::age(shown) else {
        return Err(Flaw::new(format!("`{shown}` is not a length of time"), mend));
    };
    if KEEP.contains(&keep) {
        return Ok(keep);
    }
    Err(Flaw::new("`keep` must be from 1h to 3650d", mend))
}
