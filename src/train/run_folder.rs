//! A run's folder: its name, its lock, its log.
//!
//! ```text
//! config.toml     everything resolved, enough to repeat the run
//! metrics.jsonl   one object a log point
//! events.out.tfevents.*.cigl   the log for TensorBoard, where asked for
//! summary.json    the final numbers; its presence means that the run is complete
//! checkpoint/     last.safetensors, model.safetensors, snapshot-NNNN.safetensors where the method keeps them
//! plots/          .svg and .png
//! evaluations/    what the network is worth under other ways of predicting, where that was asked for
//! tuning.json     which kernels the layers run on, where --tune measured it
//! failure.json    why the last attempt failed, until the next one
//! ```

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::checkpoint::{is_temporary, write_atomically};
use super::summary::Summary;
use super::tensorboard::Events;
use crate::config::Config;
use crate::error::{Error, Result};

/// Why the last attempt failed.
const FAILURE: &str = "failure.json";

/// A run folder by its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunFolder {
    path: PathBuf,
}

/// How far a run has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// There is no run.
    Absent,
    /// There is a configuration, and maybe a checkpoint.
    Unfinished,
    /// There is a summary.
    Finished,
}

impl RunFolder {
    /// The folder at `path`, which need not exist.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        RunFolder { path: path.into() }
    }

    /// The folder of a finished run, to take something from.
    pub fn finished(path: &Path) -> Result<Self> {
        let folder = RunFolder::new(path);
        match folder.progress() {
            Progress::Finished => Ok(folder),
            Progress::Unfinished => Err(Error::file(path, "is an unfinished run, expected a finished one")),
            Progress::Absent => Err(Error::file(path, "is not a run folder: it has no config.toml and summary.json")),
        }
    }

    /// The usual name of a run: PRESET-METHOD-SPARSITY-sSEED.
    pub fn name(config: &Config) -> String {
        let preset = config.preset.as_deref().unwrap_or("run");
        format!("{preset}-{}-{}-s{}", config.method, config.sparsity, config.seed)
    }

    /// The first of `path`, `path-2`, `path-3` ... that holds no finished run.
    pub fn fresh(path: &Path) -> Self {
        let mut folder = RunFolder::new(path);
        let mut n: u32 = 2;
        while folder.progress() == Progress::Finished {
            let mut name = path.as_os_str().to_owned();
            name.push(format!("-{n}"));
            folder = RunFolder::new(name);
            n += 1;
        }
        folder
    }

    /// The run that is meant when `path` is to be resumed: the one that [`fresh`](Self::fresh) finds unfinished, else that
    /// of `path` itself.
    pub fn resumed(path: &Path) -> Self {
        let folder = RunFolder::fresh(path);
        if folder.progress() == Progress::Unfinished { folder } else { RunFolder::new(path) }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How far the run has come.
    pub fn progress(&self) -> Progress {
        if self.summary().is_file() {
            Progress::Finished
        } else if self.path.join("config.toml").is_file() {
            Progress::Unfinished
        } else {
            Progress::Absent
        }
    }

    /// Its configuration.
    pub fn config(&self) -> Result<Config> {
        Config::read(&self.path.join("config.toml"))
    }

    /// `summary.json`.
    pub fn summary(&self) -> PathBuf {
        self.path.join("summary.json")
    }

    /// The last checkpoint.
    pub fn checkpoint(&self) -> PathBuf {
        self.path.join("checkpoint/last.safetensors")
    }

    /// The result.
    pub fn model(&self) -> PathBuf {
        self.path.join("checkpoint/model.safetensors")
    }

    /// The folder of checkpoints and snapshots.
    pub fn checkpoints(&self) -> PathBuf {
        self.path.join("checkpoint")
    }

    /// The snapshot of an epoch.
    pub fn snapshot(&self, epoch: u64) -> PathBuf {
        self.path.join(format!("checkpoint/snapshot-{epoch:04}.safetensors"))
    }

    /// Which kernels the layers run on, where that was measured.
    pub fn tuning(&self) -> PathBuf {
        self.path.join("tuning.json")
    }

    /// A plot without its ending.
    pub fn plot(&self, name: &str) -> PathBuf {
        self.path.join("plots").join(name)
    }

    /// The log.
    pub fn metrics(&self) -> PathBuf {
        self.path.join("metrics.jsonl")
    }

    /// Makes the folder and writes the configuration.
    pub fn create(&self, config: &Config) -> Result<()> {
        for sub in ["checkpoint", "plots"] {
            let path = self.path.join(sub);
            fs::create_dir_all(&path).map_err(|e| Error::file_because(&path, "could not be made", e))?;
        }
        write_atomically(&self.path.join("config.toml"), config.to_toml().as_bytes())
    }

    /// Takes the folder for this process, as long as the returned file lives, and makes it where there is none.
    ///
    /// # Errors
    /// [`Error::Busy`] while another process has it.
    pub fn lock(&self) -> Result<File> {
        fs::create_dir_all(&self.path).map_err(|e| Error::file_because(&self.path, "could not be made", e))?;
        let path = self.path.join(".lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|e| Error::file_because(&path, "could not be opened", e))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(Error::Busy { path: self.path.clone() }),
            Err(TryLockError::Error(e)) => Err(Error::file_because(&path, "could not be locked", e)),
        }
    }

    /// Why the last attempt to train failed, where it did: one line.
    ///
    /// # Errors
    /// A file that cannot be read or does not say.
    pub fn failure(&self) -> Result<Option<String>> {
        let path = self.path.join(FAILURE);
        let text = match fs::read_to_string(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            text => text.map_err(|e| Error::file_because(&path, "could not be read", e))?,
        };
        let said: Option<Value> = serde_json::from_str(&text).ok();
        match said.as_ref().and_then(|said| said["error"].as_str()) {
            Some(why) => Ok(Some(why.into())),
            None => Err(Error::file(&path, "does not say why a run failed, expected {\"error\": ...}")),
        }
    }

    /// Notes why an attempt failed. Only for the holder of the lock.
    pub fn record_failure(&self, error: &Error) -> Result<()> {
        let text = json!({ "error": error.chain() });
        write_atomically(&self.path.join(FAILURE), format!("{text}\n").as_bytes())
    }

    /// Forgets the failure of the last attempt. Only for the holder of the lock.
    pub fn forget_failure(&self) -> Result<()> {
        let path = self.path.join(FAILURE);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::file_because(&path, "could not be removed", e))
            }
            _ => Ok(()),
        }
    }

    /// What the network is worth under another way of predicting, by its name.
    pub fn evaluation(&self, name: &str) -> PathBuf {
        self.path.join("evaluations").join(format!("{name}.json"))
    }

    /// Removes what processes that were killed while they wrote have left. Only for the holder of the lock.
    pub fn remove_temporaries(&self) -> Result<()> {
        for folder in [self.path.clone(), self.checkpoints(), self.path.join("plots")] {
            let entries = fs::read_dir(&folder).map_err(|e| Error::file_because(&folder, "could not be read", e))?;
            let mut paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
            let left = paths.try_for_each(|path| if is_temporary(&path) { fs::remove_file(path) } else { Ok(()) });
            left.map_err(|e| Error::file_because(&folder, "a temporary file in it could not be removed", e))?;
        }
        Ok(())
    }

    /// Opens the log for appending, without what was logged from step `from` on or only half written; `tensorboard`: with a copy
    /// of it for TensorBoard, anew.
    pub fn open_log(&self, from: u64, tensorboard: bool) -> Result<Log> {
        let path = self.metrics();
        let kept: String = lines(&path)?
            .iter()
            .filter(|value| value["step"].as_u64().is_some_and(|step| step < from))
            .map(|value| format!("{value}\n"))
            .collect();
        write_atomically(&path, kept.as_bytes())?;
        let file = OpenOptions::new()
            .append(true)
            .open(&path)
            .map_err(|e| Error::file_because(&path, "could not be opened", e))?;
        let events = if tensorboard { Some(Events::begin(self)?) } else { None };
        Ok(Log { path, file, events })
    }

    /// All log points.
    pub fn log(&self) -> Result<Vec<Value>> {
        lines(&self.metrics())
    }
}

fn lines(path: &Path) -> Result<Vec<Value>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(vec![]),
        Err(e) => Err(Error::file_because(path, "could not be read", e)),
    }
}

/// An open `metrics.jsonl`.
pub struct Log {
    path: PathBuf,
    file: File,
    events: Option<Events>,
}

impl Log {
    /// Appends one object in one write, so that a crash leaves whole lines and at most one torn one at the end.
    pub fn append(&mut self, point: &Value) -> Result<()> {
        self.file
            .write_all(format!("{point}\n").as_bytes())
            .map_err(|e| Error::file_because(&self.path, "could not be written", e))?;
        self.events.as_mut().map_or(Ok(()), |events| events.append(point))
    }

    /// Adds the final metrics to what is kept for TensorBoard.
    pub fn finish(&mut self, summary: &Summary) -> Result<()> {
        self.events.as_mut().map_or(Ok(()), |events| events.finish(summary))
    }

    /// Returns once all points are on the disk.
    pub fn sync(&mut self) -> Result<()> {
        self.file.sync_data().map_err(|e| Error::file_because(&self.path, "could not be written", e))
    }
}
