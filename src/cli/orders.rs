//! `gapless drain`, `weight`, `evacuate`, `restore`: sends operator orders to a running instance.

use std::io::{self, Write};
use std::time::Instant;

use clap::{Args, Subcommand};

use super::admin_client::AdminClient;
use super::check::OutputFormat;
use super::{AdminArguments, EXIT_FAILED, EXIT_OK, EXIT_USAGE};
use crate::app::control::orders::OrderRequestBody;
use crate::logic::orders::MAX_AUTHOR_BYTES;

/// An order, and the instance that receives it.
#[derive(Debug, Subcommand)]
pub(super) enum OrderCommand {
    /// Drain an endpoint: no new requests; running ones end by themselves or at a deadline
    Drain {
        /// Address of the endpoint, such as 10.0.1.11:9000
        endpoint: String,
        #[command(flatten)]
        drain: DrainArguments,
        #[command(flatten)]
        common: OrderArguments,
        #[command(flatten)]
        instance: AdminArguments,
    },
    /// Override the weight of an endpoint
    Weight {
        /// Address of the endpoint, such as 10.0.1.11:9000
        endpoint: String,
        /// The weight, from 1 to 1000
        weight: u32,
        #[command(flatten)]
        common: OrderArguments,
        #[command(flatten)]
        instance: AdminArguments,
    },
    /// Drain a zone or a region, unless too little capacity would be left
    Evacuate {
        /// A zone such as us-south/us-south-1, or a region
        place: String,
        #[command(flatten)]
        drain: DrainArguments,
        #[command(flatten)]
        common: OrderArguments,
        #[command(flatten)]
        instance: AdminArguments,
    },
    /// Revoke the orders for an endpoint, a zone or a region
    Restore {
        /// The endpoint, zone or region of the orders
        what: String,
        #[command(flatten)]
        common: OrderArguments,
        #[command(flatten)]
        instance: AdminArguments,
    },
}

const ORDERS_PATH: &str = "/api/v1/orders";

/// The options of every order.
#[derive(Debug, Args)]
#[group(skip)]
pub(super) struct OrderArguments {
    /// In this pool only [default: every pool that has it]
    #[arg(long, value_name = "NAME")]
    pool: Option<String>,
    /// Time after which the order expires, such as 1h [default: it holds until it is restored]
    #[arg(long = "for", value_name = "TIME")]
    length: Option<String>,
    /// The operator's name, shown with the order [default: the name of the user]
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
    /// The reason, shown with the order [default: that of the order that this one repeats]
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
}

/// The options of orders that drain.
#[derive(Debug, Args)]
#[group(skip)]
pub(super) struct DrainArguments {
    /// Time over which the share shrinks to zero, such as 30s [default: at once]
    #[arg(long, value_name = "TIME")]
    over: Option<String>,
    /// Time after that for WebSockets and running responses to end [default: 30s]
    #[arg(long, value_name = "TIME")]
    deadline: Option<String>,
    /// Drain even if too little capacity would be left
    #[arg(long)]
    force: bool,
}

/// Sends the order; returns the exit code.
///
/// # Errors
/// When `out` cannot be written to.
pub(super) fn order(action: OrderCommand, out: &mut impl Write) -> io::Result<u8> {
    let (request, AdminArguments { admin, output }) = match action {
        OrderCommand::Drain { endpoint, drain, common, instance } => {
            (drain_request("drain", endpoint, drain, common), instance)
        }
        OrderCommand::Weight { endpoint, weight, common, instance } => (
            OrderRequestBody { weight: Some(weight), ..order_request("weight", endpoint, common) },
            instance,
        ),
        OrderCommand::Evacuate { place, drain, common, instance } => {
            (drain_request("evacuate", place, drain, common), instance)
        }
        OrderCommand::Restore { what, common, instance } => {
            (order_request("restore", what, common), instance)
        }
    };
    send_order(&admin.client()?, &request, output.format(), out)
}

fn order_request(order: &str, target: String, common: OrderArguments) -> OrderRequestBody {
    let OrderArguments { pool, length, by, note } = common;
    OrderRequestBody {
        order: order.to_owned(),
        of: target,
        pool,
        length,
        by: by.or_else(user_name),
        note,
        ..OrderRequestBody::default()
    }
}

/// The name of the user as the shell has it; with sudo, of the one who has called it.
fn user_name() -> Option<String> {
    let names = ["SUDO_USER", "USER", "LOGNAME"].into_iter();
    let mut names = names.filter_map(|name| std::env::var(name).ok());
    names.find(|name| {
        !name.is_empty() && name.len() <= MAX_AUTHOR_BYTES && !name.contains(char::is_control)
    })
}

fn drain_request(
    order: &str,
    target: String,
    drain: DrainArguments,
    common: OrderArguments,
) -> OrderRequestBody {
    let DrainArguments { over, deadline, force } = drain;
    OrderRequestBody { over, deadline, force, ..order_request(order, target, common) }
}

fn send_order(
    admin: &AdminClient,
    request: &OrderRequestBody,
    format: OutputFormat,
    out: &mut impl Write,
) -> io::Result<u8> {
    if let Err(error) = request.to_command(Instant::now()) {
        eprintln!("gapless: {error}");
        return Ok(EXIT_USAGE);
    }
    let body = serde_json::to_string(request)?;
    let query = if format == OutputFormat::Json { "" } else { "?format=text" };
    let response = admin.send("POST", &format!("{ORDERS_PATH}{query}"), &body);
    // The instance answers 409 if too little capacity would be left, or if the order conflicts with
    // another.
    let is_capacity_refusal = response
        .as_ref()
        .is_ok_and(|response| response.status == 409 && response.body.starts_with("pool "));
    let Some(response) = admin.success_or_report(response) else {
        if is_capacity_refusal {
            eprintln!("gapless: `--force` overrides this");
        }
        return Ok(EXIT_FAILED);
    };
    out.write_all(response.body.as_bytes()).map(|()| EXIT_OK)
}
