//! The command line: one file a subcommand.

pub mod admin_client;
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

use crate::app::ops::explain::query::{ExplainFormat, ExplainQuery};
use crate::config::LoadError;
use check::OutputFormat;
use run::LogFormat;

/// Exit code: all is well.
pub const EXIT_OK: u8 = 0;
/// Exit code: it was tried, and failed.
pub const EXIT_FAILED: u8 = 1;
/// Exit code: the arguments make no sense.
pub const EXIT_USAGE: u8 = 2;
/// Exit code: the configuration is wrong.
pub const EXIT_BAD_CONFIGURATION: u8 = 64;

/// A load balancer that predicts, measures and closes its own failover gap.
#[derive(Debug, Parser)]
#[command(
    name = "gapless",
    version,
    arg_required_else_help = true,
    args_conflicts_with_subcommands = true
)]
struct CliArguments {
    /// Check a configuration and exit (the same as `check`)
    #[arg(short = 't', value_name = "CONFIG")]
    test: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<CliCommand>,
}

#[derive(Debug, Subcommand)]
enum CliCommand {
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
        output: OutputArguments,
    },
    /// Predict how long each kind of failure goes unseen
    Predict {
        /// The configuration file
        config: PathBuf,
        #[command(flatten)]
        arguments: predict::PredictArguments,
        #[command(flatten)]
        output: OutputArguments,
    },
    /// Find the detection window that meets a target at the least probing
    Tune {
        /// The configuration file
        config: PathBuf,
        #[command(flatten)]
        arguments: tune::TuneArguments,
        #[command(flatten)]
        output: OutputArguments,
    },
    /// Where traffic would go if something were lost, and whether it would fit
    Whatif {
        #[command(flatten)]
        arguments: whatif::WhatifArguments,
        #[command(flatten)]
        output: OutputArguments,
    },
    /// See a zone die under load, and the gap measured against what was predicted
    Demo {
        #[command(flatten)]
        options: demo::DemoOptions,
        #[command(flatten)]
        output: OutputArguments,
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
        #[arg(long, default_value = "127.0.0.1:9900", value_parser = parse_admin_address)]
        admin: SocketAddr,
        #[command(flatten)]
        output: OutputArguments,
    },
    /// What has failed so far: when, for how long, as predicted or not, and what clients saw of it
    Incidents(incidents::IncidentsArguments),
    /// Nines, error budgets and burn rates, by route, pool, zone and region
    Slo {
        /// The instance's admin listener
        #[arg(long, default_value = "127.0.0.1:9900", value_parser = parse_admin_address)]
        admin: SocketAddr,
        #[command(flatten)]
        output: OutputArguments,
    },
    /// Have a zone of a running instance seem to fail for a share of its requests, and see what comes of it
    Drill {
        #[command(subcommand)]
        action: drill::DrillCommand,
        /// The instance's admin listener
        #[arg(long, global = true, default_value = "127.0.0.1:9900", value_parser = parse_admin_address)]
        admin: SocketAddr,
        /// How the result is printed
        #[arg(long, global = true, value_enum, default_value = "text")]
        format: FormatArgument,
    },
    /// What runs, where its traffic goes, and what operators have ordered
    Status {
        #[command(flatten)]
        instance: AdminArguments,
    },
    #[command(flatten)]
    Order(orders::OrderCommand),
    /// Print the JSON Schema of the configuration
    Schema,
    /// Ask a running instance whether it is alive
    Healthcheck {
        /// Its admin listener
        #[arg(long, default_value = "127.0.0.1:9900", value_parser = parse_admin_address)]
        admin: SocketAddr,
        /// Ask whether it is ready for traffic, not only alive
        #[arg(long)]
        ready: bool,
    },
}

/// A running instance, and how what it says is printed.
#[derive(Clone, Copy, Debug, Args)]
struct AdminArguments {
    /// The instance's admin listener
    #[arg(long, default_value = "127.0.0.1:9900", value_parser = parse_admin_address)]
    admin: SocketAddr,
    #[command(flatten)]
    output: OutputArguments,
}

