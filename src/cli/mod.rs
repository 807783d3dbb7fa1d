//! The command line: one module per subcommand.

pub mod admin_client;
pub mod check;
mod closable_output;
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
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::app::ops::explain::query::{ExplainFormat, ExplainQuery};
use crate::config::LoadError;
use crate::config::model::Config;
use admin_client::AdminClientArguments;
use check::OutputFormat;
use closable_output::ClosableOutput;
use run::LogFormat;

/// Exit code of success.
pub const EXIT_OK: u8 = 0;
/// Exit code of a command that failed.
pub const EXIT_FAILED: u8 = 1;
/// Exit code for invalid arguments.
pub const EXIT_USAGE: u8 = 2;
/// Exit code for a configuration with errors.
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
        /// Format of the log
        #[arg(long, value_enum, default_value = "text")]
        log: LogFormat,
    },
    /// Check a configuration and report every error, each with its place and what to write
    Check {
        /// The configuration file
        config: PathBuf,
        /// Fail on warnings too
        #[arg(long)]
        strict: bool,
        #[command(flatten)]
        output: OutputArguments,
    },
    /// Predict how long each kind of failure stays undetected
    Predict {
        /// The configuration file
        config: PathBuf,
        #[command(flatten)]
        arguments: predict::PredictArguments,
        #[command(flatten)]
        output: OutputArguments,
    },
    /// Find the detection window that meets a target with the fewest probes
    Tune {
        /// The configuration file
        config: PathBuf,
        #[command(flatten)]
        arguments: tune::TuneArguments,
        #[command(flatten)]
        output: OutputArguments,
    },
    /// Show where traffic would go after a loss, and whether the capacity suffices
    Whatif {
        #[command(flatten)]
        arguments: whatif::WhatifArguments,
        #[command(flatten)]
        output: OutputArguments,
    },
    /// Fail a zone under load and compare the measured gap with the prediction
    Demo {
        #[command(flatten)]
        options: demo::DemoOptions,
        #[command(flatten)]
        output: OutputArguments,
    },
    /// One of the demo's endpoints (used by `demo`)
    #[command(hide = true)]
    DemoEndpoint {
        /// The address to listen on
        address: SocketAddr,
    },
    /// Explain the state of an endpoint, a zone or a region of a running instance
    Explain {
        /// An address such as 10.0.1.11:9000, a zone such as us-south/us-south-1, or a region
        what: String,
        /// In this pool only [default: every pool that has it]
        #[arg(long, value_name = "NAME")]
        pool: Option<String>,
        #[command(flatten)]
        instance: AdminArguments,
    },
    /// List past failures: when, for how long, the prediction, and the effect on clients
    Incidents(incidents::IncidentsArguments),
    /// Show availability, error budgets and burn rates by route, pool, zone and region
    Slo {
        #[command(flatten)]
        instance: AdminArguments,
    },
    /// Inject a failure of a zone into a share of a running instance's requests, and report the
    /// effect
    Drill {
        #[command(subcommand)]
        action: drill::DrillCommand,
        #[command(flatten)]
        admin: AdminClientArguments,
        /// Format of the output
        #[arg(long, global = true, value_enum, default_value = "text")]
        format: FormatArgument,
    },
    /// Show pools, traffic shares and operator orders of a running instance
    Status {
        #[command(flatten)]
        instance: AdminArguments,
    },
    #[command(flatten)]
    Order(orders::OrderCommand),
    /// Print the JSON Schema of the configuration
    Schema,
    /// Check whether a running instance is alive
    Healthcheck {
        #[command(flatten)]
        admin: AdminClientArguments,
        /// Check whether it is ready for traffic, not only alive
        #[arg(long)]
        ready: bool,
    },
}

/// A running instance, and the format of the output.
#[derive(Clone, Debug, Args)]
struct AdminArguments {
    #[command(flatten)]
    admin: AdminClientArguments,
    #[command(flatten)]
    output: OutputArguments,
}

