//! The configuration file: parses text into a checked [`model::Config`] and locates every error.
//!
//! `file` mirrors the file and holds all types that are deserialized. `deserialize` fills them and
//! reports what cannot be read. `validate` turns them into the [`model`], in which a value with a
//! default is never optional. `report` renders the diagnostics. A configuration with an error is
//! never used in part.

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

/// Size limit of a configuration file.
pub const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;

/// A configuration that passed every check.
#[derive(Clone, Debug, PartialEq)]
pub struct LoadedConfig {
    /// The checked configuration.
    pub config: Config,
    /// Warnings only: likely mistakes that do not prevent the use.
    pub warnings: ConfigReport,
}

/// The reason why a file yields no configuration.
#[derive(Debug)]
pub enum LoadError {
    /// The file could not be read.
    Unreadable { path: PathBuf, error: io::Error },
    /// The file was read and has errors.
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
/// When the file cannot be read, is larger than [`MAX_FILE_BYTES`], or has an error.
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

/// Checks the bytes of a file; `name` is as in [`parse`].
///
/// # Errors
/// As [`parse`], and when the bytes are not UTF-8.
pub fn parse_bytes(name: &str, bytes: &[u8]) -> Result<LoadedConfig, ConfigReport> {
    match std::str::from_utf8(bytes) {
        Ok(text) => parse(name, text),
        Err(error) => Err(utf8_error_report(name, bytes, error.valid_up_to())),
    }
}

/// Parses and checks `text`. `name` is the path of the file: reports show it, and relative paths of
/// other files start at its directory.
///
/// # Errors
/// When `text` has an error; the report has all errors, and the warnings.
pub fn parse(name: &str, text: &str) -> Result<LoadedConfig, ConfigReport> {
    let mut diagnostics = Diagnostics::default();
    let source = SourceText::new(name, text);
    let base = Path::new(name).parent().unwrap_or_else(|| Path::new(""));
    let config = deserialize::read_config_file(&source, &mut diagnostics)
        .and_then(|(file, unread)| validate::validate(file, &unread, base, &mut diagnostics));
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
