//! Checks of what is kept of the past.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::check::{Check, Key};
use crate::config::file::{Ledger, Scalar, Table};
use crate::config::findings::Flaw;
use crate::config::model::LedgerBounds;
use crate::config::units;

const KEEP: RangeInclusive<Duration> =
    Duration::from_hours(1)..=Duration::from_hours(10 * 365 * 24);

/// All of them are held in memory too: about a kilobyte each.
const MAX: RangeInclusive<usize> = 1..=1_000_000;

impl Check<'_> {
    pub(super) fn ledger(&mut self, given: Option<Table<Ledger>>) -> LedgerBounds {
        let Table { value: given, span: table } = given.unwrap_or_default();
        let default = LedgerBounds::default();
        let key = Key::new(&table, "keep", &given.keep);
        let keep = self.setting(&key, default.keep, |text| keep(&text.0)).value;
        let at_most = self.whole(&Key::new(&table, "max", &given.max), &MAX, default.at_most);
        LedgerBounds { keep, at_most }
    }
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
