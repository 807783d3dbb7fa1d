//! The ledger file in the state directory: a redb database of opaque values by key. The callers
//! define the format of the values.

use std::fmt::Display;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use redb::{
    Builder, Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError,
    TableDefinition, TableError,
};

use super::state_files;
use super::state_files::FILE_MODE;

/// The name of the ledger file in the state directory.
pub const LEDGER_FILE: &str = "ledger.redb";

/// redb's cache: the file is read once at the start, and then only written.
const CACHE_BYTES: usize = 1024 * 1024;

/// Attempts to copy a file that another process may be writing.
const MAX_COPY_ATTEMPTS: u32 = 20;

const INCIDENTS_TABLE: TableDefinition<u64, &[u8]> = TableDefinition::new("incidents");
const BUDGETS_TABLE: TableDefinition<&str, &[u8]> = TableDefinition::new("budgets");

/// The contents of the ledger file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LedgerContents {
    /// The values of incidents, by number.
    pub incidents: Vec<(u64, Vec<u8>)>,
    /// The values of error budgets, by name.
    pub budgets: Vec<(String, Vec<u8>)>,
}

/// A set of changes that is written atomically.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LedgerChange {
    /// New and changed incidents.
    pub incidents: Vec<(u64, Vec<u8>)>,
    pub removed_incidents: Vec<u64>,
    /// All error budgets, if any has changed.
    pub budgets: Option<Vec<(String, Vec<u8>)>>,
}

impl LedgerChange {
    /// Whether the change is empty.
    pub fn is_empty(&self) -> bool {
        self.incidents.is_empty() && self.removed_incidents.is_empty() && self.budgets.is_none()
    }
}

/// The open ledger file, which is locked against other processes.
#[derive(Debug)]
pub struct LedgerStore {
    database: Database,
}

/// The result of opening a ledger file.
#[derive(Debug)]
pub struct OpenedLedger {
    pub store: LedgerStore,
    pub contents: LedgerContents,
    /// Where an unreadable file was moved to, and why; the open file is then a new one.
    pub quarantined: Option<(PathBuf, String)>,
}

/// Why a file could not be opened.
#[derive(Debug)]
enum LedgerOpenError {
    /// The file is not accessible now.
    Io(io::Error),
    /// The contents are damaged.
    Corrupt(String),
}

impl From<DatabaseError> for LedgerOpenError {
    fn from(error: DatabaseError) -> Self {
        match error {
            DatabaseError::DatabaseAlreadyOpen => {
                let message = "another process has the file open";
                Self::Io(io::Error::new(ErrorKind::WouldBlock, message))
            }
            DatabaseError::Storage(StorageError::Io(error)) if !is_corruption(&error) => {
                Self::Io(error)
            }
            other => Self::Corrupt(other.to_string()),
        }
    }
}

/// The errors that redb reports for a truncated or overwritten file.
fn is_corruption(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::UnexpectedEof | ErrorKind::InvalidData | ErrorKind::InvalidInput
    )
}

fn corrupt(error: impl Display) -> LedgerOpenError {
    LedgerOpenError::Corrupt(error.to_string())
}

impl LedgerStore {
    /// Opens the file in `directory`, which is created if necessary. After a crash the file has the
    /// contents of the last [`Self::write`]. A damaged file is quarantined and a new one created.
    ///
    /// # Errors
    /// If the file is not accessible: [`ErrorKind::WouldBlock`] while another process has it open.
    pub fn open(directory: &Path) -> io::Result<OpenedLedger> {
        state_files::create_directory(directory)?;
        let path = directory.join(LEDGER_FILE);
        let reason = match open_database(&path) {
            Ok((store, contents)) => {
                return Ok(OpenedLedger { store, contents, quarantined: None });
            }
            Err(LedgerOpenError::Io(error)) => return Err(error),
            Err(LedgerOpenError::Corrupt(reason)) => reason,
        };
        let quarantined = state_files::quarantine_file(directory, LEDGER_FILE)?;
        match open_database(&path) {
            Ok((store, contents)) => {
                Ok(OpenedLedger { store, contents, quarantined: Some((quarantined, reason)) })
            }
            Err(LedgerOpenError::Io(error)) => Err(error),
            Err(LedgerOpenError::Corrupt(reason)) => Err(io::Error::other(reason)),
        }
    }