#[derive(Clone, Copy, Debug, Args)]
struct OutputArguments {
    /// How the result is printed
    #[arg(long, value_enum, default_value = "text")]
    format: FormatArgument,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum FormatArgument {
    /// For people
    Text,
    /// One JSON object
    Json,
}

impl OutputArguments {
    fn format(self) -> OutputFormat {
        match self.format {
            FormatArgument::Text => OutputFormat::Text { color: std::io::stdout().is_terminal() },
            FormatArgument::Json => OutputFormat::Json,
        }
    }
}

/// Runs the command that the process was started with; the exit code.
pub fn main() -> u8 {
    let arguments = match CliArguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version come this way too, and are no mistakes.
            let _ = error.print();
            return if error.use_stderr() { EXIT_USAGE } else { EXIT_OK };
        }
    };
    let command = match (arguments.test, arguments.command) {
        (Some(config), _) => {
            CliCommand::Check { config, output: OutputArguments { format: FormatArgument::Text } }
        }
        (None, Some(command)) => command,
        (None, None) => return EXIT_USAGE,
    };
    run_command(command).unwrap_or_else(|error| {
        // Nobody reads any more what was to be printed: `gapless schema | head`.
        let is_pipe = error.kind() == std::io::ErrorKind::BrokenPipe;
        if !is_pipe {
            eprintln!("gapless: {error}");
        }
        if is_pipe { EXIT_OK } else { EXIT_FAILED }
    })
}

/// Reads `127.0.0.1:9900` or `http://127.0.0.1:9900/`.
fn parse_admin_address(text: &str) -> Result<SocketAddr, std::net::AddrParseError> {
    text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/').parse()
}

/// Says on standard error what is wrong with a configuration; the exit code.
fn report_load_error(error: &LoadError) -> u8 {
    match error {
        LoadError::Invalid(report) => eprint!("{}", report.render(std::io::stderr().is_terminal())),
        LoadError::Unreadable { .. } => eprintln!("gapless: {error}"),
    }
    EXIT_BAD_CONFIGURATION
}

fn run_command(command: CliCommand) -> std::io::Result<u8> {
    let mut out = std::io::stdout().lock();
    match command {
        CliCommand::Run { config, log } => {
            drop(out);
            Ok(run::run(&config, log))
        }
        CliCommand::Check { config, output } => check::check(&config, output.format(), &mut out),
        CliCommand::Predict { config, arguments, output } => {
            let loaded = match crate::config::load(&config) {
                Ok(loaded) => loaded,
                Err(error) => return Ok(report_load_error(&error)),
            };
            let config = loaded.config.with_placeholder_endpoints();
            predict::run(&config, &arguments, output.format(), &mut out).map(|()| EXIT_OK)
        }
        CliCommand::Tune { config, arguments, output } => {
            let loaded = match crate::config::load(&config) {
                Ok(loaded) => loaded,
                Err(error) => return Ok(report_load_error(&error)),
            };
            let config = loaded.config.with_placeholder_endpoints();
            tune::run(&config, &arguments, output.format(), &mut out)
        }
        CliCommand::Whatif { arguments, output } => {
            whatif::run(&arguments, output.format(), &mut out)
        }
        CliCommand::Demo { options, output } => {
            drop(out);
            let color = std::io::stdout().is_terminal();
            demo::demo(options, output.format == FormatArgument::Json, color)
        }
        CliCommand::DemoEndpoint { address } => {
            drop(out);
            demo::run_endpoint(address)
        }
        CliCommand::Explain { what, pool, admin, output } => {
            let form = match output.format {
                FormatArgument::Text => ExplainFormat::Text,
                FormatArgument::Json => ExplainFormat::Json,
            };
            admin_client::print_response(
                admin,
                &ExplainQuery { target_name: what, pool, format: form }.to_request_target(),
                &mut out,
            )
        }
        CliCommand::Incidents(arguments) => incidents::incidents(arguments, &mut out),
        CliCommand::Slo { admin, output } => {
            let form = if output.format == FormatArgument::Json { "json" } else { "text" };
            admin_client::print_response(admin, &format!("/api/v1/slo?format={form}"), &mut out)
        }
        CliCommand::Drill { action, admin, format } => {
            drill::drill(admin, action, OutputArguments { format }.format(), &mut out)
        }
        CliCommand::Status { instance: AdminArguments { admin, output } } => {
            let form = if output.format == FormatArgument::Json { "json" } else { "text" };
            admin_client::print_response(admin, &format!("/api/v1/status?format={form}"), &mut out)
        }
        CliCommand::Order(action) => orders::order(action, &mut out),
        CliCommand::Schema => schema::schema(&mut out).map(|()| EXIT_OK),
        CliCommand::Healthcheck { admin, ready } => Ok(healthcheck::healthcheck(admin, ready)),
    }
}
