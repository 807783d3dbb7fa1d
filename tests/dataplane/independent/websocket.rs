//! WebSocket by Python's websockets, over HTTP/1.1.

use super::peer::{Served, call, python};
use crate::support::config::Config;
use crate::support::instance::Gapless;

const PROGRAM: &str = "websocket_peer.py";

#[test]
fn messages_frames_pings_and_close_codes_pass_between_a_client_and_an_endpoint() {
    let Some(python) = python() else { return };
    let served = Served::start(python, PROGRAM);
    let gapless = Gapless::start_ready(&Config::new().zone("here/a", &[served.address]));
    call(python, PROGRAM, &["call", &gapless.address.port().to_string()], 13);
}