    /// Writes `change` and returns when it is on disk.
    ///
    /// # Errors
    /// If writing failed: nothing of it was written, and the store is unusable.
    pub fn write(&self, change: &LedgerChange) -> io::Result<()> {
        self.commit(change).map_err(io::Error::other)
    }

    fn commit(&self, change: &LedgerChange) -> Result<(), redb::Error> {
        let transaction = self.database.begin_write()?;
        {
            let mut table = transaction.open_table(INCIDENTS_TABLE)?;
            for (key, value) in &change.incidents {
                table.insert(key, value.as_slice())?;
            }
            for key in &change.removed_incidents {
                table.remove(key)?;
            }
        }
        if let Some(budgets) = &change.budgets {
            let mut table = transaction.open_table(BUDGETS_TABLE)?;
            table.retain(|name, _| budgets.iter().any(|(current, _)| current == name))?;
            for (name, value) in budgets {
                table.insert(name.as_str(), value.as_slice())?;
            }
        }
        transaction.commit()?;
        Ok(())
    }
}

/// Reads a copy of the file in `directory`, which works while another process has the file open.
///
/// # Errors
/// If the file does not exist or cannot be read.
pub fn read_copy(directory: &Path) -> io::Result<LedgerContents> {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let name = format!("gapless-{}-{}", std::process::id(), since_epoch.as_nanos());
    let temp_directory = std::env::temp_dir().join(name);
    fs::DirBuilder::new().mode(0o700).create(&temp_directory)?;
    let copy = temp_directory.join(LEDGER_FILE);
    let mut result = Err(ErrorKind::NotFound.into());
    for _ in 0..MAX_COPY_ATTEMPTS {
        result =
            fs::copy(directory.join(LEDGER_FILE), &copy).and_then(|_| match open_database(&copy) {
                Ok((_, contents)) => Ok(contents),
                Err(LedgerOpenError::Io(error)) => Err(error),
                Err(LedgerOpenError::Corrupt(reason)) => {
                    Err(io::Error::new(ErrorKind::InvalidData, reason))
                }
            });
        // The copy is inconsistent if the file was written meanwhile.
        if !matches!(&result, Err(error) if error.kind() == ErrorKind::InvalidData) {
            break;
        }
    }
    let _ = fs::remove_dir_all(temp_directory);
    result
}

/// Opens and reads a file. redb may panic on a damaged one, which counts as damage.
fn open_database(path: &Path) -> Result<(LedgerStore, LedgerContents), LedgerOpenError> {
    let open = || {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(FILE_MODE);
        options.open(path).map_err(LedgerOpenError::Io)?;
        let mut builder = Builder::new();
        builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
        let database = builder.create(path)?;
        let contents = read_contents(&database)?;
        if let Some(directory) = path.parent() {
            File::open(directory)
                .and_then(|directory| directory.sync_all())
                .map_err(LedgerOpenError::Io)?;
        }
        Ok((LedgerStore { database }, contents))
    };
    catch_unwind(AssertUnwindSafe(open))
        .unwrap_or_else(|_| Err(LedgerOpenError::Corrupt("the file is damaged".to_owned())))
}

fn read_contents(database: &Database) -> Result<LedgerContents, LedgerOpenError> {
    let transaction = database.begin_read().map_err(corrupt)?;
    let mut contents = LedgerContents::default();
    match transaction.open_table(INCIDENTS_TABLE) {
        Ok(table) => {
            for entry in table.iter().map_err(corrupt)? {
                let (key, value) = entry.map_err(corrupt)?;
                contents.incidents.push((key.value(), value.value().to_vec()));
            }
        }
        Err(TableError::TableDoesNotExist(_)) => {}
        Err(error) => return Err(corrupt(error)),
    }
    match transaction.open_table(BUDGETS_TABLE) {
        Ok(table) => {
            for entry in table.iter().map_err(corrupt)? {
                let (key, value) = entry.map_err(corrupt)?;
                contents.budgets.push((key.value().to_owned(), value.value().to_vec()));
            }
        }
        Err(TableError::TableDoesNotExist(_)) => {}
        Err(error) => return Err(corrupt(error)),
    }
    Ok(contents)
}

