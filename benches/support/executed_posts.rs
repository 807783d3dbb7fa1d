//! The POSTs that endpoints recorded as executed.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The times of execution of each POST, by its number.
#[derive(Clone, Debug, Default)]
pub(crate) struct ExecutedPosts(HashMap<u64, Vec<SystemTime>>);

impl ExecutedPosts {
    /// Reads the file; it does not exist before the first execution.
    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        match fs::read_to_string(path) {
            Ok(text) => Self::parse(&text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    /// Parses the text: a number and the microseconds since 1970 per line.
    pub(crate) fn parse(text: &str) -> io::Result<Self> {
        let mut times_by_number: HashMap<u64, Vec<SystemTime>> = HashMap::new();
        for line in text.lines() {
            let parsed = line.split_once(' ').and_then(|(number, micros)| {
                Some((number.parse().ok()?, Duration::from_micros(micros.parse().ok()?)))
            });
            let (number, at) = parsed
                .ok_or_else(|| io::Error::other(format!("not a line about a POST: {line}")))?;
            times_by_number.entry(number).or_default().push(UNIX_EPOCH + at);
        }
        Ok(Self(times_by_number))
    }

    /// The number of POSTs that were executed more than once.
    pub(crate) fn repeated_count(&self) -> usize {
        self.0.values().filter(|times| times.len() > 1).count()
    }

    /// Whether `number` was executed, at whatever time.
    pub(crate) fn has_number(&self, number: u64) -> bool {
        self.0.contains_key(&number)
    }

    /// The number of executions of `number`.
    pub(crate) fn execution_count(&self, number: u64) -> usize {
        self.0.get(&number).map_or(0, Vec::len)
    }

    /// Every number that was executed.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = u64> {
        self.0.keys().copied()
    }

    /// Whether `number` was executed after `at`.
    pub(crate) fn has_execution_after(&self, number: u64, at: SystemTime) -> bool {
        self.0.get(&number).is_some_and(|times| times.iter().any(|&time| time > at))
    }
}
