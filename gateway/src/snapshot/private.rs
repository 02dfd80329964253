//! Files for the gateway's user only: keys are in them. What was kept outlasts a power cut.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

/// As much as is written to see whether there is room: more than a key with its certificates takes.
const ROOM: usize = 32 * 1024;

/// Replaces a file as a whole, and makes the folders above it; all of it for the gateway's user only. Whoever
/// reads at the same time gets the old one or the new one, whichever process writes; and so does whoever reads
/// after a power cut, once this has returned the new one.
///
/// # Errors
/// Fails as the system does.
pub fn write_private(path: &Path, content: &(impl AsRef<[u8]> + ?Sized)) -> io::Result<()> {
    let folder = folder_of(path);
    make_private(folder)?;
    let new = beside(path);
    let write = || -> io::Result<()> {
        let mut file = create(&new)?;
        file.write_all(content.as_ref())?;
        file.sync_all()?;
        drop(file);
        fs::rename(&new, path)?;
        sync(folder)
    };
    write().inspect_err(|_| forget(&new))
}

/// Sees whether [`write_private`] would work for this file, by writing another beside it.
///
/// # Errors
/// Fails as that would.
pub fn try_private(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    make_private(folder_of(path))?;
    let new = beside(path);
    let written = create(&new).and_then(|mut file| file.write_all(&[0; ROOM]));
    forget(&new);
    written
}

/// Of another name for each process, and each time.
fn beside(path: &Path) -> PathBuf {
    static NUMBERS: AtomicU64 = AtomicU64::new(0);
    let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
    path.with_extension(format!("new-{}-{number}", std::process::id()))
}

fn create(new: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(new)
}

fn forget(new: &Path) {
    // What is left of it is of no use to anybody.
    let _ = fs::remove_file(new);
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn make_private(folder: &Path) -> io::Result<()> {
    let new: Vec<&Path> = folder.ancestors().take_while(|folder| !folder.exists()).collect();
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    // A folder is kept by the one above it.
    new.iter().try_for_each(|new| sync(folder_of(new)))
}

/// What became of names in a folder is kept with the folder.
fn sync(folder: &Path) -> io::Result<()> {
    match File::open(folder)?.sync_all() {
        // Some file systems of other machines have no such thing for folders, and say so by this.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
        synced => synced,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("it is there").permissions().mode() & 0o777
    }

    #[test]
    fn a_file_is_replaced_as_a_whole_and_for_its_user_only() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a/b/key.pem");
        for text in ["one", "another"] {
            try_private(&path).expect("it may be written");
            write_private(&path, text).expect("it is written");
            assert_eq!(fs::read_to_string(&path).expect("a file"), text);
        }
        let folders = [folder.path().join("a"), folder.path().join("a/b")];
        assert_eq!((mode(&path), folders.map(|folder| mode(&folder))), (0o600, [0o700; 2]));
        let files = fs::read_dir(folder_of(&path)).expect("a folder").count();
        assert_eq!(files, 1, "nothing is left beside it");
    }

    #[test]
    fn what_could_not_be_written_is_told_before_it_matters() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("file"), "").expect("a file");
        fs::create_dir(folder.path().join("key.pem")).expect("a folder");
        for path in ["file/key.pem", "file/below/key.pem", "key.pem"] {
            let path = folder.path().join(path);
            let tried = try_private(&path).map_err(|error| error.kind());
            assert_eq!(tried, write_private(&path, "x").map_err(|error| error.kind()), "{}", path.display());
            assert!(tried.is_err(), "{}", path.display());
        }
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 2, "nothing is left");
    }
}