#[cfg(test)]
mod tests {
    use super::*;

    use super::state_files::MAX_QUARANTINED_FILES;

    fn incident_change(key: u64, value: &[u8]) -> LedgerChange {
        LedgerChange { incidents: vec![(key, value.to_vec())], ..LedgerChange::default() }
    }

    #[test]
    fn written_contents_survive_reopen() {
        let directory = tempfile::tempdir().expect("a directory");
        let inner = directory.path().join("a/b");
        let OpenedLedger { store, contents, quarantined } =
            LedgerStore::open(&inner).expect("a new file");
        assert_eq!((contents, quarantined), (LedgerContents::default(), None));
        store.write(&incident_change(1, b"one")).expect("written");
        store.write(&incident_change(2, b"two")).expect("written");
        let budgets = Some(vec![("a".to_owned(), vec![1]), ("b".to_owned(), vec![2])]);
        let change =
            LedgerChange { removed_incidents: vec![1], budgets, ..LedgerChange::default() };
        store.write(&change).expect("written");
        let blocked = LedgerStore::open(&inner).expect_err("it is open");
        assert_eq!(blocked.kind(), ErrorKind::WouldBlock);
        let copied = read_copy(&inner).expect("a copy");
        assert_eq!(copied.incidents, [(2, b"two".to_vec())]);
        let change = LedgerChange {
            budgets: Some(vec![("b".to_owned(), vec![3])]),
            ..LedgerChange::default()
        };
        store.write(&change).expect("written");
        drop(store);
        let OpenedLedger { contents, quarantined, .. } =
            LedgerStore::open(&inner).expect("the same file");
        assert_eq!(contents.incidents, [(2, b"two".to_vec())]);
        assert_eq!(contents.budgets, [("b".to_owned(), vec![3])]);
        assert_eq!(quarantined, None);
    }

    #[test]
    fn unreadable_file_is_quarantined_and_kept() {
        let directory = tempfile::tempdir().expect("a directory");
        for _ in 0..MAX_QUARANTINED_FILES + 2 {
            fs::write(directory.path().join(LEDGER_FILE), b"something else entirely")
                .expect("written");
            let OpenedLedger { store, quarantined, .. } =
                LedgerStore::open(directory.path()).expect("a new file");
            let (path, reason) = quarantined.expect("quarantined");
            assert_eq!(fs::read(path).expect("kept"), b"something else entirely");
            assert!(!reason.is_empty());
            store.write(&incident_change(1, b"one")).expect("written");
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        let files = fs::read_dir(directory.path()).expect("readable").count();
        assert_eq!(files, 1 + MAX_QUARANTINED_FILES);
    }

    #[test]
    fn open_below_regular_file_fails() {
        let directory = tempfile::tempdir().expect("a directory");
        fs::write(directory.path().join("file"), b"").expect("written");
        assert!(LedgerStore::open(&directory.path().join("file")).is_err(), "not a directory");
        assert!(read_copy(directory.path()).is_err(), "there is none");
    }

    #[test]
    fn corrupt_file_does_not_prevent_opening() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join(LEDGER_FILE);
        let store = LedgerStore::open(directory.path()).expect("a new file").store;
        for key in 0..200 {
            store.write(&incident_change(key, &[7; 300])).expect("written");
        }
        drop(store);
        let intact = fs::read(&path).expect("readable");
        let mut rng = fastrand::Rng::with_seed(7);
        for round in 0..60 {
            let mut bytes = intact.clone();
            if round % 2 == 0 {
                bytes.truncate(rng.usize(..intact.len()));
            } else {
                for _ in 0..rng.usize(1..200) {
                    let at = rng.usize(..bytes.len());
                    bytes[at] = rng.u8(..);
                }
            }
            fs::write(&path, bytes).expect("written");
            let opened = LedgerStore::open(directory.path()).expect("whatever it was");
            for (key, value) in &opened.contents.incidents {
                assert!(*key < 200 && value == &[7; 300], "what is read is what was written");
            }
            opened.store.write(&incident_change(1, &[7; 300])).expect("written");
        }
    }
}
