//! Slow, dead and refusing collectors delay no request; shutdown; secrets.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceResponse,
};
use prost::Message;
use rustix::process::Signal;
use tempfile::TempDir;

use crate::collector::{ACCEPTED_RESPONSE, SpanCollector, decode_spans};
use crate::support::client::{self, TestClient};
use crate::support::endpoint::{ConnectionAction, ResponseMode, TestEndpoint};
use crate::support::instance::Gapless;
use crate::support::pki::{CertificateAuthority, CertificateValidity, ClientAuth};
use crate::support::server::{TestServer, connection_handler};
use crate::support::{DEFAULT_TIMEOUT, ReservedPort, eventually};
use crate::{otlp_config, start_traced};

fn dropped_spans(gapless: &Gapless, why: &str) -> f64 {
    gapless.metric(&format!("gapless_otlp_spans_dropped_total{{why=\"{why}\"}}"))
}

fn exported_spans(gapless: &Gapless) -> f64 {
    gapless.metric("gapless_otlp_spans_exported_total")
}

/// Sends this many requests, asserts that all are answered, and returns the longest duration.
fn send_requests(gapless: &Gapless, requests: usize) -> Duration {
    let mut client = TestClient::open(gapless.address);
    let timed_request = |_| {
        let began = Instant::now();
        assert_eq!(client.get("/").status, 200);
        began.elapsed()
    };
    (0..requests).map(timed_request).max().unwrap_or_default()
}

/// Acts like a stopped process: the kernel accepts connections and bytes, and nothing is answered.
#[test]
fn stalled_collector_delays_neither_requests_nor_shutdown() {
    let (endpoint, stalled_port) = (TestEndpoint::start("one"), ReservedPort::reserve());
    let _listener = stalled_port.listen();
    let keys = "sample = \"100%\"\nqueue = 8\nbatch = 1\ntimeout = \"30s\"";
    let config = otlp_config(&format!("http://{}", stalled_port.address()), keys);
    let mut gapless = Gapless::start_ready(&config.zone("here/a", &[endpoint.address()]));
    let slowest = send_requests(&gapless, 200);
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
    // Eight spans are queued, and one or two are with the exporter.
    eventually("the rest is counted", DEFAULT_TIMEOUT, || {
        dropped_spans(&gapless, "queue_full") >= 2.0 * 190.0
    });
    let full = dropped_spans(&gapless, "queue_full");
    assert!(full <= 2.0 * 192.0, "{full}");
    assert_eq!(exported_spans(&gapless), 0.0);
    let began = Instant::now();
    gapless.signal(Signal::TERM);
    assert!(gapless.wait_for_exit(DEFAULT_TIMEOUT).success());
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(900), "what is left is given a second: {took:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn spans_are_exported_after_collector_returns() {
    let (endpoint, gapless, collector) = start_traced("sample = \"100%\"");
    collector.endpoint.refuse_connections();
    send_requests(&gapless, 3);
    eventually("it is said", DEFAULT_TIMEOUT, || {
        gapless.log().contains("spans cannot be exported")
    });
    assert_eq!(exported_spans(&gapless), 0.0);
    collector.endpoint.listen();
    eventually("all six are there", DEFAULT_TIMEOUT, || exported_spans(&gapless) == 6.0);
    assert_eq!((collector.spans().len(), endpoint.requests().len()), (6, 3));
    for why in ["queue_full", "unreached", "rejected"] {
        assert_eq!(dropped_spans(&gapless, why), 0.0, "{why}");
    }
}

#[test]
fn collector_status_decides_retry_or_drop_of_batch() {
    let (_endpoint, gapless, collector) = start_traced("sample = \"100%\"");
    let retryable_statuses = Mutex::new(vec![429, 502, 503, 504]);
    collector.endpoint.set_mode(ResponseMode::script(move |head, wire| {
        wire.read_body(head)?;
        let answer = match retryable_statuses.lock().expect("no panic").pop() {
            Some(status) => {
                format!("HTTP/1.1 {status} Busy\r\nretry-after: 0\r\ncontent-length: 0\r\n\r\n")
            }
            None => ACCEPTED_RESPONSE.to_owned(),
        };
        wire.send(answer).map(|()| ConnectionAction::Keep)
    }));
    send_requests(&gapless, 1);
    eventually("the fifth post is taken", DEFAULT_TIMEOUT, || exported_spans(&gapless) == 2.0);
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
    collector.endpoint.set_mode(ResponseMode::Raw(answer));
    send_requests(&gapless, 1);
    eventually("one of two was taken", DEFAULT_TIMEOUT, || exported_spans(&gapless) == 3.0);
    assert_eq!(dropped_spans(&gapless, "rejected"), 1.0);

    for (status, rejected) in [(400, 3.0), (500, 5.0), (301, 7.0)] {
        collector.endpoint.set_mode(ResponseMode::Status(status));
        send_requests(&gapless, 1);
        eventually("both are refused", DEFAULT_TIMEOUT, || {
            dropped_spans(&gapless, "rejected") == rejected
        });
    }
    assert_eq!(collector.posts().len(), 9, "what is the last word is not asked again");
    assert_eq!((exported_spans(&gapless), dropped_spans(&gapless, "unreached")), (3.0, 0.0));
}