#[derive(Clone, Copy, Debug, Args)]
struct OutputArguments {
    /// Format of the output
    #[arg(long, value_enum, default_value = "text")]
    format: FormatArgument,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum FormatArgument {
    /// Text for a terminal
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

/// Runs the command in the arguments of the process; returns the exit code.
pub fn main() -> u8 {
    let arguments = match CliArguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are reported as errors too.
            let _ = error.print();
            return if error.use_stderr() { EXIT_USAGE } else { EXIT_OK };
        }
    };
    let command = match (arguments.test, arguments.command) {
        (Some(config), _) => {
            let output = OutputArguments { format: FormatArgument::Text };
            CliCommand::Check { config, strict: false, output }
        }
        (None, Some(command)) => command,
        (None, None) => return EXIT_USAGE,
    };
    run_command(command).unwrap_or_else(|error| {
        // The demo ends with the reader of its output.
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            return EXIT_OK;
        }
        eprintln!("gapless: {error}");
        EXIT_FAILED
    })
}

/// Prints the errors of a configuration on standard error; returns the exit code.
fn report_load_error(error: &LoadError) -> u8 {
    match error {
        LoadError::Invalid(report) => eprint!("{}", report.render(std::io::stderr().is_terminal())),
        LoadError::Unreadable { .. } => eprintln!("gapless: {error}"),
    }
    EXIT_BAD_CONFIGURATION
}

/// Loads a configuration with placeholders for endpoints of names. On an error, prints it and
/// returns the exit code.
fn load_for_simulation(path: &Path) -> Result<Config, u8> {
    match crate::config::load(path) {
        Ok(loaded) => Ok(loaded.config.with_placeholder_endpoints()),
        Err(error) => Err(report_load_error(&error)),
    }
}

/// Prints a page of the admin API that is available as text and as JSON.
fn print_page(
    instance: &AdminArguments,
    path: &str,
    out: &mut impl std::io::Write,
) -> std::io::Result<u8> {
    let format = match instance.output.format {
        FormatArgument::Text => "text",
        FormatArgument::Json => "json",
    };
    instance.admin.client()?.print_response(&format!("{path}?format={format}"), out)
}

fn run_command(command: CliCommand) -> std::io::Result<u8> {
    let mut out = ClosableOutput::new(std::io::stdout().lock());
    match command {
        CliCommand::Run { config, log } => {
            drop(out);
            Ok(run::run(&config, log))
        }
        CliCommand::Check { config, strict, output } => {
            check::check(&config, strict, output.format(), &mut out)
        }
        CliCommand::Predict { config, arguments, output } => match load_for_simulation(&config) {
            Ok(config) => {
                predict::run(&config, &arguments, output.format(), &mut out).map(|()| EXIT_OK)
            }
            Err(exit_code) => Ok(exit_code),
        },
        CliCommand::Tune { config, arguments, output } => match load_for_simulation(&config) {
            Ok(config) => tune::run(&config, &arguments, output.format(), &mut out),
            Err(exit_code) => Ok(exit_code),
        },
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
        CliCommand::Explain { what, pool, instance: AdminArguments { admin, output } } => {
            let format = match output.format {
                FormatArgument::Text => ExplainFormat::Text,
                FormatArgument::Json => ExplainFormat::Json,
            };
            let query = ExplainQuery { target_name: what, pool, format };
            admin.client()?.print_response(&query.to_request_target(), &mut out)
        }
        CliCommand::Incidents(arguments) => incidents::incidents(arguments, &mut out),
        CliCommand::Slo { instance } => print_page(&instance, "/api/v1/slo", &mut out),
        CliCommand::Drill { action, admin, format } => {
            drill::drill(&admin.client()?, action, OutputArguments { format }.format(), &mut out)
        }
        CliCommand::Status { instance } => print_page(&instance, "/api/v1/status", &mut out),
        CliCommand::Order(action) => orders::order(action, &mut out),
        CliCommand::Schema => schema::schema(&mut out).map(|()| EXIT_OK),
        CliCommand::Healthcheck { admin, ready } => {
            Ok(healthcheck::healthcheck(&admin.client()?, ready))
        }
    }
}
