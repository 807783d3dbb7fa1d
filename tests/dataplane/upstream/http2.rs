//! Endpoints that are spoken to over HTTP/2.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread::JoinHandle;

use h2::Reason;

use super::QUIET;
use super::peer::{Did, Raw};
use crate::support::client::{Answer, Client, request};
use crate::support::config::Config;
use crate::support::endpoint::Endpoint;
use crate::support::instance::Gapless;
use crate::support::pki::{Authority, Clients, Valid};
use crate::support::server::{Server, http1, ok, serving};
use crate::support::{SOON, eventually};

fn h2() -> String {
    format!("{QUIET}\nprotocol = \"http2\"")
}

/// As many streams as anybody may want.
const MANY: u32 = 1_000;

fn peer(name: &'static str, streams_at_most: u32) -> (Server, Arc<Did>) {
    let did = Did::new(name, streams_at_most);
    (Server::plain(did.serve()), did)
}

fn start(near: SocketAddr, far: Option<SocketAddr>) -> Gapless {
    let mut config = Config::new().pool(&h2()).zone("here/near", &[near]);
    if let Some(far) = far {
        config = config.zone("here/far", &[far]);
    }
    Gapless::start_ready(&config)
}

fn spawn(address: SocketAddr, method: &'static str, target: &'static str) -> JoinHandle<Answer> {
    std::thread::spawn(move || {
        let body: &[u8] = if method == "POST" { b"body" } else { b"" };
        request(address, method, target, body)
    })
}

#[test]
fn requests_and_answers_pass_as_they_are() {
    let (server, did) = peer("web", MANY);
    let gapless = start(server.address, None);
    let mut client = Client::open(gapless.address);
    let fields = [
        ("x-a", "1"),
        ("x-forwarded-for", "6.6.6.6"),
        ("connection", "x-secret"),
        ("x-secret", "s"),
        ("te", "gzip"),
        ("keep-alive", "timeout=5"),
    ];
    let answer = client.exchange("POST", "/some/path?q=1", &fields, b"body").expect("an answer");
    assert_eq!((answer.status, answer.text().as_str()), (200, "web"));
    assert_eq!(answer.field("content-length"), Some("3"));
    let got = &did.got()[0];
    let uri = &got.head.uri;
    assert_eq!(uri.to_string(), "http://test.example/some/path?q=1");
    assert_eq!((got.head.method.as_str(), got.body.as_slice()), ("POST", &b"body"[..]));
    let field = |name: &str| got.head.headers.get(name).map(|value| value.to_str().expect("text"));
    assert_eq!(field("x-a"), Some("1"));
    assert_eq!(field("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(field("x-forwarded-host"), Some("test.example"));
    assert_eq!(field("content-length"), Some("4"));
    assert_eq!(field("via"), Some("1.1 gapless"));
    for gone in ["connection", "x-secret", "te", "keep-alive", "host"] {
        assert_eq!(field(gone), None, "{gone}");
    }
    let answer = client.exchange("GET", "/none", &[], b"").expect("an answer");
    assert_eq!((answer.status, answer.body.len()), (204, 0));
    let answer = client.exchange("HEAD", "/", &[], b"").expect("an answer");
    assert_eq!(answer.status, 200);
    assert_eq!(did.connections(), 1, "all on one connection");
}

#[test]
fn large_bodies_pass_both_ways() {
    let (server, did) = peer("web", MANY);
    let gapless = start(server.address, None);
    let body: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    let answer = request(gapless.address, "POST", "/echo", &body);
    assert_eq!((answer.status, answer.body == body), (200, true));
    let mut client = Client::open(gapless.address);
    client
        .send(b"POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n")
        .expect("sent");
    for piece in body.chunks(100_000) {
        client.send(format!("{:x}\r\n", piece.len())).expect("sent");
        client.send(piece).expect("sent");
        client.send("\r\n").expect("sent");
    }
    client.send("0\r\n\r\n").expect("sent");
    let answer = client.answer("POST").expect("an answer");
    assert_eq!((answer.status, answer.body == body), (200, true));
    assert_eq!(did.connections(), 1);
}

#[test]
fn as_many_streams_as_the_endpoint_allows_and_then_another_connection() {
    let (server, did) = peer("web", 3);
    let gapless = start(server.address, None);
    let asked: Vec<_> = (0..20).map(|_| spawn(gapless.address, "POST", "/gate")).collect();
    eventually("all have come at once", SOON, || did.got().len() == 20);
    assert_eq!(did.most_streams(), 3);
    assert!((7..=20).contains(&did.connections()), "{}", did.connections());
    did.gate.add_permits(20);
    for one in asked {
        let answer = one.join().expect("no panic");
        assert_eq!((answer.status, answer.field("x-gapless-attempts")), (200, Some("1")));
    }
    let connections = did.connections();
    for _ in 0..10 {
        assert_eq!(request(gapless.address, "POST", "/", b"body").status, 200);
    }
    assert_eq!(did.connections(), connections, "there are enough");
}

#[test]
fn many_at_once_share_the_first_connection() {
    let (server, did) = peer("web", MANY);
    let gapless = start(server.address, None);
    let asked: Vec<_> = (0..30).map(|_| spawn(gapless.address, "GET", "/gate")).collect();
    eventually("all have come at once", SOON, || did.got().len() == 30);
    did.gate.add_permits(30);
    assert!(asked.into_iter().all(|one| one.join().expect("no panic").status == 200));
    assert_eq!((did.connections(), did.most_streams()), (1, 30));
}

/// Says after `requests` of them that it has looked at the first one only, and answers that.
fn leaving(requests: usize) -> (Server, Arc<AtomicUsize>) {
    let executed = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&executed);
    let serve = serving(move |io| {
        let count = Arc::clone(&count);
        async move {
            let mut raw = Raw(io);
            let _ = raw.greet().await;
            let mut begun = 0;
            while let Ok((kind, ..)) = raw.frame().await {
                begun += usize::from(kind == 1);
                if kind == 1 && begun == requests {
                    let _ = raw.send(7, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0]).await;
                    count.fetch_add(1, SeqCst);
                    let _ = raw.ok(1).await;
                }
            }
        }
    });
    (Server::plain(serve), executed)
}

