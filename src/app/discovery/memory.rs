//! The last good answers, for the process that comes after this one: in a file of `state_dir`, and in what
//! an upgrade hands over. So a start while DNS is down serves all the same.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::app::api::Clock;
use crate::logic::discovery::{Data, Question, Record, Remembered, Service, check_name};

/// The file's name in `state_dir`.
const FILE: &str = "names.json";

/// Nothing larger is read.
const BYTES_AT_MOST: u64 = 16 * 1024 * 1024;

/// Answers that are read, at most.
const ANSWERS_AT_MOST: usize = 20_000;

/// A disk that takes longer is not waited for at a start.
const PATIENCE: Duration = Duration::from_secs(1);

/// Between two writes, at least.
const WRITE_EVERY: Duration = Duration::from_secs(1);

/// One answer, as it is written down.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AnswerNote {
    name: String,
    record: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    addresses: Vec<IpAddr>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    services: Vec<ServiceNote>,
    /// Microseconds since 1970.
    at_us: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct ServiceNote {
    priority: u16,
    weight: u16,
    target: String,
    port: u16,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Page {
    names: Vec<AnswerNote>,
}

/// Writes answers down.
#[must_use]
pub fn notes(answers: &[Remembered], clock: &Clock) -> Vec<AnswerNote> {
    let one = |answer: &Remembered| {
        let (addresses, services) = match &answer.data {
            Data::Addresses(all) => (all.clone(), Vec::new()),
            Data::Services(all) => (Vec::new(), all.iter().map(ServiceNote::new).collect()),
        };
        AnswerNote {
            name: answer.question.name.to_string(),
            record: answer.question.record.as_str().to_owned(),
            addresses,
            services,
            at_us: clock.micros(answer.at),
        }
    };
    answers.iter().map(one).collect()
}

/// Reads what can be understood of them.
#[must_use]
pub fn answers(notes: &[AnswerNote]) -> Vec<Remembered> {
    let (now, today) = (Instant::now(), SystemTime::now());
    let one = |note: &AnswerNote| {
        let record = Record::parse(&note.record)?;
        let name = check_name(&note.name).ok()?.into();
        let data = match record {
            Record::Srv => {
                let read: Option<Vec<Service>> =
                    note.services.iter().map(ServiceNote::read).collect();
                Data::Services(read?)
            }
            Record::A | Record::Aaaa => Data::Addresses(note.addresses.clone()),
        };
        let written = SystemTime::UNIX_EPOCH + Duration::from_micros(note.at_us);
        let age = today.duration_since(written).unwrap_or_default();
        let at = now.checked_sub(age).unwrap_or(now);
        Some(Remembered { question: Question { name, record }, data, at })
    };
    notes.iter().take(ANSWERS_AT_MOST).filter_map(one).collect()
}

impl ServiceNote {
    fn new(service: &Service) -> Self {
        let Service { priority, weight, port, .. } = *service;
        Self { priority, weight, target: service.target.to_string(), port }
    }

    fn read(&self) -> Option<Service> {
        let Self { priority, weight, port, .. } = *self;
        let target: Arc<str> = check_name(&self.target).ok()?.into();
        Some(Service { priority, weight, target, port })
    }
}

/// What an earlier process has left in `state_dir`. Nothing, if that cannot be read soon.
#[must_use]
pub fn load(state_dir: &Path) -> Vec<Remembered> {
    let path = state_dir.join(FILE);
    let (tell, told) = mpsc::channel();
    let reading = std::thread::Builder::new().name("names".to_owned()).spawn(move || {
        let _ = tell.send(read(&path));
    });
    let read = reading.map_err(|_| ()).and_then(|_| told.recv_timeout(PATIENCE).map_err(|_| ()));
    match read {
        Ok(Ok(found)) => found,
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Ok(Err(error)) => {
            tracing::warn!(%error, "what names led to is not known any more");
            Vec::new()
        }
        Err(()) => {
            tracing::warn!("what names led to is not read: the disk takes too long");
            Vec::new()
        }
    }
}

fn read(path: &Path) -> io::Result<Vec<Remembered>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(BYTES_AT_MOST).read_to_end(&mut bytes)?;
    let page: Page = serde_json::from_slice(&bytes)?;
    Ok(answers(&page.names))
}

/// Keeps the file in `state_dir` as it should be, until nobody says so any more.
pub async fn keep(state_dir: PathBuf, mut latest: watch::Receiver<Vec<Remembered>>, clock: Clock) {
    let mut is_well = true;
    while latest.changed().await.is_ok() {
        let names = notes(&latest.borrow_and_update(), &clock);
        let directory = state_dir.clone();
        let writing = tokio::task::spawn_blocking(move || write(&directory, &Page { names }));
        let written = writing.await.unwrap_or_else(|error| Err(io::Error::other(error)));
        if let Err(error) = &written
            && is_well
        {
            tracing::warn!(%error, "what names lead to cannot be kept in `state_dir`");
        }
        is_well = written.is_ok();
        tokio::time::sleep(WRITE_EVERY).await;
    }
}

/// Another file in its place, so that there is always a whole one.
fn write(directory: &Path, page: &Page) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let (path, new) = (directory.join(FILE), directory.join(format!("{FILE}.new")));
    let mut file = File::create(&new)?;
    file.write_all(&serde_json::to_vec(page)?)?;
    file.sync_all()?;
    fs::rename(new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let directory = tempfile::TempDir::new().expect("a directory");
        assert!(load(directory.path()).is_empty(), "there is none yet");
        let question = |name: &str, record| Question { name: name.into(), record };
        let service = Service { priority: 1, weight: 2, target: "a.example.".into(), port: 80 };
        let ip: IpAddr = [10, 0, 0, 1].into();
        let at = Instant::now();
        let known = [
            Remembered { question: question("a", Record::A), data: Data::Addresses(vec![ip]), at },
            Remembered {
                question: question("_http._tcp.a", Record::Srv),
                data: Data::Services(vec![service]),
                at,
            },
        ];
        let names = notes(&known, &Clock::read());
        write(directory.path(), &Page { names }).expect("written");
        let read = load(directory.path());
        let parts = |all: &[Remembered]| -> Vec<_> {
            all.iter().map(|one| (one.question.clone(), one.data.clone())).collect()
        };
        assert_eq!(parts(&read), parts(&known));
        fs::write(directory.path().join(FILE), "{\"names\": [{\"na").expect("written");
        assert!(load(directory.path()).is_empty(), "half a file is none");
    }
}
