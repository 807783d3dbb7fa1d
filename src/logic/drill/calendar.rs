//! When practice drills are due. Times are in UTC and computed from the clock alone, so a restart
//! changes nothing. Missed practice is skipped.

use std::fmt;

use super::plan::DrillPlan;

const DAY_S: u64 = 24 * 3600;
const WEEK_S: u64 = 7 * DAY_S;
const DAY_MINUTES: u32 = 24 * 60;

/// 1 January 1970 was a Thursday; weeks begin on Monday.
const EPOCH_WEEKDAY: u64 = 3;

const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

/// Limit of the search for the next start.
const HORIZON_S: u64 = 5 * WEEK_S;

/// Drills that start on a schedule.
#[derive(Clone, Debug, PartialEq)]
pub struct PracticeSchedule {
    /// One plan for each zone, used in turn.
    pub plans: Vec<DrillPlan>,
    pub calendar: PracticeCalendar,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PracticeCalendar {
    pub recurrence: Recurrence,
    /// If not empty, a drill must begin and end inside one of these.
    pub allowed: Vec<WeeklyWindow>,
    /// A drill must neither begin nor end inside one of these.
    pub blocked: Vec<WeeklyWindow>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recurrence {
    /// Once in each period, as early as allowed. Periods are counted from 1970.
    Every {
        /// Length of a period in seconds.
        seconds: u64,
    },
    /// At these times of each week.
    Weekly(Vec<WeeklyTime>),
}

/// Days of the week as bits, Monday first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Weekdays(u8);

/// A minute on some days of each week, such as `Wed 10:30`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WeeklyTime {
    days: Weekdays,
    minute: u32,
}

/// A window on some days of each week, such as `Mon-Fri 09:00-17:00`. A window whose end is before
/// its start ends on the next day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WeeklyWindow {
    days: Weekdays,
    from: u32,
    to: u32,
}

impl PracticeSchedule {
    /// The plan whose turn it is at that time. It depends on the time alone, not on earlier drills.
    pub fn plan_at(&self, at_s: u64) -> Option<&DrillPlan> {
        let turn = match &self.calendar.recurrence {
            Recurrence::Every { seconds } => at_s / seconds.max(&1),
            Recurrence::Weekly(_) => at_s / DAY_S,
        };
        self.plans.get(turn as usize % self.plans.len().max(1))
    }
}

impl Weekdays {
    const ALL: Self = Self(0x7f);

    /// Parses `Mon`, `Mon-Fri`, `Sat,Sun`.
    fn parse(text: &str) -> Option<Self> {
        let day = |name: &str| DAYS.iter().position(|day| day.eq_ignore_ascii_case(name.trim()));
        let mut days = 0;
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (day(first)?, day(last)?);
            let count = (last + 7 - first) % 7;
            (0..=count).for_each(|n| days |= 1 << ((first + n) % 7));
        }
        Some(Self(days))
    }

    fn has(self, day: u64) -> bool {
        self.0 & (1 << (day % 7)) != 0
    }
}

/// Parses `09:30`; `24:00` is the end of a day.
fn minute(text: &str) -> Option<u32> {
    let (hours, minutes) = text.trim().split_once(':')?;
    let (hours, minutes): (u32, u32) = (hours.parse().ok()?, minutes.parse().ok()?);
    let minute = hours * 60 + minutes;
    (minutes < 60 && minute <= DAY_MINUTES).then_some(minute)
}

fn split_days(text: &str) -> Option<(Weekdays, &str)> {
    match text.trim().rsplit_once(' ') {
        None => Some((Weekdays::ALL, text.trim())),
        Some((days, times)) => Some((Weekdays::parse(days)?, times)),
    }
}

/// The day of the week and the minute of the day.
fn weekday_and_minute(at_s: u64) -> (u64, u32) {
    ((at_s / DAY_S + EPOCH_WEEKDAY) % 7, (at_s % DAY_S / 60) as u32)
}

impl WeeklyTime {
    /// Parses `Wed 10:30`, or `10:30` for every day.
    pub fn parse(text: &str) -> Option<Self> {
        let (days, time) = split_days(text)?;
        Some(Self { days, minute: minute(time).filter(|minute| *minute < DAY_MINUTES)? })
    }

    fn is_at(self, at_s: u64) -> bool {
        let (day, minute) = weekday_and_minute(at_s);
        self.days.has(day) && self.minute == minute
    }
}

impl WeeklyWindow {
    /// Parses `Mon-Fri 09:00-17:00`, or `09:00-17:00` for every day.
    pub fn parse(text: &str) -> Option<Self> {
        let (days, times) = split_days(text)?;
        let (from, to) = times.split_once('-')?;
        let (from, to) = (minute(from)?, minute(to)?);
        (from != to && from < DAY_MINUTES).then_some(Self { days, from, to })
    }

    fn contains(self, at_s: u64) -> bool {
        let (day, minute) = weekday_and_minute(at_s);
        if self.from < self.to {
            return self.days.has(day) && (self.from..self.to).contains(&minute);
        }
        self.days.has(day) && minute >= self.from || self.days.has(day + 6) && minute < self.to
    }
}

impl fmt::Display for WeeklyWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let days: Vec<&str> =
            (0..7).filter(|day| self.days.has(*day)).map(|day| DAYS[day as usize]).collect();
        let time = |minute: u32| format!("{:02}:{:02}", minute / 60, minute % 60);
        write!(f, "{} {}-{}", days.join(","), time(self.from), time(self.to))
    }
}

impl PracticeCalendar {
    /// Whether a drill may begin at `from_s` and last `duration_s`.
    pub fn is_allowed_at(&self, from_s: u64, duration_s: u64) -> bool {
        let is_in =
            |windows: &[WeeklyWindow], at_s| windows.iter().any(|window| window.contains(at_s));
        let is_allowed = |at_s| self.allowed.is_empty() || is_in(&self.allowed, at_s);
        [from_s, from_s + duration_s]
            .into_iter()
            .all(|at| is_allowed(at) && !is_in(&self.blocked, at))
    }

    /// The next start after `after_s` of a drill that lasts `duration_s`, in seconds since 1970;
    /// `None` if there is none within `HORIZON_S`.
    pub fn next_start_s(&self, after_s: u64, duration_s: u64) -> Option<u64> {
        let minutes =
            |from_s: u64, to_s: u64| (from_s.div_ceil(60)..to_s.div_ceil(60)).map(|n| n * 60);
        match &self.recurrence {
            Recurrence::Weekly(times) => minutes(after_s + 1, after_s + HORIZON_S)
                .filter(|at| times.iter().any(|time| time.is_at(*at)))
                .find(|at| self.is_allowed_at(*at, duration_s)),
            Recurrence::Every { seconds } => {
                let last = (after_s + HORIZON_S.max(2 * seconds)) / seconds;
                (after_s / seconds..=last).find_map(|part| {
                    let (begin, end) = (part * seconds, (part + 1) * seconds);
                    let first = minutes(begin, end).find(|at| self.is_allowed_at(*at, duration_s));
                    first.filter(|at| *at > after_s)
                })
            }
        }
    }
}