#[test]
fn what_a_goaway_leaves_out_is_sent_elsewhere_whatever_its_method() {
    let (near, executed) = leaving(8);
    let (far, others) = peer("far", MANY);
    let gapless = start(near.address, Some(far.address));
    let asked: Vec<_> = (0..8).map(|_| spawn(gapless.address, "POST", "/")).collect();
    let answers: Vec<_> = asked.into_iter().map(|one| one.join().expect("no panic")).collect();
    assert!(answers.iter().all(|answer| answer.status == 200));
    let elsewhere = answers.iter().filter(|answer| answer.field("x-endpoint") == Some("far"));
    assert_eq!((executed.load(SeqCst), elsewhere.count()), (1, 7));
    assert_eq!(others.got().len(), 7, "none twice, none lost");
    // The connection that said so takes no more.
    assert_eq!(gapless.endpoint(near.address)["traffic"]["failed"], 0);
}

#[test]
fn a_connection_that_says_goodbye_ends_what_it_has_and_takes_no_more() {
    let (server, did) = peer("web", MANY);
    let gapless = start(server.address, None);
    let running = spawn(gapless.address, "POST", "/gate");
    eventually("it has come", SOON, || did.got().len() == 1);
    assert_eq!(request(gapless.address, "POST", "/goodbye", b"body").status, 200);
    assert_eq!(did.connections(), 1);
    eventually("another connection is used", SOON, || {
        assert_eq!(request(gapless.address, "POST", "/", b"body").status, 200);
        did.connections() == 2
    });
    did.gate.add_permits(1);
    assert_eq!(running.join().expect("no panic").status, 200);
}

