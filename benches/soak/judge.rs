//! What clients know beside what endpoints wrote down, and whether that is as promised.

use std::collections::{BTreeMap, HashSet};

use serde::Serialize;

use crate::post::Promise;
use crate::posts::Executed;
use crate::sent::{Kind, Sent};

/// Who answers everybody with an error loses nothing in silence: at least so much must go well.
const GOOD_SHARE: f64 = 0.9;

/// What became of one kind of POSTs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Row {
    /// Who sent them.
    pub(crate) client: Kind,
    /// What was promised.
    pub(crate) promise: Promise,
    /// How many.
    pub(crate) sent: usize,
    /// Those whose client was told that they were done.
    pub(crate) good: usize,
    /// Those that endpoints have read.
    pub(crate) executed: usize,
    /// Those of them whose client was not told so, but got an error.
    pub(crate) executed_with_error: usize,
    /// Those that endpoints have read more than once.
    pub(crate) twice: usize,
    /// Those whose client was told that they were done, and nobody has read them.
    pub(crate) lost: usize,
}

/// All that was found.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Findings {
    /// By client and by promise.
    pub(crate) rows: Vec<Row>,
    /// How many ended in which way, those that went well left out.
    pub(crate) failures: BTreeMap<String, usize>,
    /// What endpoints have read and nobody sent.
    pub(crate) strangers: usize,
    /// How often endpoints failed in which way.
    pub(crate) havoc: BTreeMap<&'static str, usize>,
    /// Whether all endpoints served again when they were left in peace.
    pub(crate) has_recovered: bool,
}

impl Findings {
    /// Compares both sides.
    pub(crate) fn of(sent: &[Sent], executed: &Executed) -> Self {
        let mut rows = Vec::new();
        for client in Kind::ALL {
            for promise in Promise::ALL {
                let of = sent.iter().filter(|one| one.kind == client && one.promise == promise);
                rows.push(row(client, promise, &of.collect::<Vec<_>>(), executed));
            }
        }
        let mut failures = BTreeMap::new();
        for one in sent.iter().filter(|one| !one.is_good()) {
            *failures.entry(one.end.to_string()).or_insert(0) += 1;
        }
        let known: HashSet<u64> = sent.iter().map(|one| one.number).collect();
        let strangers = executed.numbers().filter(|number| !known.contains(number)).count();
        Self { rows, failures, strangers, ..Self::default() }
    }

    /// The sum over all rows.
    pub(crate) fn sum(&self, of: impl Fn(&Row) -> usize) -> usize {
        self.rows.iter().map(of).sum()
    }

    /// What is not as it must be after `count` POSTs, in words.
    pub(crate) fn breaches(&self, count: u64) -> Vec<String> {
        let (sent, good) = (self.sum(|row| row.sent), self.sum(|row| row.good));
        let twice = |row: &Row| if row.promise == Promise::Keyed { 0 } else { row.twice };
        let none = [
            ("executed twice without a key that is heeded", self.sum(twice)),
            ("lost, though their clients were told that they were done", self.sum(|row| row.lost)),
            ("executed that nobody sent", self.strangers),
            ("not sent", (count as usize).saturating_sub(sent)),
        ];
        let mut breaches: Vec<String> = none
            .into_iter()
            .filter(|(_, is)| *is > 0)
            .map(|(what, is)| format!("{is} POSTs {what}"))
            .collect();
        let share = good as f64 / sent.max(1) as f64;
        if share < GOOD_SHARE {
            breaches.push(format!("only {:.1} % of all POSTs went well", share * 1e2));
        }
        if !self.has_recovered {
            breaches.push("not every endpoint serves again".to_owned());
        }
        // Where these are none, nothing was at stake.
        let resent = |row: &Row| if row.promise == Promise::Keyed { row.twice } else { 0 };
        let at_stake = [
            ("was cut off from its answer", self.sum(|row| row.executed_with_error)),
            ("with a key that is heeded was executed again", self.sum(resent)),
        ];
        let idle = at_stake.into_iter().filter(|(_, is)| *is == 0);
        breaches.extend(idle.map(|(what, _)| format!("nothing is proven: no POST {what}")));
        let unused = self.havoc.iter().filter(|(_, times)| **times == 0);
        breaches.extend(unused.map(|(way, _)| format!("nothing is proven: nobody was {way}")));
        breaches
    }
}

fn row(client: Kind, promise: Promise, sent: &[&Sent], executed: &Executed) -> Row {
    let count = |of: &dyn Fn(&Sent) -> bool| sent.iter().filter(|one| of(one)).count();
    Row {
        client,
        promise,
        sent: sent.len(),
        good: count(&Sent::is_good),
        executed: count(&|one| executed.has(one.number)),
        executed_with_error: count(&|one| !one.is_good() && executed.has(one.number)),
        twice: count(&|one| executed.times(one.number) > 1),
        lost: count(&|one| one.is_good() && !executed.has(one.number)),
    }
}
