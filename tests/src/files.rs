//! Files that a gateway watches.

use std::path::Path;

/// Puts a file in another's place, as tools do it that want readers to see the old one or the new
/// one, and nothing in between.
pub fn replace(file: &Path, content: impl AsRef<[u8]>) {
    let beside = file.with_extension("new");
    std::fs::write(&beside, content).expect("the new file is written");
    std::fs::rename(&beside, file).expect("it takes the old one's place");
}
