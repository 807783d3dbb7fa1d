//! What outlives the process: one file of redb in the state directory, with bytes by key. What the
//! bytes mean is their writer's affair.

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

use super::state::{self, FILE_MODE};

/// The file's name in the state directory.
pub const FILE: &str = "ledger.redb";

/// What redb may keep in memory: everything is read once, and then only written.
const CACHE_BYTES: usize = 1024 * 1024;

/// A file is copied while somebody may be writing to it; so often, at most.
const COPIES: u32 = 20;

const INCIDENTS: TableDefinition<u64, &[u8]> = TableDefinition::new("incidents");
const BUDGETS: TableDefinition<&str, &[u8]> = TableDefinition::new("budgets");

/// All that the file holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Incidents, by their number.
    pub incidents: Vec<(u64, Vec<u8>)>,
    /// Error budgets, by name.
    pub budgets: Vec<(String, Vec<u8>)>,
}

/// What is written at once: all of it or nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Incidents that are new or have changed.
    pub incidents: Vec<(u64, Vec<u8>)>,
    /// Incidents that are kept no longer.
    pub forgotten: Vec<u64>,
    /// Error budgets, if they have changed: all of them.
    pub budgets: Option<Vec<(String, Vec<u8>)>>,
}

impl Change {
    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.incidents.is_empty() && self.forgotten.is_empty() && self.budgets.is_none()
    }
}

/// The file, open: nobody else has it meanwhile.
#[derive(Debug)]
pub struct Store {
    database: Database,
}

/// A file that was opened.
#[derive(Debug)]
pub struct Opened {
    /// The file.
    pub store: Store,
    /// What it holds.
    pub contents: Contents,
    /// What was there could not be read and lies here now, for this reason; the file is a new one.
    pub aside: Option<(PathBuf, String)>,
}

/// Why a file is not open.
#[derive(Debug)]
enum Trouble {
    /// It cannot be got at now.
    Io(io::Error),
    /// It cannot be read, now or later.
    Broken(String),
}

impl From<DatabaseError> for Trouble {
    fn from(error: DatabaseError) -> Self {
        match error {
            DatabaseError::DatabaseAlreadyOpen => {
                let why = "another process has it open";
                Self::Io(io::Error::new(ErrorKind::WouldBlock, why))
            }
            DatabaseError::Storage(StorageError::Io(error)) if !is_damage(&error) => {
                Self::Io(error)
            }
            other => Self::Broken(other.to_string()),
        }
    }
}

/// What a file that was cut or filled with other bytes gives.
fn is_damage(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::UnexpectedEof | ErrorKind::InvalidData | ErrorKind::InvalidInput
    )
}

fn broken(error: impl Display) -> Trouble {
    Trouble::Broken(error.to_string())
}

impl Store {
    /// Opens the file in `directory`, which is made if it is not there. A crash leaves the file as it
    /// was after a [`Store::write`]; one that cannot be read is put aside and begun anew.
    ///
    /// # Errors
    /// If the file cannot be got at: [`ErrorKind::WouldBlock`] while another process has it open.
    pub fn open(directory: &Path) -> io::Result<Opened> {
        state::make(directory)?;
        let path = directory.join(FILE);
        let why = match open(&path) {
            Ok((store, contents)) => return Ok(Opened { store, contents, aside: None }),
            Err(Trouble::Io(error)) => return Err(error),
            Err(Trouble::Broken(why)) => why,
        };
        let aside = state::put_aside(directory, FILE)?;
        match open(&path) {
            Ok((store, contents)) => Ok(Opened { store, contents, aside: Some((aside, why)) }),
            Err(Trouble::Io(error)) => Err(error),
            Err(Trouble::Broken(why)) => Err(io::Error::other(why)),
        }
    }

    /// Writes `change`. When this returns it is on the disk.
    ///
    /// # Errors
    /// If it could not be written: nothing of it was, and the store is of no use any more.
    pub fn write(&self, change: &Change) -> io::Result<()> {
        self.commit(change).map_err(io::Error::other)
    }

    fn commit(&self, change: &Change) -> Result<(), redb::Error> {
        let transaction = self.database.begin_write()?;
        {
            let mut table = transaction.open_table(INCIDENTS)?;
            for (key, value) in &change.incidents {
                table.insert(key, value.as_slice())?;
            }
            for key in &change.forgotten {
                table.remove(key)?;
            }
        }
        if let Some(budgets) = &change.budgets {
            let mut table = transaction.open_table(BUDGETS)?;
            table.retain(|name, _| budgets.iter().any(|(kept, _)| kept == name))?;
            for (name, value) in budgets {
                table.insert(name.as_str(), value.as_slice())?;
            }
        }
        transaction.commit()?;
        Ok(())
    }
}

/// Reads what the file in `directory` holds and leaves it as it is, also while a process has it open:
/// it is a copy that is read.
///
/// # Errors
/// If there is none, or it cannot be read.
pub fn read(directory: &Path) -> io::Result<Contents> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let name = format!("gapless-{}-{}", std::process::id(), since.as_nanos());
    let place = std::env::temp_dir().join(name);
    fs::DirBuilder::new().mode(0o700).create(&place)?;
    let copy = place.join(FILE);
    let mut result = Err(ErrorKind::NotFound.into());
    for _ in 0..COPIES {
        result = fs::copy(directory.join(FILE), &copy).and_then(|_| match open(&copy) {
            Ok((_, contents)) => Ok(contents),
            Err(Trouble::Io(error)) => Err(error),
            Err(Trouble::Broken(why)) => Err(io::Error::new(ErrorKind::InvalidData, why)),
        });
        // Something else may have been written while it was copied.
        if !matches!(&result, Err(error) if error.kind() == ErrorKind::InvalidData) {
            break;
        }
    }
    let _ = fs::remove_dir_all(place);
    result
}

