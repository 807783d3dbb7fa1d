//! The configuration file: text to a checked [`model::Config`], with every error located.
//!
//! `file` mirrors the file and is all that deserializes; `read` fills it and reports what cannot
//! be read; `validate` turns it into the [`model`], where nothing is optional that has a default;
//! `report` shows what was found. A configuration with an error is never used in part.

mod address;
mod deserialize;
mod diagnostics;
mod file;
pub mod model;
mod redact;
mod referenced_file;
pub mod report;
mod schema;
mod source_text;
pub(crate) mod suggest;
pub(crate) mod units;
mod validate;

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use self::diagnostics::{Diagnostics, Problem};
use self::model::Config;
use self::report::ConfigReport;
use self::source_text::SourceText;

pub use self::referenced_file::ReferencedFile;
pub use self::schema::schema;

/// Largest file that is read.
pub const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;

/// A configuration that passed every check.
#[derive(Clone, Debug, PartialEq)]
pub struct LoadedConfig {
    /// What to run with.
    pub config: Config,
    /// What is probably not meant; no errors.
    pub warnings: ConfigReport,
}

/// Why a file gave no configuration.
#[derive(Debug)]
pub enum LoadError {
    /// It could not be read at all.
    Unreadable { path: PathBuf, error: io::Error },
    /// It was read, and is wrong.
    Invalid(ConfigReport),
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { path, error } => {
                write!(f, "cannot read {}: {error}", path.display())
            }
            Self::Invalid(report) => report.fmt(f),
        }
    }
}

impl std::error::Error for LoadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreadable { error, .. } => Some(error),
            Self::Invalid(report) => Some(report),
        }
    }
}

/// Reads and checks the file at `path`.
///
/// # Errors
/// When it cannot be read, is larger than [`MAX_FILE_BYTES`], or has any error in it.
pub fn load(path: &Path) -> Result<LoadedConfig, LoadError> {
    let bytes = read(path)?;
    parse_bytes(&path.display().to_string(), &bytes).map_err(LoadError::Invalid)
}

/// Reads the file at `path`.
///
/// # Errors
/// [`LoadError::Unreadable`] when it cannot be read or is larger than [`MAX_FILE_BYTES`].
pub fn read(path: &Path) -> Result<Vec<u8>, LoadError> {
    let read_error = |error| LoadError::Unreadable { path: path.to_owned(), error };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(read_error)?;
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(read_error)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        let limit = units::format_size(MAX_FILE_BYTES);
        let error = io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it is larger than {limit}, too large for a configuration"),
        );
        return Err(read_error(error));
    }
    Ok(bytes)
}

/// Checks what was read; `name` is as in [`parse`].
///
/// # Errors
/// As [`parse`], and when the bytes are not UTF-8.
pub fn parse_bytes(name: &str, bytes: &[u8]) -> Result<LoadedConfig, ConfigReport> {
    match std::str::from_utf8(bytes) {
        Ok(text) => parse(name, text),
        Err(error) => Err(utf8_error_report(name, bytes, error.valid_up_to())),
    }
}

/// Reads and checks `text`; `name` is the file's path, which is shown in what is reported, and at
/// which relative paths of other files begin.
///
/// # Errors
/// When there is any error in it; the report then has all of them, and the warnings too.
pub fn parse(name: &str, text: &str) -> Result<LoadedConfig, ConfigReport> {
    let mut diagnostics = Diagnostics::default();
    let source = SourceText::new(name, text);
    let base = Path::new(name).parent().unwrap_or_else(|| Path::new(""));
    let config = deserialize::read_config_file(&source, &mut diagnostics)
        .and_then(|(file, gaps)| validate::validate(file, &gaps, base, &mut diagnostics));
    let report = source.report(diagnostics);
    match config {
        Some(config) => Ok(LoadedConfig { config, warnings: report }),
        None => Err(report),
    }
}

fn utf8_error_report(name: &str, bytes: &[u8], valid_up_to: usize) -> ConfigReport {
    let text = String::from_utf8_lossy(bytes);
    let mut diagnostics = Diagnostics::default();
    let problem = Problem::new("the file is not UTF-8 text from here on", "save it as UTF-8");
    diagnostics.error(&(valid_up_to..valid_up_to + 1), problem);
    SourceText::new(name, &text).report(diagnostics)
}
