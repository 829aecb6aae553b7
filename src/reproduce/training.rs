//! One training behind the cells, and what else its network is measured for.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::experiment::{Experiment, Row};
use super::state::{Scores, State};
use crate::calibration::Metrics;
use crate::config::Config;
use crate::data::Splits;
use crate::train::checkpoint::write_atomically;
use crate::train::run_folder::{Progress, RunFolder};
use crate::train::trained::Trained;
use crate::{Error, Result};

/// Masks drawn for a row of [`Row::FreshMask`], each for a measurement of its own.
const FRESH_MASKS: usize = 10;

/// One training.
#[derive(Clone, Debug)]
pub struct Training {
    /// DATASET-NETWORK-METHOD-SPARSITY-sSEED, with what is not usual of recipe and semantics at its end.
    pub name: String,
    /// Everything it depends on.
    pub config: Config,
    /// Where it is.
    pub folder: RunFolder,
    /// The rows that its network is measured for besides its own, by its own way of predicting.
    pub also: Vec<Row>,
    /// What shows it.
    pub experiments: Vec<Experiment>,
}

/// What a network is worth under another way of predicting: a file beside the run.
#[derive(Debug, Serialize, Deserialize)]
struct Remeasured {
    /// The name of the row.
    row: String,
    /// The temperature that was fitted, where one was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    /// On the test images: once, or once for each of several masks.
    test: Vec<Metrics>,
}

impl Training {
    /// Notes that an experiment shows it, and the row that its network is measured for, if that is not its own.
    pub(super) fn show(&mut self, experiment: Experiment, row: Option<Row>) {
        self.also.extend(row.filter(|row| !self.also.contains(row)));
        if !self.experiments.contains(&experiment) {
            self.experiments.push(experiment);
        }
    }

    /// Fails where the folder holds another experiment.
    pub fn check(&self) -> Result<()> {
        if self.folder.progress() == Progress::Absent {
            return Ok(());
        }
        match self.folder.config()?.first_difference(&self.config) {
            None => Ok(()),
            Some(key) => Err(Error::Usage(format!(
                "{} was begun with another {key}: expected the same, or another --out",
                self.folder.path().display()
            ))),
        }
    }

    /// How far the training has come.
    pub fn state(&self) -> Result<State> {
        State::of(&self.folder)
    }

    /// Whether nothing is left to train or to measure.
    pub fn is_done(&self) -> bool {
        self.folder.progress() == Progress::Finished && self.unmeasured().is_empty()
    }

    /// The rows that are not measured yet.
    pub fn unmeasured(&self) -> Vec<Row> {
        let missing = |row: &Row| !self.folder.evaluation(file_name(*row)).is_file();
        self.also.iter().copied().filter(missing).collect()
    }

    /// Measures the trained network for one of its other rows, and keeps the numbers beside the run.
    pub fn measure(&self, row: Row, trained: &mut Trained, splits: &Splits) -> Result<()> {
        let remeasured = match row {
            Row::Method(method) => {
                let measured = trained.measure_as(method, splits)?;
                let temperature = measured.temperature.map(|(temperature, _)| temperature);
                Remeasured { row: row.name().into(), temperature, test: vec![measured.test.metrics] }
            }
            Row::FreshMask => {
                let measured = trained.measure_masked(&splits.test, FRESH_MASKS)?;
                let test = measured.into_iter().map(|evaluation| evaluation.metrics).collect();
                Remeasured { row: row.name().into(), temperature: None, test }
            }
        };
        let path = self.folder.evaluation(file_name(row));
        let because = |what: &str, e: Box<dyn std::error::Error + Send + Sync>| Error::file_because(&path, what, e);
        let text = serde_json::to_string_pretty(&remeasured).map_err(|e| because("cannot be written", e.into()))?;
        std::fs::create_dir_all(path.parent().unwrap_or(Path::new("")))
            .map_err(|e| because("its folder could not be made", e.into()))?;
        write_atomically(&path, (text + "\n").as_bytes())
    }
}

/// Whether a row is another way of predicting with a network that some training gives.
pub(super) fn is_remeasured(row: Row, sparsity: f64) -> bool {
    match row {
        Row::Method(method) => sparsity > 0.0 && method.trained_as() != method,
        Row::FreshMask => true,
    }
}

fn file_name(row: Row) -> &'static str {
    match row {
        Row::Method(method) => method.name(),
        Row::FreshMask => "fresh-mask",
    }
}

/// What a finished run is worth for a row that it was measured for besides its own.
pub(super) fn read_remeasured(folder: &RunFolder, row: Row) -> Result<Option<Scores>> {
    let path = folder.evaluation(file_name(row));
    let text = match std::fs::read_to_string(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        text => text.map_err(|e| Error::file_because(&path, "could not be read", e))?,
    };
    let said: Remeasured =
        serde_json::from_str(&text).map_err(|e| Error::file_because(&path, "is not an evaluation", e))?;
    if said.test.is_empty() {
        return Err(Error::file(&path, "holds no metrics"));
    }
    Ok(Some(Scores::of(&said.test)))
}
