//! HTTP/2 by prior knowledge and by ALPN, and gRPC's health check on top of it.

use ::http::{Response, Version};
use bytes::Bytes;
use gapless::logic::outcome::{Class, Layer, Outcome, Reason};
use http_body_util::Full;
use tempfile::TempDir;

use super::{ask, ask_often, ask_with_pauses, failed, ms, passes, spec, spec_at};
use crate::support::pki::{Authority, Clients, Valid};
use crate::support::server::{Health, Serve, Server, grpc, http1, http2, ok, serving};

/// Says how it was asked; `/bad` is a 503.
fn echo() -> Serve {
    http2(|request| {
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
fn a_page_over_http2() {
    let server = Server::plain(echo());
    let page = |keys: &str| ask(server.address, &spec(&format!("{{ http2 = \"/\", {keys} }}")));
    assert!(passes(page(&format!("expect_body = \"GET {} true -\"", server.address))));
    assert!(passes(page(
        "host = \"web\", headers = { x-probe = \"a\" }, expect_body = \"web true a\""
    )));
    assert!(passes(page("body = \"question\", expect_body_regex = \"^POST \"")));
    assert_eq!(page("expect_body = \"other\""), failed(Layer::Http, Reason::Body));
    assert!(matches!(
        page("degraded = { header = \"x-health: degraded\" }"),
        Outcome::Degraded { .. }
    ));
    let bad = ask(server.address, &spec("{ http2 = \"/bad\" }"));
    assert_eq!(bad, failed(Layer::Http, Reason::Status(503)));
    let old = Server::plain(http1(&ok("", "")));
    assert_eq!(
        ask(old.address, &spec("{ http2 = \"/\" }")),
        failed(Layer::Http, Reason::Malformed)
    );
}

#[test]
fn http2_over_tls_is_agreed_on() {
    let authority = Authority::new("tests");
    let directory = TempDir::new().expect("a directory");
    std::fs::write(directory.path().join("ca.pem"), authority.pem()).expect("written");
    let identity = authority.server(&["127.0.0.1"], Valid::Now);
    let serving = |alpn: &[&str]| Server::tls(identity.server_config(&Clients::Any, alpn), echo());
    let page = spec_at(directory.path(), "{ http2 = \"/\", tls = { ca_file = \"ca.pem\" } }");
    let both = serving(&["h2", "http/1.1"]);
    assert!(passes(ask(both.address, &page)));
    for other in [&["http/1.1"][..], &[]] {
        let server = serving(other);
        assert_eq!(ask(server.address, &page), failed(Layer::Tls, Reason::Handshake), "{other:?}");
    }
}

#[test]
fn grpc_health() {
    let server = Server::plain(grpc(|service| match service {
        "" | "up" => Health::Status(1),
        "down" => Health::Status(2),
        "unset" => Health::Status(0),
        "busy" => Health::Call("14"),
        _ => Health::Call("5"),
    }));
    let health = |service: &str| ask(server.address, &spec(&format!("{{ grpc = \"{service}\" }}")));
    assert!(passes(health("")));
    assert!(passes(health("up")));
    assert_eq!(health("down"), failed(Layer::Grpc, Reason::NotServing));
    assert_eq!(health("unset"), failed(Layer::Grpc, Reason::NotServing));
    assert_eq!(health("busy"), failed(Layer::Grpc, Reason::GrpcStatus(14)));
    assert_eq!(health("who"), failed(Layer::Grpc, Reason::GrpcStatus(5)));
    let page = Server::plain(echo());
    let outcome = ask(page.address, &spec("{ grpc = \"\" }"));
    assert_eq!(outcome, failed(Layer::Http, Reason::Malformed), "no gRPC");
    let Outcome::Fail(failure) = health("down") else { panic!("no failure") };
    assert_eq!(
        (failure.class(), failure.to_string().as_str()),
        (Class::BadStatus, "grpc not serving")
    );
}

#[test]
fn one_connection_carries_many_checks() {
    let server = Server::plain(grpc(|_| Health::Status(1)));
    let kept = spec("{ grpc = \"\", reuse = true }");
    assert!(ask_often(server.address, &kept, 5).into_iter().all(passes));
    assert_eq!(server.accepted(), 1);
    let server = Server::plain(echo());
    assert!(
        ask_often(server.address, &spec("{ http2 = \"/\", reuse = true }"), 5)
            .into_iter()
            .all(passes)
    );
    assert_eq!(server.accepted(), 1);
    assert!(ask_often(server.address, &spec("{ http2 = \"/\" }"), 5).into_iter().all(passes));
    assert_eq!(server.accepted(), 6);
}

/// Answers one check, then closes: with a word of it, or without.
fn one_check(with_a_word: bool) -> Serve {
    serving(move |io| async move {
        let Ok(mut connection) = h2::server::handshake(io).await else { return };
        let Some(Ok((_, mut respond))) = connection.accept().await else { return };
        let _ = respond.send_response(Response::new(()), true);
        if with_a_word {
            connection.graceful_shutdown();
        }
        // Sends what is left to send.
        let closed = tokio::time::timeout(ms(50), connection.accept()).await;
        assert!(closed.is_err() || with_a_word);
    })
}

#[test]
fn a_kept_connection_that_was_closed_meanwhile_says_nothing() {
    for with_a_word in [true, false] {
        let server = Server::plain(one_check(with_a_word));
        let kept = spec("{ http2 = \"/\", reuse = true }");
        for outcome in ask_with_pauses(server.address, &kept, 4) {
            assert!(passes(outcome), "{outcome:?}");
        }
        assert_eq!(server.accepted(), 4);
    }
}
