//! The trainings behind the cells, each done once however many cells show it.

use std::path::{Path, PathBuf};

use toml::Value;

use super::experiment::{Experiment, Row, Setting};
use super::scale::Scale;
use crate::calibration::Metrics;
use crate::config::{Assignment, Config, Device, Method, Recipe, Semantics, Settings};
use crate::data::Splits;
use crate::train::checkpoint::write_atomically;
use crate::train::run_folder::{Progress, RunFolder};
use crate::train::summary::Summary;
use crate::train::trained::Trained;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// Masks drawn for a row of [`Row::FreshMask`], each for a measurement of its own.
const FRESH_MASKS: usize = 10;

/// What is asked for: how the experiments are run, and where.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How much of them.
    pub scale: Scale,
    /// Whose hyper-parameters.
    pub recipe: Recipe,
    /// What the random mask does in a step.
    pub semantics: Semantics,
    /// Seeds from 0 on.
    pub seeds: u64,
    /// In place of the scale's own.
    pub sparsities: Option<Vec<f64>>,
    /// The folder with the data sets.
    pub data: Option<PathBuf>,
    /// Where the work is done.
    pub device: Device,
    /// The folder of everything: run folders below `runs`, tables and figures beside it.
    pub out: PathBuf,
}

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

impl Plan {
    /// The sparsities of a block that are run, in rising order.
    pub fn sparsities(&self, published: &[f64]) -> Vec<f64> {
        let mut all = match &self.sparsities {
            Some(asked) => asked.clone(),
            None => self.scale.sparsities(published),
        };
        all.sort_by(f64::total_cmp);
        all.dedup();
        all
    }

    /// Every training that the experiments need, in their order, each once.
    ///
    /// # Errors
    /// A configuration that contradicts itself, such as a recipe that a preset does not have.
    pub fn trainings(&self, experiments: &[Experiment]) -> Result<Vec<Training>> {
        let mut all: Vec<Training> = vec![];
        for &experiment in experiments {
            for block in experiment.blocks() {
                let Some(setting) = self.scale.setting(block.setting) else { continue };
                for sparsity in self.sparsities(&block.sparsities) {
                    for seed in 0..self.seeds {
                        for &row in &block.rows {
                            let name = self.name(setting, row, sparsity, seed);
                            let at = match all.iter().position(|known| known.name == name) {
                                Some(at) => at,
                                None => {
                                    all.push(self.training(setting, row, sparsity, seed)?);
                                    all.len() - 1
                                }
                            };
                            let training = &mut all[at];
                            if remeasured(row, sparsity) && !training.also.contains(&row) {
                                training.also.push(row);
                            }
                            if !training.experiments.contains(&experiment) {
                                training.experiments.push(experiment);
                            }
                        }
                    }
                }
            }
        }
        Ok(all)
    }

    fn name(&self, setting: Setting, row: Row, sparsity: f64, seed: u64) -> String {
        let (dataset, network, method) = (setting.dataset.name(), setting.network.name(), row.trained_as(sparsity));
        let recipe = if self.recipe == Recipe::Rigl { "-rigl-recipe" } else { "" };
        let semantics = if self.is_official(method) { "-official" } else { "" };
        format!("{dataset}-{network}-{method}-{sparsity}-s{seed}{recipe}{semantics}")
    }

    /// Only methods with a random mask have semantics.
    fn is_official(&self, method: Method) -> bool {
        method.ingredients().random_mask && self.semantics == Semantics::Official
    }

    /// The folder of a training.
    fn folder(&self, name: &str) -> RunFolder {
        RunFolder::new(self.out.join("runs").join(name))
    }

    fn training(&self, setting: Setting, row: Row, sparsity: f64, seed: u64) -> Result<Training> {
        let (name, method) = (self.name(setting, row, sparsity, seed), row.trained_as(sparsity));
        let mut settings = Settings::new(Some(self.scale.preset(setting)), None, &self.scale.assignments(setting)?)?;
        let mut set = |key: &str, value: Value| Assignment::new(key, value).map(|set| settings.set(set));
        set("method", method.name().into())?;
        set("sparsity", sparsity.into())?;
        set("seed", (seed as i64).into())?;
        set("device", self.device.to_string().into())?;
        if self.is_official(method) {
            set("random_mask.semantics", "official".into())?;
        }
        set("train.recipe", if self.recipe == Recipe::Cigl { "cigl" } else { "rigl" }.into())?;
        if let Some(dir) = self.data.as_ref().filter(|_| self.scale != Scale::Smoke) {
            set("data.dir", dir.to_string_lossy().into_owned().into())?;
        }
        // The ablation without averaging is measured on CigL's own snapshots, wherever it is shown.
        let ablated = Experiment::Fig5.blocks().iter().any(|block| self.scale.setting(block.setting) == Some(setting));
        if method == Method::Cigl && ablated {
            set("averaging.keep_snapshots", true.into())?;
        }
        let folder = self.folder(&name);
        Ok(Training { name, config: settings.resolve()?, folder, also: vec![], experiments: vec![] })
    }

