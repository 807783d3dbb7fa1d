//! One URL that fails at every endpoint takes none of them down.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::serialize_tests;
use crate::support::client::TestClient;
use crate::support::config::ConfigBuilder;
use crate::support::endpoint::{ConnectionAction, ResponseMode, TestEndpoint};
use crate::support::instance::Gapless;

/// Time between two requests.
const REQUEST_GAP: Duration = Duration::from_millis(10);

/// The requests of a run.
const REQUESTS: u32 = 400;

/// The URL that fails.
const FAULTY_TARGET: &str = "/fails";

/// How endpoints answer the URL that fails.
#[derive(Clone, Copy, Debug)]
enum UrlFault {
    Status,
    Malformed,
    Close,
    CutStream,
}

impl UrlFault {
    const ALL: [Self; 4] = [Self::Status, Self::Malformed, Self::Close, Self::CutStream];

    fn bytes(self) -> &'static [u8] {
        match self {
            Self::Status => b"HTTP/1.1 500 Broken\r\ncontent-length: 0\r\n\r\n",
            Self::Malformed => b"HTTP/1.1 2000 OK\r\ncontent-length: 0\r\n\r\n",
            Self::Close => b"",
            // Without a length the client has received the head already, so no retry is possible.
            Self::CutStream => {
                b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nstart\r\n"
            }
        }
    }

    fn mode(self) -> ResponseMode {
        ResponseMode::script(move |head, stream| {
            let _ = stream.read_body(head)?;
            if head.start_line_word(1) != FAULTY_TARGET {
                stream.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")?;
                return Ok(ConnectionAction::Keep);
            }
            stream.send(self.bytes())?;
            Ok(match self {
                Self::Status => ConnectionAction::Keep,
                Self::Malformed | Self::Close | Self::CutStream => ConnectionAction::Close,
            })
        })
    }
}

/// Zones of two endpoints that all fail the same URL.
struct FaultyUrlFixture {
    endpoints: Vec<TestEndpoint>,
    gapless: Gapless,
}

impl FaultyUrlFixture {
    fn start(zones: usize, fault: UrlFault) -> Self {
        let endpoints: Vec<TestEndpoint> =
            (0..2 * zones).map(|index| TestEndpoint::start(&format!("e{index}"))).collect();
        endpoints.iter().for_each(|endpoint| endpoint.set_mode(fault.mode()));
        let mut config = ConfigBuilder::new();
        for (index, zone) in endpoints.chunks(2).enumerate() {
            let addresses: Vec<SocketAddr> = zone.iter().map(TestEndpoint::address).collect();
            config = config.zone(&format!("r/z{index}"), &addresses);
        }
        // At level `debug` every change of a state has a line.
        let gapless = Gapless::start_verbose(&config);
        gapless.wait_all_up();
        Self { endpoints, gapless }
    }

    /// Sends requests at an even pace; this percentage is for the URL that fails.
    #[track_caller]
    fn run_load(&self, method: &str, faulty_percent: u32) {
        let (mut client, start) = (TestClient::open(self.gapless.address), Instant::now());
        for n in 0..REQUESTS {
            std::thread::sleep((REQUEST_GAP * n).saturating_sub(start.elapsed()));
            if n * faulty_percent / 100 != (n + 1) * faulty_percent / 100 {
                let _ = self.send(&mut client, method, FAULTY_TARGET);
                client = TestClient::open(self.gapless.address);
            } else {
                let status = self.send(&mut client, "GET", "/works").expect("a response");
                assert_eq!(status, 200, "request {n}:\n{}", self.gapless.log());
            }
        }
    }

    fn send(&self, client: &mut TestClient, method: &str, target: &str) -> io::Result<u16> {
        Ok(client.exchange(method, target, &[], b"")?.status)
    }

    /// The number of times that an endpoint became suspect.
    fn suspect_count(&self) -> usize {
        let log = self.gapless.log();
        log.lines()
            .filter(|line| line.contains("endpoint suspect") && !line.contains("again"))
            .count()
    }

    #[track_caller]
    fn assert_all_up(&self, context: &str) {
        let log = self.gapless.log();
        assert!(!log.contains("\"endpoint down\"") && !log.contains(" down"), "{context}:\n{log}");
        for endpoint in &self.endpoints {
            let state = self.gapless.endpoint_state(endpoint.address());
            assert!(state == "up" || state == "suspect", "{context}: {state}\n{log}");
        }
    }
}

#[test]
fn url_that_fails_everywhere_puts_no_endpoint_down() {
    let _serial = serialize_tests();
    for (zones, faulty_percent) in [(2, 5), (3, 50), (2, 90)] {
        for fault in UrlFault::ALL {
            let fixture = FaultyUrlFixture::start(zones, fault);
            fixture.run_load("GET", faulty_percent);
            fixture.assert_all_up(&format!("{fault:?}, {zones} zones, {faulty_percent} %"));
            let resends = fixture.gapless.metric("gapless_resends_total{pool=\"web\"}");
            let suspects = fixture.suspect_count();
            assert!(suspects <= 3 * fixture.endpoints.len(), "{fault:?}: {suspects}");
            assert!(resends <= f64::from(REQUESTS) * 0.2 + 100.0, "{fault:?}: {resends}");
        }
    }
}

#[test]
fn post_that_fails_everywhere_puts_no_endpoint_down() {
    let _serial = serialize_tests();
    for fault in UrlFault::ALL {
        let fixture = FaultyUrlFixture::start(2, fault);
        fixture.run_load("POST", 50);
        fixture.assert_all_up(&format!("{fault:?}"));
    }
}
