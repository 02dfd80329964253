//! Which VM this is: as the file says, or another file, or the machine's name.

use super::Files;
use std::path::Path;

/// Linux keeps the machine's name there.
const HOSTNAME: &str = "/proc/sys/kernel/hostname";

/// The id that `[gateway] vm_id` means: itself, the first line of `file:PATH`, or with the machine's name for
/// `{hostname}`. None where that cannot be read, which the log says; a file that appears is a reason to reload.
pub(super) fn vm_id(written: &str, base: &Path, files: &mut Files) -> Option<String> {
    if let Some(path) = written.strip_prefix("file:") {
        let path = base.join(path);
        let read = files.read(&path).map_err(|error| error.to_string());
        let id = read.and_then(|bytes| first_line(&bytes).ok_or_else(|| "it is empty".to_owned()));
        return id.map_err(|error| tracing::warn!(path = %path.display(), "this VM has no id: {error}")).ok();
    }
    if !written.contains("{hostname}") {
        return Some(written.to_owned());
    }
    // Not watched: who gives the machine another name restarts or reloads.
    let name = std::fs::read(HOSTNAME).ok().and_then(|bytes| first_line(&bytes));
    if name.is_none() {
        tracing::warn!("this VM has no id: the machine's name is unknown");
    }
    Some(written.replace("{hostname}", &name?))
}

fn first_line(bytes: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(bytes);
    let line = text.lines().next().unwrap_or_default().trim();
    (!line.is_empty()).then(|| line.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_stands_there_or_in_a_file_or_is_the_machines_name() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("id"), " a1 \nmore\n").expect("a file");
        std::fs::write(folder.path().join("empty"), "\n").expect("a file");
        let mut files = Files::default();
        let mut id = |written: &str| vm_id(written, folder.path(), &mut files);
        assert_eq!(id("b2").as_deref(), Some("b2"));
        assert_eq!(id("file:id").as_deref(), Some("a1"));
        assert_eq!((id("file:empty"), id("file:none")), (None, None));
        let name = id("{hostname}").expect("this machine has a name");
        assert_eq!(id("x-{hostname}.y"), Some(format!("x-{name}.y")));
        assert_eq!(files.paths().count(), 3, "files are watched, there or not");
    }
}
