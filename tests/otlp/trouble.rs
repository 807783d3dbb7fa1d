//! Collectors that are slow, dead or picky cost no request anything; stops and secrets.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceResponse,
};
use prost::Message;
use rustix::process::Signal;
use tempfile::TempDir;

use crate::collector::{Collector, TAKEN, spans};
use crate::support::client::{self, Client};
use crate::support::endpoint::{Endpoint, Mode, Next};
use crate::support::instance::Gapless;
use crate::support::pki::{Authority, Clients, Valid};
use crate::support::server::{Server, serving};
use crate::support::{HeldPort, SOON, eventually};
use crate::{exporting, traced};

fn dropped(gapless: &Gapless, why: &str) -> f64 {
    gapless.metric(&format!("gapless_otlp_spans_dropped_total{{why=\"{why}\"}}"))
}

fn exported(gapless: &Gapless) -> f64 {
    gapless.metric("gapless_otlp_spans_exported_total")
}

/// Asks for so much, and all of it is answered; how long the slowest took.
fn ask(gapless: &Gapless, requests: usize) -> Duration {
    let mut client = Client::open(gapless.address);
    let one = |_| {
        let began = Instant::now();
        assert_eq!(client.get("/").status, 200);
        began.elapsed()
    };
    (0..requests).map(one).max().unwrap_or_default()
}

/// As a stopped process: its system takes connections and bytes, and it answers nothing.
#[test]
fn a_collector_that_stands_still_costs_no_request_and_no_stop_anything() {
    let (endpoint, stopped) = (Endpoint::start("one"), HeldPort::take());
    let _listener = stopped.listen();
    let keys = "sample = \"100%\"\nqueue = 8\nbatch = 1\ntimeout = \"30s\"";
    let config = exporting(&format!("http://{}", stopped.address()), keys);
    let mut gapless = Gapless::start_ready(&config.zone("here/a", &[endpoint.address()]));
    let slowest = ask(&gapless, 200);
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
    // Eight wait, and one or two are with the exporter.
    eventually("the rest is counted", SOON, || dropped(&gapless, "queue_full") >= 2.0 * 190.0);
    let full = dropped(&gapless, "queue_full");
    assert!(full <= 2.0 * 192.0, "{full}");
    assert_eq!(exported(&gapless), 0.0);
    let began = Instant::now();
    gapless.signal(Signal::TERM);
    assert!(gapless.wait(SOON).success());
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(900), "what is left is given a second: {took:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn spans_wait_for_a_collector_that_comes_back() {
    let (endpoint, gapless, collector) = traced("sample = \"100%\"");
    collector.endpoint.refuse();
    ask(&gapless, 3);
    eventually("it is said", SOON, || gapless.log().contains("spans cannot be exported"));
    assert_eq!(exported(&gapless), 0.0);
    collector.endpoint.listen();
    eventually("all six are there", SOON, || exported(&gapless) == 6.0);
    assert_eq!((collector.spans().len(), endpoint.seen().len()), (6, 3));
    for why in ["queue_full", "unreached", "rejected"] {
        assert_eq!(dropped(&gapless, why), 0.0, "{why}");
    }
}

#[test]
fn a_collector_says_what_becomes_of_a_batch() {
    let (_endpoint, gapless, collector) = traced("sample = \"100%\"");
    let busy = Mutex::new(vec![429, 502, 503, 504]);
    collector.endpoint.set(Mode::script(move |head, wire| {
        wire.body(head)?;
        let answer = match busy.lock().expect("no panic").pop() {
            Some(status) => {
                format!("HTTP/1.1 {status} Busy\r\nretry-after: 0\r\ncontent-length: 0\r\n\r\n")
            }
            None => TAKEN.to_owned(),
        };
        wire.send(answer).map(|()| Next::Keep)
    }));
    ask(&gapless, 1);
    eventually("the fifth post is taken", SOON, || exported(&gapless) == 2.0);
    assert_eq!(collector.posts().len(), 5, "sent once more each time, and not again");

    let partial = ExportTraceServiceResponse {
        partial_success: Some(ExportTracePartialSuccess {
            rejected_spans: 1,
            error_message: "one is too old".to_owned(),
        }),
    };
    let body = partial.encode_to_vec();
    let mut answer =
        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len()).into_bytes();
    answer.extend(body);
    collector.endpoint.set(Mode::Raw(answer));
    ask(&gapless, 1);
    eventually("one of two was taken", SOON, || exported(&gapless) == 3.0);
    assert_eq!(dropped(&gapless, "rejected"), 1.0);

    for (status, rejected) in [(400, 3.0), (500, 5.0), (301, 7.0)] {
        collector.endpoint.set(Mode::Status(status));
        ask(&gapless, 1);
        eventually("both are refused", SOON, || dropped(&gapless, "rejected") == rejected);
    }
    assert_eq!(collector.posts().len(), 9, "what is the last word is not asked again");
    assert_eq!((exported(&gapless), dropped(&gapless, "unreached")), (3.0, 0.0));
}

