//! Checks of scheduled drills.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::ValidatedPools;
use super::validator::{SettingKey, Validator};
use crate::config::diagnostics::Problem;
use crate::config::file::{self, DurationText, Located, LocatedTable};
use crate::config::suggest;
use crate::logic::drill::{
    DrillFault, DrillPlan, FailureBudget, HeaderMatch, LENGTH_RANGE, PracticeCalendar,
    PracticeSchedule, Recurrence, SharePercent, WeeklyTime, WeeklyWindow,
};
use crate::logic::model::id::Locality;

const MIN_PERIOD: Duration = Duration::from_mins(1);

const DEFAULT_LENGTH: Duration = Duration::from_secs(30);
const DEFAULT_SHARE_PERCENT: u32 = 10;

impl Validator<'_> {
    pub(super) fn scheduled_drills(
        &mut self,
        given: Vec<LocatedTable<file::Practice>>,
        pools: &ValidatedPools,
    ) -> Vec<PracticeSchedule> {
        given.into_iter().filter_map(|one| self.scheduled_drill(one, pools)).collect()
    }

    fn scheduled_drill(
        &mut self,
        given: LocatedTable<file::Practice>,
        pools: &ValidatedPools,
    ) -> Option<PracticeSchedule> {
        let LocatedTable { value: given, span: table } = given;
        let key = SettingKey::new(&table, "fault", &given.fault);
        let fault = self.setting(&key, DrillFault::Refused, |text| {
            DrillFault::parse(text)
                .map_err(|message| Problem::new(message, "write `fault = \"refused\"`"))
        });
        let share = SharePercent::new(DEFAULT_SHARE_PERCENT)?;
        let key = SettingKey::new(&table, "share", &given.share);
        let share = self.setting(&key, share, |text| {
            SharePercent::parse(text).ok_or_else(|| {
                Problem::new(format!("`{text}` is not a share"), "write it as \"1%\" to \"100%\"")
            })
        });
        let length = self.drill_length(&table, &given.length);
        let key = SettingKey::new(&table, "match", &given.matching);
        let matching = self.setting(&key, None, |text| {
            let problem =
                || Problem::new(format!("`{text}` is not a header"), "write it as \"name=value\"");
            HeaderMatch::parse(text).map(Some).ok_or_else(problem)
        });
        let key = SettingKey::new(&table, "abort_budget", &given.abort_budget);
        let failure_budget = self.setting(&key, FailureBudget::default(), |text| {
            let problem =
                || Problem::new(format!("`{text}` is not a budget"), "write \"1%\" or \"20\"");
            FailureBudget::parse(text).ok_or_else(problem)
        });
        let pool = given.pool.as_ref().and_then(|pool| self.drill_pool(pool, pools));
        let plan = |zone: Locality| DrillPlan {
            zone,
            endpoint: None,
            pool: pool.clone(),
            fault: fault.value,
            share: share.value,
            length,
            header_match: matching.value.clone(),
            failure_budget: failure_budget.value,
            is_manual: false,
        };
        let zones = self.drill_zones(&table, &given.zones.unwrap_or_default(), pools);
        let plans = zones.into_iter().map(plan).collect();
        let calendar = PracticeCalendar {
            recurrence: self.schedule(&table, &given.every, given.at)?,
            allowed: self.windows(given.allowed.unwrap_or_default()),
            blocked: self.windows(given.blocked.unwrap_or_default()),
        };
        // The search starts at an arbitrary Monday.
        if calendar.next_start_s(0, length.as_secs()).is_none() {
            let help = "extend `allowed`, or shorten `blocked`";
            let problem = Problem::new("this drill never runs: it is due at no allowed time", help);
            self.diagnostics.warning(&table, problem);
        }
        Some(PracticeSchedule { plans, calendar })
    }

    fn drill_length(
        &mut self,
        table: &Range<usize>,
        given: &Option<Located<DurationText>>,
    ) -> Duration {
        let length = self.duration(&SettingKey::new(table, "for", given), DEFAULT_LENGTH).value;
        if !LENGTH_RANGE.contains(&length)
            && let Some(given) = given
        {
            let problem =
                Problem::new("`for` must be from 1s to 1h", "write a duration such as \"30s\"");
            self.diagnostics.error(&given.span, problem);
        }
        length
    }

    fn drill_zones(
        &mut self,
        table: &Range<usize>,
        given: &[Located<String>],
        pools: &ValidatedPools,
    ) -> Vec<Locality> {
        if given.is_empty() {
            let help = "write `zones = [\"region/zone\"]`";
            self.report_missing(table, "zones", Problem::new("practice needs zones", help));
        }
        let known: Vec<String> = pools.zone_names().map(Locality::to_string).collect();
        let mut places = Vec::new();
        for one in given {
            let Some(place) = self.zone_name(one) else { continue };
            if !known.is_empty() && !pools.zone_names().any(|other| *other == place) {
                let suggestion = suggest::nearest(&one.value, known.iter().map(String::as_str));
                let help = suggestion.map_or_else(
                    || "name a zone that a pool has".to_owned(),
                    |suggestion| format!("did you mean `{suggestion}`?"),
                );
                self.diagnostics
                    .error(&one.span, Problem::new(format!("no pool has the zone {place}"), help));
            }
            places.push(place);
        }
        places
    }

    fn drill_pool(&mut self, given: &Located<String>, pools: &ValidatedPools) -> Option<Arc<str>> {
        if pools.has_pool(&given.value) {
            return Some(given.value.as_str().into());
        }
        let help = suggest::nearest(&given.value, pools.names()).map_or_else(
            || "name a pool of this file, or remove `pool`".to_owned(),
            |suggestion| format!("did you mean `{suggestion}`?"),
        );
        let problem = Problem::new(format!("there is no pool `{}`", given.value), help);
        self.diagnostics.error(&given.span, problem);
        None
    }

    fn schedule(
        &mut self,
        table: &Range<usize>,
        every: &Option<Located<DurationText>>,
        at: Option<Vec<Located<String>>>,
    ) -> Option<Recurrence> {
        let help = "write `every = \"24h\"`, or `at = [\"Wed 10:30\"]`";
        match (every, at) {
            (Some(given), None) => {
                let every =
                    self.duration(&SettingKey::new(table, "every", every), DEFAULT_LENGTH).value;
                if every < MIN_PERIOD {
                    let problem = Problem::new("`every` must be from 1m to 7 days", help);
                    self.diagnostics.error(&given.span, problem);
                    return None;
                }
                Some(Recurrence::Every { seconds: every.as_secs() })
            }
            (None, Some(at)) => {
                let moments = at.iter().map(|one| {
                    let moment = WeeklyTime::parse(&one.value);
                    if moment.is_none() {
                        let message = format!("`{}` is not a time of the week", one.value);
                        let problem =
                            Problem::new(message, "write it as \"Wed 10:30\" or \"Mon-Fri 10:30\"");
                        self.diagnostics.error(&one.span, problem);
                    }
                    moment
                });
                // Every time is checked. One invalid time makes the whole schedule unknown.
                let moments: Vec<_> = moments.collect();
                moments.into_iter().collect::<Option<_>>().map(Recurrence::Weekly)
            }
            (Some(given), Some(_)) => {
                let problem =
                    Problem::new("practice is due by `every` or by `at`, not by both", help);
                self.diagnostics.error(&given.span, problem);
                None
            }
            (None, None) => {
                if !self.unread.has_key(table, "every") {
                    self.report_missing(
                        table,
                        "at",
                        Problem::new("practice has no time: neither `every` nor `at`", help),
                    );
                }
                None
            }
        }
    }

    fn windows(&mut self, given: Vec<Located<String>>) -> Vec<WeeklyWindow> {
        let mut windows = Vec::new();
        for one in given {
            match WeeklyWindow::parse(&one.value) {
                Some(window) => windows.push(window),
                None => {
                    let message = format!("`{}` is not a range of the week", one.value);
                    let help = "write it as \"Mon-Fri 09:00-17:00\"";
                    self.diagnostics.error(&one.span, Problem::new(message, help));
                }
            }
        }
        windows
    }
}