#[test]
fn a_refused_stream_is_sent_elsewhere_whatever_its_method() {
    let (near, refusing) = peer("near", MANY);
    let (far, others) = peer("far", MANY);
    let gapless = start(near.address, Some(far.address));
    // The other one does not refuse: it must not be asked by this path.
    let answer = request(gapless.address, "POST", "/refuse", b"body");
    assert_eq!(answer.verdict(), (502, Some("reset")), "both refuse");
    assert_eq!((refusing.begun(), others.begun()), (1, 1));
    let refusing = refusing_all();
    let gapless = start(refusing.address, Some(far.address));
    let answer = request(gapless.address, "POST", "/", b"body");
    assert_eq!((answer.status, answer.field("x-gapless-attempts")), (200, Some("2")));
    assert_eq!(others.got().len(), 1);
}

/// Refuses every stream.
fn refusing_all() -> Server {
    let serve = serving(|io| async move {
        let mut raw = Raw(io);
        let _ = raw.greet().await;
        while let Ok((kind, _, stream, _)) = raw.frame().await {
            if kind == 1 {
                let _ = raw.send(3, 0, stream, &[0, 0, 0, 7]).await;
            }
        }
    });
    Server::plain(serve)
}

#[test]
fn a_post_that_may_have_been_executed_is_not_sent_again() {
    let near = resetting();
    let (far, others) = peer("far", MANY);
    let gapless = start(near.address, Some(far.address));
    let answer = request(gapless.address, "POST", "/", b"body");
    assert_eq!(answer.verdict(), (502, Some("reset")));
    assert_eq!(others.begun(), 0);
    // That was a reason to doubt the endpoint: nothing is known of this instance's.
    let gapless = start(near.address, Some(far.address));
    let answer = request(gapless.address, "GET", "/", b"");
    assert_eq!((answer.status, answer.field("x-gapless-attempts")), (200, Some("2")));
}

/// Reads a request and ends the connection.
fn resetting() -> Server {
    let serve = serving(|io| async move {
        let mut raw = Raw(io);
        let _ = raw.greet().await;
        while let Ok((kind, ..)) = raw.frame().await {
            if kind == 1 {
                return;
            }
        }
    });
    Server::plain(serve)
}

/// Answers each request with so many interim answers, then with a good one.
fn hinting(count: usize, status: &'static str) -> Server {
    Server::plain(serving(move |io| async move {
        let mut raw = Raw(io);
        if raw.greet().await.is_err() {
            return;
        }
        while let Ok((kind, _, stream, _)) = raw.frame().await {
            if kind != 1 {
                continue;
            }
            for _ in 0..count {
                // `:status`, never indexed, and without an end.
                let head = [b"\x18\x03", status.as_bytes()].concat();
                if raw.send(1, 4, stream, &head).await.is_err() {
                    return;
                }
            }
            if raw.ok(stream).await.is_err() {
                return;
            }
        }
    }))
}

#[test]
fn a_few_interim_answers_do_no_harm_and_a_flood_is_cut() {
    for (count, status) in [(0, 200), (16, 200), (17, 502), (100_000, 502)] {
        let server = hinting(count, "103");
        let gapless = start(server.address, None);
        let before = gapless.rss_kib();
        assert_eq!(gapless.get("/").status, status, "{count}");
        // What failed is also predicted meanwhile, which takes some memory; the flood would take 20 MiB.
        assert!(gapless.rss_kib() < before + 8 * 1024, "{count}: {before} {}", gapless.rss_kib());
    }
}

/// HTTP/2 has no other protocol to go on in (RFC 9113 8.6): a client that read it would wait for one.
#[test]
fn nobody_is_told_to_switch_by_an_endpoint_of_http2() {
    let server = hinting(1, "101");
    let gapless = start(server.address, None);
    let mut client = Client::open(gapless.address);
    client.send("GET / HTTP/1.1\r\nhost: a.example\r\n\r\n").expect("sent");
    let head = client.wire.head().expect("read").expect("a head");
    assert_eq!((head.word(1), head.field("x-gapless-reason")), ("502", Some("bad_response")));
}

#[test]
fn an_endpoint_of_http2_hints_too() {
    let server = hinting(1, "103");
    let gapless = start(server.address, None);
    let mut client = Client::open(gapless.address);
    client.send("GET / HTTP/1.1\r\nhost: a.example\r\n\r\n").expect("sent");
    let heads: Vec<String> = (0..2)
        .map(|_| client.wire.head().expect("read").expect("a head").word(1).to_owned())
        .collect();
    assert_eq!(heads, ["103", "200"]);
}

