//! The outcome of a cell, and its repetition after pauses of the machine.

use std::io;

use serde::Serialize;

/// The outcome of a cell.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum CellOutcome<T> {
    Measured(T),
    /// The cell cannot be measured here, for this reason.
    Skipped(&'static str),
    /// The measurement failed, for this reason.
    Broken(String),
}

impl<T> From<io::Result<T>> for CellOutcome<T> {
    fn from(result: io::Result<T>) -> Self {
        result.map_or_else(|error| Self::Broken(error.to_string()), Self::Measured)
    }
}

/// A measurement that records pauses of the machine.
pub(crate) trait MeasuredPause {
    /// The longest scheduling delay, in milliseconds.
    fn pause_ms(&self) -> f64;
}

/// Measures, and repeats at most `at_most` times if the machine paused too long. The decision does
/// not depend on the result. Returns also the number of repetitions.
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
