//! HTTP/1.1 probes: bodies, bounds, deadlines, redirects, cached connections.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use gapless::logic::model::outcome::{FailureLayer, FailureReason, ProbeOutcome};
use gapless::net::prober::{ProbeConnectionCache, Prober};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

use super::{
    PROBE_TIMEOUT, failed_outcome, is_pass, ms, probe_once, probe_repeatedly, probe_within,
    run_on_one_thread, spec,
};
use crate::support::eventually;
use crate::support::server::{
    ConnectionHandler, ConnectionIo, TestServer, connection_handler, http1_handler, ok_response,
};

const WRONG_BODY: ProbeOutcome = http_failure(FailureReason::Body);

const fn http_failure(reason: FailureReason) -> ProbeOutcome {
    ProbeOutcome::Fail(gapless::logic::model::outcome::Failure {
        layer: FailureLayer::Http,
        reason,
    })
}

async fn read_request_head(io: &mut Box<dyn ConnectionIo>) -> String {
    let mut text = Vec::new();
    while !text.windows(4).any(|window| window == b"\r\n\r\n") {
        if io.read_buf(&mut text).await.unwrap_or(0) == 0 {
            break;
        }
    }
    String::from_utf8(text).expect("text")
}

#[test]
fn body_is_matched_by_text_regex_and_json() {
    let server = TestServer::start_cleartext(http1_handler(&ok_response(
        "",
        "{\"status\": \"ok\", \"peers\": [3, 4]}",
    )));
    let probe =
        |keys: &str| probe_once(server.address, &spec(&format!("{{ http = \"/\", {keys} }}")));
    assert!(is_pass(probe("expect_body = \"peers\"")));
    assert!(is_pass(probe("expect_body_regex = '\"status\": \"(ok|good)\"'")));
    assert!(is_pass(probe("expect_json = { pointer = \"/status\", equals = \"ok\" }")));
    assert!(is_pass(probe("expect_json = { pointer = \"/peers/1\", equals = 4 }")));
    assert_eq!(probe("expect_body = \"pears\""), WRONG_BODY);
    assert_eq!(probe("expect_body_regex = '^\"status\"'"), WRONG_BODY);
    assert_eq!(probe("expect_json = { pointer = \"/peers/1\", equals = \"4\" }"), WRONG_BODY);
    assert_eq!(probe("expect_json = { pointer = \"/none\", equals = 4 }"), WRONG_BODY);
    let all = "expect_body = \"peers\", expect_body_regex = \"ok\", \
               expect_json = { pointer = \"/status\", equals = \"bad\" }";
    assert_eq!(probe(all), WRONG_BODY, "all of them must hold");
}

#[test]
fn passing_probe_can_be_degraded() {
    let server = TestServer::start_cleartext(http1_handler(&ok_response(
        "X-Health: degraded\r\n",
        "{\"load\": \"high\"}",
    )));
    let probe_degraded = |by: &str| {
        probe_once(server.address, &spec(&format!("{{ http = \"/\", degraded = {{ {by} }} }}")))
    };
    let is_degraded = |outcome| matches!(outcome, ProbeOutcome::Degraded { .. });
    assert!(is_degraded(probe_degraded("header = \"x-health: degraded\"")));
    assert!(is_degraded(probe_degraded("json = { pointer = \"/load\", equals = \"high\" }")));
    assert!(is_pass(probe_degraded("header = \"x-health: fine\"")));
    assert!(is_pass(probe_degraded("json = { pointer = \"/load\", equals = \"low\" }")));
    let failing =
        "{ http = \"/\", expect_status = 204, degraded = { header = \"x-health: degraded\" } }";
    assert_eq!(
        probe_once(server.address, &spec(failing)),
        http_failure(FailureReason::Status(200))
    );
}

