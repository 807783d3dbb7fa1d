//! Clients that do not read, over shared HTTP/2 connections to endpoints.

use super::http2::{MANY_STREAMS, h2_pool_lines, spawn_request, start_h2_endpoint};
use crate::support::client::TestClient;
use crate::support::config::ConfigBuilder;
use crate::support::instance::Gapless;
use crate::support::{DEFAULT_TIMEOUT, eventually};

/// Forty clients read nothing of their responses. Sixteen of them used to fill the window of the
/// connection, and every other request on it waited for a minute.
#[test]
fn clients_that_do_not_read_hold_up_no_others() {
    for endpoints in [1, 2] {
        let states: Vec<_> =
            (0..endpoints).map(|_| start_h2_endpoint("web", MANY_STREAMS)).collect();
        let addresses: Vec<_> = states.iter().map(|(server, _)| server.address).collect();
        let config = ConfigBuilder::new().pool(&h2_pool_lines()).zone("here/near", &addresses);
        let gapless = Gapless::start_ready(&config);
        let stalled: Vec<TestClient> = (0..40)
            .map(|_| {
                let mut client = TestClient::open(gapless.address);
                client.send("GET /bulk HTTP/1.1\r\nhost: a\r\n\r\n").expect("sent");
                client
            })
            .collect();
        let bulk_bytes = || states.iter().map(|(_, state)| state.bulk_bytes()).sum::<usize>();
        let (mut last, mut polls_without_change) = (0, 0);
        eventually("nothing moves any more", DEFAULT_TIMEOUT, || {
            let bytes = bulk_bytes();
            polls_without_change = if bytes == last { polls_without_change + 1 } else { 0 };
            last = bytes;
            bytes > 40 * (256 << 10) && polls_without_change > 20
        });
        let requests: Vec<_> =
            (0..30).map(|_| spawn_request(gapless.address, "GET", "/small")).collect();
        for handle in requests {
            let answer = handle.join().expect("answered within the client's timeout");
            assert_eq!((answer.status, answer.text()), (200, "ok".to_owned()));
        }
        drop(stalled);
    }
}