#[test]
fn who_gives_up_withdraws_its_request_and_no_other() {
    let (server, did) = peer("web", MANY);
    let gapless = start(server.address, None);
    let running = spawn(gapless.address, "POST", "/gate");
    eventually("it has come", SOON, || did.got().len() == 1);
    let mut client = Client::open(gapless.address);
    client.send("POST /hang HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nbody").expect("sent");
    eventually("both have come", SOON, || did.begun() == 2);
    drop(client);
    eventually("it is withdrawn", SOON, || did.resets() == [Reason::CANCEL]);
    did.gate.add_permits(1);
    assert_eq!(running.join().expect("no panic").status, 200);
    assert_eq!(did.connections(), 1);
}

#[test]
fn a_body_that_is_cut_is_cut_for_the_client_too() {
    let (server, did) = peer("web", MANY);
    let gapless = start(server.address, None);
    let mut client = Client::open(gapless.address);
    client.send("POST /cut HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n").expect("sent");
    let head = client.wire.head().expect("a head").expect("an answer");
    assert_eq!(head.word(1), "200");
    assert_eq!(client.wire.chunk().expect("a piece").as_deref(), Some(&b"half!"[..]));
    did.gate.add_permits(1);
    assert!(client.wire.chunk().is_err(), "no end");
    // A body that is not as long as was said, of a request that can be sent again and is not.
    let answer = request(gapless.address, "GET", "/short", b"");
    assert_eq!((answer.status, answer.field("x-gapless-reason").is_some()), (502, true));
    assert_eq!(request(gapless.address, "GET", "/", b"").status, 200);
    assert_eq!(did.connections(), 1, "the connection is none the worse");
}

#[test]
fn trailers_pass_both_ways() {
    let (server, did) = peer("web", MANY);
    let gapless = start(server.address, None);
    let mut client = Client::open(gapless.address);
    client
        .send(
            "POST /grpc HTTP/1.1\r\nhost: a\r\nte: trailers\r\ntransfer-encoding: chunked\r\n\
             trailer: x-sum\r\n\r\n3\r\nabc\r\n0\r\nx-sum: 1\r\nhost: evil\r\n\r\n",
        )
        .expect("sent");
    let head = client.wire.head().expect("a head").expect("an answer");
    assert_eq!(head.field("trailer"), Some("grpc-status"));
    assert_eq!(client.wire.chunk().expect("a piece").as_deref(), Some(&b"\0\0\0\0\0"[..]));
    let lines: Vec<_> = (0..3).map(|_| client.wire.line().expect("a line")).collect();
    assert_eq!(lines, ["0", "grpc-status: 0", ""]);
    let got = &did.got()[0];
    assert_eq!(
        (got.body.as_slice(), got.head.headers["te"].as_bytes()),
        (&b"abc"[..], &b"trailers"[..])
    );
    let trailers = got.trailers.as_ref().expect("some");
    assert_eq!((trailers.len(), trailers["x-sum"].as_bytes()), (1, &b"1"[..]));
}

#[test]
fn trailers_after_a_known_length_are_no_harm_to_who_cannot_take_them() {
    let (server, did) = peer("web", MANY);
    let gapless = start(server.address, None);
    let mut client = Client::open(gapless.address);
    for method in ["GET", "POST", "GET"] {
        let answer = client.exchange(method, "/small", &[], b"").expect("an answer");
        assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
        assert_eq!(answer.field("content-length"), Some("2"));
    }
    assert_eq!((did.connections(), did.resets().len()), (1, 0));
}

#[test]
fn who_speaks_no_http2_has_seen_nothing() {
    let near = Endpoint::start("near");
    let (far, others) = peer("far", MANY);
    let gapless = start(near.address(), Some(far.address));
    let answer = request(gapless.address, "POST", "/", b"body");
    assert_eq!((answer.status, answer.field("x-gapless-attempts")), (200, Some("2")));
    assert_eq!(others.got().len(), 1);
}

