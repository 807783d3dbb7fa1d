//! The compared proxies: their programs and versions.

use std::path::{Path, PathBuf};
use std::process::Command;

use clap::ValueEnum;
use serde::Serialize;

/// A compared proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Peer {
    /// The program under test.
    Gapless,
    /// The haproxy of the system.
    Haproxy,
    /// The nginx of the system.
    Nginx,
    /// The Envoy of PyPI or of the system.
    Envoy,
}

impl Peer {
    /// The name in arguments and reports.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Gapless => "gapless",
            Self::Haproxy => "haproxy",
            Self::Nginx => "nginx",
            Self::Envoy => "envoy",
        }
    }
}

/// The virtual environment in which docs/benchmarks.md installs Envoy.
const PYPI_ENVOY_DIR: &str = "target/envoy";

/// The path of Envoy in a virtual environment.
const VENV_ENVOY_PATH: &str = "bin/envoy";

/// Finds a program on the PATH or in the system's directories for servers; returns its path and
/// version.
pub(crate) fn find_program(name: &Path, version_flag: &str) -> Option<(PathBuf, String)> {
    [name.to_owned(), Path::new("/usr/sbin").join(name)].into_iter().find_map(|program| {
        let version = read_version(&program, version_flag)?;
        Some((program, version))
    })
}

/// Finds Envoy at `place`, which is the program or a virtual environment.
pub(crate) fn find_envoy(location: Option<&Path>) -> Option<(PathBuf, String)> {
    let candidates = match location {
        Some(location) => vec![location.to_owned()],
        None => vec!["envoy".into(), PYPI_ENVOY_DIR.into()],
    };
    candidates.into_iter().find_map(|candidate| {
        let path = if candidate.is_dir() { candidate.join(VENV_ENVOY_PATH) } else { candidate };
        find_program(&path, "--version")
    })
}

/// The first line of a program's version output, without a leading name or path. The exit code is
/// ignored: wrk prints its version and fails.
pub(crate) fn read_version(program: &Path, flag: &str) -> Option<String> {
    let output = Command::new(program).arg(flag).output().ok()?;
    let printed = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&printed);
    let line = text.lines().map(str::trim).find(|line| !line.is_empty());
    let line = line.unwrap_or("version unknown");
    Some(line.split_once("version: ").map_or(line, |(_, rest)| rest).to_owned())
}
