//! The command line: one file a subcommand.

pub mod ask;
pub mod check;
pub mod demo;
pub mod drill;
pub mod healthcheck;
pub mod incidents;
pub mod orders;
pub mod predict;
pub mod run;
pub mod schema;
pub mod tune;
pub mod whatif;

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::app::explain::query::{Form, Query};
use crate::config::LoadError;
use check::Format;
use run::LogFormat;

/// Exit code: all is well.
pub const OK: u8 = 0;
/// Exit code: it was tried, and failed.
pub const FAILED: u8 = 1;
/// Exit code: the arguments make no sense.
pub const USAGE: u8 = 2;
/// Exit code: the configuration is wrong.
pub const BAD_CONFIGURATION: u8 = 64;

/// A load balancer that predicts, measures and closes its own failover gap.
#[derive(Debug, Parser)]
#[command(
    name = "gapless",
    version,
    arg_required_else_help = true,
    args_conflicts_with_subcommands = true
)]
struct Arguments {
    /// Check a configuration and exit (the same as `check`)
    #[arg(short = 't', value_name = "CONFIG")]
    test: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the proxy
    Run {
        /// The configuration file
        config: PathBuf,
        /// How lines of the log look
        #[arg(long, value_enum, default_value = "text")]
        log: LogFormat,
    },
    /// Check a configuration: every error at once, each with its place and its mend
    Check {
        /// The configuration file
        config: PathBuf,
        #[command(flatten)]
        output: Output,
    },
    /// Predict how long each kind of failure goes unseen
    Predict {
        /// The configuration file
        config: PathBuf,
        #[command(flatten)]
        arguments: predict::Arguments,
        #[command(flatten)]
        output: Output,
    },
    /// Find the detection window that meets a target at the least probing
    Tune {
        /// The configuration file
        config: PathBuf,
        #[command(flatten)]
        arguments: tune::Arguments,
        #[command(flatten)]
        output: Output,
    },
    /// Where traffic would go if something were lost, and whether it would fit
    Whatif {
        #[command(flatten)]
        arguments: whatif::Arguments,
        #[command(flatten)]
        output: Output,
    },
    /// See a zone die under load, and the gap measured against what was predicted
    Demo {
        #[command(flatten)]
        options: demo::Options,
        #[command(flatten)]
        output: Output,
    },
    /// One of the demo's endpoints
    #[command(hide = true)]
    DemoEndpoint {
        /// Where it listens
        address: SocketAddr,
    },
    /// Ask a running instance why an endpoint, a zone or a region is as it is
    Explain {
        /// An address such as 10.0.1.11:9000, a zone such as us-south/us-south-1, or a region
        what: String,
        /// In this pool only; otherwise in every pool that has it
        #[arg(long, value_name = "NAME")]
        pool: Option<String>,
        /// The instance's admin listener
        #[arg(long, default_value = "127.0.0.1:9900", value_parser = admin_address)]
        admin: SocketAddr,
        #[command(flatten)]
        output: Output,
    },
    /// What has failed so far: when, for how long, as predicted or not, and what clients saw of it
    Incidents(incidents::Arguments),
    /// Nines, error budgets and burn rates, by route, pool, zone and region
    Slo {
        /// The instance's admin listener
        #[arg(long, default_value = "127.0.0.1:9900", value_parser = admin_address)]
        admin: SocketAddr,
        #[command(flatten)]
        output: Output,
    },
    /// Have a zone of a running instance seem to fail for a share of its requests, and see what comes of it
    Drill {
        #[command(subcommand)]
        action: drill::Action,
        /// The instance's admin listener
        #[arg(long, global = true, default_value = "127.0.0.1:9900", value_parser = admin_address)]
        admin: SocketAddr,
        /// How the result is printed
        #[arg(long, global = true, value_enum, default_value = "text")]
        format: FormatName,
    },
    /// What runs, where its traffic goes, and what operators have ordered
    Status {
        #[command(flatten)]
        instance: Instance,
    },
    #[command(flatten)]
    Order(orders::Action),
    /// Print the JSON Schema of the configuration
    Schema,
    /// Ask a running instance whether it is alive
    Healthcheck {
        /// Its admin listener
        #[arg(long, default_value = "127.0.0.1:9900", value_parser = admin_address)]
        admin: SocketAddr,
        /// Ask whether it is ready for traffic, not only alive
        #[arg(long)]
        ready: bool,
    },
}