#[test]
fn an_endpoint_that_is_gone_is_not_asked_twice_on_the_same_connection() {
    let (near, did) = peer("near", MANY);
    let (far, _) = peer("far", MANY);
    let gapless = start(near.address, Some(far.address));
    assert_eq!(request(gapless.address, "POST", "/", b"body").field("x-endpoint"), Some("near"));
    drop(near);
    for _ in 0..5 {
        let answer = request(gapless.address, "POST", "/", b"body");
        assert_eq!(answer.field("x-endpoint"), Some("far"));
    }
    assert_eq!(did.got().len(), 1);
}

#[test]
fn a_verdict_takes_connections_and_what_waits_on_them_away() {
    let (near, did) = peer("near", MANY);
    let (far, others) = peer("far", MANY);
    others.gate.add_permits(10);
    let lines = "probe = { http2 = \"/healthz\" }\nprotocol = \"http2\"\n\
                 detect = { interval = \"200ms\", timeout = \"200ms\", down_interval = \"200ms\" }\n\
                 stall = { floor = \"5s\" }";
    let config = Config::new()
        .pool(lines)
        .zone("here/near", &[near.address])
        .zone("here/far", &[far.address]);
    let gapless = Gapless::start_ready(&config);
    let waiting = ["GET", "POST"].map(|method| spawn(gapless.address, method, "/gate"));
    eventually("both wait", SOON, || did.got().len() == 2);
    did.sick.store(true, SeqCst);
    let [get, post] = waiting.map(|one| one.join().expect("no panic"));
    assert_eq!((get.status, get.field("x-endpoint")), (200, Some("far")));
    assert_eq!(post.verdict(), (502, Some("endpoint_down")));
    assert_eq!(others.got().len(), 1, "what may have been executed is not asked again");
}

#[test]
fn over_tls_the_endpoint_chooses_or_must_agree() {
    let authority = Authority::new("tests");
    let directory = tempfile::TempDir::new().expect("a directory");
    let ca_file = directory.path().join("ca.pem");
    std::fs::write(&ca_file, authority.pem()).expect("written");
    let identity = authority.server(&["127.0.0.1"], Valid::Now);
    let config = |alpn: &[&str]| identity.server_config(&Clients::Any, alpn);
    let did = Did::new("h2", MANY);
    let both = Server::tls(config(&["h2", "http/1.1"]), did.serve());
    let only_h1 = Server::tls(config(&["http/1.1"]), http1(&ok("x-endpoint: h1\r\n", "h1")));
    let silent = Server::tls(config(&[]), http1(&ok("x-endpoint: h1\r\n", "h1")));
    let ask = |protocol: &str, address: SocketAddr| {
        let tls = format!("tls = {{ ca_file = \"{}\" }}", ca_file.display());
        let lines = format!("{QUIET}\n{tls}\nprotocol = \"{protocol}\"");
        let gapless = Gapless::start_ready(&Config::new().pool(&lines).zone("a/b", &[address]));
        let asked: Vec<_> = (0..4).map(|_| spawn(gapless.address, "GET", "/")).collect();
        let answers = asked.into_iter().map(|one| one.join().expect("no panic"));
        let mut said: Vec<_> = answers
            .map(|answer| (answer.status, answer.field("x-endpoint").map(str::to_owned)))
            .collect();
        said.dedup();
        assert_eq!(said.len(), 1, "{said:?}");
        said.remove(0)
    };
    let by = |name: &str| (200, Some(name.to_owned()));
    assert_eq!(ask("auto", both.address), by("h2"));
    assert_eq!(ask("http2", both.address), by("h2"));
    assert_eq!(did.connections(), 2, "one for each instance");
    assert!(did.got().iter().all(|got| got.head.uri.scheme_str() == Some("https")));
    assert_eq!(ask("auto", only_h1.address), by("h1"));
    assert_eq!(ask("auto", silent.address), by("h1"));
    assert_eq!(ask("http2", only_h1.address), (502, None));
    assert_eq!(ask("http2", silent.address), (502, None));
}
