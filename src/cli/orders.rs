//! `gapless drain`, `weight`, `evacuate`, `restore`: what an operator orders a running instance to do.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::Instant;

use clap::{Args, Subcommand};

use super::admin_client;
use super::check::OutputFormat;
use super::{AdminArguments, EXIT_FAILED, EXIT_OK, EXIT_USAGE};
use crate::app::control::orders::OrderRequestBody;

/// An order, and to whom it is given.
#[derive(Debug, Subcommand)]
pub(super) enum OrderCommand {
    /// No new requests for an endpoint: what runs there ends by itself, or at a deadline
    Drain {
        /// Its address, such as 10.0.1.11:9000
        endpoint: String,
        #[command(flatten)]
        drain: DrainArguments,
        #[command(flatten)]
        common: OrderArguments,
        #[command(flatten)]
        instance: AdminArguments,
    },
    /// Another weight for an endpoint than the declared one
    Weight {
        /// Its address, such as 10.0.1.11:9000
        endpoint: String,
        /// From 1 to 1000
        weight: u32,
        #[command(flatten)]
        common: OrderArguments,
        #[command(flatten)]
        instance: AdminArguments,
    },
    /// No new requests for a zone or a region, unless too little would be left
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
    /// Take back what was ordered of an endpoint, a zone or a region
    Restore {
        /// As it was drained, weighed or evacuated
        what: String,
        #[command(flatten)]
        common: OrderArguments,
        #[command(flatten)]
        instance: AdminArguments,
    },
}

const ORDERS_PATH: &str = "/api/v1/orders";

/// What every order may have.
#[derive(Debug, Args)]
#[group(skip)]
pub(super) struct OrderArguments {
    /// In this pool only; otherwise in every pool that has it
    #[arg(long, value_name = "NAME")]
    pool: Option<String>,
    /// It is over by itself after this time, such as 1h; otherwise it holds until it is restored
    #[arg(long = "for", value_name = "TIME")]
    length: Option<String>,
    /// Why, for whoever looks later
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
}

/// What an order may have by which something is drained.
#[derive(Debug, Args)]
#[group(skip)]
pub(super) struct DrainArguments {
    /// Its share goes to nothing over this time, such as 30s; otherwise at once
    #[arg(long, value_name = "TIME")]
    over: Option<String>,
    /// After that, WebSockets and answers on their way may stay for so long [default: 30s]
    #[arg(long, value_name = "TIME")]
    deadline: Option<String>,
    /// Even if too little would be left
    #[arg(long)]
    force: bool,
}

/// Gives the order; the exit code.
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
    send_order(admin, &request, output.format(), out)
}

fn order_request(word: &str, of: String, common: OrderArguments) -> OrderRequestBody {
    let OrderArguments { pool, length, note } = common;
    OrderRequestBody {
        order: word.to_owned(),
        of,
        pool,
        length,
        note,
        ..OrderRequestBody::default()
    }
}

fn drain_request(
    word: &str,
    of: String,
    drain: DrainArguments,
    common: OrderArguments,
) -> OrderRequestBody {
    let DrainArguments { over, deadline, force } = drain;
    OrderRequestBody { over, deadline, force, ..order_request(word, of, common) }
}

fn send_order(
    admin: SocketAddr,
    request: &OrderRequestBody,
    format: OutputFormat,
    out: &mut impl Write,
) -> io::Result<u8> {
    if let Err(why) = request.to_command(Instant::now()) {
        eprintln!("gapless: {why}");
        return Ok(EXIT_USAGE);
    }
    let body = serde_json::to_string(request)?;
    let query = if format == OutputFormat::Json { "" } else { "?format=text" };
    let response = admin_client::send(admin, "POST", &format!("{ORDERS_PATH}{query}"), &body);
    // By 409 the instance says that too little would be left, or that this is not the time.
    let is_capacity_refusal =
        response.as_ref().is_ok_and(|one| one.status == 409 && one.body.contains("left"));
    let Some(response) = admin_client::success_or_report(admin, response) else {
        if is_capacity_refusal {
            eprintln!("gapless: `--force` does it all the same");
        }
        return Ok(EXIT_FAILED);
    };
    out.write_all(response.body.as_bytes()).map(|()| EXIT_OK)
}