/// Opens and reads all of it. A damaged file may make redb panic; that is damage like other.
fn open(path: &Path) -> Result<(Store, Contents), Trouble> {
    let attempt = || {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(FILE_MODE);
        options.open(path).map_err(Trouble::Io)?;
        let mut builder = Builder::new();
        builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
        let database = builder.create(path)?;
        let contents = contents(&database)?;
        if let Some(directory) = path.parent() {
            File::open(directory)
                .and_then(|directory| directory.sync_all())
                .map_err(Trouble::Io)?;
        }
        Ok((Store { database }, contents))
    };
    catch_unwind(AssertUnwindSafe(attempt))
        .unwrap_or_else(|_| Err(Trouble::Broken("it is damaged".to_owned())))
}

fn contents(database: &Database) -> Result<Contents, Trouble> {
    let transaction = database.begin_read().map_err(broken)?;
    let mut contents = Contents::default();
    match transaction.open_table(INCIDENTS) {
        Ok(table) => {
            for entry in table.iter().map_err(broken)? {
                let (key, value) = entry.map_err(broken)?;
                contents.incidents.push((key.value(), value.value().to_vec()));
            }
        }
        Err(TableError::TableDoesNotExist(_)) => {}
        Err(error) => return Err(broken(error)),
    }
    match transaction.open_table(BUDGETS) {
        Ok(table) => {
            for entry in table.iter().map_err(broken)? {
                let (key, value) = entry.map_err(broken)?;
                contents.budgets.push((key.value().to_owned(), value.value().to_vec()));
            }
        }
        Err(TableError::TableDoesNotExist(_)) => {}
        Err(error) => return Err(broken(error)),
    }
    Ok(contents)
}

#[cfg(test)]
mod tests {
    use super::*;

    use super::state::KEPT_ASIDE;

    fn one(key: u64, value: &[u8]) -> Change {
        Change { incidents: vec![(key, value.to_vec())], ..Change::default() }
    }

    #[test]
    fn what_is_written_is_there_again() {
        let directory = tempfile::tempdir().expect("a directory");
        let inner = directory.path().join("a/b");
        let Opened { store, contents, aside } = Store::open(&inner).expect("a new file");
        assert_eq!((contents, aside), (Contents::default(), None));
        store.write(&one(1, b"one")).expect("written");
        store.write(&one(2, b"two")).expect("written");
        let budgets = Some(vec![("a".to_owned(), vec![1]), ("b".to_owned(), vec![2])]);
        let change = Change { forgotten: vec![1], budgets, ..Change::default() };
        store.write(&change).expect("written");
        let blocked = Store::open(&inner).expect_err("it is open");
        assert_eq!(blocked.kind(), ErrorKind::WouldBlock);
        let seen = read(&inner).expect("a copy");
        assert_eq!(seen.incidents, [(2, b"two".to_vec())]);
        let change = Change { budgets: Some(vec![("b".to_owned(), vec![3])]), ..Change::default() };
        store.write(&change).expect("written");
        drop(store);
        let Opened { contents, aside, .. } = Store::open(&inner).expect("the same file");
        assert_eq!(contents.incidents, [(2, b"two".to_vec())]);
        assert_eq!(contents.budgets, [("b".to_owned(), vec![3])]);
        assert_eq!(aside, None);
    }

    #[test]
    fn a_file_that_cannot_be_read_is_put_aside_and_kept() {
        let directory = tempfile::tempdir().expect("a directory");
        for _ in 0..KEPT_ASIDE + 2 {
            fs::write(directory.path().join(FILE), b"something else entirely").expect("written");
            let Opened { store, aside, .. } = Store::open(directory.path()).expect("a new file");
            let (aside, why) = aside.expect("put aside");
            assert_eq!(fs::read(aside).expect("kept"), b"something else entirely");
            assert!(!why.is_empty());
            store.write(&one(1, b"one")).expect("written");
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        let files = fs::read_dir(directory.path()).expect("readable").count();
        assert_eq!(files, 1 + KEPT_ASIDE);
    }

    #[test]
    fn who_may_not_write_is_told_and_nothing_is_put_aside() {
        let directory = tempfile::tempdir().expect("a directory");
        fs::write(directory.path().join("file"), b"").expect("written");
        assert!(Store::open(&directory.path().join("file")).is_err(), "not a directory");
        assert!(read(directory.path()).is_err(), "there is none");
    }

    #[test]
    fn no_damage_keeps_it_from_opening() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join(FILE);
        let store = Store::open(directory.path()).expect("a new file").store;
        for key in 0..200 {
            store.write(&one(key, &[7; 300])).expect("written");
        }
        drop(store);
        let whole = fs::read(&path).expect("readable");
        let mut rng = fastrand::Rng::with_seed(7);
        for round in 0..60 {
            let mut bytes = whole.clone();
            if round % 2 == 0 {
                bytes.truncate(rng.usize(..whole.len()));
            } else {
                for _ in 0..rng.usize(1..200) {
                    let at = rng.usize(..bytes.len());
                    bytes[at] = rng.u8(..);
                }
            }
            fs::write(&path, bytes).expect("written");
            let opened = Store::open(directory.path()).expect("whatever it was");
            for (key, value) in &opened.contents.incidents {
                assert!(*key < 200 && value == &[7; 300], "what is read is what was written");
            }
            opened.store.write(&one(1, &[7; 300])).expect("written");
        }
    }
}
