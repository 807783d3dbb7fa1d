//! Handshakes: names, versions, clients' certificates, tickets, and clients that do not mean it.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use rustls::client::Resumption;
use rustls::{CertificateError, Error};
use tempfile::TempDir;

use super::secure::{BOTH, ONLY_12, Secure, config, der, simple};
use super::{encrypted, listen_tls, plain, put, start, text};
use crate::support::client::Client;
use crate::support::config::Config;
use crate::support::endpoint::{Endpoint, Mode};
use crate::support::instance::Gapless;
use crate::support::pki::{Authority, Valid};
use crate::support::{SOON, eventually};

const CLIENT_CERT: &str = "x-forwarded-client-cert";

fn is_wrong_name(error: &io::Error) -> bool {
    let error = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    matches!(
        error,
        Some(Error::InvalidCertificate(CertificateError::NotValidForNameContext { .. }))
    )
}

#[test]
fn the_name_decides_which_certificate_answers() {
    let authority = Authority::new("authority");
    let endpoint = Endpoint::start("one");
    let directory = TempDir::new().expect("a directory");
    let of = |names: &[&str]| authority.server(names, Valid::Now);
    let (a, b, c) = (of(&["a.example"]), of(&["b.example", "*.b.example"]), of(&["c.b.example"]));
    for (name, identity) in [("a", &a), ("b", &b), ("c", &c)] {
        put(directory.path(), name, identity);
    }
    let listener = listen_tls(&["a", "b", "c"], "");
    let gapless = start(directory, &text(&Config::new(), &endpoint, &listener));
    let client = simple(&authority);
    let connect = |name: &str| Secure::connect(gapless.address, name, &client);
    let shown = |name: &str| connect(name).expect("a good certificate").shown();
    assert_eq!(shown("a.example"), der(&a));
    assert_eq!(shown("B.example"), der(&b));
    assert_eq!(shown("x.b.example"), der(&b), "a wildcard");
    assert_eq!(shown("c.b.example"), der(&c), "what is exact comes before a wildcard");
    for name in ["x.y.b.example", "other.example", "127.0.0.1"] {
        let error = connect(name).expect_err("the first certificate is for another name");
        assert!(is_wrong_name(&error), "{name}: {error}");
    }
}

#[test]
fn requests_and_bodies_pass_and_the_endpoint_hears_of_the_encryption() {
    let (endpoint, gapless, authority) = encrypted(&Config::new(), "");
    let big: String = "0123456789abcdef".repeat(64 * 1024);
    endpoint.set(Mode::Body(big.clone()));
    for versions in [BOTH, ONLY_12] {
        let client = config(&authority, None, &[], versions);
        let mut secure = Secure::connect(gapless.address, "a.example", &client).expect("shaken");
        for _ in 0..3 {
            let answer = secure.exchange("", big.as_bytes()).expect("an answer");
            assert_eq!((answer.status, answer.body.len()), (200, big.len()));
        }
    }
    let seen = endpoint.seen();
    assert_eq!(seen.len(), 6);
    for request in &seen {
        assert_eq!(request.head.field("x-forwarded-proto"), Some("https"));
        assert_eq!(request.body.len(), big.len());
    }
}

#[test]
fn the_access_log_tells_the_version_and_the_name() {
    let log = TempDir::new().expect("a directory");
    let file = log.path().join("access.log");
    let table = format!("[access_log]\nto = \"{}\"", file.display());
    let (_endpoint, gapless, authority) = encrypted(&Config::new().tables(&table), "");
    for (versions, version) in [(ONLY_12, "TLSv1.2"), (BOTH, "TLSv1.3")] {
        let client = config(&authority, None, &[], versions);
        let mut secure = Secure::connect(gapless.address, "A.example", &client).expect("shaken");
        assert_eq!(secure.ask(""), 200);
        let told = format!("\"tls_version\":\"{version}\",\"sni\":\"a.example\"");
        let is_told = || std::fs::read_to_string(&file).is_ok_and(|lines| lines.contains(&told));
        eventually("the line", SOON, is_told);
    }
}

