//! HTTP/1.1: bodies, bounds, deadlines, redirects, kept connections.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use gapless::logic::outcome::{Layer, Outcome, Reason};
use gapless::net::prober::{Kept, Prober};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

use super::{PATIENCE, ask, ask_often, ask_within, failed, ms, on_one_thread, passes, spec};
use crate::support::eventually;
use crate::support::server::{Io, Serve, Server, http1, ok, serving};

const BODY: Outcome = failed_http(Reason::Body);

const fn failed_http(reason: Reason) -> Outcome {
    Outcome::Fail(gapless::logic::outcome::Failure { layer: Layer::Http, reason })
}

/// Reads a head.
async fn request(io: &mut Box<dyn Io>) -> String {
    let mut text = Vec::new();
    while !text.windows(4).any(|window| window == b"\r\n\r\n") {
        if io.read_buf(&mut text).await.unwrap_or(0) == 0 {
            break;
        }
    }
    String::from_utf8(text).expect("text")
}

#[test]
fn a_body_is_judged_by_text_pattern_and_field() {
    let server = Server::plain(http1(&ok("", "{\"status\": \"ok\", \"peers\": [3, 4]}")));
    let page = |keys: &str| ask(server.address, &spec(&format!("{{ http = \"/\", {keys} }}")));
    assert!(passes(page("expect_body = \"peers\"")));
    assert!(passes(page("expect_body_regex = '\"status\": \"(ok|good)\"'")));
    assert!(passes(page("expect_json = { pointer = \"/status\", equals = \"ok\" }")));
    assert!(passes(page("expect_json = { pointer = \"/peers/1\", equals = 4 }")));
    assert_eq!(page("expect_body = \"pears\""), BODY);
    assert_eq!(page("expect_body_regex = '^\"status\"'"), BODY);
    assert_eq!(page("expect_json = { pointer = \"/peers/1\", equals = \"4\" }"), BODY);
    assert_eq!(page("expect_json = { pointer = \"/none\", equals = 4 }"), BODY);
    let all = "expect_body = \"peers\", expect_body_regex = \"ok\", \
               expect_json = { pointer = \"/status\", equals = \"bad\" }";
    assert_eq!(page(all), BODY, "all of them must hold");
}

#[test]
fn a_pass_may_be_degraded() {
    let server = Server::plain(http1(&ok("X-Health: degraded\r\n", "{\"load\": \"high\"}")));
    let page = |by: &str| {
        ask(server.address, &spec(&format!("{{ http = \"/\", degraded = {{ {by} }} }}")))
    };
    let degraded = |outcome| matches!(outcome, Outcome::Degraded { .. });
    assert!(degraded(page("header = \"x-health: degraded\"")));
    assert!(degraded(page("json = { pointer = \"/load\", equals = \"high\" }")));
    assert!(passes(page("header = \"x-health: fine\"")));
    assert!(passes(page("json = { pointer = \"/load\", equals = \"low\" }")));
    let failing =
        "{ http = \"/\", expect_status = 204, degraded = { header = \"x-health: degraded\" } }";
    assert_eq!(ask(server.address, &spec(failing)), failed_http(Reason::Status(200)));
}

#[test]
fn redirects_are_answers_and_not_followed() {
    let target = Server::plain(http1(&ok("", "")));
    let location = format!("location: http://{}/\r\n", target.address);
    let answer = format!("HTTP/1.1 302 Found\r\n{location}content-length: 0\r\n\r\n");
    let server = Server::plain(http1(&answer));
    let page = |keys: &str| ask(server.address, &spec(&format!("{{ http = \"/\"{keys} }}")));
    assert_eq!(page(""), failed_http(Reason::Status(302)));
    assert!(passes(page(", expect_status = 302")));
    assert_eq!(target.accepted(), 0);
}

#[test]
fn an_endless_body_is_read_to_its_bound_only() {
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let server = Server::plain(serving(move |mut io| {
        let count = Arc::clone(&count);
        async move {
            request(&mut io).await;
            let _ = io.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9000000000\r\n\r\n").await;
            while io.write_all(&[b'.'; 16384]).await.is_ok() {
                count.fetch_add(16384, SeqCst);
            }
        }
    }));
    let page = |keys: &str| ask(server.address, &spec(&format!("{{ http = \"/\"{keys} }}")));
    assert!(passes(page("")), "the head is enough");
    assert_eq!(page(", expect_body = \"!\""), BODY);
    assert!(passes(page(", expect_body_regex = '^\\.{1000}$', read = 1000")));
    // What the sockets hold was never read.
    assert!(sent.load(SeqCst) < 64 << 20, "{sent:?}");
}

#[test]
fn the_first_byte_has_a_deadline_of_its_own() {
    let slow = |head: Duration, body: Duration| {
        Server::plain(serving(move |mut io| async move {
            request(&mut io).await;
            tokio::time::sleep(head).await;
            let _ = io.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n").await;
            let _ = io.flush().await;
            tokio::time::sleep(body).await;
            let _ = io.write_all(b"late").await;
            let _ = io.read(&mut [0; 1]).await;
        }))
    };
    let probe = spec("{ http = \"/\", first_byte = \"150ms\", expect_body = \"late\" }");
    let began = Instant::now();
    let mute = slow(ms(3_000), ms(0));
    assert_eq!(ask(mute.address, &probe), failed_http(Reason::Timeout));
    assert!(began.elapsed() < ms(2_000), "{:?}", began.elapsed());
    let talkative = slow(ms(0), ms(400));
    assert!(passes(ask(talkative.address, &probe)));
    assert_eq!(ask_within(talkative.address, &probe, ms(250)), failed_http(Reason::Timeout));
}

