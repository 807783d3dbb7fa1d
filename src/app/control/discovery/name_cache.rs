//! Saves the last good DNS answers in `state_dir` and in an upgrade's handover message, so that a
//! process can start while DNS is down.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::app::ops::api::WallClock;
use crate::logic::discovery::{
    CachedLookup, DnsRecordType, LookupQuestion, LookupRecords, SrvTarget, normalise_dns_name,
};

/// File name in `state_dir`.
const NAMES_FILE: &str = "names.json";

/// A larger file is not read.
const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;

/// Limit of answers that are read.
const MAX_ANSWERS: usize = 20_000;

/// Limit of the time that a start waits for the disk.
const READ_TIMEOUT: Duration = Duration::from_secs(1);

/// Minimum time between two writes.
const WRITE_INTERVAL: Duration = Duration::from_secs(1);

/// One answer as stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StoredAnswer {
    name: String,
    record: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    addresses: Vec<IpAddr>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    services: Vec<StoredService>,
    at_us: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct StoredService {
    priority: u16,
    weight: u16,
    target: String,
    port: u16,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct StoredNames {
    names: Vec<StoredAnswer>,
}

pub fn to_stored_answers(answers: &[CachedLookup], clock: &WallClock) -> Vec<StoredAnswer> {
    let one = |answer: &CachedLookup| {
        let (addresses, services) = match &answer.records {
            LookupRecords::Addresses(all) => (all.clone(), Vec::new()),
            LookupRecords::SrvTargets(all) => {
                (Vec::new(), all.iter().map(StoredService::new).collect())
            }
        };
        StoredAnswer {
            name: answer.question.name.to_string(),
            record: answer.question.record_type.as_str().to_owned(),
            addresses,
            services,
            at_us: clock.unix_micros(answer.good_at),
        }
    };
    answers.iter().map(one).collect()
}

/// Parses stored answers; invalid ones are skipped.
pub fn from_stored_answers(stored: &[StoredAnswer]) -> Vec<CachedLookup> {
    let (now, today) = (Instant::now(), SystemTime::now());
    let one = |answer: &StoredAnswer| {
        let record = DnsRecordType::parse(&answer.record)?;
        let name = normalise_dns_name(&answer.name).ok()?.into();
        let data = match record {
            DnsRecordType::Srv => {
                let read: Option<Vec<SrvTarget>> =
                    answer.services.iter().map(StoredService::to_service).collect();
                LookupRecords::SrvTargets(read?)
            }
            DnsRecordType::A | DnsRecordType::Aaaa => {
                LookupRecords::Addresses(answer.addresses.clone())
            }
        };
        let written = SystemTime::UNIX_EPOCH + Duration::from_micros(answer.at_us);
        let age = today.duration_since(written).unwrap_or_default();
        let at = now.checked_sub(age).unwrap_or(now);
        Some(CachedLookup {
            question: LookupQuestion { name, record_type: record },
            records: data,
            good_at: at,
        })
    };
    stored.iter().take(MAX_ANSWERS).filter_map(one).collect()
}

impl StoredService {
    fn new(service: &SrvTarget) -> Self {
        let SrvTarget { priority, weight, port, .. } = *service;
        Self { priority, weight, target: service.target.to_string(), port }
    }

    fn to_service(&self) -> Option<SrvTarget> {
        let Self { priority, weight, port, .. } = *self;
        let target: Arc<str> = normalise_dns_name(&self.target).ok()?.into();
        Some(SrvTarget { priority, weight, target, port })
    }
}

/// Reads the answers of an earlier process. Empty if the file is unreadable or the disk too slow.
pub fn load_names(state_dir: &Path) -> Vec<CachedLookup> {
    let path = state_dir.join(NAMES_FILE);
    let (sender, receiver) = mpsc::channel();
    let reading = std::thread::Builder::new().name("names".to_owned()).spawn(move || {
        let _ = sender.send(read_names(&path));
    });
    let read =
        reading.map_err(|_| ()).and_then(|_| receiver.recv_timeout(READ_TIMEOUT).map_err(|_| ()));
    match read {
        Ok(Ok(found)) => found,
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Ok(Err(error)) => {
            tracing::warn!(%error, "saved DNS answers cannot be read");
            Vec::new()
        }
        Err(()) => {
            tracing::warn!("saved DNS answers are not read: the disk takes too long");
            Vec::new()
        }
    }
}

fn read_names(path: &Path) -> io::Result<Vec<CachedLookup>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_FILE_BYTES).read_to_end(&mut bytes)?;
    let names: StoredNames = serde_json::from_slice(&bytes)?;
    Ok(from_stored_answers(&names.names))
}

/// Writes each new set of answers to `state_dir` until the sender of `latest` is dropped.
pub async fn run_writer(
    state_dir: PathBuf,
    mut latest: watch::Receiver<Vec<CachedLookup>>,
    clock: WallClock,
) {
    let mut was_written = true;
    while latest.changed().await.is_ok() {
        let names = to_stored_answers(&latest.borrow_and_update(), &clock);
        let directory = state_dir.clone();
        let writing =
            tokio::task::spawn_blocking(move || write_names(&directory, &StoredNames { names }));
        let written = writing.await.unwrap_or_else(|error| Err(io::Error::other(error)));
        if let Err(error) = &written
            && was_written
        {
            tracing::warn!(%error, "DNS answers cannot be saved in `state_dir`");
        }
        was_written = written.is_ok();
        tokio::time::sleep(WRITE_INTERVAL).await;
    }
}

/// Writes a temporary file and renames it, so that the file is always complete.
fn write_names(directory: &Path, names: &StoredNames) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let (path, new) = (directory.join(NAMES_FILE), directory.join(format!("{NAMES_FILE}.new")));
    let mut file = File::create(&new)?;
    file.write_all(&serde_json::to_vec(names)?)?;
    file.sync_all()?;
    fs::rename(new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_names_are_read_back_equal() {
        let directory = tempfile::TempDir::new().expect("a directory");
        assert!(load_names(directory.path()).is_empty(), "no file yet");
        let question =
            |name: &str, record| LookupQuestion { name: name.into(), record_type: record };
        let service = SrvTarget { priority: 1, weight: 2, target: "a.example.".into(), port: 80 };
        let ip: IpAddr = [10, 0, 0, 1].into();
        let at = Instant::now();
        let known = [
            CachedLookup {
                question: question("a", DnsRecordType::A),
                records: LookupRecords::Addresses(vec![ip]),
                good_at: at,
            },
            CachedLookup {
                question: question("_http._tcp.a", DnsRecordType::Srv),
                records: LookupRecords::SrvTargets(vec![service]),
                good_at: at,
            },
        ];
        let names = to_stored_answers(&known, &WallClock::read());
        write_names(directory.path(), &StoredNames { names }).expect("written");
        let read = load_names(directory.path());
        let parts = |all: &[CachedLookup]| -> Vec<_> {
            all.iter().map(|one| (one.question.clone(), one.records.clone())).collect()
        };
        assert_eq!(parts(&read), parts(&known));
        fs::write(directory.path().join(NAMES_FILE), "{\"names\": [{\"na").expect("written");
        assert!(load_names(directory.path()).is_empty(), "a truncated file is ignored");
    }
}