#[test]
fn redirects_are_not_followed() {
    let target = TestServer::start_cleartext(http1_handler(&ok_response("", "")));
    let location = format!("location: http://{}/\r\n", target.address);
    let answer = format!("HTTP/1.1 302 Found\r\n{location}content-length: 0\r\n\r\n");
    let server = TestServer::start_cleartext(http1_handler(&answer));
    let probe =
        |keys: &str| probe_once(server.address, &spec(&format!("{{ http = \"/\"{keys} }}")));
    assert_eq!(probe(""), http_failure(FailureReason::Status(302)));
    assert!(is_pass(probe(", expect_status = 302")));
    assert_eq!(target.accepted_count(), 0);
}

#[test]
fn endless_body_is_read_only_up_to_limit() {
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let server = TestServer::start_cleartext(connection_handler(move |mut io| {
        let count = Arc::clone(&count);
        async move {
            read_request_head(&mut io).await;
            let _ = io.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9000000000\r\n\r\n").await;
            while io.write_all(&[b'.'; 16384]).await.is_ok() {
                count.fetch_add(16384, SeqCst);
            }
        }
    }));
    let probe =
        |keys: &str| probe_once(server.address, &spec(&format!("{{ http = \"/\"{keys} }}")));
    assert!(is_pass(probe("")), "the head is enough");
    assert_eq!(probe(", expect_body = \"!\""), WRONG_BODY);
    assert!(is_pass(probe(", expect_body_regex = '^\\.{1000}$', read = 1000")));
    // The sockets hold unread bytes.
    assert!(sent.load(SeqCst) < 64 << 20, "{sent:?}");
}

#[test]
fn first_byte_timeout_is_separate_from_probe_timeout() {
    let slow_server = |head: Duration, body: Duration| {
        TestServer::start_cleartext(connection_handler(move |mut io| async move {
            read_request_head(&mut io).await;
            tokio::time::sleep(head).await;
            let _ = io.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n").await;
            let _ = io.flush().await;
            tokio::time::sleep(body).await;
            let _ = io.write_all(b"late").await;
            let _ = io.read(&mut [0; 1]).await;
        }))
    };
    let probe = spec("{ http = \"/\", first_byte = \"150ms\", expect_body = \"late\" }");
    let started = Instant::now();
    let slow_head = slow_server(ms(3_000), ms(0));
    assert_eq!(probe_once(slow_head.address, &probe), http_failure(FailureReason::Timeout));
    assert!(started.elapsed() < ms(2_000), "{:?}", started.elapsed());
    let slow_body = slow_server(ms(0), ms(400));
    assert!(is_pass(probe_once(slow_body.address, &probe)));
    assert_eq!(
        probe_within(slow_body.address, &probe, ms(250)),
        http_failure(FailureReason::Timeout)
    );
}

#[test]
fn reused_connection_serves_all_probes() {
    let server = TestServer::start_cleartext(http1_handler(&ok_response("", "some text")));
    let reusing_probe = spec("{ http = \"/\", reuse = true, expect_body = \"text\" }");
    assert!(probe_repeatedly(server.address, &reusing_probe, 5).into_iter().all(is_pass));
    assert_eq!(server.accepted_count(), 1);
    let fresh_probe = spec("{ http = \"/\" }");
    assert!(probe_repeatedly(server.address, &fresh_probe, 5).into_iter().all(is_pass));
    assert_eq!(server.accepted_count(), 6);
}

#[test]
fn closed_reused_connection_is_not_a_failure() {
    let server = TestServer::start_cleartext(connection_handler(|mut io| async move {
        read_request_head(&mut io).await;
        let _ = io.write_all(ok_response("", "").as_bytes()).await;
    }));
    let reusing_probe = spec("{ http = \"/\", reuse = true }");
    assert!(probe_repeatedly(server.address, &reusing_probe, 5).into_iter().all(is_pass));
    assert_eq!(server.accepted_count(), 5);
    let closing =
        TestServer::start_cleartext(http1_handler(&ok_response("connection: close\r\n", "")));
    assert!(probe_repeatedly(closing.address, &reusing_probe, 3).into_iter().all(is_pass));
    assert_eq!(closing.accepted_count(), 3, "`connection: close` prevents reuse");
}

