//! One run read back from its folder.

use crate::config::Config;
use crate::error::Result;
use crate::train::run_folder::{Progress, RunFolder};
use crate::train::summary::Summary;

/// A run: its folder, its configuration and how far it came.
#[derive(Clone, Debug)]
pub struct Run {
    /// Where it is.
    pub folder: RunFolder,
    /// What was to be done.
    pub config: Config,
    /// What came of it.
    pub state: State,
}

/// How far a run came.
#[derive(Clone, Debug)]
pub enum State {
    /// To its end.
    Finished(Box<Summary>),
    /// It failed for this reason.
    Failed(String),
    /// It was interrupted or still goes on, after so many whole epochs.
    Unfinished(u64),
}

impl Run {
    /// Reads a run folder.
    ///
    /// # Errors
    /// A file of it that cannot be read or is not what it should be.
    pub fn read(folder: RunFolder) -> Result<Self> {
        let config = folder.config()?;
        let state = if folder.progress() == Progress::Finished {
            State::Finished(Box::new(Summary::read(&folder)?))
        } else if let Some(why) = folder.failure()? {
            State::Failed(why)
        } else {
            let ends = folder.log()?.into_iter().filter(|point| point.get("epoch_loss").is_some()).count();
            State::Unfinished(ends as u64)
        };
        Ok(Run { folder, config, state })
    }

    /// Its summary, if it is finished.
    pub fn summary(&self) -> Option<&Summary> {
        match &self.state {
            State::Finished(summary) => Some(summary),
            _ => None,
        }
    }

    /// The name of its folder.
    pub fn name(&self) -> String {
        let path = self.folder.path();
        // A path such as `.` has no name of its own.
        let name = path.canonicalize().ok().and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
        name.unwrap_or_else(|| path.display().to_string())
    }

    /// What keeps it from having a result, as a sentence without its full stop; none for a finished run.
    pub fn lack(&self) -> Option<String> {
        match &self.state {
            State::Finished(_) => None,
            State::Failed(error) => Some(format!("failed: {error}")),
            State::Unfinished(epochs) => Some(format!("unfinished: {epochs} of {} epochs", self.config.epochs())),
        }
    }
}
