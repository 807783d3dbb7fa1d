//! `gapless incidents`: lists incidents of a running instance, or of a state directory.

use std::io::{self, Write};
use std::path::PathBuf;

use crate::app::ops::ledger;
use crate::app::ops::ledger::LedgerReply;
use crate::app::ops::ledger::query::{IncidentFormat, IncidentQuery};

use super::admin_client::AdminClientArguments;
use super::{EXIT_FAILED, EXIT_OK, EXIT_USAGE};

/// The format of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum IncidentsFormat {
    /// A table, or the timeline of the incident ID
    Text,
    /// One JSON object
    Json,
    /// Comma-separated values, one line per incident
    Csv,
}

/// The arguments of `gapless incidents`.
#[derive(Clone, Debug, clap::Args)]
pub struct IncidentsArguments {
    /// The number of an incident, to show its timeline
    id: Option<u64>,
    /// Only of this pool
    #[arg(long, value_name = "NAME")]
    pool: Option<String>,
    /// Only of this zone, such as us-south/us-south-1
    #[arg(long, value_name = "REGION/ZONE")]
    zone: Option<String>,
    /// Only of this region
    #[arg(long, value_name = "NAME")]
    region: Option<String>,
    /// Only of this class: refused, reset, silent, bad_status or tls
    #[arg(long)]
    class: Option<String>,
    /// Only incidents that ended after this time, or run: 24h or 7d ago, or 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only incidents that began before this time
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// The most incidents of single endpoints, the newest first [default: 1000]
    #[arg(long)]
    limit: Option<usize>,
    /// Format of the output
    #[arg(long, value_enum, default_value = "text")]
    format: IncidentsFormat,
    #[command(flatten)]
    admin: AdminClientArguments,
    /// Read this state directory in place of a running instance
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

impl IncidentsArguments {
    fn query(self) -> IncidentQuery {
        let Self { id, pool, zone, region, class, since, until, limit, format, .. } = self;
        let format = match format {
            IncidentsFormat::Text => IncidentFormat::Text,
            IncidentsFormat::Json => IncidentFormat::Json,
            IncidentsFormat::Csv => IncidentFormat::Csv,
        };
        IncidentQuery { id, pool, zone, region, class, since, until, limit, format }
    }
}

/// Prints the incidents, and returns the exit code.
///
/// # Errors
/// When `out` cannot be written to.
pub fn incidents(arguments: IncidentsArguments, out: &mut impl Write) -> io::Result<u8> {
    let (admin, state_dir) = (arguments.admin.clone(), arguments.state_dir.clone());
    let query = arguments.query();
    if let Some(directory) = state_dir {
        return match ledger::query_directory(&directory, &query) {
            Ok(LedgerReply::Rendered(_, page)) => out.write_all(page.as_bytes()).map(|()| EXIT_OK),
            Ok(LedgerReply::BadQuery(error)) => {
                eprintln!("gapless: {error}");
                Ok(EXIT_USAGE)
            }
            Ok(LedgerReply::UnknownName(error)) => {
                eprintln!("gapless: {error}");
                Ok(EXIT_FAILED)
            }
            Err(error) => {
                eprintln!("gapless: no ledger to read in {}: {error}", directory.display());
                Ok(EXIT_FAILED)
            }
        };
    }
    let admin = admin.client()?;
    match admin.get(&query.to_request_target()) {
        Ok(answer) if answer.status == 200 => {
            out.write_all(answer.body.as_bytes())?;
            Ok(EXIT_OK)
        }
        Ok(answer) => {
            eprintln!("gapless: {}", answer.body.trim_end());
            Ok(if answer.status == 400 { EXIT_USAGE } else { EXIT_FAILED })
        }
        Err(error) => {
            eprintln!(
                "gapless: no answer from {admin}: {error}; `--admin` says where the admin listener \
                 is, and `--state-dir` reads the ledger of a stopped instance"
            );
            Ok(EXIT_FAILED)
        }
    }
}