#[test]
fn an_old_version_is_refused_where_a_newer_one_is_asked_for() {
    let (_endpoint, gapless, authority) = encrypted(&Config::new(), "min_version = \"1.3\"");
    let old = config(&authority, None, &[], ONLY_12);
    Secure::connect(gapless.address, "a.example", &old).expect_err("TLS 1.2");
    let mut new = Secure::connect(gapless.address, "a.example", &simple(&authority)).expect("1.3");
    assert_eq!(new.ask(""), 200);
    let samples = ["failed", "ok"];
    let counted = samples.map(|result| {
        gapless.metric(&format!("gapless_tls_handshakes_total{{result=\"{result}\"}}"))
    });
    assert_eq!(counted, [1.0, 1.0]);
}

#[test]
fn what_is_not_offered_is_not_agreed_on() {
    let (_endpoint, gapless, authority) = encrypted(&Config::new(), "");
    let connect = |alpn: &[&str]| {
        Secure::connect(gapless.address, "a.example", &config(&authority, None, alpn, BOTH))
    };
    assert_eq!(connect(&["h2", "http/1.1"]).expect("shaken").alpn(), Some(&b"h2"[..]));
    assert_eq!(connect(&["http/1.1"]).expect("shaken").alpn(), Some(&b"http/1.1"[..]));
    assert_eq!(connect(&[]).expect("shaken").alpn(), None);
    connect(&["ftp"]).expect_err("nothing in common");
}

/// The answer's status, or `None` where the connection gives none: with TLS 1.3 a client hears that
/// its certificate is refused only after its own side of the handshake.
fn asked(gapless: &Gapless, client: &Arc<rustls::ClientConfig>, fields: &str) -> Option<u16> {
    let mut secure = Secure::connect(gapless.address, "a.example", client).ok()?;
    secure.exchange(fields, b"").ok().map(|answer| answer.status)
}

const FORGED: &str = "x-forwarded-client-cert: Hash=00;Subject=\"CN=root\"\r\n\
                      X-Forwarded-Client-Cert: By=me\r\n";

#[test]
fn a_required_certificate_must_be_shown_and_is_passed_on() {
    let (endpoint, gapless, authority) = encrypted(&Config::new(), "client_ca = \"ca.pem\"");
    let good = authority.client("client.example");
    let stranger = Authority::new("stranger").client("client.example");
    for versions in [BOTH, ONLY_12] {
        let client = |identity| config(&authority, identity, &[], versions);
        assert_eq!(asked(&gapless, &client(None), ""), None);
        assert_eq!(asked(&gapless, &client(Some(&stranger)), ""), None);
        assert_eq!(endpoint.seen().len(), 0);
    }
    assert_eq!(asked(&gapless, &config(&authority, Some(&good), &[], BOTH), FORGED), Some(200));
    let seen = endpoint.seen();
    let values: Vec<_> = seen[0].head.all(CLIENT_CERT).collect();
    let [value] = values[..] else { panic!("{values:?}") };
    let (hash, rest) = value.split_once(';').expect("several parts");
    let hash = hash.strip_prefix("Hash=").expect("a hash");
    assert!(hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit()), "{hash}");
    assert_eq!(rest, "Subject=\"CN=rcgen self signed cert\";DNS=client.example");
}

#[test]
fn an_optional_certificate_is_checked_if_it_is_shown() {
    let lines = "client_ca = \"ca.pem\"\nclient_auth = \"optional\"";
    let (endpoint, gapless, authority) = encrypted(&Config::new(), lines);
    let stranger = Authority::new("stranger").client("client.example");
    let good = authority.client("client.example");
    let client = |identity| config(&authority, identity, &[], BOTH);
    assert_eq!(asked(&gapless, &client(Some(&stranger)), ""), None);
    assert_eq!(asked(&gapless, &client(None), FORGED), Some(200));
    assert_eq!(asked(&gapless, &client(Some(&good)), ""), Some(200));
    let seen = endpoint.seen();
    assert_eq!(seen[0].head.field(CLIENT_CERT), None);
    assert!(seen[1].head.field(CLIENT_CERT).is_some());
}

