//! Checks of drills that are run by themselves.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::Pools;
use super::check::{Check, Key};
use crate::config::file::{self, DurationText, Located, Table};
use crate::config::findings::Flaw;
use crate::config::suggest;
use crate::logic::drill::{
    Allowance, Fault, LENGTHS, Matching, Moment, Plan, Practice, Rhythm, Share, Timetable, Window,
};
use crate::logic::id::Place;

/// The shortest rhythm.
const EVERY_LEAST: Duration = Duration::from_mins(1);

const LENGTH: Duration = Duration::from_secs(30);
const SHARE_PERCENT: u32 = 10;

impl Check<'_> {
    pub(super) fn practice(
        &mut self,
        given: Vec<Table<file::Practice>>,
        pools: &Pools,
    ) -> Vec<Practice> {
        given.into_iter().filter_map(|one| self.one_practice(one, pools)).collect()
    }

    fn one_practice(&mut self, given: Table<file::Practice>, pools: &Pools) -> Option<Practice> {
        let Table { value: given, span: table } = given;
        let key = Key::new(&table, "fault", &given.fault);
        let fault = self.setting(&key, Fault::Refused, |text| {
            Fault::parse(text).map_err(|message| Flaw::new(message, "write `fault = \"refused\"`"))
        });
        let share = Share::new(SHARE_PERCENT)?;
        let key = Key::new(&table, "share", &given.share);
        let share = self.setting(&key, share, |text| {
            Share::parse(text).ok_or_else(|| {
                Flaw::new(format!("`{text}` is no share"), "write it as \"1%\" to \"100%\"")
            })
        });
        let length = self.length(&table, &given.length);
        let key = Key::new(&table, "match", &given.matching);
        let matching = self.setting(&key, None, |text| {
            let flaw = || Flaw::new(format!("`{text}` is no header"), "write it as \"name=value\"");
            Matching::parse(text).map(Some).ok_or_else(flaw)
        });
        let key = Key::new(&table, "abort_budget", &given.abort_budget);
        let allowance = self.setting(&key, Allowance::default(), |text| {
            let flaw = || Flaw::new(format!("`{text}` is no budget"), "write \"1%\" or \"20\"");
            Allowance::parse(text).ok_or_else(flaw)
        });
        let pool = given.pool.as_ref().and_then(|pool| self.practised_pool(pool, pools));
        let plan = |lose: Place| Plan {
            lose,
            endpoint: None,
            pool: pool.clone(),
            fault: fault.value,
            share: share.value,
            length,
            matching: matching.value.clone(),
            allowance: allowance.value,
            by_hand: false,
        };
        let zones = self.practised_zones(&table, &given.zones.unwrap_or_default(), pools);
        let plans = zones.into_iter().map(plan).collect();
        let timetable = Timetable {
            rhythm: self.rhythm(&table, &given.every, given.at)?,
            allowed: self.windows(given.allowed.unwrap_or_default()),
            blocked: self.windows(given.blocked.unwrap_or_default()),
        };
        // From any Monday.
        if timetable.next(0, length.as_secs()).is_none() {
            let mend = "give `allowed` more room, or `blocked` less";
            let flaw = Flaw::new("this never comes: no time is open when it is due", mend);
            self.findings.warning(&table, flaw);
        }
        Some(Practice { plans, timetable })
    }

    fn length(&mut self, table: &Range<usize>, given: &Option<Located<DurationText>>) -> Duration {
        let length = self.duration(&Key::new(table, "for", given), LENGTH).value;
        if !LENGTHS.contains(&length)
            && let Some(given) = given
        {
            let flaw = Flaw::new("`for` must be from 1s to 1h", "write a duration such as \"30s\"");
            self.findings.error(&given.span, flaw);
        }
        length
    }

    fn practised_zones(
        &mut self,
        table: &Range<usize>,
        given: &[Located<String>],
        pools: &Pools,
    ) -> Vec<Place> {
        if given.is_empty() {
            let mend = "write `zones = [\"region/zone\"]`";
            self.missing(table, "zones", Flaw::new("practice needs zones to lose", mend));
        }
        let known: Vec<String> = pools.places().map(Place::to_string).collect();
        let mut places = Vec::new();
        for one in given {
            let Some(place) = self.place(one) else { continue };
            if !known.is_empty() && !pools.places().any(|other| *other == place) {
                let near = suggest::nearest(&one.value, known.iter().map(String::as_str));
                let mend = near.map_or_else(
                    || "name a zone that a pool has".to_owned(),
                    |near| format!("did you mean `{near}`?"),
                );
                self.findings
                    .error(&one.span, Flaw::new(format!("no pool has the zone {place}"), mend));
            }
            places.push(place);
        }
        places
    }

    fn practised_pool(&mut self, given: &Located<String>, pools: &Pools) -> Option<Arc<str>> {
        if pools.has(&given.value) {
            return Some(given.value.as_str().into());
        }
        let mend = suggest::nearest(&given.value, pools.names()).map_or_else(
            || "name a pool of this file, or leave `pool` away".to_owned(),
            |near| format!("did you mean `{near}`?"),
        );
        let flaw = Flaw::new(format!("there is no pool `{}`", given.value), mend);
        self.findings.error(&given.span, flaw);
        None
    }

    fn rhythm(
        &mut self,
        table: &Range<usize>,
        every: &Option<Located<DurationText>>,
        at: Option<Vec<Located<String>>>,
    ) -> Option<Rhythm> {
        let mend = "write `every = \"24h\"`, or `at = [\"Wed 10:30\"]`";
        match (every, at) {
            (Some(given), None) => {
                let every = self.duration(&Key::new(table, "every", every), LENGTH).value;
                if every < EVERY_LEAST {
                    let flaw = Flaw::new("`every` must be from 1m to 7 days", mend);
                    self.findings.error(&given.span, flaw);
                    return None;
                }
                Some(Rhythm::Every { seconds: every.as_secs() })
            }
            (None, Some(at)) => {
                let moments = at.iter().map(|one| {
                    let moment = Moment::parse(&one.value);
                    if moment.is_none() {
                        let message = format!("`{}` is no moment of the week", one.value);
                        let flaw =
                            Flaw::new(message, "write it as \"Wed 10:30\" or \"Mon-Fri 10:30\"");
                        self.findings.error(&one.span, flaw);
                    }
                    moment
                });
                // All are looked at; without one of them the rest says nothing of when it is due.
                let moments: Vec<_> = moments.collect();
                moments.into_iter().collect::<Option<_>>().map(Rhythm::At)
            }
            (Some(given), Some(_)) => {
                let flaw = Flaw::new("practice is due by `every` or by `at`, not by both", mend);
                self.findings.error(&given.span, flaw);
                None
            }
            (None, None) => {
                if !self.gaps.has(table, "every") {
                    self.missing(table, "at", Flaw::new("nothing says when practice is due", mend));
                }
                None
            }
        }
    }

    fn windows(&mut self, given: Vec<Located<String>>) -> Vec<Window> {
        let mut windows = Vec::new();
        for one in given {
            match Window::parse(&one.value) {
                Some(window) => windows.push(window),
                None => {
                    let message = format!("`{}` is no part of a week", one.value);
                    let mend = "write it as \"Mon-Fri 09:00-17:00\"";
                    self.findings.error(&one.span, Flaw::new(message, mend));
                }
            }
        }
        windows
    }
}
