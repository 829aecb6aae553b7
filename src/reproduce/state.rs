//! How far a training has come, and the numbers that come of it.

use crate::Result;
use crate::calibration::Metrics;
use crate::train::run_folder::{Progress, RunFolder};
use crate::train::summary::Summary;

/// How far a cell, or a part of it, has come.
#[derive(Clone, Debug, PartialEq)]
pub enum State {
    /// Nothing is there.
    Missing,
    /// Training has begun, and may go on in another process.
    Unfinished,
    /// The last attempt failed, for this reason.
    Failed(String),
    /// There are numbers.
    Measured(Scores),
}

/// What a cell shows of one seed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scores {
    /// A fraction.
    pub accuracy: f64,
    /// ECE of 10 bins, as the paper's.
    pub ece_10: f64,
    /// In nats.
    pub nll: f64,
}

impl State {
    /// That of a run folder.
    ///
    /// # Errors
    /// A result, or the reason of a failure, that cannot be read.
    pub(super) fn of(folder: &RunFolder) -> Result<State> {
        match (folder.progress(), folder.failure()?) {
            (Progress::Finished, _) => Ok(State::Measured(Scores::of(&[Summary::read(folder)?.test]))),
            (_, Some(why)) => Ok(State::Failed(why)),
            (Progress::Unfinished, None) => Ok(State::Unfinished),
            (Progress::Absent, None) => Ok(State::Missing),
        }
    }
}

impl Scores {
    /// The means over several measurements.
    pub(super) fn of(all: &[Metrics]) -> Scores {
        let mean = |of: fn(&Metrics) -> f64| all.iter().map(of).sum::<f64>() / all.len() as f64;
        Scores { accuracy: mean(|m| m.accuracy), ece_10: mean(|m| m.ece_10), nll: mean(|m| m.nll) }
    }
}
