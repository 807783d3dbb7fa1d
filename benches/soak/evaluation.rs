//! Compares the results of clients with the executions that endpoints recorded.

use std::collections::{BTreeMap, HashSet};

use serde::Serialize;

use crate::executed_posts::ExecutedPosts;
use crate::post::IdempotencyPromise;
use crate::sent_posts::{ClientKind, SentPost};

/// The least share of successful POSTs: a proxy that answers every POST with an error would lose
/// none silently.
const MIN_GOOD_FRACTION: f64 = 0.9;

/// The counts of one kind of POSTs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct SoakRow {
    pub(crate) client: ClientKind,
    pub(crate) promise: IdempotencyPromise,
    pub(crate) sent: usize,
    /// POSTs with a success at the client.
    pub(crate) good: usize,
    /// POSTs that endpoints executed.
    pub(crate) executed: usize,
    /// Executed POSTs with an error at the client.
    pub(crate) executed_with_error: usize,
    /// POSTs that endpoints executed more than once.
    pub(crate) twice: usize,
    /// POSTs with a success at the client that no endpoint executed.
    pub(crate) lost: usize,
}

/// The findings of a run.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct SoakFindings {
    /// The counts by kind of client and of POST.
    pub(crate) rows: Vec<SoakRow>,
    /// The number of failed POSTs by kind of error.
    pub(crate) failures: BTreeMap<String, usize>,
    /// Executions of numbers that no client sent.
    #[serde(rename = "strangers")]
    pub(crate) unsent_executions: usize,
    /// The number of failures of endpoints by kind.
    #[serde(rename = "havoc")]
    pub(crate) fault_counts: BTreeMap<&'static str, usize>,
    /// Whether all endpoints served again after the last failure.
    pub(crate) has_recovered: bool,
}

impl SoakFindings {
    pub(crate) fn from_posts(sent: &[SentPost], executed: &ExecutedPosts) -> Self {
        let mut rows = Vec::new();
        for client in ClientKind::ALL {
            for promise in IdempotencyPromise::ALL {
                let matching =
                    sent.iter().filter(|one| one.kind == client && one.promise == promise);
                rows.push(count_posts(client, promise, &matching.collect::<Vec<_>>(), executed));
            }
        }
        let mut failures = BTreeMap::new();
        for one in sent.iter().filter(|one| !one.is_good()) {
            *failures.entry(one.result.to_string()).or_insert(0) += 1;
        }
        let sent_numbers: HashSet<u64> = sent.iter().map(|one| one.number).collect();
        let unsent_executions =
            executed.numbers().filter(|number| !sent_numbers.contains(number)).count();
        Self { rows, failures, unsent_executions, ..Self::default() }
    }

    /// The sum of all rows.
    pub(crate) fn sum(&self, figure: impl Fn(&SoakRow) -> usize) -> usize {
        self.rows.iter().map(figure).sum()
    }

    /// The violations after `count` POSTs, in words.
    pub(crate) fn breaches(&self, count: u64) -> Vec<String> {
        let (sent, good) = (self.sum(|row| row.sent), self.sum(|row| row.good));
        let forbidden_repeats =
            |row: &SoakRow| if row.promise == IdempotencyPromise::Keyed { 0 } else { row.twice };
        let must_be_zero = [
            ("executed twice without a trusted key", self.sum(forbidden_repeats)),
            ("lost after a success at the client", self.sum(|row| row.lost)),
            ("executed but never sent", self.unsent_executions),
            ("not sent", (count as usize).saturating_sub(sent)),
        ];
        let mut breaches: Vec<String> = must_be_zero
            .into_iter()
            .filter(|(_, is)| *is > 0)
            .map(|(what, is)| format!("{is} POSTs {what}"))
            .collect();
        let share = good as f64 / sent.max(1) as f64;
        if share < MIN_GOOD_FRACTION {
            breaches.push(format!("only {:.1} % of all POSTs succeeded", share * 1e2));
        }
        if !self.has_recovered {
            breaches.push("not every endpoint serves again".to_owned());
        }
        // Without such executions the run proves nothing.
        let permitted_repeats =
            |row: &SoakRow| if row.promise == IdempotencyPromise::Keyed { row.twice } else { 0 };
        let required_events = [
            ("lost its response", self.sum(|row| row.executed_with_error)),
            ("with a trusted key was executed again", self.sum(permitted_repeats)),
        ];
        let missing_events = required_events.into_iter().filter(|(_, is)| *is == 0);
        breaches
            .extend(missing_events.map(|(what, _)| format!("nothing is proven: no POST {what}")));
        let unused_faults = self.fault_counts.iter().filter(|(_, times)| **times == 0);
        breaches.extend(
            unused_faults.map(|(fault, _)| format!("nothing is proven: no endpoint was {fault}")),
        );
        breaches
    }
}

fn count_posts(
    client: ClientKind,
    promise: IdempotencyPromise,
    sent: &[&SentPost],
    executed: &ExecutedPosts,
) -> SoakRow {
    let count =
        |predicate: &dyn Fn(&SentPost) -> bool| sent.iter().filter(|one| predicate(one)).count();
    SoakRow {
        client,
        promise,
        sent: sent.len(),
        good: count(&SentPost::is_good),
        executed: count(&|one| executed.has_number(one.number)),
        executed_with_error: count(&|one| !one.is_good() && executed.has_number(one.number)),
        twice: count(&|one| executed.execution_count(one.number) > 1),
        lost: count(&|one| one.is_good() && !executed.has_number(one.number)),
    }
}