#[test]
fn nobody_can_claim_a_certificate_in_cleartext() {
    let (endpoint, gapless) = plain(&Config::new(), "");
    let mut client = Client::open(gapless.address);
    let answer = client.exchange("GET", "/", &[(CLIENT_CERT, "Hash=00")], b"").expect("an answer");
    assert_eq!(answer.status, 200);
    assert_eq!(endpoint.seen()[0].head.field(CLIENT_CERT), None);
}

/// How many of these connections resumed a session; each asks once.
fn resumed(gapless: &Gapless, client: &Arc<rustls::ClientConfig>, connections: usize) -> usize {
    let mut count = 0;
    for _ in 0..connections {
        let mut secure = Secure::connect(gapless.address, "a.example", client).expect("shaken");
        assert_eq!(secure.ask(""), 200);
        count += usize::from(secure.is_resumed());
    }
    count
}

#[test]
fn a_session_is_resumed_whichever_worker_takes_the_connection() {
    let workers = Config::default().keys("workers = 2");
    let (_endpoint, gapless, authority) = encrypted(&workers, "");
    for versions in [BOTH, ONLY_12] {
        let client = config(&authority, None, &["http/1.1"], versions);
        assert_eq!(resumed(&gapless, &client, 30), 29, "all but the first");
    }
}

#[test]
fn who_must_show_a_certificate_shows_it_every_time() {
    let (_endpoint, gapless, authority) = encrypted(&Config::new(), "client_ca = \"ca.pem\"");
    let identity = authority.client("client.example");
    for versions in [BOTH, ONLY_12] {
        let client = config(&authority, Some(&identity), &[], versions);
        assert_eq!(resumed(&gapless, &client, 5), 0);
    }
}

#[test]
fn early_data_is_not_taken() {
    let (_endpoint, gapless, authority) = encrypted(&Config::new(), "");
    let client = simple(&authority);
    assert_eq!(resumed(&gapless, &client, 2), 1);
    let name = "a.example".try_into().expect("a name");
    let mut session = rustls::ClientConnection::new(Arc::clone(&client), name).expect("a session");
    assert!(session.early_data().is_none(), "the ticket does not allow it");
    let mut without = (*client).clone();
    without.resumption = Resumption::disabled();
    assert_eq!(resumed(&gapless, &Arc::new(without), 2), 0);
}

#[test]
fn who_does_not_shake_hands_is_cut_and_holds_nobody_up() {
    let (endpoint, gapless, authority) = encrypted(&Config::new(), "handshake_timeout = \"500ms\"");
    let mut silent: Vec<Client> = (0..20).map(|_| Client::open(gapless.address)).collect();
    // A record's header, and nothing in it.
    for client in &mut silent[..10] {
        client.send([0x16, 3, 1, 2, 0, 1]).expect("sent");
    }
    let mut secure =
        Secure::connect(gapless.address, "a.example", &simple(&authority)).expect("shaken");
    assert_eq!(secure.ask(""), 200);
    let began = Instant::now();
    for client in &mut silent {
        assert!(client.is_ended());
    }
    assert!(began.elapsed() < SOON);
    let timeouts = "gapless_tls_handshakes_total{result=\"timeout\"}";
    eventually("all are counted", SOON, || gapless.metric(timeouts) == 20.0);
    assert_eq!(secure.ask(""), 200, "what is open is not touched");
    assert_eq!(endpoint.seen().len(), 2);
}

#[test]
fn cleartext_is_not_served_where_tls_is_spoken() {
    let (endpoint, gapless, _) = encrypted(&Config::new(), "");
    let mut client = Client::open(gapless.address);
    client.send("GET / HTTP/1.1\r\nhost: a.example\r\n\r\n").expect("sent");
    assert!(client.answer("GET").is_err());
    assert_eq!(endpoint.seen().len(), 0);
}
