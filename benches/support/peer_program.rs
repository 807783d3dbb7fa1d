//! The proxies that are compared, where their programs are, and what they say of their version.

use std::path::{Path, PathBuf};
use std::process::Command;

use clap::ValueEnum;
use serde::Serialize;

/// A proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Peer {
    /// This program.
    Gapless,
    /// The system's haproxy.
    Haproxy,
    /// The system's nginx.
    Nginx,
    /// Envoy, as PyPI has it.
    Envoy,
}

impl Peer {
    /// What it is called everywhere.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Gapless => "gapless",
            Self::Haproxy => "haproxy",
            Self::Nginx => "nginx",
            Self::Envoy => "envoy",
        }
    }
}

/// The virtual environment that Envoy is in when README's line for installing it was followed.
const PYPI_ENVOY_DIR: &str = "target/envoy";

/// Where a virtual environment has it.
const VENV_ENVOY_PATH: &str = "bin/envoy";

/// Finds a program on the PATH or among the system's servers, and what it says of its version.
pub(crate) fn find_program(name: &Path, version_flag: &str) -> Option<(PathBuf, String)> {
    [name.to_owned(), Path::new("/usr/sbin").join(name)].into_iter().find_map(|program| {
        let version = read_version(&program, version_flag)?;
        Some((program, version))
    })
}

/// The same for Envoy, which is said to be at `place`: the program, or a virtual environment.
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

/// The first line that a program prints when it is asked for its version, without its own name and
/// path where it puts them in front. The exit code is no help: wrk prints its version and fails.
pub(crate) fn read_version(program: &Path, flag: &str) -> Option<String> {
    let output = Command::new(program).arg(flag).output().ok()?;
    let printed = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&printed);
    let line = text.lines().map(str::trim).find(|line| !line.is_empty());
    let line = line.unwrap_or("version unknown");
    Some(line.split_once("version: ").map_or(line, |(_, rest)| rest).to_owned())
}
