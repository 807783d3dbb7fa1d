//! `gapless drain`, `weight`, `evacuate`, `restore`: what an operator orders a running instance to do.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::Instant;

use clap::{Args, Subcommand};

use super::ask;
use super::check::Format;
use super::{FAILED, Instance, OK, USAGE};
use crate::app::orders::Asked;

/// An order, and to whom it is given.
#[derive(Debug, Subcommand)]
pub(super) enum Action {
    /// No new requests for an endpoint: what runs there ends by itself, or at a deadline
    Drain {
        /// Its address, such as 10.0.1.11:9000
        endpoint: String,
        #[command(flatten)]
        drain: Drain,
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        instance: Instance,
    },
    /// Another weight for an endpoint than the declared one
    Weight {
        /// Its address, such as 10.0.1.11:9000
        endpoint: String,
        /// From 1 to 1000
        weight: u32,
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        instance: Instance,
    },
    /// No new requests for a zone or a region, unless too little would be left
    Evacuate {
        /// A zone such as us-south/us-south-1, or a region
        place: String,
        #[command(flatten)]
        drain: Drain,
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        instance: Instance,
    },
    /// Take back what was ordered of an endpoint, a zone or a region
    Restore {
        /// As it was drained, weighed or evacuated
        what: String,
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        instance: Instance,
    },
}

const ROOT: &str = "/api/v1/orders";

/// What every order may have.
#[derive(Debug, Args)]
#[group(skip)]
pub(super) struct Common {
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
pub(super) struct Drain {
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
pub(super) fn order(action: Action, out: &mut impl Write) -> io::Result<u8> {
    let (asked, Instance { admin, output }) = match action {
        Action::Drain { endpoint, drain, common, instance } => {
            (drained("drain", endpoint, drain, common), instance)
        }
        Action::Weight { endpoint, weight, common, instance } => {
            (Asked { weight: Some(weight), ..plain("weight", endpoint, common) }, instance)
        }
        Action::Evacuate { place, drain, common, instance } => {
            (drained("evacuate", place, drain, common), instance)
        }
        Action::Restore { what, common, instance } => (plain("restore", what, common), instance),
    };
    give(admin, &asked, output.format(), out)
}

fn plain(word: &str, of: String, common: Common) -> Asked {
    let Common { pool, length, note } = common;
    Asked { order: word.to_owned(), of, pool, length, note, ..Asked::default() }
}

fn drained(word: &str, of: String, drain: Drain, common: Common) -> Asked {
    let Drain { over, deadline, force } = drain;
    Asked { over, deadline, force, ..plain(word, of, common) }
}

fn give(admin: SocketAddr, asked: &Asked, format: Format, out: &mut impl Write) -> io::Result<u8> {
    if let Err(why) = asked.wish(Instant::now()) {
        eprintln!("gapless: {why}");
        return Ok(USAGE);
    }
    let body = serde_json::to_string(asked)?;
    let query = if format == Format::Json { "" } else { "?format=text" };
    let answer = ask::send(admin, "POST", &format!("{ROOT}{query}"), &body);
    // By 409 the instance says that too little would be left, or that this is not the time.
    let is_short = answer.as_ref().is_ok_and(|one| one.status == 409 && one.body.contains("left"));
    let Some(answer) = ask::heard(admin, answer) else {
        if is_short {
            eprintln!("gapless: `--force` does it all the same");
        }
        return Ok(FAILED);
    };
    out.write_all(answer.body.as_bytes()).map(|()| OK)
}
