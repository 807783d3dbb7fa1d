//! `gapless explain`: asks a running instance why something is as it is.

use std::io::{self, Write};
use std::net::SocketAddr;

use crate::app::explain::query::Query;

use super::{FAILED, OK, ask};

/// Asks at `admin`, prints the answer as it comes, and gives the exit code.
///
/// # Errors
/// When `out` cannot be written to.
pub fn explain(admin: SocketAddr, query: &Query, out: &mut impl Write) -> io::Result<u8> {
    match ask::get(admin, &query.target()) {
        Ok(answer) if answer.status == 200 => {
            out.write_all(answer.body.as_bytes())?;
            return Ok(OK);
        }
        Ok(answer) => eprintln!("gapless: {}", answer.body.trim_end()),
        Err(error) => {
            eprintln!(
                "gapless: nobody to ask at {admin}: {error}; `--admin` says where the admin listener is"
            );
        }
    }
    Ok(FAILED)
}
