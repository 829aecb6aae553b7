//! One error type, grouped by what the caller can do about it.

use std::path::{Path, PathBuf};

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong. Each message is one line that names the thing and both sides of a mismatch; causes are `source()`s.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting that cannot be met: mend the command or the configuration.
    #[error("{0}")]
    Usage(String),
    /// An op was given shapes it cannot take: mend the network.
    #[error("{op}: {detail}")]
    Shape {
        /// The op's name.
        op: &'static str,
        /// What it got and what it takes.
        detail: String,
    },
    /// A file is missing, truncated or not what it should be: mend the file.
    #[error("{}: {detail}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What was wrong and what was expected.
        detail: String,
        /// The cause, where there is one.
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// The loss is no longer a number: lower the learning rate, or look at the data.
    #[error("loss is {loss} at step {step}: the first non-finite values are in {layer}")]
    Diverged {
        /// The loss itself, NaN or infinite.
        loss: f32,
        /// 0-based step.
        step: u64,
        /// The first layer in forward order whose output or weights are not finite.
        layer: String,
    },
    /// Another process holds the lock of a run's folder: wait, or leave the run to it.
    #[error("{}: another process is working on this run", path.display())]
    Busy {
        /// The run's folder.
        path: PathBuf,
    },
    /// A signal ended the run; a checkpoint was saved.
    #[error("stopped by signal {signal}; the same command goes on from the last checkpoint (train with --resume)")]
    Interrupted {
        /// The signal's number: 2 is Ctrl-C, 15 SIGTERM.
        signal: i32,
    },
    /// A GPU, its driver or a kernel failed.
    #[error("{0}")]
    Device(String),
    /// The machine has too little of something.
    #[error("{0}")]
    Resources(String),
}

impl Error {
    /// The message with its chain of causes, on one line.
    pub fn chain(&self) -> String {
        let mut line = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(next) = cause {
            line += &format!(": {next}");
            cause = next.source();
        }
        line.replace('\n', " ")
    }

    /// A file error without a cause.
    pub fn file(path: impl AsRef<Path>, detail: impl Into<String>) -> Self {
        Error::File { path: path.as_ref().into(), detail: detail.into(), source: None }
    }

    /// A file error with its cause.
    pub fn file_because(
        path: impl AsRef<Path>,
        detail: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Error::File { path: path.as_ref().into(), detail: detail.into(), source: Some(source.into()) }
    }

    /// A shape error.
    pub fn shape(op: &'static str, detail: impl Into<String>) -> Self {
        Error::Shape { op, detail: detail.into() }
    }
}