/// A running instance, and how what it says is printed.
#[derive(Clone, Copy, Debug, Args)]
struct Instance {
    /// The instance's admin listener
    #[arg(long, default_value = "127.0.0.1:9900", value_parser = admin_address)]
    admin: SocketAddr,
    #[command(flatten)]
    output: Output,
}

#[derive(Clone, Copy, Debug, Args)]
struct Output {
    /// How the result is printed
    #[arg(long, value_enum, default_value = "text")]
    format: FormatName,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum FormatName {
    /// For people
    Text,
    /// One JSON object
    Json,
}

impl Output {
    fn format(self) -> Format {
        match self.format {
            FormatName::Text => Format::Text { color: std::io::stdout().is_terminal() },
            FormatName::Json => Format::Json,
        }
    }
}

/// Runs the command that the process was started with; the exit code.
#[must_use]
pub fn main() -> u8 {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version come this way too, and are no mistakes.
            let _ = error.print();
            return if error.use_stderr() { USAGE } else { OK };
        }
    };
    let command = match (arguments.test, arguments.command) {
        (Some(config), _) => Command::Check { config, output: Output { format: FormatName::Text } },
        (None, Some(command)) => command,
        (None, None) => return USAGE,
    };
    dispatch(command).unwrap_or_else(|error| {
        // Nobody reads any more what was to be printed: `gapless schema | head`.
        let is_pipe = error.kind() == std::io::ErrorKind::BrokenPipe;
        if !is_pipe {
            eprintln!("gapless: {error}");
        }
        if is_pipe { OK } else { FAILED }
    })
}

/// Reads `127.0.0.1:9900` or `http://127.0.0.1:9900/`.
fn admin_address(text: &str) -> Result<SocketAddr, std::net::AddrParseError> {
    text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/').parse()
}

/// Says on standard error what is wrong with a configuration; the exit code.
fn refuse(error: &LoadError) -> u8 {
    match error {
        LoadError::Invalid(report) => eprint!("{}", report.render(std::io::stderr().is_terminal())),
        LoadError::Unreadable { .. } => eprintln!("gapless: {error}"),
    }
    BAD_CONFIGURATION
}

fn dispatch(command: Command) -> std::io::Result<u8> {
    let mut out = std::io::stdout().lock();
    match command {
        Command::Run { config, log } => {
            drop(out);
            Ok(run::run(&config, log))
        }
        Command::Check { config, output } => check::check(&config, output.format(), &mut out),
        Command::Predict { config, arguments, output } => {
            let loaded = match crate::config::load(&config) {
                Ok(loaded) => loaded,
                Err(error) => return Ok(refuse(&error)),
            };
            let config = loaded.config.with_stand_ins();
            predict::run(&config, &arguments, output.format(), &mut out).map(|()| OK)
        }
        Command::Tune { config, arguments, output } => {
            let loaded = match crate::config::load(&config) {
                Ok(loaded) => loaded,
                Err(error) => return Ok(refuse(&error)),
            };
            let config = loaded.config.with_stand_ins();
            tune::run(&config, &arguments, output.format(), &mut out)
        }
        Command::Whatif { arguments, output } => whatif::run(&arguments, output.format(), &mut out),
        Command::Demo { options, output } => {
            drop(out);
            let color = std::io::stdout().is_terminal();
            demo::demo(options, output.format == FormatName::Json, color)
        }
        Command::DemoEndpoint { address } => {
            drop(out);
            demo::endpoint(address)
        }
        Command::Explain { what, pool, admin, output } => {
            let form = match output.format {
                FormatName::Text => Form::Text,
                FormatName::Json => Form::Json,
            };
            ask::print(admin, &Query { of: what, pool, form }.target(), &mut out)
        }
        Command::Incidents(arguments) => incidents::incidents(arguments, &mut out),
        Command::Slo { admin, output } => {
            let form = if output.format == FormatName::Json { "json" } else { "text" };
            ask::print(admin, &format!("/api/v1/slo?format={form}"), &mut out)
        }
        Command::Drill { action, admin, format } => {
            drill::drill(admin, action, Output { format }.format(), &mut out)
        }
        Command::Status { instance: Instance { admin, output } } => {
            let form = if output.format == FormatName::Json { "json" } else { "text" };
            ask::print(admin, &format!("/api/v1/status?format={form}"), &mut out)
        }
        Command::Order(action) => orders::order(action, &mut out),
        Command::Schema => schema::schema(&mut out).map(|()| OK),
        Command::Healthcheck { admin, ready } => Ok(healthcheck::healthcheck(admin, ready)),
    }
}
