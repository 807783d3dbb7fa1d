//! `gapless schema`: prints the JSON Schema of the configuration file.

use std::io::{self, Write};

use crate::config;

/// Writes the schema to `out`, indented.
///
/// # Errors
/// When `out` cannot be written to.
pub fn schema(out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "{:#}", config::schema())
}
