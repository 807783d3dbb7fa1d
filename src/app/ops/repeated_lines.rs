//! Joins repeated log lines: the first line of a subject is written at once, further ones as a
//! count after ten seconds.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// The time for which lines of one subject are joined.
const JOIN_TIME: Duration = Duration::from_secs(10);

/// Subjects in the table; lines of further subjects are not written.
const MAX_SUBJECTS: usize = 4_096;

/// Log lines of one kind, by subject.
#[derive(Debug)]
pub struct RepeatedLines<K> {
    joined: HashMap<K, JoinedLines>,
}

#[derive(Clone, Copy, Debug)]
struct JoinedLines {
    since: Instant,
    /// Lines after the first.
    count: u64,
}

impl<K> Default for RepeatedLines<K> {
    fn default() -> Self {
        Self { joined: HashMap::new() }
    }
}

impl<K: Hash + Eq> RepeatedLines<K> {
    /// Whether a line of `subject` is to be written; otherwise counts it.
    pub fn admit(&mut self, subject: K, now: Instant) -> bool {
        if let Some(joined) = self.joined.get_mut(&subject) {
            joined.count += 1;
            return false;
        }
        if self.joined.len() >= MAX_SUBJECTS {
            return false;
        }
        self.joined.insert(subject, JoinedLines { since: now, count: 0 });
        true
    }

    /// Removes the subjects whose time is over; returns those with lines that were not written, and
    /// their number.
    pub fn take_due(&mut self, now: Instant) -> Vec<(K, u64)> {
        let is_due =
            |joined: &JoinedLines| now.saturating_duration_since(joined.since) >= JOIN_TIME;
        let due = self.joined.extract_if(|_, joined| is_due(joined));
        due.filter(|(_, joined)| joined.count > 0)
            .map(|(subject, joined)| (subject, joined.count))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_line_is_written_and_others_are_counted() {
        let (mut lines, now) = (RepeatedLines::default(), Instant::now());
        assert!(lines.admit("a", now) && lines.admit("b", now));
        assert_eq!((0..5).filter(|_| lines.admit("a", now)).count(), 0);
        assert_eq!(lines.take_due(now), []);
        assert_eq!(lines.take_due(now + JOIN_TIME), [("a", 5)]);
        assert!(lines.admit("a", now + JOIN_TIME));
    }

    #[test]
    fn subjects_are_bounded() {
        let (mut lines, now) = (RepeatedLines::default(), Instant::now());
        let admitted = (0..10_000).filter(|&subject| lines.admit(subject, now)).count();
        assert_eq!(admitted, MAX_SUBJECTS);
    }
}