#[test]
fn a_stop_exports_what_is_left() {
    let (_endpoint, mut gapless, collector) = traced("sample = \"100%\"\nbatch = 4");
    ask(&gapless, 9);
    gapless.signal(Signal::TERM);
    assert!(gapless.wait(SOON).success());
    assert_eq!(collector.spans().len(), 18);
    let largest =
        collector.posts().iter().map(|post| spans(std::slice::from_ref(post)).len()).max();
    assert!(largest.is_some_and(|spans| spans <= 5), "{largest:?}");
}

#[test]
fn secrets_go_to_the_collector_and_nowhere_else() {
    let (endpoint, collector) = (Endpoint::start("one"), Collector::start());
    collector.endpoint.set(Mode::Status(401));
    let directory = TempDir::new().expect("a directory");
    let fields = "# of the tenant\nauthorization: Bearer s3cr3t-one\n\nx-team: s3cr3t-two\n";
    std::fs::write(directory.path().join("fields"), fields).expect("written");
    let keys =
        "sample = \"100%\"\nheaders_file = \"fields\"\nheaders = { x-inline = \"s3cr3t-three\" }";
    let config = exporting(&collector.url(), keys).zone("here/a", &[endpoint.address()]);
    let file = directory.path().join("gapless.toml");
    std::fs::write(&file, config.text()).expect("written");
    let gapless = Gapless::start_with(directory, file);
    gapless.wait_all_up();
    ask(&gapless, 1);
    eventually("it is refused", SOON, || dropped(&gapless, "rejected") == 2.0);
    let head = collector.posts().pop().expect("a post").head;
    assert_eq!(head.field("authorization"), Some("Bearer s3cr3t-one"));
    assert_eq!(head.field("x-team"), Some("s3cr3t-two"));
    assert_eq!(head.field("x-inline"), Some("s3cr3t-three"));
    eventually("it is said", SOON, || gapless.log().contains("refuses spans"));
    // A file that has become wrong is read again, and shown nowhere.
    let file = gapless.file().with_file_name("fields");
    std::fs::write(&file, "authorization Bearer s3cr3t-four\n").expect("written");
    eventually("it is refused", SOON, || gapless.log().contains("line 1 of"));
    let told =
        [gapless.log(), gapless.ask("/api/v1/config").text(), gapless.ask("/metrics").text()];
    assert!(told.iter().all(|text| !text.contains("s3cr3t")), "{told:#?}");
}

#[test]
fn a_collector_is_named_and_its_certificate_checked() {
    let authority = Authority::new("collectors");
    let identity = authority.server(&["localhost"], Valid::Now);
    let (posted, posts) = std::sync::mpsc::channel();
    let serve = serving(move |mut io| {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let posted = posted.clone();
        async move {
            let mut bytes = vec![0; 64 * 1024];
            while let Ok(read @ 1..) = io.read(&mut bytes).await {
                let _ = posted.send(read);
                if io.write_all(TAKEN.as_bytes()).await.is_err() {
                    return;
                }
            }
        }
    });
    let server = Server::tls(identity.server_config(&Clients::Any, &[]), serve);
    let directory = TempDir::new().expect("a directory");
    std::fs::write(directory.path().join("ca.pem"), authority.pem()).expect("written");
    let file = directory.path().join("gapless.toml");
    let endpoint = Endpoint::start("one");
    let keys = "sample = \"100%\"\ntls = { ca_file = \"ca.pem\" }";
    let url = |host: &str| format!("https://{host}:{}", server.address.port());
    let config = |host: &str| exporting(&url(host), keys).zone("here/a", &[endpoint.address()]);
    std::fs::write(&file, config("127.0.0.1").text()).expect("written");
    let gapless = Gapless::start_with(directory, file);
    gapless.wait_all_up();
    ask(&gapless, 1);
    eventually("another name is refused", SOON, || gapless.log().contains("certificate"));
    assert!(posts.try_recv().is_err(), "and nothing was posted");
    // Another collector from now on: what waits goes there too.
    gapless.write(&config("localhost").text());
    eventually("the new one is obeyed", SOON, || gapless.generation() == 2);
    ask(&gapless, 1);
    eventually("it takes them", SOON, || exported(&gapless) >= 2.0);
    assert!(posts.try_recv().is_ok());
    assert_eq!(client::get(gapless.address, "/").status, 200);
}
