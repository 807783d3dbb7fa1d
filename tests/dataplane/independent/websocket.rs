//! WebSocket by Python's websockets, over HTTP/1.1.

use super::python_peer::{PythonEndpoint, python_interpreter, run_python_client};
use crate::support::config::ConfigBuilder;
use crate::support::instance::Gapless;

const PROGRAM: &str = "websocket_peer.py";

#[test]
fn websocket_messages_pings_and_close_codes_pass() {
    let Some(python) = python_interpreter() else { return };
    let endpoint = PythonEndpoint::start(python, PROGRAM);
    let gapless = Gapless::start_ready(&ConfigBuilder::new().zone("here/a", &[endpoint.address]));
    run_python_client(python, PROGRAM, &["call", &gapless.address.port().to_string()], 13);
}
