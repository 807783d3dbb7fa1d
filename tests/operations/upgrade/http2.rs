//! HTTP/2 clients during upgrades: GOAWAY states which streams were processed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use h2::client::SendRequest;
use tokio::net::TcpStream;

use super::config_for;
use crate::support::endpoint::TestEndpoint;
use crate::support::instance::Gapless;
use crate::support::{DEFAULT_TIMEOUT, eventually};

async fn connect(address: SocketAddr) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(address).await.expect("a connection");
    let (client, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
    tokio::task::spawn_local(connection);
    client
}

/// One request; on a new connection if no stream can be opened, or if GOAWAY says
/// that the stream was not processed (RFC 9113 6.8).
async fn send_request(
    address: SocketAddr,
    connection: &mut Option<SendRequest<Bytes>>,
) -> Result<(), String> {
    let request = || http::Request::get("http://a.example/").body(()).expect("a request");
    let response = loop {
        let client = match connection.take() {
            Some(client) => client,
            None => connect(address).await,
        };
        // GOAWAY has arrived.
        let Ok(mut client) = client.ready().await else { continue };
        let Ok((response, _)) = client.send_request(request(), true) else { continue };
        match response.await {
            Ok(response) => {
                *connection = Some(client);
                break response;
            }
            Err(error) if error.is_go_away() && error.reason() == Some(Reason::NO_ERROR) => {}
            Err(error) => return Err(error.to_string()),
        }
    };
    if response.status() != 200 {
        return Err(response.status().to_string());
    }
    let mut body = response.into_body();
    while let Some(data) = body.data().await {
        data.map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn run_client(address: SocketAddr, stop: &AtomicBool, answered: &AtomicU64) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    tokio::task::LocalSet::new().block_on(&runtime.expect("a runtime"), async {
        let (mut failures, mut connection) = (Vec::new(), None);
        while !stop.load(SeqCst) {
            match send_request(address, &mut connection).await {
                Ok(()) => {
                    answered.fetch_add(1, SeqCst);
                }
                Err(error) => failures.push(error),
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        failures
    })
}

#[test]
fn no_http2_stream_fails_over_five_upgrades() {
    let one = TestEndpoint::start("one");
    let gapless = Gapless::start_ready(&config_for(&one));
    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let (stop_flag, count, address) = (Arc::clone(&stop), Arc::clone(&answered), gapless.address);
    let client = std::thread::spawn(move || run_client(address, &stop_flag, &count));
    for _ in 0..5 {
        let before = answered.load(SeqCst);
        gapless.upgrade();
        eventually("requests go on", DEFAULT_TIMEOUT, || answered.load(SeqCst) > before + 20);
    }
    gapless.wait_for_single_process(4 * DEFAULT_TIMEOUT);
    stop.store(true, SeqCst);
    let failures = client.join().expect("no panic");
    assert!(failures.is_empty(), "{failures:?}");
    let answered = answered.load(SeqCst);
    assert_eq!(
        one.requests().len() as u64,
        answered,
        "what was asked for again was not done before"
    );
}
