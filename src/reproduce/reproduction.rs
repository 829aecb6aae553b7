//! What is asked for, and the trainings that follow from it.

use std::path::PathBuf;

use toml::Value;

use super::experiment::{Experiment, Row, Setting};
use super::scale::Scale;
use super::state::State;
use super::training::{Training, is_remeasured, read_remeasured};
use crate::Result;
use crate::config::{Assignment, Device, Method, Recipe, Semantics, Settings};
use crate::train::run_folder::RunFolder;

/// What is asked for: how the experiments are run, and where.
#[derive(Clone, Debug)]
pub struct Reproduction {
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

impl Reproduction {
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

    /// Every training that the experiments need, each once: all of the first seed, then of the next.
    ///
    /// # Errors
    /// A configuration that contradicts itself, such as a recipe that a preset does not have.
    pub fn trainings(&self, experiments: &[Experiment]) -> Result<Vec<Training>> {
        let mut all: Vec<Training> = vec![];
        for seed in 0..self.seeds {
            let of_seed = all.len();
            for &experiment in experiments {
                for (setting, row, sparsity) in self.cells(experiment) {
                    let name = self.name(setting, row, sparsity, seed);
                    let known = all[of_seed..].iter().position(|training| training.name == name);
                    if known.is_none() {
                        all.push(self.training(setting, row, sparsity, seed)?);
                    }
                    let at = known.map_or(all.len() - 1, |at| of_seed + at);
                    all[at].show(experiment, is_remeasured(row, sparsity).then_some(row));
                }
            }
        }
        Ok(all)
    }

    /// The cells of an experiment that are run.
    fn cells(&self, experiment: Experiment) -> Vec<(Setting, Row, f64)> {
        let mut cells = vec![];
        for block in experiment.blocks() {
            let Some(setting) = self.scale.setting(block.setting) else { continue };
            for sparsity in self.sparsities(&block.sparsities) {
                cells.extend(block.rows.iter().map(|&row| (setting, row, sparsity)));
            }
        }
        cells
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
            set("random_mask.semantics", self.semantics.name().into())?;
        }
        set("train.recipe", self.recipe.name().into())?;
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
                let state = State::of(&folder)?;
                match (&state, is_remeasured(row, sparsity)) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Epoch, Keep, NetworkName};
    use crate::data::Source;

    fn at(scale: Scale) -> Reproduction {
        Reproduction {
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
        at(scale).trainings(experiments).unwrap().len()
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
        for training in at(Scale::Short).trainings(&Experiment::ALL).unwrap() {
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
        for training in at(Scale::Paper).trainings(&Experiment::ALL).unwrap() {
            let c = &training.config;
            let expected = if c.data.dataset == Source::ImageNet { 100 } else { 250 };
            assert_eq!((c.train.epochs, c.data.train_limit, c.sparse.delta_t), (expected, None, 100));
            assert_eq!(c.random_mask.keep, Keep { default: 0.9, layers: Default::default() });
            assert_eq!((c.train.recipe, c.random_mask.semantics), (Recipe::Cigl, Semantics::Paper));
            if (c.data.dataset, c.network.name) == (Source::Cifar100, NetworkName::Resnet50) {
                assert_eq!((c.train.lr, c.train.lr_factor), (0.1, 0.6));
            }
        }
        let rigl = Reproduction { recipe: Recipe::Rigl, sparsities: Some(vec![0.5]), ..at(Scale::Paper) };
        for training in rigl.trainings(&[Experiment::Table1]).unwrap() {
            assert_eq!((training.config.train.lr_factor, training.config.sparsity), (0.2, 0.5));
            assert!(training.name.ends_with("-rigl-recipe"));
        }
    }
}
