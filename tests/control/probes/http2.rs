//! HTTP/2 probes by prior knowledge and by ALPN, and gRPC health checks.

use ::http::{Response, Version};
use bytes::Bytes;
use gapless::logic::model::outcome::{FailureClass, FailureLayer, FailureReason, ProbeOutcome};
use http_body_util::Full;
use tempfile::TempDir;

use super::{
    failed_outcome, is_pass, ms, probe_once, probe_repeatedly, probe_with_pauses, spec, spec_at,
};
use crate::support::pki::{CertificateAuthority, CertificateValidity, ClientAuth};
use crate::support::server::{
    ConnectionHandler, GrpcHealth, TestServer, connection_handler, grpc_health_handler,
    http1_handler, http2_handler, ok_response,
};

/// Echoes the request line; `/bad` is a 503.
fn echo() -> ConnectionHandler {
    http2_handler(|request| {
        let status = if request.uri().path() == "/bad" { 503 } else { 200 };
        let authority = request.uri().authority().map_or("", |authority| authority.as_str());
        let text = format!(
            "{} {} {:?} {}",
            request.method(),
            authority,
            request.version() == Version::HTTP_2,
            request.headers().get("x-probe").map_or("-", |value| value.to_str().unwrap_or("?"))
        );
        let response = Response::builder().status(status).header("x-health", "degraded");
        response.body(Full::new(Bytes::from(text))).expect("a response")
    })
}

#[test]
fn http2_probe_checks_request_and_response() {
    let server = TestServer::start_cleartext(echo());
    let page =
        |keys: &str| probe_once(server.address, &spec(&format!("{{ http2 = \"/\", {keys} }}")));
    assert!(is_pass(page(&format!("expect_body = \"GET {} true -\"", server.address))));
    assert!(is_pass(page(
        "host = \"web\", headers = { x-probe = \"a\" }, expect_body = \"web true a\""
    )));
    assert!(is_pass(page("body = \"question\", expect_body_regex = \"^POST \"")));
    assert_eq!(
        page("expect_body = \"other\""),
        failed_outcome(FailureLayer::Http, FailureReason::Body)
    );
    assert!(matches!(
        page("degraded = { header = \"x-health: degraded\" }"),
        ProbeOutcome::Degraded { .. }
    ));
    let bad = probe_once(server.address, &spec("{ http2 = \"/bad\" }"));
    assert_eq!(bad, failed_outcome(FailureLayer::Http, FailureReason::Status(503)));
    let http1_server = TestServer::start_cleartext(http1_handler(&ok_response("", "")));
    assert_eq!(
        probe_once(http1_server.address, &spec("{ http2 = \"/\" }")),
        failed_outcome(FailureLayer::Http, FailureReason::Malformed)
    );
}

#[test]
fn http2_over_tls_requires_alpn() {
    let authority = CertificateAuthority::new("tests");
    let directory = TempDir::new().expect("a directory");
    std::fs::write(directory.path().join("ca.pem"), authority.pem()).expect("written");
    let identity = authority.server_certificate(&["127.0.0.1"], CertificateValidity::Current);
    let serving = |alpn: &[&str]| {
        TestServer::start_tls(identity.server_config(&ClientAuth::NotRequested, alpn), echo())
    };
    let page = spec_at(directory.path(), "{ http2 = \"/\", tls = { ca_file = \"ca.pem\" } }");
    let h2_and_http1 = serving(&["h2", "http/1.1"]);
    assert!(is_pass(probe_once(h2_and_http1.address, &page)));
    for other in [&["http/1.1"][..], &[]] {
        let server = serving(other);
        assert_eq!(
            probe_once(server.address, &page),
            failed_outcome(FailureLayer::Tls, FailureReason::Handshake),
            "{other:?}"
        );
    }
}

#[test]
fn grpc_health_statuses_map_to_outcomes() {
    let server = TestServer::start_cleartext(grpc_health_handler(|service| match service {
        "" | "up" => GrpcHealth::ServingStatus(1),
        "down" => GrpcHealth::ServingStatus(2),
        "unset" => GrpcHealth::ServingStatus(0),
        "busy" => GrpcHealth::CallStatus("14"),
        _ => GrpcHealth::CallStatus("5"),
    }));
    let health =
        |service: &str| probe_once(server.address, &spec(&format!("{{ grpc = \"{service}\" }}")));
    assert!(is_pass(health("")));
    assert!(is_pass(health("up")));
    assert_eq!(health("down"), failed_outcome(FailureLayer::Grpc, FailureReason::NotServing));
    assert_eq!(health("unset"), failed_outcome(FailureLayer::Grpc, FailureReason::NotServing));
    assert_eq!(health("busy"), failed_outcome(FailureLayer::Grpc, FailureReason::GrpcStatus(14)));
    assert_eq!(health("who"), failed_outcome(FailureLayer::Grpc, FailureReason::GrpcStatus(5)));
    let page = TestServer::start_cleartext(echo());
    let outcome = probe_once(page.address, &spec("{ grpc = \"\" }"));
    assert_eq!(outcome, failed_outcome(FailureLayer::Http, FailureReason::Malformed), "no gRPC");
    let ProbeOutcome::Fail(failure) = health("down") else { panic!("no failure") };
    assert_eq!(
        (failure.class(), failure.to_string().as_str()),
        (FailureClass::BadStatus, "grpc not serving")
    );
}

#[test]
fn reused_connection_carries_many_checks() {
    let server = TestServer::start_cleartext(grpc_health_handler(|_| GrpcHealth::ServingStatus(1)));
    let reusing_probe = spec("{ grpc = \"\", reuse = true }");
    assert!(probe_repeatedly(server.address, &reusing_probe, 5).into_iter().all(is_pass));
    assert_eq!(server.accepted_count(), 1);
    let server = TestServer::start_cleartext(echo());
    assert!(
        probe_repeatedly(server.address, &spec("{ http2 = \"/\", reuse = true }"), 5)
            .into_iter()
            .all(is_pass)
    );
    assert_eq!(server.accepted_count(), 1);
    assert!(
        probe_repeatedly(server.address, &spec("{ http2 = \"/\" }"), 5).into_iter().all(is_pass)
    );
    assert_eq!(server.accepted_count(), 6);
}

/// Answers one check, then closes with or without GOAWAY.
fn single_check_server(should_send_goaway: bool) -> ConnectionHandler {
    connection_handler(move |io| async move {
        let Ok(mut connection) = h2::server::handshake(io).await else { return };
        let Some(Ok((_, mut respond))) = connection.accept().await else { return };
        let _ = respond.send_response(Response::new(()), true);
        if should_send_goaway {
            connection.graceful_shutdown();
        }
        // Flushes the remaining frames.
        let closed = tokio::time::timeout(ms(50), connection.accept()).await;
        assert!(closed.is_err() || should_send_goaway);
    })
}

#[test]
fn closed_reused_connection_is_not_a_failure() {
    for should_send_goaway in [true, false] {
        let server = TestServer::start_cleartext(single_check_server(should_send_goaway));
        let reusing_probe = spec("{ http2 = \"/\", reuse = true }");
        for outcome in probe_with_pauses(server.address, &reusing_probe, 4) {
            assert!(is_pass(outcome), "{outcome:?}");
        }
        assert_eq!(server.accepted_count(), 4);
    }
}
