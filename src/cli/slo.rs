//! `gapless slo`: asks a running instance how its promises stand.

use std::io::{self, Write};
use std::net::SocketAddr;

use super::{FAILED, OK, ask};

/// Asks at `admin`, prints the answer as it comes, and gives the exit code.
///
/// # Errors
/// When `out` cannot be written to.
pub fn slo(admin: SocketAddr, is_json: bool, out: &mut impl Write) -> io::Result<u8> {
    let form = if is_json { "json" } else { "text" };
    match ask::get(admin, &format!("/api/v1/slo?format={form}")) {
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