#[test]
fn request_is_sent_exactly_as_configured() {
    let (request_sender, request_receiver) = mpsc::channel();
    let server = TestServer::start_cleartext(connection_handler(move |mut io| {
        let request_sender = request_sender.clone();
        async move {
            let mut text = read_request_head(&mut io).await;
            if !text.contains("hello") && text.contains("content-length") {
                let mut rest = [0; 5];
                io.read_exact(&mut rest).await.expect("the body");
                text.push_str(&String::from_utf8_lossy(&rest));
            }
            let _ = io.write_all(ok_response("", "").as_bytes()).await;
            request_sender.send(text).expect("heard");
        }
    }));
    let probe = spec(
        "{ http = \"/a?b=c\", body = \"hello\", host = \"web:1\", headers = { x-a = \"1\" } }",
    );
    assert!(is_pass(probe_once(server.address, &probe)));
    let text = request_receiver.recv().expect("a request");
    assert_eq!(
        text,
        "POST /a?b=c HTTP/1.1\r\nhost: web:1\r\nuser-agent: gapless-probe\r\nx-a: 1\r\n\
         content-length: 5\r\nconnection: close\r\n\r\nhello"
    );
    assert_eq!(server.accepted_count(), 1, "no second connection for what may count twice");
}

#[test]
fn silent_get_is_retried_on_new_connection_but_post_is_not() {
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    // Every second connection gets a response.
    let server = TestServer::start_cleartext(connection_handler(move |mut io| {
        let number = count.fetch_add(1, SeqCst);
        async move {
            read_request_head(&mut io).await;
            if number % 2 == 1 {
                let _ = io.write_all(ok_response("", "").as_bytes()).await;
            }
            let _ = io.read(&mut [0; 1]).await;
        }
    }));
    let ProbeOutcome::Pass { latency } =
        probe_within(server.address, &spec("{ http = \"/\" }"), ms(2_000))
    else {
        panic!("no pass")
    };
    assert!(latency < ms(180), "{latency:?} is that of the second attempt, which began after 200");
    assert_eq!(server.accepted_count(), 2);
    let post = spec("{ http = \"/\", body = \"x\" }");
    assert_eq!(
        probe_within(server.address, &post, ms(300)),
        failed_outcome(FailureLayer::Http, FailureReason::Timeout)
    );
    assert_eq!(server.accepted_count(), 3);
}

/// Starts its response, and writes the rest on a signal.
fn two_part_response(resume: &Arc<Notify>, write_result: &mpsc::Sender<bool>) -> ConnectionHandler {
    let (resume, write_result) = (Arc::clone(resume), write_result.clone());
    Arc::new(move |mut io| {
        let (resume, write_result) = (Arc::clone(&resume), write_result.clone());
        Box::pin(async move {
            read_request_head(&mut io).await;
            io.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n").await.expect("written");
            resume.notified().await;
            write_result.send(io.write_all(b"well").await.is_ok()).expect("heard");
            // Waits until the prober closes.
            let _ = io.read(&mut [0]).await;
        })
    })
}

#[test]
fn unfinished_response_is_not_cut_off() {
    let (write_sender, write_receiver) = mpsc::channel();
    let resume = Arc::new(Notify::new());
    let server = TestServer::start_cleartext(two_part_response(&resume, &write_sender));
    let (prober, cache) = (Prober::default(), ProbeConnectionCache::default());
    let probe = |page: &str| {
        let page = spec(page);
        run_on_one_thread(async {
            prober.probe(server.address, &page, PROBE_TIMEOUT, &cache).await
        })
    };
    let completes_write = || {
        resume.notify_one();
        write_receiver.recv_timeout(PROBE_TIMEOUT).expect("tried")
    };
    assert!(is_pass(probe("{ http = \"/\" }")) && completes_write());
    let wrong_status = probe("{ http = \"/\", expect_status = 204 }");
    assert_eq!(wrong_status, http_failure(FailureReason::Status(200)));
    assert!(completes_write());
    std::thread::sleep(ms(60));
    probe("{ http = \"/\" }");
    eventually("those of before to be closed", PROBE_TIMEOUT, || {
        server.open_connection_count() == 1
    });
}
