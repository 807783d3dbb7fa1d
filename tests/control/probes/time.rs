//! Time in which this process did not look does not count against an endpoint.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::rc::Rc;
use std::time::Duration;

use gapless::logic::outcome::{Layer, Outcome, Reason};
use gapless::net::prober::{Kept, Prober};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{failed, ms, on_one_thread, passes, spec};
use crate::support::server::{Server, ok, serving};

/// Answers after this long.
fn slow(after: Duration) -> Server {
    Server::plain(serving(move |mut io| async move {
        let _ = io.read(&mut [0; 1024]).await;
        tokio::time::sleep(after).await;
        let _ = io.write_all(ok("", "").as_bytes()).await;
        let _ = io.read(&mut [0; 1]).await;
    }))
}

/// Begins probes of `addresses`, and lets their thread sleep for `blocked` after a while.
fn ask_blocked(addresses: &[SocketAddr], blocked: Duration) -> Vec<Outcome> {
    on_one_thread(async {
        let prober = Rc::new(Prober::default());
        let tasks: Vec<_> = addresses
            .iter()
            .map(|&address| {
                let prober = Rc::clone(&prober);
                tokio::task::spawn_local(async move {
                    let spec = spec("{ http = \"/\" }");
                    prober.probe(address, &spec, ms(500), &Kept::default()).await
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
fn a_thread_that_was_held_up_blames_nobody() {
    // The last one answers when the thread is back, later than any clock would have waited.
    let servers: Vec<_> = [0, 50, 150, 300, 400, 1_250].map(|after| slow(ms(after))).into();
    let addresses: Vec<_> = servers.iter().map(|server| server.address).collect();
    for outcome in ask_blocked(&addresses, ms(1_000)) {
        assert!(passes(outcome), "{outcome:?}");
        assert!(outcome.latency() < Some(ms(600)), "{outcome:?}: its own time only");
    }
    // So long that what is left of the time says nothing.
    for outcome in ask_blocked(&addresses, ms(2_000)) {
        assert!(!matches!(outcome, Outcome::Fail(_)), "{outcome:?}");
    }
}

#[test]
fn who_is_silent_all_the_same_has_failed() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let silent = listener.local_addr().expect("bound");
    assert_eq!(ask_blocked(&[silent], ms(1_000)), [failed(Layer::Http, Reason::Timeout)]);
}
