//! `gapless incidents`: asks a running instance, or the state directory, what has failed so far.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::app::ops::ledger;
use crate::app::ops::ledger::LedgerReply;
use crate::app::ops::ledger::query::{IncidentFormat, IncidentQuery};

use super::{EXIT_FAILED, EXIT_OK, EXIT_USAGE, admin_client};

/// How incidents are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum IncidentsFormat {
    /// A table, or with an ID its story
    Text,
    /// One JSON object
    Json,
    /// One line for each, with commas between the values
    Csv,
}

/// What is asked on the command line.
#[derive(Clone, Debug, clap::Args)]
pub struct IncidentsArguments {
    /// The number of an incident, to see its story
    id: Option<u64>,
    /// Of this pool only
    #[arg(long, value_name = "NAME")]
    pool: Option<String>,
    /// Of this zone only, such as us-south/us-south-1
    #[arg(long, value_name = "REGION/ZONE")]
    zone: Option<String>,
    /// Of this region only
    #[arg(long, value_name = "NAME")]
    region: Option<String>,
    /// Of this class only: refused, reset, silent, bad_status or tls
    #[arg(long)]
    class: Option<String>,
    /// Not over before this: 24h or 7d ago, or 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Begun before this
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// The newest of single endpoints [default: 1000]
    #[arg(long)]
    limit: Option<usize>,
    /// How they are printed
    #[arg(long, value_enum, default_value = "text")]
    format: IncidentsFormat,
    /// The instance's admin listener
    #[arg(long, default_value = "127.0.0.1:9900", value_parser = super::parse_admin_address)]
    admin: SocketAddr,
    /// Read this state directory, and ask no instance
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

impl IncidentsArguments {
    fn query(self) -> IncidentQuery {
        let Self { id, pool, zone, region, class, since, until, limit, format, .. } = self;
        let form = match format {
            IncidentsFormat::Text => IncidentFormat::Text,
            IncidentsFormat::Json => IncidentFormat::Json,
            IncidentsFormat::Csv => IncidentFormat::Csv,
        };
        IncidentQuery { id, pool, zone, region, class, since, until, limit, format: form }
    }
}

/// Prints what is asked for, and gives the exit code.
///
/// # Errors
/// When `out` cannot be written to.
pub fn incidents(arguments: IncidentsArguments, out: &mut impl Write) -> io::Result<u8> {
    let (admin, state_dir) = (arguments.admin, arguments.state_dir.clone());
    let query = arguments.query();
    if let Some(directory) = state_dir {
        return match ledger::query_directory(&directory, &query) {
            Ok(LedgerReply::Rendered(_, page)) => out.write_all(page.as_bytes()).map(|()| EXIT_OK),
            Ok(LedgerReply::BadQuery(why)) => {
                eprintln!("gapless: {why}");
                Ok(EXIT_USAGE)
            }
            Err(error) => {
                eprintln!("gapless: no ledger to read in {}: {error}", directory.display());
                Ok(EXIT_FAILED)
            }
        };
    }
    match admin_client::get(admin, &query.to_request_target()) {
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
                "gapless: nobody to ask at {admin}: {error}; `--admin` says where the admin listener \
                 is, and `--state-dir` reads what an instance has left"
            );
            Ok(EXIT_FAILED)
        }
    }
}
