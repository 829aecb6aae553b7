//! Run folders below a path.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::train::run_folder::{Progress, RunFolder};

/// The run folders among and below `dirs`, at any depth: those with a `config.toml`. By path, each once; hidden folders are passed
/// over, and a run folder is not searched for others.
///
/// # Errors
/// A folder that cannot be read, or one of `dirs` without a run.
pub fn find(dirs: &[PathBuf]) -> Result<Vec<RunFolder>> {
    let mut found = Vec::new();
    // Real paths, for links may lead in a circle and two of the folders may hold the same run.
    let mut seen = HashSet::new();
    for dir in dirs {
        search(dir, &mut seen, &mut found)?;
        // Those of a folder inside another one were found with that one.
        if !found.iter().any(|folder: &RunFolder| is_in(folder.path(), dir)) {
            return Err(Error::file(dir, "holds no run: there is no config.toml in it or in a folder of it"));
        }
    }
    Ok(found)
}

fn is_in(path: &Path, dir: &Path) -> bool {
    match (path.canonicalize(), dir.canonicalize()) {
        (Ok(path), Ok(dir)) => path.starts_with(dir),
        _ => false,
    }
}

fn search(dir: &Path, seen: &mut HashSet<PathBuf>, found: &mut Vec<RunFolder>) -> Result<()> {
    let unreadable = |e| Error::file_because(dir, "could not be read", e);
    if !seen.insert(dir.canonicalize().map_err(unreadable)?) {
        return Ok(());
    }
    let folder = RunFolder::new(dir);
    if folder.progress() != Progress::Absent {
        found.push(folder);
        return Ok(());
    }
    let entries = fs::read_dir(dir).map_err(unreadable)?;
    let mut below: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    below.sort();
    let hidden = |path: &Path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
    below.into_iter().filter(|path| !hidden(path) && path.is_dir()).try_for_each(|path| search(&path, seen, found))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::tempdir;

    fn names(dirs: &[PathBuf], below: &Path) -> Vec<String> {
        let found = find(dirs).unwrap();
        let name = |folder: &RunFolder| folder.path().strip_prefix(below).unwrap().display().to_string();
        found.iter().map(name).collect()
    }

    #[test]
    fn runs_are_found_at_any_depth_but_not_in_hidden_folders() {
        let parent = tempdir().unwrap();
        let root = parent.path();
        for run in ["b", "a/deep/er", ".hidden/c", "a/b"] {
            fs::create_dir_all(root.join(run)).unwrap();
            fs::write(root.join(run).join("config.toml"), "").unwrap();
        }
        fs::create_dir(root.join("empty")).unwrap();
        assert_eq!(names(&[root.into()], root), ["a/b", "a/deep/er", "b"]);
        // A folder that is named twice, once by what holds it, gives each run once.
        assert_eq!(names(&[root.join("a/b"), root.into(), root.join("b")], root), ["a/b", "a/deep/er", "b"]);
        let error = find(&[root.into(), root.join("empty")]).unwrap_err().to_string();
        assert!(error.contains("empty: holds no run"), "{error}");
        assert!(find(&[root.join("nowhere")]).unwrap_err().to_string().contains("nowhere: could not be read"));
    }

    #[cfg(unix)]
    #[test]
    fn links_that_lead_in_a_circle_end() {
        let parent = tempdir().unwrap();
        fs::create_dir_all(parent.path().join("run")).unwrap();
        fs::write(parent.path().join("run/config.toml"), "").unwrap();
        std::os::unix::fs::symlink(parent.path(), parent.path().join("again")).unwrap();
        assert_eq!(names(&[parent.path().into()], parent.path()), ["run"]);
    }
}
