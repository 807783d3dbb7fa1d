//! gRPC calls: local replies and deadlines.

use h2::Reason;

use super::WITHOUT_VERDICTS;
use super::http2_endpoint::H2EndpointState;
use crate::support::client::{TestClient, TestResponse};
use crate::support::config::ConfigBuilder;
use crate::support::instance::Gapless;
use crate::support::server::TestServer;
use crate::support::{DEFAULT_TIMEOUT, ReservedPort, eventually};

fn grpc_call(gapless: &Gapless, path: &str, fields: &[(&str, &str)]) -> TestResponse {
    let fields = [&[("content-type", "application/grpc+proto")], fields].concat();
    let mut client = TestClient::open(gapless.address);
    client.exchange("POST", path, &fields, b"\0\0\0\0\0").expect("an answer")
}

#[track_caller]
fn assert_grpc_error(answer: &TestResponse, status: &str, reason: &str) {
    assert_eq!((answer.status, answer.field("content-type")), (200, Some("application/grpc")));
    let message = format!("gapless: {reason}");
    let fields = ["grpc-status", "grpc-message", "x-gapless-reason"].map(|name| answer.field(name));
    assert_eq!(fields, [Some(status), Some(message.as_str()), Some(reason)]);
    assert!(answer.body.is_empty());
}

fn start_optimistic(endpoint: std::net::SocketAddr) -> Gapless {
    let lines = format!("{WITHOUT_VERDICTS}\noptimistic = true\nprotocol = \"http2\"");
    let config = ConfigBuilder::new().route("path = \"/\"\nhost = \"test.example\"").pool(&lines);
    Gapless::start(&config.zone("a/b", &[endpoint]))
}

#[test]
fn own_error_of_a_grpc_call_is_a_grpc_status() {
    let refusing = ReservedPort::reserve();
    let gapless = start_optimistic(refusing.address());
    assert_grpc_error(&grpc_call(&gapless, "/a.B/C", &[]), "14", "connect_failed");
    let mut client = TestClient::open(gapless.address);
    let unrouted_request = "POST /a.B/C HTTP/1.1\r\nhost: other\r\ncontent-type: application/grpc\r\n\
                     content-length: 0\r\n\r\n";
    client.send(unrouted_request).expect("sent");
    assert_grpc_error(&client.read_response("POST").expect("an answer"), "12", "no_route");
    let mut client = TestClient::open(gapless.address);
    let fields = [("content-type", "application/json")];
    let plain = client.exchange("POST", "/", &fields, b"{}").expect("an answer");
    assert_eq!(plain.status_and_reason(), (502, Some("connect_failed")));
}

#[test]
fn grpc_timeout_cancels_the_call_at_the_endpoint() {
    let state = H2EndpointState::new("web", 100);
    let server = TestServer::start_cleartext(state.serve());
    let gapless = start_optimistic(server.address);
    gapless.wait_all_up();
    let answer = grpc_call(&gapless, "/hang", &[("grpc-timeout", "300m")]);
    assert_grpc_error(&answer, "4", "deadline_exceeded");
    eventually("the endpoint hears of it", DEFAULT_TIMEOUT, || state.resets() == [Reason::CANCEL]);
    let answer = grpc_call(&gapless, "/grpc", &[("grpc-timeout", "60S")]);
    assert_eq!((answer.status, answer.body.len(), answer.field("grpc-status")), (200, 5, None));
    assert_eq!(state.received()[0].head.headers["grpc-timeout"], "60S");
    let traffic = &gapless.endpoint(server.address)["traffic"];
    assert_eq!((&traffic["errors"], &traffic["failed"]), (&0.into(), &0.into()));
}