#[test]
fn a_kept_connection_is_one_connection() {
    let server = Server::plain(http1(&ok("", "some text")));
    let kept = spec("{ http = \"/\", reuse = true, expect_body = \"text\" }");
    assert!(ask_often(server.address, &kept, 5).into_iter().all(passes));
    assert_eq!(server.accepted(), 1);
    let anew = spec("{ http = \"/\" }");
    assert!(ask_often(server.address, &anew, 5).into_iter().all(passes));
    assert_eq!(server.accepted(), 6);
}

#[test]
fn a_kept_connection_that_was_closed_meanwhile_says_nothing() {
    let server = Server::plain(serving(|mut io| async move {
        request(&mut io).await;
        let _ = io.write_all(ok("", "").as_bytes()).await;
    }));
    let kept = spec("{ http = \"/\", reuse = true }");
    assert!(ask_often(server.address, &kept, 5).into_iter().all(passes));
    assert_eq!(server.accepted(), 5);
    let closing = Server::plain(http1(&ok("connection: close\r\n", "")));
    assert!(ask_often(closing.address, &kept, 3).into_iter().all(passes));
    assert_eq!(closing.accepted(), 3, "who says that it closes is believed");
}

#[test]
fn a_question_is_asked_as_it_is_written() {
    let (said, heard) = mpsc::channel();
    let server = Server::plain(serving(move |mut io| {
        let said = said.clone();
        async move {
            let mut text = request(&mut io).await;
            if !text.contains("hello") && text.contains("content-length") {
                let mut rest = [0; 5];
                io.read_exact(&mut rest).await.expect("the body");
                text.push_str(&String::from_utf8_lossy(&rest));
            }
            let _ = io.write_all(ok("", "").as_bytes()).await;
            said.send(text).expect("heard");
        }
    }));
    let probe = spec(
        "{ http = \"/a?b=c\", body = \"hello\", host = \"web:1\", headers = { x-a = \"1\" } }",
    );
    assert!(passes(ask(server.address, &probe)));
    let text = heard.recv().expect("a request");
    assert_eq!(
        text,
        "POST /a?b=c HTTP/1.1\r\nhost: web:1\r\nuser-agent: gapless-probe\r\nx-a: 1\r\n\
         content-length: 5\r\nconnection: close\r\n\r\nhello"
    );
    assert_eq!(server.accepted(), 1, "no second connection for what may count twice");
}

#[test]
fn what_is_harmless_is_asked_again_until_somebody_answers() {
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    // Every second connection is answered.
    let server = Server::plain(serving(move |mut io| {
        let number = count.fetch_add(1, SeqCst);
        async move {
            request(&mut io).await;
            if number % 2 == 1 {
                let _ = io.write_all(ok("", "").as_bytes()).await;
            }
            let _ = io.read(&mut [0; 1]).await;
        }
    }));
    let Outcome::Pass { latency } =
        ask_within(server.address, &spec("{ http = \"/\" }"), ms(2_000))
    else {
        panic!("no pass")
    };
    assert!(latency < ms(180), "{latency:?} is that of the second attempt, which began after 200");
    assert_eq!(server.accepted(), 2);
    let post = spec("{ http = \"/\", body = \"x\" }");
    assert_eq!(ask_within(server.address, &post, ms(300)), failed(Layer::Http, Reason::Timeout));
    assert_eq!(server.accepted(), 3);
}

/// Begins its answer, and writes the rest of it when it is told to.
fn answers_in_two(go_on: &Arc<Notify>, told: &mpsc::Sender<bool>) -> Serve {
    let (go_on, told) = (Arc::clone(go_on), told.clone());
    Arc::new(move |mut io| {
        let (go_on, told) = (Arc::clone(&go_on), told.clone());
        Box::pin(async move {
            request(&mut io).await;
            io.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n").await.expect("written");
            go_on.notified().await;
            told.send(io.write_all(b"well").await.is_ok()).expect("heard");
            // Until the probe's side closes.
            let _ = io.read(&mut [0]).await;
        })
    })
}

#[test]
fn who_still_writes_its_answer_is_not_cut_off() {
    let (told, written) = mpsc::channel();
    let go_on = Arc::new(Notify::new());
    let server = Server::plain(answers_in_two(&go_on, &told));
    let (prober, kept) = (Prober::default(), Kept::default());
    let probe = |page: &str| {
        let page = spec(page);
        on_one_thread(async { prober.probe(server.address, &page, PATIENCE, &kept).await })
    };
    let goes_well = || {
        go_on.notify_one();
        written.recv_timeout(PATIENCE).expect("tried")
    };
    assert!(passes(probe("{ http = \"/\" }")) && goes_well());
    let unwanted = probe("{ http = \"/\", expect_status = 204 }");
    assert_eq!(unwanted, failed_http(Reason::Status(200)));
    assert!(goes_well());
    std::thread::sleep(ms(60));
    probe("{ http = \"/\" }");
    eventually("those of before to be closed", PATIENCE, || server.open() == 1);
}
