//! Entries in a file (redb): a commit is there as a whole or not at all, whenever the process or the
//! machine ends.
//!
//! Each value carries its own length and checksum, so that even of a file that the database refuses,
//! what can be read is kept.

use super::{Kept, Loaded, Store, StoreError, Write};
use redb::{
    Database, DatabaseError, ReadableDatabase as _, ReadableTable as _, StorageError, TableDefinition,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::{
    collections::HashMap,
    fmt, fs, io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

const ENTRIES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("entries");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const REVISION: &str = "revision";

/// What the file is called where nobody says.
pub const FILE_NAME: &str = "registry.redb";

/// What each value begins with.
const MAGIC: &[u8; 8] = b"VersReg1";

/// Bytes of the checksum.
const SUM: usize = 8;

/// No value is longer.
const LONGEST: usize = 64 * 1024;

/// Bytes that the database keeps in memory: all there is fits many times.
const CACHE: usize = 4 * 1024 * 1024;

/// Deleted entries are marked, so that old pages of a damaged file do not bring them back. This many.
const MARKS: usize = 20_000;

/// A file of entries.
pub struct FileStore {
    /// None after an error: until it is opened anew, it would refuse everything.
    database: Option<Database>,
    path: PathBuf,
}

impl fmt::Debug for FileStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileStore").field("path", &self.path).finish_non_exhaustive()
    }
}

/// A value of the file.
#[derive(Debug, Serialize, Deserialize)]
enum Value {
    Entry(Box<Kept>),
    Gone {
        #[serde(with = "super::model::shared_text")]
        id: Arc<str>,
        revision: u64,
    },
}

impl Value {
    fn id(&self) -> &Arc<str> {
        match self {
            Self::Entry(kept) => kept.id(),
            Self::Gone { id, .. } => id,
        }
    }

    fn revision(&self) -> u64 {
        match self {
            Self::Entry(kept) => kept.revision,
            Self::Gone { revision, .. } => *revision,
        }
    }
}

impl FileStore {
    /// Opens a file, or makes it, and reads what it has.
    ///
    /// A damaged one is put aside, and what can be read of it goes on in a new one.
    ///
    /// # Errors
    /// Fails where it cannot be opened, and where another process has it open.
    pub fn open(path: &Path) -> Result<(Self, Loaded), StoreError> {
        if let Some(folder) = path.parent() {
            private_folder(folder).map_err(|error| failed(folder, &error))?;
        }
        let opened = catch_unwind(AssertUnwindSafe(|| Self::read(path)));
        let why = match opened {
            Ok(Ok(opened)) => return Ok(opened),
            Ok(Err(Trouble::Other(error))) => return Err(error),
            Ok(Err(Trouble::Damaged(why))) => why,
            Err(_) => "the database cannot be read".to_owned(),
        };
        Self::salvage(path, &why)
    }

    fn read(path: &Path) -> Result<(Self, Loaded), Trouble> {
        let database = database(path).map_err(|error| Trouble::of(path, error))?;
        private(path);
        let loaded = Self::load(&database).map_err(|error| Trouble::Damaged(error.to_string()))?;
        Ok((Self { database: Some(database), path: path.to_owned() }, loaded))
    }

    fn load(database: &Database) -> Result<Loaded, redb::Error> {
        let transaction = database.begin_read()?;
        let table = match transaction.open_table(ENTRIES) {
            Ok(table) => table,
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Loaded::default()),
            Err(error) => return Err(error.into()),
        };
        let mut loaded = Loaded::default();
        for item in table.iter()? {
            let (id, value) = item?;
            match unframe(value.value()) {
                Some((Value::Entry(kept), _)) => loaded.entries.push(*kept),
                Some((Value::Gone { .. }, _)) => {}
                None => return Err(redb::Error::Corrupted(format!("the entry {} is damaged", id.value()))),
            }
        }
        let meta = transaction.open_table(META)?;
        loaded.revision = meta.get(REVISION)?.map_or(0, |revision| revision.value());
        Ok(loaded)
    }

    /// Puts the file aside, and begins a new one with what can be read of it.
    fn salvage(path: &Path, why: &str) -> Result<(Self, Loaded), StoreError> {
        let bytes = fs::read(path).map_err(|error| failed(path, &error))?;
        let values = find_values(&bytes);
        let revision = values.iter().map(Value::revision).max().unwrap_or_default();
        let mut newest: HashMap<Arc<str>, Value> = HashMap::new();
        for value in values {
            let id = Arc::clone(value.id());
            if newest.get(&id).is_none_or(|known| known.revision() < value.revision()) {
                newest.insert(id, value);
            }
        }
        let mut entries = Vec::new();
        for value in newest.into_values() {
            if let Value::Entry(kept) = value {
                entries.push(*kept);
            }
        }
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut aside = path.as_os_str().to_owned();
        aside.push(format!(".damaged-{seconds}"));
        fs::rename(path, &aside).map_err(|error| failed(path, &error))?;
        let opened = Self::read(path).map_err(|trouble| match trouble {
            Trouble::Damaged(why) => StoreError(why),
            Trouble::Other(error) => error,
        });
        let (mut store, _) = opened?;
        let writes: Vec<Write> = entries.iter().cloned().map(Box::new).map(Write::Put).collect();
        store.commit(&writes)?;
        let damage = format!(
            "{} was damaged ({why}): {} entries could be read and are kept; the damaged file is {}",
            path.display(),
            entries.len(),
            Path::new(&aside).display()
        );
        Ok((store, Loaded { entries, revision, damage: Some(damage) }))
    }

    /// Opens it again, as it is.
    fn reopen(&self) -> Result<Database, StoreError> {
        let opened = catch_unwind(AssertUnwindSafe(|| database(&self.path)));
        let opened = opened.map_err(|_| failed(&self.path, &"the database cannot be read"))?;
        opened.map_err(|error| failed(&self.path, &error))
    }

    fn write(database: &Database, writes: &[Write]) -> Result<(), redb::Error> {
        let transaction = database.begin_write()?;
        {
            let mut table = transaction.open_table(ENTRIES)?;
            let mut meta = transaction.open_table(META)?;
            let mut last = meta.get(REVISION)?.map_or(0, |revision| revision.value());
            for write in writes {
                let value = match write {
                    Write::Put(kept) => Value::Entry(kept.clone()),
                    Write::Remove(id, revision) => Value::Gone { id: Arc::clone(id), revision: *revision },
                };
                last = last.max(value.revision());
                match frame(&value) {
                    Some(framed) => drop(table.insert(&**value.id(), framed.as_slice())?),
                    // What could not be read back would only be damage.
                    None => drop(table.remove(&**value.id())?),
                }
            }
            meta.insert(REVISION, last)?;
            if redb::ReadableTableMetadata::len(&table)? > 2 * MARKS as u64 {
                let is_mark = |_: &str, value: &[u8]| matches!(unframe(value), Some((Value::Gone { .. }, _)));
                table.retain(|id, value| !is_mark(id, value))?;
            }
        }
        transaction.commit()?;
        Ok(())
    }
}