    /// How far a row has come at a sparsity, for each seed.
    ///
    /// # Errors
    /// A result that cannot be read.
    pub fn states(&self, setting: Setting, row: Row, sparsity: f64) -> Result<Vec<State>> {
        (0..self.seeds)
            .map(|seed| {
                let folder = self.folder(&self.name(setting, row, sparsity, seed));
                let state = state(&folder)?;
                match (&state, remeasured(row, sparsity)) {
                    (State::Measured(_), true) => match read_remeasured(&folder, row)? {
                        Some(scores) => Ok(State::Measured(scores)),
                        None => Ok(folder.failure()?.map_or(State::Unfinished, State::Failed)),
                    },
                    _ => Ok(state),
                }
            })
            .collect()
    }
}

impl Training {
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
        state(&self.folder)
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
fn remeasured(row: Row, sparsity: f64) -> bool {
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

fn state(folder: &RunFolder) -> Result<State> {
    match (folder.progress(), folder.failure()?) {
        (Progress::Finished, _) => Ok(State::Measured(Scores::of(&[Summary::read(folder)?.test]))),
        (_, Some(why)) => Ok(State::Failed(why)),
        (Progress::Unfinished, None) => Ok(State::Unfinished),
        (Progress::Absent, None) => Ok(State::Missing),
    }
}

fn read_remeasured(folder: &RunFolder, row: Row) -> Result<Option<Scores>> {
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

impl Scores {
    /// The means over several measurements.
    fn of(all: &[Metrics]) -> Scores {
        let mean = |of: fn(&Metrics) -> f64| all.iter().map(of).sum::<f64>() / all.len() as f64;
        Scores { accuracy: mean(|m| m.accuracy), ece_10: mean(|m| m.ece_10), nll: mean(|m| m.nll) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Epoch, Keep, NetworkName};
    use crate::data::Source;

    fn plan(scale: Scale) -> Plan {
        Plan {
            scale,
            recipe: Recipe::Cigl,
            semantics: Semantics::Paper,
            seeds: scale.seeds(),
            sparsities: None,
            data: Some("/data".into()),
            device: Device::Cpu,
            out: "out".into(),
        }
    }

    fn count(scale: Scale, experiments: &[Experiment]) -> usize {
        plan(scale).trainings(experiments).unwrap().len()
    }

    // Three seeds; table 3 has two networks at four sparsities, each with RigL, W-DP (MC-DP shares it) and CigL.
    #[test]
    fn each_training_is_there_once_however_many_experiments_show_it() {
        use Experiment::*;
        assert_eq!(count(Scale::Paper, &[Table3]), 3 * 2 * 4 * 3);
        assert_eq!(count(Scale::Paper, &[Table2, Table3]), 3 * 2 * 4 * 3);
        assert_eq!(count(Scale::Paper, &[Table1]), 3 * 2 * 4 * 2);
        assert_eq!(count(Scale::Paper, &[Fig3]), 3 * 2 * 2);
        // RigL + TS and CigL without averaging are nobody's own.
        assert_eq!(count(Scale::Paper, &[Fig4, Fig5]), 3 * 4 * (4 + 1));
        // Four sparsities of RigL and the dense network.
        assert_eq!(count(Scale::Paper, &[AppendixC]), 3 * 5);
        assert_eq!(count(Scale::Short, &[Table3, Fig5]), 2 * 4);
        assert_eq!(count(Scale::Short, &[Fig3]), 0);
    }

    // design/cli.md's definition of the scale, on each data set's own images.
    #[test]
    fn the_short_scale_is_wrn_on_the_first_3500_images() {
        for training in plan(Scale::Short).trainings(&Experiment::ALL).unwrap() {
            let c = &training.config;
            assert_eq!((c.network.name, c.train.epochs, c.sparse.delta_t), (NetworkName::Wrn22_2, 40, 20));
            assert_eq!((c.data.train_limit, c.data.validation, c.data.test_limit), (Some(3500), 500, Some(2000)));
            assert_eq!((c.first_snapshot(), c.averaging.start, c.seed), (32, Epoch(32.0), 0));
            assert!(c.method == Method::Dense || [0.9, 0.95].contains(&c.sparsity));
            assert_eq!(training.name.starts_with("cifar100-"), c.data.dataset == Source::Cifar100);
        }
    }

    // method.md section 5: recipe cigl, semantics paper, keep .9, as published.
    #[test]
    fn the_papers_scale_changes_nothing_in_the_presets() {
        for training in plan(Scale::Paper).trainings(&Experiment::ALL).unwrap() {
            let c = &training.config;
            let expected = if c.data.dataset == Source::ImageNet { 100 } else { 250 };
            assert_eq!((c.train.epochs, c.data.train_limit, c.sparse.delta_t), (expected, None, 100));
            assert_eq!(c.random_mask.keep, Keep { default: 0.9, layers: Default::default() });
            assert_eq!((c.train.recipe, c.random_mask.semantics), (Recipe::Cigl, Semantics::Paper));
            if (c.data.dataset, c.network.name) == (Source::Cifar100, NetworkName::Resnet50) {
                assert_eq!((c.train.lr, c.train.lr_factor), (0.1, 0.6));
            }
        }
        let rigl = Plan { recipe: Recipe::Rigl, sparsities: Some(vec![0.5]), ..plan(Scale::Paper) };
        for training in rigl.trainings(&[Experiment::Table1]).unwrap() {
            assert_eq!((training.config.train.lr_factor, training.config.sparsity), (0.2, 0.5));
            assert!(training.name.ends_with("-rigl-recipe"));
        }
    }
}
