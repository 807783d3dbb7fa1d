//! What comes of a cell of the table.

use std::io;

use serde::Serialize;

/// What came of a cell.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum CellOutcome<T> {
    Measured(T),
    /// It cannot be measured here, for this reason.
    Skipped(&'static str),
    /// It was to be measured and was not, for this reason.
    Broken(String),
}

impl<T> From<io::Result<T>> for CellOutcome<T> {
    fn from(result: io::Result<T>) -> Self {
        result.map_or_else(|error| Self::Broken(error.to_string()), Self::Measured)
    }
}

/// What is measured while the machine may stand still.
pub(crate) trait MeasuredPause {
    /// The longest that it let somebody wait who wanted to run.
    fn pause_ms(&self) -> f64;
}

/// Measures, and again if the machine paused for too long meanwhile, `at_most` times: whether it is
/// repeated does not depend on what was measured. With it comes how often.
pub(crate) fn measure_with_repeats<T: MeasuredPause>(
    max_pause_ms: f64,
    max_repeats: u32,
    mut measure: impl FnMut() -> io::Result<T>,
) -> io::Result<(T, u32)> {
    let mut repeats = 0;
    loop {
        let measured = measure()?;
        let pause_ms = measured.pause_ms();
        if pause_ms <= max_pause_ms || repeats == max_repeats {
            return Ok((measured, repeats));
        }
        eprintln!("the machine paused for {pause_ms:.0} ms: once more");
        repeats += 1;
    }
}