impl Store for FileStore {
    fn commit(&mut self, writes: &[Write]) -> Result<(), StoreError> {
        let database = match self.database.take() {
            Some(database) => database,
            None => self.reopen()?,
        };
        Self::write(&database, writes).map_err(|error| failed(&self.path, &error))?;
        self.database = Some(database);
        Ok(())
    }
}

fn database(path: &Path) -> Result<Database, DatabaseError> {
    Database::builder().set_cache_size(CACHE).set_check_integrity_on_open(true).create(path)
}

enum Trouble {
    Damaged(String),
    Other(StoreError),
}

impl Trouble {
    fn of(path: &Path, error: DatabaseError) -> Self {
        match error {
            DatabaseError::Storage(StorageError::Corrupted(why)) => Self::Damaged(why),
            DatabaseError::RepairAborted => Self::Damaged("it could not be repaired".to_owned()),
            DatabaseError::Storage(StorageError::Io(error))
                if matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) =>
            {
                Self::Damaged(error.to_string())
            }
            DatabaseError::DatabaseAlreadyOpen => {
                Self::Other(StoreError(format!("{}: another process has this registry open", path.display())))
            }
            error => Self::Other(failed(path, &error)),
        }
    }
}

fn failed(path: &Path, error: &dyn fmt::Display) -> StoreError {
    StoreError(format!("{}: {error}", path.display()))
}

/// A folder that only the gateway's user may look into, where there is none.
fn private_folder(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// Metadata may say what not everybody on the machine should read.
fn private(path: &Path) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let _ = fs::set_permissions(path, fs::Permissions::from_mode(0o600));
    }
}

fn frame(value: &Value) -> Option<Vec<u8>> {
    let text = serde_json::to_vec(value).ok().filter(|text| text.len() <= LONGEST)?;
    let length = u32::try_from(text.len()).ok()?;
    let mut framed = Vec::with_capacity(MAGIC.len() + 4 + SUM + text.len());
    framed.extend_from_slice(MAGIC);
    framed.extend_from_slice(&length.to_le_bytes());
    framed.extend_from_slice(Sha256::digest(&text).get(..SUM)?);
    framed.extend_from_slice(&text);
    Some(framed)
}

/// The value that begins here, and its length.
fn unframe(bytes: &[u8]) -> Option<(Value, usize)> {
    let rest = bytes.strip_prefix(MAGIC)?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok().filter(|length| *length <= LONGEST)?;
    let (sum, rest) = rest.split_at_checked(SUM)?;
    let text = rest.get(..length)?;
    if Sha256::digest(text).get(..SUM) != Some(sum) {
        return None;
    }
    let value = serde_json::from_slice(text).ok()?;
    Some((value, MAGIC.len() + 4 + SUM + length))
}

/// All values that can be found, wherever they are.
fn find_values(bytes: &[u8]) -> Vec<Value> {
    let mut values = Vec::new();
    let mut rest = bytes;
    while let Some(at) = memchr::memmem::find(rest, MAGIC) {
        rest = rest.get(at..).unwrap_or_default();
        let skip = match unframe(rest) {
            Some((value, length)) => {
                values.push(value);
                length
            }
            None => MAGIC.len(),
        };
        rest = rest.get(skip..).unwrap_or_default();
    }
    values
}
