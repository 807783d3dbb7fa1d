//! Time in which the probing thread was blocked does not count against an endpoint.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::rc::Rc;
use std::time::Duration;

use gapless::logic::model::outcome::{FailureLayer, FailureReason, ProbeOutcome};
use gapless::net::prober::{ProbeConnectionCache, Prober};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{failed_outcome, is_pass, ms, run_on_one_thread, spec};
use crate::support::server::{TestServer, connection_handler, ok_response};

/// A server that answers after this delay.
fn slow_server(after: Duration) -> TestServer {
    TestServer::start_cleartext(connection_handler(move |mut io| async move {
        let _ = io.read(&mut [0; 1024]).await;
        tokio::time::sleep(after).await;
        let _ = io.write_all(ok_response("", "").as_bytes()).await;
        let _ = io.read(&mut [0; 1]).await;
    }))
}

/// Starts probes of `addresses`, and blocks their thread for `blocked` after a while.
fn probe_with_blocked_thread(addresses: &[SocketAddr], blocked: Duration) -> Vec<ProbeOutcome> {
    run_on_one_thread(async {
        let prober = Rc::new(Prober::default());
        let tasks: Vec<_> = addresses
            .iter()
            .map(|&address| {
                let prober = Rc::clone(&prober);
                tokio::task::spawn_local(async move {
                    let spec = spec("{ http = \"/\" }");
                    prober.probe(address, &spec, ms(500), &ProbeConnectionCache::default()).await
                })
            })
            .collect();
        tokio::time::sleep(ms(100)).await;
        std::thread::sleep(blocked);
        let mut outcomes = Vec::new();
        for task in tasks {
            outcomes.push(task.await.expect("an outcome"));
        }
        outcomes
    })
}

#[test]
fn blocked_thread_causes_no_probe_failures() {
    // The last endpoint answers when the thread is back, after any plain timeout.
    let servers: Vec<_> = [0, 50, 150, 300, 400, 1_250].map(|after| slow_server(ms(after))).into();
    let addresses: Vec<_> = servers.iter().map(|server| server.address).collect();
    for outcome in probe_with_blocked_thread(&addresses, ms(1_000)) {
        assert!(is_pass(outcome), "{outcome:?}");
        assert!(outcome.latency() < Some(ms(600)), "{outcome:?}: its own time only");
    }
    // So long that the remaining time gives no evidence.
    for outcome in probe_with_blocked_thread(&addresses, ms(2_000)) {
        assert!(!matches!(outcome, ProbeOutcome::Fail(_)), "{outcome:?}");
    }
}

#[test]
fn silent_endpoint_fails_despite_blocked_thread() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let silent = listener.local_addr().expect("bound");
    assert_eq!(
        probe_with_blocked_thread(&[silent], ms(1_000)),
        [failed_outcome(FailureLayer::Http, FailureReason::Timeout)]
    );
}
