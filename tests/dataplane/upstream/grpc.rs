//! Calls of gRPC: answers of the proxy's own, and deadlines.

use h2::Reason;

use super::QUIET;
use super::peer::Did;
use crate::support::client::{Answer, Client};
use crate::support::config::Config;
use crate::support::instance::Gapless;
use crate::support::server::Server;
use crate::support::{HeldPort, SOON, eventually};

fn call(gapless: &Gapless, path: &str, fields: &[(&str, &str)]) -> Answer {
    let fields = [&[("content-type", "application/grpc+proto")], fields].concat();
    let mut client = Client::open(gapless.address);
    client.exchange("POST", path, &fields, b"\0\0\0\0\0").expect("an answer")
}

#[track_caller]
fn says(answer: &Answer, status: &str, reason: &str) {
    assert_eq!((answer.status, answer.field("content-type")), (200, Some("application/grpc")));
    let message = format!("gapless: {reason}");
    let said = ["grpc-status", "grpc-message", "x-gapless-reason"].map(|name| answer.field(name));
    assert_eq!(said, [Some(status), Some(message.as_str()), Some(reason)]);
    assert!(answer.body.is_empty());
}

fn start(endpoint: std::net::SocketAddr) -> Gapless {
    let lines = format!("{QUIET}\noptimistic = true\nprotocol = \"http2\"");
    let config = Config::new().route("path = \"/\"\nhost = \"test.example\"").pool(&lines);
    Gapless::start(&config.zone("a/b", &[endpoint]))
}

#[test]
fn what_the_proxy_answers_itself_a_client_understands() {
    let refusing = HeldPort::take();
    let gapless = start(refusing.address());
    says(&call(&gapless, "/a.B/C", &[]), "14", "connect_failed");
    let mut client = Client::open(gapless.address);
    let elsewhere = "POST /a.B/C HTTP/1.1\r\nhost: other\r\ncontent-type: application/grpc\r\n\
                     content-length: 0\r\n\r\n";
    client.send(elsewhere).expect("sent");
    says(&client.answer("POST").expect("an answer"), "12", "no_route");
    let mut client = Client::open(gapless.address);
    let fields = [("content-type", "application/json")];
    let plain = client.exchange("POST", "/", &fields, b"{}").expect("an answer");
    assert_eq!(plain.verdict(), (502, Some("connect_failed")));
}

#[test]
fn a_deadline_ends_the_call_here_and_at_the_endpoint() {
    let did = Did::new("web", 100);
    let server = Server::plain(did.serve());
    let gapless = start(server.address);
    gapless.wait_all_up();
    let answer = call(&gapless, "/hang", &[("grpc-timeout", "300m")]);
    says(&answer, "4", "deadline_exceeded");
    eventually("the endpoint hears of it", SOON, || did.resets() == [Reason::CANCEL]);
    let answer = call(&gapless, "/grpc", &[("grpc-timeout", "60S")]);
    assert_eq!((answer.status, answer.body.len(), answer.field("grpc-status")), (200, 5, None));
    assert_eq!(did.got()[0].head.headers["grpc-timeout"], "60S");
    let traffic = &gapless.endpoint(server.address)["traffic"];
    assert_eq!((&traffic["errors"], &traffic["failed"]), (&0.into(), &0.into()));
}
