//! The kernel sources.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::nvrtc::{Source, includes};
use crate::{Result, read};

/// The folder `kernels`: *.cu are compiled, each on its own, *.cuh are what they include.
pub(crate) struct Kernels {
    folder: PathBuf,
    texts: BTreeMap<String, String>,
}

impl Kernels {
    /// Reads the folder.
    pub(crate) fn read(folder: &Path) -> Result<Self> {
        let entries = fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        let mut texts = BTreeMap::new();
        for path in entries.flatten().map(|entry| entry.path()) {
            if path.extension().is_some_and(|e| e == "cu" || e == "cuh") {
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let text = String::from_utf8(read(&path)?).map_err(|e| format!("{}: {e}", path.display()))?;
                texts.insert(name, text);
            }
        }
        Ok(Kernels { folder: folder.into(), texts })
    }

    /// The names of the kernel files, in order.
    pub(crate) fn files(&self) -> Vec<&str> {
        self.names(".cu")
    }

    /// The names of the headers, in order.
    pub(crate) fn headers(&self) -> Vec<&str> {
        self.names(".cuh")
    }

    fn names(&self, extension: &str) -> Vec<&str> {
        self.texts.keys().map(String::as_str).filter(|name| name.ends_with(extension)).collect()
    }

    /// Where a source lies.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// A file and the headers it includes.
    pub(crate) fn unit(&self, file: &str) -> Option<(Source<'_>, Vec<Source<'_>>)> {
        let text = |name: &str| self.texts.get(name).map(String::as_str);
        let (file, source) = self.texts.get_key_value(file)?;
        let headers = includes(file, text).into_iter();
        Some((
            (file, source),
            headers.filter_map(|name| self.texts.get_key_value(name)).map(|(n, t)| (n.as_str(), t.as_str())).collect(),
        ))
    }
}