#[test]
fn shutdown_exports_remaining_spans() {
    let (_endpoint, mut gapless, collector) = start_traced("sample = \"100%\"\nbatch = 4");
    send_requests(&gapless, 9);
    gapless.signal(Signal::TERM);
    assert!(gapless.wait_for_exit(DEFAULT_TIMEOUT).success());
    assert_eq!(collector.spans().len(), 18);
    let largest =
        collector.posts().iter().map(|post| decode_spans(std::slice::from_ref(post)).len()).max();
    assert!(largest.is_some_and(|spans| spans <= 5), "{largest:?}");
}

#[test]
fn collector_secrets_are_never_logged_or_shown() {
    let (endpoint, collector) = (TestEndpoint::start("one"), SpanCollector::start());
    collector.endpoint.set_mode(ResponseMode::Status(401));
    let directory = TempDir::new().expect("a directory");
    let fields = "# of the tenant\nauthorization: Bearer s3cr3t-one\n\nx-team: s3cr3t-two\n";
    std::fs::write(directory.path().join("fields"), fields).expect("written");
    let keys =
        "sample = \"100%\"\nheaders_file = \"fields\"\nheaders = { x-inline = \"s3cr3t-three\" }";
    let config = otlp_config(&collector.url(), keys).zone("here/a", &[endpoint.address()]);
    let file = directory.path().join("gapless.toml");
    std::fs::write(&file, config.text()).expect("written");
    let gapless = Gapless::start_with_file(directory, file);
    gapless.wait_all_up();
    send_requests(&gapless, 1);
    eventually("it is refused", DEFAULT_TIMEOUT, || dropped_spans(&gapless, "rejected") == 2.0);
    let head = collector.posts().pop().expect("a post").head;
    assert_eq!(head.field("authorization"), Some("Bearer s3cr3t-one"));
    assert_eq!(head.field("x-team"), Some("s3cr3t-two"));
    assert_eq!(head.field("x-inline"), Some("s3cr3t-three"));
    eventually("it is said", DEFAULT_TIMEOUT, || gapless.log().contains("refuses spans"));
    // A file that has become invalid is read again, and its content is not shown.
    let file = gapless.config_file().with_file_name("fields");
    std::fs::write(&file, "authorization Bearer s3cr3t-four\n").expect("written");
    eventually("it is refused", DEFAULT_TIMEOUT, || gapless.log().contains("line 1 of"));
    let outputs = [
        gapless.log(),
        gapless.admin_get("/api/v1/config").text(),
        gapless.admin_get("/metrics").text(),
    ];
    assert!(outputs.iter().all(|text| !text.contains("s3cr3t")), "{outputs:#?}");
}

#[test]
fn collector_certificate_name_is_verified() {
    let authority = CertificateAuthority::new("collectors");
    let identity = authority.server_certificate(&["localhost"], CertificateValidity::Current);
    let (posted, posts) = std::sync::mpsc::channel();
    let serve = connection_handler(move |mut io| {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let posted = posted.clone();
        async move {
            let mut bytes = vec![0; 64 * 1024];
            while let Ok(read @ 1..) = io.read(&mut bytes).await {
                let _ = posted.send(read);
                if io.write_all(ACCEPTED_RESPONSE.as_bytes()).await.is_err() {
                    return;
                }
            }
        }
    });
    let server =
        TestServer::start_tls(identity.server_config(&ClientAuth::NotRequested, &[]), serve);
    let directory = TempDir::new().expect("a directory");
    std::fs::write(directory.path().join("ca.pem"), authority.pem()).expect("written");
    let file = directory.path().join("gapless.toml");
    let endpoint = TestEndpoint::start("one");
    let keys = "sample = \"100%\"\ntls = { ca_file = \"ca.pem\" }";
    let url = |host: &str| format!("https://{host}:{}", server.address.port());
    let config = |host: &str| otlp_config(&url(host), keys).zone("here/a", &[endpoint.address()]);
    std::fs::write(&file, config("127.0.0.1").text()).expect("written");
    let gapless = Gapless::start_with_file(directory, file);
    gapless.wait_all_up();
    send_requests(&gapless, 1);
    eventually("another name is refused", DEFAULT_TIMEOUT, || {
        gapless.log().contains("certificate")
    });
    assert!(posts.try_recv().is_err(), "and nothing was posted");
    // The new collector also receives what is queued.
    gapless.write_config(&config("localhost").text());
    eventually("the new one is obeyed", DEFAULT_TIMEOUT, || gapless.generation() == 2);
    send_requests(&gapless, 1);
    eventually("it takes them", DEFAULT_TIMEOUT, || exported_spans(&gapless) >= 2.0);
    assert!(posts.try_recv().is_ok());
    assert_eq!(client::get(gapless.address, "/").status, 200);
}
